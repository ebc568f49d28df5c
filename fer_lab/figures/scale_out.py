"""What notebook 09 draws: distances between gradients over several powers of ten."""

from collections.abc import Mapping

import seaborn as sns
from matplotlib.figure import Figure

from fer_lab.figures.style import SERIES, chart, plain_rows, styled

LEAST = 1e-8


@styled
def gradient_distances(distances: Mapping[str, float], title: str) -> Figure:
    """Name → relative distance from the gradient of the whole batch, as bars on a logarithmic scale.

    The bars begin at 1e-8; a smaller distance has no bar.
    """
    fig, ax = chart(6.5, 0.45 * len(distances) + 0.85)
    ax.set_xscale("log")
    values = [max(value, LEAST) for value in distances.values()]
    sns.barplot(
        x=values, y=list(distances), hue=list(distances), palette=list(SERIES[: len(distances)]),
        saturation=1, width=0.6, errorbar=None, legend=False, ax=ax,
    )  # fmt: skip
    ax.set(xlim=(LEAST, 10), xlabel="distance from the gradient of the whole batch", ylabel="", title=title)
    plain_rows(ax)
    return fig
