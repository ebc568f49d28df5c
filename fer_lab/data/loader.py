"""From a FaceSet to batches on the device: samplers, per-sample augmentation, loaders.

A batch is a function of (seed, epoch, step) and of nothing else, so a training that stopped can go on
without saving any generator's state, and several processes agree on the global batch without talking.

Geometry (flip, rotation, zoom, shift, resize) is one warp, and colour one 3×3 matrix a face: two passes
over the pixels whatever is switched on. On two cores this is several times as fast as a chain of separate
per-sample operations.
"""

import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F

from fer_lab.data.augmentation import Augmentation, augment, prepare
from fer_lab.data.faces import FaceBatch, FaceSet

KINDS = {"single": 1, "pair": 2, "quadruplet": 4}


def draw_partners(
    labels: torch.Tensor,
    anchors: torch.Tensor,
    kind: str,
    negatives: str,
    generator: torch.Generator,
    classes: Sequence[str] = (),
) -> torch.Tensor:
    """Choose the other faces of each anchor's pair or quadruplet.

    Args:
        labels: int64 [N].
        anchors: int64 [B], positions in `labels`.
        kind: "pair" (anchor, positive) or "quadruplet" (anchor, positive, negative, second negative).
        negatives: "by_frequency" draws the negative from all faces of other classes, as QCS does on
            RAF-DB and FERPlus; "by_class" draws its class evenly first, as QCS does on AffectNet.
        generator: CPU generator.
        classes: names of the labels, for messages.

    Returns:
        int64 [B,2] or [B,4]: the positive is another face of the anchor's class, the second negative
        another face of the negative's class.

    Raises:
        ValueError: fewer than two classes, or a class with a single face, which has no positive.
    """
    counts = labels.bincount()
    present = counts.nonzero().squeeze(1)
    if len(present) < 2 and kind == "quadruplet":
        raise ValueError("a quadruplet needs faces of at least two classes; there is one")
    if single := (counts == 1).nonzero().squeeze(1).tolist():
        names = ", ".join(f"{i} ({classes[i]})" if classes else str(i) for i in single)
        raise ValueError(
            f"no positive for class {names}, which has a single face; "
            f"leave it out by faces.subset(~torch.isin(faces.labels, torch.tensor({single}))), or add faces"
        )
    by_class = labels.argsort(stable=True)
    starts = counts.cumsum(0) - counts

    def another(of: torch.Tensor) -> torch.Tensor:
        """A face of the same class as `of`, evenly among the others."""
        label = labels[of]
        position = torch.empty_like(labels)
        position[by_class] = torch.arange(len(labels))
        step = 1 + (torch.rand(len(of), generator=generator) * (counts[label] - 1)).long()
        return by_class[starts[label] + (position[of] - starts[label] + step) % counts[label]]

    positive = another(anchors)
    if kind == "pair":
        return torch.stack([anchors, positive], 1)
    uniform = torch.rand(len(anchors), generator=generator)
    if negatives == "by_class":
        rank = torch.empty(len(counts), dtype=torch.long)
        rank[present] = torch.arange(len(present))
        step = 1 + (uniform * (len(present) - 1)).long()
        label = present[(rank[labels[anchors]] + step) % len(present)]
        negative = by_class[
            starts[label] + (torch.rand(len(anchors), generator=generator) * counts[label]).long()
        ]
    else:
        # Faces sorted by class: skip the anchor's own run and every other face is equally likely.
        label = labels[anchors]
        place = (uniform * (len(labels) - counts[label])).long()
        place = place + (place >= starts[label]) * counts[label]
        negative = by_class[place]
    return torch.stack([anchors, positive, negative, another(negative)], 1)


