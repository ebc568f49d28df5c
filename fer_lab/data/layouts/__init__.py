"""How each data set is stored on disk: its faces, their labels and splits. No picture is opened here.

Every reader returns a `Listing` with canonical labels. Label files come from strangers: each field is checked,
and an error names file and line.
"""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fer_lab.data.images import DataError
from fer_lab.data.layouts.affectnet import read_affectnet
from fer_lab.data.layouts.ferplus import read_ferplus
from fer_lab.data.layouts.folders import read_folder, read_sfew
from fer_lab.data.layouts.listing import RULES, Listing
from fer_lab.data.layouts.parsing import PACKED, entries, is_hidden, some
from fer_lab.data.layouts.rafdb import read_rafdb

LAYOUTS: dict[str, Callable[..., Listing]] = {
    "ferplus": read_ferplus,
    "rafdb": read_rafdb,
    "affectnet": read_affectnet,
    "sfew": read_sfew,
    "folder": read_folder,
}


def read_layout(
    name: str,
    root: str | Path,
    num_classes: int | None = None,
    label_rule: str = "majority",
    *,
    order: str = "",
    test_share: float = 0.0,
) -> Listing:
    """List a data set; the arguments are as of `load_dataset`.

    Raises DataError for an unknown name or rule, a missing folder or file, a set that is still packed, a wrong
    label file, no faces at all, or a class without a training face.
    """
    if name not in LAYOUTS:
        raise DataError(f"unknown data set {name!r}; expected one of {', '.join(LAYOUTS)}")
    if label_rule not in RULES:
        raise DataError(f"unknown label rule {label_rule!r}; expected one of {', '.join(RULES)}")
    if (order or test_share) and name != "folder":
        raise DataError(f"{name} has its own label order and splits; order and test_share are for folder alone")
    root = Path(root).expanduser()
    if not root.is_dir():
        packed = "; unpack it first" if root.suffix.lower() in PACKED else ""
        raise DataError(f"{root} is not a folder; expected the folder of {name}{packed}")
    # One folder has many names; the cache knows it by this one.
    root = root.resolve()
    extra = {"order": order, "test_share": test_share} if name == "folder" else {}
    try:
        listing = LAYOUTS[name](root, num_classes, label_rule, **extra)
    except DataError as error:
        if packed_files := [file for file in entries(root)[1] if Path(file).suffix.lower() in PACKED]:
            raise DataError(f"{error}. {some(packed_files, 3)} there is still packed: unpack it") from error
        raise
    folders = {os.path.dirname(source.path) for source in listing.sources} | {str(listing.root)}
    inside = (
        name for folder in sorted(folders) if os.path.isdir(folder) for name in sorted(os.listdir(folder))
    )
    # Next to the pictures and at the root.
    if hidden := [name for name in inside if is_hidden(name)]:
        listing.notes.append(f"{len(hidden)} hidden files and folders ignored: {some(hidden, 3)}")
    if not len(listing):
        raise DataError(
            f"no faces of {name} found in {root}; {'; '.join(listing.notes) or 'is it another data set?'}"
        )
    # Faces to test on may be of some classes alone.
    training = listing.labels[listing.splits == "train"]
    counts = np.bincount(training, minlength=len(listing.classes))
    if len(training) and (empty := [c for c, n in zip(listing.classes, counts, strict=True) if n == 0]):
        raise DataError(f"{root}: no train face of class {some(empty, 8)}; add faces, or leave the class out")
    return listing
