"""Label files and folders from strangers: every field is checked, what is wrong is named with its line."""

import csv
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from fer_lab.data.images import SUFFIXES, DataError


def some(names: Sequence[str], limit: int = 5) -> str:
    """The first names and how many more there are, for a message."""
    more = f" and {len(names) - limit:,} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def rows_of(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(line number, fields) of a CSV file in UTF-8, with or without byte-order mark; blank lines skipped.

    Raises:
        DataError: missing, not UTF-8, not CSV, or without any line.
    """
    empty = True
    _expect_file(path)
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            try:
                for row in reader:
                    if any(cell.strip() for cell in row):
                        empty = False
                        yield reader.line_num, [cell.strip() for cell in row]
            except csv.Error as error:
                raise DataError(f"{path}, line {reader.line_num}: no valid CSV ({error})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error.reason}); save it as UTF-8") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; expected a label file") from error
    if empty:
        raise _no_line(path)


def _expect_file(path: Path) -> None:
    # Reading a pipe or a device could wait, or go on, for ever.
    if path.exists() and not path.is_file():
        raise DataError(f"{path} is not a regular file; expected a label file")


def _no_line(path: Path) -> DataError:
    return DataError(f"{path} holds no line; expected a label file, with a line a face")


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    """(line number, stripped text) of a text file's lines that are not blank; as `rows_of` otherwise."""
    empty = True
    _expect_file(path)
    try:
        with open(path, encoding="utf-8-sig") as file:
            for number, text in enumerate(file, 1):
                if text.strip():
                    empty = False
                    yield number, text.strip()
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error.reason}); save it as UTF-8") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; expected a label file") from error
    if empty:
        raise _no_line(path)


def whole_number(text: str, low: int, high: int, where: str) -> int:
    """`"3"` or `"3.0"` as a number from `low` to `high`.

    Args:
        where: file, line and field, for the message.

    Raises:
        DataError: anything else.
    """
    if not re.fullmatch(r"[0-9]{1,9}(\.0*)?", text, re.ASCII) or not low <= int(text.split(".")[0]) <= high:
        raise DataError(f"{where}: expected a whole number from {low} to {high}, got {text[:40]!r}")
    return int(text.split(".")[0])


def safe_name(text: str, where: str) -> str:
    """A relative file name from a list, with `/`, that stays below its folder.

    Raises:
        DataError: empty, absolute, or with `..` in it.
    """
    name = text.replace("\\", "/")
    parts = PurePosixPath(name).parts
    absolute = name.startswith("/") or PureWindowsPath(text).drive
    if not parts or absolute or ".." in parts or "\0" in name:
        raise DataError(f"{where}: expected a file name below the data set's folder, got {text[:80]!r}")
    return "/".join(parts)


def unseen(name: str, seen: set[str], where: str) -> str:
    """`name`, which is added to the names seen; raises DataError where it was in there."""
    if name in seen:
        raise DataError(f"{where}: {name} stands here a second time; keep one of the lines")
    seen.add(name)
    return name


def expect_columns(row: list[str], count: int, where: str) -> None:
    if len(row) != count:
        raise DataError(f"{where}: expected {count} columns, got {len(row)}")


def entries(folder: Path) -> tuple[list[str], list[str]]:
    """Names of the folders and of the files in a folder, sorted, without hidden ones.

    Raises:
        DataError: no such folder, or it cannot be listed.
    """
    folders, files = [], []
    try:
        for entry in os.scandir(folder):
            if not entry.name.startswith("."):
                try:
                    (folders if entry.is_dir() else files).append(entry.name)
                except OSError:  # a symbolic link to itself
                    files.append(entry.name)
    except OSError as error:
        raise DataError(f"{folder} cannot be listed: {error.strerror}; expected a folder") from error
    return sorted(folders), sorted(files)


def pictures(folder: Path) -> tuple[list[str], int]:
    """Names of the pictures in a folder by their endings, and how many other files there are."""
    _, files = entries(folder)
    found = [name for name in files if os.path.splitext(name)[1].lower() in SUFFIXES]
    return found, len(files) - len(found)


def unlisted(folder: Path, listed: set[str], label_file: str) -> list[str]:
    """A note on pictures in a folder that its label file does not name."""
    extra = [name for name in pictures(folder)[0] if name not in listed] if folder.is_dir() else []
    return (
        [f"{len(extra)} pictures in {folder.name} are not in {label_file}: {some(extra, 3)}"] if extra else []
    )


def first_folder(root: Path, candidates: Sequence[str], holds: Sequence[str]) -> Path | None:
    """The first of root's folders that holds one of the named things."""
    for candidate in candidates:
        if any((root / candidate / thing).exists() for thing in holds):
            return root / candidate
    return None
