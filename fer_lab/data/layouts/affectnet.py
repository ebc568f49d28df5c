"""AffectNet (Mollahosseini et al., IEEE TAC 2019): folders with an annotation file per face, or CSV lists.

Copies with class folders named by AffectNet's numbers are read too.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fer_lab.data.expressions import class_names, order_of, to_canonical
from fer_lab.data.images import DataError
from fer_lab.data.layouts import parsing
from fer_lab.data.layouts.folders import numbered_folder, read_class_folders
from fer_lab.data.layouts.listing import SPLIT_NAMES, Listing, select, stored

# The distributed validation.csv exists with and without this line.
COLUMNS = [
    "subDirectory_filePath", "face_x", "face_y", "face_width", "face_height", "facial_landmarks", "expression",
    "valence", "arousal",
]  # fmt: skip
VALID_SETS = ("val_set", "valid_set")
# File name below the root, AffectNet's own label, split.
Named = tuple[str, int, str]


def read_affectnet(root: Path, num_classes: int | None, rule: str) -> Listing:
    """Read {train,val}_set with annotations, or training.csv and validation.csv; pictures are not cropped.

    Also {train,valid}_set/{0…7} and folders named train, val or test with such class folders in them.
    Labels of 8 and above mark pictures that show no expression, or no face. They are left out.
    """
    notes: list[str] = []
    if base := numbered_folder(root):
        classes = class_names(num_classes) if num_classes else None
        return read_class_folders("affectnet", base, classes, num_classes, order="affectnet")
    if base := parsing.first_folder(root, ("",), ("train_set", *VALID_SETS)):
        listed = list(_faces_in_folders(base, notes))
    elif base := parsing.first_folder(
        root, ("", "Manual_Labels", "Manually_Annotated_file_lists"), ("training.csv",)
    ):
        listed = list(_faces_in_tables(root, base, notes))
    else:
        raise DataError(
            f"{root}: expected AffectNet's train_set and val_set with images and annotations or with class "
            "folders 0…7, or its training.csv and validation.csv; found none of them"
        )
    order = order_of("affectnet", num_classes)
    table = [label if label < len(order) else -1 for label in to_canonical("affectnet").tolist()]
    # A third of the manual lists shows no expression. These pictures would only fill the cache.
    faces = [(stored(root, name), table[own], split) for name, own, split in listed if own < len(table)]
    left_out = {"no expression": len(listed) - len(faces), "contempt": sum(label < 0 for _, label, _ in faces)}
    return select("affectnet", root, faces, class_names(len(order)), left_out=left_out, notes=notes)


def _faces_in_folders(root: Path, notes: list[str]) -> Iterator[Named]:
    for part in ("train_set", next((name for name in VALID_SETS if (root / name).is_dir()), "val_set")):
        if not (root / part).is_dir():
            notes.append(f"{part} is not there: no {SPLIT_NAMES[part]} faces")
            continue
        for name in parsing.pictures(root / part / "images")[0]:
            path = root / part / "annotations" / f"{os.path.splitext(name)[0]}_exp.npy"
            label = parsing.whole_number(_annotation(path), 0, 10, f"{path}, expression")
            yield f"{part}/images/{name}", label, SPLIT_NAMES[part]


def _annotation(path: Path) -> str:
    """The one value in an annotation file as text; the files hold a number or its text."""
    try:
        if path.exists() and not path.is_file():
            raise DataError(f"{path} is not a regular file; expected one number")
        if path.stat().st_size > 4096:
            raise DataError(f"{path}: expected one number, got {path.stat().st_size:,} bytes")
        value = np.load(path, allow_pickle=False)
        return str(value.reshape(-1)[0]) if value.size == 1 else f"{value.size} values"
    except FileNotFoundError:
        raise DataError(f"{path} is missing; expected an annotation for every picture") from None
    except DataError:
        raise
    # A damaged header makes numpy raise SyntaxError, MemoryError, tokenize's errors and others.
    except Exception as error:
        raise DataError(f"{path} is not an array of one number ({error}); download it again") from error


def _faces_in_tables(root: Path, base: Path, notes: list[str]) -> Iterator[Named]:
    inner = parsing.first_folder(
        root, ("Manually_Annotated/Manually_Annotated_Images", "Manually_Annotated_Images"), ("",)
    )
    prefix = "" if inner is None else inner.relative_to(root).as_posix() + "/"
    for table, split in (("training.csv", "train"), ("validation.csv", "valid")):
        if not (base / table).exists():
            notes.append(f"{table} is not there: no {split} faces")
            continue
        columns: list[str] = []
        for line, row in parsing.rows_of(base / table):
            where = f"{base / table}, line {line}"
            if not columns:
                header = "expression" in row
                columns = row if header else COLUMNS
                if "subDirectory_filePath" not in columns:
                    raise DataError(
                        f"{where}: expected a column subDirectory_filePath, got {parsing.some(columns)}"
                    )
                if header:
                    continue
            parsing.expect_columns(row, len(columns), where)
            cells = dict(zip(columns, row, strict=True))
            label = parsing.whole_number(cells["expression"], 0, 10, f"{where}, expression")
            name = parsing.safe_name(cells["subDirectory_filePath"], f"{where}, subDirectory_filePath")
            yield prefix + name, label, split
