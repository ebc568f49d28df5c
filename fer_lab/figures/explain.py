"""What notebook 07 draws: maps over faces with the truth outlined, and what scores say of the maps."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from fer_lab.figures import style
from fer_lab.figures.pictures import Images, check_masks, heat_over, heat_rows, heats, outline, pictures_of
from fer_lab.figures.style import Masks, Names

Maps = Mapping[str, torch.Tensor]

# Ways to a map as figures call them, and their colours throughout the book.
NAMES = style.NAMES["ways"]
COLORS = dict(zip(("native", "grad_cam", "integrated_gradients", "occlusion"), style.SERIES, strict=False))
PRIORS: dict[str, dict[str, Any]] = {
    "chance": {"color": style.SOFT, "linestyle": (0, (1.2, 1.2))},
    "centre": {"color": style.INK, "linestyle": "-"},
    "other": {"color": "#b0711f", "linestyle": (0, (4, 1.5))},
}
DOTTED: Any = (0, (1.2, 1.6))


def _line(way: str) -> dict[str, Any]:
    """A way has dots in its colour on its line, a prior a line of its own kind without dots."""
    if way in PRIORS:
        return {**PRIORS[way], "marker": ""}
    width = 3.8 if way == "native" else 1.8  # to be seen below GradCAM, where both are one map
    return {"color": COLORS.get(way, style.INK), "linestyle": "-", "marker": "o", "linewidth": width}


def _marks(ways: Names) -> list[Artist]:
    """Entries of a legend."""
    looks = {way: _line(way) | {"linewidth": 1.8, "markersize": 4} for way in ways}
    return [style.mark(NAMES.get(way, way).replace("\n", " "), **look) for way, look in looks.items()]


@style.styled
def explanation_grid(
    images: Images, maps: Maps, masks: Masks, row_titles: Names, cell: float = 1.35, title: str = ""
) -> Figure:
    """A row a face: the face, and then each way's map as heat over it, with a region outlined.

    Only what speaks for the class is shown (values below zero are cut), and every map is scaled to 0…1 on its
    own: colours compare places within a map and not two maps. `images`: uint8 [B,3,S,S], the same face several
    times to compare models on it. `maps`: way → [B,1,h,w]. `masks`: bool [B,S,S]. `cell`: as in `mosaic`.
    """
    pictures = pictures_of(images)
    n, size = len(pictures), pictures.shape[1]
    for way, one in maps.items():
        if one.ndim != 4 or one.shape[:2] != (n, 1):
            raise ValueError(f"expected map {way!r} as [{n},1,h,w], got {list(one.shape)}")
    if masks is not None:
        check_masks(masks, pictures)
    if len(row_titles) != n:
        raise ValueError(f"{len(row_titles)} row titles for {n} faces")
    tiles = [[face] for face in pictures]
    for one in maps.values():
        for row, face, hot in zip(tiles, pictures, heats(one.clamp(min=0), size)[:, 0], strict=True):
            row.append(heat_over(face, hot))
    columns = ["face", *(NAMES.get(way, way) for way in maps)]
    fig, ax, tops = heat_rows(tiles, columns, row_titles, cell, "each on its own scale: least", title)
    if masks is not None:
        for r, c in np.ndindex(n, len(columns)):
            outline(ax, masks[r], c * style.PITCH, tops[r])
        y = tops[-1] + 1 + 0.2 / cell
        ax.plot([0.02, 0.18], [y, y], color="#1f9fc4", linewidth=1.6)
        ax.text(0.22, y, "moved by the muscles", ha="left", va="center", fontsize=8, color=style.SOFT)
    return fig


@style.styled
def explanation_scores(summary: pd.DataFrame, metrics: Mapping[str, str], title: str) -> Figure:
    """Scores with intervals: a panel a metric, a row a model, a colour a way, and marks for the priors.

    `summary`: from `mean_over_faces`, by model. `metrics`: metric → label of its axis.
    """
    style.check_columns(summary, ("model", "way", "metric", "value", "low", "high"))
    if missing := [metric for metric in metrics if metric not in set(summary["metric"])]:
        raise ValueError(f"no metric {', '.join(missing)}; there are {', '.join(summary['metric'].unique())}")
    labels = list(dict.fromkeys(summary["model"]))
    ways = [way for way in dict.fromkeys(summary["way"]) if way not in PRIORS]
    shades = [_line(way)["color"] for way in ways]
    priors = [way for way in PRIORS if way in set(summary["way"])]
    height = (0.14 * len(ways) + 0.22) * len(labels) + 0.9
    fig, axes, _ = style.panels(len(metrics), 9.0 / len(metrics), height, 0.6, rows=1, sharey=True)
    for ax, (metric, label) in zip(axes, metrics.items(), strict=True):
        part = summary[summary["metric"] == metric]
        sns.pointplot(
            style.with_ends(part[part["way"].isin(ways)]), x="estimate", y="model", hue="way", order=labels,
            hue_order=ways, palette=shades, dodge=0.55 if len(ways) > 1 else False,
            markersize=6, err_kws={"linewidth": 2, "alpha": 0.5}, ax=ax, **style.DOTS,
        )  # fmt: skip
        for row in part[part["way"].isin(priors)].to_dict("records"):
            y = labels.index(row["model"])
            ax.plot([row["value"]] * 2, [y - 0.4, y + 0.4], gid="prior", linewidth=1.3, **_line(row["way"]))
        ax.set(xlabel=label, ylabel="", xmargin=0.08)
        style.plain_rows(ax)
    axes[0].set_yticks(range(len(labels)), [style.method_title(name) for name in labels])
    axes[0].set_ylim(len(labels) - 0.45, -0.55)
    style.legend(fig, _marks([*ways, *priors]))
    return style.heading(fig, title)


@style.styled
def perturbation_figure(deletion: Maps, insertion: Maps, title: str) -> Figure:
    """Mean probability of the class while cells are taken away (left) and put back (right), a line a way.

    Both are way → [B,n], as `perturbation_curves` gives them.
    """
    if not deletion or not insertion:
        raise ValueError("there are no curves to draw")
    fig = style.new_figure(8.4, 3.5)
    left, right = fig.subplots(1, 2, sharey=True)
    for ax, curves, word in ((left, deletion, "taken away"), (right, insertion, "put back")):
        for way, values in curves.items():
            mean = values.mean(0).cpu().numpy()
            ax.plot(np.linspace(0, 100, len(mean)), 100 * mean, markersize=3.5, **_line(way))
        ax.set(xlabel=f"cells {word}, %", xlim=(0, 100), ylim=(0, 102))
        ax.grid(axis="both")
    left.set_ylabel("mean probability of the class, %")
    left.set_title("deletion: the faster the fall, the better", fontsize=9.5)
    right.set_title("insertion: the faster the rise, the better", fontsize=9.5)
    style.legend(fig, _marks(list(deletion)))
    return style.heading(fig, title)


@style.styled
def randomization_figure(means: pd.DataFrame, between_faces: Mapping[str, Mapping[str, float]]) -> Figure:
    """How much of a map is left while layers become random: a panel a model, a line a way, bars for intervals.

    `means`: `mean_over_faces` of `weight_randomization`'s correlations, by model and share; the title says over
    how many faces. `between_faces`: model → way → correlation of the maps of different faces, dotted in the
    way's colour.
    """
    style.check_columns(means, ("model", "way", "share", "faces", "value", "low", "high"))
    models, ways = (list(dict.fromkeys(means[key])) for key in ("model", "way"))
    shades, widths = ([_line(way)[key] for way in ways] for key in ("color", "linewidth"))
    fig, axes, empty = style.panels(len(models), 3.0, 2.4, 0.8, sharex=True, sharey=True)
    drawn = style.with_ends(means.assign(share=100 * means["share"]))
    lowest = min(means["low"].min(), *(min(one.values()) for one in between_faces.values()), 0)
    for ax, model in zip(axes, models, strict=True):
        ax.axhline(0, color=style.SOFT, linewidth=0.8)
        sns.lineplot(
            drawn[drawn["model"] == model], x="share", y="estimate", hue="way", hue_order=ways, palette=shades,
            size="way", size_order=ways, sizes=widths, err_style="bars", err_kws={"elinewidth": 1.2},
            marker="o", markersize=4, markeredgewidth=0, sort=False, legend=False, ax=ax, **style.KNOWN_ENDS,
        )  # fmt: skip
        for way, value in between_faces[model].items():
            ax.axhline(value, color=_line(way)["color"], linestyle=DOTTED, linewidth=1.1)
        ax.set_title(style.method_title(model), fontsize=9.5)
        ax.set(ylim=(lowest - 0.05, 1.08), xlim=(-4, 104), xlabel="", ylabel="")
        ax.grid(axis="both")
    marks = [*_marks(ways), style.mark("maps of two faces, by colour", marker="", linestyle=DOTTED)]
    style.legend(fig, marks, empty, columns=2 if len(models) < 3 else 0)
    title = f"What is left of a map while the layers become random, mean over {means['faces'].max()} faces"
    return style.heading(fig, title, "random layers, %", "rank correlation")


@style.styled
def causes_figure(
    image: Images, causes: Names, importance: torch.Tensor, maps: Maps, claims: Maps, title: str
) -> Figure:
    """A face, what its answer hung on as bars, and under each map's heat what that map makes of the causes.

    The causes are in their true order, the most important first. `image`: uint8 [3,S,S]. `causes`: M names.
    `importance`: [M], fall of the logit without each. `maps`: way → [1,1,h,w]. `claims`: way → [M], shares of
    the map's mass.
    """
    if any(len(values) != len(causes) for values in (importance, *claims.values())) or set(maps) != set(claims):
        raise ValueError(f"expected a number for each of {len(causes)} causes, by the truth and by every map")
    face = pictures_of(image)[0]
    order = importance.argsort(descending=True).tolist()
    fig = style.new_figure(2.25 * (1 + len(maps)), 2.5 + 0.2 * len(causes))
    axes = fig.subplots(2, 1 + len(maps), height_ratios=[1.9, 0.2 * len(causes)], squeeze=False)
    bars = {"": importance} | dict(claims)
    for (way, values), above, below in zip(bars.items(), *axes, strict=True):
        heat = heats(maps[way].clamp(min=0), len(face))[0, 0] if way else None
        above.imshow(face if heat is None else heat_over(face, heat), interpolation="bicubic")
        above.set_axis_off()
        above.set_title(NAMES.get(way, way) if way else "the face", fontsize=9.5, loc="center")
        shade = COLORS.get(way, style.SOFT) if way else style.INK
        below.barh(range(len(order)), values[order].numpy(), height=0.66, color=shade)
        below.set(ylim=(len(order) - 0.4, -0.6), xlabel="share of the map" if way else "fall of the logit")
        below.set_yticks(range(len(order)), [causes[i] for i in order] if not way else [])
        below.axvline(0, color=style.SOFT, linewidth=0.8)
        below.locator_params(axis="x", nbins=4)
        style.plain_rows(below)
    return style.heading(fig, title)


@style.styled
def mean_maps_figure(
    maps: Mapping[str, Mapping[str, np.ndarray]], titles: Mapping[str, str], classes: Names
) -> Figure:
    """The mean map of each class, a row a model and a block a set of faces; a row of a block has one scale.

    Beside each row of a block stands how far its scale reaches, as a multiple of an even map's value. `maps`:
    set → model → [C,7,7], C at most the number of classes, which name the columns; a map adds up to 1.
    `titles`: set → what stands below its block.
    """
    models = list(dict.fromkeys(name for block in maps.values() for name in block))
    counts = [max(len(one) for one in block.values()) for block in maps.values()]
    fig = style.new_figure(style.WIDTH, 0.6 * len(models) + 0.9)
    fig.set_layout_engine("constrained", h_pad=0.02, w_pad=0.03, hspace=0, wspace=0)
    widths = [size for count in counts for size in ([1.0] * count + [0.1])][:-1]
    grid = fig.add_gridspec(len(models), len(widths), width_ratios=widths)
    for r, name in enumerate(models):
        first = 0
        for (key, block), count in zip(maps.items(), counts, strict=True):
            shown = block.get(name, np.zeros((0, 7, 7)))
            for c, one in enumerate(shown):
                ax = fig.add_subplot(grid[r, first + c])
                ax.imshow(one, cmap=style.SHADES, vmin=0, vmax=shown.max())
                ax.set(xticks=[], yticks=[])
                ax.spines[:].set(visible=True, color="#d0d0d0")
                if r == 0:
                    ax.set_title(classes[c], fontsize=7, loc="center", fontweight="normal")
                if r == len(models) - 1 and c == count // 2:
                    ax.set_xlabel(titles[key], fontsize=9.5, labelpad=6)
                if c == 0:
                    beside: dict[str, Any] = {"rotation": 0, "ha": "right", "va": "center", "labelpad": 8}
                    reach = f"0 to {shown.max() * shown[0].size:.1f}×"
                    text = f"{style.method_title(name)}\n{reach}" if first == 0 else reach
                    ax.set_ylabel(text, fontsize=8, **beside)
            first += count + 1
    return style.heading(fig, "Mean native maps: each row has its own scale, in multiples of an even map\n")
