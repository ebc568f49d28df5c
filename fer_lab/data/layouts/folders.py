"""Data sets with one folder for each class: SFEW 2.0 (Dhall et al., ICCVW 2011) and any split/class/picture."""

import re
from collections import Counter
from pathlib import Path

from fer_lab.data.expressions import CANONICAL, canonical_name, class_names, order_of
from fer_lab.data.images import DataError
from fer_lab.data.layouts.label_files import entries, pictures, some
from fer_lab.data.layouts.listing import SPLIT_NAMES, Face, Listing, select, source


def read_sfew(root: Path, num_classes: int | None, rule: str) -> Listing:
    """SFEW 2.0: {Train,Val,Test}/{Angry,Disgust,Fear,Happy,Neutral,Sad,Surprise}."""
    return _read_folders("sfew", root, class_names(num_classes or len(order_of("sfew", num_classes))))


def read_folder(root: Path, num_classes: int | None, rule: str) -> Listing:
    """Any split/class/picture.

    If every class is named after an expression, the classes take the canonical order. Otherwise the folder
    names are the classes, in their own order.
    """
    classes = class_names(num_classes) if num_classes in (7, 8) else None
    return _read_folders("folder", root, classes, num_classes)


def _read_folders(
    name: str, root: Path, classes: tuple[str, ...] | None, num_classes: int | None = None
) -> Listing:
    parts = {
        folder: SPLIT_NAMES[folder.lower()] for folder in entries(root)[0] if folder.lower() in SPLIT_NAMES
    }
    if not parts:
        raise DataError(f"{root}: expected folders named train, valid or test with a folder per class in each")
    words_of = {part: entries(root / part)[0] for part in parts}
    words = sorted({word for inside in words_of.values() for word in inside}, key=_natural)
    # Folder name → class.
    class_of: dict[str, str] = {}
    unknown = []
    for word in words:
        try:
            class_of[word] = canonical_name(word)
        except ValueError:
            unknown.append(word)
    if unknown and name != "folder":
        raise DataError(
            f"{root}: folders that name no expression: {some(unknown)}; expected {', '.join(CANONICAL)}"
        )
    if unknown:
        # A figure would read the text between two $ as a formula.
        if odd := [word for word in words if not word.isprintable() or "$" in word]:
            raise DataError(f"{root}: classes named {some(odd)}; rename them to printable names without $")
        class_of = {word: word for word in words}
        present = tuple(words)
    else:
        present = classes or tuple(c for c in CANONICAL if c in class_of.values())
    if num_classes not in (None, len(present)):
        raise DataError(f"{root}: expected {num_classes} classes, got {len(present)} ({some(present)})")
    faces: list[Face] = []
    others = 0
    left_out: Counter[str] = Counter()
    for part, split in parts.items():
        for word in words_of[part]:
            names, not_pictures = pictures(root / part / word)
            others += not_pictures
            if not names:
                raise DataError(f"{root / part / word} holds no picture; add faces, or remove the folder")
            label = present.index(class_of[word]) if class_of[word] in present else -1
            if label < 0:
                left_out[class_of[word]] += len(names)
            faces += [(source(root, f"{part}/{word}/{file}"), label, split) for file in names]
    notes = [f"{others} other files are not pictures, judged by their names"] if others else []
    return select(name, root, faces, present, left_out=left_out, notes=notes)


def _natural(word: str) -> list[tuple[int, int, str]]:
    """Sort key that puts "2" before "10"."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", word)]
