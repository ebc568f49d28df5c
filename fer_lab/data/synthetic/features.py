"""Eyes, brows, nose and mouth, each drawn in its own window, and the 68 landmarks on their curves."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fer_lab.data.faces import REGIONS
from fer_lab.data.synthetic.anatomy import (
    GLASSES,
    SIDE,
    Face,
    Nuisance,
    Point,
    aligned,
    head_halfwidth,
    project,
    to_picture,
)
from fer_lab.data.synthetic.canvas import Scene, Window, bell, column, edge, paint, ramp

BROWS, EYES, MOUTH = (REGIONS.index(name) for name in ("brows", "eyes", "mouth"))
# A feature's own axes, all [B]: middle x, y, half-length, direction (x, y) from its start to its end.
Frame = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Frames:
    """Where the drawn features are, for the landmarks; index 0 is the face's own left."""

    eyes: list[Frame]  # from inner to outer corner
    brows: list[list[Point]]  # inner end, arch and outer end
    mouth: tuple[Tensor, ...]  # as `mouth_frame` returns it


def rgb(r: float, g: float, b: float, like: Tensor) -> Tensor:
    """A colour [1,3,1,1] of the dtype and on the device of another tensor."""
    return torch.tensor([r, g, b], dtype=like.dtype, device=like.device).view(1, 3, 1, 1)


def eye_frame(face: Face, how: Nuisance, k: int) -> Frame:
    """Eye k (0 own left) as seen, from its inner to its outer corner."""
    side = SIDE[k].item()
    inner = project(side * (face.eye_x - face.eye_half)[:, k], (face.eye_y + face.eye_tilt)[:, k], how, 0.02)
    outer = project(side * (face.eye_x + face.eye_half)[:, k], (face.eye_y - face.eye_tilt)[:, k], how, -0.03)
    return _frame(inner, outer)


def _frame(start: Point, end: Point) -> Frame:
    dx, dy = end[0] - start[0], end[1] - start[1]
    half = (dx * dx + dy * dy).sqrt() / 2
    return (start[0] + end[0]) / 2, (start[1] + end[1]) / 2, half, dx / (2 * half), dy / (2 * half)


def into_frame(frame: Sequence[Tensor], window: Window) -> Point:
    """The window's points in a frame: half-lengths along it, and heights below it."""
    mx, my, half, ex, ey = map(column, frame[:5])
    dx, dy = window.x - mx, window.y - my
    return (dx * ex + dy * ey) / half, dy * ex - dx * ey


def out_of_frame(frame: Sequence[Tensor], u: Tensor, v: Tensor) -> Point:
    """The inverse of `into_frame`, for u and v [B,K]."""
    mx, my, half, ex, ey = (value[:, None] for value in frame[:5])
    return mx + u * half * ex - v * ey, my + u * half * ey + v * ex


def lid_curves(face: Face, k: int, u: Tensor) -> Point:
    """Upper and lower lid at u [B,…], -1 inner … 1 outer: heights below the line between the corners."""
    arch = (1 - u * u).clamp(min=0)
    full = 0.45 * arch.sqrt() + 0.55 * arch
    upper = -aligned(face.lid_upper[:, k], u) * full * (1 - 0.10 * u)
    lower = aligned(face.lid_lower[:, k], u) * (0.35 * arch.sqrt() + 0.65 * arch) * (1 + 0.12 * u)
    return upper, lower


def brow_points(face: Face, how: Nuisance, k: int) -> list[Point]:
    """Inner end, arch and outer end of brow k as seen: three (x, y), [B] each."""
    side = SIDE[k].item()
    depth = {"inner": 0.06, "mid": 0.03, "outer": -0.02}
    return [
        project(side * getattr(face, f"brow_{p}_x")[:, k], getattr(face, f"brow_{p}_y")[:, k], how, d)
        for p, d in depth.items()
    ]


def brow_curve(points: list[Point], x: Tensor) -> Tensor:
    """y of the brow's centre line at x [B,…]: the parabola through its three points."""
    (x0, y0), (x1, y1), (x2, y2) = ((aligned(a, x), aligned(b, x)) for a, b in points)
    return (
        y0 * (x - x1) * (x - x2) / ((x0 - x1) * (x0 - x2))
        + y1 * (x - x0) * (x - x2) / ((x1 - x0) * (x1 - x2))
        + y2 * (x - x0) * (x - x1) / ((x2 - x0) * (x2 - x1))
    )


