"""What strangers' folders hold: pictures and label files that are broken, odd, or merely unusual."""

import io
import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from helpers.small_sets import (
    write_affectnet,
    write_affectnet_lists,
    write_ferplus,
    write_folder,
    write_kaggle,
    write_rafdb,
    write_sfew,
)

# Layouts whose pictures are files: data set → how a small one is made.
FOLDERS: dict[str, tuple[str, Callable]] = {
    "ferplus": ("ferplus", write_ferplus),
    "rafdb": ("rafdb", write_rafdb),
    "affectnet": ("affectnet", write_affectnet),
    "affectnet lists": ("affectnet", write_affectnet_lists),
    "sfew": ("sfew", write_sfew),
    "folder": ("folder", lambda root: write_folder(root, ("anger", "fear"))),
}
# Layouts with a label file, and where it lies.
LABELS: dict[str, tuple[str, Callable, str]] = {
    "ferplus": ("ferplus", write_ferplus, "FER2013Train/label.csv"),
    "kaggle votes": ("ferplus", write_kaggle, "fer2013new.csv"),
    "kaggle pixels": ("ferplus", write_kaggle, "fer2013.csv"),
    "rafdb": ("rafdb", write_rafdb, "EmoLabel/list_patition_label.txt"),
    "affectnet list": ("affectnet", write_affectnet_lists, "training.csv"),
    "affectnet list, no header": ("affectnet", write_affectnet_lists, "validation.csv"),
}


def gradient(size: tuple[int, int] = (12, 12)) -> Image.Image:
    """Dark on top, bright below, so that turning it shows."""
    column = np.linspace(0, 250, size[1], dtype=np.uint8)[:, None]
    return Image.fromarray(np.repeat(column, size[0], axis=1)).convert("RGB")


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_of(width: int, height: int) -> bytes:
    """A PNG that claims to be so large and holds next to nothing."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def turned(orientation: int = 6) -> bytes:
    """A gradient that lies on its side and says so in its Exif data."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(gradient().transpose(Image.Transpose.ROTATE_90), "JPEG", quality=95, exif=exif)


def animated() -> bytes:
    others = [Image.new("RGB", (12, 12), "white")] * 2
    return encoded(gradient(), "GIF", save_all=True, append_images=others)


@dataclass(frozen=True)
class Picture:
    """What stands in a picture file's place.

    Attributes:
        make: path → None, puts it there.
        error: what the message must say; "" where it is a picture, of `gradient`.
    """

    make: Callable[[Path], object]
    error: str = ""


def _bytes(data: bytes, error: str = "") -> Picture:
    return Picture(lambda path: path.write_bytes(data), error)


def _replaced(make: Callable[[Path], object], error: str) -> Picture:
    def put(path: Path) -> None:
        path.unlink()
        make(path)

    return Picture(put, error)


def _loop(path: Path) -> None:
    other = path.with_name("loop" + path.suffix)
    other.symlink_to(path.name)
    path.symlink_to(other.name)


def _link(path: Path) -> None:
    real = path.with_suffix(".real")
    real.write_bytes(_png)
    path.symlink_to(real.name)


_sixteen = Image.fromarray(np.asarray(gradient().convert("L")).astype(np.uint16) * 257)
_png = encoded(gradient(), "PNG")
_jpeg = encoded(gradient((64, 64)), "JPEG", quality=95)

