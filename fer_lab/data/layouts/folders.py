"""Data sets with one folder for each class: SFEW 2.0 (Dhall et al., ICCVW 2011) and any split/class/picture.

RAF-DB and AffectNet circulate in this form too, with class folders named by the set's own numbers.
"""

import re
from collections import Counter
from pathlib import Path

import numpy as np

from fer_lab.data.expressions import CANONICAL, ORDERS, canonical_name, class_names, numbers_of, order_of
from fer_lab.data.images import DataError
from fer_lab.data.layouts.listing import SPLIT_NAMES, Face, Listing, select, stored
from fer_lab.data.layouts.parsing import entries, pictures, some


def read_sfew(root: Path, num_classes: int | None, rule: str) -> Listing:
    """SFEW 2.0: {Train,Val,Test}/{Angry,Disgust,Fear,Happy,Neutral,Sad,Surprise}."""
    return read_class_folders("sfew", root, class_names(num_classes or len(order_of("sfew", num_classes))))


def read_folder(
    root: Path, num_classes: int | None, rule: str, order: str = "", test_share: float = 0.0
) -> Listing:
    """Any split/class/picture, or class/picture with a `test_share`.

    If every class is named after an expression, the classes take the canonical order. Numbers are read in the
    `order` of a data set. Otherwise the folder names are the classes, in their own order.
    """
    classes = class_names(num_classes) if num_classes in (7, 8) else None
    return read_class_folders("folder", root, classes, num_classes, order=order, test_share=test_share)


def split_folders(root: Path) -> dict[str, str]:
    """Folders of `root` that are named after a split → the split."""
    return {folder: SPLIT_NAMES[folder.lower()] for folder in entries(root)[0] if folder.lower() in SPLIT_NAMES}


def numbered_folder(root: Path) -> Path | None:
    """`root`, or a folder in it, that has splits with class folders named by numbers; None if there is none."""
    for base in (root, *(root / name for name in entries(root)[0])):
        for part in split_folders(base):
            if any(word.isdecimal() for word in entries(base / part)[0]):
                return base
    return None


def read_class_folders(
    name: str,
    root: Path,
    classes: tuple[str, ...] | None,
    num_classes: int | None = None,
    *,
    order: str = "",
    test_share: float = 0.0,
) -> Listing:
    """List split/class/picture, or class/picture with a `test_share`.

    Args:
        name: of the data set; only "folder" may have classes that are no expressions.
        classes: the classes in label order; None takes those that have a folder.
        num_classes: how many classes there have to be; None for any number.
        order: the data set whose numbers the class folders have; "" if they have names.
        test_share: 0 for folders with splits. Otherwise this share of each class, at least one face, becomes
            the test split. The choice is a function of the number of faces and a fixed seed.
    """
    parts = split_folders(root)
    if test_share:
        if parts or not 0 < test_share < 1:
            raise DataError(
                f"{root}: a test share of {test_share} was given; expected a number between 0 and 1, and class "
                f"folders without splits, but there are the splits {some(list(parts)) or 'none'}"
            )
        parts = {"": "train"}
    if not parts:
        raise DataError(
            f"{root}: expected folders named train, valid or test with a folder per class in each; class "
            "folders without splits are read with test_share=0.2 (--test-share 0.2)"
        )
    words_of = {part: entries(root / part)[0] for part in parts}
    words = sorted({word for inside in words_of.values() for word in inside}, key=_natural)
    # Folder name → class.
    class_of = _numbered(root, words, order) if order else {}
    if not order and name == "folder" and (numbers := [word for word in words if word.isdecimal()]):
        raise DataError(
            f"{root}: classes named by numbers: {some(numbers, 8)}; a number names another expression in every "
            f"data set. Name the set whose numbers these are, such as order='rafdb' (--faces-order rafdb; one "
            f"of {', '.join(ORDERS)}), or rename the folders to expressions"
        )
    unknown = []
    for word in () if order else words:
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
            splits = _cut(len(names), test_share) if test_share else [split] * len(names)
            folder = f"{part}/{word}" if part else word
            faces += [
                (stored(root, f"{folder}/{file}"), label, its) for file, its in zip(names, splits, strict=True)
            ]
    notes = [f"{others} other files are not pictures, judged by their names"] if others else []
    return select(name, root, faces, present, left_out=left_out, notes=notes)


def _numbered(root: Path, words: list[str], order: str) -> dict[str, str]:
    """Class folders named by a data set's numbers → class names."""
    try:
        numbers = numbers_of(order)
    except ValueError as error:
        raise DataError(str(error)) from None
    if wrong := [word for word in words if not word.isdecimal() or int(word) not in numbers]:
        raise DataError(
            f"{root}: class folders {some(wrong)}; the numbers of {order} run from {min(numbers)} to "
            f"{max(numbers)}, and a folder with any other name has no place among them"
        )
    return {word: numbers[int(word)] for word in words}


def _cut(count: int, test_share: float) -> list[str]:
    """The splits of a class's faces, at least one of which stays in training."""
    splits = np.full(count, "train", "<U5")
    held = min(max(1, round(test_share * count)), count - 1)
    splits[np.random.default_rng(0).permutation(count)[:held]] = "test"
    return splits.tolist()


def _natural(word: str) -> list[tuple[int, int, str]]:
    """Sort key that puts "2" before "10"."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", word)]
