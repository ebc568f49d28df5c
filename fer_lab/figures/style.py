"""How the figures look, how they become PNGs, and the pieces that several of them share.

Expressions have their colours from `fer_lab.data.expressions`. All other series come from a second
colour-blind-safe palette (Paul Tol's "muted"), so that no curve is mistaken for an expression.
"""

import functools
import io
import tomllib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib import patheffects, style
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import Bbox
from PIL import Image, ImageColor
from seaborn.utils import relative_luminance

from fer_lab._files import atomic_path
from fer_lab.data.expressions import COLORS, colors
from fer_lab.models.method import TITLES

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
Names = Sequence[str]
Labels = Sequence[int] | np.ndarray
Masks = torch.Tensor | None  # bool [N,S,S], a region of each picture
Place = tuple[str, str, float, float]  # of a name: text, colour, x, y

_BOOK: Any = mpl.rc_params_from_file(Path(__file__).with_name("book.mplstyle"), use_default_template=False)
STYLE: dict[str, Any] = {**sns.axes_style("ticks"), **sns.plotting_context("paper"), **_BOOK}
INK, SOFT = STYLE["text.color"], STYLE["axes.labelcolor"]
SERIES = tuple(STYLE["axes.prop_cycle"].by_key()["color"])
SHADES = LinearSegmentedColormap.from_list("fer_lab.shades", ["#ffffff", "#c9cce6", "#7a7fc0", "#332288"])
HEAT = mpl.colormaps["inferno"]
# One colour a method throughout the book, whatever else is in the figure.
METHOD_COLORS = dict(zip(TITLES, (INK, *SERIES), strict=False))
# What the models of each set of weights learned from; any other model is the reader's own.
LEARNED = {"synthetic": "drawings", "ferplus": "photographs"}
NAMES = tomllib.loads(Path(__file__).with_name("names.toml").read_text(encoding="utf-8"))
WIDTH = 9.0  # inches, the widest figure
DPI = 120
PITCH = 1.06  # from one picture of a mosaic to the next, in pictures' sides
FLAT = 32  # colours that stay exact in a picture of many
# Added to a shaded picture before its colours are counted down. It is equal in all channels, so it hides bands
# and sprinkles no red dots over a face, as error diffusion does.
LATTICE = np.array([[-2, 0, -1, 1], [1, -1, 2, 0], [-1, 1, -2, 0], [2, 0, 1, -1]])
DASHED: dict[str, Any] = {"color": SOFT, "linewidth": 0.9, "linestyle": (0, (4, 3)), "zorder": 1}
HALO = [patheffects.withStroke(linewidth=3, foreground="white")]
# How seaborn draws intervals that were computed elsewhere: see `with_ends`.
KNOWN_ENDS: dict[str, Any] = {
    "estimator": lambda ends: ends.iloc[0],
    "errorbar": lambda ends: (ends.iloc[1], ends.iloc[-1]),
}
DOTS: dict[str, Any] = {"linestyle": "none", "markeredgewidth": 0, "legend": False, **KNOWN_ENDS}


