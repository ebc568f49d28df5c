"""Photographed faces as a FaceSet: RAF-DB, AffectNet, FER+, SFEW 2.0 and labelled folders.

`load_dataset` reads a layout and maps its decoded pictures into memory. `check_dataset` verifies every picture
and reports in one screen what is there and what is wrong. `layouts` reads label files, `images` decodes one
picture, `cache` keeps the decoded pictures on disk.
"""

import contextlib
import hashlib
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fer_lab.data.cache import Stored, for_each, load_pixels
from fer_lab.data.faces import SPLITS, FaceSet
from fer_lab.data.images import DataError
from fer_lab.data.layouts import read_layout
from fer_lab.data.layouts.parsing import some
from fer_lab.data.photographs import uncropped

# With more lines than these the counts would scroll off the screen.
MOST_CLASSES = 24
MOST_PROBLEMS = 10
# In so many pictures of a set a face is looked for, to see whether they are face crops. In smaller ones than
# this, a face that fills less than half is too small to be found.
LOOKED_AT, LEAST_SIDE = 8, 64


def load_dataset(
    name: str,
    root: str | Path,
    *,
    num_classes: int | None = None,
    label_rule: str = "majority",
    size: int | None = None,
    skip_bad: bool = False,
    cache: bool = True,
    order: str = "",
    test_share: float = 0.0,
    count: int | None = None,
    seed: int = 0,
) -> FaceSet:
    """Read a data set. The first call decodes every picture into a cache; later calls map the cache.

    The arguments are those of `load_faces`, whose `classes` and `rule` are `num_classes` and `label_rule` here;
    without `cache` the pictures are decoded into memory and nothing is written. Classes are in canonical order;
    folders may have others. The rule "votes" takes the faces of "largest", and all three fill `votes`. A `size`
    of None is the pictures' own side if all are square and equal, else 112. `count` keeps at least one face of
    every class and split; no other picture is decoded, and the kept ones have a cache of their own.
    `test_share` takes the same faces on every call; people may be on both sides.

    Subjects are −1, because none of these sets names its people. The fingerprint does not depend on the files'
    place or times. Warnings count pictures that are in more than one split, unreadable ones that `skip_bad`
    leaves out, and faces of contempt that seven classes leave out. They say if the pictures seem to be
    whole photographs, not face crops, and where FER+'s votes are missing and the faces are FER2013's, by name
    too. Raises DataError, which says which file is wrong, in what way, and what to do, and DiskFullError where
    there is no space for the cache.

    Example:
        >>> faces = load_dataset("rafdb", "~/data/RAF-DB")
        >>> train, test = faces.split("train"), faces.split("test")
    """
    if size is not None and not 8 <= size <= 1024:
        raise DataError(f"expected a size of 8 to 1024 pixels, got {size}")
    listing = read_layout(name, root, num_classes, label_rule, order=order, test_share=test_share)
    if listing.name != name:
        warnings.warn("; ".join(listing.notes), stacklevel=2)
    if contempt := listing.left_out.get("contempt"):
        warnings.warn(
            f"{contempt:,} faces of contempt in {name} left out: seven classes do not have it", stacklevel=2
        )
    part = ""
    if count is not None and count < (total := len(listing)):
        listing = listing.at_most(count, seed)
        kept = repr([tuple(source) for source in listing.sources])
        part = hashlib.sha256(kept.encode("utf-8", "surrogateescape")).hexdigest()[:8]
        warnings.warn(
            f"{count:,} of the {total:,} faces of {listing.name} are used, chosen by seed {seed}: every class "
            "has its share of every split",
            stacklevel=2,
        )
    pixels = load_pixels(name, listing.root, listing.sources, size, part=part, cache=cache)
    readable = np.array([row not in pixels.bad for row in listing.rows.tolist()])
    if not readable.all():
        reasons = [pixels.bad[row] for row in listing.rows[~readable].tolist()]
        if not (skip_bad and readable.any()):
            raise DataError(
                f"{len(reasons):,} of {len(listing):,} pictures cannot be read: {some(reasons)}; repair or "
                "replace them, or leave them out with skip_bad=True (--skip-bad)"
            )
        warnings.warn(
            f"{len(reasons):,} of {len(listing):,} unreadable pictures left out: {some(reasons)}", stacklevel=2
        )
    rows, labels, splits = (part[readable] for part in (listing.rows, listing.labels, listing.splits))
    where = dict(zip(rows.tolist(), splits.tolist(), strict=True))
    if leaked := sum(len({where[row] for row in group if row in where}) > 1 for group in pixels.twins):
        warnings.warn(
            f"pictures of {name} that are in more than one split, byte for byte: {leaked:,}; results on them "
            f"are too good (`fer-lab data check {name}` has the details)",
            stacklevel=2,
        )
    if photographs := _uncropped([listing.sources[row] for row in rows.tolist()]):
        warnings.warn(f"pictures of {name}: {photographs}", stacklevel=2)
    about = (listing.name, listing.rule, listing.classes, pixels.storage.shape[-1], pixels.digest)
    return FaceSet(
        storage=pixels.storage,
        labels=torch.from_numpy(labels),
        classes=listing.classes,
        splits=splits,
        subjects=torch.full((len(rows),), -1),
        name=listing.name,
        fingerprint=hashlib.sha256(repr(about).encode() + rows.tobytes() + labels.tobytes()).hexdigest()[:16],
        rows=torch.from_numpy(rows),
        files=np.array([listing.sources[row].name for row in rows.tolist()]),
        votes=None if listing.votes is None else torch.from_numpy(listing.votes[readable]),
    )


