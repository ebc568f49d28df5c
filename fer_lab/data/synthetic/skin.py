"""The lit head: neck, ears, and skin with every bump and fold.

The skin is lit by true normals: the head's roundness plus a relief of blobs (nose, cheeks, lids, chin). A
wrinkle is a groove in the relief, so its shading follows the direction of the light.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from fer_lab.data.synthetic.anatomy import LOOKS, SIDE, Face, Identity, Nuisance, Point, project, to_picture
from fer_lab.data.synthetic.canvas import Canvas, Scene, Window, bell, column, edge, paint, ramp
from fer_lab.data.synthetic.hair import beard_cover

SKIN_TONES = torch.tensor(LOOKS["colors"]["skin"])
SHADOW = torch.tensor([0.50, 0.37, 0.36])
BLUSH = torch.tensor([0.02, 0.30, 0.24])
Value = float | Tensor


class Relief:
    """Blobs on the skin, each with three values: height, shade and redness; the canvas sums them."""

    def __init__(self, how: Nuisance) -> None:
        self.how = how
        self.parts: list[Tensor] = []

    def add(self, x: Tensor, y: Tensor, radius: Value, *values: Value, depth: Value = 0.0) -> None:
        """Add blobs at x, y [B], [B,2] or [B,K]; the rest broadcasts, and values left out are 0.

        `depth` is as in `project`.
        """
        if x.ndim == 1:
            x, y = x[:, None], y[:, None]
        x, y = project(x, y, self.how, depth)
        shape = torch.broadcast_shapes(x.shape, y.shape)
        given = (x, y, radius, *values, *(3 - len(values)) * [0.0])
        rows = [torch.as_tensor(v, dtype=x.dtype, device=x.device) for v in given]
        self.parts.append(torch.stack([(v[:, None] if v.ndim == 1 else v).expand(shape) for v in rows]))

    def sided(self, x: Tensor, y: Tensor, radius: Value, *values: Value, depth: Value = 0.0) -> None:
        """A blob on each side: `add` with x [B,2] or [B,1] measured outwards."""
        self.add(x * SIDE.to(x), y, radius, *values, depth=depth)

    def groove(self, points: Sequence[Point], depth: Tensor, radius: float = 0.020, count: int = 8) -> None:
        """A fold on each side, made of `count` blobs along a quadratic Bézier curve.

        `points` are the curve's three (x, y), each [B,2], x outwards; `depth` is [B,2], 0 none … 1 deep.
        """
        t = torch.linspace(0, 1, count, device=depth.device)
        weights = torch.stack([(1 - t) ** 2, 2 * t * (1 - t), t**2])
        x = sum(p[0][..., None] * w for p, w in zip(points, weights, strict=True))
        y = sum(p[1][..., None] * w for p, w in zip(points, weights, strict=True))
        x = x * SIDE.to(x)[:, None]
        depth = depth[..., None] * (0.35 + 2.6 * t * (1 - t))
        flat = [v.expand(x.shape).flatten(1) for v in (x, y, depth)]
        self.add(flat[0], flat[1], radius, -0.55 * radius * flat[2], 0.16 * flat[2])

    def sums(self, canvas: Canvas) -> tuple[Tensor, ...]:
        """Slopes along and down the picture, shade, redness: each [B,S,S]."""
        along, others = canvas.relief(*torch.cat(self.parts, 2))
        return along, *others


def face_relief(face: Face, who: Identity, how: Nuisance) -> Relief:
    """All bumps and folds of the skin."""
    r = Relief(how)
    zero = torch.zeros_like(face.chin_y)
    ex, ey = face.eye_x, face.eye_y
    # brow ridge, eye sockets, temples
    r.sided(face.brow_mid_x, face.brow_mid_y * 0.5 - 0.13, 0.11, 0.018 + 0.012 * (1 - who.softness))
    r.sided(ex - 0.03, ey - 0.01, 0.115, -0.042, 0.10)
    r.sided(ex + 0.02, ey + 0.075, 0.07, -0.012, 0.05)
    r.add(zero, zero - 0.45, 0.20, 0.030)
    # nose: a chain down the bridge, tip, wings
    bridge = 0.024 + 0.008 * who.nose_bridge
    for i in range(7):
        t = i / 6
        y = -0.13 + t * (face.nose_tip_y + 0.11)
        r.add(zero, y, 0.046 + 0.012 * t, bridge * (0.55 + 0.55 * t), depth=0.03 + 0.15 * t)
    r.add(zero, face.nose_tip_y + 0.012, 0.062 + 0.008 * who.nose_width, 0.046, 0.0, 0.16, depth=0.20)
    r.sided(face.nose_wing_x - 0.030, face.nose_wing_y - 0.004, 0.036, 0.022, 0.0, 0.08, depth=0.10)
    r.sided(face.nose_wing_x + 0.004, face.nose_wing_y, 0.022, -0.006, 0.16, depth=0.07)
    r.add(zero, face.nose_base_y + 0.045, 0.060, -0.010, 0.22, depth=0.08)
    r.sided(zero[:, None] + 0.06, face.nose_base_y[:, None] + 0.035, 0.045, 0.0, 0.10, depth=0.08)
    # cheeks
    r.sided(face.cheek_x, face.cheek_y, 0.135, 0.030 + 0.036 * face.cheek_raise, 0.0, 0.26)
    r.sided(face.cheek_x + 0.02, face.cheek_y + 0.22, 0.12, -0.022, 0.07)
    # muzzle, philtrum, chin
    r.add(zero, face.mouth_y, 0.20, 0.030)
    r.add(zero, face.mouth_y - 0.10, 0.020, -0.006, 0.05)
    r.add(zero, face.mouth_y + face.lower_lip + face.lower_open.mean(1) + 0.050, 0.070, -0.026, 0.15)
    r.add(zero, face.chin_y - 0.115, 0.105, 0.045, -0.03, 0.08)
    pits = torch.tensor(
        [[-0.06, 0.02], [0.05, 0.035], [0.0, -0.015], [0.075, -0.02], [-0.03, 0.055], [-0.085, -0.03]]
    )
    pit_x, pit_y = pits.to(zero).unbind(1)
    boss = face.chin_boss[:, None]
    r.add(pit_x.expand(len(zero), 6), face.chin_y[:, None] - 0.13 + pit_y, 0.020, -0.010 * boss, 0.13 * boss)

    # folds
    c_x, c_y, w_x, w_y = face.corner_x, face.corner_y, face.nose_wing_x, face.nose_wing_y
    fold_end = torch.minimum(c_x + 0.055, face.cheek_x + 0.03)
    r.groove(
        [(w_x + 0.012, w_y - 0.02), (fold_end, w_y + 0.04), (fold_end, c_y - 0.005)], face.nasolabial, 0.024, 10
    )
    r.groove(
        [(c_x + 0.02, c_y + 0.02), (c_x + 0.05, c_y + 0.07), (c_x + 0.03, c_y + 0.15)], face.marionette * 0.8
    )
    r.sided(c_x + 0.045, c_y, 0.026, -0.016 * face.dimple, 0.40 * face.dimple)
    r.groove(
        [(c_x + 0.05, c_y - 0.05), (c_x + 0.07, c_y), (c_x + 0.05, c_y + 0.05)], face.dimple * 0.9, 0.017, 7
    )
    inner, outer = face.forehead_inner, face.forehead_outer
    for k, y in enumerate((-0.385, -0.450, -0.515)):
        lift = 0.25 * (face.brow_inner_y + 0.27)
        lift_out = 0.25 * (face.brow_mid_y + 0.31)
        x0, x1, x2 = (torch.zeros_like(ex) + v for v in (0.0, 0.13, 0.22))
        r.groove([(x0, y + lift), (x1, y + lift), (x2, y + 0.01 + lift)], inner * (0.9 - 0.12 * k), 0.017, 9)
        x0, x1, x2 = (torch.zeros_like(ex) + v for v in (0.20, 0.32, 0.42))
        curve = [(x0, y + 0.005 + lift_out), (x1, y - 0.02 + lift_out), (x2, y + 0.05 + lift_out)]
        r.groove(curve, outer * (0.9 - 0.12 * k), 0.017, 9)
    b_x, b_y = face.brow_inner_x, face.brow_inner_y
    curve = [(b_x * 0.45, b_y - 0.07), (b_x * 0.35, b_y), (b_x * 0.55, b_y + 0.055)]
    r.groove(curve, face.glabella, 0.017, 9)
    for k in range(3):
        y = torch.zeros_like(ex) - 0.095 + 0.042 * k
        x0, x1, x2 = (torch.zeros_like(ex) + v for v in (0.005, 0.04, 0.075))
        r.groove([(x0, y), (x1, y), (x2, y + 0.035)], face.nose_wrinkle * 1.1, 0.015, 5)
    o_x, o_y = ex + face.eye_half + 0.03, ey - face.eye_tilt
    for k, (dy, ey2) in enumerate(((-0.035, -0.085), (0.005, 0.0), (0.04, 0.085))):
        curve = [(o_x, o_y + dy), (o_x + 0.05, o_y + dy * 1.2), (o_x + 0.095, o_y + ey2)]
        r.groove(curve, face.crow_feet * (1 - 0.1 * k), 0.013, 7)
    bag_y = ey + face.lid_lower + 0.050
    curve = [(ex - 0.12, bag_y - 0.03), (ex - 0.02, bag_y + 0.035), (ex + 0.13, bag_y - 0.025)]
    r.groove(curve, face.lid_bag * 0.75, 0.019, 11)
    # freckles
    g = torch.Generator().manual_seed(7)
    spots = torch.rand(40, 3, generator=g).to(zero)
    jitter = 0.03 * torch.sin(who.seed[:, None] * (1.0 + spots[:, 2]))
    x = (spots[:, 0] - 0.5) * 0.95 + jitter
    y = 0.02 + 0.30 * spots[:, 1] * (0.4 + 0.6 * spots[:, 2]) + jitter.flip(1)
    strength = who.freckles[:, None]
    r.add(x, y, 0.007 + 0.004 * spots[None, :, 2], 0.0, 0.22 * strength, 0.30 * strength)
    return r


def skin_base(who: Identity) -> Tensor:
    """Unlit skin colour [B,3]."""
    table = SKIN_TONES.to(who.skin_tone)
    place = who.skin_tone * (len(table) - 1)
    low = place.floor().long().clamp(max=len(table) - 2)
    color = torch.lerp(table[low], table[low + 1], (place - low)[:, None])
    warm = who.undertone[:, None]
    return (color * (1 + warm * torch.tensor([0.0, 0.022, -0.045]).to(color))).clamp(0, 1)


def light_direction(how: Nuisance) -> Tensor:
    """Unit vectors [B,3] to the light: right, down, towards the viewer."""
    flat = 0.85 * how.light
    towards = torch.full_like(flat[:, :1], 0.80)
    return torch.nn.functional.normalize(torch.cat([flat, towards], 1), dim=1)


def head_distance(face: Face, x: Tensor, y: Tensor) -> Tensor:
    """Approximate distance [B,h,w] of points from the head's outline, inside (+) or outside (-).

    The upper half is an ellipse. The lower half is a squircle whose sides taper towards the chin
    (M. Fernández-Guasti, 1992: u² + t² - s u² t² = 1).
    """
    width, middle, chin, top, square, taper = (
        column(getattr(face, key))
        for key in ("head_width", "head_middle", "chin_y", "head_top", "jaw_square", "jaw_taper")
    )
    v = y - middle
    t = (v / (chin - middle)).clamp(min=0) - (v / (middle - top)).clamp(max=0)
    low = v > 0
    side = width * torch.where(low, 1 - taper * t, 1.0)
    u2, t2 = (x / side) ** 2, t * t
    g = u2 + t2 - torch.where(low, square, 0.0) * u2 * t2
    return (1 - g) * 0.5 * 0.66 / g.clamp(min=0.2).sqrt()


def draw_body(scene: Scene) -> None:
    """Neck and shoulders."""
    canvas, face, who, skin = scene.canvas, scene.face, scene.who, scene.skin
    x, y, lx = canvas.x, canvas.y, column(scene.light[:, 0])
    chin, width = column(face.chin_y), column(face.head_width)
    half = width * (0.55 - 0.09 * column(who.softness)) + 0.25 * (y - chin).clamp(min=0) ** 2
    neck = edge(half - x.abs(), canvas.pixel) * ramp(y, 0.2, 0.3)
    round_ = 1 - (x / half) ** 2
    shade = 0.52 + 0.22 * round_.clamp(0, 1) + 0.20 * ramp(y, chin - 0.05, chin + 0.25) + 0.10 * lx * x
    warm = torch.tensor([1.0, 0.93, 0.90]).to(x).view(1, 3, 1, 1)
    paint(canvas.colors, skin[..., None, None] * warm * shade[:, None], neck)
    aside = x.abs()
    slope = chin + 0.235 - 0.125 * ramp(aside, 0.10, 0.36) + 0.42 * (aside - 0.34).clamp(min=0) ** 1.3
    cloth = edge(y - slope, canvas.pixel)
    shade = 0.80 + 0.35 * ramp(y - slope, 0.25, -0.02) + 0.15 * lx * x
    paint(canvas.colors, who.clothes[..., None, None] * shade[:, None], cloth)


def draw_ears(scene: Scene) -> None:
    """Both ears; the head covers their inner halves."""
    canvas, face, who, how, skin = scene.canvas, scene.face, scene.who, scene.how, scene.skin
    for k, side in enumerate(SIDE.tolist()):
        shift = 0.12 * torch.sin(torch.deg2rad(how.yaw))
        x0 = side * (face.head_width - 0.004 + 0.022 * who.ears) - shift
        y0 = face.eye_y[:, k] + 0.100
        w = Window(canvas, x0, y0, 0.12, 0.20)
        v = w.y - column(y0)
        u = (w.x - column(x0)) * side + 0.12 * v
        d = (1 - ((u / 0.070) ** 2 + (v / 0.138) ** 2).clamp(min=1e-4).sqrt()) * 0.075
        inner = bell(((u - 0.012) / 0.045) ** 2 + ((v + 0.01) / 0.095) ** 2 - 0.55, 0.45)
        hollow = 1 - ramp(((u - 0.005) / 0.032) ** 2 + ((v - 0.01) / 0.06) ** 2, 0.4, 1.2)
        tone = 0.90 - 0.20 * inner - 0.20 * hollow + 0.9 * (d - 0.03).clamp(max=0)
        red = torch.tensor([1.0, 0.88, 0.86]).to(tone).view(1, 3, 1, 1)
        paint(w.colors, skin[..., None, None] * red * tone[:, None], edge(d, w.pixel))
        w.close()


def draw_head(scene: Scene, opening: Tensor, hair_alpha: Tensor) -> Tensor:
    """Lit skin with its beard; returns the head's coverage [B,S,S].

    The fringe, of opacity `hair_alpha` [B,1,1], casts a shadow along `opening`, the second of `hair_distances`.
    """
    canvas, face, who, how, skin, light = scene
    x, y = canvas.x, canvas.y
    inside = head_distance(face, x, y)
    beard, extra, bristle = beard_cover(face, who, x, y)
    cover = edge(inside + extra, canvas.pixel)
    along, down, shade, red = face_relief(face, who, how).sums(canvas)
    # The head's roundness is steeper towards its outline.
    scale = column(how.scale)
    hx, hy = project(torch.zeros_like(scale), torch.zeros_like(scale), how)
    hx, hy = to_picture(hx * 0.6, hy * 0.6 + 0.02, how)
    px = (canvas.axis[None, None, :] - hx) / (0.60 * scale)
    py = (canvas.axis[None, :, None] - hy) / (0.86 * scale)
    rim = px * px + py * py
    steep = 0.42 * (1 + 0.9 * rim * rim).clamp(max=4)
    along, down = along - steep * px, down - 0.8 * steep * py
    normal = torch.rsqrt(1 + along * along + down * down)
    lx, ly, lz = (column(light[:, i]) for i in range(3))
    facing = (lz - along * lx - down * ly) * normal
    half = torch.nn.functional.normalize(light + torch.tensor([0.0, 0.0, 1.0]).to(light), dim=1)
    kx, ky, kz = (column(half[:, i]) for i in range(3))
    shine = ((kz - along * kx - down * ky) * normal).clamp(min=0) ** 2
    for _ in range(3):
        shine = shine * shine
    shine = 0.16 * shine * shine * (1 - beard)
    ambient = column(how.ambient)
    lit = (0.5 + 0.5 * facing) ** 2
    lit = ambient * 0.88 + (1 - ambient) * lit * 1.22
    fringe = (1 - ramp(opening, 0.0, 0.10)) * hair_alpha
    lit = lit * (1 - shade.clamp(-0.3, 0.85)) * (1 - 0.28 * fringe) * ramp(inside, -0.16, 0.10)
    for c in range(3):
        base = column(skin[:, c]) * (1 - BLUSH[c].item() * red.clamp(0, 1.2))
        base = torch.lerp(base, column(who.hair[:, c]) * bristle, beard)
        low = SHADOW[c].item()
        tone = base * (low + (1 - low) * lit) + shine
        canvas.colors[:, c].lerp_(tone, cover)
    return cover