def styled(draw: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Draw in the book's style, whatever the reader's own settings are."""

    @functools.wraps(draw)
    def styled(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        with style.context(STYLE, after_reset=True):
            return draw(*args, **kwargs)

    return styled


@styled
def png(fig: Figure) -> bytes:
    """A figure as a PNG with a palette of at most 256 colours; the same figure gives the same bytes."""
    buffer, written = io.BytesIO(), io.BytesIO()
    fig.savefig(buffer, format="png", dpi=DPI)
    picture = with_palette(Image.open(buffer).convert("RGB"), soft=any(ax.images for ax in fig.axes))
    picture.save(written, format="png", optimize=True, dpi=(DPI, DPI))
    return written.getvalue()


def with_palette(picture: Image.Image, *, soft: bool) -> Image.Image:
    """An RGB picture → the same with a palette. Colours of flat areas (paper, lines, bars) stay exact.

    `soft`: the picture has photographs or shades: mix neighbouring shades by `LATTICE`, or they show bands.
    """
    counts: Any = picture.getcolors(picture.width * picture.height)
    # Ties are broken by the colour itself, so that the palette does not depend on an internal order.
    common = [color for _, color in sorted(counts, key=lambda item: (-item[0], item[1]))]
    # A thin line in a class's colour is rare in pixels, and must not become a neighbour's.
    named = [rgb for rgb in map(ImageColor.getrgb, COLORS.values()) if rgb in common]
    flat = common if len(common) <= 256 else list(dict.fromkeys([*named, *common[:FLAT]]))
    palette = [value for color in flat for value in color]
    if len(common) > 256:
        # A quarter of the pixels gives the same palette in a quarter of the time.
        half = picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.NEAREST)
        rest = half.quantize(256 - len(flat), method=Image.Quantize.MAXCOVERAGE, kmeans=1)
        palette += rest.getpalette() or []
    table = Image.new("P", (1, 1))
    table.putpalette(palette[: 3 * 256])
    pixels = np.array(picture, dtype=np.int64)
    if soft and len(common) > 256:
        lattice = np.resize(LATTICE, (4, picture.width))[np.arange(picture.height) % 4]
        picture = Image.fromarray((pixels + lattice[..., None]).clip(0, 255).astype(np.uint8))
    mixed = np.array(picture.quantize(palette=table, dither=Image.Dither.NONE))
    # The lattice also lies on flat areas; there every pixel has its own colour in the table.
    codes = pixels @ np.array([65536, 256, 1])
    for i, (r, g, b) in enumerate(flat):
        mixed[codes == r * 65536 + g * 256 + b] = i
    result = Image.fromarray(mixed, mode="P")
    result.putpalette(palette[: 3 * 256])
    return result


def save(fig: Figure, path: str | Path) -> Path:
    """Write a figure as a PNG with a palette, and missing folders; ValueError unless the name ends in .png."""
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise ValueError(f"figures are PNG files, got {path.name!r}; let the name end in .png")
    with atomic_path(path) as temporary:
        Path(temporary).write_bytes(png(fig))
    return path


def show(fig: Figure, alt: str) -> None:
    """Display a figure in a notebook, at its size in inches, as the PNG that `save` writes.

    `alt`: what is drawn and what it shows, for readers who cannot see it; ValueError if it is empty.
    """
    if not alt.strip():
        raise ValueError("a figure needs an alt text, got an empty one; say what is drawn and what it shows")
    from IPython.display import Image as Picture
    from IPython.display import display

    width = round(fig.get_size_inches()[0] * 96)
    display(Picture(data=png(fig), format="png", width=width, alt=alt))


def method_title(name: str) -> str:
    """How a figure writes a model: "dan" → "DAN", "ferplus/dan" → "DAN · photographs"."""
    folder, _, method = name.rpartition("/")
    if method not in TITLES:
        return name
    return f"{TITLES[method]} · {LEARNED.get(folder, folder)}" if folder else TITLES[method]


def method_color(name: str) -> str:
    """The colour of a method, with or without the set of its weights; grey if the book does not know it."""
    return METHOD_COLORS.get(name.rpartition("/")[2], "#999999")


def method_palette(names: Sequence[str]) -> dict[str, str]:
    """Title → colour of each model. Names that are not all models have the colours of `SERIES`."""
    known = all(name.rpartition("/")[2] in TITLES for name in names)
    shades = [method_color(name) if known else SERIES[i % len(SERIES)] for i, name in enumerate(names)]
    return dict(zip(map(method_title, names), shades, strict=True))


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of this size in inches, no wider than a page."""
    return Figure(figsize=(min(width, WIDTH), height), layout="constrained")


def chart(width: float, height: float) -> tuple[Figure, Axes]:
    """`new_figure` with one panel."""
    fig = new_figure(width, height)
    return fig, fig.subplots()


def heading(fig: Figure, text: str, xlabel: str | None = None, ylabel: str | None = None) -> Figure:
    """Give a figure a bold line above its panels, and the names of axes that all panels share."""
    fig.suptitle(text, x=0.01, ha="left", fontsize=10.5, weight="bold")
    for name, write in ((xlabel, fig.supxlabel), (ylabel, fig.supylabel)):
        if name is not None:
            write(name, fontsize=9, color=SOFT)
    return fig


def panels(
    count: int, width: float, height: float, extra: float, rows: int | None = None, **shared: Any
) -> tuple[Figure, list[Axes], list[Axes]]:
    """Small multiples, at most three in a row: the figure, its panels, and empty places for a legend.

    Sizes are in inches; `extra` is the height of heading and legend. The lowest panel of each column has the
    labels of its ticks. `shared`: sharex and sharey.
    """
    rows = rows or -(-count // (2 if count == 4 else 3))
    columns = -(-count // rows)
    fig = new_figure(width * columns, height * rows + extra)
    axes = fig.subplots(rows, columns, squeeze=False, **shared).ravel().tolist()
    for ax in axes[max(0, count - columns) : count]:
        ax.tick_params(labelbottom=True)
    for ax in axes[count:]:
        ax.axis("off")
    return fig, axes[:count], axes[count:]


def legend(fig: Figure, handles: Sequence[Artist], empty: Sequence[Axes] = (), columns: int = 0) -> None:
    """A legend in the first empty place of `panels`, else below all panels."""
    if empty:
        empty[0].legend(handles=handles, loc="center left")
    else:
        look: dict[str, Any] = {"columnspacing": 1.2, "handletextpad": 0.4, "loc": "outside lower center"}
        fig.legend(handles=handles, ncols=columns or len(handles), **look)


def mark(label: str, color: str = SOFT, marker: str = "o", **line: Any) -> Line2D:
    """An entry of a legend: a mark, or a line where `linestyle` is given."""
    return Line2D([], [], color=color, label=label, marker=marker, **{"linestyle": "", **line})


def class_marks(classes: Sequence[str]) -> list[Line2D]:
    """Entries of a legend: a dot in each class's colour."""
    return [mark(name, color) for name, color in zip(classes, colors(classes), strict=True)]


def plain_rows(ax: Axes) -> None:
    """Rows of a chart that are named at the left: no axis line and no ticks there."""
    ax.tick_params(axis="y", length=0, labelcolor=INK)
    ax.spines["left"].set_visible(False)
    ax.grid(axis="x")


def heat_table(
    ax: Axes,
    values: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    texts: Sequence[Sequence[str]] | np.ndarray | None = None,
    slant: float = 35,
    **options: Any,
) -> None:
    """Values [R,C] as shades, with the texts [R][C] in their cells, dark on light and light on dark.

    `slant`: of the columns' names in degrees. `options`: of `seaborn.heatmap`.
    """
    options = {"cmap": SHADES, "cbar": False, "linewidths": 1.2, "fmt": "", **options}
    notes = None if texts is None else np.array(texts, dtype=object)
    sns.heatmap(values, ax=ax, annot=notes, xticklabels=list(columns), yticklabels=list(rows), **options)
    for text in ax.texts:  # seaborn writes white on shades too light for it
        column, row = map(int, text.get_position())
        shade = ax.collections[0].get_facecolor()[row * len(columns) + column]
        text.set_color(INK if relative_luminance(shade) > 0.2 else "white")
    ax.tick_params(axis="y", labelrotation=0)
    for label in ax.get_xticklabels():
        label.set(rotation=slant, ha="right" if slant else "center", rotation_mode="anchor")
    ax.tick_params(length=0, labelcolor=INK)


def with_ends(table: pd.DataFrame) -> pd.DataFrame:
    """A table of value, low, high in the long form that seaborn draws with `KNOWN_ENDS`.

    Each row becomes three, in this order, whose number is in the column "estimate". Ends that are NaN give a
    dot without a bar.
    """
    ends = ["value", "low", "high"]
    return table.melt(table.columns.difference(ends), ends, "end", "estimate")


def interval_rows(
    ax: Axes, table: pd.DataFrame, shades: Names, percent: bool, number: str, above: bool = False
) -> None:
    """Rows of label, value, low, high as dots with bars, from the top down.

    `percent`: shares, shown times 100, whose bars end at 0 and 100 %, though an interval by Student's t may
    not. The value is written as `number` at the right, or `above` its dot where another panel begins there; ""
    leaves it out. A value without an interval is a hollow dot.
    """
    labels = list(table["label"])
    numbers = table[["value", "low", "high"]] * (100 if percent else 1)
    if percent:
        numbers[["low", "high"]] = numbers[["low", "high"]].clip(0, 100)
    sns.pointplot(
        with_ends(numbers.assign(label=labels)), x="estimate", y="label", hue="label", order=labels,
        hue_order=labels, palette=list(shades), markersize=8, err_kws={"linewidth": 2.4, "alpha": 0.55}, ax=ax,
        **DOTS,
    )  # fmt: skip
    for i, (value, low, high) in enumerate(numbers.itertuples(index=False)):
        if np.isnan([low, high]).any():
            ax.plot([value], [i], "o", color="white", markersize=4, zorder=4)
        text = "no faces" if number and np.isnan(value) else number.format(value)
        note: dict[str, Any] = {"textcoords": "offset points", "fontsize": 8.5, "color": INK}
        if above:
            ax.annotate(text, (value, i), (0, 5), ha="center", path_effects=HALO, **note)
        else:
            ax.annotate(text, (1, i), (6, 0), xycoords=("axes fraction", "data"), va="center", **note)
    ax.set(ylim=(len(table) - 0.4, -0.6), ylabel="")
    plain_rows(ax)


# Where `name_points` tries to put a name, in points from what it names: near before far, above before below,
# left before right.
PLACES = [
    (reach * np.cos(turn), reach * np.sin(turn))
    for reach in range(10, 110, 8)
    for turn in np.radians([90, 270, 135, 45, 225, 315, 180, 0])
]


def name_points(ax: Axes, names: Iterable[Place], avoid: Iterable[Bbox] = ()) -> None:
    """Write names near points, so that none covers another or leaves the axes.

    Limits and scales of the axes must be final. `avoid`: boxes in pixels that no name may cover.
    """
    figure: Any = ax.figure
    figure.draw_without_rendering()
    taken = list(avoid)
    look: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "va": "center", "zorder": 6}
    for name, color, x, y in names:
        note = ax.annotate(name, (x, y), (0, 0), color=color, **look)
        for place in PLACES:
            note.xyann = place
            box = note.get_window_extent()
            inside = ax.bbox.contains(box.x0, box.y0) and ax.bbox.contains(box.x1, box.y1)
            if inside and not any(box.overlaps(other) for other in taken):
                break
        taken.append(box)


def check_columns(table: pd.DataFrame, needed: Sequence[str]) -> None:
    """Raise ValueError if a table lacks a column or has no rows."""
    if missing := [name for name in needed if name not in table.columns]:
        raise ValueError(f"the table needs columns {', '.join(needed)}; {', '.join(missing)} missing")
    if not len(table):
        raise ValueError("the table has no rows to draw")