def mouth_frame(face: Face, how: Nuisance) -> tuple[Tensor, ...]:
    """The mouth as seen: a `Frame` from own right to own left corner, then its middle in that frame; [B].

    The middle has two numbers: sag below the line between the corners, and offset along it in half-lengths.
    """
    x, y = project(face.corner_x * SIDE.to(how.yaw), face.corner_y, how, 0.03)
    middle = project(torch.zeros_like(face.mouth_y), face.mouth_y, how, 0.12)
    frame = _frame((x[:, 1], y[:, 1]), (x[:, 0], y[:, 0]))
    mx, my, half, ex, ey = frame
    dx, dy = middle[0] - mx, middle[1] - my
    return *frame, dy * ex - dx * ey, (dx * ex + dy * ey) / half


def mouth_curves(face: Face, frame: tuple[Tensor, ...], u: Tensor) -> tuple[Tensor, ...]:
    """Curves of the lips at u [B,…], -1 own right … 1 own left corner: heights in the mouth's frame.

    Returns the upper lip's outer and inner edge, the lower lip's inner and outer edge, and the closing line.
    """
    sag, offset = aligned(frame[5], u), aligned(frame[6], u).clamp(-0.5, 0.5)
    w = u - offset * (1 - u * u)
    left = (0.5 + 0.5 * u).clamp(0, 1)

    def blend(pair: Tensor) -> Tensor:
        return torch.lerp(aligned(pair[:, 1], u).expand_as(u), aligned(pair[:, 0], u).expand_as(u), left)

    arch = (1 - u * u).clamp(min=0)
    root = arch.sqrt()
    shape_open = torch.lerp(arch, root, (aligned(face.jaw_drop, u) * 7).clamp(0, 0.85))
    line = sag * arch
    raised = blend(face.lip_raise) * (0.4 * root + 0.6 * (1 - u**4).clamp(min=0))
    upper_in = line - blend(face.upper_open) * shape_open - 0.55 * raised
    lower_in = line + blend(face.lower_open) * shape_open
    bow = 1 - 0.30 * torch.exp(-((w / 0.16) ** 2)) - 0.10 * w * w
    upper_out = upper_in - aligned(face.upper_lip, u) * (0.6 * arch + 0.4 * root) * bow - 0.45 * raised
    lower_out = lower_in + aligned(face.lower_lip, u) * (0.55 * arch + 0.45 * root)
    return upper_out, upper_in, lower_in, lower_out, line


def draw_features(scene: Scene) -> Frames:
    """Draw nostrils, mouth, eyes and brows; returns the frames that the landmarks need."""
    face, how = scene.face, scene.how
    frames = Frames(
        eyes=[eye_frame(face, how, k) for k in (0, 1)],
        brows=[brow_points(face, how, k) for k in (0, 1)],
        mouth=mouth_frame(face, how),
    )
    draw_nostrils(scene)
    draw_mouth(scene, frames.mouth)
    for k in (0, 1):
        draw_eye(scene, frames.eyes[k], k)
        draw_brow(scene, frames.brows[k], k)
    return frames


