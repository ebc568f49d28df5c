"""Landmarks on faces: what a network found, and attention beside them; accuracy on shrunk faces."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from fer_lab.explanation.attribution import normalize_for_display, upsample
from fer_lab.figures.pictures import heat_over, heat_rows
from fer_lab.figures.style import PITCH, SERIES, SOFT, check_columns, mosaic, new_figure, pictures_of, styled

FOUND, TRUE = "#ffdd55", "#33ddff"


@styled
def landmark_predictions(
    images: torch.Tensor | np.ndarray,
    found: torch.Tensor | np.ndarray,
    truth: torch.Tensor | np.ndarray | None = None,
    titles: Sequence[str] | None = None,
    columns: int = 6,
    title: str | None = None,
) -> Figure:
    """Faces uint8 [N,3,S,S] with the landmarks that were found, and a line from each to its true place.

    Args:
        found, truth: [N,68,2], x and y as shares 0…1 of the image's side.

    Raises:
        ValueError: another number of points or titles than faces.
    """
    pictures, found = list(pictures_of(images)), _points(found, len(images))
    truth = None if truth is None else _points(truth, len(images))
    if titles is not None and len(titles) != len(pictures):
        raise ValueError(f"{len(titles)} titles for {len(pictures)} faces")
    starts = range(0, len(pictures), columns)
    names = [titles[i : i + columns] for i in starts] if titles is not None else ()
    rows = [pictures[i : i + columns] for i in starts]
    fig, ax, tops = mosaic(rows, captions=names, cell=1.4, bottom=0.22, title=title)
    for i in range(len(pictures)):
        corner = np.array([PITCH * (i % columns), tops[i // columns]])
        if truth is not None:
            ends = np.stack([found[i], truth[i]], axis=1) + corner
            ax.plot(*ends.transpose(2, 1, 0), color=TRUE, linewidth=1.3, solid_capstyle="butt")
        _dots(ax, found[i] + corner)
    what = "dots: found" + ("; blue lines lead from there to the true places" if truth is not None else "")
    ax.text(0, tops[-1] + 1.12, what, va="center", fontsize=8, color=SOFT)
    return fig


@styled
def attention_and_landmarks(
    images: torch.Tensor | np.ndarray,
    maps: torch.Tensor | np.ndarray,
    points: torch.Tensor | np.ndarray,
    row_titles: Sequence[str] | None = None,
    column_titles: Sequence[str] | None = None,
    title: str | None = None,
) -> Figure:
    """Maps [B,K,h,w] as heat over faces uint8 [B,3,S,S] with landmarks on top: a row a face, K maps.

    Every map is scaled to 0…1 on its own.

    Args:
        points: [B,68,2] as shares 0…1 of the image's side.

    Raises:
        ValueError: maps, points or titles that do not fit the faces.
    """
    pictures, maps = pictures_of(images), torch.as_tensor(maps).detach().float().cpu()
    if maps.ndim != 4 or len(maps) != len(pictures):
        raise ValueError(f"expected maps [{len(pictures)},K,h,w], got {list(maps.shape)}")
    points, k = _points(points, len(pictures)), maps.shape[1]
    names = [f"map {i + 1}" for i in range(k)] if column_titles is None else list(column_titles)
    if len(names) != k or (row_titles is not None and len(row_titles) != len(pictures)):
        raise ValueError(f"expected {k} column titles and {len(pictures)} row titles")
    heat = upsample(normalize_for_display(maps), pictures.shape[1], mode="bicubic").clamp(0, 1).numpy()
    tiles = [[face, *(heat_over(face, one) for one in row)] for face, row in zip(pictures, heat, strict=True)]
    fig, ax, tops = heat_rows(tiles, ["face", *names], row_titles, title)
    for i, top in enumerate(tops):
        for column in range(k + 1):
            _dots(ax, points[i] + np.array([PITCH * column, top]), size=2.5)
    return fig


def _points(points: torch.Tensor | np.ndarray, count: int) -> np.ndarray:
    points = np.asarray(torch.as_tensor(points).detach().cpu(), dtype=float)
    if points.shape != (count, 68, 2):
        raise ValueError(f"expected landmarks [{count},68,2], got {list(points.shape)}")
    return points


def _dots(ax: Axes, xy: np.ndarray, size: float = 5.0) -> None:
    ax.scatter(*xy.T, s=size, color=FOUND, edgecolors="black", linewidths=0.3, zorder=3)


@styled
def accuracy_against_scale(table: pd.DataFrame, title: str | None = None) -> Figure:
    """Accuracy on the same faces with fewer pixels, a line a model, intervals as bars.

    Args:
        table: columns label, percent (of the side), value, low, high; shares 0…1, low and high may be NaN.

    Raises:
        ValueError: missing columns or no rows.
    """
    check_columns(table, ("label", "percent", "value", "low", "high"))
    if table.empty:
        raise ValueError("there are no rows to draw")
    fig = new_figure(6.4, 3.4)
    ax = fig.subplots()
    labels = list(dict.fromkeys(table["label"]))
    for i, label in enumerate(labels):
        rows = table[table["label"] == label].sort_values("percent")
        # A little apart, so that bars of equal scales stay readable.
        x = rows["percent"] + 0.6 * (i - (len(labels) - 1) / 2)
        color = SERIES[i % len(SERIES)]
        ax.plot(x, rows["value"], "o-", color=color, markersize=5, label=label)
        ax.vlines(x, rows["low"], rows["high"], color=color, linewidth=2.0, alpha=0.5)
    ax.set(xlabel="what is left of the face's side, %", ylabel="accuracy")
    ax.set_xlim(table["percent"].max() + 3, table["percent"].min() - 3)
    ax.set_xticks(sorted(table["percent"].unique()))
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.grid(axis="y")
    ax.legend()
    ax.set_title(title or "The same faces with fewer pixels")
    return fig