def _uncropped(sources: Sequence[Stored]) -> str:
    """What `uncropped` says of up to `LOOKED_AT` pictures of a set, from the first to the last."""
    places = np.linspace(0, len(sources) - 1, min(LOOKED_AT, len(sources))).astype(int)
    pictures = []
    for source in (sources[place] for place in places.tolist()):
        with contextlib.suppress(DataError):  # told elsewhere
            if min(source.side()) >= LEAST_SIDE:
                pictures.append(source.decode(source.read()))
    return uncropped(pictures)


@dataclass(frozen=True, eq=False)
class DatasetReport:
    """The result of `check_dataset`; pictures are the same if they are so byte for byte."""

    name: str
    root: Path
    rule: str  # "" for a set without label rules
    counts: dict[str, dict[str, int]]  # split → class → readable faces
    left_out: dict[str, int]  # reason → faces that the label rule or the number of classes excludes
    bad: list[str]  # one message for each unreadable or missing picture
    notes: list[str]  # missing parts of the layout, files that do not belong to it
    leaked: int  # number of different pictures that are in two splits or more,
    repeated: int  # that are twice or more in one split,
    relabelled: int  # that occur with different labels
    sizes: dict[tuple[int, int], int]  # (width, height) → number of pictures
    seconds: float  # duration of the check

    @property
    def ok(self) -> bool:
        """True if every picture can be read and none is in two splits."""
        return not self.bad and not self.leaked

    def text(self) -> str:
        """The report, at most one screen long."""
        rule = f", label rule {self.rule}" if self.rule else ""
        lines = [f"{self.name} in {self.root}{rule}", "", *self._table(), ""]
        if self.left_out:
            reasons = ", ".join(f"{reason} {count:,}" for reason, count in self.left_out.items())
            lines.append(f"left out by the rules: {reasons}")
        total = sum(self.sizes.values())
        shown = [f"{width}×{height}" for (width, height), _ in Counter(self.sizes).most_common()]
        lines.append(f"verified: {total:,} pictures decoded in {self.seconds:.1f} s, {some(shown, 3)} px")
        lines += [f"note: {note}" for note in self.notes[:MOST_PROBLEMS]]
        if self.leaked:
            lines.append(f"LEAKAGE: pictures in more than one split, byte for byte: {self.leaked:,}")
        if self.repeated:
            lines.append(
                f"note: pictures more than once in a split: {self.repeated:,}; repeated pictures with "
                f"different labels: {self.relabelled:,}"
            )
        if self.bad:
            lines.append(f"UNREADABLE pictures: {len(self.bad):,}")
            lines += [f"  {reason}" for reason in self.bad[:MOST_PROBLEMS]]
            if len(self.bad) > MOST_PROBLEMS:
                lines.append(f"  … and {len(self.bad) - MOST_PROBLEMS:,} more")
            lines.append("repair or replace them; --skip-bad leaves them out")
        else:
            lines.append("every picture can be read")
        return "\n".join(lines)

    def _table(self) -> list[str]:
        columns = list(self.counts.values())
        classes = list(columns[0])
        rows = [(name, [column[name] for column in columns]) for name in classes[:MOST_CLASSES]]
        rows.append(("all", [sum(column.values()) for column in columns]))
        width = max(len("class"), *(len(name) for name, _ in rows))
        lines = [f"{name:<{width}}" + "".join(f"{number:>9,}" for number in numbers) for name, numbers in rows]
        if len(classes) > MOST_CLASSES:
            lines.insert(-1, f"… and {len(classes) - MOST_CLASSES} more classes")
        return [f"{'class':<{width}}" + "".join(f"{split:>9}" for split in self.counts), *lines]


