"""RAF-DB's basic part (Li & Deng, CVPR 2017): one label file and a folder of aligned faces.

On Kaggle it circulates as class folders named by RAF-DB's numbers.
"""

import os
from pathlib import Path

from fer_lab.data.expressions import class_names, to_canonical
from fer_lab.data.images import DataError
from fer_lab.data.layouts import parsing
from fer_lab.data.layouts.folders import numbered_folder, read_class_folders
from fer_lab.data.layouts.listing import SPLIT_NAMES, Face, Listing, select, stored


def read_rafdb(root: Path, num_classes: int | None, rule: str) -> Listing:
    """Read EmoLabel/list_patition_label.txt (spelled so) and list Image/aligned/*_aligned.jpg.

    The labels count from 1 in RAF-DB's own order; the file names begin with their split. Without these two
    folders, {train,test}/{1…7} is read, also inside a folder such as DATASET.
    """
    table = to_canonical("rafdb", num_classes).tolist()
    base = parsing.first_folder(root, ("", "basic"), ("EmoLabel", "Image"))
    if base is None and (folders := numbered_folder(root)):
        listing = read_class_folders("rafdb", folders, class_names(len(table)), order="rafdb")
        _check_tables(listing)
        return listing
    base = base or root
    label_file = base / "EmoLabel" / "list_patition_label.txt"
    if not label_file.is_file():
        raise DataError(
            f"{label_file} is missing; expected RAF-DB's folder, with EmoLabel and Image in it, or with class "
            "folders train/1…7 and test/1…7"
        )
    folder = base / "Image" / "aligned"
    if not folder.is_dir():
        raise DataError(f"{folder} is missing; expected RAF-DB's aligned faces there")
    faces: list[Face] = []
    seen: set[str] = set()
    for line, text in parsing.lines_of(label_file):
        where = f"{label_file}, line {line}"
        name, *label = text.rsplit(maxsplit=1)
        if not label:
            raise DataError(f"{where}: expected a file name and a label, got {text[:80]!r}")
        name = parsing.unseen(parsing.safe_name(name, f"{where}, file name"), seen, where)
        own = parsing.whole_number(label[0], 1, len(table), f"{where}, label")
        split = SPLIT_NAMES.get(name.partition("_")[0])
        if split is None:
            raise DataError(f"{where}: expected a name that begins with train_ or test_, got {name!r}")
        stem, suffix = os.path.splitext(name)
        faces.append((stored(base, f"Image/aligned/{stem}_aligned{suffix}"), table[own - 1], split))
    notes = parsing.unlisted(folder, {os.path.basename(face.name) for face, _, _ in faces}, label_file.name)
    return select("rafdb", base, faces, class_names(len(table)), left_out={}, notes=notes)


def _check_tables(listing: Listing) -> None:
    """Compare the class folders with {train,test}_labels.csv, where these lie next to them."""
    number_of = {os.path.basename(face.path): Path(face.path).parent.name for face in listing.sources}
    for path in (listing.root / f"{split}_labels.csv" for split in ("train", "test")):
        for line, row in parsing.rows_of(path) if path.is_file() else ():
            folder = number_of.get(row[0])
            if folder and row[1:] != [folder]:
                raise DataError(
                    f"{path}, line {line}: {row[0]} has the label {', '.join(row[1:])}, but is in the folder "
                    f"{folder}; expected the same number in both"
                )
