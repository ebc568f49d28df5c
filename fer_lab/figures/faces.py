"""What notebook 01 draws of rendered faces: landmarks, and a layout of pixels in two colourings."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from fer_lab.figures.charts import Frame, cloud
from fer_lab.figures.pictures import STROKES, Images, pictures_of
from fer_lab.figures.style import HALO, SERIES, Labels, chart, class_marks, new_figure, styled


@styled
def landmarks_on_face(image: Images, points: Images) -> Figure:
    """68 landmarks [68,2] (x, y in pixels, iBUG order) on a face uint8 [3,S,S], joined by part."""
    picture, points = pictures_of(image)[0], np.asarray(points, dtype=float)
    if points.shape != (68, 2):
        raise ValueError(f"expected 68 landmarks [68,2], got {list(points.shape)}")
    fig, ax = chart(4.9, 4.0)
    size = picture.shape[0]
    ax.imshow(picture, extent=(0, size, size, 0), interpolation="bicubic")
    line: dict[str, Any] = {"marker": "o", "markersize": 3.2, "linewidth": 1.2, "path_effects": HALO}
    for (name, strokes), color in zip(STROKES.items(), SERIES, strict=False):
        for i, (first, last, closed) in enumerate(strokes):
            chosen = [*range(first, last + 1), *([first] if closed else [])]
            ax.plot(*points[chosen].T, color=color, label=name if i == 0 else None, **line)
    note: dict[str, Any] = {"textcoords": "offset points", "va": "center", "fontsize": 8, "path_effects": HALO}
    for left, right in ((0, 16), (36, 45), (48, 54)):
        ax.annotate(str(left), points[left], (-5, 0), ha="right", **note)
        ax.annotate(str(right), points[right], (5, 0), ha="left", **note)
    ax.set(xlim=(0, size), ylim=(size, 0), xticks=[], yticks=[], title="68 landmarks, iBUG order")
    ax.spines[:].set_visible(False)
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return fig


@styled
def two_colourings(xy: np.ndarray, labels: Labels, classes: Sequence[str], tones: np.ndarray) -> Figure:
    """The same points [N,2] twice: by expression, and by skin tone [N], 0 light to 1 dark."""
    fig = new_figure(9.0, 4.2)
    left, right = fig.subplots(1, 2)
    cloud(left, Frame(xy), labels, classes, size=9)
    marks = {"handles": class_marks(classes), "ncols": 4, "columnspacing": 0.8, "handletextpad": 0.1}
    left.legend(loc="upper center", bbox_to_anchor=(0.5, 0.0), **marks)
    left.set_title("Coloured by expression")
    dots = right.scatter(xy[:, 0], xy[:, 1], s=9, c=tones, cmap="copper_r", linewidths=0)
    right.set(title="Coloured by skin tone", xticks=[], yticks=[])
    fig.colorbar(dots, ax=right, label="0 light … 1 dark", shrink=0.8)
    return fig
