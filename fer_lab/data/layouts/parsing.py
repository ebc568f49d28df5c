"""Label files and folders from strangers: every field is checked, and errors name the file and the line."""

import contextlib
import csv
import itertools
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, AnyStr, TextIO, TypeVar

from fer_lab.data.images import SUFFIXES, DataError

T = TypeVar("T")
# Kaggle's lines have 2,304 numbers of up to three digits.
LONGEST_LINE = 2**16
PACKED = (".zip", ".rar", ".7z", ".tar", ".tgz", ".gz")


def some(names: Sequence[str], limit: int = 5) -> str:
    """The first names and how many more there are, for a message."""
    more = f" and {len(names) - limit:,} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def limited_lines(path: Path, file: IO[AnyStr]) -> Iterator[AnyStr]:
    """The lines of an open file; DataError at one that is longer than any face's can be."""
    for number in itertools.count(1):
        line = file.readline(LONGEST_LINE)
        if len(line) == LONGEST_LINE:
            raise DataError(f"{path}, line {number} is longer than {LONGEST_LINE:,}; expected a label file")
        if not line:
            return
        yield line


@contextlib.contextmanager
def _label_file(path: Path) -> Iterator[TextIO]:
    """An open label file; DataError if it is missing, not a regular file, or not UTF-8."""
    # Reading a pipe or a device could wait, or deliver bytes, forever.
    if path.exists() and not path.is_file():
        raise DataError(f"{path} is not a regular file; expected a label file")
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            yield file
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error.reason}); save it as UTF-8") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; expected a label file") from error


def _at_least_one(path: Path, lines: Iterable[T]) -> Iterator[T]:
    empty = True
    for line in lines:
        empty = False
        yield line
    if empty:
        raise DataError(f"{path} is empty; expected a label file with one line per face")


def rows_of(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(line number, stripped fields) of a CSV file in UTF-8, without its byte-order mark and blank lines.

    Raises DataError if it is missing, not UTF-8, not CSV, or without any line.
    """
    with _label_file(path) as file:
        reader = csv.reader(limited_lines(path, file), strict=True)
        rows = ((reader.line_num, [cell.strip() for cell in row]) for row in reader)
        try:
            yield from _at_least_one(path, (row for row in rows if any(row[1])))
        except csv.Error as error:
            raise DataError(f"{path}, line {reader.line_num}: not valid CSV ({error})") from error


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    """(line number, stripped text) of the lines of a text file that are not blank; otherwise like `rows_of`."""
    with _label_file(path) as file:
        yield from _at_least_one(
            path, ((n, text.strip()) for n, text in enumerate(limited_lines(path, file), 1) if text.strip())
        )


def whole_number(text: str, low: int, high: int, where: str) -> int:
    """`"3"` or `"3.0"` as a number from `low` to `high`; DataError, with `where` in it, for anything else."""
    if not re.fullmatch(r"[0-9]{1,9}(\.0*)?", text, re.ASCII) or not low <= int(text.split(".")[0]) <= high:
        raise DataError(f"{where}: expected a whole number from {low} to {high}, got {text[:40]!r}")
    return int(text.split(".")[0])


def safe_name(text: str, where: str) -> str:
    """A relative file name from a list, with `/`; DataError if it is empty, absolute, or has `..` in it."""
    name = text.replace("\\", "/")
    parts = PurePosixPath(name).parts
    absolute = name.startswith("/") or PureWindowsPath(text).drive
    if not parts or absolute or ".." in parts or "\0" in name:
        raise DataError(f"{where}: expected a file name below the data set's folder, got {text[:80]!r}")
    return "/".join(parts)


def unseen(name: str, seen: set[str], where: str) -> str:
    """`name`, which is added to `seen`; DataError if it is already there."""
    if name in seen:
        raise DataError(f"{where}: {name} is listed a second time; keep one of the lines")
    seen.add(name)
    return name


def expect_columns(row: list[str], count: int, where: str) -> None:
    """Raise DataError unless the row has `count` fields."""
    if len(row) != count:
        raise DataError(f"{where}: expected {count} columns, got {len(row)}")


def is_hidden(name: str) -> bool:
    """Whether a file or folder belongs to the operating system: `.DS_Store`, `._a.jpg`, `__MACOSX`."""
    return name.startswith(".") or name == "__MACOSX"


def entries(folder: Path) -> tuple[list[str], list[str]]:
    """Names of the folders and of the files in a folder, sorted, without hidden ones; DataError without one."""
    folders: list[str] = []
    files: list[str] = []
    try:
        for entry in os.scandir(folder):
            if not is_hidden(entry.name):
                try:
                    (folders if entry.is_dir() else files).append(entry.name)
                except OSError:  # a symbolic link to itself
                    files.append(entry.name)
    except OSError as error:
        raise DataError(f"{folder} cannot be listed: {error.strerror}; expected a folder") from error
    return sorted(folders), sorted(files)


def pictures(folder: Path) -> tuple[list[str], int]:
    """Names of the pictures in a folder, judged by their suffixes, and the number of other files."""
    _, files = entries(folder)
    names = [name for name in files if os.path.splitext(name)[1].lower() in SUFFIXES]
    return names, len(files) - len(names)


def unlisted(folder: Path, listed: set[str], label_file: str) -> list[str]:
    """A note on pictures in a folder that its label file does not name; [] if there are none."""
    extra = [name for name in pictures(folder)[0] if name not in listed] if folder.is_dir() else []
    note = f"{len(extra)} pictures in {folder.name} are not in {label_file}: {some(extra, 3)}"
    return [note] if extra else []


def first_folder(root: Path, candidates: Sequence[str], contents: Sequence[str]) -> Path | None:
    """The first of root's folders `candidates` that contains a file or folder of `contents`."""
    for candidate in candidates:
        if any((root / candidate / name).exists() for name in contents):
            return root / candidate
    return None
