"""FER+ (Barsoum et al., ICMI 2016, arXiv 1608.01041): ten annotators' votes for each face of FER2013.

Two layouts are read: the PNG folders that the authors' script writes, and Kaggle's two tables, whose pixels
are text. Kaggle's table of pixels alone is read as FER2013, with FER2013's own seven labels.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fer_lab.data.cache import Stored
from fer_lab.data.expressions import class_names, order_of, to_canonical
from fer_lab.data.images import DataError
from fer_lab.data.layouts import parsing
from fer_lab.data.layouts.listing import Listing, select, stored

FOLDERS = {"FER2013Train": "train", "FER2013Valid": "valid", "FER2013Test": "test"}
USAGES = {"Training": "train", "PublicTest": "valid", "PrivateTest": "test"}
# Kaggle's table of pixels, as its two competitions call it.
PIXEL_TABLES = ("fer2013.csv", "icml_face_data.csv")
# The votes of a face: the eight canonical classes, then these.
NO_CLASS = ("unknown", "not a face")
# Picture, vote counts [10], split.
Voted = tuple[Stored, list[int], str]


def ferplus_labels(
    votes: np.ndarray, rule: str, num_classes: int = 8
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels and vote shares from FER+'s ten vote counts (Barsoum et al., arXiv 1608.01041).

    A single vote does not count. A face is left out if its largest count (the first one on ties) is unknown or
    not a face. Under `majority` it is also left out if its largest count is not more than half of all ten.

    `votes` are int [N,10]: the eight canonical classes, unknown, not a face. The rule `votes` keeps the faces
    that `largest` keeps. Seven classes leave out the faces of contempt, and contempt's votes.

    Returns labels int64 [N] (8 and 9 are `NO_CLASS`), keep bool [N], and shares float32 [N,num_classes], whose
    rows sum to 1 for the faces that are kept.
    """
    counted = np.where(np.asarray(votes) > 1, votes, 0)
    largest, labels = counted.max(1), counted.argmax(1)
    keep = (labels < num_classes) & (largest > 0)
    if rule == "majority":
        keep &= 2 * largest > counted.sum(1)
    ours = counted[:, :num_classes].astype(np.float32)
    return labels, keep, ours / np.maximum(ours.sum(1, keepdims=True), 1)


def read_ferplus(root: Path, num_classes: int | None, rule: str) -> Listing:
    """Read FER2013Train/…/label.csv, or Kaggle's fer2013.csv with fer2013new.csv.

    Without fer2013new.csv the `Listing` is FER2013's, by name, classes and labels, and a note says so.
    """
    folders = parsing.first_folder(root, ("", "data"), tuple(FOLDERS))
    tables = [root / place / name for name in PIXEL_TABLES for place in ("", "data")]
    table = next((path for path in tables if path.exists()), None)
    votes_at = parsing.first_folder(root, ("", "data"), ("fer2013new.csv",))
    notes: list[str] = []
    nameless = 0
    # The authors' repository has folders that hold label.csv alone; Kaggle's table is next to them.
    parts = [folders / part for part in FOLDERS if (folders / part).is_dir()] if folders else []
    if folders and (not table or any(parsing.pictures(part)[0] for part in parts)):
        root, faces = folders, list(_faces_in_folders(folders, notes))
    elif table and votes_at is None:
        return _read_fer2013(table, num_classes)
    elif table and votes_at:
        rows = list(_faces_in_tables(votes_at / "fer2013new.csv", table))
        faces = [row for row in rows if row is not None]
        nameless = len(rows) - len(faces)
    else:
        raise DataError(
            f"{root}: expected FER+'s FER2013Train, FER2013Valid and FER2013Test with a label.csv each, or "
            "fer2013.csv and fer2013new.csv; found none of them"
        )
    classes = order_of("ferplus", num_classes)
    votes = np.array([counts for _, counts, _ in faces], np.int64).reshape(-1, 10)
    labels, keep, shares = ferplus_labels(votes, rule, len(classes))
    reasons = Counter(
        NO_CLASS[label - 8] if label > 7 else "contempt" if label >= len(classes) else "no agreement"
        for label in labels[~keep].tolist()
    )
    reasons["without a name"] = nameless
    chosen = np.where(keep, labels, -1).tolist()
    listed = [(picture, label, split) for (picture, _, split), label in zip(faces, chosen, strict=True)]
    return select(
        "ferplus", root, listed, classes, left_out=reasons, notes=notes, votes=shares[keep], rule=rule
    )


