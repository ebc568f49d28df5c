"""From a FaceSet to batches on the device: samplers, per-sample augmentation, loaders.

A batch is a function of (seed, epoch, step) and of nothing else, so a training that stopped can go on
without saving any generator's state, and several processes agree on the global batch without talking.

Geometry (flip, rotation, zoom, shift, resize) is one warp, and colour one 3×3 matrix a face: two passes
over the pixels whatever is switched on. On two cores this is several times as fast as a chain of separate
per-sample operations.
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from fer_lab.data.faces import FaceBatch, FaceSet

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
LUMA = (0.299, 0.587, 0.114)
KINDS = {"single": 1, "pair": 2, "quadruplet": 4}

# RGB ↔ YIQ (ITU-R BT.601 luma); a turn of the I-Q plane is a change of hue that keeps the brightness.
_RGB_TO_YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
_YIQ_TO_RGB = torch.linalg.inv(_RGB_TO_YIQ)


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What is done to a training face, drawn anew for every face; the default does nothing.

    Attributes:
        flip: probability of a mirror image.
        rotation: largest angle, degrees, either way.
        scale: (smallest, largest) zoom; above 1 enlarges the face.
        shift: largest displacement along each axis, as a share of the side.
        warp_p: probability that rotation, scale and shift act on a face at all.
        brightness, contrast, saturation: largest relative change, 0…1.
        hue: largest turn of the colour circle, as a share of the full circle, 0…0.5. It is a rotation in
            YIQ, not HSV as in torchvision: close for small turns, and one matrix.
        noise: standard deviation of added Gaussian noise, on the 0…1 scale.
        noise_p: probability of noise.
        erasing_p: probability that a rectangle is blanked (Zhong et al., arXiv 1708.04896).
        erasing_scale: (smallest, largest) share of the area that goes; sides are 0.3…3.3 to 1.
    """

    flip: float = 0.0
    rotation: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    shift: float = 0.0
    warp_p: float = 1.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    noise: float = 0.0
    noise_p: float = 1.0
    erasing_p: float = 0.0
    erasing_scale: tuple[float, float] = (0.02, 0.1)

    def __post_init__(self):
        for key in ("flip", "warp_p", "noise_p", "erasing_p", "brightness", "contrast", "saturation", "shift"):
            if not 0 <= getattr(self, key) <= 1:
                raise ValueError(f"{key} must lie in 0…1, got {getattr(self, key)!r}")
        if not 0 <= self.hue <= 0.5:
            raise ValueError(f"hue must lie in 0…0.5, got {self.hue!r}")
        if self.noise < 0 or self.rotation < 0:
            raise ValueError("noise and rotation must not be negative")
        for key in ("scale", "erasing_scale"):
            low, high = getattr(self, key)
            if not 0 < low <= high:
                raise ValueError(f"{key} must be (low, high) with 0 < low ≤ high, got {(low, high)}")

    @classmethod
    def from_dict(cls, data: dict) -> "Augmentation":
        """From JSON's plain data, where tuples have become lists."""
        known = {f.name for f in dataclasses.fields(cls)}
        if unknown := set(data) - known:
            raise ValueError(f"no augmentation {sorted(unknown)}; there are {sorted(known)}")
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in data.items()})


def normalize(images: torch.Tensor, color_order: str = "RGB") -> torch.Tensor:
    """RGB images [...,3,H,W], uint8 or float 0…1 → float32 by ImageNet's mean and standard deviation.

    Args:
        color_order: "BGR" swaps the channels first and keeps the RGB statistics, as the authors of
            POSTER do on RAF-DB.

    Raises:
        ValueError: another number of channels, or another colour order.
    """
    if images.ndim < 3 or images.shape[-3] != 3:
        raise ValueError(f"expected images [...,3,H,W], got {list(images.shape)}")
    if color_order not in ("RGB", "BGR"):
        raise ValueError(f"color_order must be 'RGB' or 'BGR', got {color_order!r}")
    if images.dtype == torch.uint8:
        images = images.float() / 255
    if color_order == "BGR":
        images = images.flip(-3)
    mean, std = _channel(MEAN, images), _channel(STD, images)
    return (images - mean) / std


def denormalize(images: torch.Tensor, color_order: str = "RGB") -> torch.Tensor:
    """The inverse of `normalize`: float [...,3,H,W] → RGB uint8."""
    images = images * _channel(STD, images) + _channel(MEAN, images)
    if color_order == "BGR":
        images = images.flip(-3)
    return (images * 255).round().clamp(0, 255).to(torch.uint8)