PICTURES: dict[str, Picture] = {
    # readable, each of them `gradient`
    "PNG whatever the name says": _bytes(_png),
    "BMP": _bytes(encoded(gradient(), "BMP")),
    "WebP": _bytes(encoded(gradient(), "WEBP", lossless=True)),
    "TIFF": _bytes(encoded(gradient(), "TIFF")),
    "CMYK": _bytes(encoded(gradient().convert("CMYK"), "JPEG", quality=95)),
    "16 bits": _bytes(encoded(_sixteen, "PNG")),
    "palette": _bytes(encoded(gradient().quantize(64), "PNG")),
    "grey with transparency": _bytes(encoded(gradient().convert("LA"), "PNG")),
    "animated": _bytes(animated()),
    "turned by Exif": _bytes(turned()),
    "a link to a picture elsewhere": _replaced(_link, ""),
    "damaged Exif": _bytes(encoded(gradient(), "JPEG", quality=95, exif=b"Exif\0\0MM\0\x2a\xff\xff\xff\xff")),
    # not readable
    "no byte": _bytes(b"", "is empty"),
    "first half": _bytes(_jpeg[: len(_jpeg) // 2], "truncated or damaged"),
    "first 40 bytes": _bytes(_png[:40], "truncated or damaged"),
    "text": _bytes(b"not a picture\n", "not a picture in a known format"),
    "a program": _bytes(b"\x7fELF\x02\x01\x01" + bytes(200), "not a picture in a known format"),
    "a page": _bytes(b"<html><script>alert(1)</script></html>", "not a picture in a known format"),
    "a drawing with a script": _bytes(
        b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
        "not a picture in a known format",
    ),
    "PostScript": _bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture in a known"),
    "a pickle": _bytes(b"\x80\x04\x95\x0b\0\0\0\0\0\0\0\x8c\x02os\x94.", "not a picture in a known format"),
    "60,000 × 60,000": _bytes(png_of(60_000, 60_000), "more than the"),
    "one row of 60 million": _bytes(png_of(60_000_000, 1), "more than the"),
    "numbers without a range": _bytes(encoded(Image.new("F", (12, 12)), "TIFF"), "floating-point"),
    "a link to itself": _replaced(lambda path: path.symlink_to(path.name), ""),
    "two links in a circle": _replaced(_loop, ""),
    "a link to nothing": _replaced(lambda path: path.symlink_to("nowhere.png"), ""),
    "a folder": _replaced(lambda path: path.mkdir(), ""),
    "a pipe": _replaced(os.mkfifo, "not a regular file") if hasattr(os, "mkfifo") else _bytes(b"", "is empty"),
}
READABLE = tuple(PICTURES)[: tuple(PICTURES).index("no byte")]
BROKEN = tuple(PICTURES)[len(READABLE) :]


@dataclass(frozen=True)
class Text:
    """What is done to a label file's bytes, and whether it can be read as before afterwards."""

    change: Callable[[bytes], bytes]
    readable: bool


def _last_line(data: bytes, change: Callable[[bytes], bytes]) -> bytes:
    *lines, last = data.rstrip(b"\n").split(b"\n")
    return b"\n".join([*lines, change(last)]) + b"\n"


TEXTS: dict[str, Text] = {
    "byte-order mark": Text(lambda data: b"\xef\xbb\xbf" + data, True),
    "Windows line ends": Text(lambda data: data.replace(b"\n", b"\r\n"), True),
    "blank lines": Text(lambda data: data.replace(b"\n", b"\n\n"), True),
    "no line end at the end": Text(lambda data: data.rstrip(b"\n"), True),
    "spaces at the line ends": Text(lambda data: data.replace(b"\n", b"  \n"), True),
    "UTF-16": Text(lambda data: data.decode().encode("utf-16"), False),
    "Latin-1": Text(lambda data: _last_line(data, lambda line: "visage-é ".encode("latin-1") + line), False),
    "a zero byte": Text(lambda data: _last_line(data, lambda line: line[:3] + b"\0" + line[3:]), False),
    "a missing field": Text(
        lambda data: _last_line(data, lambda line: line[: max(line.rfind(b","), 3)]), False
    ),
    "a field too many": Text(lambda data: _last_line(data, lambda line: line + b" ,7,7,7"), False),
    "the last line half": Text(lambda data: _last_line(data, lambda line: line[: len(line) // 3]), False),
    "a name as label": Text(lambda data: _last_line(data, lambda line: _label(line, b"happy")), False),
    "a label below zero": Text(lambda data: _last_line(data, lambda line: _label(line, b"-1")), False),
    "a label out of range": Text(lambda data: _last_line(data, lambda line: _label(line, b"99999")), False),
    "half a label": Text(lambda data: _last_line(data, lambda line: _label(line, b"0.5")), False),
    "infinite": Text(lambda data: _last_line(data, lambda line: _label(line, b"inf")), False),
    "an open quotation mark": Text(lambda data: _last_line(data, lambda line: b'"' + line), False),
    "a list within": Text(lambda data: _last_line(data, lambda line: _label(line, b"[1, 2]")), False),
    "no bytes": Text(lambda data: b"", False),
    "spaces alone": Text(lambda data: b" \n \n", False),
    "a picture": Text(lambda data: _png, False),
}


def _label(line: bytes, value: bytes) -> bytes:
    """The line with its last number replaced; in AffectNet's lists the label is the third from the end."""
    if b";" in line:
        cells = line.split(b",")
        cells[-3] = value
        return b",".join(cells)
    if b"," in line:
        head, _, tail = line.rpartition(b",")
        # Kaggle's pixels end in the name of a split.
        return line.replace(b" 255", b" " + value) if tail.isalpha() else head + b"," + value
    return line.rpartition(b" ")[0] + b" " + value


# Names in a list that lead elsewhere.
ESCAPES = (
    "../outside.png",
    "a/../../outside.png",
    "/etc/passwd",
    "C:\\windows\\win.ini",
    "\\\\host\\share\\x.png",
)