def draw_eye(scene: Scene, frame: Frame, k: int) -> None:
    """Eye k (0 own left): lids, eyeball, iris, highlights, lashes."""
    canvas, face, who, how, skin, light = scene
    half, side = column(frame[2]), SIDE[k].item()
    win = Window(canvas, frame[0], frame[1], 0.20, 0.17)
    u, v = into_frame(frame, win)
    v = side * v
    upper, lower = lid_curves(face, k, u.clamp(-1, 1))
    pixel = win.pixel
    ends = edge((1 - u.abs()) * half, pixel)
    opened = edge(v - upper, pixel) * edge(lower - v, pixel) * ends
    gap = column(face.lid_upper[:, k] + face.lid_lower[:, k])
    dark = (skin * torch.tensor([0.52, 0.40, 0.38]).to(skin))[..., None, None]

    # skin: lid with its crease, shadow under the lower lid
    near = ramp(1.22 - u.abs(), 0, 0.3)
    crease = upper - column(face.lid_crease[:, k]) * (0.55 + 0.45 * (1 - u * u).clamp(min=0))
    paint(win.colors, dark, 0.50 * bell(v - crease, 0.011 + 0.4 * pixel) * near)
    lid = edge(v - crease, 0.02) * edge(upper - v, pixel) * near
    paint(win.colors, dark, (0.16 + 0.25 * column(who.lipstick)) * lid)
    paint(win.colors, dark, 0.34 * bell(v - lower - 0.010, 0.012 + 0.3 * pixel) * near)

    # eyeball
    white = rgb(0.955, 0.945, 0.935, u)
    lidshade = torch.exp(-(v - upper).clamp(min=0) / 0.030)
    ball = white * (1 - 0.42 * lidshade - 0.16 * u * u)[:, None]
    pink = bell(u + 1.0, 0.16)
    ball = torch.lerp(ball, rgb(0.80, 0.52, 0.48, u).expand_as(ball), 0.75 * pink[:, None])
    gaze = how.gaze
    gx, gy = column(gaze[:, 0] * 0.055 * side), column(gaze[:, 1] * 0.030 - 0.010)
    radius = column(face.iris_radius[:, k])
    ix, iy = u * half - gx, v - gy
    rho = (ix * ix + iy * iy).sqrt() / radius
    tone = 0.78 + 0.55 * bell(rho - 0.62, 0.28) + 0.35 * iy / radius - 0.35 * lidshade
    iris = who.iris[..., None, None] * tone[:, None].clamp(0.15, 1.6)
    limbus = ramp(rho, 0.78, 1.0)
    iris = iris * (1 - 0.60 * limbus)[:, None]
    iris = iris * (1 - edge((0.44 - rho) * radius, pixel))[:, None] + 0.02
    paint(ball, iris, edge((1 - rho) * radius, pixel))
    lx = column(light[:, 0])
    spot = ((ix * side - 0.34 * radius * lx.sign()) ** 2 + (iy + 0.36 * radius) ** 2).sqrt()
    paint(ball, rgb(1.0, 1.0, 1.0, u), 0.95 * edge(0.24 * radius - spot, pixel))
    spot = ((ix * side + 0.36 * radius * lx.sign()) ** 2 + (iy - 0.40 * radius) ** 2).sqrt()
    paint(ball, rgb(1.0, 1.0, 1.0, u), 0.35 * edge(0.16 * radius - spot, pixel))
    paint(win.colors, ball, opened)

    # lashes
    soft = column(who.softness)
    wing = 1.03 + 0.14 * soft
    taper = (2.2 * (wing - u)).clamp(0, 1) * (1.2 * (u + 1.04)).clamp(0.3, 1)
    thick = (0.009 + 0.008 * soft) * (0.55 + 0.45 * ((u + 1) / 2).clamp(0, 1.2)) * taper
    along = edge((wing - u) * half, pixel) * edge((u + 1.0) * half, pixel)
    flick = 0.22 * soft * (u - 0.90).clamp(min=0)
    lash = edge(thick - (v - upper + 0.6 * thick + flick).abs(), pixel) * along
    ink = 0.35 * who.hair[..., None, None] + rgb(0.03, 0.02, 0.02, u)
    paint(win.colors, ink.clamp(max=0.22), 0.92 * lash)
    below = edge(0.0035 - (v - lower).abs(), pixel) * ends
    paint(win.colors, dark * 0.55, (0.35 + 0.25 * soft) * below)
    win.mark(EYES, (v > crease - 0.01) & (v < lower + 0.03) & (u.abs() < 1.15) | (opened > 0.4) & (gap > 0))
    win.close()


def draw_brow(scene: Scene, points: list[Point], k: int) -> None:
    """Brow k (0 own left) along its curve."""
    canvas, face, who = scene.canvas, scene.face, scene.who
    side = SIDE[k].item()
    (x0, _), (_, y1), (x2, _) = points
    win = Window(canvas, 0.5 * x0 + 0.5 * x2, y1 + 0.03, 0.23, 0.17)
    x, y = win.x, win.y
    t = (x - column(x0)) / column(x2 - x0)
    centre = brow_curve(points, x)
    slope = (brow_curve(points, x + 0.01) - centre) / 0.01
    d = (y - centre) * torch.rsqrt(1 + slope * slope)
    thick = column(face.brow_thick[:, k]) * (1.05 - 0.78 * t.clamp(0, 1) ** 1.6)
    hairs = 0.86 + 0.14 * torch.sin(x * side * 300 + y * 190) * torch.sin(x * side * 83 - y * 41)
    body = edge(thick - d.abs(), 0.012 + 0.7 * win.pixel) * ramp(t, -0.03, 0.13) * ramp(1.03 - t, 0.0, 0.10)
    color = (who.hair * 0.72 * (1 - 0.25 * who.hair.mean(1, keepdim=True)))[..., None, None]
    fine = torch.lerp(hairs, torch.ones_like(hairs), ramp(win.pixel, 0.010, 0.020))
    paint(win.colors, color, 0.90 * body * fine)
    win.mark(BROWS, (d.abs() < thick + 0.012) & (t > -0.06) & (t < 1.06))
    win.close()


