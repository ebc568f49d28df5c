"""How each data set lies on disk: which faces there are, their labels and splits. No picture is opened.

Every reader returns a `Listing` whose labels are canonical. A label file is text from strangers: each field
is checked, and what is wrong is named with file and line.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fer_lab.data.cache import Source
from fer_lab.data.expressions import ALIASES, CANONICAL, class_names, order_of, to_canonical
from fer_lab.data.images import DataError
from fer_lab.data.label_files import (
    entries,
    expect_columns,
    first_folder,
    lines_of,
    pictures,
    rows_of,
    safe_name,
    some,
    unlisted,
    unseen,
    whole_number,
)

RULES = ("largest", "majority", "votes")
# What follows the eight classes in FER+'s votes.
NO_CLASS = ("unknown", "not a face")
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "train_set": "train",
    "train_aligned_faces": "train",
    "val": "valid",
    "valid": "valid",
    "validation": "valid",
    "val_set": "valid",
    "val_aligned_faces": "valid",
    "test": "test",
    "testing": "test",
}
# The distributed validation.csv has come with and without this line.
AFFECTNET_COLUMNS = [
    "subDirectory_filePath",
    "face_x",
    "face_y",
    "face_width",
    "face_height",
    "facial_landmarks",
    "expression",
    "valence",
    "arousal",
]


@dataclass(frozen=True, eq=False)
class Listing:
    """The faces of a data set, before any picture is read.

    Attributes:
        name: the data set's.
        root: its folder, which names are relative to.
        sources: where pictures lie; M of them, the same whatever the label rule and number of classes.
        rows: int64 [N], which of them belong to the set; the fields below tell of these.
        labels: int64 [N], canonical, or into the set's own classes.
        splits: str [N].
        classes: C names in label order.
        votes: float32 [N,C], rows sum to 1, or None.
        rule: label rule that was applied, "" where the set has none.
        left_out: reason → how many faces have no place in this set.
        notes: what of the layout is not there, and files that do not belong to it.
    """

    name: str
    root: Path
    sources: list[Source]
    rows: np.ndarray
    labels: np.ndarray
    splits: np.ndarray
    classes: tuple[str, ...]
    votes: np.ndarray | None = None
    rule: str = ""
    left_out: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.labels)


def source(root: Path, name: str) -> Source:
    return Source(name, os.path.join(root, name))


def select(name: str, root: Path, sources, labels, keep, splits, classes, **more) -> Listing:
    """A listing of the sources where `keep` [M] is true; labels and splits [M] are of all sources."""
    rows = np.flatnonzero(keep)
    return Listing(
        name=name,
        root=root,
        sources=sources,
        rows=rows,
        labels=np.asarray(labels, np.int64)[rows],
        splits=np.asarray(splits, dtype="<U5")[rows],
        classes=classes,
        **more,
    )


def read_layout(
    name: str, root: str | Path, num_classes: int | None = None, label_rule: str = "majority"
) -> Listing:
    """List a data set.

    Args:
        name: a key of `LAYOUTS`.
        root: its folder.
        num_classes: 7 or 8; None is what the set has. 7 leaves contempt out.
        label_rule: of `RULES`; only FER+ has votes to apply it to.

    Raises:
        DataError: unknown name or rule, missing folder or file, a label file that is not as it should be,
            no faces at all, or a class without any training face.
    """
    if name not in LAYOUTS:
        raise DataError(f"unknown data set {name!r}; expected one of {', '.join(LAYOUTS)}")
    if label_rule not in RULES:
        raise DataError(f"unknown label rule {label_rule!r}; expected one of {', '.join(RULES)}")
    root = Path(root).expanduser()
    if not root.is_dir():
        raise DataError(f"{root} is no folder; expected the folder of {name}")
    listing = LAYOUTS[name](root, num_classes, label_rule)
    if not len(listing):
        raise DataError(
            f"no faces of {name} found in {root}; {'; '.join(listing.notes) or 'is it another set?'}"
        )
    where = "train" if (listing.splits == "train").any() else listing.splits[0]
    counts = np.bincount(listing.labels[listing.splits == where], minlength=len(listing.classes))
    if empty := [c for c, n in zip(listing.classes, counts, strict=True) if n == 0]:
        raise DataError(
            f"{root}: no {where} face of class {some(empty, 8)}; add faces, or leave the class out altogether"
        )
    return listing


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


# ---------------------------------------------------------------------------------------------------------
# RAF-DB


def read_rafdb(root: Path, num_classes: int | None, rule: str) -> Listing:
    """RAF-DB's basic part: EmoLabel/list_patition_label.txt and Image/aligned/*_aligned.jpg."""
    base = first_folder(root, ("", "basic"), ("EmoLabel", "Image"))
    labels = (base or root) / "EmoLabel" / "list_patition_label.txt"
    if not labels.is_file():
        raise DataError(f"{labels} is missing; expected RAF-DB's folder, with EmoLabel and Image in it")
    folder = base / "Image" / "aligned"
    if not folder.is_dir():
        raise DataError(f"{folder} is missing; expected RAF-DB's aligned faces there")
    table = to_canonical("rafdb", num_classes).tolist()
    sources, labels_found, splits, seen = [], [], [], set()
    for line, text in lines_of(labels):
        where = f"{labels}, line {line}"
        name, *label = text.rsplit(maxsplit=1)
        if not label:
            raise DataError(f"{where}: expected a file name and a label, got {text[:80]!r}")
        name = unseen(safe_name(name, f"{where}, file name"), seen, where)
        labels_found.append(table[whole_number(label[0], 1, len(table), f"{where}, label") - 1])
        split = SPLIT_NAMES.get(name.partition("_")[0])
        if split is None:
            raise DataError(f"{where}: expected a name that begins with train_ or test_, got {name!r}")
        stem, suffix = os.path.splitext(name)
        sources.append(source(base, f"Image/aligned/{stem}_aligned{suffix}"))
        splits.append(split)
    notes = unlisted(folder, {os.path.basename(face.name) for face in sources}, labels.name)
    keep = np.ones(len(sources), bool)
    return select("rafdb", base, sources, labels_found, keep, splits, class_names(len(table)), notes=notes)


