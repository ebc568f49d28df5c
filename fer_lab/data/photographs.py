"""Faces in a reader's own photographs: open them within limits, find faces, crop them.

dlib's detector finds the faces: histograms of oriented gradients (Dalal & Triggs, CVPR 2005) under max-margin
object detection (King, arXiv 1502.00046). It knows five views of a face: frontal, turned to either side, and
rolled to either side. Where dlib has no wheel, scikit-image's cascade of local binary patterns takes over and
finds fewer faces (Viola & Jones, CVPR 2001; Liao et al., ICB 2007). Both come with their trained weights and
work offline; docs/data.md compares them. A photograph that is already a face crop needs no search.
"""

import contextlib
import functools
import glob
import math
import os
import shutil
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from fer_lab._progress import progress
from fer_lab.data import images
from fer_lab.data.cache import to_square
from fer_lab.data.images import MAX_BYTES, MAX_PIXELS, DataError, decode, open_header

# A larger picture is shrunk to this many pixels for the search, so the work does not grow with the picture.
# dlib finds faces of about 60 pixels: a 25th of the shorter side of a large photograph in the format 4:3.
SEARCH_PIXELS = 3_000_000
# Small pictures are enlarged to find small faces in them, at most by this factor.
ENLARGE = 2.5
# Lowest score of a face. dlib's own threshold is 0; its rare false faces score between 0 and 0.2.
LEAST_SCORE = 0.2
# The cascade: longer side of the picture, side of its window, and overlapping windows that must agree. With 4
# it finds a fifth more faces, and a false one in every crowded picture. To name the expression of a patch of
# cloth is the worse error.
CASCADE_SIDE, CASCADE_WINDOW, CASCADE_AGREEMENT = 640, 24, 8
# Side of the cascade's smallest face, as a share of the picture's shorter side. Smaller ones are mostly false.
CASCADE_SMALLEST = 0.08
# From the cascade's square to dlib's: side, and how far below the middle, in shares of the cascade's side.
# Medians over 102 photographs in which both find the same face.
CASCADE_TO_DLIB = (0.90, 0.08)
# The frame that training pictures have around dlib's box: side, and how far below the middle, in shares of the
# box's side. Medians of what dlib finds in 1,000 training pictures of FER+ and in 200 rendered faces, enlarged
# to several sizes. Other data sets take FER+'s.
FRAMES = {"ferplus": (1.17, -0.07), "synthetic": (1.54, -0.125)}
# In face crops the box of the face fills 0.55 (rendered faces) to 0.85 (FER+) of the side. Pictures in which it
# fills less than this are taken for whole photographs. On portraits cropped ever wider, bundled FER+ weights
# lost 4 points from 0.85 to 0.5, and ferplus/dan 24.5 points at 0.35.
LEAST_FILLED = 0.5
# Shrunk to this longer side, a picture still shows a face of a twentieth of it.
ENOUGH_SIDE = 512
# Limits of an upload from a browser. A message larger than 10 MiB ends JupyterLab's connection to the kernel,
# and the kernel could not even report the error. Photographs come in these formats; others need no decoder.
UPLOAD_BYTES = 8 * 2**20
UPLOAD_PIXELS = 40_000_000
UPLOAD_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "HEIF")
# An upload's longer side is reduced to this, which is enough for the search and for every network.
UPLOAD_SIDE = 2048
PHOTO_SUFFIXES = images.SUFFIXES | {".heic", ".heif"}

Source = str | Path | bytes | Image.Image | np.ndarray


@dataclass(frozen=True)
class FaceBox:
    """A face's place in a picture, in pixels, from the brows to the chin; right and bottom are exclusive.

    A box may reach beyond the picture. `score` says how sure dlib's detector is, from `LEAST_SCORE` upwards;
    a clear face has 1 to 3. The cascade has no score and leaves 0.
    """

    left: int
    top: int
    right: int
    bottom: int
    score: float = 0.0

    @property
    def box(self) -> tuple[int, int, int, int]:
        """(left, top, right, bottom), as PIL takes it."""
        return self.left, self.top, self.right, self.bottom

    @property
    def area(self) -> int:
        """Pixels in the box."""
        return (self.right - self.left) * (self.bottom - self.top)

    def frame(self, trained_on: str = "ferplus") -> tuple[int, int, int, int]:
        """The square around the face that weights expect, by the data set that trained them; see `FRAMES`."""
        return _square(self.box, *FRAMES.get(trained_on, FRAMES["ferplus"]))


