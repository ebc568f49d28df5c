"""One picture from a file that a stranger may have made: decoded whole, or refused with a reason.

The format is told by the content, never by the file's name, and only formats that hold pixels are tried
(no PostScript, no icons, no video). Of an animated picture the first frame counts. Exif orientation is
applied, transparency is laid on white, and grey, palette, CMYK and 16-bit pictures become 8-bit RGB.
"""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
# What counts as a picture when a folder is listed; what the file holds is decided when it is opened.
SUFFIXES = frozenset((".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"))
# How files of these formats begin, so that a damaged one can be told from something else.
SIGNATURES = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"RIFF")
MAX_BYTES = 64 * 2**20
MAX_PIXELS = 50_000_000


class DataError(ValueError):
    """A file of a data set, or a picture, is not what it should be; the message names it and the remedy.

    Names come from strangers: what a terminal would obey instead of show stands in the message as \\x1b does.
    """

    def __init__(self, message: str):
        super().__init__("".join(one if one.isprintable() else repr(one)[1:-1] for one in message))


def read_limited(path: str | Path, max_bytes: int = MAX_BYTES) -> bytes:
    """The bytes of a regular file of at most `max_bytes`.

    Raises:
        DataError: missing, not a regular file, unreadable or larger.
    """
    path = Path(path)
    try:
        # Opening a pipe or a device could wait for ever.
        if not path.is_file():
            found = "is not a regular file" if path.exists() else "does not exist"
            raise DataError(f"{path} {found}; expected a picture")
        with open(path, "rb") as file:
            data = file.read(max_bytes + 1)
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if len(data) > max_bytes:
        raise DataError(f"{path} is larger than the {max_bytes:,} bytes accepted; shrink the picture")
    return data


def open_header(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The picture in `data`, its pixels not decoded yet.

    Raises:
        DataError: no picture of an accepted format, or more than `max_pixels` pixels.
    """
    if not data:
        raise DataError(f"{name} is empty (0 bytes); expected a picture")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.UnidentifiedImageError:
        if data.startswith(SIGNATURES):
            raise DataError(f"{name} is truncated or damaged: its header cannot be read") from None
        raise DataError(f"{name} is no picture in a format known here ({', '.join(FORMATS)})") from None
    except Image.DecompressionBombError:
        raise DataError(f"{name} has more than the {max_pixels:,} pixels accepted; shrink it") from None
    except Exception as error:  # Pillow's readers fail on damaged headers with errors of every kind
        raise DataError(f"{name} is damaged: {error or type(error).__name__}") from error
    width, height = image.size
    if width * height > max_pixels:
        raise DataError(f"{name} is {width}×{height}, more than the {max_pixels:,} pixels accepted; shrink it")
    return image


def decode(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The whole picture in `data` as RGB, upright.

    Args:
        data: a file's content.
        name: what messages call it.
        max_pixels: largest width × height, looked at before anything is decoded.

    Raises:
        DataError: not a picture, truncated or damaged, too large, or in a colour mode without an RGB form.
    """
    image = open_header(data, name, max_pixels)
    try:
        image.load()
    except Exception as error:
        raise DataError(f"{name} is truncated or damaged: {error or type(error).__name__}") from error
    return to_rgb(image, name)


def to_rgb(image: Image.Image, name: str) -> Image.Image:
    """A decoded picture as 8-bit RGB, upright.

    Raises:
        DataError: a colour mode that has no RGB form.
    """
    try:
        image = ImageOps.exif_transpose(image)
    except Exception:  # damaged Exif data says nothing about the pixels; they stay as they lie
        image = image.copy()
    try:
        if image.mode in ("RGB", "L"):
            # A colour named as transparent does occur in photographs saved as PNG; its pixels are kept.
            return image.convert("RGB")
        if image.mode == "I" or image.mode.startswith("I;16"):
            # Pillow's own conversion clips at 255 instead of scaling.
            values = np.asarray(image)
            low, high = int(values.min()), int(values.max())
            if low < 0 or high > 65535:
                raise DataError(f"{name} has values from {low} to {high}; expected 8- or 16-bit pixels")
            return Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")
        if image.mode == "F":
            raise DataError(f"{name} has floating-point pixels; save it with 8 or 16 bits")
        if image.has_transparency_data:
            image = image.convert("RGBA")
            return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
        return image.convert("RGB")
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{name} has colour mode {image.mode}, which has no RGB form: {error}") from error
