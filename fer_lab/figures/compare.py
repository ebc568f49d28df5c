"""What notebook 06 draws of several models: recalls, what accuracy costs, and how trainings end."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from matplotlib.transforms import Bbox

from fer_lab.figures import style


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
def accuracy_against_cost(table: pd.DataFrame, title: str) -> Figure:
    """Accuracy against images a second: a disc a model with an area by its parameters.

    `table`: columns model, value, low, high (accuracy, share), images_per_s, parameters_m.
    """
    style.check_columns(table, ("model", "value", "low", "high", "images_per_s", "parameters_m"))
    fig, ax = style.chart(6.6, 4.0)
    names: list[style.Place] = []
    bars: list[tuple[float, float, float, float]] = []  # x, its two ends, and points around them
    for row in table.sort_values(["images_per_s", "model"], kind="stable").to_dict("records"):
        x, y, size = row["images_per_s"], row["value"], 260 * row["parameters_m"]
        color = style.method_color(row["model"])
        ax.vlines(x, row["low"], row["high"], color=color, alpha=0.5, linewidth=2)
        ax.scatter([x], [y], s=size, color=color, zorder=3)
        bars += [(x, row["low"], row["high"], 4.0), (x, y, y, np.sqrt(size) / 2)]
        names.append((f"{style.method_title(row['model'])}\n{row['parameters_m']:.2f} M", color, x, y))
    ax.set(xlabel="images a second at inference", ylabel="accuracy", title=title)
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    ax.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
    ax.grid()
    ax.margins(x=0.12, y=0.25)
    ax.set_xlim(left=0)
    fig.draw_without_rendering()
    place, scale = ax.transData.transform, fig.dpi / 72
    avoid = [Bbox(place([(x, a), (x, b)])).padded(points * scale + 2) for x, a, b, points in bars]
    style.name_points(ax, names, avoid)
    return fig


@style.styled
def learning_curves(curves: pd.DataFrame, title: str) -> Figure:
    """Accuracy on held-out faces by epoch: a panel a study, black the start of its variants.

    `curves`: columns panel, variant, epoch, holdout_accuracy, several seeds, of which the mean is drawn. The
    first variant of a panel is the start, after whose last epoch the others go on, and the second the one
    without an addition, drawn over the others.
    """
    style.check_columns(curves, ("panel", "variant", "epoch", "holdout_accuracy"))
    studies = dict(list(curves.groupby("panel", sort=False)))
    fig, axes, _ = style.panels(len(studies), 4.3, 2.2, 0.7, sharey=True)
    for ax, (name, study) in zip(axes, studies.items(), strict=False):
        start, *variants = dict.fromkeys(study["variant"])
        before = study.loc[study["variant"] == start, "epoch"].max()
        moved = study.assign(epoch=study["epoch"] + before * (study["variant"] != start))
        order = [start, *variants[1:], *variants[:1]]
        shades = dict.fromkeys(order, style.SERIES[0]) | dict.fromkeys(variants[:1], style.SERIES[1])
        shades[start] = style.INK
        look: dict[str, Any] = {"hue": "variant", "hue_order": order, "palette": shades, "legend": False}
        sns.lineplot(moved, x="epoch", y="holdout_accuracy", ax=ax, linewidth=1.2, errorbar=None, **look)
        ax.set(title=name, xlabel="epoch", ylabel="")
        ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True, steps=[1, 2, 5, 10]))
        ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        ax.grid(axis="y")
    words = {"the start": style.INK, "its variants": style.SERIES[0], "without an addition": style.SERIES[1]}
    marks = [style.mark(name, color, linestyle="-", marker="") for name, color in words.items()]
    axes[0].legend(handles=marks, loc="lower right")
    return style.heading(fig, title, ylabel="accuracy on held-out faces")