def _square(box: Sequence[float], scale: float, below: float) -> tuple[int, int, int, int]:
    """A square about a box: its side, and how far it is moved down, in shares of the longer side."""
    left, top, right, bottom = box
    side = max(right - left, bottom - top)
    x, y, half = (left + right) / 2, (top + bottom) / 2 + below * side, scale * side / 2
    return round(x - half), round(y - half), round(x + half), round(y + half)


def open_image(source: Source) -> Image.Image:
    """Open a picture as upright 8-bit RGB.

    The source is a file, a file's content, an opened picture, or an array, uint8 [H,W,3] in RGB order or [H,W].
    The content decides the format: PNG, JPEG, BMP, GIF, WebP, TIFF or PPM, and HEIC where pillow-heif is
    installed. An animation gives its first frame. A JPEG of more than 50 million pixels, up to 200 million, is
    decoded at a half or a quarter of its width and height. Raises DataError for one that is missing, too large,
    truncated, or not a picture in one of these formats, and TypeError for another kind of source.
    """
    if isinstance(source, str | Path):
        return decode(images.read_limited(source), str(source))
    if isinstance(source, bytes | bytearray | memoryview):
        if len(source) > MAX_BYTES:
            raise DataError(
                f"the picture has {len(source):,} bytes, more than the {MAX_BYTES:,} accepted; shrink it"
            )
        return decode(bytes(source), "the picture")
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.shape[2:] not in ((), (3,)) or source.ndim < 2:
            raise DataError(
                f"expected an array uint8 [H,W,3] in RGB order, or [H,W], "
                f"got {source.dtype} {list(source.shape)}"
            )
        source = Image.fromarray(source)
    if not isinstance(source, Image.Image):
        raise TypeError(f"expected a path, bytes, a PIL image or an array, got {type(source).__name__}")
    width, height = source.size
    if not 0 < width * height <= MAX_PIXELS:
        raise DataError(f"the picture is {width}×{height}; expected 1 to {MAX_PIXELS:,} pixels")
    try:
        source.load()
    except Exception as error:  # decoders fail on damaged files with errors of every kind
        raise DataError(f"the picture is damaged: {error or type(error).__name__}") from error
    return images.to_rgb(source, "the picture")


def open_upload(content: bytes | memoryview, name: str = "the upload") -> Image.Image:
    """Open a picture from a browser, within `UPLOAD_BYTES`, `UPLOAD_PIXELS` and `UPLOAD_FORMATS`.

    The content decides the format; the file name and the type that the browser sends are not trusted. A larger
    JPEG is shrunk as by `open_image`. Returns upright 8-bit RGB, its longer side at most `UPLOAD_SIDE`. Raises
    DataError, with the upload's `name`, if it is too large, of another format, truncated, or not a picture.
    """
    size = memoryview(content).nbytes
    if size > UPLOAD_BYTES:
        raise DataError(
            f"{name} has {size:,} bytes, more than the {UPLOAD_BYTES:,} accepted; shrink the picture"
        )
    data = bytes(content)
    # Pillow warns about large pictures and odd metadata; the ones that matter are errors below.
    with warnings.catch_warnings(action="ignore"):
        kind = open_header(data, name, UPLOAD_PIXELS).format
        # A phone's JPEG with a second picture appended, such as a depth map; the first one is used.
        kind = "JPEG" if kind == "MPO" else kind
        if kind not in UPLOAD_FORMATS:
            raise DataError(f"{name} is a {kind} picture; save it as one of {', '.join(UPLOAD_FORMATS)}")
        image = decode(data, name, UPLOAD_PIXELS)
    image.thumbnail((UPLOAD_SIDE, UPLOAD_SIDE))
    return image


