"""Embeddings with their class centers: in the plane, through training, by class and by dimension."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from fer_lab.data.expressions import colors
from fer_lab.evaluation.embeddings import Plane, Separation
from fer_lab.figures.style import INK, SERIES, SHADES, SOFT, check_columns, interval_rows, new_figure, styled

HALO = [patheffects.withStroke(linewidth=2.5, foreground="white")]
STAR = {"marker": "*", "s": 190, "edgecolors": "white", "linewidths": 1.1, "zorder": 4}


def _cloud(
    ax: Axes,
    xy: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str],
    centers: np.ndarray | None,
    plane: Plane | None,
    size: float,
) -> None:
    """Points in their classes' colours, centers as stars, decision regions pale, margins as outlines."""
    xy, labels, shades = np.asarray(xy), np.asarray(labels), colors(classes)
    if xy.shape != (len(labels), 2):
        raise ValueError(f"expected points [{len(labels)},2], got {list(xy.shape)}")
    if plane is not None:
        pale = np.array([[1 - 0.2 * (1 - part) for part in to_rgb(shade)] for shade in shades])
        box = (plane.x[0], plane.x[-1], plane.y[0], plane.y[-1])
        ax.imshow(pale[plane.decision], extent=box, origin="lower", aspect="auto", interpolation="nearest")
        for shade, silent in zip(shades, () if plane.silent is None else plane.silent, strict=False):
            if silent.any() and not silent.all():
                line = {"colors": [shade], "linewidths": 1.3}
                ax.contour(plane.x, plane.y, silent.astype(float), levels=[0.5], **line)
        ax.set(xlim=box[:2], ylim=box[2:])
    order = np.random.default_rng(0).permutation(len(xy))
    dots = np.array([mpl.colors.to_rgba(shade, 0.75) for shade in shades])
    ax.scatter(*xy[order].T, s=size, c=dots[labels[order]], linewidths=0, zorder=2)
    if centers is not None:
        ax.scatter(*np.asarray(centers).T, c=shades, **{**STAR, "s": 9 * size + 60})
    ax.set(xticks=[], yticks=[])


def _class_legend(fig: Figure, classes: Sequence[str], *more: mpl.artist.Artist) -> None:
    dots = [
        mpl.lines.Line2D([], [], marker="o", linestyle="", color=color, label=name)
        for name, color in zip(classes, colors(classes), strict=True)
    ]
    columns = 9 if fig.get_size_inches()[0] > 8 else 5
    fig.legend(handles=[*dots, *more], loc="outside lower center", ncols=columns, handletextpad=0.1)


def _star(label: str) -> mpl.lines.Line2D:
    return mpl.lines.Line2D([], [], marker="*", markersize=12, linestyle="", color=SOFT, label=label)


@styled
def embedding_with_centers(
    xy: np.ndarray,
    labels: Sequence[int],
    classes: Sequence[str],
    centers: np.ndarray | None = None,
    plane: Plane | None = None,
    axis: str = "dimension",
    title: str | None = None,
) -> Figure:
    """Faces [N,2] as dots and class centers [C,2] as stars.

    Args:
        plane: from `plane_of`, for an embedding of two dimensions: pale areas are the answer there, outlines
            where a face of that colour's class would have no loss.
        axis: what the two directions are called; "UMAP" and the like have no unit.

    Raises:
        ValueError: another number of points than labels.
    """
    fig = new_figure(6.4, 5.6)
    ax = fig.subplots()
    _cloud(ax, xy, np.asarray(labels), classes, centers, plane, size=float(np.clip(6000 / len(xy), 6, 26)))
    ax.set(xlabel=f"{axis} 1", ylabel=f"{axis} 2")
    ax.set_title(title or f"{len(xy):,} faces" + ("" if centers is None else " and the class centers"))
    more = [] if centers is None else [_star("center")]
    if plane is not None and plane.silent is not None:
        more.append(mpl.lines.Line2D([], [], color=SOFT, label="no loss inside"))
    _class_legend(fig, classes, *more)
    return fig


class Frame(NamedTuple):
    """An embedding at one moment: points [N,2], centers [C,2] or None, and what `plane_of` says or None."""

    xy: np.ndarray
    centers: np.ndarray | None = None
    plane: Plane | None = None


