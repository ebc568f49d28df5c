"""Models side by side: scores, differences, embeddings, robustness, groups, and what accuracy costs."""

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from matplotlib.transforms import Bbox

from fer_lab.data.expressions import colors
from fer_lab.figures.style import INK, SERIES, SOFT, check_columns, interval_rows, new_figure, styled

# One colour a method throughout the book, whatever others are shown beside it.
MODEL_COLORS = dict(
    zip(("baseline", "dan", "triplet_center", "poster", "dcs", "qcs"), (INK, *SERIES), strict=False)
)


def model_color(name: str) -> str:
    """A method's colour; one that the book does not know is grey."""
    return MODEL_COLORS.get(name, "#999999")


def _head(fig: Figure, text: str) -> None:
    fig.suptitle(text, x=0.01, ha="left", weight="bold", fontsize=10.5)


def _accuracy_of(fig: Figure, first: Axes) -> None:
    """Accuracy up the first of several panels, and one legend, of its models, below all."""
    first.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    first.set_ylabel("accuracy")
    handles, texts = first.get_legend_handles_labels()
    fig.legend(handles, texts, loc="outside lower center", ncols=len(texts))


@styled
def model_scores(
    scores: pd.DataFrame, metrics: Mapping[str, str], reference: str | None = None, title: str | None = None
) -> Figure:
    """A panel a metric, a dot with its interval a model.

    Args:
        scores: columns model, metric, value, low, high; shares, shown in percent.
        metrics: which, and what they are called.
        reference: a model, whose value gets a line.

    Raises:
        ValueError: missing columns, or no rows of a metric.
    """
    check_columns(scores, ("model", "metric", "value", "low", "high"))
    names = list(dict.fromkeys(scores["model"]))
    fig = new_figure(9.0, 0.36 * len(names) + 1.25)
    for i, (ax, (metric, label)) in enumerate(
        zip(fig.subplots(1, len(metrics), squeeze=False)[0], metrics.items(), strict=True)
    ):
        table = scores[scores["metric"] == metric].set_index("model").reindex(names).reset_index()
        if table["value"].isna().all():
            raise ValueError(f"no scores of {metric!r}; metrics are {', '.join(sorted(set(scores['metric'])))}")
        interval_rows(ax, table, [model_color(name) for name in names], digits=1, percent=True)
        if reference in names:
            value = table["value"].iloc[names.index(reference)]
            ax.axvline(100 * value, color=SOFT, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
        ax.set_yticks(range(len(names)), names if i == 0 else [""] * len(names))
        ax.set_xlabel(label)
        ax.margins(x=0.08)
    _head(fig, title or "Every model on the same faces")
    return fig


@styled
def score_differences(table: pd.DataFrame, reference: str, title: str | None = None) -> Figure:
    """Differences to one model, in points, with their paired intervals: a panel a metric, a row a model.

    Args:
        table: columns model, metric, difference, low, high, as `comparison.differences` gives them.
    """
    check_columns(table, ("model", "metric", "difference", "low", "high"))
    names, metrics = (list(dict.fromkeys(table[key])) for key in ("model", "metric"))
    fig = new_figure(9.0, 0.36 * len(names) + 1.25)
    for i, (ax, metric) in enumerate(
        zip(fig.subplots(1, len(metrics), squeeze=False)[0], metrics, strict=True)
    ):
        rows = table[table["metric"] == metric].assign(value=lambda t: t["difference"])
        for key in ("value", "low", "high"):
            rows = rows.assign(**{key: 100 * rows[key]})
        interval_rows(ax, rows, [model_color(name) for name in rows["model"]], digits=1, percent=False)
        ax.axvline(0, color=SOFT, linewidth=0.8, zorder=1)
        ax.set_yticks(range(len(names)), names if i == 0 else [""] * len(names))
        ax.set_xlabel(f"{metric.replace('_', ' ')}, points above {reference}")
        ax.margins(x=0.08)
    _head(fig, title or f"Difference to {reference}, paired over the same faces")
    return fig


@styled
def recall_by_class(recalls: pd.DataFrame, classes: Sequence[str], title: str | None = None) -> Figure:
    """Recall of every class by every model: columns model, class, value (share) as shade and number."""
    check_columns(recalls, ("model", "class", "value"))
    names = list(dict.fromkeys(recalls["model"]))
    shares = recalls.pivot_table(index="model", columns="class", values="value", dropna=False)
    shares = shares.reindex(index=names, columns=list(classes)).to_numpy()
    fig = new_figure(1.6 + 0.85 * len(classes), 1.0 + 0.42 * len(names))
    ax = fig.subplots()
    image = ax.imshow(100 * shares, cmap="viridis", vmin=0, vmax=100, aspect="auto")
    for i, j in np.ndindex(shares.shape):
        if np.isfinite(shares[i, j]):
            shade = np.mean(mpl.colors.to_rgb(image.cmap(shares[i, j])))
            text = {"ha": "center", "va": "center", "color": "white" if shade < 0.5 else INK}
            ax.text(j, i, f"{shares[i, j]:.0%}", **text)
    ax.set_xticks(range(len(classes)), classes)
    ax.set_yticks(range(len(names)), names)
    ax.tick_params(length=0, labelcolor=INK)
    ax.spines[:].set_visible(False)
    ax.set_title(title or "Recall of each class")
    return fig


@styled
def confusion_differences(
    matrices: Mapping[str, np.ndarray], reference: str, classes: Sequence[str], title: str | None = None
) -> Figure:
    """Every model's confusion minus the reference's, in points of the row: blue is less, red is more.

    Differences below one point carry no number.

    Args:
        matrices: model → counts int [C,C], rows the truth; all of the same faces.

    Raises:
        ValueError: no matrix of the reference, or none of another model.
    """
    others = [name for name in matrices if name != reference]
    if reference not in matrices or not others:
        raise ValueError(f"expected {reference!r} and at least one other model, got {', '.join(matrices)}")

    def shares(counts: np.ndarray) -> np.ndarray:
        counts = np.asarray(counts, dtype=float)
        return 100 * counts / np.maximum(1, counts.sum(1, keepdims=True))

    gaps = [shares(matrices[name]) - shares(matrices[reference]) for name in others]
    limit = max(1.0, *(np.abs(gap).max() for gap in gaps))
    columns = min(3, len(others))
    rows = -(-len(others) // columns)
    fig = new_figure(3.0 * columns, 2.75 * rows + 0.55)
    axes = fig.subplots(rows, columns, squeeze=False)
    for ax in axes.flat[len(others) :]:
        ax.axis("off")
    for k, (ax, name, gap) in enumerate(zip(axes.flat, others, gaps, strict=False)):
        ax.imshow(gap, cmap="RdBu_r", norm=TwoSlopeNorm(0, -limit, limit))
        for i, j in np.ndindex(gap.shape):
            if abs(gap[i, j]) >= 1:
                strong = abs(gap[i, j]) > 0.6 * limit
                place = {"ha": "center", "va": "center", "fontsize": 7}
                ax.text(j, i, f"{gap[i, j]:+.0f}", color="white" if strong else INK, **place)
        short = [text[:4] for text in classes]
        ax.set_xticks(range(len(classes)), short, rotation=90)
        ax.set_yticks(range(len(classes)), classes if k % columns == 0 else [""] * len(classes))
        ax.tick_params(length=0, labelcolor=INK, labelsize=7.5)
        ax.spines[:].set_visible(False)
        ax.set_title(name, color=model_color(name))
    _head(fig, title or f"Confusion minus {reference}'s")
    return fig


@styled
def embedding_panels(
    points: Mapping[str, np.ndarray],
    labels: Sequence[int],
    classes: Sequence[str],
    marked: Sequence[int] = (),
    title: str | None = None,
) -> Figure:
    """Layouts [N,2] of the same faces by several models, in their classes' colours.

    Args:
        marked: faces that carry the same number in every panel.
    """
    labels = np.asarray(labels)
    columns = min(3, len(points))
    rows = -(-len(points) // columns)
    fig = new_figure(3.0 * columns, 2.9 * rows + 0.6)
    axes = fig.subplots(rows, columns, squeeze=False)
    shades = np.array([mpl.colors.to_rgba(color, 0.6) for color in colors(classes)])
    halo = [patheffects.withStroke(linewidth=2.5, foreground="white")]
    for ax in axes.flat[len(points) :]:
        ax.axis("off")
    for ax, (name, xy) in zip(axes.flat, points.items(), strict=False):
        if np.shape(xy) != (len(labels), 2):
            raise ValueError(f"expected points [{len(labels)},2] of {name}, got {list(np.shape(xy))}")
        ax.scatter(*np.asarray(xy).T, s=9, c=shades[labels], linewidths=0)
        for number, face in enumerate(marked, 1):
            text = {"ha": "center", "va": "center", "weight": "bold", "fontsize": 9, "path_effects": halo}
            ax.text(*xy[face], str(number), color=INK, **text)
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_color("#d0d0d0")
        ax.spines[:].set_visible(True)
        ax.set_title(name, color=model_color(name))
    dots = [
        mpl.lines.Line2D([], [], marker="o", linestyle="", color=color, label=name)
        for name, color in zip(classes, colors(classes), strict=True)
    ]
    fig.legend(handles=dots, loc="outside lower center", ncols=4 if columns < 3 else 8, handletextpad=0.1)
    _head(fig, title or "The same faces, as each model lays them out (UMAP)")
    return fig


@styled
def robustness_curves(
    table: pd.DataFrame, labels: Mapping[str, str], chance: float | None = None, title: str | None = None
) -> Figure:
    """A panel a knob: accuracy of every model against the knob's level, with intervals as shades.

    Args:
        table: columns knob, level, model, value, low, high, as `comparison.robustness` gives them.
        labels: knob → what its axis is called.
        chance: accuracy of the best constant answer, a dashed line.
    """
    check_columns(table, ("knob", "level", "model", "value", "low", "high"))
    knobs, names = (list(dict.fromkeys(table[key])) for key in ("knob", "model"))
    fig = new_figure(9.0, 3.1)
    axes = fig.subplots(1, len(knobs), sharey=True, squeeze=False)[0]
    for ax, knob in zip(axes, knobs, strict=True):
        for name in names:
            rows = table[(table["knob"] == knob) & (table["model"] == name)].sort_values("level")
            color = model_color(name)
            ax.plot(rows["level"], rows["value"], "o-", color=color, markersize=4, label=name)
            ax.fill_between(rows["level"], rows["low"], rows["high"], color=color, alpha=0.08, linewidth=0)
        if chance is not None:
            ax.axhline(chance, color=SOFT, linewidth=0.8, linestyle=(0, (4, 3)))
        ax.set_xlabel(labels.get(knob, knob))
        ax.grid(axis="y")
        ax.set_ylim(0, 1.02)
    _accuracy_of(fig, axes[0])
    _head(fig, title or "One difficulty at a time")
    return fig


@styled
def group_accuracy(table: pd.DataFrame, title: str | None = None) -> Figure:
    """A panel a property: accuracy of every model within each group, with intervals.

    Args:
        table: columns property, group, model, faces, value, low, high, as `comparison.accuracy_by_group`
            gives them.
    """
    check_columns(table, ("property", "group", "model", "faces", "value", "low", "high"))
    properties, names = (list(dict.fromkeys(table[key])) for key in ("property", "model"))
    fig = new_figure(9.0, 3.2)
    axes = fig.subplots(1, len(properties), sharey=True, squeeze=False)[0]
    for ax, name in zip(axes, properties, strict=True):
        part = table[table["property"] == name]
        groups = list(dict.fromkeys(part["group"]))
        for m, model in enumerate(names):
            rows = part[part["model"] == model]
            x = np.arange(len(groups)) + 0.12 * (m - (len(names) - 1) / 2)
            color = model_color(model)
            ax.vlines(x, rows["low"], rows["high"], color=color, alpha=0.5, linewidth=2)
            ax.plot(x, rows["value"], "o", color=color, markersize=5, label=model)
        counts = [part[part["group"] == group]["faces"].iloc[0] for group in groups]
        texts = [f"{group}\n{count:,}" for group, count in zip(groups, counts, strict=True)]
        ax.set_xticks(range(len(groups)), texts)
        ax.set_title(name)
        ax.grid(axis="y")
        ax.margins(x=0.15)
    _accuracy_of(fig, axes[0])
    _head(fig, title or "Is the error the same for everybody? (numbers: faces in the group)")
    return fig


# Points that a name stands above the bar it belongs to, or below it: the places are tried in this order.
LIFTS = (5, -5, 32, -32, -59)


def _accuracy_over_speed(ax: Axes, names: Sequence[tuple[str, str, float, float, float]]) -> None:
    """Finish a chart of accuracy over speed.

    Args:
        names: text, color, speed and both ends of the bar of every model. A text stands above or below its bar,
            at the first place inside the axes where it covers neither another nor a bar,
            or at the last.
    """
    ax.set(xlabel="images a second at inference, on this machine", ylabel="accuracy")
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    ax.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
    ax.grid()
    ax.margins(x=0.12, y=0.25)
    ax.set_xlim(left=0)
    ax.figure.draw_without_rendering()
    to_pixels = ax.transData.transform
    taken = [Bbox([to_pixels((x, low)), to_pixels((x, high))]).padded(4) for _, _, x, low, high in names]
    for text, color, x, low, high in names:
        for lift in LIFTS:
            end, va = (high, "bottom") if lift > 0 else (low, "top")
            offset = {"xytext": (0, lift), "textcoords": "offset points", "ha": "center", "va": va}
            note = ax.annotate(text, (x, end), color=color, **offset)
            box = note.get_window_extent()
            inside = ax.bbox.y0 < box.y0 and box.y1 < ax.bbox.y1
            if lift == LIFTS[-1] or (inside and not any(box.overlaps(other) for other in taken)):
                break
            note.remove()
        taken.append(box)


@styled
def accuracy_against_cost(table: pd.DataFrame, title: str | None = None) -> Figure:
    """Accuracy against images a second, a disc a model with an area by its parameters.

    Args:
        table: columns model, value, low, high (accuracy, share), images_per_s, parameters_m.
    """
    check_columns(table, ("model", "value", "low", "high", "images_per_s", "parameters_m"))
    fig = new_figure(6.6, 4.0)
    ax, names = fig.subplots(), []
    for row in table.sort_values("images_per_s").itertuples():
        color = model_color(row.model)
        ax.vlines(row.images_per_s, row.low, row.high, color=color, alpha=0.5, linewidth=2)
        ax.scatter([row.images_per_s], [row.value], s=260 * row.parameters_m, color=color, alpha=0.8)
        text = f"{row.model}\n{row.parameters_m:.2f} M"
        names.append((text, color, row.images_per_s, row.low, row.high))
    ax.set_title(title or "What accuracy costs (area: parameters)")
    _accuracy_over_speed(ax, names)
    return fig


@styled
def accuracy_against_cost_twice(
    table: pd.DataFrame, conditions: Sequence[str], title: str | None = None
) -> Figure:
    """Accuracy against images a second under two conditions, hollow and filled side by side for each model.

    Args:
        table: columns model, condition, value, low, high (accuracy, share), images_per_s (the same for both).
        conditions: the two values of the column condition, the hollow one first.

    Raises:
        ValueError: missing columns, or a condition that no row has.
    """
    check_columns(table, ("model", "condition", "value", "low", "high", "images_per_s"))
    if len(conditions) != 2 or not set(conditions) <= set(table["condition"]):
        raise ValueError(f"expected two of {', '.join(sorted(set(table['condition'])))}, got {conditions}")
    fig = new_figure(6.6, 4.0)
    ax = fig.subplots()
    shift, names = 0.006 * table["images_per_s"].max(), []
    for model, rows in sorted(table.groupby("model"), key=lambda pair: pair[1]["images_per_s"].max()):
        color, at, x = model_color(model), rows.set_index("condition"), rows["images_per_s"].max()
        for condition, dx, face in zip(conditions, (-shift, shift), ("white", color), strict=True):
            if condition in at.index:
                row = at.loc[condition]
                ax.vlines(x + dx, row.low, row.high, color=color, alpha=0.5, linewidth=2)
                ax.scatter([x + dx], [row.value], s=55, color=face, edgecolor=color, zorder=3)
        names.append((model, color, x, rows["low"].min(), rows["high"].max()))
    for condition, face in zip(conditions, ("white", "#555555"), strict=True):
        ax.scatter([], [], s=55, color=face, edgecolor="#555555", label=condition)
    ax.legend(loc="lower right")
    ax.set_title(title or "What accuracy costs, under two conditions")
    _accuracy_over_speed(ax, names)
    return fig