def draw_nostrils(scene: Scene) -> None:
    """Nostrils and the creases of the wings; the nose itself is part of the skin's relief."""
    canvas, face, how, skin = scene.canvas, scene.face, scene.how, scene.skin
    x, y = project(torch.zeros_like(face.nose_base_y), face.nose_base_y, how, 0.15)
    win = Window(canvas, x, y, 0.20, 0.17)
    dark = (skin * torch.tensor([0.34, 0.22, 0.21]).to(skin))[..., None, None]
    for k, side in enumerate(SIDE.tolist()):
        lift = 0.35 * (face.nose_wing_y[:, k] - face.nose_base_y + 0.035)
        nx, ny = project(side * 0.48 * face.nose_wing_x[:, k], face.nose_base_y - 0.002 + lift, how, 0.14)
        dx, dy = (win.x - column(nx)) * side, win.y - column(ny)
        dy = dy + 0.25 * dx
        d = 1 - ((dx / 0.036) ** 2 + (dy / 0.017) ** 2).clamp(min=1e-4).sqrt()
        paint(win.colors, dark, 0.80 * edge(d * 0.020, 0.010 + 0.6 * win.pixel))
        wx, wy = project(side * face.nose_wing_x[:, k], face.nose_wing_y[:, k], how, 0.10)
        dx, dy = (win.x - column(wx)) * side, win.y - column(wy)
        wing = bell(dx + 5.0 * dy * dy, 0.010 + 0.4 * win.pixel) * bell(dy, 0.042)
        paint(win.colors, dark, 0.50 * wing)
    win.close()