@styled
def embedding_frames(
    frames: Mapping[str, Sequence[Frame]],
    labels: Sequence[int],
    classes: Sequence[str],
    column_titles: Sequence[str] | None = None,
    title: str | None = None,
) -> Figure:
    """Plane embeddings of the same faces as they change: a row a method, a column a moment.

    Every panel has its own scale, since what matters is where the classes lie to each other.

    Raises:
        ValueError: rows of unequal length, or titles that do not fit.
    """
    count = len(next(iter(frames.values())))
    names = [f"frame {i + 1}" for i in range(count)] if column_titles is None else list(column_titles)
    if {len(row) for row in frames.values()} != {len(names)}:
        raise ValueError(f"expected {len(names)} frames in every row, got {[len(r) for r in frames.values()]}")
    side = min(1.75, 8.6 / len(names))
    fig = new_figure(side * len(names) + 0.4, (side + 0.12) * len(frames) + 0.75)
    axes = fig.subplots(len(frames), len(names), squeeze=False)
    for row, (name, moments) in zip(axes, frames.items(), strict=True):
        for ax, moment in zip(row, moments, strict=True):
            _cloud(ax, moment.xy, np.asarray(labels), classes, moment.centers, moment.plane, size=4.5)
            ax.spines[:].set(visible=True, color="#c8c8c8")
        row[0].set_ylabel(name, color=INK, fontsize=8.5)
    for ax, text in zip(axes[0], names, strict=True):
        ax.set_title(text, loc="center", fontsize=9, weight="normal", pad=4)
    fig.get_layout_engine().set(h_pad=0.02, w_pad=0.02)
    fig.suptitle(title or "The same faces through training", x=0.01, ha="left", weight="bold", fontsize=10.5)
    _class_legend(fig, classes, _star("center"))
    return fig


