"""`Listing`, the faces of a data set before any picture is read, and what the readers of all layouts share."""

import os
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from fer_lab.data.cache import Stored
from fer_lab.data.images import DataError

RULES = ("largest", "majority", "votes")
# A picture, its label (−1 if it does not belong to the set), its split.
Face = tuple[Stored, int, str]
# Names of splits, as folders and file names spell them → ours.
SPLIT_NAMES = {
    name: split
    for split, names in {
        "train": ("train", "training", "train_set", "train_aligned_faces"),
        "valid": ("val", "valid", "validation", "val_set", "valid_set", "val_aligned_faces"),
        "test": ("test", "testing", "test_set"),
    }.items()
    for name in names
}


@dataclass(frozen=True, eq=False)
class Listing:
    """The faces of a data set, before any picture is read."""

    name: str
    root: Path  # file names are relative to it
    sources: list[Stored]  # M pictures, the same whatever the label rule and the number of classes
    rows: np.ndarray  # int64 [N], the sources that belong to the set; labels, splits and votes describe these
    labels: np.ndarray  # int64 [N], indices into `classes`
    splits: np.ndarray  # str [N], of `faces.SPLITS`
    classes: tuple[str, ...]  # C names in label order, canonical unless the set brings its own
    votes: np.ndarray | None = None  # float32 [N,C], rows sum to 1; None if the set has no votes
    rule: str = ""  # the label rule that was applied, "" for a set without rules
    left_out: dict[str, int] = field(default_factory=dict)  # reason → how many faces do not belong to the set
    notes: list[str] = field(default_factory=list)  # missing parts of the layout, files that do not belong

    def __len__(self) -> int:
        return len(self.labels)

    def at_most(self, count: int, seed: int) -> "Listing":
        """A choice of `count` faces in the same order, each class with its share in each split; all if fewer.

        Every class keeps at least one face in every split where it has any; DataError if `count` is too small
        for that. `sources` are the chosen faces'.
        """
        if count >= len(self):
            return self
        group = np.unique(self.splits, return_inverse=True)[1] * len(self.classes) + self.labels
        _, group, sizes = np.unique(group, return_inverse=True, return_counts=True)
        if count < len(sizes):
            raise DataError(
                f"{count} faces of {self.name} were asked for; expected at least {len(sizes)}, one for each "
                "class in each split"
            )
        kept = np.ones(len(sizes), int)
        while kept.sum() < count:
            kept[np.argmax(sizes * count / len(self) - kept)] += 1
        random = np.random.default_rng(seed)
        members = (np.flatnonzero(group == i) for i in range(len(sizes)))
        drawn = [random.permutation(faces)[:k] for faces, k in zip(members, kept, strict=True)]
        chosen = np.sort(np.concatenate(drawn))
        return replace(
            self,
            sources=[self.sources[row] for row in self.rows[chosen].tolist()],
            rows=np.arange(count),
            labels=self.labels[chosen],
            splits=self.splits[chosen],
            votes=None if self.votes is None else self.votes[chosen],
        )


def stored(root: Path, name: str) -> Stored:
    """The picture file `name` in `root`."""
    return Stored(name, os.path.join(root, name))


def select(
    name: str,
    root: Path,
    faces: list[Face],
    classes: tuple[str, ...],
    *,
    left_out: dict[str, int],
    notes: list[str],
    votes: np.ndarray | None = None,
    rule: str = "",
) -> Listing:
    """A `Listing` of the faces whose label is not −1; its `sources` are the pictures of all faces."""
    labels = np.array([label for _, label, _ in faces], np.int64)
    rows = np.flatnonzero(labels >= 0)
    return Listing(
        name=name,
        root=root,
        sources=[source for source, _, _ in faces],
        rows=rows,
        labels=labels[rows],
        splits=np.array([split for _, _, split in faces], "<U5")[rows],
        classes=classes,
        votes=votes,
        rule=rule,
        left_out={reason: count for reason, count in left_out.items() if count},
        notes=notes,
    )