def find_faces(image: Source, *, smallest: float = 0.05, largest_first: int = 32) -> list[FaceBox]:
    """Find faces, the largest first; two of them overlap by at most a third of the smaller.

    Faces may be turned or rolled by up to about 40°. See `SEARCH_PIXELS` for the smallest face.

    Takes any source of `open_image`, whose errors it may raise. `smallest` is the side of the smallest face, as
    a share of the picture's shorter side, between 0 and 1; at most `largest_first` faces are returned.
    """
    if not 0 < smallest < 1:
        raise ValueError(f"smallest must be between 0 and 1, got {smallest}")
    image = open_image(image)
    # A picture and its grey twin have the same faces.
    grey, least = image.convert("L"), smallest * min(image.size)
    found = _by_dlib(grey) if _dlib() else _by_cascade(grey, least)
    chosen: list[FaceBox] = []
    for box in sorted(found, key=lambda box: (-box.score, -box.area, box.box)):
        if box.right - box.left >= least and all(_overlap(box, other) <= 1 / 3 for other in chosen):
            chosen.append(box)
    return sorted(chosen, key=lambda box: (-box.area, box.box))[:largest_first]


_detectors = threading.local()


def _dlib() -> Any:
    """This thread's detector of faces, or None where dlib is not installed."""
    if not hasattr(_detectors, "own"):
        try:
            import dlib
        except ImportError:
            return None
        _detectors.own = dlib.get_frontal_face_detector()
    return _detectors.own


def _shrunk(grey: Image.Image, scale: float) -> np.ndarray:
    size = [max(1, round(side * scale)) for side in grey.size]
    return np.asarray(grey.resize((size[0], size[1]), Image.Resampling.BILINEAR, reducing_gap=2.0))


def _by_dlib(grey: Image.Image) -> list[FaceBox]:
    scale = min(ENLARGE, math.sqrt(SEARCH_PIXELS / (grey.width * grey.height)))
    boxes, scores, _views = _dlib().run(_shrunk(grey, scale), 0, LEAST_SCORE)
    found = []
    for box, score in zip(boxes, scores, strict=True):
        edges = (box.left(), box.top(), box.right() + 1, box.bottom() + 1)
        left, top, right, bottom = (round(edge / scale) for edge in edges)
        found.append(FaceBox(left, top, right, bottom, score))
    return found


def _by_cascade(grey: Image.Image, least: float) -> list[FaceBox]:
    scale = min(1.0, CASCADE_SIDE / max(grey.size))
    small = _shrunk(grey, scale)
    least = max(least, CASCADE_SMALLEST * min(grey.size))
    # The cascade's square is a little larger than the box that is returned.
    side = max(CASCADE_WINDOW, round(least * scale / CASCADE_TO_DLIB[0]))
    if min(small.shape) <= side:
        return []
    faces = _cascade().detect_multi_scale(
        img=small,
        scale_factor=1.1,
        step_ratio=1,
        min_size=(side, side),
        max_size=(min(small.shape),) * 2,
        min_neighbor_number=CASCADE_AGREEMENT,
    )
    edges = ((face["c"], face["r"], face["c"] + face["width"], face["r"] + face["height"]) for face in faces)
    return [FaceBox(*_square([edge / scale for edge in box], *CASCADE_TO_DLIB)) for box in edges]


@functools.cache
def _cascade() -> Any:
    from skimage.data import lbp_frontal_face_cascade_filename
    from skimage.feature import Cascade

    return Cascade(lbp_frontal_face_cascade_filename())


def _overlap(a: FaceBox, b: FaceBox) -> float:
    """Intersection of two boxes, as a share of the smaller one."""
    width = min(a.right, b.right) - max(a.left, b.left)
    height = min(a.bottom, b.bottom) - max(a.top, b.top)
    return max(0, width) * max(0, height) / min(a.area, b.area)


