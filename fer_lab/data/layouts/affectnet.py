"""TODO."""

import os
from pathlib import Path

import numpy as np

from fer_lab.data.expressions import class_names, order_of, to_canonical
from fer_lab.data.images import DataError
from fer_lab.data.layouts.label_files import (
    expect_columns,
    first_folder,
    pictures,
    rows_of,
    safe_name,
    some,
    whole_number,
)
from fer_lab.data.layouts.listing import SPLIT_NAMES, Listing, select, source

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
