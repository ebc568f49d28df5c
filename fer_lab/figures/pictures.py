"""Pictures of faces: what is in a set, what a network sees of a face, where it looks."""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from fer_lab.data.expressions import colors
from fer_lab.data.faces import SPLITS, FaceSet
from fer_lab.explanation.attribution import normalize_for_display, upsample
from fer_lab.figures.style import HEAT, INK, PITCH, SERIES, SOFT, WIDTH, mosaic, new_figure, pictures_of, styled

# The 68 landmarks in the iBUG order: name → strokes of (first, last, closed).
STROKES = {
    "jaw": [(0, 16, False)],
    "brows": [(17, 21, False), (22, 26, False)],
    "nose": [(27, 30, False), (31, 35, False)],
    "eyes": [(36, 41, True), (42, 47, True)],
    "mouth": [(48, 59, True), (60, 67, True)],
}
HALO = [patheffects.withStroke(linewidth=3, foreground="white")]


@styled
def face_grid(
    images: torch.Tensor | np.ndarray,
    titles: Sequence[str] | None = None,
    columns: int = 8,
    title: str | None = None,
) -> Figure:
    """Faces uint8 [N,3,S,S] in rows of `columns`, with a title above each where there are titles.

    Raises:
        ValueError: images of another shape or type, none, or another number of titles.
    """
    pictures = list(pictures_of(images))
    if titles is not None and len(titles) != len(pictures):
        raise ValueError(f"{len(titles)} titles for {len(pictures)} faces")
    starts = range(0, len(pictures), columns)
    names = [titles[i : i + columns] for i in starts] if titles is not None else ()
    return mosaic([pictures[i : i + columns] for i in starts], captions=names, title=title)[0]


