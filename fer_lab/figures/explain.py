"""Figures about explanations: maps over faces with the truth outlined, and what scores say of the maps."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fer_lab.explanation.maps import normalize_for_display, upsample
from fer_lab.explanation.scores import mean_over_faces
from fer_lab.figures.pictures import heat_over
from fer_lab.figures.style import (
    HEAT,
    INK,
    PITCH,
    SERIES,
    SOFT,
    check_columns,
    mosaic,
    new_figure,
    pictures_of,
    styled,
)

# Ways to a map as they are called in figures, and their colours throughout the book.
NAMES = {
    "native": "native",
    "grad_cam": "GradCAM",
    "integrated_gradients": "integrated\ngradients",
    "occlusion": "occlusion",
    "chance": "chance",
    "centre": "centre prior",
}
SHADES = dict(zip(("native", "grad_cam", "integrated_gradients", "occlusion"), SERIES, strict=False))
PRIORS = {"chance": (0, (1.2, 1.2)), "centre": "solid"}
OUTLINE = "#7fe3ff"
HEADING = {"x": 0.01, "ha": "left", "fontsize": 10.5, "weight": "bold"}


def _named(way: str) -> str:
    return NAMES.get(way, way).replace("\n", " ")


def _outline(ax: Axes, mask: torch.Tensor, left: float, top: float) -> None:
    """Draw the border of a bool mask [S,S] on the picture whose corner is (left, top) and whose side is 1."""
    if mask.any():
        at = (np.arange(len(mask)) + 0.5) / len(mask)
        line = {"levels": [0.5], "colors": [OUTLINE], "linewidths": 1.1}
        ax.contour(left + at, top + at, mask.cpu().numpy().astype(float), **line)


def _check_masks(masks: torch.Tensor, pictures: np.ndarray) -> None:
    expected = pictures.shape[:3]
    if tuple(masks.shape) != expected:
        raise ValueError(f"expected masks {list(expected)}, got {list(masks.shape)}")


@styled
def outlined_faces(
    images: torch.Tensor | np.ndarray,
    masks: torch.Tensor,
    titles: Sequence[str] | None = None,
    columns: int = 6,
    title: str | None = None,
) -> Figure:
    """Faces uint8 [B,3,S,S] in rows of `columns`, a region bool [B,S,S] of each outlined.

    Raises:
        ValueError: masks or titles that do not fit the faces.
    """
    pictures = pictures_of(images)
    _check_masks(masks, pictures)
    if titles is not None and len(titles) != len(pictures):
        raise ValueError(f"{len(titles)} titles for {len(pictures)} faces")
    starts = range(0, len(pictures), columns)
    names = [titles[i : i + columns] for i in starts] if titles is not None else ()
    tiles = [list(pictures[i : i + columns]) for i in starts]
    fig, ax, tops = mosaic(tiles, captions=names, cell=1.4, title=title)
    for i, mask in enumerate(masks):
        _outline(ax, mask, i % columns * PITCH, tops[i // columns])
    return fig


@styled
def explanation_grid(
    images: torch.Tensor | np.ndarray,
    maps: Mapping[str, torch.Tensor],
    masks: torch.Tensor | None = None,
    row_titles: Sequence[str] | None = None,
    cell: float = 1.35,
    title: str | None = None,
) -> Figure:
    """A row a face: the face, and then each way's map as heat over it, with a region outlined.

    Only what speaks for the class is shown (values below zero are cut), and every map is scaled to 0…1 on
    its own: colours compare places within a map and not two maps.

    Args:
        images: uint8 [B,3,S,S]; the same face several times to compare models on it.
        maps: way → [B,1,h,w].
        masks: bool [B,S,S], outlined on every picture of the row.
        cell: a picture's side in inches, made smaller if the figure would be too wide.

    Raises:
        ValueError: maps, masks or titles that do not fit the faces.
    """
    pictures = pictures_of(images)
    n, size = len(pictures), pictures.shape[1]
    for way, one in maps.items():
        if one.ndim != 4 or one.shape[:2] != (n, 1):
            raise ValueError(f"expected map {way!r} as [{n},1,h,w], got {list(one.shape)}")
    if masks is not None:
        _check_masks(masks, pictures)
    if row_titles is not None and len(row_titles) != n:
        raise ValueError(f"{len(row_titles)} row titles for {n} faces")
    tiles = [[face] for face in pictures]
    for one in maps.values():
        heat = upsample(normalize_for_display(one.clamp(min=0)), size, mode="bicubic").clamp(0, 1)[:, 0].cpu()
        for row, face, hot in zip(tiles, pictures, heat.numpy(), strict=True):
            row.append(heat_over(face, hot))
    lines = [line for name in row_titles or () for line in name.split("\n")]
    left = 0.12 + 0.08 / cell * max(map(len, lines)) if lines else 0.0
    columns = ["face", *(NAMES.get(way, way) for way in maps)]
    fig, ax, tops = mosaic(tiles, captions=[columns], left=left, bottom=0.38 / cell, cell=cell, title=title)
    for top, name in zip(tops, row_titles or (), strict=False):
        ax.text(-0.08, top + 0.5, name, ha="right", va="center", fontsize=8.5)
    if masks is not None:
        for r, c in np.ndindex(n, len(columns)):
            _outline(ax, masks[r], c * PITCH, tops[r])
    y, right, high = tops[-1] + 1 + 0.14 / cell, len(columns) * PITCH - (PITCH - 1), 0.14 / cell
    end = right - 0.4 / cell
    ax.imshow(np.linspace(0, 1, 128)[None], extent=(end - 1, end, y + high, y), cmap=HEAT)
    note = {"va": "center", "fontsize": 8, "color": SOFT}
    ax.text(end - 1.05, y + high / 2, "each on its own scale: least", ha="right", **note)
    ax.text(right, y + high / 2, "most", ha="right", **note)
    if masks is not None:
        ax.plot([0.02, 0.18], [y + high / 2] * 2, color="#1f9fc4", linewidth=1.6)
        ax.text(0.22, y + high / 2, "moved by the muscles", ha="left", **note)
    return fig


@styled
def explanation_scores(
    summary: pd.DataFrame, metrics: Mapping[str, str], rows: str = "model", title: str | None = None
) -> Figure:
    """Scores with intervals: a panel a metric, a row a model, a colour a way, and marks for the priors.

    Args:
        summary: from `mean_over_faces`; columns `rows`, way, metric, value, low, high.
        metrics: metric → label of its axis.
        rows: the column whose values become rows.

    Raises:
        ValueError: missing columns, or a metric that is not in the summary.
    """
    check_columns(summary, (rows, "way", "metric", "value", "low", "high"))
    if missing := [metric for metric in metrics if metric not in set(summary["metric"])]:
        raise ValueError(f"no metric {', '.join(missing)}; there are {', '.join(summary['metric'].unique())}")
    labels = list(dict.fromkeys(summary[rows]))
    ways = [way for way in dict.fromkeys(summary["way"]) if way not in PRIORS]
    priors = [way for way in PRIORS if way in set(summary["way"])]
    fig = new_figure(1.6 + 2.6 * len(metrics), (0.14 * len(ways) + 0.22) * len(labels) + 1.5)
    panels = np.atleast_1d(fig.subplots(1, len(metrics), sharey=True))
    for ax, (metric, label) in zip(panels, metrics.items(), strict=True):
        part = summary[summary["metric"] == metric].set_index([rows, "way"])
        for i, name in enumerate(labels):
            for j, way in enumerate(ways):
                if (name, way) not in part.index:
                    continue
                y, row = i + 0.64 * ((j + 0.5) / len(ways) - 0.5), part.loc[(name, way)]
                color = SHADES.get(way, INK)
                ax.plot([row.low, row.high], [y, y], color=color, linewidth=2, alpha=0.5, gid=f"{name}/{way}")
                ax.plot([row.value], [y], "o", color=color, markersize=5)
            for way in priors:
                if (name, way) in part.index:
                    value = part.loc[(name, way), "value"]
                    ax.plot([value] * 2, [i - 0.4, i + 0.4], color=SOFT, linestyle=PRIORS[way], linewidth=1.3)
        ax.set_xlabel(label)
        ax.grid(axis="x")
        ax.margins(x=0.08)
        ax.spines["left"].set_visible(False)
        ax.tick_params(axis="y", length=0, labelcolor=INK)
    panels[0].set_yticks(range(len(labels)), labels)
    panels[0].set_ylim(len(labels) - 0.45, -0.55)
    marks = [Line2D([], [], color=SHADES.get(way, INK), marker="o", label=_named(way)) for way in ways]
    marks += [Line2D([], [], color=SOFT, linestyle=PRIORS[way], label=_named(way)) for way in priors]
    fig.legend(handles=marks, loc="outside lower center", ncols=len(marks), columnspacing=1.2, handlelength=1.6)
    fig.suptitle(title or "What the maps score, with 95 % intervals over faces", **HEADING)
    return fig


@styled
def perturbation_figure(
    deletion: Mapping[str, torch.Tensor], insertion: Mapping[str, torch.Tensor], title: str | None = None
) -> Figure:
    """Mean probability of the class while cells are taken away (left) and put back (right), a line a way.

    Args:
        deletion, insertion: way → [B,n], as `perturbation_curves` gives them.

    Raises:
        ValueError: no curves.
    """
    if not deletion or not insertion:
        raise ValueError("there are no curves to draw")
    fig = new_figure(8.4, 3.5)
    words = ("cells taken away, %", "cells put back, %")
    for ax, curves, word in zip(fig.subplots(1, 2, sharey=True), (deletion, insertion), words, strict=True):
        for way, values in curves.items():
            mean = values.mean(0).cpu().numpy()
            style = (
                {"color": SOFT, "linestyle": PRIORS[way]} if way in PRIORS else {"color": SHADES.get(way, INK)}
            )
            mark = "" if way in PRIORS else "o"
            at = np.linspace(0, 100, len(mean))
            ax.plot(at, 100 * mean, marker=mark, markersize=3.5, label=_named(way), **style)
        ax.set(xlabel=word, xlim=(0, 100), ylim=(0, 102))
        ax.grid(axis="both")
    fig.axes[0].set_ylabel("mean probability of the class, %")
    fig.axes[0].set_title("deletion: the faster the fall, the better", fontsize=9.5)
    fig.axes[1].set_title("insertion: the faster the rise, the better", fontsize=9.5)
    handles, labels = fig.axes[0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=len(labels), columnspacing=1.2)
    fig.suptitle(title or "Does the answer hang on the marked places?", **HEADING)
    return fig


@styled
def randomization_figure(
    table: pd.DataFrame,
    between_faces: Mapping[str, Mapping[str, float]] | None = None,
    title: str | None = None,
) -> Figure:
    """How much of a map is left while layers become random: a panel a model, a line a way, bars for intervals.

    Args:
        table: from `weight_randomization`, with a column model.
        between_faces: model → way → correlation of the maps of different faces, dotted in the way's colour.

    Raises:
        ValueError: missing columns or no rows.
    """
    check_columns(table, ("model", "way", "share", "face", "correlation"))
    models = list(dict.fromkeys(table["model"]))
    columns = min(3, len(models))
    rows = -(-len(models) // columns)
    fig = new_figure(max(6.0, 3.0 * columns), 2.5 * rows + 0.9)
    axes = fig.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    means = mean_over_faces(table, ["correlation"], by=["model", "share"])
    for ax, model in zip(axes, models, strict=False):
        ax.axhline(0, color=SOFT, linewidth=0.8)
        for way, part in means[means["model"] == model].groupby("way", sort=False):
            color = SHADES.get(way, INK)
            ax.plot(100 * part["share"], part["value"], "o-", color=color, markersize=3.5, label=_named(way))
            ax.vlines(100 * part["share"], part["low"], part["high"], color=color, linewidth=2.2, alpha=0.4)
            if between_faces is not None:
                ax.axhline(between_faces[model][way], color=color, linestyle=(0, (1.2, 1.6)), linewidth=1.1)
        ax.set_title(model, fontsize=9.5)
        ax.set(ylim=(-0.65, 1.08), xlim=(-4, 104))
        ax.grid(axis="both")
    for i, ax in enumerate(axes):
        if i >= len(models):
            ax.axis("off")
        elif i + columns >= len(models):
            ax.set_xlabel("random layers, %")
            ax.tick_params(labelbottom=True)
    for ax in axes[::columns]:
        ax.set_ylabel("rank correlation")
    handles, labels = axes[0].get_legend_handles_labels()
    if between_faces is not None:
        handles.append(Line2D([], [], color=SOFT, linestyle=(0, (1.2, 1.6))))
        labels.append("maps of two different faces")
    fig.legend(handles, labels, loc="outside lower center", ncols=len(labels) if columns > 2 else 2)
    fig.suptitle(title or "What is left of a map while the layers become random", **HEADING)
    return fig
