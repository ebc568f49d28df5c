"""How the figures look and how they become PNGs; pieces that several of them share.

Expressions have their colours from `fer_lab.data.expressions`; all other series come from a second
colour-blind-safe palette (Paul Tol's "muted"), so that no curve is mistaken for an expression.
"""

import functools
import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import torch
from cycler import cycler
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from PIL import Image, ImageColor

from fer_lab._files import atomic_path
from fer_lab.data.expressions import COLORS

INK, SOFT, FAINT = "#222222", "#6b6b6b", "#e4e4e4"
SERIES = ("#332288", "#cc6677", "#44aa99", "#999933", "#882255", "#88ccee", "#117733", "#ddcc77")
SHADES = LinearSegmentedColormap.from_list("fer_lab.shades", ["#ffffff", "#c9cce6", "#7a7fc0", "#332288"])
HEAT = mpl.colormaps["inferno"]
WIDTH = 9.0  # inches, the widest figure
DPI = 120
PITCH = 1.06  # from one picture of a mosaic to the next, in pictures' sides
FLAT = 32  # colours that stay exact in a picture of many
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.labelsize": 9,
    "axes.labelcolor": SOFT,
    "axes.edgecolor": "#9a9a9a",
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.prop_cycle": cycler(color=SERIES),
    "grid.color": FAINT,
    "grid.linewidth": 0.7,
    "xtick.color": "#9a9a9a",
    "ytick.color": "#9a9a9a",
    "xtick.labelcolor": SOFT,
    "ytick.labelcolor": SOFT,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "figure.facecolor": "white",
    "figure.constrained_layout.h_pad": 0.09,
    "figure.constrained_layout.w_pad": 0.09,
    "savefig.facecolor": "white",
}


def styled(draw):
    """Draw in the book's style, whatever the reader's own settings are."""

    @functools.wraps(draw)
    def styled(*args, **kwargs):
        with style.context(STYLE, after_reset=True):
            return draw(*args, **kwargs)

    return styled


@styled
def png(fig: Figure, *, dpi: int = DPI) -> bytes:
    """A figure as a PNG with a palette of at most 256 colours; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=dpi)
    picture = with_palette(Image.open(buffer).convert("RGB"), soft=any(ax.images for ax in fig.axes))
    written = io.BytesIO()
    picture.save(written, format="png", optimize=True, dpi=(dpi, dpi))
    return written.getvalue()


def with_palette(picture: Image.Image, *, soft: bool) -> Image.Image:
    """An RGB picture → the same with a palette. Colours of flat areas (paper, lines, bars) stay exact.

    Args:
        soft: there are photographs or shades: mix neighbouring colours, or they would show bands.
    """
    colors = picture.getcolors(picture.width * picture.height)
    # Ties are broken by the colour itself, so that the palette does not depend on an internal order.
    common = [color for _, color in sorted(colors, key=lambda item: (-item[0], item[1]))]
    # A thin line in a class's colour is rare in pixels, and must not become a neighbour's.
    present = set(common)
    named = [rgb for rgb in (ImageColor.getrgb(color) for color in COLORS.values()) if rgb in present]
    flat = common if len(common) <= 256 else list(dict.fromkeys([*named, *common[:FLAT]]))
    palette = [value for color in flat for value in color]
    if len(common) > 256:
        # A quarter of the pixels gives the same palette in a quarter of the time.
        half = picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.NEAREST)
        rest = half.quantize(256 - len(flat), method=Image.Quantize.MEDIANCUT, kmeans=1)
        palette += rest.getpalette()
    table = Image.new("P", (1, 1))
    table.putpalette(palette[: 3 * 256])
    dither = Image.Dither.FLOYDSTEINBERG if soft and len(common) > 256 else Image.Dither.NONE
    mixed = np.array(picture.quantize(palette=table, dither=dither))
    # Mixing also spills into flat areas; there every pixel has its own colour in the table.
    codes = np.array(picture, dtype=np.int64) @ np.array([65536, 256, 1])
    for i, (r, g, b) in enumerate(flat):
        mixed[codes == r * 65536 + g * 256 + b] = i
    result = Image.fromarray(mixed, mode="P")
    result.putpalette(palette[: 3 * 256])
    return result


def save(fig: Figure, path: str | Path) -> Path:
    """Write a figure as a PNG with a palette; the folder is made if absent.

    Raises:
        ValueError: a name that does not end in .png.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise ValueError(f"figures are PNG files, got {path.name!r}; let the name end in .png")
    with atomic_path(path) as temporary:
        Path(temporary).write_bytes(png(fig))
    return path


def show(fig: Figure, alt: str | None = None) -> None:
    """Display a figure in a notebook, at its size in inches, as the PNG that `save` writes.

    Args:
        alt: what it shows, for readers who cannot see it.
    """
    from IPython.display import Image as Picture
    from IPython.display import display

    width = round(fig.get_size_inches()[0] * 96)
    display(Picture(data=png(fig), format="png", width=width, alt=alt))


