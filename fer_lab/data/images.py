"""Decode one picture from an untrusted file completely, or refuse it with a reason.

The content decides the format, never the file's name, and only formats that hold pixels are tried (no
PostScript, no icons, no video). An animation gives its first frame. Exif orientation is applied, transparency
becomes white, and grey, palette, CMYK and 16-bit pictures become 8-bit RGB.
"""

import contextlib
import io
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFile, ImageOps, JpegImagePlugin

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
# Suffixes of pictures when a folder is listed; the content is examined when the file is opened.
SUFFIXES = frozenset((".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"))
# First bytes of these formats; they distinguish a damaged picture from a file of another kind.
JPEG = b"\xff\xd8\xff"
SIGNATURES = (b"\x89PNG", JPEG, b"GIF8", b"BM", b"II*\0", b"MM\0*", b"RIFF")
MAX_BYTES = 64 * 2**20
MAX_PIXELS = 50_000_000
# A JPEG can be decoded at a fraction of its size, so photographs from large sensors are accepted up to here.
JPEG_PIXELS = 200_000_000
# Memory for a progressive JPEG's coefficients.
MAX_COEFFICIENTS = 400 * 2**20
# Seconds of computing for one picture, how often its bytes may be read, and bytes of Exif data that are read.
MAX_SECONDS, MAX_READS, MAX_EXIF = 10.0, 4, 2**16
# How files of HEIC photographs begin, after the length of their first part. They need a package of their own.
HEIC = tuple(b"ftyp" + brand for brand in (b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1"))
MATROSKA = b"\x1aE\xdf\xa3"  # how films in .mkv and .webm begin
# Numbers of TIFF's tags.
BITS, COMPRESSION, PHOTOMETRIC, ORIENTATION, SAMPLE_FORMAT = 258, 259, 262, 274, 339
STRIP_BYTES, TILE_WIDTH, TILE_HEIGHT, TILE_BYTES = 279, 322, 323, 325


class DataError(ValueError):
    """A data set's file or a picture is wrong; the message names it and the remedy.

    File names come from strangers. Characters that a terminal would obey are escaped in the message.
    """

    def __init__(self, message: str):
        super().__init__("".join(c if c.isprintable() else repr(c)[1:-1] for c in message))


def read_limited(path: str | Path, max_bytes: int = MAX_BYTES) -> bytes:
    """The bytes of a regular file of at most `max_bytes`; DataError if it is another one, or unreadable."""
    path = Path(path)
    try:
        # Opening a pipe or a device could wait forever.
        if not path.is_file():
            problem = "is not a regular file" if path.exists() else "does not exist"
            raise DataError(f"{path} {problem}; expected a picture")
        with open(path, "rb") as file:
            data = file.read(max_bytes + 1)
    except DataError:
        raise
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if len(data) > max_bytes:
        raise DataError(f"{path} is larger than the {max_bytes:,} bytes accepted; shrink the picture")
    return data


class _Metered(io.BytesIO):
    """A picture's bytes, and an end to the work that a decoder does as it reads them.

    Decoders read in small pieces. That is where one can be stopped that a hostile file keeps busy: thousands of
    scans of a JPEG, millions of empty parts of a PNG, a TIFF whose tags all claim the whole file.
    """

    def __init__(self, data: bytes, name: str):
        super().__init__(data)
        self.name = name
        self.end = time.thread_time() + MAX_SECONDS
        self.left = MAX_READS * len(data) + 2**20

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.left -= len(data)
        if self.left < 0 or time.thread_time() > self.end:
            raise DataError(f"{self.name} takes too much work to decode; open it in an editor and save it anew")
        return data


def open_header(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The picture in `data`, its pixels not yet decoded.

    A JPEG of more than `max_pixels`, up to `JPEG_PIXELS`, will be decoded at a half, a quarter or an eighth of
    its width and height. Raises DataError, with the picture's `name`, if `data` is not a picture of an accepted
    format, is too large, or would be too much work.
    """
    if not data:
        raise DataError(f"{name} is empty (0 bytes); expected a picture")
    file = _Metered(data, name)
    try:
        if data.startswith(JPEG):
            # Image.open refuses 180 million pixels; telephones make JPEGs of 200.
            image: ImageFile.ImageFile = JpegImagePlugin.jpeg_factory(file)
        else:
            # Pillow warns about pictures of 90 million pixels and more; they are refused below.
            with warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning):
                image = Image.open(file, formats=(*FORMATS, *_heif(data, name)))
    except Image.UnidentifiedImageError:
        if data.startswith(SIGNATURES):
            raise DataError(f"{name} is truncated or damaged: its header cannot be read") from None
        if data[4:8] == b"ftyp" or data.startswith(MATROSKA):
            frames = "take pictures out of it first: ffmpeg -i FILM -vf fps=2 %04d.png"
            raise DataError(f"{name} is a film, or of a kind that is not known; {frames}") from None
        raise DataError(f"{name} is not a picture in a known format ({', '.join(FORMATS)})") from None
    except Image.DecompressionBombError:
        raise DataError(f"{name} has more than the {max_pixels:,} pixels accepted; shrink it") from None
    except DataError:
        raise
    except Exception as error:  # Pillow's readers fail on damaged headers with errors of every kind
        raise DataError(f"{name} is truncated or damaged: {error or type(error).__name__}") from error
    # A decoder can be stopped between two pieces, so they are small.
    image.decodermaxblock = 2**12
    if image.format == "TIFF":
        _check_tiff(image, len(data), max_pixels, name)
    if data.startswith(JPEG):
        _shrink_jpeg(image, max_pixels, name)
    width, height = image.size
    if width * height > max_pixels:
        raise DataError(f"{name} is {width}×{height}, more than the {max_pixels:,} pixels accepted; shrink it")
    return image


def _shrink_jpeg(image: Any, max_pixels: int, name: str) -> None:
    """Let a JPEG of more than `max_pixels` be decoded at a fraction of its size."""
    width, height = image.size
    if width * height > JPEG_PIXELS:
        return
    # A progressive JPEG needs all its coefficients in memory, two bytes each, whatever the size of the result.
    shares = [across * down for _, across, down, _ in image.layer]
    if "progressive" in image.info and 2 * width * height * sum(shares) > MAX_COEFFICIENTS * max(shares):
        raise DataError(
            f"{name} is a progressive JPEG of {width}×{height}, which would fill the memory; shrink it, or "
            "save it as an ordinary JPEG"
        )
    scale = next((scale for scale in (1, 2, 4) if width * height <= scale**2 * max_pixels), 8)
    if scale > 1:
        image.draft(None, (width // scale, height // scale))


def _check_tiff(image: Any, size: int, max_pixels: int, name: str) -> None:
    """Refuse a TIFF whose parts are larger than the picture, or than the file: libtiff cannot be stopped."""
    tags = image.tag_v2
    parts = tags.get(STRIP_BYTES) or tags.get(TILE_BYTES) or ()
    tile = tags.get(TILE_WIDTH, 0) * tags.get(TILE_HEIGHT, 0)
    if sum(parts) > size or tile > max_pixels or tags.get(COMPRESSION) in (6, 7):
        raise DataError(f"{name} is a TIFF with JPEG inside, or with parts too large for it; save it as PNG")
    if tags.get(SAMPLE_FORMAT) == (2,) and tags.get(BITS) == (8,):
        raise DataError(f"{name} has signed pixels; save it with unsigned ones of 8 or 16 bits")


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


def decode(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The whole picture in `data` as RGB, upright; DataError as of `open_header`, or for damaged pixels."""
    image = open_header(data, name, max_pixels)
    try:
        image.load()
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{name} is truncated or damaged: {error or type(error).__name__}") from error
    return to_rgb(image, name)


def to_rgb(image: Image.Image, name: str) -> Image.Image:
    """A decoded picture as 8-bit RGB, upright; DataError for a colour mode that has no RGB form."""
    if image.mode[0] in "IF":
        image = _eight_bits(image, name)
    # Each of a hostile picture's thousands of Exif tags may claim all of its megabytes.
    if len(image.info.get("exif", b"")) <= MAX_EXIF:
        with contextlib.suppress(Exception):  # damaged Exif data leaves the pixels unrotated
            if image.getexif().get(ORIENTATION, 1) != 1:  # a second copy of a large photograph costs 200 MB
                image = ImageOps.exif_transpose(image)
    try:
        # Photographs saved as PNG may declare one of their colours transparent; its pixels are kept.
        if image.mode not in ("RGB", "L") and image.has_transparency_data:
            image = image.convert("RGBA")
            return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
        return image.convert("RGB")
    except Exception as error:
        raise DataError(f"{name} has colour mode {image.mode}, which has no RGB form: {error}") from error


def _eight_bits(image: Image.Image, name: str) -> Image.Image:
    """Grey pixels of more than 8 bits, scaled to 8. Pillow's own conversion clips at 255 instead.

    PNG, PPM and unsigned TIFF of 12 or 16 bits say what white is. In integers of 32 bits, and in signed ones,
    nothing says whether 255 or 65535 is white; only values of 0 to 255 are taken, as they are.
    """
    if image.mode == "F":
        raise DataError(f"{name} has floating-point pixels; save it with 8 or 16 bits")
    tags = getattr(image, "tag_v2", {})
    known = image.mode != "I" or image.format in ("PNG", "PPM")
    bits = tags.get(BITS, (16,))[0] if known else 8
    values, white = np.asarray(image), 2**bits - 1
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > white:
        raise DataError(
            f"{name} has values from {low} to {high}; expected 0 to {white}, or a picture of 8 or 16 bits"
        )
    if tags.get(PHOTOMETRIC) == 0:  # zero is white
        values = white - values
    grey = Image.fromarray((values >> (bits - 8)).astype(np.uint8))
    grey.getexif().update({ORIENTATION: image.getexif().get(ORIENTATION, 1)})
    return grey
