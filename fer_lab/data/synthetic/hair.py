"""Hair and beard: where they grow, how they shine."""

import torch
from torch import Tensor

from fer_lab.data.synthetic.anatomy import BEARDS, HAIR_STYLES, LOOKS, Face, Identity, Nuisance, Point, project
from fer_lab.data.synthetic.canvas import Scene, bell, column, edge, paint, ramp

# One row per style of HAIR_STYLES; looks.toml names the columns.
HAIR = torch.tensor(list(LOOKS["hair"].values()))


def hair_distances(face: Face, who: Identity, how: Nuisance, x: Tensor, y: Tensor) -> Point:
    """Distances inside (+) the hair's outer outline, and inside the opening for the face: two [B,h,w]."""
    row = HAIR.to(x)[who.hair_style]
    rise, beside, _, _, line, half, slope, roundness, curl, _ = map(column, row.unbind(1))
    volume = 1 + 0.35 * column(who.hair_volume)
    rise, beside = rise * volume, beside * volume
    line = line - 0.035 * column(who.hairline)
    width, top = column(face.head_width), column(face.head_top)
    phase = column(who.seed % 63).to(x)
    bumps = curl * torch.sin(23 * x + phase) * torch.sin(21 * y + 2 * phase)
    middle = -0.12
    u = x / (width + beside)
    v = ((y - middle) / (top - rise - middle)).clamp(min=0)
    g = u * u + v * v
    outer = (1 - g) * 0.5 * 0.70 / g.clamp(min=0.3).sqrt() + bumps
    ox, oy = project(torch.zeros_like(width), torch.zeros_like(width), how)
    side = torch.where(column(who.seed) % 2 == 0, 1.0, -1.0)
    x, y = x - 0.7 * ox, y - 0.7 * oy
    y = y - slope * side * x
    middle = -0.05
    u = x / (width * half)
    v = ((y - middle) / (line - middle)).clamp(min=0)
    scarf = column(who.hair_style == HAIR_STYLES.index("scarf"))
    below = ((y - middle) / (column(face.chin_y) - 0.01 - middle)).clamp(min=0)
    v = v + torch.where(scarf, below, 0.0)
    u2, v2 = u * u, v * v
    g = torch.lerp(u2 * u2 + v2 * v2, u2 + v2, roundness)
    opening = (1 - g) * 0.5 * 0.55 / g.clamp(min=0.3).sqrt() + 0.6 * bumps
    return outer, opening


def hair_color(who: Identity, x: Tensor, y: Tensor, outer: Tensor, light: Tensor) -> Tensor:
    """Strands and sheen under the light [B,3]: [B,3,h,w]."""
    lx, ly = (column(light[:, i]) for i in range(2))
    phase = column(who.seed % 101).to(x)
    scarf = column(who.hair_style == HAIR_STYLES.index("scarf"))
    curl = column(HAIR.to(x)[who.hair_style][:, 8])
    fan = (x + (0.02 + curl) * torch.sin(11 * y + phase)) / (0.42 + 0.5 * (y + 0.9).clamp(0, 1))
    strands = 0.5 * torch.sin(31 * fan + phase) + 0.5 * torch.sin(74 * fan + 3 * torch.sin(9 * fan) + 2 * phase)
    strands = torch.where(scarf, 0.5 * torch.sin(9 * fan + 6 * y), strands)
    sheen = bell(outer - 0.15, 0.07) * (0.6 + 0.4 * strands) * ramp(-y, -0.1, 0.5)
    tone = 0.80 + 0.16 * strands + 0.6 * (outer - 0.04).clamp(-0.3, 0.25) + 0.22 * (x * lx + y * ly)
    base = torch.where(scarf[:, :, 0], who.clothes, who.hair)[..., None, None]
    return base * tone[:, None].clamp(0.25, 1.6) + (0.09 + 0.24 * base) * sheen[:, None]


def draw_bun(scene: Scene, hair: Tensor) -> None:
    """A bun on top of the head, behind it; `hair` [B,3,S,S] is its colour."""
    canvas, face, who = scene.canvas, scene.face, scene.who
    style = column(who.hair_style == HAIR_STYLES.index("bun"))
    d = 0.19 - (canvas.x**2 + (canvas.y - column(face.head_top) + 0.04) ** 2).sqrt()
    paint(canvas.colors, hair * (0.75 + 1.2 * d.clamp(0, 0.2))[:, None], edge(d, canvas.pixel) * style)


def beard_cover(face: Face, who: Identity, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Opacity of the beard, its thickness outside the head's outline, its lightness: three [B,h,w]."""
    alpha, extra, bristle = torch.zeros_like(x), torch.zeros_like(x), torch.ones_like(x)
    rows = (who.beard > 0).nonzero().squeeze(1)
    if not len(rows):
        return alpha, extra, bristle
    x, y = x[rows], y[rows]
    kind = column(who.beard[rows])
    index = {name: kind == i for i, name in enumerate(BEARDS)}
    corner, mouth, chin = (column(v[rows]) for v in (face.corner_y.mean(1), face.mouth_y, face.chin_y))
    wave = 0.010 * torch.sin(31 * x) * torch.sin(27 * y)
    aside = x.abs()
    below = y - (corner + 0.03 - 2.1 * (aside - 0.13).clamp(min=0) ** 2) + wave
    jaw, shadow = ramp(below, -0.05, 0.05), ramp(below, -0.14, 0.16)
    moustache = 1 - (aside / 0.235) ** 2 - ((y - mouth + 0.082 - 0.9 * x * x) / 0.046) ** 2
    moustache = ramp(moustache + 6 * wave, 0.0, 0.35)
    goatee = ramp(1 - (aside / 0.20) ** 2 - ((y - chin + 0.11) / 0.16) ** 2 + 6 * wave, 0.0, 0.3)
    alpha[rows] = (
        index["stubble"] * torch.maximum(shadow, 0.7 * moustache) * 0.24
        + index["moustache"] * (moustache * 0.92 + jaw * 0.08)
        + index["goatee"] * torch.maximum(goatee, moustache) * 0.90
        + index["full"] * torch.maximum(jaw, moustache) * 0.93
    )
    extra[rows] = index["full"] * 0.035 * ramp(y, corner - 0.2, chin)
    hairs = torch.sin(170 * x + 5 * torch.sin(17 * y)) * torch.sin(61 * y + 3 * torch.sin(29 * x))
    bristle[rows] = 0.86 + 0.14 * hairs
    return alpha, extra, bristle
