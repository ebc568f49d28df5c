"""Charts that two notebooks or more draw, or the command line: training, metrics with intervals, curves."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter, StrMethodFormatter

from fer_lab.data.expressions import colors
from fer_lab.data.faces import SPLITS, FaceSet
from fer_lab.evaluation.embeddings import Plane
from fer_lab.figures import style
from fer_lab.figures.pictures import set_title
from fer_lab.figures.style import Labels, Names
from fer_lab.models.method import TITLES
from fer_lab.runs.store import SHARES

# Of the verdicts that decide something; any other is grey.
VERDICT_COLORS = {"better": "#117733", "worse": "#aa3355", "equivalent": "#332288"}
STAR: dict[str, Any] = {"marker": "*", "edgecolors": "white", "linewidths": 1.1, "zorder": 4}


@style.styled
def class_counts(faces: FaceSet) -> Figure:
    """Faces per class as bars in the classes' colours, paler by split; count and share at the end."""
    fig, ax = style.chart(7, 0.34 * faces.num_classes + 1.2)
    place, left = np.arange(faces.num_classes), np.zeros(faces.num_classes)
    shades = np.array([to_rgb(color) for color in colors(faces.classes)])
    present = [split for split in SPLITS if (faces.splits == split).any()]
    for strength, split in zip((1.0, 0.6, 0.3), present, strict=False):
        counts = np.bincount(faces.labels.numpy()[faces.splits == split], minlength=faces.num_classes)
        tint = 1 - strength * (1 - shades)
        ax.barh(place, counts, left=left, height=0.66, color=tint, edgecolor="white", linewidth=0.6)
        left += counts
        ax.plot([], [], "s", color=str(1 - 0.65 * strength), markersize=7, label=split)
    for y, count in enumerate(left):
        text = f" {count:,.0f}  ({count / max(1, left.sum()):.0%})"
        ax.text(count, y, text, va="center", fontsize=8.5, path_effects=style.HALO)
    ax.set_yticks(place, faces.classes)
    ax.set(xlim=(0, left.max() * 1.18 or 1), ylim=(faces.num_classes - 0.5, -0.5), xlabel="faces")
    ax.set(title=f"{set_title(faces)}: how often each expression occurs among {len(faces):,}")
    style.plain_rows(ax)
    if len(present) > 1:
        ax.legend(loc="lower right", handletextpad=0.2)
    return fig


@style.styled
def training_curves(history: pd.DataFrame) -> Figure:
    """A run's history: its loss terms by name, its accuracies, its learning rate, against epochs.

    `history`: columns epoch, lr, total, any other loss terms, and columns that end in "accuracy" (0…1). A
    column "seconds" goes into the title.
    """
    style.check_columns(history, ("epoch", "total"))
    rates = [name for name in history if name.endswith("accuracy")]
    terms = [name for name in history if name not in ("epoch", "seconds", "lr", "total", *rates)]
    names: list[Any] = ["loss", *(["accuracy"] if rates else []), *(["lr"] if "lr" in history else [])]
    fig = style.new_figure(3.0 * len(names), 3.5)
    axes: dict[str, Axes] = fig.subplot_mosaic([names])
    dots: dict[str, Any] = {"marker": "o" if len(history) < 40 else "", "markersize": 3.5}

    def curve(panel: str, name: str, label: str, color: str, linestyle: Any = "-") -> None:
        values = history[name] * (100 if panel == "accuracy" else 1)
        line: dict[str, Any] = {"color": color, "linestyle": linestyle, "label": label, "gid": name}
        axes[panel].plot(history["epoch"], values, **dots, **line)

    for i, name in enumerate(terms):
        curve("loss", name, name.replace("_", " "), style.SERIES[i % len(style.SERIES)])
    if terms != ["cross_entropy"]:
        curve("loss", "total", "total", style.INK, (0, (4, 1.5)))
    losses = history[[*terms, "total"]].replace([np.inf, -np.inf], np.nan)
    if 0 < losses.min(axis=None) < losses.max(axis=None) / 30:
        axes["loss"].set_yscale("log")
    for color, name in zip(style.SERIES, reversed(rates), strict=False):
        title = name.removesuffix("_accuracy").replace("valid", "held-out faces").replace("_", " ")
        curve("accuracy", name, f"{title} (last {history[name].iloc[-1]:.1%})", color)
    if "lr" in history:
        curve("lr", "lr", "", style.SOFT)
        axes["lr"].set_ylim(bottom=0)
    ylabels = {"loss": "loss, mean over the epoch", "accuracy": "accuracy, %", "lr": "learning rate"}
    for name, ax in axes.items():
        ax.set(xlabel="epoch", ylabel=ylabels[name])
        ax.locator_params(axis="x", integer=True)
        ax.grid(axis="both")
        if name != "lr":
            columns = 2 if len(ax.lines) > 1 and name == "loss" else 1
            ax.legend(loc="upper center", bbox_to_anchor=(0.45, -0.2), ncols=columns, columnspacing=1.2)
    seconds = f", {history['seconds'].sum():,.0f} s" if "seconds" in history else ""
    style.heading(fig, f"Training, {len(history)} epochs{seconds}")
    # The layout makes room for the ticks that were there before it, and may then get longer ones.
    fig.draw_without_rendering()
    return fig


