"""What notebook 03 draws: margins, nearest centers, negatives, coefficients by dimension."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from fer_lab.data.expressions import colors
from fer_lab.evaluation.embeddings import Separation
from fer_lab.figures import style
from fer_lab.figures.charts import STAR


@style.styled
def scatter_against_margin(found: Mapping[str, Separation], classes: Sequence[str]) -> Figure:
    """How wide each class is against how far it lies from the nearest wrong center: a panel a method.

    `found`: name → `separation`; all of the same faces, or the panels cannot be compared.
    """
    fig, axes, empty = style.panels(len(found), 3.0, 2.6, 0.7, sharex=True, sharey=True)
    for ax, (name, one) in zip(axes, found.items(), strict=True):
        ax.scatter(one.margin, one.scatter, s=52, c=colors(classes), zorder=3)
        ax.axvline(0, **style.DASHED)
        ax.grid()
        ax.set_title(name, fontsize=9.5)
    style.legend(fig, style.class_marks(classes), empty)
    title = "Tight (low) and apart (right): one mark a class, in units of the whole spread"
    return style.heading(fig, title, "nearest-center margin", "scatter within the class")


@style.styled
def nearest_wrong_center(nearest: np.ndarray, classes: Sequence[str]) -> Figure:
    """Shares [C,C] of each class's faces (row) whose nearest wrong class mean is that of the column."""
    nearest, c = np.asarray(nearest, dtype=float), len(classes)
    if nearest.shape != (c, c):
        raise ValueError(f"expected shares [{c},{c}] for {c} classes, got {list(nearest.shape)}")
    fig, ax = style.chart(0.62 * c + 1.6, 0.5 * c + 1.6)
    texts = [[f"{share:.0%}" if share >= 0.005 else "" for share in row] for row in nearest]
    style.heat_table(ax, np.nan_to_num(nearest), classes, classes, texts, norm=PowerNorm(0.6, 0, 1))
    own = np.arange(c) + 0.5
    ax.plot(own, own, linestyle="", marker="x", color="#c8c8c8", markersize=8, markeredgewidth=1)
    ax.set(xlabel="the nearest wrong class mean is that of", ylabel="faces of")
    ax.set_title("Whose class mean is the nearest wrong one")
    return fig


@style.styled
def dimension_weights(weights: np.ndarray, labels: style.Labels, classes: Sequence[str]) -> Figure:
    """Element-wise coefficients [N,D], ≥ 0: mean over all faces, and each class's difference from it.

    Dimensions are sorted by the mean over all faces.
    """
    weights, labels = np.asarray(weights, dtype=float), np.asarray(labels)
    if weights.ndim != 2 or len(weights) != len(labels):
        raise ValueError(f"expected coefficients [{len(labels)},D], got {list(weights.shape)}")
    mean = weights.mean(0)
    order = np.argsort(-mean, kind="stable")
    present = np.unique(labels)
    apart = np.stack([weights[labels == c].mean(0) - mean for c in present])[:, order]
    fig = style.new_figure(8.4, 0.24 * len(present) + 2.9)
    top, low = fig.subplots(2, 1, sharex=True, height_ratios=(1.5, 0.17 * len(present) + 0.6))
    spread = np.quantile(weights[:, order], [0.05, 0.95], axis=0)
    places = np.arange(len(mean)) + 0.5
    top.fill_between(places, *spread, color="#d5d6ea", linewidth=0, label="90 % of the faces")
    top.plot(places, mean[order], color=style.SERIES[0], label="mean over all faces")
    top.set(ylabel="coefficient", ylim=(0, max(1.0, 1.25 * float(spread[1].max()))))
    top.set(title="Which dimensions the metric loss weighs, by class")
    top.grid(axis="y")
    top.legend(loc="upper right", ncols=2)
    limit = max(float(np.abs(apart).max()), 1e-6)
    bar = {"label": "difference from\nthe mean over faces", "aspect": 8}
    shades: dict[str, Any] = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit, "cbar": True, "cbar_kws": bar}
    style.heat_table(low, apart, [classes[c] for c in present], ["" for _ in mean], linewidths=0, **shades)
    ticks = range(0, len(mean), 20)
    low.set_xticks([at + 0.5 for at in ticks], [str(at) for at in ticks])
    low.set_xlabel("dimension of the embedding, sorted by its mean coefficient")
    return fig


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
