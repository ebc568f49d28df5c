"""Files that are whole or not there.

A file is written beside its place and moved there when it is complete and on disk, so a machine that dies, or a
full disk, leaves the last good one. Apart from runs/, so that who only runs notebooks does not wait for torch.
"""

import contextlib
import errno
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

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
