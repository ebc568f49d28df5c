"""Whole files, locks, JSON and CSV.

Every file is written under a temporary name in its own folder and renamed once it is complete and on disk. A
killed process or a full disk therefore leaves the last good file. This module imports neither torch nor pandas,
so that a process that only runs notebooks starts quickly.
"""

import contextlib
import errno
import json
import os
import re
import shutil
import stat
import sys
import time
import uuid
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

# Windows has no quota error.
_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
# The temporary names that `atomic_path` gives: the dot, a name, eight digits, "part", the name's ending.
_PART = re.compile(r"\..*\.[0-9a-f]{8}\.part(\.\w+)?")
# Bytes of a JSON file or a table: a hundred times those of the largest that the book has.
MAX_TEXT = 2**28
# Bytes of a table's first line.
MAX_HEAD = 16_384


class DiskFullError(OSError):
    """The disk has no space for a file; an older file of that name is untouched."""


@contextlib.contextmanager
def atomic_path(
    path: str | Path, needed: int = 0, *, advice: str = "make room and run again"
) -> Iterator[Path]:
    """Yield a temporary path in the same folder; it becomes `path` on success and is deleted on failure.

    The folder is made if absent. The bytes `needed`, 0 if unknown, are compared with the free space first.
    Raises ValueError where a pipe or a device has the file's name, and DiskFullError where the file does not
    fit; its message has path, needed and free bytes, and `advice`.
    """
    path = Path(path)
    if path.exists() and not (path.is_file() or path.is_dir()):  # renaming would replace /dev/null
        raise ValueError(f"{path} is a pipe or a device; expected a file to write")
    path.parent.mkdir(parents=True, exist_ok=True)
    if needed > shutil.disk_usage(path.parent).free:
        raise _disk_full(path, f"{needed:,}", advice)
    # numpy and others append the suffix that they expect, so the temporary name ends like the final one.
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}.part{path.suffix}")
    try:
        yield temporary
        _flush(temporary)
        os.replace(temporary, path)
    except BaseException as error:
        written = temporary.stat().st_size if temporary.exists() else 0
        temporary.unlink(missing_ok=True)
        causes = list(_causes(error))
        # An interrupted torch.save complains about its half-written file.
        if any(isinstance(cause, KeyboardInterrupt) for cause in causes):
            raise KeyboardInterrupt from None
        # torch and safetensors say it in words alone.
        if any(getattr(cause, "errno", None) in _FULL or "No space left" in str(cause) for cause in causes):
            raise _disk_full(path, f"{needed:,}" if needed else f"more than {written:,}", advice) from error
        raise
    if os.name == "posix":
        _flush(path.parent)


@contextlib.contextmanager
def atomic_file(path: Path, needed: int = 0, *, advice: str = "make room and run again") -> Iterator[IO[bytes]]:
    """Like `atomic_path`, but yield the open temporary file, locked until it has its final name.

    So several processes may write into one folder that they all clean up by `remove_leftovers`.
    """
    with (
        contextlib.ExitStack() as lock,
        atomic_path(path, needed, advice=advice) as temporary,
        open(temporary, "wb") as file,
    ):
        if os.name == "posix":  # Windows refuses to delete an open file, which serves as well
            # A second descriptor holds the lock while the closed file is renamed.
            lock.callback(os.close, os.dup(file.fileno()))
            with contextlib.suppress(OSError):  # a network disk without locks
                try_lock(file)
        yield file


def remove_leftovers(paths: Iterable[Path]) -> None:
    """Delete those of `paths` that have a name of `atomic_path`, and that no living process has locked."""
    for part in paths:
        if not _PART.fullmatch(part.name) or not part.is_file():
            continue
        with contextlib.suppress(OSError):
            with open(part, "rb") as file:
                abandoned = try_lock(file)
            if abandoned:
                part.unlink()


def _flush(path: Path) -> None:
    """Force a file, or a folder's list of names, onto the disk."""
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those that led to it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _disk_full(path: Path, needed: str, advice: str) -> DiskFullError:
    free = shutil.disk_usage(path.parent).free
    message = f"no space to write {path}: {needed} bytes needed, {free:,} free; {advice}, "
    return DiskFullError(errno.ENOSPC, message + "what was there before is untouched")


class RunBusyError(RuntimeError):
    """Another process is writing to the same folder."""


@dataclass(frozen=True)
class Lock:
    """A lock that `locked` holds."""

    path: Path
    file: IO[str]

    def check(self) -> None:
        """Before a write, raise RunBusyError where the lock's file was deleted, so that others may have it."""
        with contextlib.suppress(OSError):
            if os.path.samestat(self.path.stat(), os.fstat(self.file.fileno())):
                return
        raise RunBusyError(f"{self.path} was deleted by somebody while its holder worked; start again")