# ---------------------------------------------------------------------------------------------------------
# AffectNet


def read_affectnet(root: Path, num_classes: int | None, rule: str) -> Listing:
    """AffectNet: {train,val}_set with an annotation file a face, or the manual CSV. Whole pictures."""
    if base := first_folder(root, ("",), ("train_set", "val_set")):
        found = _affectnet_folders(base)
    elif base := first_folder(root, ("", "Manual_Labels", "Manually_Annotated_file_lists"), ("training.csv",)):
        found = _affectnet_tables(root, base)
    else:
        raise DataError(
            f"{root}: no AffectNet here; expected train_set and val_set with images and annotations, or "
            "training.csv and validation.csv"
        )
    names, own, splits, notes = found
    order = order_of("affectnet", num_classes)
    whole = to_canonical("affectnet")
    # 8 and above, a third of the manual lists, are no expression: nobody wants them in the cache
    expressions = [i for i, label in enumerate(own) if label < len(whole)]
    labels = whole.numpy()[np.array([own[i] for i in expressions], np.int64)]
    keep = labels < len(order)
    left_out = {"no expression": len(own) - len(expressions), "contempt": int((~keep).sum())}
    return select(
        "affectnet",
        root,
        [source(root, names[i]) for i in expressions],
        labels,
        keep,
        [splits[i] for i in expressions],
        class_names(len(order)),
        left_out={reason: count for reason, count in left_out.items() if count},
        notes=notes,
    )


def _affectnet_folders(root: Path):
    files, own, splits, notes = [], [], [], []
    for part in ("train_set", "val_set"):
        if not (root / part).is_dir():
            notes.append(f"{part} is not there: no {SPLIT_NAMES[part]} faces")
            continue
        names, _ = pictures(root / part / "images")
        for name in names:
            path = root / part / "annotations" / f"{os.path.splitext(name)[0]}_exp.npy"
            own.append(whole_number(_annotation(path), 0, 10, f"{path}, expression"))
            files.append(f"{part}/images/{name}")
            splits.append(SPLIT_NAMES[part])
    return files, own, splits, notes


def _annotation(path: Path) -> str:
    """The one value, a number or its text, in an annotation file."""
    try:
        if path.exists() and not path.is_file():
            raise DataError(f"{path} is not a regular file; expected one number")
        if path.stat().st_size > 4096:
            raise DataError(f"{path}: expected one number, got {path.stat().st_size:,} bytes")
        value = np.load(path, allow_pickle=False)
        return str(value.reshape(-1)[0]) if value.size == 1 else f"{value.size} values"
    except FileNotFoundError:
        raise DataError(f"{path} is missing; expected an annotation beside every picture") from None
    except DataError:
        raise
    # a damaged header ends in SyntaxError, MemoryError, tokenize's errors and others
    except Exception as error:
        raise DataError(f"{path} is no array of one number ({error}); fetch it again") from error


