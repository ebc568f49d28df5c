"""RAF-DB's basic part (Li & Deng, CVPR 2017): one label file and a folder of aligned faces."""

import os
from pathlib import Path

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
from fer_lab.data.layouts.listing import SPLIT_NAMES, Face, Listing, select, source


def read_rafdb(root: Path, num_classes: int | None, rule: str) -> Listing:
    """Read EmoLabel/list_patition_label.txt (spelled so) and list Image/aligned/*_aligned.jpg.

    The labels count from 1 in RAF-DB's own order; the file names begin with their split.
    """
    base = first_folder(root, ("", "basic"), ("EmoLabel", "Image")) or root
    label_file = base / "EmoLabel" / "list_patition_label.txt"
    if not label_file.is_file():
        raise DataError(f"{label_file} is missing; expected RAF-DB's folder, with EmoLabel and Image in it")
    folder = base / "Image" / "aligned"
    if not folder.is_dir():
        raise DataError(f"{folder} is missing; expected RAF-DB's aligned faces there")
    table = to_canonical("rafdb", num_classes).tolist()
    faces: list[Face] = []
    seen: set[str] = set()
    for line, text in lines_of(label_file):
        where = f"{label_file}, line {line}"
        name, *label = text.rsplit(maxsplit=1)
        if not label:
            raise DataError(f"{where}: expected a file name and a label, got {text[:80]!r}")
        name = unseen(safe_name(name, f"{where}, file name"), seen, where)
        own = whole_number(label[0], 1, len(table), f"{where}, label")
        split = SPLIT_NAMES.get(name.partition("_")[0])
        if split is None:
            raise DataError(f"{where}: expected a name that begins with train_ or test_, got {name!r}")
        stem, suffix = os.path.splitext(name)
        faces.append((source(base, f"Image/aligned/{stem}_aligned{suffix}"), table[own - 1], split))
    notes = unlisted(folder, {os.path.basename(face.name) for face, _, _ in faces}, label_file.name)
    return select("rafdb", base, faces, class_names(len(table)), left_out={}, notes=notes)
