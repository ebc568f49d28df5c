"""The pixels of a data set, decoded once into one uint8 file that is mapped into memory.

A cache is two files in `cache_folder()`. The .npy holds the pixels [M,3,S,S]. The .json, its card, holds the
key that they were made from (names, sizes, times and inodes of the picture files, side, format), the unreadable
pictures, the identical pictures, and digests of the pictures' bytes, the .npy and the card itself. The
card is written last and names the .npy, so a killed build leaves nothing that `open_cache` would accept. Label
rules choose rows; they share one cache.
"""

import contextlib
import errno
import hashlib
import io
import json
import math
import os
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from fer_lab._files import DiskFullError, atomic_file, read_json, remove_leftovers, write_json
from fer_lab._progress import progress
from fer_lab.data.images import DataError, decode, open_header, read_limited

FORMAT = 3
# A temporary file that nobody has written to for so many seconds belongs to a process that died.
ABANDONED = 60
# Side of the result if the pictures differ in size and the caller names none.
DEFAULT_SIZE = 112
FER2013_SIZE = 48


class Stored(NamedTuple):
    """Where the pixels of one face are: a picture file, or one field of Kaggle's fer2013.csv."""

    name: str  # relative to the data set's root; used in messages and in FaceSet.files
    path: str
    offset: int = -1  # first byte of the pixel field; -1 for a whole picture file
    length: int = 0  # bytes of the pixel field
    line: int = 0  # line of the pixel field, counted from 1

    def read(self) -> bytes:
        """The picture's bytes, not decoded; raises DataError if the file cannot be read."""
        if self.offset < 0:
            return read_limited(self.path)
        try:
            with open(self.path, "rb") as file:
                file.seek(self.offset)
                return file.read(self.length)
        except OSError as error:
            raise DataError(f"{self.path} cannot be read: {error.strerror}") from error

    def decode(self, data: bytes) -> Image.Image:
        """The picture as RGB; raises DataError if it cannot be decoded completely."""
        if self.offset < 0:
            return decode(data, self.path)
        side, where = FER2013_SIZE, f"{self.path}, line {self.line}"
        try:
            values = np.array(data.split(), dtype=np.int64)
        except (ValueError, OverflowError):
            raise DataError(f"{where}: pixels must be whole numbers from 0 to 255") from None
        if len(values) != side * side:
            raise DataError(f"{where}: expected {side}×{side} = {side * side} pixels, got {len(values)}")
        if values.min() < 0 or values.max() > 255:
            raise DataError(f"{where}: pixels run from {values.min()} to {values.max()}, expected 0 to 255")
        return Image.fromarray(values.astype(np.uint8).reshape(side, side)).convert("RGB")

    def side(self) -> tuple[int, int]:
        """Width and height, read from the header alone."""
        if self.offset >= 0:
            return FER2013_SIZE, FER2013_SIZE
        return open_header(self.read(), self.path).size


@dataclass(frozen=True)
class Pixels:
    """Decoded pictures."""

    storage: torch.Tensor  # uint8 [M,3,S,S], one row a source; rows of unreadable pictures are black
    bad: dict[int, str]  # row → why the picture could not be read
    twins: list[list[int]]  # groups of rows whose pictures are identical, byte for byte
    digest: str  # hex digest of the pictures' bytes, the same on every machine


def cache_folder() -> Path:
    """$FER_LAB_CACHE, or ~/.cache/fer_lab."""
    return Path(os.environ.get("FER_LAB_CACHE") or Path.home() / ".cache" / "fer_lab").expanduser()


def for_each(
    sources: Sequence[Stored], work: Callable[[Stored], Any], title: str, block: int = 32
) -> Generator[Any, None, None]:
    """Yield `work(source)`, or the DataError that it raises, for every source in order; a few threads work.

    At most 16 blocks of results wait at a time, so memory does not grow with the data set.
    """

    def attempt(source: Stored) -> Any:
        try:
            return work(source)
        except DataError as error:
            return error

    def run(part: Sequence[Stored]) -> list[Any]:
        return [attempt(source) for source in part]

    threads = min(4, os.cpu_count() or 1)
    with (
        ThreadPoolExecutor(threads) as pool,
        progress(description=title, total=len(sources), unit="face") as bar,
    ):
        for start in range(0, len(sources), 16 * block):
            window = sources[start : start + 16 * block]
            for results in pool.map(run, [window[i : i + block] for i in range(0, len(window), block)]):
                yield from results
                bar.update(len(results))


