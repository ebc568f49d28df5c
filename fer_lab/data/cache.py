"""Decoding pictures nobody vouched for, and keeping a whole data set decoded in one file.

The cache is one uint8 array in NumPy's own format, mapped into memory, and a small JSON file that says what
it was made from. The array's name carries a stamp of the sources, and it only gets that name when it is
whole and on disk: what a killed build leaves behind is never read, and is swept away by the next one.
"""

import contextlib
import errno
import hashlib
import io
import json
import os
import shutil
import stat
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from tqdm.auto import tqdm

# Raise it when the same files would give other pixels: caches of another version are built anew.
VERSION = 1
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"))
MAX_BYTES = 64 * 2**20
MAX_PIXELS = 50_000_000
DEFAULT_SIZE = 112
# Faces decoded before they are written: 512 at 224 px are 77 MB.
BLOCK = 512
ORIENTATION = 0x0112


class DataError(ValueError):
    """Something is wrong with a file: the message names it, what was expected and what to do."""


def some(names: Sequence[str], limit: int = 5) -> str:
    """The first names and how many more there are, for a message."""
    more = f" and {len(names) - limit:,} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


# ---------------------------------------------------------------------------------------------------------
# One picture


def read_file(path: str | Path, max_bytes: int = MAX_BYTES) -> bytes:
    """The content of a regular file of at most `max_bytes`.

    Raises:
        DataError: missing, no regular file, empty, too large or not readable.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise DataError(f"{path} is not a file; expected a picture")
        with open(path, "rb") as file:
            data = file.read(max_bytes + 1)
    except FileNotFoundError:
        raise DataError(f"{path} is missing") from None
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not data:
        raise DataError(f"{path} is empty; expected a picture")
    if len(data) > max_bytes:
        raise DataError(f"{path} is larger than {max_bytes:,} bytes, the most that is accepted")
    return data


def decode_image(data: bytes, name: str = "picture", max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode a picture of one of `FORMATS`, by its content, into an upright 8-bit RGB image.

    Of an animation the first frame is taken; transparent parts come to lie on white; 16-bit grey is scaled
    to 8 bits; EXIF's orientation is applied, and ignored where EXIF is broken.

    Args:
        name: what messages call the picture.
        max_pixels: refused above, before anything of that size is allocated.

    Raises:
        DataError: no such picture, truncated, too many pixels, or of a kind that has no 8-bit colour.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        if image.width * image.height > max_pixels:
            raise DataError(
                f"{name} has {image.width}×{image.height} pixels; at most {max_pixels:,} are accepted, scale it down"
            )
        image.load()
        return _upright(_eight_bit(image))
    except DataError:
        raise
    except Image.UnidentifiedImageError:
        kinds = ", ".join(FORMATS)
        raise DataError(f"{name} is no picture that can be read; expected one of {kinds}") from None
    except Image.DecompressionBombError:
        raise DataError(f"{name} has too many pixels; at most {max_pixels:,} are accepted") from None
    # Decoders raise whatever their parsing stumbles over: OSError, SyntaxError, struct.error, zlib.error, …
    except Exception as error:
        raise DataError(f"{name} is damaged ({error}); fetch it again or leave it out") from error


def _upright(image: Image.Image) -> Image.Image:
    try:
        if image.getexif().get(ORIENTATION, 1) == 1:
            return image
        return ImageOps.exif_transpose(image)
    except Exception:
        return image


def _eight_bit(image: Image.Image) -> Image.Image:
    """RGB of any mode, keeping the EXIF data."""
    info = image.getexif() if image.mode != "RGB" else None
    if image.mode == "F":
        raise DataError("floating-point pictures have no fixed range; save it with 8 bits a channel")
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise DataError("grey values beyond 16 bits; save it with 8 bits a channel")
        grey = (values.astype(np.uint32) + 128) // 257
        converted = Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    elif image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        layers = image.convert("RGBA")
        converted = Image.new("RGB", image.size, "white")
        converted.paste(layers, mask=layers.getchannel("A"))
    else:
        converted = image.convert("RGB")
    if info:
        converted.getexif().update(info)
    return converted


# ---------------------------------------------------------------------------------------------------------
# Many pictures


@dataclass(frozen=True, eq=False)
class Sources:
    """Where the pictures of a data set lie: a file each, or stretches of text in one table.

    Attributes:
        root: folder that the names are relative to.
        files: N names, with `/`.
        table: a file below root whose text holds all the pixels; "" where each picture is a file.
        spans: int64 [N,2], offset and length of each picture's grey values in `table`.
    """

    root: Path
    files: Sequence[str]
    table: str = ""
    spans: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.files)

    def read(self, index: int) -> bytes:
        """The stored bytes of a picture; raises as `read_file`."""
        if not self.table:
            return read_file(os.path.join(self.root, self.files[index]))
        offset, length = self.spans[index].tolist()
        with open(self.root / self.table, "rb") as file:
            file.seek(offset)
            return file.read(length)

    def decode(self, index: int, data: bytes | None = None) -> Image.Image:
        """A picture in RGB; raises as `read_file` and `decode_image`."""
        data = self.read(index) if data is None else data
        if self.table:
            return grey_image(data, f"{self.files[index]} in {self.table}")
        return decode_image(data, self.files[index])

    def stats(self) -> np.ndarray:
        """Size in bytes and time of change in ns of each file, int64 [N,2]; −1 where there is no file."""
        found = np.full((len(self), 2), -1, np.int64)
        if self.table:
            about = os.stat(self.root / self.table)
            found[:, 0], found[:, 1] = self.spans[:, 1], about.st_mtime_ns
            return found
        root = os.fspath(self.root)
        for i, name in enumerate(self.files):
            with contextlib.suppress(OSError, ValueError):
                about = os.stat(os.path.join(root, name))
                if stat.S_ISREG(about.st_mode):
                    found[i] = about.st_size, about.st_mtime_ns
        return found

    def native_size(self) -> int:
        """The side of the pictures where all are square and equal, else `DEFAULT_SIZE`."""
        sides = set()
        for i in range(len(self)):
            # a damaged picture has no size; decoding names it
            with contextlib.suppress(Exception):
                if self.table:
                    sides.add((round(len(self.read(i).split()) ** 0.5),) * 2)
                else:
                    with Image.open(os.path.join(self.root, self.files[i]), formats=FORMATS) as image:
                        sides.add(image.size)
            if len(sides) > 1:
                return DEFAULT_SIZE
        width, height = sides.pop() if sides else (DEFAULT_SIZE, DEFAULT_SIZE)
        return width if width == height and width * height <= MAX_PIXELS else DEFAULT_SIZE


def grey_image(text: bytes, name: str) -> Image.Image:
    """A square picture from its grey values (0…255) written as text, rows first.

    Raises:
        DataError: not that many whole numbers, or outside 0…255.
    """
    words = text.split()
    side = round(len(words) ** 0.5)
    if not words or side * side != len(words) or not all(word.isdigit() for word in words):
        raise DataError(f"{name}: expected the whole numbers of a square picture, got {len(words):,} values")
    values = np.array([int(word[:6]) for word in words])
    if values.max() > 255:
        raise DataError(f"{name}: expected grey values 0 to 255, got {values.max()}")
    return Image.fromarray(values.astype(np.uint8).reshape(side, side)).convert("RGB")


def to_pixels(image: Image.Image, size: int) -> np.ndarray:
    """RGB image → uint8 [3,size,size], resized with antialiasing; other shapes are stretched."""
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(image).transpose(2, 0, 1)


def in_blocks[T](task: Callable[[int], T], count: int, what: str) -> Iterator[tuple[int, list[T]]]:
    """Run `task(index)` in a few threads, a block at a time, with a progress bar → (first index, results)."""
    threads = min(4, os.cpu_count() or 1)
    with ThreadPoolExecutor(threads) as pool, tqdm(total=count, desc=what, unit="face", disable=None) as bar:
        for start in range(0, count, BLOCK):
            indices = range(start, min(start + BLOCK, count))
            yield start, list(pool.map(task, indices))
            bar.update(len(indices))


def _decoded(sources: Sources, size: int, skip_bad: bool) -> Iterator[tuple[np.ndarray, dict[int, str]]]:
    """(uint8 [k,3,S,S], what is wrong with the others by index), block after block.

    Raises:
        DataError: an unreadable picture, unless they are to be skipped.
    """

    def pixels(index: int) -> np.ndarray | DataError:
        try:
            return to_pixels(sources.decode(index), size)
        except DataError as error:
            return error

    for start, results in in_blocks(pixels, len(sources), "decoding"):
        bad = {start + i: str(result) for i, result in enumerate(results) if isinstance(result, DataError)}
        refuse(bad, skip_bad)
        good = [result for result in results if isinstance(result, np.ndarray)]
        yield np.stack(good) if good else np.empty((0, 3, size, size), np.uint8), bad


def refuse(bad: dict[int, str], skip_bad: bool) -> None:
    """Raise DataError for unreadable pictures, unless they are to be skipped."""
    if bad and not skip_bad:
        raise DataError(
            f"unreadable: {some(list(bad.values()))}; mend or remove them, or leave them out with "
            "skip_bad=True (--skip-bad)"
        )


def decode_all(sources: Sources, size: int | None = None, skip_bad: bool = False):
    """Decode into memory → (uint8 tensor [M,3,S,S], {index: what is wrong} of those left out).

    Raises:
        DataError: an unreadable picture, unless `skip_bad`.
    """
    size = size or sources.native_size()
    images = torch.empty(len(sources), 3, size, size, dtype=torch.uint8)
    filled, bad = 0, {}
    for block, wrong in _decoded(sources, size, skip_bad):
        images[filled : filled + len(block)] = torch.from_numpy(block)
        filled += len(block)
        bad |= wrong
    return images[:filled], bad


# ---------------------------------------------------------------------------------------------------------
# The cache


def cache_folder() -> Path:
    """The folder in the variable FER_LAB_CACHE, else `~/.cache/fer_lab`."""
    named = os.environ.get("FER_LAB_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "fer_lab"


def build_cache(sources: Sources, key: str, size: int | None = None, skip_bad: bool = False):
    """Map the decoded pictures into memory, decoding them first if that is not done or out of date.

    Out of date means: another name, size or time of change of any file, another `size`, another version of
    this package's format, or a cache file that is not whole.

    Args:
        key: names the cache file; one cache is kept a key and the older one is removed.
        size: side in pixels; None as `Sources.native_size`.
        skip_bad: leave unreadable pictures out.

    Returns:
        uint8 tensor [M,3,S,S] (copy on write: the file never changes), {index: what is wrong} of the
        pictures left out.

    Raises:
        DataError: an unreadable picture, unless `skip_bad`.
        OSError: no space, with the bytes needed and free; nothing is left behind.
    """
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"no cache in {folder}: {error.strerror}; set FER_LAB_CACHE to a folder that can be written"
        ) from error
    _sweep(folder, key)
    stats = sources.stats()
    missing = {i: f"{sources.files[i]} is missing" for i in np.flatnonzero(stats[:, 0] < 0).tolist()}
    refuse(missing, skip_bad)
    stamp = _stamp(sources, stats, size)
    images, record = folder / f"{key}-{stamp}.npy", folder / f"{key}.json"
    bad = _read_record(record, stamp)
    if bad is None or (mapped := _map(images, len(sources) - len(bad))) is None:
        bad = _write_images(sources, images, size or sources.native_size(), skip_bad)
        _write_record(record, stamp, bad)
        mapped = _map(images, len(sources) - len(bad))
        for old in folder.glob(f"{key}-*.npy"):
            # Windows keeps a file that somebody has mapped
            with contextlib.suppress(OSError):
                if old != images:
                    old.unlink()
    refuse(bad, skip_bad)
    return mapped, bad


def _stamp(sources: Sources, stats: np.ndarray, size: int | None) -> str:
    digest = hashlib.sha256(repr((VERSION, size, sources.table, len(sources))).encode())
    digest.update(stats.tobytes())
    digest.update("\n".join(sources.files).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]


def _read_record(path: Path, stamp: str) -> dict[int, str] | None:
    """The pictures left out of the cache with this stamp, None where there is no such cache."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["version"] == VERSION and record["stamp"] == stamp:
            return {int(index): str(reason) for index, reason in record["left_out"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    return None


def _write_record(path: Path, stamp: str, bad: dict[int, str]) -> None:
    record = {"version": VERSION, "stamp": stamp, "left_out": bad}
    with _whole(path) as file:
        file.write(json.dumps(record, indent=1).encode())


def _map(path: Path, count: int) -> torch.Tensor | None:
    """The images in a file of `count`, None where it does not hold that."""
    try:
        images = np.load(path, mmap_mode="c", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[:2] != (count, 3):
        return None
    return torch.from_numpy(images)


def _write_images(sources: Sources, path: Path, size: int, skip_bad: bool) -> dict[int, str]:
    """Decode into a file, block after block; returns what was left out."""
    bad, kept = {}, 0
    # Written, not mapped: a full disk is an error on write, but kills the process on a mapped page.
    with _whole(path, len(sources) * 3 * size * size) as file:
        file.write(_header(len(sources), size))
        for block, wrong in _decoded(sources, size, skip_bad):
            file.write(block.data)
            kept += len(block)
            bad |= wrong
        if not kept:
            raise DataError(f"no readable picture in {sources.root}")
        file.seek(0)
        file.write(_header(kept, size))
    return bad


def _header(count: int, size: int) -> bytes:
    """NumPy's header, which leaves room for the first axis to change."""
    buffer = io.BytesIO()
    shape = (count, 3, size, size)
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return buffer.getvalue()


@contextlib.contextmanager
def _whole(path: Path, needed: int = 0):
    """A binary file that takes the name `path` when it is complete and on disk, and else disappears.

    Raises:
        OSError: ENOSPC with the bytes needed and free in the message.
    """
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise _no_space(path, needed, free)
    part = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}.part")
    try:
        with open(part, "xb") as file:
            _lock(file)
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException as error:
        free = shutil.disk_usage(path.parent).free
        part.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", None)):
            raise _no_space(path, needed, free) from error
        raise


def _no_space(path: Path, needed: int, free: int) -> OSError:
    message = (
        f"no space for the cache {path}: {needed:,} bytes needed, {free:,} free; make room, or set "
        "FER_LAB_CACHE to a folder on another disk"
    )
    return OSError(errno.ENOSPC, message)


def _lock(file) -> None:
    """Mark a file as being written; the system takes the mark away when the process dies.

    Raises:
        OSError: another process is writing it.
    """
    with contextlib.suppress(ImportError):  # Windows refuses to delete an open file, which serves as well
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _sweep(folder: Path, key: str) -> None:
    """Delete what killed builds left behind."""
    for part in folder.glob(f".{key}*.part"):
        with contextlib.suppress(OSError), open(part, "rb") as file:
            _lock(file)
            file.close()
            part.unlink()