@contextlib.contextmanager
def locked(path: Path, wait: float = 0.0) -> Iterator[Lock | None]:
    """Hold a lock on the file `path`; the system releases it when the process dies.

    The holder's process number is written into the file. Half-written files in its folder are deleted. The
    value is None in a folder that is for reading, where nothing is to be locked. RunBusyError is raised where
    another process, or this one a second time, holds it for longer than `wait` seconds, ValueError where
    something else has the file's name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        file = _open_lock(path)
    except OSError:
        if os.access(path.parent, os.W_OK):
            raise
        yield None
        return
    deadline = time.monotonic() + wait
    with file:
        while not _try_lock_or_warn(file, path):
            if time.monotonic() >= deadline:
                raise RunBusyError(
                    f"{path.parent} is in use by another process (number {file.read().strip() or 'unknown'}); "
                    "wait for it, stop it, or choose another folder"
                )
            time.sleep(0.02)
        # On a full disk the lock still holds, but others cannot read whose it is.
        with contextlib.suppress(OSError):
            file.truncate(0)
            os.write(file.fileno(), str(os.getpid()).encode())
        remove_leftovers(path.parent.iterdir())
        yield Lock(path, file)


def _open_lock(path: Path) -> IO[str]:
    """Open a lock's file, which is made if absent. What is no lock is not followed, waited for or changed."""
    # Windows has neither pipes in folders nor, for most people, links.
    careful = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    with contextlib.suppress(FileNotFoundError):
        status = path.lstat()
        # A process number, or nothing yet.
        if not stat.S_ISREG(status.st_mode) or status.st_size > 20 or path.read_bytes().strip(b"0123456789"):
            raise ValueError(f"{path} is no lock of fer_lab; move it away, or choose another folder")
    return open(os.open(path, os.O_RDWR | os.O_CREAT | careful, 0o666), "r+")


def _try_lock_or_warn(file: IO[str], path: Path) -> bool:
    try:
        return try_lock(file)
    except OSError as error:
        reason = f"the disk of {path.parent} has no locks ({error.strerror})"
        warnings.warn(f"{reason}; start no second process that writes there", stacklevel=4)
        return True


def try_lock(file: IO[Any]) -> bool:
    """Lock an open file until it is closed or the process dies; False if another holder has it."""
    if sys.platform == "win32":
        import msvcrt

        # Far behind the text, or the lock would also keep others from reading the holder's number.
        file.seek(2**30)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def stamp(path: Path) -> tuple[int, int, int] | None:
    """What changes with a file that is written as above: its number, size and time; None if absent."""
    with contextlib.suppress(OSError):
        status = path.stat()
        return status.st_ino, status.st_size, status.st_mtime_ns
    return None


def write_text(path: Path, text: str) -> None:
    """Write a text, whole or not at all. Half a character, as file names have it, becomes JSON's own escape."""
    data = text.encode("utf-8", "backslashreplace")
    with atomic_path(path, needed=len(data)) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, data: dict) -> None:
    """Write one JSON object, whole or not at all."""
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def is_file(path: Path, limit: int | None = None) -> bool:
    """Whether there is a file; nothing else in its place is waited for, or read until the memory ends.

    A folder, pipe, device, dangling link, or a file of more than `limit` bytes raises ValueError.
    """
    if not path.is_file():
        if os.path.lexists(path):
            raise ValueError(f"{path} is not a file; move it away, or choose another folder")
        return False
    if limit is not None and (size := path.stat().st_size) > limit:
        raise ValueError(f"{path} has {size:,} bytes, at most {limit:,} are expected; move it away")
    return True


def read_json(path: Path, limit: int = MAX_TEXT) -> dict[str, Any]:
    """The object in a JSON file, {} if the file is absent; ValueError if it does not hold one JSON object."""
    if not is_file(path, limit):
        return {}
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error}); delete the run's folder and train again") from error
    if not isinstance(data, dict):
        raise ValueError(f"{path} holds a {type(data).__name__}, expected an object; delete it")
    return data


def write_csv(path: Path, table: "pd.DataFrame") -> None:
    """Write a table without its index, whole or not at all."""
    with atomic_path(path) as temporary:
        # As in JSON above: half a character becomes an escape.
        table.to_csv(temporary, index=False, lineterminator="\n", errors="backslashreplace")


def read_csv(path: Path, columns: dict[str, str] | None = None) -> "pd.DataFrame":
    """Read a table; one that is absent is empty, and a damaged one, or other columns, raise ValueError.

    `columns`: name → dtype; exactly these are expected, and text columns stay text. None guesses.
    """
    import pandas as pd

    if not is_file(path, MAX_TEXT):
        return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in (columns or {}).items()})
    options: dict[str, Any] = {}
    if columns:
        # A class called "NA", or an empty class name, is text and not a missing number.
        numbers = [name for name, kind in columns.items() if kind != "str"]
        options = {"dtype": columns, "keep_default_na": False, "na_values": {name: [""] for name in numbers}}
    with open(path, "rb") as file:
        # pandas renames equal columns one by one, which takes minutes for 100,000 of them.
        if len(file.readline(MAX_HEAD + 1)) > MAX_HEAD:
            raise ValueError(f"{path} is not a readable table: its first line has more than {MAX_HEAD:,} bytes")
    try:
        table = pd.read_csv(path, float_precision="round_trip", **options)
    except (ValueError, OSError) as error:
        raise ValueError(f"{path} is not a readable table: {error}") from error
    if columns and list(table.columns) != list(columns):
        raise ValueError(f"{path} has columns {list(table.columns)}, expected {list(columns)}")
    return table
