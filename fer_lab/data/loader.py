"""From a FaceSet to batches on the device: samplers, pairs and quadruplets, parts for several processes.

A batch depends on (seed, epoch, step) alone. A training can therefore resume without a saved generator state,
and several processes agree on the global batch without communicating.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass

import torch
import torch.nn.functional as F

from fer_lab.data.augmentation import Augmentation, augment, prepare
from fer_lab.data.faces import REGIONS, FaceBatch, FaceSet

# Kind of example → faces in one.
KINDS = {"single": 1, "pair": 2, "quadruplet": 4}


def draw_partners(
    labels: torch.Tensor,
    anchors: torch.Tensor,
    kind: str,
    negatives: str,
    generator: torch.Generator,
    classes: Sequence[str] = (),
) -> torch.Tensor:
    """Choose the other faces of each anchor's pair [B,2] or quadruplet [B,4].

    These are (anchor, positive) or (anchor, positive, negative, second negative). The positive is another face
    of the anchor's class, the second negative is another face of the negative's class.

    Takes labels int64 [N], anchors int64 [B] (positions in `labels`), and the labels' names for messages.
    Negatives "by_frequency" are drawn from all faces of other classes, as QCS does on RAF-DB and FERPlus;
    "by_class" first draws the class, all others equally likely, as QCS does on AffectNet. Raises ValueError for
    fewer than two classes, or a class with a single face, which has no positive.
    """
    counts = labels.bincount()
    present = counts.nonzero().squeeze(1)
    if len(present) < 2 and kind == "quadruplet":
        raise ValueError("a quadruplet needs faces of at least two classes, got one class")
    if single := (counts == 1).nonzero().squeeze(1).tolist():
        names = ", ".join(f"{i} ({classes[i]})" if classes else str(i) for i in single)
        raise ValueError(
            f"no positive for class {names}, which has a single face; "
            f"leave it out by faces.subset(~torch.isin(faces.labels, torch.tensor({single}))), or add faces"
        )
    by_class = labels.argsort(stable=True)
    position = by_class.argsort()
    starts = counts.cumsum(0) - counts

    def another(of: torch.Tensor) -> torch.Tensor:
        """Another face of the same class for each face of `of`, all equally likely."""
        label = labels[of]
        step = 1 + (torch.rand(len(of), generator=generator) * (counts[label] - 1)).long()
        return by_class[starts[label] + (position[of] - starts[label] + step) % counts[label]]

    positive = another(anchors)
    if kind == "pair":
        return torch.stack([anchors, positive], 1)
    uniform = torch.rand(len(anchors), generator=generator)
    if negatives == "by_class":
        rank = torch.searchsorted(present, labels[anchors])
        step = 1 + (uniform * (len(present) - 1)).long()
        label = present[(rank + step) % len(present)]
        place = (torch.rand(len(anchors), generator=generator) * counts[label]).long() + starts[label]
    else:
        # In faces sorted by class, skipping the anchor's own run leaves all others equally likely.
        label = labels[anchors]
        place = (uniform * (len(labels) - counts[label])).long()
        place = place + (place >= starts[label]) * counts[label]
    negative = by_class[place]
    return torch.stack([anchors, positive, negative, another(negative)], 1)


@dataclass(eq=False)
class Loader:
    """Iterate over a FaceSet as `FaceBatch`es on a device.

    `epoch` is the one that the next iteration draws for; `examples` and `steps` are those of one epoch. Raises
    ValueError for an unknown kind or sampler, an empty set, soft targets without votes, `moved` of photographs,
    or a batch that does not divide among the processes.

    Example:
        >>> for batch in Loader(faces, batch_size=64, size=56):
        ...     logits = model(batch.images)
    """

    faces: FaceSet
    _: KW_ONLY
    batch_size: int  # examples per step, over all processes together
    size: int  # side in pixels of the images that the network takes
    kind: str = "single"  # or "pair" or "quadruplet"
    # "sequential" for evaluation; "balanced": all classes equally likely, their faces drawn with replacement.
    sampler: str = "shuffle"
    negatives: str = "by_frequency"  # see `draw_partners`
    augmentation: Augmentation | None = None  # None prepares faces as for evaluation
    seed: int = 0  # all draws depend on the seed, the epoch and the step alone
    device: torch.device | str = "cpu"
    color_order: str = "RGB"  # of the colours that the network expects
    soft_targets: bool = False  # give the annotators' vote shares as targets
    label_smoothing: float = 0.0  # share of every target that is spread evenly over the classes
    drop_last: bool = False  # drop an incomplete last batch, unless it is the only one
    epoch_fraction: float = 1.0  # share of the faces that makes up one epoch
    moved: bool = False  # augment the places that moved along with the faces, for a loss on maps
    rank: int = 0  # this process's number; each process gets its part of every batch
    world_size: int = 1  # number of processes

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {self.kind!r}")
        if self.sampler not in ("sequential", "shuffle", "balanced"):
            raise ValueError(f"sampler must be 'sequential', 'shuffle' or 'balanced', got {self.sampler!r}")
        if not len(self.faces):
            raise ValueError(f"{self.faces.name} has no faces to load")
        if self.soft_targets and self.faces.votes is None:
            raise ValueError(f"{self.faces.name} has no annotators' votes; train with soft_targets=False")
        if self.moved and self.faces.regions is None:
            raise ValueError(
                f"nobody knows which places of {self.faces.name} moved; only rendered faces can teach a map"
            )
        if self.batch_size % self.world_size:
            raise ValueError(f"a batch of {self.batch_size} does not divide among {self.world_size} processes")
        self.epoch = 0
        self.examples = max(1, round(len(self.faces) * self.epoch_fraction))
        full, rest = divmod(self.examples, self.batch_size)
        self.steps = full if self.drop_last and full else full + bool(rest)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration; every epoch has its own draws."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Steps per epoch."""
        return self.steps

    def _generator(self, step: int) -> torch.Generator:
        """A generator for one step of this epoch; step −1 is for the epoch's order."""
        # Distinct odd multipliers keep (seed, epoch, step) apart; torch mixes the 64 bits itself.
        mixed = self.seed * 0x9E3779B97F4A7C15 + self.epoch * 0xC2B2AE3D27D4EB4F
        return torch.Generator().manual_seed((mixed + (step + 1) * 0x165667B19E3779F9) % 2**63)

    def order(self) -> torch.Tensor:
        """Positions in the set for this epoch: int64 [n] or, for pairs and quadruplets, [n,2|4]."""
        n, generator = len(self.faces), self._generator(-1)
        if self.sampler == "sequential":
            chosen = torch.arange(n)
        elif self.sampler == "balanced":
            weights = 1.0 / self.faces.class_counts()[self.faces.labels].double()
            chosen = torch.multinomial(weights, self.examples, replacement=True, generator=generator)
        else:
            chosen = torch.randperm(n, generator=generator)
        chosen = chosen[: self.examples]
        if self.kind == "single":
            return chosen
        return draw_partners(
            self.faces.labels, chosen, self.kind, self.negatives, generator, self.faces.classes
        )

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
        moved = None
        if self.moved:
            masks = self.faces.region_masks(chosen.flatten())[:, [REGIONS.index("moved")]]
            images = torch.cat([images, masks.to(self.device, torch.uint8) * 255], 1)
        if self.augmentation is None and not self.moved:
            images = prepare(images, self.size, self.color_order)
        else:
            part, total = slice(mine.start * group, mine.stop * group), len(indices) * group
            settings = (self.size, self.augmentation or Augmentation(), self._generator(step))
            images = augment(images, *settings, color_order=self.color_order, part=part, total=total)
        if self.moved:
            images, moved = images[:, :3], images[:, 3:].unflatten(0, chosen.shape)
        labels = self.faces.labels[chosen]
        targets = None
        if self.soft_targets and self.faces.votes is not None:
            targets = self.faces.votes[chosen]
        elif self.label_smoothing:
            targets = F.one_hot(labels, self.faces.num_classes).float()
        if targets is not None:
            targets = targets * (1 - self.label_smoothing) + self.label_smoothing / self.faces.num_classes
            targets = targets.to(self.device)
        images, labels = images.unflatten(0, chosen.shape), labels.to(self.device)
        return FaceBatch(images, labels, chosen, targets, moved)
