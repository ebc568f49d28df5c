"""From stored pixels to a network's input: `prepare` for evaluation, `augment` for training.

Every face has its own random draw. Geometry (flip, rotation, zoom, shift, resize) is one warp, and colour is
one 3×3 matrix per face: two passes over the pixels, whatever is switched on. On two cores this is several times
as fast as a chain of separate per-sample operations.
"""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
LUMA = (0.299, 0.587, 0.114)
COLOR_ORDERS = ("RGB", "BGR", "GREY")

# RGB ↔ YIQ (ITU-R BT.601 luma); a rotation of the I-Q plane changes the hue and keeps the brightness.
_RGB_TO_YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
_YIQ_TO_RGB = torch.linalg.inv(_RGB_TO_YIQ)


def check_number(name: str, value: object) -> None:
    """Raise ValueError where a setting is not a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, got {value!r}")


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Random changes of a training face, drawn for every face by itself; the default changes nothing.

    Such as `Augmentation(flip=0.5, rotation=10, erasing_p=0.25)`. Raises ValueError for a value out of range.
    """

    flip: float = 0.0  # probability of a mirror image
    rotation: float = 0.0  # largest angle in degrees, in either direction
    scale: tuple[float, float] = (1.0, 1.0)  # smallest and largest zoom; above 1 enlarges the face
    shift: float = 0.0  # largest displacement along each axis, as a share of the side
    warp_p: float = 1.0  # probability that rotation, scale and shift are applied to a face
    brightness: float = 0.0  # largest relative change, 0…1, as for the next two
    contrast: float = 0.0
    saturation: float = 0.0
    # Largest turn of the colour circle, as a share of the full circle, 0…0.5. It is a rotation in YIQ, not in
    # HSV as in torchvision: for small turns the two are close, and this one is a matrix.
    hue: float = 0.0
    grey_p: float = 0.0  # probability that a face loses its colours, for a model of colour and grey pictures
    noise: float = 0.0  # standard deviation of added Gaussian noise, on the 0…1 scale
    noise_p: float = 1.0  # probability of noise
    erasing_p: float = 0.0  # probability that a rectangle is blanked (Zhong et al., arXiv 1708.04896)
    # Smallest and largest share of the area that is blanked; its sides are 0.3…3.3 to 1.
    erasing_scale: tuple[float, float] = (0.02, 0.1)

    def __post_init__(self) -> None:
        most = {"hue": 0.5, "noise": math.inf, "rotation": math.inf}
        for key in (f.name for f in dataclasses.fields(self) if f.type is float):
            value = getattr(self, key)
            check_number(key, value)
            if not 0 <= value <= most.get(key, 1):
                raise ValueError(f"{key} must be in 0…{most.get(key, 1)}, got {value!r}")
        for key in ("scale", "erasing_scale"):
            low, high = getattr(self, key)
            if not 0 < low <= high < math.inf:
                raise ValueError(f"{key} must be (low, high) with 0 < low ≤ high, got {(low, high)}")

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Augmentation":
        """The inverse of `dataclasses.asdict`, also after JSON has turned tuples into lists.

        Raises ValueError for an unknown field, or a value out of range.
        """
        known = {f.name for f in dataclasses.fields(cls)}
        if unknown := set(data) - known:
            raise ValueError(f"unknown augmentation {sorted(unknown)}; expected some of {sorted(known)}")
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        return cls(**values)