@style.styled
def curves(
    x: np.ndarray,
    lines: Mapping[str, np.ndarray],
    xlabel: str,
    ylabel: str,
    title: str,
    reference: tuple[str, float | np.ndarray] | None = None,
    dashed: Collection[str] = (),
    dots: bool = True,
    **axes: Any,
) -> Figure:
    """Named lines [N] over x [N], with dots and some dashed. One named after a model has the model's colour.

    `reference`: name and value, or values [N], of a grey dashed line. `axes`: more for `Axes.set`.
    """
    fig, ax = style.chart(7.5, 3.3)
    shades = style.method_palette(list(lines))
    for (name, values), (label, color) in zip(lines.items(), shades.items(), strict=True):
        stroke: Any = (0, (3, 2)) if name in dashed else "-"
        ax.plot(x, values, color, linestyle=stroke, marker="o" if dots else "", markersize=4, label=label)
    if reference is not None:
        ax.plot(x, np.broadcast_to(reference[1], np.shape(x)), label=reference[0], **style.DASHED)
    ax.set(xlabel=xlabel, ylabel=ylabel, title=title, **axes)
    ax.grid()
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), handlelength=3)
    return fig


@style.styled
def confusion(matrix: np.ndarray, classes: Names) -> Figure:
    """Counts int [C,C], rows the truth: the share of the row as shade and number, the count below it."""
    matrix, c = np.asarray(matrix), len(classes)
    if matrix.shape != (c, c):
        raise ValueError(f"expected a matrix [{c},{c}] for {c} classes, got {list(matrix.shape)}")
    total = matrix.sum(1)
    share = np.divide(matrix, total[:, None], out=np.zeros((c, c)), where=total[:, None] > 0)
    fig, ax = style.chart(0.62 * c + 1.5, 0.62 * c + 1.5)
    cells = zip(share.flat, matrix.flat, strict=True)
    texts = np.array([f"{part:.0%}\n{n:,}" if n else "" for part, n in cells]).reshape(c, c)
    rows = [f"{name}\n{n:,}" for name, n in zip(classes, total, strict=True)]
    # Errors are rare: a curve in the shade lets a few percent be seen.
    style.heat_table(ax, share, rows, classes, texts, norm=PowerNorm(0.6, 0, 1), square=True)
    ax.tick_params(pad=9)
    for i, color in enumerate(colors(classes)):
        bar: dict[str, Any] = {"color": color, "linewidth": 4, "clip_on": False, "solid_capstyle": "butt"}
        ax.plot([-0.1, -0.1], [i + 0.1, i + 0.9], **bar)
        ax.plot([i + 0.1, i + 0.9], [c + 0.1, c + 0.1], **bar)
    ax.set(xlim=(0, c), ylim=(c, 0), xlabel="predicted: share of the row, and faces", ylabel="label")
    right = np.trace(matrix) / max(1, matrix.sum())
    ax.set_title(f"What was taken for what: {right:.1%} of {matrix.sum():,} faces right")
    return fig