def find_tilt(image: Image.Image, box: FaceBox) -> float:
    """Degrees, counter-clockwise, by which to turn a picture so that a face in it is upright.

    dlib's three upright views score the face at seven angles from −45° to 45°. The result is the mean of the
    angles, weighted by how far each score is above the best one minus 1. On photographs turned by a known angle
    of up to 30° it is within 3° (one standard deviation). Raises RuntimeError where dlib is not installed.
    """
    if _dlib() is None:
        raise RuntimeError("turning faces upright needs dlib: pip install dlib-bin")
    region = image.crop(_square(box.box, 3.0, 0.0)).convert("L").resize((300, 300), Image.Resampling.BILINEAR)
    angles, best = range(-45, 46, 15), []
    for angle in angles:
        turned = region.rotate(angle, Image.Resampling.BILINEAR).crop((50, 50, 250, 250))
        _boxes, scores, views = _dlib().run(np.asarray(turned), 0, -1.0)
        # Views 3 and 4 are of rolled faces.
        best.append(max((s for s, view in zip(scores, views, strict=True) if view < 3), default=-1.0))
    weights = np.maximum(np.array(best) - (max(best) - 1), 0)
    return float((weights * angles).sum() / weights.sum())


def crop_face(
    image: Image.Image,
    box: FaceBox | tuple[int, int, int, int] | None = None,
    size: int = 112,
    margin: float = 0.0,
    *,
    trained_on: str = "ferplus",
) -> torch.Tensor:
    """Crop a square around a face of an RGB picture → uint8 [3,size,size].

    The square stays inside the picture: near an edge it is moved, and if it is too large it shrinks. Raises
    ValueError for an empty box, or one outside the picture, or a margin or size out of range.

    Args:
        box: a face that `find_faces` returned, which gets the frame that `trained_on` asks for; or (left, top,
            right, bottom), which is cropped as it is; None takes the central square, for a picture that is a
            face crop.
        margin: added on every side, as a share of the square's side; −0.5 < margin.
        trained_on: data set that the model's weights were trained on; see `FRAMES`.

    Example:
        >>> image = open_image("photo.jpg")
        >>> crops = [crop_face(image, face) for face in find_faces(image)]
    """
    if size < 1:
        raise ValueError(f"expected a size of at least 1 pixel, got {size}")
    square = image.convert("RGB").crop(face_square(image, box, margin, trained_on=trained_on))
    return torch.from_numpy(to_square(square, size).copy())


