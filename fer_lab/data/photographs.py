"""Faces in a reader's own photograph: open it within limits, find faces, crop them.

scikit-image's cascade of local binary patterns finds the faces (Viola & Jones, CVPR 2001; Liao et al., ICB
2007). Its trained file comes with scikit-image, so it works offline. It finds upright frontal faces and misses
many others. A photograph that is already a face crop needs no search.
"""

import functools
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from fer_lab.data.cache import to_square
from fer_lab.data.images import MAX_BYTES, MAX_PIXELS, DataError, decode, open_header, read_limited, to_rgb

# Faces are searched at this length of the longer side, so the work does not grow with the picture.
SEARCH_SIDE = 640
# Side of the cascade's window; it does not find smaller faces.
WINDOW = 24
# Overlapping windows that must agree. With 4 the cascade finds a fifth more faces, and a false one in every
# crowded picture. To name the expression of a patch of cloth is the worse error.
AGREEMENT = 8
# Limits of an upload from a browser. A message larger than 10 MiB ends JupyterLab's connection to the kernel,
# and the kernel could not even report the error. Photographs come in these formats; others need no decoder.
UPLOAD_BYTES = 8 * 2**20
UPLOAD_PIXELS = 40_000_000
UPLOAD_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
# An upload's longer side is reduced to this, which is enough for the search and for every network.
UPLOAD_SIDE = 2048