@styled
def faces_by_class(faces: FaceSet, per_class: int = 6, title: str | None = None) -> Figure:
    """A row of faces for each class, taken evenly from all of its faces; its name and count at the left."""
    tiles = []
    for label in range(faces.num_classes):
        members = (faces.labels == label).nonzero().squeeze(1)
        step = max(1, len(members) // per_class)
        tiles.append(list(pictures_of(faces.take(members[::step][:per_class]))) if len(members) else [])
    fig, ax, tops = mosaic(tiles, left=1.45, cell=0.85, title=title or f"{_name(faces)}, by label")
    rows = zip(tops, faces.classes, faces.class_counts().tolist(), colors(faces.classes), strict=True)
    for top, name, count, color in rows:
        y = top + 0.5
        ax.plot([-0.08, -0.08], [y - 0.46, y + 0.46], color=color, linewidth=4, solid_capstyle="butt")
        ax.text(-0.2, y - 0.04, name, ha="right", va="bottom", fontsize=9.5, weight="bold")
        ax.text(-0.2, y + 0.04, f"{count:,} faces", ha="right", va="top", fontsize=8, color=SOFT)
    return fig


@styled
def face_rows(
    images: torch.Tensor | np.ndarray,
    names: Sequence[str],
    columns: Sequence[str] | None = None,
    notes: Sequence[str] | None = None,
    cell: float = 1.0,
    title: str | None = None,
) -> Figure:
    """Rows of faces uint8 [R,K,3,S,S], each with its name at the left, and a note at the right if given.

    Args:
        columns: K titles above the first row.
        cell: a face's side in inches, made smaller if the figure would be too wide.

    Raises:
        ValueError: images of another shape, or names, titles or notes that are not as many.
    """
    images = np.asarray(images)
    if images.ndim != 5:
        raise ValueError(f"expected images [R,K,3,S,S], got {list(images.shape)}")
    for what, given, needed in (
        ("names", names, images.shape[0]),
        ("column titles", columns, images.shape[1]),
        ("notes", notes, images.shape[0]),
    ):
        if given is not None and len(given) != needed:
            raise ValueError(f"expected {needed} {what}, got {len(given)}")

    def room(texts: Sequence[str] | None) -> float:
        return 0.12 + 0.068 / cell * max(len(line) for t in texts for line in t.split("\n")) if texts else 0.0

    fig, ax, tops = mosaic(
        [list(pictures_of(row)) for row in images],
        captions=[columns] if columns else (),
        left=room(names),
        right=room(notes),
        cell=cell,
        title=title,
    )
    end = images.shape[1] * PITCH - (PITCH - 1)
    for i, top in enumerate(tops):
        ax.text(-0.08, top + 0.5, names[i], ha="right", va="center", fontsize=8.5)
        if notes:
            ax.text(end + 0.08, top + 0.5, notes[i], ha="left", va="center", fontsize=8.5, color=SOFT)
    return fig


@styled
def class_counts(faces: FaceSet, title: str | None = None) -> Figure:
    """Faces per class as bars in the classes' colours, paler by split; count and share at the end."""
    fig = new_figure(7, 0.34 * faces.num_classes + 1.2)
    ax = fig.subplots()
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
        ax.text(count, y, text, va="center", fontsize=8.5, path_effects=HALO)
    ax.set_yticks(place, faces.classes)
    ax.set(xlim=(0, left.max() * 1.18 or 1), ylim=(faces.num_classes - 0.5, -0.5), xlabel="faces")
    ax.tick_params(axis="y", length=0, labelcolor=INK)
    ax.spines["left"].set_visible(False)
    ax.grid(axis="x")
    if len(present) > 1:
        ax.legend(loc="lower right", handletextpad=0.2)
    ax.set_title(title or f"{_name(faces)}: how often each expression occurs among {len(faces):,}")
    return fig


def _name(faces: FaceSet) -> str:
    return "Rendered faces" if faces.name == "synthetic" else f"Faces of {faces.name}"


@styled
def landmarks_on_face(
    image: torch.Tensor | np.ndarray, points: torch.Tensor | np.ndarray, title: str | None = None
) -> Figure:
    """68 landmarks [68,2] (x, y in pixels, iBUG order) on a face uint8 [3,S,S], joined by facial part.

    Raises:
        ValueError: another number of points, or no face.
    """
    picture, points = pictures_of(image)[0], np.asarray(points, dtype=float)
    if points.shape != (68, 2):
        raise ValueError(f"expected 68 landmarks [68,2], got {list(points.shape)}")
    fig = new_figure(4.9, 4.0)
    ax = fig.subplots()
    size = picture.shape[0]
    ax.imshow(picture, extent=(0, size, size, 0), interpolation="bicubic")
    line = {"marker": "o", "markersize": 3.2, "linewidth": 1.2, "path_effects": HALO}
    for (name, strokes), color in zip(STROKES.items(), SERIES, strict=False):
        for i, (first, last, closed) in enumerate(strokes):
            chosen = [*range(first, last + 1), *([first] if closed else [])]
            ax.plot(*points[chosen].T, color=color, label=name if i == 0 else None, **line)
    ax.set(xlim=(0, size), ylim=(size, 0), xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    ax.set_title(title or "68 landmarks, iBUG order")
    return fig


@styled
def attention_overlay(
    images: torch.Tensor | np.ndarray,
    maps: torch.Tensor | np.ndarray,
    row_titles: Sequence[str] | None = None,
    column_titles: Sequence[str] | None = None,
    title: str | None = None,
) -> Figure:
    """Maps [B,K,h,w] as heat over faces uint8 [B,3,S,S]: a row a face, the face first and then its K maps.

    Every map is scaled to 0…1 on its own, so colours compare places within a map and not two maps.

    Args:
        column_titles: K names; "map 1" and so on if not given.

    Raises:
        ValueError: maps or titles that do not fit the faces.
    """
    pictures, maps = pictures_of(images), torch.as_tensor(maps).detach().float().cpu()
    if maps.ndim != 4 or len(maps) != len(pictures):
        raise ValueError(f"expected maps [{len(pictures)},K,h,w], got {list(maps.shape)}")
    k, size = maps.shape[1], pictures.shape[1]
    names = [f"map {i + 1}" for i in range(k)] if column_titles is None else list(column_titles)
    if len(names) != k or (row_titles is not None and len(row_titles) != len(pictures)):
        raise ValueError(f"expected {k} column titles and {len(pictures)} row titles")
    heat = upsample(normalize_for_display(maps), size, mode="bicubic").clamp(0, 1).numpy()
    tiles = [[face, *(heat_over(face, one) for one in row)] for face, row in zip(pictures, heat, strict=True)]
    return heat_rows(tiles, ["face", *names], row_titles, title)[0]


def heat_rows(
    tiles: Sequence[Sequence[np.ndarray]],
    columns: Sequence[str],
    names: Sequence[str] | None,
    title: str | None,
) -> tuple[Figure, Axes, list[float]]:
    """Rows of a face and its maps [rows][columns] of RGB [S,S,3], each with its name at the left; the heat's
    scale below. Returns what `mosaic` returns.
    """
    # In inches, since the pictures shrink where there are many columns and the letters do not.
    letters = max((len(line) for name in names or () for line in name.split("\n")), default=0)
    room = 0.12 + 0.066 * letters if names else 0.0
    width = PITCH * len(columns) - (PITCH - 1)
    cell = min(1.1, (WIDTH - 0.1 - room) / width)
    bottom = 0.28 / cell
    fig, ax, tops = mosaic(tiles, captions=[columns], left=room / cell, bottom=bottom, cell=cell, title=title)
    for top, name in zip(tops, names or (), strict=False):
        ax.text(-0.08, top + 0.5, name, ha="right", va="center", fontsize=8.5)
    y = tops[-1] + 1 + 0.2 / cell
    end = width - 0.36 / cell  # the word "most" stands behind it
    extent = (end - 1.1 / cell, end, y + 0.055 / cell, y - 0.055 / cell)
    ax.imshow(np.linspace(0, 1, 128)[None], extent=extent, cmap=HEAT)
    note = {"va": "center", "ha": "right", "fontsize": 8, "color": SOFT}
    least = "attention, each map on its own scale: least" if len(columns) > 3 else "least"
    ax.text(extent[0] - 0.05 / cell, y, least, **note)
    ax.text(width, y, "most", **note)
    return fig, ax, tops


def heat_over(face: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Heat [S,S], 0…1, over an RGB face uint8 [S,S,3] turned grey → uint8 [S,S,3]; no heat, bare grey face."""
    grey = np.repeat(face @ np.array([0.299, 0.587, 0.114]), 3).reshape(face.shape)
    strength = 0.75 * heat[..., None]
    return np.uint8((1 - strength) * grey + strength * 255 * HEAT(heat)[..., :3] + 0.5)


@styled
def feature_maps(
    features: torch.Tensor | np.ndarray, columns: int = 8, limit: int = 32, title: str | None = None
) -> Figure:
    """The first `limit` channels of [C,h,w], each scaled on its own, its number above it.

    Raises:
        ValueError: another number of dimensions.
    """
    features = torch.as_tensor(features).detach().float().cpu()
    if features.ndim != 3:
        raise ValueError(f"expected features [C,h,w], got {list(features.shape)}")
    shown = features[:limit]
    scaled = normalize_for_display(shown[None])[0].numpy()
    starts = range(0, len(shown), columns)
    names = [[str(j) for j in range(i, min(i + columns, len(shown)))] for i in starts]
    tiles = [[HEAT(one)[..., :3] for one in scaled[i : i + columns]] for i in starts]
    c, h, w = features.shape
    title = title or f"{len(shown)} of {c} channels, {h}×{w}, each on its own scale"
    return mosaic(tiles, captions=names, cell=0.95, title=title, interpolation="nearest")[0]
