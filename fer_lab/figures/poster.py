"""What notebook 04 draws: cells behind a token, and landmarks that a network found."""

from collections.abc import Mapping, Sequence

import numpy as np
import seaborn as sns
from matplotlib.figure import Figure

from fer_lab.figures.pictures import Images, grid_of_faces, landmark_array, landmark_dots
from fer_lab.figures.style import SHADES, SOFT, new_figure, styled

TRUE = "#33ddff"
TITLE = "Landmarks that the network found, and their mean error on each face"


@styled
def token_layouts(cells: Mapping[str, Images]) -> Figure:
    """Layout → number of channels [h,w] of each cell that one token is made of: a panel a layout.

    Each panel has its own scale. Rows and columns are counted from 0.
    """
    fig = new_figure(3.6 * len(cells), 3.2)
    for ax, (name, counts) in zip(fig.subplots(1, len(cells), squeeze=False)[0], cells.items(), strict=True):
        bar = {"label": "channels of this cell in the token", "shrink": 0.75}
        sns.heatmap(
            np.asarray(counts), ax=ax, cmap=SHADES, vmin=0, square=True, cbar_kws=bar,
            linewidths=0.4, linecolor="#f4f4f4",
        )  # fmt: skip
        ax.set_title(name, fontsize=9.5)
        ax.set(xlabel="column", ylabel="row")
        ax.tick_params(labelsize=7, labelrotation=0, length=0)
    return fig


@styled
def landmark_predictions(images: Images, found: Images, truth: Images, titles: Sequence[str]) -> Figure:
    """Faces uint8 [N,3,S,S] with the landmarks that were found, and a line from each to its true place.

    `found, truth`: [N,68,2], x and y as shares 0…1 of the image's side.
    """
    points, places = (landmark_array(some, len(images)) for some in (found, truth))
    fig, ax, corners = grid_of_faces(images, titles, columns=6, cell=1.4, bottom=0.22, title=TITLE)
    for i, corner in enumerate(corners):
        ends = np.stack([points[i], places[i]], axis=1) + corner
        ax.plot(*ends.transpose(2, 1, 0), color=TRUE, linewidth=1.3, solid_capstyle="butt")
        landmark_dots(ax, points[i] + corner)
    what = "dots: found; blue lines lead from there to the true places"
    ax.text(0, corners[-1, 1] + 1.12, what, va="center", fontsize=8, color=SOFT)
    return fig