def _channel(values: tuple[float, ...], like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(values, device=like.device, dtype=like.dtype).view(3, 1, 1)


def prepare(images: torch.Tensor, size: int, color_order: str = "RGB") -> torch.Tensor:
    """What evaluation does to a face: uint8 [B,3,S,S] → float32 [B,3,size,size], resized and normalised."""
    images = images.float() / 255
    if images.shape[-1] != size:
        images = F.interpolate(images, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
    return normalize(images, color_order)


def augment(
    images: torch.Tensor,
    size: int,
    augmentation: Augmentation,
    generator: torch.Generator,
    *,
    color_order: str = "RGB",
    part: slice = slice(None),
    total: int | None = None,
) -> torch.Tensor:
    """Augment and normalise faces, each by its own draw.

    Args:
        images: uint8 [B,3,S,S] on any device.
        size: side of the result.
        augmentation: how strongly.
        generator: a CPU generator; the numbers drawn, and so the result, do not depend on the device.
        part, total: with several processes, which of the `total` faces of the global batch these are;
            numbers are drawn for all of them.

    Returns:
        float32 [B,3,size,size].
    """
    n = total if total is not None else len(images)
    device = images.device
    a = augmentation

    def draw(*shape: int) -> torch.Tensor:
        return torch.rand(n, *shape, generator=generator)[part].to(device)

    def signed(limit: float) -> torch.Tensor:
        return (draw() * 2 - 1) * limit

    images = images.float() / 255
    if (factor := images.shape[-1] // size) >= 2:
        # The warp reads four pixels a point: shrink first, or it would skip pixels between them.
        images = F.avg_pool2d(images, factor)

    mirrored = draw() < a.flip
    warped = (draw() < a.warp_p).float()
    angle = signed(math.radians(a.rotation)) * warped
    zoom = 1 + (a.scale[0] - 1 + draw() * (a.scale[1] - a.scale[0])) * warped
    shift_x, shift_y = signed(2 * a.shift) * warped, signed(2 * a.shift) * warped
    cos, sin = torch.cos(angle) / zoom, torch.sin(angle) / zoom
    sign = 1 - 2 * mirrored.float()
    theta = torch.stack(
        [torch.stack([cos * sign, -sin, shift_x], 1), torch.stack([sin * sign, cos, shift_y], 1)], 1
    )
    grid = F.affine_grid(theta, [len(images), 3, size, size], align_corners=False)
    images = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)

    bright, contrast = 1 + signed(a.brightness), 1 + signed(a.contrast)
    saturation, turn = 1 + signed(a.saturation), signed(2 * math.pi * a.hue)
    if a.brightness or a.contrast or a.saturation or a.hue:
        images = _recolor(images, bright, contrast, saturation, turn)
    if a.noise:
        noisy = (draw() < a.noise_p).float() * a.noise
        images = images + noisy[:, None, None, None] * torch.randn(n, 3, size, size, generator=generator)[
            part
        ].to(device)
        images = images.clamp(0, 1)
    images = normalize(images, color_order)
    if a.erasing_p:
        images = images.masked_fill(_rectangles(draw, size, a), 0.0)
    return images


def _recolor(images, bright, contrast, saturation, turn):
    """One colour matrix a face: hue turn, saturation, brightness; then contrast about the mean grey."""
    device = images.device
    c, s = torch.cos(turn) * saturation, torch.sin(turn) * saturation
    one, zero = torch.ones_like(c), torch.zeros_like(c)
    chroma = torch.stack([one, zero, zero, zero, c, -s, zero, s, c], 1).view(-1, 3, 3)
    matrix = _YIQ_TO_RGB.to(device) @ chroma @ _RGB_TO_YIQ.to(device) * bright[:, None, None]
    grey = (torch.tensor(LUMA, device=device) @ matrix * images.mean((2, 3))).sum(1, keepdim=True)
    matrix = matrix * contrast[:, None, None]
    offset = (1 - contrast)[:, None] * grey
    flat = torch.baddbmm(offset[:, :, None], matrix, images.flatten(2))
    return flat.view_as(images).clamp_(0, 1)


def _rectangles(draw, size: int, a: Augmentation) -> torch.Tensor:
    """Bool [B,1,size,size], True inside each face's rectangle (nowhere with probability 1 − erasing_p)."""
    erased = draw() < a.erasing_p
    area = (a.erasing_scale[0] + draw() * (a.erasing_scale[1] - a.erasing_scale[0])) * size * size
    ratio = torch.exp((draw() * 2 - 1) * math.log(3.3))
    height, width = (area * ratio).sqrt().clamp(max=size), (area / ratio).sqrt().clamp(max=size)
    top, left = draw() * (size - height), draw() * (size - width)
    place = torch.arange(size, device=area.device)
    rows = (place >= top[:, None]) & (place < (top + height)[:, None]) & erased[:, None]
    columns = (place >= left[:, None]) & (place < (left + width)[:, None])
    return (rows[:, :, None] & columns[:, None, :])[:, None]


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
