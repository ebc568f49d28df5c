"""TODO."""

import re
from collections import Counter
from pathlib import Path

import numpy as np

from fer_lab.data.expressions import ALIASES, CANONICAL, class_names, order_of
from fer_lab.data.images import DataError
from fer_lab.data.layouts.label_files import entries, pictures, some
from fer_lab.data.layouts.listing import SPLIT_NAMES, Listing, select, source

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