@style.styled
def ablation(
    summary: pd.DataFrame,
    xlabel: str = "accuracy, %",
    percent: bool = True,
    reference: str | None = None,
    title: str = "What each part contributes",
) -> Figure:
    """A dot and an interval for each row of label, value, low, high, from the top down.

    low and high are NaN for a single seed, whose dot is hollow. A column "model" gives rows their methods'
    colours. `percent`: values are shares, shown times 100. `reference`: label of the row that the others are
    compared with; gets a line through all rows.
    """
    style.check_columns(summary, ("label", "value", "low", "high"))
    labels = list(summary["label"])
    if reference is not None and reference not in labels:
        raise ValueError(f"no row {reference!r}; labels are {', '.join(map(str, labels))}")
    fig, ax = style.chart(7.2, 0.36 * len(labels) + 1.05)
    shades = [style.INK if label == reference else style.SERIES[0] for label in labels]
    shades = list(map(style.method_color, summary["model"])) if "model" in summary else shades
    style.interval_rows(ax, summary, shades, percent, "{:.1f}%" if percent else "{:.3f}")
    if reference is not None:
        value = summary["value"].iloc[labels.index(reference)]
        ax.axvline(value * (100 if percent else 1), **style.DASHED)
    ax.set(xlabel=xlabel, title=title, xmargin=0.06)
    return fig


@style.styled
def verdicts(claims: pd.DataFrame, title: str = "What each idea changes, paired by seed") -> Figure:
    """Differences with their intervals and verdicts: a panel for accuracies, in points, and one for each ratio.

    `claims`: as `experiments.judge` gives them. Accuracies in the grey band count as equal.
    """
    wanted = ("a", "b", "metric", "difference", "low", "high", "seeds", "planned", "verdict")
    style.check_columns(claims, wanted)
    groups = [part for _, part in claims.groupby("metric", sort=False)]
    fig = style.new_figure(8.6, 0.34 * len(claims) + 0.62 * len(groups) + 0.5)
    axes = fig.subplots(len(groups), 1, squeeze=False, height_ratios=[len(part) + 0.6 for part in groups])[:, 0]
    for ax, part in zip(axes, groups, strict=True):
        metric = str(part["metric"].iloc[0])
        share = SHARES.fullmatch(metric) is not None
        rows = part.rename(columns={"difference": "value"})
        rows["label"] = [f"{a}  minus  {b}" for a, b in zip(part["a"], part["b"], strict=True)]
        rows[["value", "low", "high"]] *= 100 if share else 1
        shades = [VERDICT_COLORS.get(verdict, style.SOFT) for verdict in part["verdict"]]
        style.interval_rows(ax, rows[["label", "value", "low", "high"]], shades, percent=False, number="")
        for i, row in enumerate(part.itertuples()):
            short = "" if row.seeds == row.planned else f" ({row.seeds} of {row.planned} seeds)"
            ax.annotate(
                row.verdict + short, (1, i), (6, 0), xycoords=("axes fraction", "data"), va="center",
                textcoords="offset points", fontsize=8.5, color=shades[i], fontweight="bold",
            )  # fmt: skip
        if share:
            ax.axvspan(-1, 1, color="#eeeeee", linewidth=0, zorder=0)
        ax.axvline(0, **style.DASHED)
        name = style.NAMES["metrics"].get(metric, metric.replace("_", " "))
        unit = ", points (grey: less than one)" if share else ""
        ax.set(xlabel=f"difference of {name}{unit}", xmargin=0.08)
    return style.heading(fig, title)


