"""Decode one picture from an untrusted file completely, or refuse it with a reason.

The content decides the format, never the file's name, and only formats that hold pixels are tried (no
PostScript, no icons, no video). An animation gives its first frame. Exif orientation is applied, transparency
becomes white, and grey, palette, CMYK and 16-bit pictures become 8-bit RGB.
"""

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
# Suffixes of pictures when a folder is listed; the content is examined when the file is opened.
SUFFIXES = frozenset((".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"))
# First bytes of these formats; they distinguish a damaged picture from a file of another kind.
SIGNATURES = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"RIFF")
MAX_BYTES = 64 * 2**20
MAX_PIXELS = 50_000_000
# A JPEG can be decoded at half its size, so photographs from large sensors are accepted up to here.
HALVED_PIXELS = 120_000_000
# How files of HEIC photographs begin, after the length of their first part. They need a package of their own.
HEIC = tuple(b"ftyp" + brand for brand in (b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1"))


class DataError(ValueError):
    """A data set's file or a picture is wrong; the message names it and the remedy.

    File names come from strangers. Characters that a terminal would obey are escaped in the message.
    """

    def __init__(self, message: str):
        super().__init__("".join(c if c.isprintable() else repr(c)[1:-1] for c in message))


def read_limited(path: str | Path, max_bytes: int = MAX_BYTES) -> bytes:
    """The bytes of a regular file of at most `max_bytes`.

    Raises:
        DataError: missing, not a regular file, unreadable or larger.
    """
    path = Path(path)
    try:
        # Opening a pipe or a device could wait forever.
        if not path.is_file():
            problem = "is not a regular file" if path.exists() else "does not exist"
            raise DataError(f"{path} {problem}; expected a picture")
        with open(path, "rb") as file:
            data = file.read(max_bytes + 1)
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if len(data) > max_bytes:
        raise DataError(f"{path} is larger than the {max_bytes:,} bytes accepted; shrink the picture")
    return data


def open_header(data: bytes, name: str, max_pixels: int = MAX_PIXELS, *, halve: bool = False) -> Image.Image:
    """The picture in `data`, its pixels not yet decoded.

    Args:
        data: a file's content.
        name: the picture's name in messages.
        max_pixels: largest width × height.
        halve: accept a larger JPEG too, up to `HALVED_PIXELS`; it will be decoded at half its width and height.

    Raises:
        DataError: `data` is not a picture of an accepted format, or has more than `max_pixels` pixels.
    """
    if not data:
        raise DataError(f"{name} is empty (0 bytes); expected a picture")
    try:
        formats = (*FORMATS, *_heif(data, name))
        with warnings.catch_warnings():
            # Pillow warns about pictures of 90 million pixels and more; they are refused or halved below.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=formats)
    except Image.UnidentifiedImageError:
        if data.startswith(SIGNATURES):
            raise DataError(f"{name} is truncated or damaged: its header cannot be read") from None
        raise DataError(f"{name} is not a picture in a known format ({', '.join(FORMATS)})") from None
    except Image.DecompressionBombError:
        raise DataError(f"{name} has more than the {max_pixels:,} pixels accepted; shrink it") from None
    except DataError:
        raise
    except Exception as error:  # Pillow's readers fail on damaged headers with errors of every kind
        raise DataError(f"{name} is damaged: {error or type(error).__name__}") from error
    width, height = image.size
    # A progressive JPEG needs all its coefficients in memory, whatever the size of the result.
    if halve and max_pixels < width * height <= HALVED_PIXELS and "progressive" not in image.info:
        image.draft(None, (width // 2, height // 2))  # does nothing for other formats
        width, height = image.size
    if width * height > max_pixels:
        raise DataError(f"{name} is {width}×{height}, more than the {max_pixels:,} pixels accepted; shrink it")
    return image


def _heif(data: bytes, name: str) -> tuple[str, ...]:
    """Pillow's name of the HEIC format if `data` begins like one, once pillow-heif has been registered."""
    if not data[4:].startswith(HEIC):
        return ()
    try:
        import pillow_heif
    except ImportError:
        raise DataError(
            f"{name} is a HEIC photograph, which needs another package: pip install pillow-heif, or save the "
            "photograph as JPEG"
        ) from None
    pillow_heif.register_heif_opener()
    return ("HEIF",)


def decode(data: bytes, name: str, max_pixels: int = MAX_PIXELS, *, halve: bool = False) -> Image.Image:
    """The whole picture in `data` as RGB, upright.

    Args:
        data: a file's content.
        name: the picture's name in messages.
        max_pixels: largest width × height, checked before any pixel is decoded.
        halve: see `open_header`.

    Raises:
        DataError: not a picture, truncated, damaged, too large, or in a colour mode without an RGB form.
    """
    image = open_header(data, name, max_pixels, halve=halve)
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
    except Exception:  # damaged Exif data does not affect the pixels; they stay unrotated
        image = image.copy()
    try:
        if image.mode in ("RGB", "L"):
            # Photographs saved as PNG may declare one of their colours transparent; its pixels are kept.
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
