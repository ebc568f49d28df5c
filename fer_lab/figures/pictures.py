"""Pictures of faces that two notebooks or more draw: what a set has, what a network sees, where it looks."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fer_lab.data.expressions import colors
from fer_lab.data.faces import FaceSet
from fer_lab.explanation.maps import normalize_for_display
from fer_lab.figures.style import HEAT, PITCH, SOFT, WIDTH, Masks, Names, styled

# The 68 landmarks in the iBUG order: name → strokes of (first, last, closed).
STROKES = {
    "jaw": [(0, 16, False)],
    "brows": [(17, 21, False), (22, 26, False)],
    "nose": [(27, 30, False), (31, 35, False)],
    "eyes": [(36, 41, True), (42, 47, True)],
    "mouth": [(48, 59, True), (60, 67, True)],
}
FOUND, OUTLINE = "#ffdd55", "#7fe3ff"
LEAST = "attention, each map on its own scale: least"

Images = torch.Tensor | np.ndarray
Tiles = Sequence[Sequence[np.ndarray]]  # [rows][columns] of RGB [S,S,3]


def pictures_of(images: Images) -> np.ndarray:
    """uint8 [N,3,S,S] (or one, [3,S,S]) → uint8 [N,S,S,3]."""
    images = np.asarray(images)
    images = images[None] if images.ndim == 3 else images
    if images.ndim != 4 or images.shape[1] != 3 or images.dtype != np.uint8:
        raise ValueError(f"expected images uint8 [N,3,S,S], got {images.dtype} {list(images.shape)}")
    if not len(images):
        raise ValueError("there are no faces to draw")
    return images.transpose(0, 2, 3, 1)


def mosaic(
    tiles: Tiles,
    *,
    captions: Sequence[Names] = (),
    left: float = 0.0,
    right: float = 0.0,
    bottom: float = 0.0,
    cell: float = 1.1,
    title: str = "",
) -> tuple[Figure, Axes, list[float]]:
    """Pictures on one axis whose unit is a picture's side.

    Returns the figure, its axis, and each row's y (downwards); column c starts at x = `PITCH` · c. `captions`
    stand above the pictures of the first rows or all. `left, right, bottom`: room there, in pictures' sides.
    `cell`: a picture's side in inches, made smaller if the figure would be too wide.
    """
    gap = PITCH - 1
    width = left + max(map(len, tiles)) * PITCH - gap + right
    cell = min(cell, (WIDTH - 0.1) / width)
    captions = [*captions, *[()] * (len(tiles) - len(captions))]
    tops, y = [], 0.0
    for texts in captions:
        lines = max((1 + text.count("\n") for text in texts), default=0)
        y += (0.19 if lines < 2 else 0.05 + 0.14 * lines) / cell if lines else 0.0
        tops.append(y)
        y += PITCH
    height = y - gap + bottom
    w, h = width * cell + 0.1, height * cell + (0.38 if title else 0.1)
    fig = Figure(figsize=(w, h))
    ax = fig.add_axes((0.05 / w, 0.05 / h, width * cell / w, height * cell / h))
    for top, row, texts in zip(tops, tiles, captions, strict=True):
        for c, tile in enumerate(row):
            ax.imshow(tile, extent=(c * PITCH, c * PITCH + 1, top + 1, top), interpolation="bicubic")
        for c, text in enumerate(texts):
            ax.text(c * PITCH + 0.5, top - 0.04, text, ha="center", va="bottom", fontsize=8)
    ax.set(xlim=(-left, width - left), ylim=(height, 0), aspect="auto")
    ax.axis("off")
    if title:
        fig.text(0.05 / w, 1 - 0.07 / h, title, va="top", fontsize=10.5, weight="bold")
    return fig, ax, tops


def grid_of_faces(
    images: Images, titles: Names | None, columns: int, *, cell: float, bottom: float = 0.0, title: str = ""
) -> tuple[Figure, Axes, np.ndarray]:
    """Faces uint8 [N,3,S,S] in rows of `columns`: the figure, its axis, and each face's corner [N,2]."""
    pictures = list(pictures_of(images))
    if titles is not None and len(titles) != len(pictures):
        raise ValueError(f"{len(titles)} titles for {len(pictures)} faces")
    starts = range(0, len(pictures), columns)
    names = [titles[i : i + columns] for i in starts] if titles is not None else ()
    tiles = [pictures[i : i + columns] for i in starts]
    fig, ax, tops = mosaic(tiles, captions=names, cell=cell, bottom=bottom, title=title)
    return fig, ax, np.array([(PITCH * (i % columns), tops[i // columns]) for i in range(len(pictures))])


def name_rows(ax: Axes, tops: Sequence[float], names: Names) -> None:
    """Write each row's name at the left of a mosaic."""
    for top, name in zip(tops, names, strict=True):
        ax.text(-0.08, top + 0.5, name, ha="right", va="center", fontsize=8.5)


def room_for(texts: Names, inches: float) -> float:
    """Width of the longest line of some texts, in inches, if a letter has this width; 0 without texts."""
    return 0.12 + inches * max(len(line) for text in texts for line in text.split("\n")) if texts else 0.0


def heats(maps: Images, side: int) -> np.ndarray:
    """Maps [B,K,h,w] → float [B,K,side,side], each scaled to 0…1 on its own."""
    scaled = normalize_for_display(as_maps(maps))
    return F.interpolate(scaled, size=(side, side), mode="bicubic").clamp(0, 1).numpy()


def as_maps(maps: Images) -> torch.Tensor:
    return torch.as_tensor(maps).detach().float().cpu()


def heat_over(face: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Heat [S,S], 0…1, over an RGB face uint8 [S,S,3] turned grey → uint8 [S,S,3]; no heat, bare grey face."""
    grey = np.repeat(face @ np.array([0.299, 0.587, 0.114]), 3).reshape(face.shape)
    strength = 0.75 * heat[..., None]
    return ((1 - strength) * grey + strength * 255 * HEAT(heat)[..., :3] + 0.5).astype(np.uint8)


def heat_rows(
    tiles: Tiles, columns: Names, names: Names, cell: float = 1.1, least: str = LEAST, title: str = ""
) -> tuple[Figure, Axes, list[float]]:
    """`mosaic` of rows of faces and maps, each with its name at the left; the heat's scale below."""
    # In inches, since the pictures shrink where there are many columns and the letters do not.
    room = room_for(names, 0.066)
    count = len(tiles[0])
    width = PITCH * count - (PITCH - 1)
    cell = min(cell, (WIDTH - 0.1 - room) / width)
    left, bottom = room / cell, 0.28 / cell
    fig, ax, tops = mosaic(tiles, captions=[columns], left=left, bottom=bottom, cell=cell, title=title)
    name_rows(ax, tops, names)
    y = tops[-1] + 1 + 0.2 / cell
    end = width - 0.36 / cell  # the word "most" follows it
    extent = (end - 1.1 / cell, end, y + 0.055 / cell, y - 0.055 / cell)
    ax.imshow(np.linspace(0, 1, 128)[None], extent=extent, cmap=HEAT)
    least = least if count > 3 else "least"
    for x, text in ((extent[0] - 0.05 / cell, least), (width, "most")):
        ax.text(x, y, text, va="center", ha="right", fontsize=8, color=SOFT)
    return fig, ax, tops


def check_masks(masks: torch.Tensor, pictures: np.ndarray) -> None:
    """Raise ValueError unless there is a mask bool [S,S] for each picture [S,S,3]."""
    if tuple(masks.shape) != pictures.shape[:3]:
        raise ValueError(f"expected masks {list(pictures.shape[:3])}, got {list(masks.shape)}")


def outline(ax: Axes, mask: torch.Tensor, left: float, top: float) -> None:
    """Draw the border of a bool mask [S,S] on the picture whose corner is (left, top) and whose side is 1."""
    if mask.any():
        at = (np.arange(len(mask)) + 0.5) / len(mask)
        inside = mask.cpu().numpy().astype(float)
        ax.contour(left + at, top + at, inside, levels=[0.5], colors=[OUTLINE], linewidths=1.1)


def landmark_array(points: Images, count: int) -> np.ndarray:
    """Landmarks as float [count,68,2]."""
    array = np.asarray(torch.as_tensor(points).detach().cpu(), dtype=float)
    if array.shape != (count, 68, 2):
        raise ValueError(f"expected landmarks [{count},68,2], got {list(array.shape)}")
    return array


def landmark_dots(ax: Axes, xy: np.ndarray, size: float = 5.0) -> None:
    """Yellow dots with a thin black edge at xy [N,2]."""
    ax.scatter(xy[:, 0], xy[:, 1], s=size, color=FOUND, edgecolors="black", linewidths=0.3, zorder=3)


@styled
def face_grid(
    images: Images,
    titles: Names | None = None,
    columns: int = 8,
    cell: float = 1.1,
    masks: Masks = None,
    title: str = "",
) -> Figure:
    """Faces uint8 [N,3,S,S] in rows of `columns`, with a title above each if there are titles.

    `cell`: a face's side in inches, as in `mosaic`. `masks`: a region of each to outline. `title`: above all.
    """
    fig, ax, corners = grid_of_faces(images, titles, columns, cell=cell, title=title)
    if masks is not None:
        check_masks(masks, pictures_of(images))
        for mask, (left, top) in zip(masks, corners, strict=True):
            outline(ax, mask, left, top)
    return fig


def set_title(faces: FaceSet) -> str:
    """How a title calls a set of faces."""
    return "Rendered faces" if faces.name == "synthetic" else f"Faces of {faces.name}"


@styled
def faces_by_class(faces: FaceSet, per_class: int = 6) -> Figure:
    """A row of faces for each class, taken evenly from all of its faces; its name and count at the left."""
    tiles = []
    for label in range(faces.num_classes):
        members = (faces.labels == label).nonzero().squeeze(1)
        step = max(1, len(members) // per_class)
        tiles.append(list(pictures_of(faces.take(members[::step][:per_class]))) if len(members) else [])
    fig, ax, tops = mosaic(tiles, left=1.45, cell=0.85, title=f"{set_title(faces)}, by label")
    rows = zip(tops, faces.classes, faces.class_counts().tolist(), colors(faces.classes), strict=True)
    for top, name, count, color in rows:
        y = top + 0.5
        ax.plot([-0.08, -0.08], [y - 0.46, y + 0.46], color=color, linewidth=4, solid_capstyle="butt")
        ax.text(-0.2, y - 0.04, name, ha="right", va="bottom", fontsize=9.5, weight="bold")
        ax.text(-0.2, y + 0.04, f"{count:,} faces", ha="right", va="top", fontsize=8, color=SOFT)
    return fig


@styled
def face_rows(
    images: Images, names: Names, columns: Names = (), notes: Names = (), cell: float = 1.0, title: str = ""
) -> Figure:
    """Rows of faces uint8 [R,K,3,S,S], each with its name at the left, and a note at the right if given.

    `columns`: K titles above the first row. `cell`: a face's side in inches, as in `mosaic`.
    """
    images = np.asarray(images)
    if images.ndim != 5:
        raise ValueError(f"expected images [R,K,3,S,S], got {list(images.shape)}")
    n, k = images.shape[:2]
    for what, given, needed in (("names", names, n), ("column titles", columns, k), ("notes", notes, n)):
        if len(given) != needed and (given or what == "names"):
            raise ValueError(f"expected {needed} {what}, got {len(given)}")
    tiles, above = [list(pictures_of(row)) for row in images], [columns] if columns else ()
    left, right = (room_for(texts, 0.068 / cell) for texts in (names, notes))
    fig, ax, tops = mosaic(tiles, captions=above, left=left, right=right, cell=cell, title=title)
    name_rows(ax, tops, names)
    end = k * PITCH - (PITCH - 1)
    for top, note in zip(tops, notes, strict=False):
        ax.text(end + 0.08, top + 0.5, note, ha="left", va="center", fontsize=8.5, color=SOFT)
    return fig


@styled
def attention_overlay(
    images: Images,
    maps: Images,
    row_titles: Names,
    column_titles: Names,
    points: Images | None = None,
    title: str = "",
) -> Figure:
    """Maps [B,K,h,w] as heat over faces uint8 [B,3,S,S]: a row a face, the face first and then its K maps.

    Every map is scaled to 0…1 on its own, so colours compare places within a map and not two maps. `points`:
    landmarks [B,68,2] as shares 0…1 of the image's side, drawn on the face. `title`: of the figure.
    """
    pictures, maps = pictures_of(images), as_maps(maps)
    if maps.ndim != 4 or len(maps) != len(pictures):
        raise ValueError(f"expected maps [{len(pictures)},K,h,w], got {list(maps.shape)}")
    k = maps.shape[1]
    if len(column_titles) != k or len(row_titles) != len(pictures):
        raise ValueError(f"expected {k} column titles and {len(pictures)} row titles")
    landmarks = None if points is None else landmark_array(points, len(pictures))
    heat = heats(maps, pictures.shape[1])
    tiles = [[face, *(heat_over(face, one) for one in row)] for face, row in zip(pictures, heat, strict=True)]
    fig, ax, tops = heat_rows(tiles, ["face", *column_titles], row_titles, title=title)
    for top, marks in zip(tops, () if landmarks is None else landmarks, strict=False):
        landmark_dots(ax, marks + np.array([0, top]), size=2.5)
    return fig


@styled
def maps_in_rows(images: Images, maps: Mapping[str, Images], captions: Names, title: str = "") -> Figure:
    """The same faces in every row, a row a kind of map: uint8 [K,3,S,S] and name → [K,h,w].

    Each map is scaled on its own. The first row is the faces themselves. `title`: of the figure.
    """
    faces = pictures_of(images)
    rows = [list(faces)]
    for name, one in maps.items():
        if one.ndim != 3 or len(one) != len(faces):
            raise ValueError(f"expected maps {name!r} as [{len(faces)},h,w], got {list(one.shape)}")
        heat = heats(as_maps(one)[None], faces.shape[1])[0]
        rows.append([heat_over(face, h) for face, h in zip(faces, heat, strict=True)])
    least = "each map on its own scale: least"
    return heat_rows(rows, captions, ["", *maps], cell=1.3, least=least, title=title)[0]
