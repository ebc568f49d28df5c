"""TODO."""

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fer_lab.data.cache import Source

RULES = ("largest", "majority", "votes")
# What follows the eight classes in FER+'s votes.
NO_CLASS = ("unknown", "not a face")
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "train_set": "train",
    "train_aligned_faces": "train",
    "val": "valid",
    "valid": "valid",
    "validation": "valid",
    "val_set": "valid",
    "val_aligned_faces": "valid",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True, eq=False)
class Listing:
    """The faces of a data set, before any picture is read.

    Attributes:
        name: the data set's.
        root: its folder, which names are relative to.
        sources: where pictures lie; M of them, the same whatever the label rule and number of classes.
        rows: int64 [N], which of them belong to the set; the fields below tell of these.
        labels: int64 [N], canonical, or into the set's own classes.
        splits: str [N].
        classes: C names in label order.
        votes: float32 [N,C], rows sum to 1, or None.
        rule: label rule that was applied, "" where the set has none.
        left_out: reason → how many faces have no place in this set.
        notes: what of the layout is not there, and files that do not belong to it.
    """

    name: str
    root: Path
    sources: list[Source]
    rows: np.ndarray
    labels: np.ndarray
    splits: np.ndarray
    classes: tuple[str, ...]
    votes: np.ndarray | None = None
    rule: str = ""
    left_out: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.labels)


def source(root: Path, name: str) -> Source:
    return Source(name, os.path.join(root, name))


def select(name: str, root: Path, sources, labels, keep, splits, classes, **more) -> Listing:
    """A listing of the sources where `keep` [M] is true; labels and splits [M] are of all sources."""
    rows = np.flatnonzero(keep)
    return Listing(
        name=name,
        root=root,
        sources=sources,
        rows=rows,
        labels=np.asarray(labels, np.int64)[rows],
        splits=np.asarray(splits, dtype="<U5")[rows],
        classes=classes,
        **more,
    )
