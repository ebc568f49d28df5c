"""Drawn faces in the layouts of the real data sets: enough to train on, and nobody's photograph."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from fer_lab.data import CANONICAL, SyntheticFaces
from fer_lab.data.expressions import numbers_of, order_of
from helpers.small_sets import SFEW_FOLDERS, ferplus_row, votes_for

# A layout, or "folder8" → its splits, its classes and the side of its pictures.
SHAPES: dict[str, tuple[tuple[str, ...], int, int]] = {
    "rafdb": (("train", "test"), 7, 100),
    "ferplus": (("train", "valid", "test"), 8, 48),
    "affectnet": (("train", "valid"), 8, 112),
    "sfew": (("train", "valid"), 7, 112),
    "folder": (("train", "test"), 7, 64),
    "folder8": (("train", "valid", "test"), 8, 64),
}


def dataset_of(layout: str) -> str:
    """The name that `load_faces` knows a layout by."""
    return layout.rstrip("8")


def write_drawn(root: Path, layout: str, each: int = 16, fewer: int = 8) -> Path:
    """About `each` training faces a class and `fewer` in each other split, in a layout of `SHAPES`."""
    splits, classes, _ = SHAPES[layout]
    for split in splits:
        number = classes * (each if split == "train" else fewer)
        {"rafdb": _rafdb, "ferplus": _ferplus, "affectnet": _affectnet, "sfew": _sfew}.get(layout, _folder)(
            root, split, list(_faces(layout, split, number))
        )
    return root


def _faces(layout: str, split: str, number: int) -> Iterator[tuple[Image.Image, str]]:
    """(picture, class name) of drawn faces; the splits are of different people."""
    splits, classes, size = SHAPES[layout]
    faces = SyntheticFaces(number, splits.index(split), size, classes, imbalance=0)
    for image, label in zip(faces.images, faces.labels.tolist(), strict=True):
        yield Image.fromarray(image.permute(1, 2, 0).numpy()), CANONICAL[label]


def _save(picture: Image.Image, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    picture.save(file)


def _rafdb(root: Path, split: str, faces: list[tuple[Image.Image, str]]) -> None:
    number = {name: own for own, name in numbers_of("rafdb").items()}
    (root / "EmoLabel").mkdir(parents=True, exist_ok=True)
    with open(root / "EmoLabel" / "list_patition_label.txt", "a") as lines:
        for i, (picture, name) in enumerate(faces, 1):
            lines.write(f"{split}_{i:05d}.jpg {number[name]}\n")
            _save(picture, root / "Image" / "aligned" / f"{split}_{i:05d}_aligned.jpg")


def _ferplus(root: Path, split: str, faces: list[tuple[Image.Image, str]]) -> None:
    folder = root / f"FER2013{split.capitalize()}"
    rows = []
    for i, (picture, name) in enumerate(faces):
        _save(picture.convert("L"), folder / f"fer{i:07d}.png")
        rows.append(ferplus_row(f"fer{i:07d}.png", votes_for(CANONICAL.index(name))))
    (folder / "label.csv").write_text("".join(rows))


def _affectnet(root: Path, split: str, faces: list[tuple[Image.Image, str]]) -> None:
    folder = root / {"train": "train_set", "valid": "val_set"}[split]
    (folder / "annotations").mkdir(parents=True)
    for i, (picture, name) in enumerate(faces):
        _save(picture, folder / "images" / f"{i}.jpg")
        np.save(folder / "annotations" / f"{i}_exp.npy", np.array(order_of("affectnet").index(name)))


def _sfew(root: Path, split: str, faces: list[tuple[Image.Image, str]]) -> None:
    folder = root / {"train": "Train", "valid": "Val"}[split]
    for i, (picture, name) in enumerate(faces):
        _save(picture, folder / SFEW_FOLDERS[order_of("sfew").index(name)] / f"scene {i}.png")


def _folder(root: Path, split: str, faces: list[tuple[Image.Image, str]]) -> None:
    for i, (picture, name) in enumerate(faces):
        _save(picture, root / split / name / f"{i}.png")
