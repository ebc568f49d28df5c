"""TODO."""

import dataclasses
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
LUMA = (0.299, 0.587, 0.114)

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