def face_square(
    image: Image.Image,
    box: FaceBox | tuple[int, int, int, int] | None = None,
    margin: float = 0.0,
    *,
    trained_on: str = "ferplus",
) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of the square that `crop_face` cuts out; ValueError as there."""
    if not -0.5 < margin < 10:
        raise ValueError(f"margin must be between -0.5 and 10, got {margin}")
    if isinstance(box, FaceBox):
        box = box.frame(trained_on)
    left, top, right, bottom = (0, 0, *image.size) if box is None else box
    if not (max(left, 0) < min(right, image.width) and max(top, 0) < min(bottom, image.height)):
        raise ValueError(f"no part of the box {(left, top, right, bottom)} is in a picture of {image.size}")
    longer = min(image.size) if box is None else max(right - left, bottom - top) * (1 + 2 * margin)
    side = min(max(1, round(longer)), *image.size)
    x = min(max(0, round((left + right - side) / 2)), image.width - side)
    y = min(max(0, round((top + bottom - side) / 2)), image.height - side)
    return x, y, x + side, y + side


def uncropped(pictures: Sequence[Image.Image]) -> str:
    """A sentence on some pictures of a data set if most of them are whole photographs, and not face crops.

    A network that learned from face crops answers for photographs, too, but often wrongly. "" if the pictures
    are crops, or if that cannot be seen: a face that fills its picture is often missed. Pictures are shrunk.
    """
    filled = []
    with contextlib.suppress(ImportError):  # without any detector
        for picture in pictures:
            picture.thumbnail((ENOUGH_SIDE, ENOUGH_SIDE))
            filled += [math.sqrt(face.area) / min(picture.size) for face in find_faces(picture)[:1]]
    if 2 * len(filled) <= max(5, len(pictures)) or np.median(filled) >= LEAST_FILLED:
        return ""
    return (
        f"a face fills {100 * np.median(filled):.0f} % of a picture's side, in face crops 55 to 85 %. Networks "
        "do worse on whole photographs; `fer-lab data crop PHOTOS FACES` cuts the faces out"
    )


def list_photographs(paths: Sequence[Path]) -> list[Path]:
    """The files among `paths`, and the pictures in the folders among them and below, by their names.

    Links to folders are not followed, and a link to a file is left out if its target is outside the folder.
    Raises DataError for paths that do not exist, or no picture.
    """
    # Where no shell has done it, a pattern is expanded here.
    found = [[str(path)] if path.exists() else sorted(glob.glob(str(path))) or [str(path)] for path in paths]
    paths = [Path(name) for names in found for name in names]
    if missing := [str(path) for path in paths if not path.exists()]:
        raise DataError(f"{', '.join(missing)}: no such file or folder")
    files: list[Path] = []
    for path in paths:
        if not path.is_dir():
            files.append(path)
            continue
        inside = (Path(folder, name) for folder, _, names in os.walk(path) for name in names)
        pictures = (file for file in inside if file.suffix.lower() in PHOTO_SUFFIXES)
        files += sorted(file for file in pictures if file.resolve().is_relative_to(path.resolve()))
    if not files:
        raise DataError(f"{', '.join(map(str, paths))}: no picture in it; expected files such as .jpg or .png")
    return files


def crop_folder(
    source: Path,
    target: Path,
    *,
    size: int = 112,
    align: bool = False,
    on_bad: Callable[[Path, str], None] = lambda file, reason: None,
) -> Counter[str]:
    """Crop the face of every photograph in a folder into a new folder that `load_faces("folder", …)` reads.

    Folders keep their names: split/class/photo.jpg becomes split/class/photo.png, and class/photo.jpg becomes
    class/photo.png. A photograph with several faces is left out, because its label cannot be of all of them;
    faces of less than a quarter of the largest one's area count as background.

    Returns the number of photographs by what became of them: "cropped", "no face", "several faces",
    "unreadable". `target` appears when it is complete, and only if anything was cropped. `align` turns the
    faces upright (see `find_tilt`); `on_bad` is called with every photograph that gave no crop, and the reason.

    Raises DataError if `source` is not a folder with pictures or `target` exists, and RuntimeError for `align`
    without dlib.
    """
    if not source.is_dir():
        raise DataError(f"{source} is not a folder; expected a folder of photographs")
    if target.exists() or target.is_symlink():
        raise DataError(f"{target} exists; name a folder that does not exist yet")
    files = list_photographs([source])
    outcome: Counter[str] = Counter()
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        for file in progress(files, "cropping"):
            try:
                image = open_image(file)
                faces = find_faces(image)
                large = [face for face in faces if 4 * face.area >= faces[0].area]
                if len(large) != 1:
                    raise DataError("several faces" if faces else "no face")
            except DataError as error:
                reason = str(error)
                outcome[reason if reason in ("several faces", "no face") else "unreadable"] += 1
                on_bad(file, reason)
                continue
            if align:
                middle = ((large[0].left + large[0].right) / 2, (large[0].top + large[0].bottom) / 2)
                image = image.rotate(find_tilt(image, large[0]), Image.Resampling.BICUBIC, center=middle)
            crop = part / file.relative_to(source).with_suffix(".png")
            if crop.exists():  # two files whose names differ in their suffix
                crop = crop.with_name(f"{file.name}.png")
            crop.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(crop_face(image, large[0], size).permute(1, 2, 0).numpy()).save(crop)
            outcome["cropped"] += 1
        if outcome["cropped"]:
            part.rename(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return outcome