def check_dataset(
    name: str,
    root: str | Path,
    *,
    label_rule: str = "majority",
    order: str = "",
    test_share: float = 0.0,
) -> DatasetReport:
    """Read a layout, decode every picture, count, and search for pictures that occur twice.

    The arguments are those of `load_dataset`. Raises DataError if the layout cannot be read at all.
    """
    started = time.monotonic()
    listing = read_layout(name, root, label_rule=label_rule, order=order, test_share=test_share)

    def verify(source: Stored) -> tuple[bytes, tuple[int, int]]:
        data = source.read()
        return hashlib.blake2b(data, digest_size=16).digest(), source.decode(data).size

    bad, readable = [], []
    sizes: Counter[tuple[int, int]] = Counter()
    places: dict[bytes, list[int]] = {}
    chosen = [listing.sources[row] for row in listing.rows.tolist()]
    for index, result in enumerate(for_each(chosen, verify, "verifying")):
        if isinstance(result, DataError):
            bad.append(str(result))
            continue
        digest, size = result
        places.setdefault(digest, []).append(index)
        sizes[size] += 1
        readable.append(index)
    seconds = time.monotonic() - started
    twice = [np.array(indices) for indices in places.values() if len(indices) > 1]
    counts = {}
    for split in (split for split in SPLITS if (listing.splits == split).any()):
        labels = listing.labels[readable][listing.splits[readable] == split]
        numbers = np.bincount(labels, minlength=len(listing.classes)).tolist()
        counts[split] = dict(zip(listing.classes, numbers, strict=True))
    empty = {split: [name for name, n in inside.items() if not n] for split, inside in counts.items()}
    gaps = [f"no {split} face of {some(names, 8)}" for split, names in empty.items() if names]
    framing = _uncropped([chosen[index] for index in readable])
    return DatasetReport(
        name=listing.name,
        root=Path(root),
        rule=listing.rule,
        counts=counts,
        left_out=listing.left_out,
        bad=bad,
        notes=[framing] * bool(framing) + listing.notes + gaps,
        leaked=sum(len(set(listing.splits[indices])) > 1 for indices in twice),
        repeated=sum(len(set(listing.splits[indices])) < len(indices) for indices in twice),
        relabelled=sum(len(set(listing.labels[indices])) > 1 for indices in twice),
        sizes=dict(sizes),
        seconds=seconds,
    )