def native_size(sources: Sequence[Stored]) -> int:
    """The side S if all readable pictures are S×S, else `DEFAULT_SIZE`."""
    sizes: set[tuple[int, int]] = set()
    with contextlib.closing(for_each(sources, Stored.side, "measuring")) as sides:
        for side in sides:
            if isinstance(side, DataError):
                continue
            sizes.add(side)
            if len(sizes) > 1 or side[0] != side[1]:
                return DEFAULT_SIZE
    return sizes.pop()[0] if sizes else DEFAULT_SIZE


def to_square(image: Image.Image, size: int) -> np.ndarray:
    """Resize an RGB picture (antialiased, bilinear) to uint8 [3,S,S], stretched as the published recipes do."""
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(image).transpose(2, 0, 1)


def load_pixels(
    name: str,
    root: Path,
    sources: Sequence[Stored],
    size: int | None = None,
    *,
    part: str = "",
    cache: bool = True,
) -> Pixels:
    """All pictures of `sources`, from a valid cache if there is one, else decoded now.

    The cache is named after the data set, its root and the `part` of its pictures. `size` is the side S in
    pixels; None takes the pictures' own side if they all agree, else 112. cache=False decodes into memory, and
    writes nothing. Raises OSError as `build_cache`.
    """
    if not cache:
        side = size or native_size(sources)
        storage = torch.empty(len(sources), 3, side, side, dtype=torch.uint8)
        return Pixels(storage, *_decode(sources, side, storage.numpy().__setitem__))
    name = f"{name}-{part}" if part else name
    return open_cache(name, root, sources, size) or build_cache(name, root, sources, size)


def cache_key(sources: Sequence[Stored], size: int | None) -> str:
    """A digest of everything that decides a cache's content; it changes when a picture file changes."""
    digest = hashlib.sha256(f"{FORMAT} {size}".encode())
    known: dict[str, str] = {}
    for source in sources:
        if source.path not in known:
            try:
                state = os.stat(source.path)
                # The change time and the inode tell of a file that was renamed, or whose time was put back.
                times = (state.st_mtime_ns, state.st_ctime_ns)
                known[source.path] = f"{state.st_size} {times} {state.st_ino}"
            except (OSError, ValueError):
                known[source.path] = "missing"
        line = (source.name, source.path, source.offset, source.length, known[source.path])
        digest.update(repr(line).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _card(name: str, root: Path, size: int | None) -> Path:
    place = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:8]
    return cache_folder() / f"{name}-{place}-{size or 'native'}.json"


def open_cache(name: str, root: Path, sources: Sequence[Stored], size: int | None = None) -> Pixels | None:
    """The cached pictures; None if there is no undamaged cache of these files, this size and this format.

    The whole cache is read, to compare its digest. What a caller writes into the tensor never reaches the disk.
    """
    card = _card(name, root, size)
    try:
        info = read_json(card)
        if info.pop("seal") != _seal(info):
            return None
        if (info["format"], info["key"]) != (FORMAT, cache_key(sources, size)):
            return None
        path = card.parent / info["file"]
        array = _mapped(path)
        with open(path, "rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != info["pixels"]:
                return None
        bad = {int(row): str(reason) for row, reason in info["bad"].items()}
        twins = [[int(row) for row in group] for group in info["twins"]]
        digest = str(info["digest"])
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError):
        return None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return Pixels(torch.from_numpy(array), bad, twins, digest)


def _seal(info: dict[str, Any]) -> str:
    """A digest of a card's other fields."""
    return hashlib.sha256(json.dumps(info, sort_keys=True).encode()).hexdigest()


def _mapped(path: Path) -> np.ndarray:
    """Map a .npy, copy-on-write, so that a notebook that writes into it by mistake does not crash."""
    try:
        return np.load(path, mmap_mode="c", allow_pickle=False)
    except OSError as error:
        # Linux promises memory for every page that could be copied, and may refuse a set larger than RAM.
        if error.errno != errno.ENOMEM:
            raise
        return np.load(path, mmap_mode="r", allow_pickle=False)