def draw_mouth(scene: Scene, frame: tuple[Tensor, ...]) -> None:
    """Lips, the inside of an open mouth, and the line of a closed one."""
    canvas, face, who, _, skin, light = scene
    win = Window(canvas, frame[0], frame[1] + 0.05, 0.38, 0.30)
    u, v = into_frame(frame, win)
    half, pixel = column(frame[2]), win.pixel
    inside = u.clamp(-1, 1)
    upper_out, upper_in, lower_in, lower_out, line = mouth_curves(face, frame, inside)
    ends = edge((1 - u.abs()) * half, pixel)
    arch = (1 - inside * inside).clamp(min=0)

    # lip colour: the skin's, redder and darker; lipstick pulls it to a clear red
    red = torch.tensor([0.86, 0.58, 0.58]).to(skin) * skin + torch.tensor([0.05, 0.0, 0.01]).to(skin)
    rouge = torch.tensor([0.72, 0.16, 0.22]).to(skin).expand_as(red)
    lips = torch.lerp(red, rouge, 0.75 * who.lipstick[:, None] + 0.08 * who.softness[:, None])[..., None, None]
    top = ((v - upper_out) / (upper_in - upper_out).clamp(min=0.006)).clamp(0, 1)
    low = ((v - lower_in) / (lower_out - lower_in).clamp(min=0.006)).clamp(0, 1)
    upper = edge(v - upper_out, pixel * 1.3) * edge(line.maximum(upper_in) - v, pixel) * ends
    lower = edge(v - line.minimum(lower_in), pixel) * edge(lower_out - v, pixel * 1.3) * ends
    lx = column(light[:, 0])
    tone = 0.88 - 0.20 * top + 0.10 * lx * u
    paint(win.colors, lips * tone[:, None], 0.92 * upper)
    tone = 0.98 + 0.16 * bell(low - 0.38, 0.30) * (1 - u * u) - 0.24 * low * low + 0.10 * lx * u
    paint(win.colors, lips * tone[:, None], 0.92 * lower)
    gloss = bell(low - 0.36, 0.16) * bell(u - 0.30 * lx, 0.26) * lower
    paint(win.colors, rgb(1.0, 0.95, 0.93, u), (0.16 + 0.35 * column(who.lipstick)) * gloss)

    # the inside: dark throat, tongue, two rows of teeth
    opened = edge(v - upper_in, pixel) * edge(lower_in - v, pixel) * ends
    gap = (lower_in - upper_in).clamp(min=1e-3)
    depth = ((v - upper_in) / gap).clamp(0, 1)
    hollow = rgb(0.30, 0.07, 0.08, u) * (0.55 + 0.6 * depth)[:, None]
    jaw = column(face.jaw_drop)
    tongue = 1 - (u / 0.62) ** 2 - ((v - lower_in - 0.008) / (0.42 * gap + 1e-3)) ** 2
    tongue_color = rgb(0.78, 0.36, 0.38, u) * (0.72 + 0.32 * tongue.clamp(0, 1))[:, None]
    paint(hollow, tongue_color, ramp(tongue, 0.0, 0.25) * ramp(jaw, 0.02, 0.06))
    enamel = rgb(0.965, 0.950, 0.915, u)
    shade = 1 - 0.42 * u * u - 0.30 * torch.exp(-(v - upper_in).clamp(min=0) / 0.012)
    pitch = (u * half / 0.046 + 0.5) % 1.0
    seams = bell((pitch - 0.5).abs() - 0.5, 0.08) * (1 - ramp(pixel, 0.008, 0.022))
    teeth = edge(upper_in + 0.050 * arch.sqrt() + 0.004 - v, pixel) * ramp(1 - u.abs(), 0.02, 0.10)
    paint(hollow, enamel * (shade - 0.20 * seams).clamp(min=0.2)[:, None], 0.96 * teeth)
    stretch = column((face.lip_stretch + 6 * face.lip_raise.mean(1)).clamp(0, 1))
    bottom = edge(v - lower_in + 0.032 * arch.sqrt() + 0.004, pixel) * ramp(1 - u.abs(), 0.05, 0.15)
    paint(hollow, enamel * (0.86 * shade - 0.2 * seams).clamp(min=0.2)[:, None], 0.94 * bottom * stretch)
    paint(win.colors, hollow, opened)

    # where the lips meet, and the corners' shadow
    closed = 1 - ramp(gap, 0.006, 0.030)
    dark = (skin * torch.tensor([0.38, 0.20, 0.20]).to(skin))[..., None, None]
    seam = bell(v - line, 0.007 + 0.35 * pixel) * ends * ramp(1 - u.abs(), -0.02, 0.12)
    paint(win.colors, dark, (0.80 + 0.15 * column(face.lip_press)) * closed * seam)
    corner = bell(u.abs() - 0.99, 0.055) * bell(v, 0.014 + 0.3 * pixel)
    paint(win.colors, dark, 0.36 * corner)
    win.mark(MOUTH, (v > upper_out - 0.012) & (v < lower_out + 0.012) & (u.abs() < 1.04))
    win.close()


def draw_glasses(scene: Scene) -> None:
    """Glasses of the people that wear some."""
    canvas, face, who, how = scene.canvas, scene.face, scene.who, scene.how
    worn = who.glasses > 0
    if not bool(worn.any()):
        return
    x, y = project(torch.zeros_like(face.mouth_y), face.eye_y.mean(1) * 0 - 0.075, how, 0.10)
    win = Window(canvas, x, y, 0.68, 0.26)
    shown = column(worn.to(win.x))
    square = column((who.glasses == GLASSES.index("square")).to(win.x))
    black = who.hair.new_tensor([0.07, 0.07, 0.08])
    color = torch.where((who.seed % 3 == 0)[:, None], who.clothes * 0.55, black)[..., None, None]
    rim = 0.011 + 0.004 * square
    for k, side in enumerate(SIDE.tolist()):
        cx, cy = project(side * (face.eye_x[:, k] + 0.005), y * 0 - 0.065, how, 0.08)
        dx, dy = win.x - column(cx), win.y - column(cy)
        a, b = 0.185 - 0.01 * square, 0.170 - 0.030 * square
        u2, v2 = (dx / a) ** 2, (dy / b) ** 2
        round_ = (u2 + v2).clamp(min=1e-4).sqrt()
        boxy = (u2 * u2 + v2 * v2).clamp(min=1e-4).sqrt().sqrt()
        d = (1 - torch.lerp(round_, boxy, square)) * b
        lens = edge(d, win.pixel) * shown
        streak = bell(dx - 0.6 * dy - 0.05, 0.022) + 0.6 * bell(dx - 0.6 * dy + 0.02, 0.012)
        paint(win.colors, rgb(0.93, 0.97, 1.0, dx), lens * (0.03 + 0.11 * streak))
        paint(win.colors, color, 0.95 * edge(rim - d.abs(), win.pixel) * shown)
        temple = edge(0.010 - (dy + 0.05).abs(), win.pixel) * edge(dx * side - a, win.pixel)
        head = edge(column(face.head_width) + 0.02 - win.x.abs(), win.pixel)
        paint(win.colors, color, 0.9 * temple * head * shown)
    bx = column(x)
    bridge = edge(0.008 - (win.y - column(y) + 0.02 - 0.6 * (win.x - bx) ** 2).abs(), win.pixel)
    gap = column(face.eye_x.mean(1)) - 0.175
    paint(win.colors, color, 0.95 * bridge * edge(gap - (win.x - bx).abs(), win.pixel) * shown)
    win.close()