def _read_fer2013(table: Path, num_classes: int | None) -> Listing:
    """Kaggle's table of pixels with the labels in it: FER2013's own order, from 0."""
    canonical = to_canonical("fer2013", num_classes).tolist()
    faces = []
    for number, (usage, emotion, *span) in enumerate(_pixel_spans(table)):
        where = f"{table}, line {span[-1]}"
        if usage not in USAGES:
            raise DataError(f"{where}: usage {usage!r}; expected one of {', '.join(USAGES)}")
        label = canonical[parsing.whole_number(emotion, 0, len(canonical) - 1, f"{where}, emotion")]
        faces.append((Stored(f"fer{number:07d}.png", str(table), *span), label, USAGES[usage]))
    note = (
        "fer2013new.csv, with FER+'s votes, is not there: these are FER2013's own labels, seven classes, of "
        "which FER+ corrected many"
    )
    classes = class_names(len(canonical))
    return select("fer2013", table.parent, faces, classes, left_out={}, notes=[note])


def _votes(cells: list[str], where: str) -> list[int]:
    return [parsing.whole_number(cell, 0, 1000, f"{where}, votes") for cell in cells]


def _faces_in_folders(base: Path, notes: list[str]) -> Iterator[Voted]:
    for folder, split in FOLDERS.items():
        if not (base / folder).is_dir():
            notes.append(f"{folder} is not there: no {split} faces")
            continue
        label_file = base / folder / "label.csv"
        seen: set[str] = set()
        for line, row in parsing.rows_of(label_file):
            where = f"{label_file}, line {line}"
            parsing.expect_columns(row, 12, where)
            name = parsing.unseen(parsing.safe_name(row[0], f"{where}, file name"), seen, where)
            yield stored(base, f"{folder}/{name}"), _votes(row[2:], where), split
        notes += parsing.unlisted(base / folder, seen, "label.csv")


def _faces_in_tables(label_file: Path, pixels: Path) -> Iterator[Voted | None]:
    """The faces of Kaggle's two tables, row by row; None for a row without a file name, which FER+ removed."""
    spans = _pixel_spans(pixels)
    seen: set[str] = set()
    for line, row in parsing.rows_of(label_file):
        where = f"{label_file}, line {line}"
        parsing.expect_columns(row, 12, where)
        if row[0].lower() == "usage":
            continue
        usage, _, *span = next(spans, (None, ""))
        if row[0] not in USAGES or row[0] != usage:
            raise DataError(
                f"{where}: usage {row[0]!r}, and {usage!r} in the same row of {pixels.name}; expected the same "
                f"of {', '.join(USAGES)}, row by row"
            )
        if not row[1]:
            yield None
            continue
        name = parsing.unseen(parsing.safe_name(row[1], f"{where}, image name"), seen, where)
        yield Stored(name, str(pixels), *span), _votes(row[2:], where), USAGES[usage]
    if next(spans, None) is not None:
        raise DataError(f"{label_file} ends before {pixels.name} does; expected as many rows in both")


def _pixel_spans(path: Path) -> Iterator[tuple[str, str, int, int, int]]:
    """(usage, emotion, offset, length and line of the pixels) of each row of Kaggle's table, as text."""
    if not path.is_file():
        raise DataError(f"{path} is not a regular file; expected Kaggle's table of pixels")
    offset, columns = 0, None
    with open(path, "rb") as file:
        for line, text in enumerate(parsing.limited_lines(path, file), 1):
            cells = text.removeprefix(b"\xef\xbb\xbf").split(b",") if line == 1 else text.split(b",")
            if columns is None:
                columns = [cell.strip().strip(b'"').lower() for cell in cells]
                if sorted(columns) != [b"emotion", b"pixels", b"usage"]:
                    raise DataError(f"{path}, line 1: expected the columns emotion, pixels, Usage")
                at, used, felt = (columns.index(name) for name in (b"pixels", b"usage", b"emotion"))
            elif text.strip():
                if len(cells) != 3:
                    raise DataError(f"{path}, line {line}: expected 3 columns, got {len(cells)}")
                start = offset + sum(len(cell) + 1 for cell in cells[:at])
                length = len(cells[at].rstrip())
                if cells[at].startswith(b'"'):
                    start, length = start + 1, length - 2
                usage, emotion = (
                    cells[column].strip().strip(b'"').decode("ascii", "replace") for column in (used, felt)
                )
                yield usage, emotion, start, length, line
            offset += len(text)
