"""TODO."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fer_lab.data.cache import Source
from fer_lab.data.expressions import order_of
from fer_lab.data.images import DataError
from fer_lab.data.layouts.label_files import (
    expect_columns,
    first_folder,
    pictures,
    rows_of,
    safe_name,
    unlisted,
    unseen,
    whole_number,
)
from fer_lab.data.layouts.listing import NO_CLASS, Listing, select, source

# ---------------------------------------------------------------------------------------------------------
# FER+


def ferplus_labels(votes: np.ndarray, rule: str, num_classes: int = 8):
    """Labels and vote shares from FER+'s ten vote counts (Barsoum et al., ICMI 2016, arXiv 1608.01041).

    A single vote counts as none. A face is left out whose largest count, first on ties, is unknown or not
    a face; under `majority` also if it is not more than half of all ten counts.

    Args:
        votes: int [N,10], the eight canonical classes, unknown, not a face.
        rule: of `RULES`; `votes` keeps what `largest` keeps.
        num_classes: 7 leaves out the faces of contempt, and contempt's votes.

    Returns:
        labels int64 [N] (8 and 9 are `NO_CLASS`), keep bool [N], shares float32 [N,num_classes] whose rows
        sum to 1 for the faces kept.
    """
    counted = np.where(np.asarray(votes) > 1, votes, 0)
    largest, labels = counted.max(1), counted.argmax(1)
    keep = (labels < num_classes) & (largest > 0)
    if rule == "majority":
        keep &= 2 * largest > counted.sum(1)
    ours = counted[:, :num_classes].astype(np.float32)
    return labels, keep, ours / np.maximum(ours.sum(1, keepdims=True), 1)


def _ferplus_listing(root, sources, votes, splits, num_classes, rule, notes, nameless=0) -> Listing:
    classes = order_of("ferplus", num_classes)
    labels, keep, shares = ferplus_labels(np.array(votes, np.int64).reshape(-1, 10), rule, len(classes))
    reasons = Counter(
        NO_CLASS[label - 8] if label > 7 else "contempt" if label >= len(classes) else "no agreement"
        for label in labels[~keep].tolist()
    )
    if nameless:
        reasons["without a name"] = nameless
    more = {"votes": shares[keep], "rule": rule, "left_out": reasons, "notes": notes}
    return select("ferplus", root, sources, labels, keep, splits, classes, **more)


def read_ferplus(root: Path, num_classes: int | None, rule: str) -> Listing:
    """FER+ as the authors' script writes it (FER2013Train/…/label.csv), or as Kaggle's two tables."""
    parts = {"FER2013Train": "train", "FER2013Valid": "valid", "FER2013Test": "test"}
    places = ("", "data")
    folders = first_folder(root, places, tuple(parts))
    table = first_folder(root, places, ("fer2013.csv",))
    # the authors' repository comes with folders that hold label.csv alone
    if (
        folders
        and table
        and not any((folders / part).is_dir() and pictures(folders / part)[0] for part in parts)
    ):
        folders = None
    if folders:
        return _read_ferplus_folders(folders, parts, num_classes, rule)
    if table:
        return _read_ferplus_tables(root, table / "fer2013.csv", num_classes, rule)
    raise DataError(
        f"{root}: no FER+ here; expected FER2013Train, FER2013Valid and FER2013Test with a label.csv each, "
        "or fer2013.csv and fer2013new.csv"
    )


def _read_ferplus_folders(base: Path, parts: dict[str, str], num_classes: int | None, rule: str) -> Listing:
    sources, votes, splits, notes = [], [], [], []
    for folder, split in parts.items():
        if not (base / folder).is_dir():
            notes.append(f"{folder} is not there: no {split} faces")
            continue
        labels = base / folder / "label.csv"
        seen = set()
        for line, row in rows_of(labels):
            where = f"{labels}, line {line}"
            expect_columns(row, 12, where)
            name = unseen(safe_name(row[0], f"{where}, file name"), seen, where)
            sources.append(source(base, f"{folder}/{name}"))
            votes.append([whole_number(cell, 0, 1000, f"{where}, votes") for cell in row[2:]])
            splits.append(split)
        notes += unlisted(base / folder, seen, "label.csv")
    return _ferplus_listing(base, sources, votes, splits, num_classes, rule, notes)


def _read_ferplus_tables(root: Path, pixels: Path, num_classes: int | None, rule: str) -> Listing:
    usages = {"Training": "train", "PublicTest": "valid", "PrivateTest": "test"}
    base = pixels.parent
    labels = (first_folder(root, ("", "data"), ("fer2013new.csv",)) or base) / "fer2013new.csv"
    if not (labels.is_file() and pixels.is_file()):
        raise DataError(
            f"{base} needs the files fer2013.csv, with the pictures, and fer2013new.csv, with FER+'s votes"
        )
    faces = _pixel_spans(pixels)
    sources, votes, splits, seen, nameless = [], [], [], set(), 0
    for line, row in rows_of(labels):
        where = f"{labels}, line {line}"
        expect_columns(row, 12, where)
        if row[0].lower() == "usage":
            continue
        usage, *span = next(faces, (None,))
        if row[0] not in usages or row[0] != usage:
            raise DataError(
                f"{where}: usage {row[0]!r}, and {usage!r} in the same row of fer2013.csv; expected the same "
                f"of {', '.join(usages)}, row by row"
            )
        if not row[1]:
            nameless += 1
            continue
        name = unseen(safe_name(row[1], f"{where}, image name"), seen, where)
        sources.append(Source(name, str(pixels), *span))
        votes.append([whole_number(cell, 0, 1000, f"{where}, votes") for cell in row[2:]])
        splits.append(usages[usage])
    if next(faces, None) is not None:
        raise DataError(f"{labels} ends before fer2013.csv does; expected as many rows in both")
    return _ferplus_listing(root, sources, votes, splits, num_classes, rule, [], nameless)


def _pixel_spans(path: Path) -> Iterator[tuple[str, int, int, int]]:
    """(usage; offset, length and line of the pixels) of each row of Kaggle's table, without parsing pixels."""
    offset, columns = 0, None
    with open(path, "rb") as file:
        for line, text in enumerate(file, 1):
            cells = text.removeprefix(b"\xef\xbb\xbf").split(b",") if line == 1 else text.split(b",")
            if columns is None:
                columns = [cell.strip().strip(b'"').lower() for cell in cells]
                if sorted(columns) != [b"emotion", b"pixels", b"usage"]:
                    raise DataError(f"{path}, line 1: expected the columns emotion, pixels, Usage")
                at, used = columns.index(b"pixels"), columns.index(b"usage")
            elif text.strip():
                if len(cells) != 3:
                    raise DataError(f"{path}, line {line}: expected 3 columns, got {len(cells)}")
                start = offset + sum(len(cell) + 1 for cell in cells[:at])
                length = len(cells[at].rstrip())
                if cells[at].startswith(b'"'):
                    start, length = start + 1, length - 2
                yield cells[used].strip().strip(b'"').decode("ascii", "replace"), start, length, line
            offset += len(text)