def landmarks(face: Face, frames: Frames, how: Nuisance, size: int) -> Tensor:
    """The 68 points of the iBUG scheme (C. Sagonas et al., 300 Faces in-the-Wild, ICCVW 2013): pixels [B,68,2].

    0–16 jaw from the picture's left, 17–26 brows, 27–35 nose, 36–47 eyes, 48–67 mouth.
    """
    n, device = len(face.chin_y), face.chin_y.device
    # jaw: eased heights space the points about evenly along it
    t = torch.linspace(0, 1, 9, device=device)
    ease = torch.sin(t * torch.pi / 2).expand(n, 9)
    y = face.head_middle[:, None] - 0.06 + ease * (face.chin_y - face.head_middle + 0.06)[:, None]
    half = head_halfwidth(face, y)
    jaw_x = torch.cat([-half, half[:, :-1].flip(1)], 1)
    jaw_y = torch.cat([y, y[:, :-1].flip(1)], 1)
    xs, ys = [jaw_x], [jaw_y]

    def append(x: Tensor, y: Tensor) -> None:
        xs.append(x)
        ys.append(y)

    for k, order in ((1, [0, 1, 2, 3, 4]), (0, [4, 3, 2, 1, 0])):
        points = frames.brows[k]
        s = torch.tensor([0.98, 0.76, 0.52, 0.28, 0.03], device=device)[order]
        x = points[0][0][:, None] + s * (points[2][0] - points[0][0])[:, None]
        append(x, brow_curve(points, x))
    t = torch.tensor([0.0, 1 / 3, 2 / 3, 1.0], device=device)
    y = -0.07 + t * (face.nose_tip_y[:, None] + 0.075)
    append(*project(torch.zeros_like(y), y, how, 0.03 + 0.17 * t))
    base, wing_y = face.nose_base_y, face.nose_wing_y + 0.028
    own_left, own_right = face.nose_wing_x.unbind(1)
    nose_x = [-own_right * 0.80, -own_right * 0.40, torch.zeros_like(base), own_left * 0.40, own_left * 0.80]
    nose_y = torch.stack([wing_y[:, 1], base + 0.016, base + 0.024, base + 0.016, wing_y[:, 0]], 1)
    append(*project(torch.stack(nose_x, 1), nose_y, how, 0.13))

    # eyes: outer/inner corners and two points on each lid; the own right eye comes first
    for k, us in ((1, [1.0, 0.4, -0.4, -1.0, -0.4, 0.4]), (0, [-1.0, -0.4, 0.4, 1.0, 0.4, -0.4])):
        u = torch.tensor(us, device=device).expand(n, 6)
        upper, lower = lid_curves(face, k, u)
        v = torch.cat([upper[:, :4], lower[:, 4:]], 1)
        v[:, [0, 3]] = 0
        append(*out_of_frame(frames.eyes[k], u, SIDE[k].item() * v))

    # lips: outer edge of the upper and the lower one, inner edges
    for which, us in (
        (0, [-1.0, -0.62, -0.22, 0.0, 0.22, 0.62, 1.0]),
        (3, [0.62, 0.26, 0.0, -0.26, -0.62]),
        (1, [-0.90, -0.30, 0.0, 0.30, 0.90]),
        (2, [0.30, 0.0, -0.30]),
    ):
        u = torch.tensor(us, device=device).expand(n, len(us))
        append(*out_of_frame(frames.mouth, u, mouth_curves(face, frames.mouth, u)[which]))
    x, y = to_picture(torch.cat(xs, 1), torch.cat(ys, 1), how)
    return (torch.stack([x, y], 2) + 1) * (size / 2) - 0.5
