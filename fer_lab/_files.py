"""Files that are whole or not there.

A file is written beside its place and moved there when it is complete and on disk, so a machine that dies, or a
full disk, leaves the last good one. Apart from runs/, so that who only runs notebooks does not wait for torch.
"""

import contextlib
import errno
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

# Windows has no quota error.
_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}


class DiskFullError(OSError):
    """No space for a file; whatever stood in its place is untouched."""


@contextlib.contextmanager
def atomic_path(path: str | Path, needed: int = 0) -> Iterator[Path]:
    """A temporary path in the same folder, moved to `path` on success and deleted on failure.

    Args:
        path: the file to write; its folder is made.
        needed: bytes that will be written, checked against the free space first; 0 if unknown.

    Raises:
        DiskFullError: the file does not fit; the message has path, needed and free bytes.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if needed > shutil.disk_usage(path.parent).free:
        raise _disk_full(path, f"{needed:,}")
    # numpy and others append a suffix that they miss, so the temporary name ends like the final one.
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}.part{path.suffix}")
    try:
        yield temporary
        _flush(temporary)
        os.replace(temporary, path)
    except BaseException as error:
        written = temporary.stat().st_size if temporary.exists() else 0
        temporary.unlink(missing_ok=True)
        if _interrupted(error):
            raise KeyboardInterrupt from None
        if _means_disk_full(error):
            raise _disk_full(path, f"{needed:,}" if needed else f"more than {written:,}") from error
        raise
    if os.name == "posix":
        _flush(path.parent)


def _flush(path: Path) -> None:
    """Force a file, or a folder's list of names, onto the disk."""
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _means_disk_full(error: BaseException | None) -> bool:
    """Whether an error or one behind it is a full disk; torch and safetensors only say so in words."""
    while error is not None:
        if (isinstance(error, OSError) and error.errno in _FULL) or "No space left" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C is behind an error: torch.save, broken off, complains of its half-written file."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def _disk_full(path: Path, needed: str) -> DiskFullError:
    free = shutil.disk_usage(path.parent).free
    message = (
        f"no space to write {path}: {needed} bytes needed, {free:,} free; "
        "make room and run again, what was there before is untouched"
    )
    return DiskFullError(errno.ENOSPC, message)


def write_json(path: Path, data: dict) -> None:
    text = json.dumps(data, indent=2, ensure_ascii=False) + "\n"
    with atomic_path(path) as temporary:
        # Half a character, as in a file name that is no UTF-8, becomes JSON's own escape.
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


class RunBusyError(RuntimeError):
    """Another process is writing to the same folder."""


@contextlib.contextmanager
def locked(path: Path, wait: float = 0.0) -> Iterator[None]:
    """Hold a lock on `path`, which the system lets go when the process dies.

    Raises:
        RunBusyError: another process, or this one a second time, holds it for longer than `wait` seconds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + wait
    with open(path, "a+") as file:
        while not _try_lock(file):
            if time.monotonic() >= deadline:
                file.seek(0)
                holder = file.read().strip() or "unknown"
                raise RunBusyError(
                    f"{path.parent} is in use by another process (number {holder}); "
                    "wait for it, stop it, or choose another folder"
                )
            time.sleep(0.02)
        # The lock holds on a full disk too, where nobody learns whose it is.
        with contextlib.suppress(OSError):
            file.truncate(0)
            os.write(file.fileno(), str(os.getpid()).encode())
        for leftover in path.parent.rglob(".*.part*"):
            leftover.unlink(missing_ok=True)
        yield


def _try_lock(file) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        # Far behind the text, or the lock would also keep others from reading the holder's number.
        file.seek(2**30)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def read_json(path: Path) -> dict:
    """The object in a JSON file, {} where there is none.

    Raises:
        ValueError: the file is not one JSON object.
    """
    if not path.exists():
        return {}
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error}); delete the run's folder and train again") from error
    if not isinstance(data, dict):
        raise ValueError(f"{path} holds a {type(data).__name__}, expected an object; delete it")
    return data


def write_csv(path: Path, table: pd.DataFrame) -> None:
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")


def read_csv(path: Path, columns: dict[str, str] | None = None) -> pd.DataFrame:
    """A table; with `columns` (name → dtype) exactly these, text columns kept as text.

    Raises:
        ValueError: the file is damaged or has other columns.
    """
    if not path.exists():
        return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in (columns or {}).items()})
    options = {}
    if columns:
        # A class called "NA", or no class at all, is text and not a missing number.
        numbers = [name for name, kind in columns.items() if kind != "str"]
        options = {"dtype": columns, "keep_default_na": False, "na_values": {name: [""] for name in numbers}}
    try:
        table = pd.read_csv(path, float_precision="round_trip", **options)
    except (ValueError, OSError) as error:
        raise ValueError(f"{path} is not a readable table: {error}") from error
    if columns and list(table.columns) != list(columns):
        raise ValueError(f"{path} has columns {list(table.columns)}, expected {list(columns)}")
    return table