class Loader:
    """Iterate a FaceSet as `FaceBatch`es on a device.

    Args:
        faces: the set.
        batch_size: examples a step, over all processes together.
        size: side of the images that the network takes.
        kind: "single", "pair" or "quadruplet".
        sampler: "sequential" (evaluation), "shuffle", or "balanced": classes equally likely, faces of a
            class drawn with replacement.
        negatives: see `draw_partners`.
        augmentation: None prepares faces as evaluation does.
        seed: with the epoch and the step it fixes every draw.
        device, color_order: where the batch goes and the channel order the network expects.
        soft_targets: give the annotators' vote shares as targets.
        label_smoothing: spread this share of every target evenly over the classes.
        drop_last: leave out a last batch that is not full (unless it is the only one).
        epoch_fraction: share of the faces that make one epoch.
        rank, world_size: this process and how many there are; each gets its part of every batch.

    Raises:
        ValueError: an unknown kind or sampler, an empty set, soft targets without votes, a batch that does
            not divide among the processes.
    """

    def __init__(
        self,
        faces: FaceSet,
        *,
        batch_size: int,
        size: int,
        kind: str = "single",
        sampler: str = "shuffle",
        negatives: str = "by_frequency",
        augmentation: Augmentation | None = None,
        seed: int = 0,
        device: torch.device | str = "cpu",
        color_order: str = "RGB",
        soft_targets: bool = False,
        label_smoothing: float = 0.0,
        drop_last: bool = False,
        epoch_fraction: float = 1.0,
        rank: int = 0,
        world_size: int = 1,
    ):
        if kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
        if sampler not in ("sequential", "shuffle", "balanced"):
            raise ValueError(f"sampler must be 'sequential', 'shuffle' or 'balanced', got {sampler!r}")
        if not len(faces):
            raise ValueError(f"{faces.name} has no faces to load")
        if soft_targets and faces.votes is None:
            raise ValueError(f"{faces.name} has no annotators' votes; train with soft_targets=False")
        if batch_size % world_size:
            raise ValueError(f"a batch of {batch_size} does not divide among {world_size} processes")
        self.faces = faces
        self.batch_size = batch_size
        self.size = size
        self.kind = kind
        self.sampler = sampler
        self.negatives = negatives
        self.augmentation = augmentation
        self.seed = seed
        self.device = torch.device(device)
        self.color_order = color_order
        self.soft_targets = soft_targets
        self.label_smoothing = label_smoothing
        self.rank, self.world_size = rank, world_size
        self.epoch = 0
        self.examples = max(1, round(len(faces) * epoch_fraction))
        full, rest = divmod(self.examples, batch_size)
        self.steps = full if drop_last and full else full + bool(rest)

    def set_epoch(self, epoch: int) -> None:
        """Which epoch the next iteration is; another epoch, other draws."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Steps an epoch."""
        return self.steps

    def _generator(self, step: int) -> torch.Generator:
        """A generator for one step of this epoch (step −1: for the epoch's order)."""
        # Distinct odd multipliers keep (seed, epoch, step) apart; torch mixes the 64 bits itself.
        mixed = (
            self.seed * 0x9E3779B97F4A7C15 + self.epoch * 0xC2B2AE3D27D4EB4F + (step + 1) * 0x165667B19E3779F9
        )
        return torch.Generator().manual_seed(mixed % 2**63)

    def order(self) -> torch.Tensor:
        """Positions in the set for this epoch: int64 [n] or, for pairs and quadruplets, [n,2|4]."""
        n, generator = len(self.faces), self._generator(-1)
        if self.sampler == "sequential":
            chosen = torch.arange(n)
        elif self.sampler == "balanced":
            counts = self.faces.class_counts()
            weights = 1.0 / counts[self.faces.labels].double()
            chosen = torch.multinomial(weights, self.examples, replacement=True, generator=generator)
        else:
            chosen = torch.randperm(n, generator=generator)
        chosen = chosen[: self.examples]
        if self.kind == "single":
            return chosen
        partners = (self.kind, self.negatives, generator, self.faces.classes)
        return draw_partners(self.faces.labels, chosen, *partners)

    def __iter__(self) -> Iterator[FaceBatch]:
        order = self.order()
        for step in range(self.steps):
            indices = order[step * self.batch_size : (step + 1) * self.batch_size]
            share = math.ceil(len(indices) / self.world_size)
            mine = slice(self.rank * share, min((self.rank + 1) * share, len(indices)))
            yield self._batch(indices, mine, step)

    def _batch(self, indices: torch.Tensor, mine: slice, step: int) -> FaceBatch:
        group = KINDS[self.kind]
        chosen = indices[mine]
        images = self.faces.take(chosen.flatten()).to(self.device, non_blocking=True)
        if self.augmentation is None:
            images = prepare(images, self.size, self.color_order)
        else:
            images = augment(
                images,
                self.size,
                self.augmentation,
                self._generator(step),
                color_order=self.color_order,
                part=slice(mine.start * group, mine.stop * group),
                total=len(indices) * group,
            )
        labels = self.faces.labels[chosen]
        targets = None
        if self.soft_targets:
            targets = self.faces.votes[chosen]
        elif self.label_smoothing:
            targets = F.one_hot(labels, self.faces.num_classes).float()
        if targets is not None:
            targets = targets * (1 - self.label_smoothing) + self.label_smoothing / self.faces.num_classes
            targets = targets.to(self.device)
        return FaceBatch(
            images=images.view(*chosen.shape, *images.shape[1:]),
            labels=labels.to(self.device),
            indices=chosen,
            targets=targets,
        )