@style.styled
def panels_of_intervals(
    table: pd.DataFrame,
    xlabel: str = "",
    reference: str | float | None = None,
    percent: bool = True,
    number: str = "{:.1f}%",
    sharex: bool = True,
    title: str = "",
) -> Figure:
    """Means with their intervals: a panel a setting, a row a method.

    `table`: columns panel, label, value, low, high; low and high may be NaN. Methods have their titles and
    colours, all other labels one colour. `reference`: a label, whose value gets a line in every panel, or a
    value as it is shown. `percent`: values are shares, shown times 100. `number`: how a value is written.
    """
    style.check_columns(table, ("panel", "label", "value", "low", "high"))
    names, labels = (list(dict.fromkeys(table[key])) for key in ("panel", "label"))
    if table.pivot_table(index="label", columns="panel", values="value").isna().any(axis=None):
        raise ValueError(f"every panel needs a row for each of {', '.join(labels)}")
    width, height = 9.0 / len(names), 0.42 * len(labels) + 0.7
    fig, axes, _ = style.panels(len(names), width, height, 0.35, rows=1, sharex=sharex)
    one = {label: style.INK if label == reference else style.SERIES[0] for label in labels}
    shades = style.method_palette(labels) if set(labels) <= set(TITLES) else one
    for ax, name in zip(axes, names, strict=True):
        rows = table[table["panel"] == name].set_index("label").loc[labels].reset_index()
        titled = rows.assign(label=list(shades))
        style.interval_rows(ax, titled, list(shades.values()), percent, number, above=True)
        if reference is not None:
            at = rows["value"].iloc[labels.index(reference)] if isinstance(reference, str) else reference
            ax.axvline(at * 100 if percent and isinstance(reference, str) else at, **style.DASHED)
        ax.tick_params(labelleft=ax is axes[0])
        ax.set_title(name, fontsize=9.5)
        ax.set(xlabel="", xmargin=0.08)
        ax.locator_params(axis="x", nbins=5)
        if percent:
            ax.xaxis.set_major_formatter(lambda x, _: f"{x:g}%")
    return style.heading(fig, title or xlabel, xlabel)


@style.styled
def curves_with_intervals(
    table: pd.DataFrame,
    labels: Mapping[str, str],
    chance: float | None = None,
    spans: Mapping[str, tuple[float, float]] | None = None,
    title: str = "One difficulty at a time",
) -> Figure:
    """A panel a knob: accuracy of every model against the knob's level, with intervals as shades.

    `table`: as `evaluation.robustness` gives it. `labels`: knob → name of its axis. `chance`: accuracy of the
    best constant answer, a dashed line. `spans`: knob → ends of a grey bar, where training faces lie.
    """
    style.check_columns(table, ("knob", "level", "model", "value", "low", "high"))
    knobs, names = (list(dict.fromkeys(table[key])) for key in ("knob", "model"))
    shades = style.method_palette(names)
    fig, axes, _ = style.panels(len(knobs), 9.0 / len(knobs), 2.5, 0.6, rows=1, sharey=True)
    drawn = style.with_ends(table.assign(model=table["model"].map(style.method_title)))
    for ax, knob in zip(axes, knobs, strict=True):
        rows = drawn[drawn["knob"] == knob]
        look: dict[str, Any] = {"marker": "o", "markersize": 4, "markeredgewidth": 0, "err_kws": {"alpha": 0.1}}
        look |= {"hue": "model", "palette": shades, "hue_order": list(shades), "legend": False}
        sns.lineplot(rows, x="level", y="estimate", sort=False, ax=ax, **look, **style.KNOWN_ENDS)
        if chance is not None:
            ax.axhline(chance, **style.DASHED)
        if spans is not None:
            ax.axvspan(*spans[knob], ymax=0.03, color="#b5b5b5", linewidth=0, zorder=0)
        ax.set(xlabel=labels.get(knob, knob), ylabel="accuracy", ylim=(0, 1.02))
        ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        ax.grid(axis="y")
    marks = [style.mark(name, color, linestyle="-") for name, color in shades.items()]
    marks += [style.mark("learned from", "#b5b5b5", "", linestyle="-", linewidth=5)] * bool(spans)
    style.legend(fig, marks)
    return style.heading(fig, title)