def new_figure(width: float, height: float) -> Figure:
    return Figure(figsize=(min(width, WIDTH), height), layout="constrained")


def pictures_of(images: torch.Tensor | np.ndarray) -> np.ndarray:
    """uint8 [N,3,S,S] (or one, [3,S,S]) → uint8 [N,S,S,3]."""
    images = np.asarray(images)
    images = images[None] if images.ndim == 3 else images
    if images.ndim != 4 or images.shape[1] != 3 or images.dtype != np.uint8:
        raise ValueError(f"expected images uint8 [N,3,S,S], got {images.dtype} {list(images.shape)}")
    if not len(images):
        raise ValueError("there are no faces to draw")
    return images.transpose(0, 2, 3, 1)


def mosaic(
    tiles: Sequence[Sequence[np.ndarray]],
    *,
    captions: Sequence[Sequence[str]] = (),
    left: float = 0.0,
    right: float = 0.0,
    bottom: float = 0.0,
    cell: float = 1.1,
    title: str | None = None,
    interpolation: str = "bicubic",
) -> tuple[Figure, Axes, list[float]]:
    """Rows of pictures on one axis whose unit is a picture's side; column c starts at x = `PITCH` · c.

    Args:
        tiles: [rows][columns] of RGB [S,S,3].
        captions: above each picture, for the first rows or all.
        left, right, bottom: room there, in pictures' sides.
        cell: a picture's side in inches, made smaller if the figure would be too wide.

    Returns:
        The figure, its axis, and each row's y (downwards).
    """
    gap = PITCH - 1
    width = left + max(map(len, tiles)) * (1 + gap) - gap + right
    cell = min(cell, (WIDTH - 0.1) / width)
    tops, y = [], 0.0
    for r in range(len(tiles)):
        lines = 1 + max((text.count("\n") for text in captions[r]), default=0) if r < len(captions) else 0
        y += (0.19 if lines < 2 else 0.05 + 0.14 * lines) / cell if lines else 0.0
        tops.append(y)
        y += 1 + gap
    height = y - gap + bottom
    w, h = width * cell + 0.1, height * cell + (0.38 if title else 0.1)
    fig = Figure(figsize=(w, h))
    ax = fig.add_axes((0.05 / w, 0.05 / h, width * cell / w, height * cell / h))
    for r, row in enumerate(tiles):
        for c, tile in enumerate(row):
            x = c * (1 + gap)
            ax.imshow(tile, extent=(x, x + 1, tops[r] + 1, tops[r]), interpolation=interpolation)
        for c, text in enumerate(captions[r] if r < len(captions) else ()):
            ax.text(c * (1 + gap) + 0.5, tops[r] - 0.04, text, ha="center", va="bottom", fontsize=8)
    ax.set(xlim=(-left, width - left), ylim=(height, 0), aspect="auto")
    ax.axis("off")
    if title:
        fig.text(0.05 / w, 1 - 0.07 / h, title, va="top", fontsize=10.5, weight="bold")
    return fig, ax, tops


def interval_rows(ax: Axes, table: pd.DataFrame, shades: Sequence[str], digits: int, percent: bool) -> None:
    """Rows of value, low, high as dots with bars, from the top down, the value written at the right.

    A share's bar ends at 0 and 100 %, though an interval by Student's t may not.
    """
    factor = 100 if percent else 1
    for i, (row, color) in enumerate(zip(table.itertuples(), shades, strict=True)):
        value, low, high = row.value * factor, row.low * factor, row.high * factor
        known = np.isfinite([low, high]).all()
        low, high = np.clip([low, high], 0, 100) if percent else (low, high)
        if known:
            ax.plot([low, high], [i, i], color=color, linewidth=2.4, alpha=0.55, zorder=2)
        face = color if known else "white"
        ax.plot([value], [i], "o", color=color, markerfacecolor=face, markersize=7, zorder=3)
        text = "no faces" if np.isnan(value) else f"{value:.{digits}f}" + ("%" if percent else "")
        ax.annotate(
            text,
            (1, i),
            (6, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
            color=INK,
        )
    ax.set_ylim(len(table) - 0.4, -0.6)
    ax.grid(axis="x")
    ax.tick_params(axis="y", length=0, labelcolor=INK)
    ax.spines["left"].set_visible(False)


def check_columns(table: pd.DataFrame, needed: Sequence[str]) -> None:
    if missing := [name for name in needed if name not in table.columns]:
        raise ValueError(f"the table needs columns {', '.join(needed)}; {', '.join(missing)} missing")
    if not len(table):
        raise ValueError("the table has no rows to draw")