@styled
def scatter_against_margin(
    found: Mapping[str, Separation], classes: Sequence[str], title: str | None = None
) -> Figure:
    """How wide each class is against how far it lies from the nearest wrong center: a panel a method.

    Args:
        found: name → `structure.separation`; all of the same faces, or the panels cannot be compared.
    """
    columns = min(3, len(found))
    rows = -(-len(found) // columns)
    fig = new_figure(3.0 * columns, 2.75 * rows + 0.7)
    axes = fig.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for ax in axes.flat[len(found) :]:
        ax.axis("off")
    for i, (ax, (name, one)) in enumerate(zip(axes.flat, found.items(), strict=False)):
        ax.scatter(one.margin, one.scatter, s=52, c=colors(classes), zorder=3)
        ax.axvline(0, color=SOFT, linewidth=0.8, linestyle=(0, (4, 3)))
        ax.grid()
        ax.set_title(name, fontsize=9.5)
        if i % columns == 0:
            ax.set_ylabel("scatter within the class")
        if i >= len(found) - columns:
            ax.set_xlabel("nearest-center margin")
            ax.tick_params(labelbottom=True)
    text = title or "Tight (low) and apart (right): one mark a class, in units of the whole spread"
    fig.suptitle(text, x=0.01, ha="left", weight="bold", fontsize=10.5)
    _class_legend(fig, classes)
    return fig


@styled
def nearest_wrong_center(nearest: np.ndarray, classes: Sequence[str], title: str | None = None) -> Figure:
    """Shares [C,C] of each class's faces (row) whose nearest wrong center is that of the column.

    Raises:
        ValueError: a matrix of another size.
    """
    nearest, c = np.asarray(nearest, dtype=float), len(classes)
    if nearest.shape != (c, c):
        raise ValueError(f"expected shares [{c},{c}] for {c} classes, got {list(nearest.shape)}")
    fig = new_figure(0.62 * c + 1.6, 0.5 * c + 1.6)
    ax = fig.subplots()
    ax.imshow(np.nan_to_num(nearest), cmap=SHADES, norm=mpl.colors.PowerNorm(0.6, 0, 1), aspect="auto")
    for i, j in np.ndindex(c, c):
        if nearest[i, j] >= 0.005:
            shade = "white" if nearest[i, j] > 0.35 else INK
            ax.text(j, i, f"{nearest[i, j]:.0%}", ha="center", va="center", color=shade, fontsize=8.5)
        if i == j:
            ax.plot([j], [i], marker="x", color="#c8c8c8", markersize=8)
    ax.set_xticks(range(c), classes, rotation=35, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(c), classes)
    ax.tick_params(length=0, labelcolor=INK)
    ax.spines[:].set_visible(False)
    ax.set(xlabel="the nearest wrong center is that of", ylabel="faces of")
    ax.set_title(title or "Who is too near to whom")
    return fig


@styled
def dimension_weights(
    weights: np.ndarray, labels: Sequence[int], classes: Sequence[str], title: str | None = None
) -> Figure:
    """Element-wise coefficients [N,D], ≥ 0: mean over all faces, and each class's difference from it.

    Dimensions are sorted by the mean over all faces.

    Raises:
        ValueError: another number of coefficients than labels.
    """
    weights, labels = np.asarray(weights, dtype=float), np.asarray(labels)
    if weights.ndim != 2 or len(weights) != len(labels):
        raise ValueError(f"expected coefficients [{len(labels)},D], got {list(weights.shape)}")
    mean = weights.mean(0)
    order = np.argsort(-mean, kind="stable")
    present = np.unique(labels)
    apart = np.stack([weights[labels == c].mean(0) - mean for c in present])[:, order]
    fig = new_figure(8.4, 0.24 * len(present) + 2.9)
    top, low = fig.subplots(2, 1, sharex=True, height_ratios=(1.5, 0.17 * len(present) + 0.6))
    spread = np.quantile(weights[:, order], [0.05, 0.95], axis=0)
    places = np.arange(len(mean))
    top.fill_between(places, *spread, color="#d5d6ea", linewidth=0, label="90 % of the faces")
    top.plot(places, mean[order], color=SERIES[0], label="mean over all faces")
    top.set(ylabel="coefficient", ylim=(0, max(1.0, 1.25 * float(spread[1].max()))))
    top.grid(axis="y")
    top.legend(loc="upper right", ncols=2)
    limit = max(float(np.abs(apart).max()), 1e-6)
    image = low.imshow(apart, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
    low.set_yticks(range(len(present)), [classes[c] for c in present])
    low.set_xlabel("dimension of the embedding, sorted by its mean coefficient")
    low.tick_params(length=0, labelcolor=INK)
    fig.colorbar(image, ax=low, label="above the mean", aspect=8)
    top.set_title(title or "Which dimensions the element-wise coefficients keep")
    return fig


@styled
def negatives_in_plane(
    x: np.ndarray,
    label: int,
    centers: np.ndarray,
    chosen: Mapping[str, np.ndarray],
    classes: Sequence[str],
    title: str | None = None,
) -> Figure:
    """One face, all centers, and the negative that each strategy builds in the plane: a panel a strategy.

    Args:
        x: [2].
        label: the face's class.
        centers: [C,2].
        chosen: strategy → int [2], whose center each coordinate comes from (`TripletCenterLoss.choose`); thin
            lines lead there.
    """
    x, centers, shades = np.asarray(x), np.asarray(centers), colors(classes)
    fig = new_figure(2.25 * len(chosen), 2.9)
    axes = fig.subplots(1, len(chosen), sharex=True, sharey=True, squeeze=False)[0]
    for ax, (name, sources) in zip(axes, chosen.items(), strict=True):
        negative = centers[np.asarray(sources), [0, 1]]
        for source in sources:
            ends = np.stack([negative, centers[source]]).T
            ax.plot(*ends, color=shades[source], linewidth=1.1, linestyle=(0, (2, 2)), zorder=2)
        ax.scatter(*centers.T, c=shades, **STAR)
        ax.annotate("own", centers[label], (0, 9), textcoords="offset points", ha="center", path_effects=HALO)
        ax.plot(*x, "o", color=INK, markersize=8, zorder=5)
        ax.plot(*negative, "X", color=INK, markersize=10, markeredgecolor="white", zorder=5)
        distance = float(((x - negative) ** 2).sum())
        ax.set_title(f"{name}\nsquared distance {distance:.2f}", fontsize=9, loc="center", weight="normal")
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set(visible=True, color="#c8c8c8")
        ax.margins(0.14)
    dots = [
        mpl.lines.Line2D([], [], marker="o", linestyle="", color=INK, label="the face"),
        mpl.lines.Line2D([], [], marker="X", linestyle="", color=INK, label="its negative"),
    ]
    fig.legend(handles=[*dots, _star("centers")], loc="outside lower center", ncols=3)
    text = title or f"What a face of class {classes[label]} is pushed from"
    fig.suptitle(text, x=0.01, ha="left", weight="bold", fontsize=10.5)
    return fig


@styled
def negatives_strip(
    x: np.ndarray,
    label: int,
    centers: np.ndarray,
    chosen: Mapping[str, np.ndarray],
    classes: Sequence[str],
    title: str | None = None,
) -> Figure:
    """The same in D dimensions: a panel a strategy, a column a dimension.

    Args:
        x: [D], a dash; its own center is the grey dash.
        centers: [C,D], pale dots.
        chosen: strategy → int [D], whose center each entry comes from (`TripletCenterLoss.choose`): the full
            dots.
    """
    x, centers = np.asarray(x), np.asarray(centers)
    places, shades = np.arange(len(x)), np.array(colors(classes))
    fig = new_figure(9.0, 1.15 * len(chosen) + 0.9)
    axes = fig.subplots(len(chosen), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    bar = {"marker": "_", "s": 70, "linewidths": 2.2, "zorder": 3}
    for ax, (name, source) in zip(axes, chosen.items(), strict=True):
        for other in range(len(centers)):
            if other != label:
                ax.scatter(places, centers[other], s=9, color=shades[other], alpha=0.28, linewidths=0)
        ax.scatter(places, centers[label], color="#9a9a9a", **bar)
        ax.scatter(places, x, color=INK, **bar)
        ax.scatter(places, centers[source, places], s=26, c=shades[source], linewidths=0, zorder=4)
        ax.set_ylabel(name, color=INK)
        ax.set_yticks([])
        ax.spines["left"].set_visible(False)
    axes[-1].set_xlabel("dimension of the embedding")
    axes[-1].set_xlim(-1, len(x))
    marks = [
        mpl.lines.Line2D([], [], color=INK, linewidth=2.2, label="the face"),
        mpl.lines.Line2D([], [], color="#9a9a9a", linewidth=2.2, label="its center"),
    ]
    _class_legend(fig, classes, *marks)
    text = title or f"A face of class {classes[label]} and the negative of each strategy (full dots)"
    fig.suptitle(text, x=0.01, ha="left", weight="bold", fontsize=10.5)
    return fig


@styled
def panels_of_intervals(
    table: pd.DataFrame, xlabel: str, reference: str | None = None, title: str | None = None
) -> Figure:
    """Means with their intervals: a panel a setting, a row a method.

    Args:
        table: columns panel, label, value, low, high; shares, shown in percent. low and high may be NaN.
        reference: a label; its value gets a line in every panel.

    Raises:
        ValueError: missing columns, no rows, or panels that do not have the same labels.
    """
    check_columns(table, ("panel", "label", "value", "low", "high"))
    panels, labels = (list(dict.fromkeys(table[key])) for key in ("panel", "label"))
    if table.pivot_table(index="label", columns="panel", values="value").isna().any(axis=None):
        raise ValueError(f"every panel needs a row for each of {', '.join(labels)}")
    fig = new_figure(9.0, 0.36 * len(labels) + 1.35)
    axes = fig.subplots(1, len(panels), sharex=True, squeeze=False)[0]
    for i, (ax, panel) in enumerate(zip(axes, panels, strict=True)):
        rows = table[table["panel"] == panel].set_index("label").loc[labels].reset_index()
        shades = [INK if label == reference else SERIES[0] for label in labels]
        interval_rows(ax, rows, shades, digits=1, percent=True)
        if reference in labels:
            value = rows["value"].iloc[labels.index(reference)]
            ax.axvline(100 * value, color=SOFT, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
        ax.set_yticks(range(len(labels)), labels if i == 0 else [""] * len(labels))
        ax.set_title(panel, fontsize=9.5)
        ax.margins(x=0.08)
        ax.xaxis.set_major_formatter(PercentFormatter(100, decimals=0))
    fig.supxlabel(xlabel, fontsize=9, color=SOFT)
    fig.suptitle(title or xlabel, x=0.01, ha="left", weight="bold", fontsize=10.5)
    return fig