@style.styled
def group_accuracy(table: pd.DataFrame) -> Figure:
    """A panel a property: accuracy of every model within each group, with intervals.

    `table`: as `comparison.accuracy_by_group` gives it; the number of faces is written under each group.
    """
    style.check_columns(table, ("property", "group", "model", "faces", "value", "low", "high"))
    names, models = (list(dict.fromkeys(table[key])) for key in ("property", "model"))
    shades = style.method_palette(models)
    widths = [table.loc[table["property"] == name, "group"].nunique() + 0.6 for name in names]
    fig = style.new_figure(2.6 * len(names) + 3.0, 3.3)
    axes = fig.subplots(1, len(names), sharey=True, squeeze=False, width_ratios=widths)[0]
    for ax, name in zip(axes, names, strict=True):
        part = table[table["property"] == name]
        groups = part.drop_duplicates("group")
        order = list(groups["group"])
        named = part.assign(model=part["model"].map(style.method_title))
        sns.pointplot(
            style.with_ends(named), x="group", y="estimate", hue="model", order=order, hue_order=list(shades),
            palette=shades, linewidth=1.6, markersize=6, dodge=0.5 if len(shades) > 1 else False,
            err_kws={"linewidth": 2, "alpha": 0.5}, ax=ax, **style.DOTS,
        )  # fmt: skip
        ax.set_xticks(range(len(order)), [f"{g}\n{n:,}" for g, n in groups[["group", "faces"]].to_numpy()])
        ax.set(xlabel=name, ylabel="accuracy" if ax is axes[0] else "")
        ax.grid(axis="y")
    axes[0].yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    style.legend(fig, [style.mark(model, color) for model, color in shades.items()])
    return style.heading(fig, "Is the error the same for everybody? (numbers: faces in the group)")


class Frame(NamedTuple):
    """An embedding at one moment: points [N,2], centers [C,2] or None, and what `plane_of` says or None."""

    xy: np.ndarray
    centers: np.ndarray | None = None
    plane: Plane | None = None


def cloud(ax: Axes, moment: Frame, labels: Labels, classes: Names, size: float, outline: str = "") -> None:
    """Points in their classes' colours, centers as stars, decision regions pale, margins as outlines.

    `outline`: the one class whose margin is drawn; all by default.
    """
    xy, chosen, shades = np.asarray(moment.xy), np.asarray(labels), colors(classes)
    if xy.shape != (len(chosen), 2):
        raise ValueError(f"expected points [{len(chosen)},2], got {list(xy.shape)}")
    if (plane := moment.plane) is not None:
        pale = np.array([[1 - 0.2 * (1 - part) for part in to_rgb(shade)] for shade in shades])
        box = (plane.x[0], plane.x[-1], plane.y[0], plane.y[-1])
        ax.imshow(pale[plane.decision], extent=box, origin="lower", aspect="auto", interpolation="nearest")
        every = () if plane.silent is None else plane.silent
        for name, shade, silent in zip(classes, shades, every, strict=False):
            if silent.any() and not silent.all() and outline in ("", name):
                ax.contour(plane.x, plane.y, silent.astype(float), levels=[0.5], colors=[shade], linewidths=1.3)
        ax.set(xlim=box[:2], ylim=box[2:])
    # In random order, so that no class covers all others.
    order = np.random.default_rng(0).permutation(len(xy))
    dots = np.array([mpl.colors.to_rgba(shade, 0.75) for shade in shades])
    ax.scatter(xy[order, 0], xy[order, 1], s=size, c=dots[chosen[order]], linewidths=0, zorder=2)
    if moment.centers is not None:
        x, y = np.asarray(moment.centers).T
        ax.scatter(x, y, s=9 * size + 60, c=shades, **STAR)
    ax.set(xticks=[], yticks=[])


