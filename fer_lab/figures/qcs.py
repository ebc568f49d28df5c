"""What two faces share: matching lines, similarity over both, maps by form, and k through training."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from fer_lab.explanation.maps import _centre, normalize_for_display, strongest_matches, upsample
from fer_lab.figures.pictures import heat_over
from fer_lab.figures.style import (
    HEAT,
    PITCH,
    SERIES,
    SOFT,
    check_columns,
    mosaic,
    new_figure,
    pictures_of,
    styled,
)


@styled
def matching_lines(
    pairs: Sequence[tuple[torch.Tensor, torch.Tensor]],
    tables: Sequence[torch.Tensor],
    names: Sequence[str],
    count: int = 10,
    title: str | None = None,
) -> Figure:
    """Pairs of faces side by side, lines between the places that match best: thick is strong.

    Args:
        pairs: (uint8 [3,S,S], uint8 [3,S,S]) each.
        tables: similarity of every place of the first with every place of the second, [G·G,G·G], row-major.
        names: above each pair.
        count: how many lines.

    Raises:
        ValueError: not as many tables and names as pairs, or a table that is no square grid.
    """
    if not len(pairs) == len(tables) == len(names):
        raise ValueError(f"{len(pairs)} pairs, {len(tables)} tables and {len(names)} names")
    columns = min(2, len(pairs))
    rows, captions = [], []
    for start in range(0, len(pairs), columns):
        part = range(start, min(start + columns, len(pairs)))
        rows.append([pictures_of(face)[0] for i in part for face in pairs[i]])
        captions.append([text for i in part for text in (names[i], "")])
    fig, ax, tops = mosaic(rows, captions=captions, cell=2.0, title=title)
    for text in ax.texts:
        text.set_x(text.get_position()[0] + PITCH / 2)  # from above the first face to above the pair
    for n, table in enumerate(tables):
        grid = round(len(table) ** 0.5)
        if tuple(table.shape) != (grid * grid,) * 2:
            raise ValueError(f"expected tables [G·G,G·G], got {list(table.shape)}")
        row, start = n // columns, 2 * (n % columns) * PITCH
        for k, (i, j, strength) in enumerate(strongest_matches(table, count)):
            (x1, y1), (x2, y2) = _centre(i, grid), _centre(j, grid)
            color = SERIES[k % len(SERIES)]
            xs, ys = (start + x1, start + PITCH + x2), (tops[row] + y1, tops[row] + y2)
            ax.add_line(Line2D(xs, ys, color="white", linewidth=1.2 + 2.4 * strength, alpha=0.7))
            ax.add_line(Line2D(xs, ys, color=color, linewidth=0.5 + 2.2 * strength, alpha=0.95))
            ax.plot(xs, ys, "o", color=color, markersize=3.5, markeredgecolor="white", markeredgewidth=0.6)
    return fig


@styled
def similarity_over_both(
    first: torch.Tensor,
    second: torch.Tensor,
    table: torch.Tensor,
    places: Sequence[int],
    title: str | None = None,
) -> Figure:
    """For chosen places of one face (framed), how similar every place of the other is, as heat over it.

    Args:
        first, second: uint8 [3,S,S].
        table: similarity [G·G,G·G], rows the first face's places.
        places: row-major numbers of places on the first face.
    """
    table = torch.as_tensor(table).float()
    grid = round(len(table) ** 0.5)
    face, other = pictures_of(first)[0], pictures_of(second)[0]
    maps = table[list(places)].view(1, len(places), grid, grid)
    heat = upsample(normalize_for_display(maps), other.shape[0], mode="bicubic").clamp(0, 1)[0].numpy()
    tiles = [[face] * len(places), [heat_over(other, one) for one in heat]]
    fig, ax, tops = mosaic(tiles, left=1.1, cell=1.35, title=title)
    for c, place in enumerate(places):
        row, column = divmod(int(place), grid)
        x, y = c * PITCH + column / grid, tops[0] + row / grid
        ax.add_patch(Rectangle((x, y), 1 / grid, 1 / grid, fill=False, edgecolor="white", linewidth=3))
        ax.add_patch(Rectangle((x, y), 1 / grid, 1 / grid, fill=False, edgecolor=SERIES[1], linewidth=1.6))
    for top, text in zip(tops, ("this place\non one face", "is like these\non the other"), strict=True):
        ax.text(-0.08, top + 0.5, text, ha="right", va="center", fontsize=8.5)
    return fig


@styled
def maps_in_rows(
    images: torch.Tensor,
    maps: Mapping[str, torch.Tensor],
    captions: Sequence[str] = (),
    title: str | None = None,
) -> Figure:
    """The same faces in every row, a row a kind of map: uint8 [K,3,S,S] and name → [K,h,w].

    Each map is scaled on its own. The first row is the faces themselves.
    """
    faces = pictures_of(images)
    rows = [list(faces)]
    for name, one in maps.items():
        if one.ndim != 3 or len(one) != len(faces):
            raise ValueError(f"expected maps {name!r} as [{len(faces)},h,w], got {list(one.shape)}")
        heat = upsample(normalize_for_display(one[None].detach()), faces.shape[1], mode="bicubic")
        rows.append([heat_over(face, h) for face, h in zip(faces, heat[0].clamp(0, 1).numpy(), strict=True)])
    names = ["", *maps]
    fig, ax, tops = mosaic(
        rows,
        captions=[list(captions)] if captions else (),
        left=0.15 + 0.055 * max(map(len, names)),
        bottom=0.3,
        cell=1.3,
        title=title,
    )
    for top, name in zip(tops, names, strict=True):
        ax.text(-0.08, top + 0.5, name, ha="right", va="center", fontsize=9)
    y, right = tops[-1] + 1.12, len(faces) * PITCH - (PITCH - 1)
    ax.imshow(np.linspace(0, 1, 128)[None], extent=(right - 1.3, right - 0.32, y + 0.09, y), cmap=HEAT)
    for x, text in ((right - 1.34, "each map on its own scale: least"), (right, "most")):
        ax.text(x, y + 0.045, text, ha="right", va="center", fontsize=8, color=SOFT)
    return fig


@styled
def weights_through_training(
    history: pd.DataFrame, columns: Mapping[str, str], reference: float = 1.0, title: str | None = None
) -> Figure:
    """Learned scalars against the epoch: column of the history → what it is called."""
    check_columns(history, ("epoch", *columns))
    fig = new_figure(5.6, 2.8)
    ax = fig.subplots()
    for (name, label), color in zip(columns.items(), SERIES, strict=False):
        ax.plot(history["epoch"], history[name], "o-", color=color, markersize=4, label=label)
    ax.axhline(reference, color=SOFT, linewidth=0.8, linestyle=(0, (4, 3)))
    ax.set(xlabel="epoch", ylabel="k, mean over the epoch", xticks=history["epoch"])
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    ax.grid(axis="y")
    ax.set_title(title or "How much other-class distances count, by scale")
    return fig
