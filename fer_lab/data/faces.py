"""`FaceSet`, a labelled set of faces, and `FaceBatch`, the part of it that one training step gets."""

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    import pandas as pd

# Bit i of FaceSet.regions marks the pixels of REGIONS[i]; "moved" marks the skin that active units move.
REGIONS = ("brows", "eyes", "nose", "cheeks", "mouth", "moved")
SPLITS = ("train", "valid", "test")
# Fields of FaceSet that have one entry per face, besides attributes.
_TENSORS = ("labels", "rows", "subjects", "votes", "true_labels", "action_units", "landmarks")
_ALIGNED = (*_TENSORS, "splits", "files")


@dataclass(frozen=True, eq=False)
class FaceSet:
    """Faces, their labels, and everything else that is known about them.

    The pixels exist once: `subset`, `split` and `holdout` share `storage` and keep row numbers. `take` reads
    pixels, and copies only the faces that it returns. Raises ValueError for a wrong shape, a label or split out
    of range, or a field of another length.
    """

    storage: torch.Tensor  # uint8 [M,3,S,S], possibly a read-only memory map on disk
    labels: torch.Tensor  # int64 [N], indices into `classes`; noisy if the renderer added label noise
    classes: tuple[str, ...]  # C class names in label order
    splits: np.ndarray  # str [N], of `SPLITS`
    subjects: torch.Tensor  # int64 [N], the person's number, -1 if unknown
    name: str  # the set's name in tables ("ferplus", "synthetic", …)
    fingerprint: str  # hex digest that changes when the source, the label rule or a knob changes
    # int64 [N], row of `storage` of each face; __post_init__ fills in 0…N-1.
    rows: torch.Tensor = None  # type: ignore[assignment]
    files: np.ndarray | None = None  # str [N], names relative to the data set's root; None for rendered faces
    votes: torch.Tensor | None = None  # float32 [N,C] annotators' vote shares, rows sum to 1
    true_labels: torch.Tensor | None = None  # int64 [N], before label noise; None for photographs
    action_units: torch.Tensor | None = None  # float32 [N,U,2], intensities 0…1, left and right of the face
    landmarks: torch.Tensor | None = None  # float32 [N,68,2], x, y in pixels of the stored image, iBUG order
    regions: torch.Tensor | None = None  # uint8 [M,S,S], bit i is set if the pixel belongs to `REGIONS[i]`
    attributes: "pd.DataFrame | None" = None  # one row per face (skin tone, glasses, …)
    knobs: dict[str, Any] = field(default_factory=dict)  # the renderer's settings

    def __post_init__(self) -> None:
        n = len(self.labels)
        if self.rows is None:
            object.__setattr__(self, "rows", torch.arange(n))
        if self.storage.dtype != torch.uint8 or self.storage.ndim != 4 or self.storage.shape[1] != 3:
            raise ValueError(
                f"images must be uint8 [N,3,S,S], got {self.storage.dtype} {list(self.storage.shape)}"
            )
        for key in (*_ALIGNED, "attributes"):
            value = getattr(self, key)
            if value is not None and len(value) != n:
                raise ValueError(f"{key} has {len(value)} entries for {n} faces")
        if n and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < len(self.classes):
            raise ValueError(
                f"labels run from {int(self.labels.min())} to {int(self.labels.max())}, "
                f"but there are {len(self.classes)} classes (0 to {len(self.classes) - 1})"
            )
        if unknown := set(np.unique(self.splits)) - set(SPLITS):
            raise ValueError(f"unknown splits {sorted(unknown)}; expected {SPLITS}")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def image_size(self) -> int:
        """Side S of the stored images, in pixels."""
        return self.storage.shape[-1]

    @property
    def images(self) -> torch.Tensor:
        """uint8 [N,3,S,S]; shares memory with `storage` if the set has all its faces in order, else a copy."""
        if len(self) == len(self.storage) and torch.equal(self.rows, torch.arange(len(self))):
            return self.storage
        return self.storage[self.rows]

    def take(self, indices: torch.Tensor | Sequence[int]) -> torch.Tensor:
        """Copy the images at `indices` (any shape) → uint8 [*indices.shape,3,S,S]."""
        return self.storage[self.rows[torch.as_tensor(indices)]]

    def region_masks(self, indices: torch.Tensor | Sequence[int]) -> torch.Tensor:
        """Masks at `indices` [B] → bool [B,R,S,S], in the order of `REGIONS`; ValueError for photographs."""
        if self.regions is None:
            raise ValueError(f"{self.name} has no region masks; only rendered faces do")
        packed = self.regions[self.rows[torch.as_tensor(indices)]]
        bits = torch.arange(len(REGIONS), dtype=torch.uint8)[:, None, None]
        return (packed[:, None] >> bits & 1).bool()

    def subset(self, indices: torch.Tensor | np.ndarray | Sequence[int]) -> "FaceSet":
        """The faces at `indices` (int64 [K] or bool [N]), in that order, with a fingerprint of their own."""
        indices = torch.as_tensor(np.asarray(indices))
        if indices.dtype == torch.bool:
            indices = indices.nonzero().squeeze(1)
        positions = indices.long().numpy()
        digest = hashlib.sha256(self.fingerprint.encode() + positions.tobytes()).hexdigest()[:16]
        known = {key: getattr(self, key) for key in _ALIGNED if getattr(self, key) is not None}
        chosen = {key: value[positions] for key, value in known.items()}
        if self.attributes is not None:
            chosen["attributes"] = self.attributes.iloc[positions].reset_index(drop=True)
        return dataclasses.replace(self, **chosen, fingerprint=digest)

    def reported_split(self) -> str:
        """The split that results are reported on: "test" for rendered faces and RAF-DB.

        Data sets of photographs that have "valid" faces report those: AffectNet, SFEW and FER+.
        """
        return "valid" if self.name != "synthetic" and (self.splits == "valid").any() else "test"

    def split(self, name: str) -> "FaceSet":
        """The faces of one split; ValueError if the set has none."""
        chosen = self.splits == name
        if not chosen.any():
            raise ValueError(f"{self.name} has no {name!r} faces; it has {', '.join(np.unique(self.splits))}")
        return self.subset(chosen)

    def thin_train(self, share: float, seed: int = 0) -> "FaceSet":
        """Keep a share of the training faces of every class, at least one, and all faces of other splits.

        A smaller share is part of a larger one of the same seed. ValueError for a share outside (0, 1].
        """
        if not 0 < share <= 1:
            raise ValueError(f"train_share must be above 0 and at most 1, got {share}")
        generator = torch.Generator().manual_seed(seed)
        training = torch.from_numpy(self.splits == "train")
        kept = ~training
        for label in range(self.num_classes):
            members = (training & (self.labels == label)).nonzero().squeeze(1)
            order = members[torch.randperm(len(members), generator=generator)]
            kept[order[: max(1, round(share * len(members)))]] = True
        return self.subset(kept)

    def holdout(self, fraction: float = 0.1, seed: int = 0) -> tuple["FaceSet", "FaceSet"]:
        """Cut training faces in two: (the larger part, the part held out for choices).

        If every subject is known, the cut is by subject, so that no person is in both parts. Otherwise it is
        stratified by label; if no class is large enough for its share, one random face is held out.

        The cut depends on the labels (or subjects), the fraction and the seed alone. Raises ValueError for a
        fraction that is not between 0 and 1, or fewer than two faces.
        """
        if not 0 < fraction < 1:
            raise ValueError(f"fraction must be between 0 and 1, got {fraction}")
        if len(self) < 2:
            raise ValueError(f"{len(self)} training faces of {self.name} cannot be cut in two")
        generator = torch.Generator().manual_seed(seed)
        held = torch.zeros(len(self), dtype=torch.bool)
        if int(self.subjects.min()) >= 0:
            people = self.subjects.unique()
            chosen = people[torch.randperm(len(people), generator=generator)]
            held = torch.isin(self.subjects, chosen[: max(1, round(fraction * len(people)))])
        else:
            for label in range(self.num_classes):
                members = (self.labels == label).nonzero().squeeze(1)
                order = torch.randperm(len(members), generator=generator)
                held[members[order[: round(fraction * len(members))]]] = True
            if not held.any():
                held[torch.randint(len(self), (1,), generator=generator)] = True
        return self.subset(~held), self.subset(held)

    def class_counts(self) -> torch.Tensor:
        """Faces per class, int64 [C]."""
        return self.labels.bincount(minlength=self.num_classes)

    def is_grey(self) -> bool:
        """True if no face has any colour: the three channels of every image are equal."""
        for start in range(0, len(self), 1024):
            images = self.take(range(start, min(start + 1024, len(self))))
            if not torch.equal(images, images[:, :1].expand_as(images)):
                return False
        return len(self) > 0

    def one_of_each_class(self) -> torch.Tensor:
        """Index of the first face of every class that the set has, in label order, int64 [≤ C]."""
        first = [int((self.labels == label).nonzero()[0]) for label in self.labels.unique()]
        return torch.tensor(first, dtype=torch.long)

    def __repr__(self) -> str:
        counts = ", ".join(f"{n} {c}" for n, c in zip(self.classes, self.class_counts().tolist(), strict=True))
        return f"FaceSet({self.name!r}, {len(self)} faces of {self.image_size}×{self.image_size} px: {counts})"


@dataclass(frozen=True, eq=False)
class FaceBatch:
    """One batch on the device, augmented and normalised; pairs and quadruplets have [B,2] and [B,4] for [B]."""

    images: torch.Tensor  # float [B,3,H,W]
    labels: torch.Tensor  # int64 [B]
    indices: torch.Tensor  # int64 [B], positions in the FaceSet that the batch came from
    targets: torch.Tensor | None = None  # float [B,C], soft targets, rows sum to 1; None for hard labels
    # float [B,1,H,W], 0…1, the skin that active units move, augmented as the images; None unless asked for.
    moved: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)
