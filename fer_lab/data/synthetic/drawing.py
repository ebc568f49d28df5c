"""From shapes to pixels: `render` paints a face from the background to the camera.

skin.py draws neck, ears and head, hair.py hair and beard, features.py eyes, brows, nose and mouth.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fer_lab.data.faces import REGIONS
from fer_lab.data.synthetic import features
from fer_lab.data.synthetic.action_units import UNITS, action_units, move
from fer_lab.data.synthetic.anatomy import HAIR_STYLES, Identity, Nuisance, neutral_face
from fer_lab.data.synthetic.canvas import Canvas, Scene, column, edge, paint, ramp
from fer_lab.data.synthetic.hair import HAIR, draw_bun, hair_color, hair_distances
from fer_lab.data.synthetic.skin import Relief, draw_body, draw_ears, draw_head, light_direction, skin_base

# Pixels of the faces that are drawn together: a chunk of 64 faces of 224 pixels. They take about a gigabyte.
PIXELS_AT_ONCE = 64 * 224**2


@dataclass(frozen=True)
class Rendering:
    """B drawn faces and what is known of them."""

    images: Tensor  # uint8 [B,3,S,S], RGB
    landmarks: Tensor  # float32 [B,68,2], x and y in pixels (whole numbers are pixel centres), iBUG order
    regions: Tensor  # uint8 [B,S,S], bit i is set if the pixel belongs to `faces.REGIONS[i]`


def draw_background(canvas: Canvas, how: Nuisance) -> None:
    """A vertical gradient and four soft spots."""
    t = ((canvas.axis + 1) / 2).view(1, 1, -1, 1)
    top, bottom = (how.background[:, i, :, None, None] for i in (0, 1))
    k = torch.arange(4, device=t.device)
    seed = (how.seed % 9973).to(t)[:, None]
    x, y = 1.1 * torch.sin(seed * 0.37 + 2.1 * k), 1.0 * torch.cos(seed * 0.61 + 1.7 * k)
    weight = 0.14 * torch.sin(seed * 1.3 + k) * (seed > 0)
    spots = canvas.field(x, y, torch.full_like(x, 0.30), weight[:, None])
    canvas.colors.copy_((top * (1 - t) + bottom * t + spots).clamp(0, 1))


def mark_regions(scene: Scene, units: Tensor, cover: Tensor) -> None:
    """Set the region bits of nose, cheeks and the skin that active `units` [B,U,2] move.

    The features set their own bits. `cover` [B,S,S] says how much of a pixel shows the head.
    """
    canvas, face = scene.canvas, scene.face
    # The three values of a blob are here its part in the nose, the cheeks and the moved skin.
    blobs = Relief(scene.how)
    zero = torch.zeros_like(units[:, 0, :1])
    for t in torch.linspace(0, 1, 5).tolist():
        nose_y = -0.06 + t * (face.nose_base_y[:, None] - 0.02 + 0.06)
        blobs.add(zero, nose_y, 0.042 + 0.02 * t, 1.0, depth=0.03 + 0.15 * t)
    blobs.sided(face.nose_wing_x - 0.04, face.nose_wing_y, 0.045, 1.0, depth=0.10)
    blobs.sided(face.cheek_x, face.cheek_y + 0.03, 0.105, 0.0, 1.0)
    blobs.sided(face.cheek_x + 0.06, face.cheek_y - 0.02, 0.075, 0.0, 0.6)
    for i, unit in enumerate(UNITS):
        for x, y, radius in unit.places:
            blobs.sided(zero + x, zero + y, radius * 0.75, 0.0, 0.0, units[:, i])
    x, y, radius, *weights = torch.cat(blobs.parts, 2)
    field = canvas.field(x, y, radius, torch.stack(weights, 1))
    for k, (name, limit) in enumerate({"nose": 0.45, "cheeks": 0.45, "moved": 0.30}.items()):
        canvas.regions |= ((field[:, k] > limit) & (cover > 0.5)).to(torch.uint8) << REGIONS.index(name)


def draw_occluder(canvas: Canvas, how: Nuisance) -> None:
    """A flat object with rounded corners in front of the face."""
    x0, y0, angle = (column(how.occluder[:, i]) for i in range(3))
    size = column(how.occlusion)
    x, y = canvas.x - x0, canvas.y - y0
    u, v = x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()
    half_u, half_v, corner = 0.62 * size, 0.40 * size, 0.12 * size
    du, dv = (u.abs() - half_u + corner).clamp(min=0), (v.abs() - half_v + corner).clamp(min=0)
    d = corner - (du * du + dv * dv).sqrt()
    shown = (size > 0).to(x)
    canvas.colors *= (1 - 0.35 * ramp(d, -0.09, 0.0) * shown)[:, None]
    tone = 0.92 + 0.10 * torch.sin(26 * v) - 0.12 * v / (half_v + 1e-3)
    color = how.occluder[:, 3:, None, None] * tone[:, None]
    paint(canvas.colors, color, edge(d, canvas.pixel) * shown)


def photograph(canvas: Canvas, how: Nuisance) -> Tensor:
    """The camera's picture, uint8 [B,3,S,S]: blur, grey, contrast, brightness, noise."""
    picture, size = canvas.colors, canvas.size
    sigma = (how.blur / 100 * size).clamp(min=1e-3)
    if bool((how.blur > 0).any()):
        reach = int(min(size // 2 - 1, (2.5 * sigma.max()).ceil().item()))
        taps = torch.arange(-reach, reach + 1, device=picture.device)
        kernel = torch.exp(-0.5 * (taps / sigma[:, None]) ** 2)
        kernel = (kernel / kernel.sum(1, keepdim=True))[..., None, None, None]
        for dim in (2, 3):
            pad = [reach, reach, 0, 0] if dim == 3 else [0, 0, reach, reach]
            wide = torch.nn.functional.pad(picture, pad, mode="replicate")
            picture = kernel[:, 0] * wide.narrow(dim, 0, size)
            for i in range(1, 2 * reach + 1):
                picture = picture + kernel[:, i] * wide.narrow(dim, i, size)
    contrast, brightness, noise, grey = (
        getattr(how, key).view(-1, 1, 1, 1) for key in ("contrast", "brightness", "noise", "grey")
    )
    if bool((how.grey > 0).any()):
        luma = (picture * torch.tensor([0.299, 0.587, 0.114]).to(picture).view(1, 3, 1, 1)).sum(1, keepdim=True)
        picture = torch.lerp(picture, luma.expand_as(picture), grey)
    picture = (picture - 0.5) * contrast + (0.5 + brightness)
    if bool((how.noise > 0).any()):
        for i, seed in enumerate(how.seed.tolist()):
            grain = torch.randn(3, size, size, generator=torch.Generator().manual_seed(seed)).to(picture)
            grain = torch.lerp(grain, grain[:1].expand_as(grain), how.grey[i])
            picture[i] += noise[i] * grain
    return (picture.clamp(0, 1) * 255).round().to(torch.uint8)


def render(
    units: Tensor | Mapping[int | str, float | tuple[float, float]],
    identity: Identity | int = 0,
    nuisance: Nuisance | None = None,
    size: int = 112,
) -> Rendering:
    """Draw faces; ValueError for units out of range, a size below 32, or unequal batch sizes.

    Args:
        units: intensities [U,2] or [B,U,2] (own left, own right), or {unit: intensity} for one face.
        identity: B people, or one; a whole number draws one person from that seed. The drawing runs on the
            device of these tensors.
        nuisance: how the pictures are taken; None is a plain portrait.
        size: side S in pixels, at least 32.

    Example:
        >>> render({12: 1.0, 6: 0.8}, identity=3).images.shape
        torch.Size([1, 3, 112, 112])
    """
    if not isinstance(size, int) or size < 32:
        raise ValueError(f"size must be a whole number of pixels, at least 32, got {size!r}")
    units = action_units(units)
    who = Identity.sample(1, identity) if isinstance(identity, int) else identity
    how = Nuisance.none(1) if nuisance is None else nuisance
    n = max(len(units), len(who), len(how))
    if any(k not in (1, n) for k in (len(units), len(who), len(how))):
        raise ValueError(
            f"expected one or the same number of each, got {len(units)} rows of units, {len(who)} identities, "
            f"{len(how)} nuisances"
        )
    units, how = units.to(who.skin_tone.device).expand(n, -1, -1), how.to(who.skin_tone.device)
    pieces = [
        _render(units[rows], who.take(rows % len(who)), how.take(rows % len(how)), size)
        for rows in torch.arange(n).split(max(1, PIXELS_AT_ONCE // size**2))
    ]
    return Rendering(*(torch.cat(parts) for parts in zip(*(vars(one).values() for one in pieces), strict=True)))


@torch.no_grad()
def _render(units: Tensor, who: Identity, how: Nuisance, size: int) -> Rendering:
    face = move(neutral_face(who), units)
    canvas = Canvas(how, size)
    scene = Scene(canvas, face, who, how, skin_base(who), light_direction(how))
    x, y = canvas.x, canvas.y
    row = HAIR.to(x)[who.hair_style]
    back_end, side_end, hair_alpha = (column(row[:, i]) for i in (2, 3, 9))
    outer, opening = hair_distances(face, who, how, x, y)
    strands = column(who.hair_style != HAIR_STYLES.index("scarf")) & (hair_alpha > 0.9)
    hair = hair_color(who, x, y, outer, scene.light)

    draw_background(canvas, how)
    tips = 0.035 * torch.sin(17 * x + 3) * (side_end > 0.07)
    back = edge(outer, canvas.pixel) * ramp(back_end + tips - y, -0.01, 0.02) * hair_alpha
    jag = 0.012 * torch.sin(47 * x + 3 * torch.sin(19 * x)) * strands
    front = edge(outer, canvas.pixel) * edge(jag - opening, 0.020 + canvas.pixel)
    front = front * ramp(side_end + tips - y, -0.015, 0.03) * hair_alpha
    paint(canvas.colors, hair * 0.62, back)
    draw_bun(scene, hair)
    draw_body(scene)
    draw_ears(scene)
    cover = draw_head(scene, opening, hair_alpha)
    mark_regions(scene, units, cover * (1 - front))
    frames = features.draw_features(scene)
    paint(canvas.colors, hair, front)
    features.draw_glasses(scene)
    draw_occluder(canvas, how)
    return Rendering(photograph(canvas, how), features.landmarks(face, frames, how, size), canvas.regions)