@dataclass(frozen=True)
class FaceBox:
    """A face's place in a picture, in pixels; right and bottom are exclusive."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def box(self) -> tuple[int, int, int, int]:
        """(left, top, right, bottom), as PIL takes it."""
        return self.left, self.top, self.right, self.bottom

    @property
    def area(self) -> int:
        """Pixels in the box."""
        return (self.right - self.left) * (self.bottom - self.top)


def open_image(
    source: str | Path | bytes | Image.Image, *, max_bytes: int = MAX_BYTES, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """Open a picture as upright 8-bit RGB.

    The content decides the format: PNG, JPEG, BMP, GIF, WebP, TIFF or PPM. An animation gives its first frame.

    Args:
        source: a file, a file's content, or an opened picture.
        max_bytes: size of the largest file.
        max_pixels: largest width × height, checked before any pixel is decoded.

    Raises:
        DataError: missing, too large, truncated, or not a picture in one of these formats.
        TypeError: another kind of source.
    """
    if isinstance(source, str | Path):
        return decode(read_limited(source, max_bytes), str(source), max_pixels)
    if isinstance(source, bytes | bytearray | memoryview):
        if len(source) > max_bytes:
            raise DataError(
                f"the picture has {len(source):,} bytes, more than the {max_bytes:,} accepted; shrink it"
            )
        return decode(bytes(source), "the picture", max_pixels)
    if not isinstance(source, Image.Image):
        raise TypeError(f"expected a path, bytes or a PIL image, got {type(source).__name__}")
    width, height = source.size
    if not 0 < width * height <= max_pixels:
        raise DataError(f"the picture is {width}×{height}; expected 1 to {max_pixels:,} pixels")
    try:
        source.load()
    except Exception as error:  # decoders fail on damaged files with errors of every kind
        raise DataError(f"the picture is damaged: {error or type(error).__name__}") from error
    return to_rgb(source, "the picture")


def open_upload(content: bytes | memoryview, name: str = "the upload") -> Image.Image:
    """Open a picture from a browser, within `UPLOAD_BYTES`, `UPLOAD_PIXELS` and `UPLOAD_FORMATS`.

    The content decides the format; the file name and the type that the browser sends are not trusted.

    Args:
        content: the file's bytes.
        name: the upload's name in messages.

    Returns:
        Upright 8-bit RGB, its longer side at most `UPLOAD_SIDE`.

    Raises:
        DataError: too large, another format, truncated, or not a picture.
    """
    size = memoryview(content).nbytes
    if size > UPLOAD_BYTES:
        raise DataError(
            f"{name} has {size:,} bytes, more than the {UPLOAD_BYTES:,} accepted; shrink the picture"
        )
    data = bytes(content)
    with warnings.catch_warnings():
        # Pillow warns about large pictures and odd metadata; the ones that matter are errors below.
        warnings.simplefilter("ignore")
        kind = open_header(data, name, UPLOAD_PIXELS).format
        # A phone's JPEG with a second picture appended, such as a depth map; the first one is used.
        kind = "JPEG" if kind == "MPO" else kind
        if kind not in UPLOAD_FORMATS:
            raise DataError(f"{name} is a {kind} picture; save it as one of {', '.join(UPLOAD_FORMATS)}")
        image = decode(data, name, UPLOAD_PIXELS)
    image.thumbnail((UPLOAD_SIDE, UPLOAD_SIDE))
    return image


def find_faces(
    image: str | Path | bytes | Image.Image, *, smallest: float = 0.08, largest_first: int = 32
) -> list[FaceBox]:
    """Find upright frontal faces, the largest first; two of them overlap by at most a third of the smaller.

    Args:
        image: any source of `open_image`.
        smallest: side of the smallest face, as a share of the picture's shorter side, between 0 and 1.
        largest_first: the largest number of faces to return.

    Raises:
        DataError: as `open_image`.
        ValueError: `smallest` out of range.
    """
    if not 0 < smallest < 1:
        raise ValueError(f"smallest must be between 0 and 1, got {smallest}")
    image = open_image(image)
    scale = min(1.0, SEARCH_SIDE / max(image.size))
    width, height = (max(1, round(side * scale)) for side in image.size)
    side = max(WINDOW, round(smallest * min(width, height)))
    if min(width, height) <= side:
        return []
    small = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR).convert("L"))
    detections = _cascade().detect_multi_scale(
        img=small,
        scale_factor=1.1,
        step_ratio=1,
        min_size=(side, side),
        max_size=(min(width, height),) * 2,
        min_neighbor_number=AGREEMENT,
    )
    boxes = [
        FaceBox(
            left=round(face["c"] / scale),
            top=round(face["r"] / scale),
            right=min(image.width, round((face["c"] + face["width"]) / scale)),
            bottom=min(image.height, round((face["r"] + face["height"]) / scale)),
        )
        for face in detections
    ]
    chosen: list[FaceBox] = []
    for box in sorted(boxes, key=lambda box: (-box.area, box.box)):
        if all(_overlap(box, other) <= 1 / 3 for other in chosen):
            chosen.append(box)
    return chosen[:largest_first]


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


def crop_face(
    image: Image.Image,
    box: FaceBox | tuple[int, int, int, int] | None = None,
    size: int = 112,
    margin: float = 0.0,
) -> torch.Tensor:
    """Crop a square around a face → uint8 [3,size,size].

    The square stays inside the picture: near an edge it is moved, and if it is too large it shrinks.

    Args:
        image: RGB, as `open_image` returns it.
        box: (left, top, right, bottom); None takes the central square, for a picture that is a face crop.
        size: side of the result in pixels.
        margin: added on every side, as a share of the box's longer side; −0.5 < margin.

    Raises:
        ValueError: an empty box, or one outside the picture, or a margin or size out of range.
    """
    if size < 1:
        raise ValueError(f"expected a size of at least 1 pixel, got {size}")
    if not -0.5 < margin < 10:
        raise ValueError(f"margin must be between -0.5 and 10, got {margin}")
    if isinstance(box, FaceBox):
        box = box.box
    left, top, right, bottom = (0, 0, *image.size) if box is None else box
    if not (max(left, 0) < min(right, image.width) and max(top, 0) < min(bottom, image.height)):
        raise ValueError(f"no part of the box {(left, top, right, bottom)} is in a picture of {image.size}")
    longer = min(image.size) if box is None else max(right - left, bottom - top) * (1 + 2 * margin)
    side = min(max(1, round(longer)), *image.size)
    x = min(max(0, round((left + right - side) / 2)), image.width - side)
    y = min(max(0, round((top + bottom - side) / 2)), image.height - side)
    square = image.convert("RGB").crop((x, y, x + side, y + side))
    return torch.from_numpy(to_square(square, size).copy())