@style.styled
def embedding_frames(
    frames: Mapping[str, Sequence[Frame]],
    labels: Labels,
    classes: Names,
    column_titles: Names,
    side: float = 1.75,
    title: str = "The same faces through training",
    outline: str = "",
) -> Figure:
    """Plane embeddings of the same faces as they change: a row a method, a column a moment.

    Every panel has its own scale, since what matters is where the classes lie to each other. `side`: of a
    panel, in inches, at most. `outline`: the one class whose margin is drawn; all by default.
    """
    count = len(column_titles)
    if {len(row) for row in frames.values()} != {count}:
        raise ValueError(f"expected {count} frames in every row, got {[len(r) for r in frames.values()]}")
    side = min(side, 8.6 / count)
    fig = style.new_figure(side * count + 0.4, (side + 0.12) * len(frames) + 0.75)
    axes = fig.subplots(len(frames), count, squeeze=False)
    for row, (name, moments) in zip(axes, frames.items(), strict=True):
        for ax, moment in zip(row, moments, strict=True):
            cloud(ax, moment, labels, classes, 4.5 * max(1.0, side / 1.2), outline)
            ax.spines[:].set(visible=True, color="#c8c8c8")
        row[0].set_ylabel(name, color=style.INK, fontsize=8.5)
    for ax, text in zip(axes[0], column_titles, strict=True):
        ax.set_title(text, loc="center", fontsize=9, weight="normal", pad=4)
    fig.set_layout_engine("constrained", h_pad=0.02, w_pad=0.02)
    style.heading(fig, title)
    marks = style.class_marks(classes)
    if any(moment.centers is not None for row in frames.values() for moment in row):
        marks.append(style.mark("center", marker="*", markersize=12))
    style.legend(fig, marks, columns=9 if fig.get_size_inches()[0] > 8 else 5)
    return fig


@style.styled
def bench_table_figure(table: pd.DataFrame) -> Figure:
    """Images a second of every model on every path, from `bench.bench_models`: a panel a size and mode."""
    style.check_columns(table, ("model", "size", "mode", "path", "images_per_s"))
    shades = {"plain": "#b9bcd9", "default": style.SERIES[0], "compiled": style.SERIES[1]}
    paths = [path for path in shades if path in set(table["path"])]
    groups = list(table.groupby(["size", "mode"], sort=False))
    models = list(dict.fromkeys(table["model"]))
    fig, axes, _ = style.panels(len(groups), 4.5, 0.52 * len(models) + 1.0, 0.5)
    for ax, ((size, mode), part) in zip(axes, groups, strict=True):
        rates = part.pivot_table(index="model", columns="path", values="images_per_s").reindex(models)
        sns.barplot(
            part, x="images_per_s", y="model", hue="path", order=models, hue_order=paths,
            palette=shades, saturation=1, errorbar=None, width=0.76, gap=0.1, legend=False, ax=ax,
        )  # fmt: skip
        for path, bars in zip(paths, ax.containers, strict=True):
            texts = []
            for model, rate in rates.get(path, pd.Series(dtype=float)).dropna().items():
                faster = rate / rates.loc[model, "plain"] if path != "plain" and "plain" in rates else np.nan
                ratio = f"  ({faster:.1f}×)" if np.isfinite(faster) else ""
                texts.append((f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}") + ratio)
            ax.bar_label(bars, texts, padding=4, fontsize=8)  # type: ignore[arg-type]
        ax.set(xlim=(0, part["images_per_s"].max() * 1.28), xlabel="images a second", ylabel="")
        ax.set_yticks(range(len(models)), [style.method_title(name) for name in models])
        ax.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        ax.set_title(f"{mode}, {size} size", fontsize=9.5)
        style.plain_rows(ax)
    names = {"plain": "plain: fp32, eager", "default": "default", "compiled": "default, torch.compile"}
    style.legend(fig, [Patch(color=shades[path], label=names[path]) for path in paths])
    return style.heading(fig, "Speed on this machine")