def _affectnet_tables(root: Path, base: Path):
    inner = first_folder(
        root, ("Manually_Annotated/Manually_Annotated_Images", "Manually_Annotated_Images"), ("",)
    )
    prefix = "" if inner is None else inner.relative_to(root).as_posix() + "/"
    files, own, splits, notes = [], [], [], []
    for table, split in (("training.csv", "train"), ("validation.csv", "valid")):
        if not (base / table).is_file():
            notes.append(f"{table} is not there: no {split} faces")
            continue
        columns = None
        for line, row in rows_of(base / table):
            where = f"{base / table}, line {line}"
            if columns is None:
                header = "expression" in row
                columns = row if header else AFFECTNET_COLUMNS
                if "subDirectory_filePath" not in columns:
                    raise DataError(f"{where}: expected a column subDirectory_filePath, got {some(columns)}")
                if header:
                    continue
            expect_columns(row, len(columns), where)
            cells = dict(zip(columns, row, strict=True))
            own.append(whole_number(cells["expression"], 0, 10, f"{where}, expression"))
            files.append(prefix + safe_name(cells["subDirectory_filePath"], f"{where}, subDirectory_filePath"))
            splits.append(split)
    return files, own, splits, notes


# ---------------------------------------------------------------------------------------------------------
# Folders


def read_sfew(root: Path, num_classes: int | None, rule: str) -> Listing:
    """SFEW 2.0: {Train,Val,Test}/{Angry,Disgust,Fear,Happy,Neutral,Sad,Surprise}."""
    return _read_folders("sfew", root, class_names(num_classes or len(order_of("sfew", num_classes))))


def read_folder(root: Path, num_classes: int | None, rule: str) -> Listing:
    """Any split/class/picture. Classes named after expressions take the canonical order, others their own."""
    return _read_folders(
        "folder", root, class_names(num_classes) if num_classes in (7, 8) else None, num_classes
    )


def _read_folders(
    name: str, root: Path, classes: tuple[str, ...] | None, num_classes: int | None = None
) -> Listing:
    parts = {
        folder: SPLIT_NAMES[folder.lower()] for folder in entries(root)[0] if folder.lower() in SPLIT_NAMES
    }
    if not parts:
        raise DataError(f"{root}: expected folders named train, valid or test with a folder a class in each")
    found = {part: entries(root / part)[0] for part in parts}
    words = sorted({word for inside in found.values() for word in inside}, key=_natural)
    named = {word: ALIASES.get(word.strip().lower(), word.strip().lower()) for word in words}
    unknown = [word for word in words if named[word] not in CANONICAL]
    if unknown and name != "folder":
        raise DataError(
            f"{root}: folders that name no expression: {some(unknown)}; expected {', '.join(CANONICAL)}"
        )
    if unknown:
        # A figure would read what stands between two $ as a formula.
        if odd := [word for word in words if not word.isprintable() or "$" in word]:
            raise DataError(f"{root}: classes named {some(odd)}; rename them to printable names without $")
        named = {word: word for word in words}
        present = tuple(words)
    else:
        present = classes or tuple(c for c in CANONICAL if c in named.values())
    if num_classes not in (None, len(present)):
        raise DataError(f"{root}: {len(present)} classes ({some(present)}), but {num_classes} were asked for")
    sources, labels, splits, left_out, others = [], [], [], Counter(), 0
    for part, split in parts.items():
        for word in found[part]:
            names, strange = pictures(root / part / word)
            others += strange
            if not names:
                raise DataError(f"{root / part / word} holds no picture; add faces, or remove the folder")
            belongs = named[word] in present
            if not belongs:
                left_out[named[word]] += len(names)
            sources += [source(root, f"{part}/{word}/{file}") for file in names]
            labels += [present.index(named[word]) if belongs else -1] * len(names)
            splits += [split] * len(names)
    notes = [f"{others} other files are no pictures by their names"] if others else []
    keep = np.array(labels, np.int64) >= 0
    return select(name, root, sources, labels, keep, splits, present, left_out=left_out, notes=notes)


def _natural(word: str):
    """Sort key that puts "2" before "10"."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", word)]


LAYOUTS = {
    "ferplus": read_ferplus,
    "rafdb": read_rafdb,
    "affectnet": read_affectnet,
    "sfew": read_sfew,
    "folder": read_folder,
}
