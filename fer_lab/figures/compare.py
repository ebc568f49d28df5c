"""What notebook 06 draws of several models: recalls, confusions, embeddings, what accuracy costs."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from matplotlib.transforms import Bbox

from fer_lab.figures import style
from fer_lab.figures.charts import Frame, cloud


@style.styled
def recall_by_class(recalls: pd.DataFrame, classes: Sequence[str]) -> Figure:
    """Recall of every class by every model, shares: value as shade and number, its interval below them."""
    style.check_columns(recalls, ("model", "class", "value", "low", "high"))
    names = list(dict.fromkeys(recalls["model"]))
    tables = recalls.pivot_table(index="model", columns="class", values=["value", "low", "high"], dropna=False)
    tables = 100 * tables.reindex(index=names)
    ends = (tables[end].reindex(columns=list(classes)) for end in ("value", "low", "high"))
    value, low, high = (table.to_numpy() for table in ends)
    fig, ax = style.chart(1.6 + 0.85 * len(classes), 1.4 + 0.48 * len(names))
    texts = np.full(value.shape, "", dtype=object)
    for at in zip(*np.nonzero(np.isfinite(value)), strict=True):
        texts[at] = f"{value[at]:.0f}%\n{low[at]:.0f}–{high[at]:.0f}"
    # Ten points below the least: from zero on, 77 % and 95 % would look alike.
    least = max(0, 10 * np.floor(np.nanmin(value) / 10) - 10)
    titles = [style.method_title(name) for name in names]
    style.heat_table(ax, value, titles, classes, texts, 0, vmin=least, vmax=100)
    ax.set(xlabel="", ylabel="", title="Recall of each class, with 95 % interval")
    return fig


@style.styled
def confusion_differences(matrices: Mapping[str, np.ndarray], reference: str, classes: Sequence[str]) -> Figure:
    """Every model's confusion minus the reference's, in points of a row's faces: blue is less, red is more.

    Differences below one point carry no number. `matrices`: model → counts int [C,C], rows the truth; all of
    the same faces.
    """
    others = [name for name in matrices if name != reference]
    if reference not in matrices or not others:
        raise ValueError(f"expected {reference!r} and at least one other model, got {', '.join(matrices)}")

    def shares(counts: np.ndarray) -> np.ndarray:
        counts = np.asarray(counts, dtype=float)
        return 100 * counts / np.maximum(1, counts.sum(1, keepdims=True))

    gaps = {name: shares(matrices[name]) - shares(matrices[reference]) for name in others}
    limit = max(1.0, *(float(np.abs(gap).max()) for gap in gaps.values()))
    width = 4.2 if len(others) in (1, 2, 4) else 3.0
    fig, axes, _ = style.panels(len(others), width, 3.0, 0.5, sharex=True, sharey=True)
    for ax, (name, gap) in zip(axes, gaps.items(), strict=True):
        texts = [[f"{points:+.0f}" if abs(points) >= 1 else "" for points in row] for row in gap]
        shades: dict[str, Any] = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit}
        style.heat_table(ax, gap, classes, classes, texts, annot_kws={"fontsize": 8}, **shades)
        ax.set_title(style.method_title(name), color=style.method_color(name))
    title = f"Confusion: difference to {style.method_title(reference)}, in points of each row's faces"
    return style.heading(fig, title, "predicted", "label")


@style.styled
def embedding_panels(
    points: Mapping[str, np.ndarray], labels: style.Labels, classes: Sequence[str], marked: Sequence[int] = ()
) -> Figure:
    """Layouts [N,2] of the same faces by several models, in their classes' colours.

    `marked`: faces that carry the same number in every panel.
    """
    fig, axes, empty = style.panels(len(points), 3.0, 2.8, 0.6)
    for ax, (name, xy) in zip(axes, points.items(), strict=True):
        cloud(ax, Frame(xy), labels, classes, size=9)
        ax.spines[:].set(visible=True, color="#d0d0d0")
        ax.set_title(style.method_title(name), color=style.method_color(name))
    style.legend(fig, style.class_marks(classes), empty, columns=min(4, len(classes)))
    style.heading(fig, "The same faces, as each model lays them out (UMAP)")
    for ax, xy in zip(axes, points.values(), strict=True):
        chosen = np.asarray(xy)[list(marked)].reshape(-1, 2)
        x, y = chosen.T
        ax.scatter(x, y, s=20, facecolor="none", edgecolor=style.INK, linewidth=1, zorder=4)
        fig.draw_without_rendering()
        dots = [Bbox([at, at]).padded(5) for at in ax.transData.transform(chosen)]
        numbers = [(str(i), style.INK, x, y) for i, (x, y) in enumerate(chosen, 1)]
        style.name_points(ax, numbers, dots, line=True, weight="bold", fontsize=9, path_effects=style.HALO)
    return fig


@style.styled
def accuracy_against_cost(table: pd.DataFrame, conditions: Sequence[str] = (), title: str = "") -> Figure:
    """Accuracy against images a second: a disc a model with an area by its parameters.

    Under two `conditions`, the hollow one first, each model has two dots of one size instead. `table`: columns
    model, value, low, high (accuracy, share), images_per_s, and parameters_m or condition.
    """
    style.check_columns(table, ("model", "value", "low", "high", "images_per_s"))
    style.check_columns(table, ("condition",) if conditions else ("parameters_m",))
    if conditions and (len(conditions) != 2 or not set(conditions) <= set(table["condition"])):
        raise ValueError(f"expected two of {', '.join(sorted(set(table['condition'])))}, got {conditions}")
    fig, ax = style.chart(6.6, 4.0)
    names: dict[str, tuple[str, str, float, float]] = {}
    bars: list[tuple[float, float, float, float]] = []  # x, its two ends, and points around them
    shift = 0.006 * table["images_per_s"].max()
    if conditions:
        table = table[table["condition"].isin(conditions)]
    for row in table.sort_values(["images_per_s", "model"], kind="stable").to_dict("records"):
        x, y, size, text = row["images_per_s"], row["value"], 55.0, style.method_title(row["model"])
        face = color = style.method_color(row["model"])
        if not conditions:
            size, text = 260 * row["parameters_m"], f"{text}\n{row['parameters_m']:.2f} M"
        elif row["condition"] == conditions[0]:
            x, face = x - shift, "white"
        else:
            x += shift
        ax.vlines(x, row["low"], row["high"], color=color, alpha=0.5, linewidth=2)
        ax.scatter([x], [y], s=size, color=face, edgecolor=color, zorder=3)
        bars += [(x, row["low"], row["high"], 4.0), (x, y, y, np.sqrt(size) / 2)]
        names.setdefault(text, (text, color, x, y))
    if conditions:
        faces = zip(conditions, ("white", "#555555"), strict=True)
        marks = [style.mark(text, "#555555", markersize=7, markerfacecolor=face) for text, face in faces]
        ax.legend(handles=marks, loc="lower right")
    title = title or "What accuracy costs" + ("" if conditions else " (area: parameters)")
    ax.set(xlabel="images a second at inference", ylabel="accuracy", title=title)
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    ax.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
    ax.grid()
    ax.margins(x=0.28 if conditions else 0.12, y=0.25)
    ax.set_xlim(left=0)
    if conditions:
        ax.set_ylim(top=min(ax.get_ylim()[1], 1.02))
    fig.draw_without_rendering()
    place, scale = ax.transData.transform, fig.dpi / 72
    avoid = [Bbox(place([(x, a), (x, b)])).padded(points * scale + 2) for x, a, b, points in bars]
    style.name_points(ax, names.values(), avoid)
    return fig
