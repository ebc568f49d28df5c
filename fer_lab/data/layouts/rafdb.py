"""TODO."""

import os
from pathlib import Path

import numpy as np

from fer_lab.data.expressions import class_names, to_canonical
from fer_lab.data.images import DataError
from fer_lab.data.layouts.label_files import (
    first_folder,
    lines_of,
    safe_name,
    unlisted,
    unseen,
    whole_number,
)
from fer_lab.data.layouts.listing import SPLIT_NAMES, Listing, select, source

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
