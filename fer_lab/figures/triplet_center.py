"""What notebook 03 draws: the negatives of each strategy."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from fer_lab.data.expressions import colors
from fer_lab.figures import style
from fer_lab.figures.charts import STAR


@style.styled
def negatives_in_plane(
    x: np.ndarray, label: int, centers: np.ndarray, chosen: Mapping[str, np.ndarray], classes: Sequence[str]
) -> Figure:
    """A face [2], the centers [C,2], and the negative that each strategy builds in the plane: a panel each.

    `chosen`: strategy → int [2], whose center each coordinate comes from (`TripletCenterLoss.choose`); thin
    lines lead there. The negative is a ring, so that a center under it is seen.
    """
    x, centers, shades = np.asarray(x), np.asarray(centers), colors(classes)
    fig = style.new_figure(2.25 * len(chosen), 3.1)
    axes = fig.subplots(1, len(chosen), sharex=True, sharey=True, squeeze=False)[0]
    ring: dict[str, Any] = {"color": style.INK, "markerfacecolor": "none", "markeredgewidth": 1.8}
    for ax, (name, sources) in zip(axes, chosen.items(), strict=True):
        negative = centers[np.asarray(sources), [0, 1]]
        for source in sources:
            ends = np.stack([negative, centers[source]]).T
            ax.plot(*ends, color=shades[source], linewidth=1.1, linestyle=(0, (2, 2)), zorder=2)
        ax.scatter(*centers.T, c=shades, s=190, **STAR)
        left: dict[str, Any] = {"xytext": (-8, 0), "textcoords": "offset points", "ha": "right", "va": "center"}
        ax.annotate("own\ncenter", centers[label], path_effects=style.HALO, **left)
        ax.plot(*x, "o", color=style.INK, markersize=8, zorder=5)
        ax.plot(*negative, marker="o", **ring, markersize=17, zorder=5)
        distance = float(((x - negative) ** 2).sum())
        ax.set_title(f"{name}\nsquared distance {distance:.2f}", fontsize=9, loc="center", weight="normal")
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set(visible=True, color="#c8c8c8")
        ax.margins(0.14)
    marks = [style.mark("the face", style.INK), style.mark("its negative", **ring, markersize=11)]
    for name, shade in zip(classes, shades, strict=True):
        marks.append(style.mark(f"center of {name}", shade, "*", markersize=11))
    style.legend(fig, marks, columns=5)
    return style.heading(fig, f"What a face of class {classes[label]} is pushed from")


@style.styled
def negatives_strip(
    x: np.ndarray, label: int, centers: np.ndarray, chosen: Mapping[str, np.ndarray], classes: Sequence[str]
) -> Figure:
    """The same in D dimensions: a panel a strategy, a column a dimension.

    The black dash is the face [D], the one in its class's colour its own center, pale dots the other centers
    [C,D]. `chosen`: strategy → int [D], whose center each entry comes from (`TripletCenterLoss.choose`): the
    full dots.
    """
    x, centers = np.asarray(x), np.asarray(centers)
    places, shades = np.arange(len(x)), np.array(colors(classes))
    fig = style.new_figure(9.0, 1.15 * len(chosen) + 0.9)
    axes = fig.subplots(len(chosen), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    bar: dict[str, Any] = {"marker": "_", "s": 70, "linewidths": 2.2, "zorder": 3}
    for ax, (name, source) in zip(axes, chosen.items(), strict=True):
        for other in range(len(centers)):
            if other != label:
                ax.scatter(places, centers[other], s=16, color=shades[other], alpha=0.45, linewidths=0)
        ax.scatter(places, centers[label], color=shades[label], **bar)
        ax.scatter(places, x, color=style.INK, **bar)
        ax.scatter(places, centers[source, places], s=44, c=shades[source], linewidths=0, zorder=4)
        ax.set_ylabel(name, color=style.INK)
        ax.set_yticks([])
        ax.spines["left"].set_visible(False)
    axes[-1].set_xlabel("dimension of the embedding")
    axes[-1].set_xlim(-0.7, len(x) - 0.3)
    dash: dict[str, Any] = {"marker": "", "linestyle": "-", "linewidth": 2.2}
    marks = [style.mark("the face", style.INK, **dash), style.mark("its center", shades[label], **dash)]
    others = [one for other, one in enumerate(style.class_marks(classes)) if other != label]
    style.legend(fig, [*others, *marks], columns=9)
    return style.heading(fig, f"A face of class {classes[label]} and the negative of each strategy (full dots)")