def to_grey(images: Tensor) -> Tensor:
    """RGB images uint8 [...,3,H,W] → their luma in all three channels, rounded as Pillow's `convert("L")` does.

    A picture whose channels are equal stays as it is, byte for byte.
    """
    red, green, blue = images.to(torch.int32).unbind(-3)
    luma = (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16
    return luma.to(images.dtype).unsqueeze(-3).expand_as(images)


def normalize(images: Tensor, color_order: str = "RGB") -> Tensor:
    """Normalise RGB images [...,3,H,W], uint8 or float 0…1 → float32, by ImageNet's mean and deviation.

    "BGR" swaps the channels first and keeps the RGB statistics, as the authors of POSTER do on RAF-DB. "GREY"
    takes images that `to_grey` has turned grey. Raises ValueError for other channels or colour orders.
    """
    if images.ndim < 3 or images.shape[-3] != 3:
        raise ValueError(f"expected images [...,3,H,W], got {list(images.shape)}")
    if color_order not in COLOR_ORDERS:
        raise ValueError(f"color_order must be one of {', '.join(COLOR_ORDERS)}, got {color_order!r}")
    if images.dtype == torch.uint8:
        images = images.float() / 255
    if color_order == "BGR":
        images = images.flip(-3)
    return (images - _channel(MEAN, images)) / _channel(STD, images)


def _channel(values: tuple[float, ...], like: Tensor) -> Tensor:
    return torch.tensor(values, device=like.device, dtype=like.dtype).view(3, 1, 1)


def prepare(images: Tensor, size: int, color_order: str = "RGB") -> Tensor:
    """Resize and normalise faces for evaluation: uint8 [B,3,S,S] → float32 [B,3,size,size].

    For a model whose colour order is "GREY", a picture and its grey twin give the same numbers.
    """
    images = (to_grey(images) if color_order == "GREY" else images).float() / 255
    if images.shape[-1] != size:
        images = F.interpolate(images, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
    return normalize(images, color_order)


def augment(
    images: Tensor,
    size: int,
    augmentation: Augmentation,
    generator: torch.Generator,
    *,
    color_order: str = "RGB",
    part: slice = slice(None),
    total: int | None = None,
) -> Tensor:
    """Augment and normalise faces, each with its own draw: uint8 [B,3,S,S] → float32 [B,3,size,size].

    The generator is on the CPU, so that the draws do not depend on the device. With several processes, `images`
    are the faces `part` of a global batch of `total` faces; every process draws for all, so that they agree.
    A fourth channel, such as a mask, moves with its face, 0…1, and nothing else changes it.
    """
    n, device, a = total if total is not None else len(images), images.device, augmentation

    def draw(*shape: int) -> Tensor:
        return torch.rand(n, *shape, generator=generator)[part].to(device)

    def signed(limit: float) -> Tensor:
        return (draw() * 2 - 1) * limit

    if color_order == "GREY":
        images = torch.cat([to_grey(images[:, :3]), images[:, 3:]], 1)
    images = images.float() / 255
    if (factor := images.shape[-1] // size) >= 2:
        # The warp reads four pixels per point: without this it would skip the pixels in between.
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
    images, mask = images[:, :3], images[:, 3:]

    bright, contrast = 1 + signed(a.brightness), 1 + signed(a.contrast)
    saturation, turn = 1 + signed(a.saturation), signed(2 * math.pi * a.hue)
    if a.brightness or a.contrast or a.saturation or a.hue:
        images = _recolor(images, bright, contrast, saturation, turn)
    if a.grey_p:
        luma = (images * _channel(LUMA, images)).sum(1, keepdim=True)
        images = torch.where((draw() < a.grey_p)[:, None, None, None], luma, images)
    if a.noise:
        strength = (draw() < a.noise_p).float() * a.noise
        noise = torch.randn(n, 3, size, size, generator=generator)[part].to(device)
        images = (images + strength[:, None, None, None] * noise).clamp(0, 1)
    images = normalize(images, color_order)
    if a.erasing_p:
        images = images.masked_fill(_rectangles(draw, size, a), 0.0)
    return torch.cat([images, mask], 1) if mask.shape[1] else images


def _recolor(images: Tensor, bright: Tensor, contrast: Tensor, saturation: Tensor, turn: Tensor) -> Tensor:
    """One colour matrix per face, by factors [B] and radians [B]; then contrast around the mean grey."""
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


def _rectangles(draw: Callable[..., Tensor], size: int, a: Augmentation) -> Tensor:
    """Bool [B,1,size,size], True inside each face's rectangle; a face has one with probability erasing_p."""
    erased = draw() < a.erasing_p
    area = (a.erasing_scale[0] + draw() * (a.erasing_scale[1] - a.erasing_scale[0])) * size * size
    ratio = torch.exp((draw() * 2 - 1) * math.log(3.3))
    height, width = (area * ratio).sqrt().clamp(max=size), (area / ratio).sqrt().clamp(max=size)
    top, left = draw() * (size - height), draw() * (size - width)
    place = torch.arange(size, device=area.device)
    rows = (place >= top[:, None]) & (place < (top + height)[:, None]) & erased[:, None]
    columns = (place >= left[:, None]) & (place < (left + width)[:, None])
    return (rows[:, :, None] & columns[:, None, :])[:, None]
