"""Charts of numbers: training, metrics with intervals, embeddings, speed."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fer_lab.data.expressions import colors
from fer_lab.evaluation.metrics import BINS
from fer_lab.figures.style import INK, SERIES, SHADES, SOFT, check_columns, interval_rows, new_figure, styled
from fer_lab.runs import Predictions

DASHED = {"color": SOFT, "linewidth": 1, "linestyle": (0, (4, 3)), "zorder": 1}


@styled
def training_curves(history: pd.DataFrame, title: str | None = None) -> Figure:
    """A run's history: its loss terms by name, its accuracies, its learning rate, against epochs.

    Args:
        history: columns epoch, lr, total, any other loss terms, and columns that end in "accuracy" (0…1).
            A column "seconds" goes into the title.

    Raises:
        ValueError: no epochs, or no column epoch or total.
    """
    check_columns(history, ("epoch", "total"))
    epochs = history["epoch"].to_numpy()
    rates = [name for name in history if name.endswith("accuracy")]
    terms = [name for name in history if name not in ("epoch", "seconds", "lr", "total", *rates)]
    panels = ["loss", *(["accuracy"] if rates else []), *(["lr"] if "lr" in history else [])]
    fig = new_figure(3.0 * len(panels), 3.5)
    axes = dict(zip(panels, np.atleast_1d(fig.subplots(1, len(panels))), strict=True))
    mark = "o" if len(epochs) < 40 else ""

    def curve(ax: Axes, name: str, values: np.ndarray, label: str, **line) -> None:
        ax.plot(epochs, values, marker=mark, markersize=3.5, label=label, gid=name, **line)

    for i, name in enumerate(terms):
        curve(axes["loss"], name, history[name], name.replace("_", " "), color=SERIES[i % len(SERIES)])
    if terms != ["cross_entropy"]:
        curve(axes["loss"], "total", history["total"], "total", color=INK, linestyle=(0, (4, 1.5)))
    drawn = np.concatenate([line.get_ydata() for line in axes["loss"].lines])
    drawn = drawn[np.isfinite(drawn)]
    if len(drawn) and drawn.min() > 0 and drawn.max() > 30 * drawn.min():
        axes["loss"].set_yscale("log")
    axes["loss"].set_ylabel("loss, mean over the epoch")
    for color, name in zip(SERIES, reversed(rates), strict=False):
        label = f"{name.removesuffix('_accuracy').replace('_', ' ')} (last {history[name].iloc[-1]:.1%})"
        curve(axes["accuracy"], name, 100 * history[name], label, color=color)
    if rates:
        axes["accuracy"].set_ylabel("accuracy, %")
    if "lr" in panels:
        curve(axes["lr"], "lr", history["lr"], "", color=SOFT)
        axes["lr"].set_ylabel("learning rate")
        axes["lr"].set_ylim(bottom=0)
    for name, ax in axes.items():
        ax.set_xlabel("epoch")
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.grid(axis="both")
        if name != "lr":
            columns = 2 if len(ax.lines) > 1 and name == "loss" else 1
            ax.legend(loc="upper center", bbox_to_anchor=(0.45, -0.2), ncols=columns, columnspacing=1.2)
    seconds = f", {history['seconds'].sum():,.0f} s" if "seconds" in history else ""
    _heading(fig, title or f"Training, {len(epochs)} epochs{seconds}")
    return fig


def _heading(fig: Figure, text: str) -> None:
    fig.suptitle(text, x=0.01, ha="left", fontsize=10.5, weight="bold")


@styled
def confusion(matrix: np.ndarray, classes: Sequence[str], title: str | None = None) -> Figure:
    """Counts int [C,C] (rows the truth, columns what was predicted): share of the row as shade and number,
    the count below it.

    Raises:
        ValueError: a matrix of another size.
    """
    matrix, c = np.asarray(matrix), len(classes)
    if matrix.shape != (c, c):
        raise ValueError(f"expected a matrix [{c},{c}] for {c} classes, got {list(matrix.shape)}")
    total = matrix.sum(1, keepdims=True)
    share = np.divide(matrix, total, out=np.zeros((c, c)), where=total > 0)
    side = 0.62 * c + 1.5
    fig = new_figure(side, side)
    ax = fig.subplots()
    # Errors are rare: a curve in the shade lets a few percent be seen.
    ax.imshow(share, cmap=SHADES, norm=mpl.colors.PowerNorm(0.6, 0, 1))
    for i, j in np.ndindex(c, c):
        if matrix[i, j]:
            middle = {"ha": "center", "va": "center", "color": "white" if share[i, j] > 0.35 else INK}
            ax.text(j, i - 0.1, f"{share[i, j]:.0%}", weight="bold" if i == j else "normal", **middle)
            ax.text(j, i + 0.23, f"{matrix[i, j]:,}", fontsize=8, alpha=0.8, **middle)
    ax.set_xticks(range(c), classes, rotation=35, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(c), [f"{name}\n{n:,}" for name, n in zip(classes, total[:, 0], strict=True)])
    ax.tick_params(length=0, pad=9, labelcolor=INK)
    for i, color in enumerate(colors(classes)):
        bar = {"color": color, "linewidth": 4, "clip_on": False, "solid_capstyle": "butt"}
        ax.plot([-0.62, -0.62], [i - 0.4, i + 0.4], **bar)
        ax.plot([i - 0.4, i + 0.4], [c - 0.38, c - 0.38], **bar)
    ax.set_xticks(np.arange(c + 1) - 0.5, minor=True)
    ax.set_yticks(np.arange(c + 1) - 0.5, minor=True)
    ax.grid(which="minor", color="white", linewidth=2)
    ax.tick_params(which="minor", length=0)
    ax.spines[:].set_visible(False)
    ax.set(xlim=(-0.5, c - 0.5), ylim=(c - 0.5, -0.5), ylabel="label")
    ax.set_xlabel("predicted: share of the row, and faces")
    right = np.trace(matrix) / max(1, matrix.sum())
    ax.set_title(title or f"What was taken for what: {right:.1%} of {matrix.sum():,} faces right")
    return fig


@styled
def per_class_recall(metrics: pd.DataFrame, title: str | None = None) -> Figure:
    """Recall of every class with its interval, from `evaluation.evaluate`'s table; their mean as a line.

    Raises:
        ValueError: a table without recall or without intervals.
    """
    check_columns(metrics, ("metric", "class", "value", "low", "high"))
    table = metrics[metrics["metric"] == "recall"]
    check_columns(table, ())
    fig = new_figure(6.4, 0.36 * len(table) + 1.1)
    ax = fig.subplots()
    interval_rows(ax, table, colors(list(table["class"])), digits=1, percent=True)
    mean = 100 * table["value"].mean()
    ax.axvline(mean, **DASHED)
    corner = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "ha": "right"}
    ax.annotate(f"mean {mean:.1f}%", (mean, 1), (-4, 2), fontsize=8, color=SOFT, **corner)
    ax.set_yticks(range(len(table)), table["class"])
    ax.set_xlabel("recall, % of the class's faces, with 95 % interval")
    ax.set_xlim(max(0, np.nanmin(100 * table[["low", "value"]]) - 5), 102)
    ax.set_title(title or "How many faces of each class are found", pad=16)
    return fig


@styled
def ablation(
    summary: pd.DataFrame,
    xlabel: str = "accuracy, %",
    percent: bool = True,
    reference: str | None = None,
    title: str | None = None,
) -> Figure:
    """One dot and interval a row, from the top down.

    Args:
        summary: columns label, value, low, high; low and high are NaN for a single seed, whose dot is hollow.
        percent: values are shares, shown times 100.
        reference: label of the row that the others are compared with; gets a line through all rows.

    Raises:
        ValueError: missing columns, no rows, or a reference that is no label.
    """
    check_columns(summary, ("label", "value", "low", "high"))
    labels = list(summary["label"])
    if reference is not None and reference not in labels:
        raise ValueError(f"no row {reference!r}; labels are {', '.join(map(str, labels))}")
    fig = new_figure(7.2, 0.36 * len(labels) + 1.05)
    ax = fig.subplots()
    shades = [INK if label == reference else SERIES[0] for label in labels]
    interval_rows(ax, summary, shades, digits=1 if percent else 3, percent=percent)
    if reference is not None:
        value = summary["value"].iloc[labels.index(reference)]
        ax.axvline(value * (100 if percent else 1), **DASHED)
    ax.set_yticks(range(len(labels)), labels)
    ax.margins(x=0.06)
    ax.set_xlabel(xlabel)
    ax.set_title(title or "What each part contributes")
    return fig


@styled
def embedding_map(
    xy: np.ndarray,
    labels: Sequence[int],
    classes: Sequence[str],
    title: str | None = None,
    axis: str = "UMAP",
) -> Figure:
    """Points [N,2] in their classes' colours; each class's name stands above most of its points.

    Args:
        axis: what the two directions are called.

    Raises:
        ValueError: another number of points than labels.
    """
    xy, labels = np.asarray(xy), np.asarray(labels)
    if xy.shape != (len(labels), 2):
        raise ValueError(f"expected points [{len(labels)},2], got {list(xy.shape)}")
    fig = new_figure(6.2, 5.2)
    ax = fig.subplots()
    size = np.clip(9000 / max(1, len(xy)), 5, 32)
    # In random order, so that no class lies on top of all others.
    order = np.random.default_rng(0).permutation(len(xy))
    shades = np.array([mpl.colors.to_rgba(color, 0.75) for color in colors(classes)])
    ax.scatter(*xy[order].T, s=size, c=shades[labels[order]], linewidths=0)
    halo = [patheffects.withStroke(linewidth=3, foreground="white")]
    for label, (name, color) in enumerate(zip(classes, colors(classes), strict=True)):
        members = xy[labels == label]
        if len(members):
            at = np.median(members[:, 0]), np.quantile(members[:, 1], 0.9)
            place = {"xytext": (0, 5), "textcoords": "offset points", "ha": "center", "va": "bottom"}
            ax.annotate(name, at, **place, weight="bold", fontsize=9.5, path_effects=halo)
            ax.plot([], [], "o", color=color, label=f"{name}, {len(members):,}")
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), handletextpad=0.2)
    ax.set(xticks=[], yticks=[], xlabel=f"{axis} 1 (no unit)", ylabel=f"{axis} 2 (no unit)")
    ax.set_title(title or f"Embeddings of {len(xy):,} faces, laid out by neighbourhood")
    _lift_apart(fig, ax)
    return fig


def _lift_apart(fig: Figure, ax: Axes) -> None:
    """Move names up, the lowest first, until none lies on another."""
    fig.draw_without_rendering()
    placed = []
    for text in sorted(ax.texts, key=lambda text: text.get_window_extent().y0):
        while any(text.get_window_extent().overlaps(other) for other in placed):
            x, y = text.xyann
            text.xyann = (x, y + 2)
        placed.append(text.get_window_extent())


@styled
def reliability(predictions: Predictions, bins: int = BINS, title: str | None = None) -> Figure:
    """Accuracy against confidence in `bins` bins of equal width, and how many faces lie in each.

    Bins are closed on the right, as those of `evaluation.evaluate`; the calibration error is the mean
    distance between bar and mark, weighted by faces.

    Raises:
        ValueError: no predictions.
    """
    if not len(predictions):
        raise ValueError("there are no predictions to draw")
    confidence, correct = predictions.probabilities.max(1), predictions.correct
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        right = np.bincount(place, correct, minlength=bins) / counts
        claimed = np.bincount(place, confidence, minlength=bins) / counts
    error = np.nansum(np.abs(right - claimed) * counts) / counts.sum()
    fig = new_figure(5.4, 5.0)
    top, low = fig.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    edges = np.arange(bins) / bins
    bar = {"width": 1 / bins, "align": "edge", "edgecolor": "white", "linewidth": 1}
    top.bar(edges, 100 * np.nan_to_num(right), color="#9aa0d0", label="measured", **bar)
    top.hlines(
        100 * claimed, edges, edges + 1 / bins, SERIES[1], linewidth=2.6, label="claimed: mean confidence"
    )
    top.plot([0, 1], [0, 100], **{**DASHED, "zorder": 2})
    top.set(ylim=(0, 102), xlim=(0, 1), ylabel="faces right, %")
    top.legend(loc="upper left")
    top.set_title(title or f"Claimed and measured: calibration error {error:.1%}")
    low.bar(edges, counts, color="#b5b5b5", **bar)
    low.set(xlabel="confidence: probability of the predicted class", ylabel="faces")
    for ax in (top, low):
        ax.grid(axis="y")
    return fig


@styled
def bench_table_figure(table: pd.DataFrame, title: str | None = None) -> Figure:
    """Images a second of every model on every path that was measured, a panel a size and mode.

    Args:
        table: from `bench.bench_models`; columns model, size, mode, path, images_per_s.

    Raises:
        ValueError: missing columns or no rows.
    """
    check_columns(table, ("model", "size", "mode", "path", "images_per_s"))
    shades = {"plain": "#b9bcd9", "default": SERIES[0], "compiled": SERIES[1]}
    paths = [path for path in shades if path in set(table["path"])]
    height = 0.76 / len(paths)
    panels = list(table.groupby(["size", "mode"], sort=False))
    models = list(dict.fromkeys(table["model"]))
    rows, columns = -(-len(panels) // 2), min(2, len(panels))
    fig = new_figure(4.5 * columns, (0.52 * len(models) + 1.0) * rows + 0.5)
    axes = fig.subplots(rows, columns, squeeze=False).ravel()
    beside = {"textcoords": "offset points", "va": "center", "fontsize": 8}
    for ax, ((size, mode), part) in zip(axes, panels, strict=False):
        base = part[part["path"] == "plain"].set_index("model")["images_per_s"]
        for row in part.itertuples():
            y = models.index(row.model) + (paths.index(row.path) - (len(paths) - 1) / 2) * height
            ax.barh(y, row.images_per_s, height=0.9 * height, color=shades[row.path])
            faster = row.path != "plain" and row.model in base
            ratio = f"  ({row.images_per_s / base[row.model]:.1f}×)" if faster else ""
            rate = f"{row.images_per_s:,.0f}" if row.images_per_s >= 100 else f"{row.images_per_s:.3g}"
            ax.annotate(rate + ratio, (row.images_per_s, y), (4, 0), **beside)
        ax.set_yticks(range(len(models)), models)
        ax.set(xlim=(0, part["images_per_s"].max() * 1.28), ylim=(len(models) - 0.5, -0.5))
        ax.set_xlabel("images a second")
        ax.xaxis.set_major_formatter(mpl.ticker.StrMethodFormatter("{x:,.0f}"))
        ax.set_title(f"{mode}, {size} size", fontsize=9.5)
        ax.tick_params(axis="y", length=0, labelcolor=INK)
        ax.spines["left"].set_visible(False)
        ax.grid(axis="x")
    for ax in axes[len(panels) :]:
        ax.axis("off")
    names = {"plain": "plain: fp32, eager", "default": "default", "compiled": "default, torch.compile"}
    swatches = [mpl.patches.Patch(color=shades[path], label=names[path]) for path in paths]
    fig.legend(handles=swatches, loc="outside lower center", ncols=len(paths))
    _heading(fig, title or "Speed on this machine")
    return fig