def build_cache(name: str, root: Path, sources: Sequence[Stored], size: int | None = None) -> Pixels:
    """Decode all pictures into a new cache that replaces an older one of the same set and size.

    The pixels are written as they are decoded, so memory holds a few hundred pictures at a time. Several
    processes may build caches in one folder at the same time. Raises DiskFullError, before any picture is
    decoded if the free space is known, OSError if the folder cannot be written, and DataError for picture files
    that changed during the build.
    """
    card, key = _card(name, root, size), cache_key(sources, size)
    folder = card.parent
    pixels = folder / f"{card.stem}-{key[:12]}.npy"
    advice = "make room, or point FER_LAB_CACHE at another disk"
    with _advised(folder):
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(_abandoned(folder))
        side = size or native_size(sources)
        shape = (len(sources), 3, side, side)
        # Written, not mapped: on a full disk a write fails, while a store into a map kills the process.
        with atomic_file(pixels, math.prod(shape) + 128, advice=advice) as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            opening = io.BytesIO()
            np.lib.format.write_array_header_1_0(opening, header)
            file.write(opening.getvalue())
            written = hashlib.sha256(opening.getvalue())

            def store(row: int, face: np.ndarray) -> None:
                file.write(face.tobytes())
                written.update(face.tobytes())

            bad, twins, digest = _decode(sources, side, store)
        if cache_key(sources, size) != key:
            pixels.unlink(missing_ok=True)
            raise DataError(
                f"files of {root} changed while they were read; wait until the copying ends, then run again"
            )
        info = {
            "format": FORMAT,
            "key": key,
            "file": pixels.name,
            "digest": digest,
            "pixels": written.hexdigest(),
            "bad": {str(row): reason for row, reason in bad.items()},
            "twins": twins,
        }
        write_json(card, {**info, "seal": _seal(info)})
    for other in folder.glob(f"{card.stem}-*.npy"):
        if other != pixels:
            with contextlib.suppress(OSError):  # Windows keeps a file that a process has mapped
                other.unlink()
    if built := open_cache(name, root, sources, size):
        return built
    raise OSError(f"{pixels} does not read back as it was written; run again, and check the disk")


def _abandoned(folder: Path) -> Iterator[Path]:
    """Temporary files of processes that died; one that was made a moment ago may not be locked yet."""
    for part in folder.glob(".*.part.*"):
        with contextlib.suppress(OSError):
            if part.stat().st_mtime < time.time() - ABANDONED:
                yield part


def _decode(
    sources: Sequence[Stored], side: int, store: Callable[[int, np.ndarray], Any]
) -> tuple[dict[int, str], list[list[int]], str]:
    """Decode every source and `store(row, uint8 [3,S,S])` it in order → (bad, twins, digest) of `Pixels`."""

    def work(source: Stored) -> tuple[np.ndarray, bytes]:
        data = source.read()
        return to_square(source.decode(data), side), hashlib.sha256(data).digest()

    bad: dict[int, str] = {}
    rows: dict[bytes, list[int]] = {}
    total = hashlib.sha256()
    blank = np.zeros((3, side, side), np.uint8)
    block = max(1, min(32, 2**20 // blank.nbytes))
    for row, result in enumerate(for_each(sources, work, "reading pictures", block)):
        if isinstance(result, DataError):
            bad[row] = str(result)
            result = blank, b"unreadable"
        else:
            rows.setdefault(result[1], []).append(row)
        store(row, result[0])
        total.update(result[1])
    return bad, [group for group in rows.values() if len(group) > 1], total.hexdigest()


@contextlib.contextmanager
def _advised(folder: Path) -> Iterator[None]:
    """Say which folder cannot be written, and how to choose another one."""
    try:
        yield
    except DiskFullError:
        raise
    except OSError as error:
        message = f"cannot write the cache in {folder}: {error.strerror or error}"
        raise OSError(error.errno, f"{message}; point FER_LAB_CACHE at a folder that can be written") from error
