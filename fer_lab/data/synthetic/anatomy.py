"""Who a face is and where its features are: identity, nuisances, the neutral face, head turns.

Lengths are in face units: at scale 1 the picture spans -1…1 both ways, x to the picture's right, y down.
Everything that a face has twice is a tensor [B,2]. Its columns are the face's own left (the picture's right)
and its own right, as in the Facial Action Coding System; its x is measured outwards from the midline.
"""

import dataclasses
import tomllib
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import torch
from torch import Tensor

# The lengths of B faces: every field is a tensor, see `neutral_face`.
Face = SimpleNamespace
# x and y of B points, two tensors of one shape.
Point = tuple[Tensor, Tensor]
# The picture's direction of "outwards" for the face's own left and right.
SIDE = torch.tensor([1.0, -1.0])

LOOKS = tomllib.loads(Path(__file__).with_name("looks.toml").read_text(encoding="utf-8"))
HAIR_STYLES = tuple(LOOKS["hair"])
BEARDS = ("none", "stubble", "moustache", "goatee", "full")
GLASSES = ("none", "round", "square")

# sRGB.
HAIR_COLORS = torch.tensor(LOOKS["colors"]["hair"])
IRIS_COLORS = torch.tensor(LOOKS["colors"]["iris"])
CLOTHES = torch.tensor(LOOKS["colors"]["clothes"])


@dataclass(frozen=True)
class _Parameters:
    """The base of Identity and Nuisance: every field is one tensor, whose first dimension is the face."""

    def __len__(self) -> int:
        return len(next(iter(vars(self).values())))

    def take(self, rows: Tensor) -> Self:
        """The parameters of some faces, in the order of `rows` (int64 [K])."""
        rows = torch.as_tensor(rows)
        return dataclasses.replace(self, **{name: value[rows] for name, value in vars(self).items()})

    def to(self, device: torch.device | str) -> Self:
        """The same parameters on another device."""
        return dataclasses.replace(self, **{name: value.to(device) for name, value in vars(self).items()})

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields set to a number or a tensor for every face; ValueError for unknown ones."""
        if unknown := set(changes) - set(vars(self)):
            known = ", ".join(vars(self))
            raise ValueError(f"unknown {type(self).__name__} field {sorted(unknown)}; expected some of {known}")
        for key, value in changes.items():
            old = getattr(self, key)
            changes[key] = torch.as_tensor(value, dtype=old.dtype).expand(old.shape).clone()
        return dataclasses.replace(self, **changes)


@dataclass(frozen=True)
class Identity(_Parameters):
    """Who B people are. Tensors [B]; shapes are about -1…1 around the mean face where no range is given."""

    skin_tone: Tensor  # 0 light … 1 dark
    undertone: Tensor  # rosy (-1) to golden (1)
    age: Tensor  # 0 young … 1 old: lines, folds, greying
    softness: Tensor  # 0 angular (heavy brows, wide jaw) … 1 soft (fuller lips, longer lashes)
    width: Tensor  # the head is wide,
    length: Tensor  # long,
    jaw: Tensor  # square,
    chin: Tensor  # broad-chinned,
    cheeks: Tensor  # high-cheeked
    eye_size: Tensor  # the eyes are open,
    eye_distance: Tensor  # far apart,
    eye_tilt: Tensor  # their outer corners up,
    eye_fold: Tensor  # the lid's crease high
    brow_weight: Tensor  # the brows are thick,
    brow_height: Tensor  # high,
    brow_arch: Tensor  # arched
    nose_length: Tensor  # the nose is long,
    nose_width: Tensor  # wide,
    nose_bridge: Tensor  # high-ridged
    mouth_width: Tensor  # the mouth is wide,
    lip_fullness: Tensor  # the lips full
    iris: Tensor  # float [B,3] colours 0…1, as the next two
    hair: Tensor
    clothes: Tensor
    hair_style: Tensor  # int64, index into `HAIR_STYLES`
    beard: Tensor  # int64, index into `BEARDS`
    glasses: Tensor  # int64, index into `GLASSES`
    hair_volume: Tensor  # the hair is full,
    hairline: Tensor  # its line high
    freckles: Tensor  # 0…1, as the next two
    lipstick: Tensor
    ears: Tensor
    seed: Tensor  # int64, places freckles and hair waves

    @classmethod
    def sample(cls, n: int, seed: int = 0, spread: float = 1.0) -> "Identity":
        """Draw n people: by spread 1 clearly different ones, by 0 one plain person, above 1 caricatures.

        Choices (hair, colours, beard, glasses) differ fully from 0.6 on.
        """
        g = torch.Generator().manual_seed(seed)

        def uniform() -> Tensor:
            return torch.rand(n, generator=g)

        def normal() -> Tensor:
            return torch.randn(n, generator=g).clamp(-1.8, 1.8) * 0.55 * spread

        def pick(weights: Tensor) -> Tensor:
            return torch.multinomial(weights, 1, generator=g).squeeze(1)

        skin_tone = (0.4 + spread * (uniform() - 0.4)).clamp(0, 1)
        age = (spread * uniform() ** 1.5).clamp(0, 1)
        softness = (0.5 + spread * (torch.sigmoid(torch.randn(n, generator=g) * 2.4) - 0.5)).clamp(0, 1)
        soft = softness[:, None]
        names = [f.name for f in dataclasses.fields(cls)]
        shapes = {key: normal() for key in names[names.index("width") : names.index("iris")]}
        shapes["jaw"] = shapes["jaw"] + 0.5 - softness
        shapes["brow_weight"] = shapes["brow_weight"] + 0.7 * (0.5 - softness)
        shapes["lip_fullness"] = shapes["lip_fullness"] + 0.6 * (softness - 0.5) + 0.5 * (skin_tone - 0.4)
        shapes["nose_width"] = shapes["nose_width"] + 0.5 * (skin_tone - 0.4)

        # Darker skin usually goes with darker hair and eyes, but not always.
        dark = skin_tone[:, None].clamp(0, 1)
        light_hair = [k * (1 - dark) ** 2.5 for k in (2.2, 2.6, 1.4)]
        hair = HAIR_COLORS[pick(torch.cat([2 + 6 * dark, 2 + dark, 2 - 1.6 * dark, *light_hair], 1))]
        grey = ((age - 0.60) / 0.3).clamp(0, 1) * (uniform() < 0.8)
        hair = torch.lerp(hair, HAIR_COLORS[6].expand(n, 3), grey[:, None] * 0.85)
        hair = (hair * (0.85 + 0.3 * uniform()[:, None])).clamp(0, 1)
        iris = IRIS_COLORS[pick(torch.cat([1 + 4 * dark, 1.2 + dark, *[(1.2 - 1.15 * dark)] * 4], 1))]
        short, long = (1 - soft), soft
        weights = [0.7 * short, 2.2 * short + 0.1, 1.6 * short + 0.3, 0.5 + 0.8 * dark, 1.5 * long, 1.8 * long]
        styles = pick(torch.cat([*weights, 1.6 * long, 1.2 * long, 1.3 * short, 0.35 * long], 1))
        beards = pick(torch.tensor([[1.1, 1.0, 0.5, 0.5, 0.9]]).expand(n, 5)) * (softness < 0.38)
        glasses = pick(torch.tensor([[0.72, 0.15, 0.13]]).expand(n, 3))
        clothes = CLOTHES[pick(torch.ones(n, len(CLOTHES)))]
        same = uniform() >= spread / 0.6
        plain = torch.tensor([2])
        return cls(
            skin_tone=skin_tone,
            undertone=normal(),
            age=age,
            softness=softness,
            **shapes,
            iris=torch.where(same[:, None], IRIS_COLORS[:1], iris),
            hair=torch.where(same[:, None], HAIR_COLORS[1:2], hair),
            clothes=torch.where(same[:, None], CLOTHES[:1], clothes),
            hair_style=torch.where(same, plain, styles),
            beard=torch.where(same, 0, beards),
            glasses=torch.where(same, 0, glasses),
            hair_volume=normal(),
            hairline=normal() + 0.6 * age * (softness < 0.5),
            freckles=((uniform() < 0.22 * spread) * uniform() * (skin_tone < 0.6)),
            lipstick=((uniform() < 0.55 * softness * spread) * uniform()),
            ears=(0.5 + spread * (uniform() - 0.5)).clamp(0, 1),
            seed=torch.randint(0, 2**31, (n,), generator=g) * (1 if spread else 0),
        )

    def table(self) -> dict[str, list[Any]]:
        """The attributes by which a test set can be split, one column each."""
        return {
            "skin_tone": self.skin_tone.tolist(),
            "age": self.age.tolist(),
            "age_marks": (self.age > 0.5).tolist(),
            "glasses": (self.glasses > 0).tolist(),
            "beard": [BEARDS[i] for i in self.beard.tolist()],
            "hair_style": [HAIR_STYLES[i] for i in self.hair_style.tolist()],
            "freckles": (self.freckles > 0).tolist(),
        }


@dataclass(frozen=True)
class Nuisance(_Parameters):
    """How B pictures were taken. Tensors [B] where no other shape is given."""

    roll: Tensor  # degrees, the picture clockwise
    yaw: Tensor  # degrees, the face to the picture's right
    pitch: Tensor  # degrees, the face downwards
    scale: Tensor  # 1 lets the head fill most of the picture
    shift: Tensor  # float [B,2], in picture half-widths
    light: Tensor  # float [B,2], direction to the light, right and down, each about -1…1
    ambient: Tensor  # 0…1, share of the light that comes from all directions
    contrast: Tensor  # 1 leaves the picture unchanged
    brightness: Tensor  # 0 leaves the picture unchanged
    background: Tensor  # float [B,2,3], colours of top and bottom
    occlusion: Tensor  # 0 none … 1 an object as wide as the face
    occluder: Tensor  # float [B,6]: place x, y, angle in radians, colour
    blur: Tensor  # standard deviation in hundredths of the picture's width
    noise: Tensor  # standard deviation of grey values 0…1
    grey: Tensor  # 0 in colour … 1 in grey levels
    gaze: Tensor  # float [B,2], direction in which the eyes look, right and down, each about -1…1
    seed: Tensor  # int64, for background spots and noise

    @classmethod
    def none(cls, n: int) -> "Nuisance":
        """n portraits: upright, frontal, soft light from the upper left, plain background, no noise."""
        zero = torch.zeros(n)
        return cls(
            **dict.fromkeys(("roll", "yaw", "pitch", "brightness", "occlusion", "blur", "noise", "grey"), zero),
            scale=zero + 1,
            contrast=zero + 1,
            ambient=zero + 0.45,
            shift=torch.zeros(n, 2),
            light=torch.tensor([-0.45, -0.55]).repeat(n, 1),
            background=torch.tensor([[0.80, 0.84, 0.87], [0.62, 0.68, 0.73]]).repeat(n, 1, 1),
            occluder=torch.zeros(n, 6),
            gaze=torch.zeros(n, 2),
            seed=torch.zeros(n, dtype=torch.int64),
        )


def neutral_face(who: Identity) -> Face:
    """The relaxed face of B people: every length that an action unit may change.

    Sided fields are [B,2], midline fields [B]. Folds are depths, 0 none … 1 deep; `age` deepens them.
    """

    def sided(x: Tensor) -> Tensor:
        return x[:, None].repeat(1, 2)

    w, size, age = who.width, who.eye_size, who.age
    eye_x = 0.262 + 0.016 * w + 0.018 * who.eye_distance
    eye_y = -0.085
    brow_y = eye_y - 0.198 - 0.022 * who.brow_height - 0.010 * size
    nose_base = 0.235 + 0.035 * who.nose_length
    mouth_y = 0.455 + 0.018 * who.length + 0.012 * who.nose_length
    zero = torch.zeros_like(w)
    return SimpleNamespace(
        head_width=0.600 + 0.042 * w,
        head_top=-0.850 - 0.020 * who.length,
        head_middle=zero + 0.02,
        jaw_square=(0.32 + 0.24 * who.jaw).clamp(-0.1, 0.75),
        jaw_taper=(0.13 - 0.07 * who.chin - 0.04 * who.jaw).clamp(0.0, 0.30),
        chin_y=0.780 + 0.055 * who.length,
        brow_inner_x=sided(eye_x - 0.140),
        brow_inner_y=sided(brow_y + 0.024),
        brow_mid_x=sided(eye_x + 0.055),
        brow_mid_y=sided(brow_y - 0.020 - 0.018 * who.brow_arch),
        brow_outer_x=sided(eye_x + 0.192),
        brow_outer_y=sided(brow_y + 0.038 + 0.006 * who.brow_arch),
        brow_thick=sided(0.030 + 0.010 * who.brow_weight),
        eye_x=sided(eye_x),
        eye_y=sided(zero + eye_y),
        eye_half=sided(0.146 + 0.010 * size),
        eye_tilt=sided(0.012 + 0.018 * who.eye_tilt),
        lid_upper=sided(0.074 + 0.012 * size - 0.008 * age),
        lid_lower=sided(0.049 + 0.006 * size),
        lid_crease=sided(0.036 + 0.014 * who.eye_fold),
        lid_bag=sided(0.15 + 0.55 * age),
        iris_radius=sided(0.073 + 0.002 * size),
        cheek_x=sided(0.350 + 0.03 * w),
        cheek_y=sided(zero + 0.19),
        cheek_raise=sided(0.35 + 0.25 * who.cheeks),
        nose_tip_y=0.170 + 0.035 * who.nose_length,
        nose_base_y=nose_base,
        nose_wing_x=sided(0.112 + 0.020 * who.nose_width),
        nose_wing_y=sided(nose_base - 0.035),
        corner_x=sided(0.222 + 0.024 * who.mouth_width),
        corner_y=sided(mouth_y - 0.014 + 0.014 * age),
        mouth_y=mouth_y,
        upper_lip=0.047 + 0.014 * who.lip_fullness,
        lower_lip=0.066 + 0.017 * who.lip_fullness,
        **{key: sided(zero) for key in ("upper_open", "lower_open", "lip_raise", "dimple")},
        **{key: zero.clone() for key in ("lip_press", "lip_stretch", "jaw_drop", "chin_boss")},
        nasolabial=sided(0.18 + 0.42 * age),
        forehead_inner=sided(0.42 * age),
        forehead_outer=sided(0.36 * age),
        glabella=sided(0.25 * age),
        nose_wrinkle=sided(0.05 * age),
        crow_feet=sided(0.45 * age),
        marionette=sided(0.45 * age),
    )


def aligned(v: Tensor, x: Tensor) -> Tensor:
    """[B] → [B,1,…], with as many dimensions as x."""
    return v.view(-1, *(1,) * (x.ndim - 1))


def head_halfwidth(face: Face, y: Tensor) -> Tensor:
    """Half-width of the head [B,K] at the heights y [B,K]; see `skin.head_distance`."""
    middle = face.head_middle[:, None]
    t = (y - middle) / (face.chin_y[:, None] - middle)
    u = (middle - y) / (middle - face.head_top[:, None])
    square, taper = face.jaw_square[:, None], face.jaw_taper[:, None]
    lower = ((1 - t * t).clamp(min=0) / (1 - square * t * t)).sqrt() * (1 - taper * t)
    upper = (1 - u * u).clamp(min=0).sqrt()
    return face.head_width[:, None] * torch.where(t > 0, lower, upper)


def project(x: Tensor, y: Tensor, how: Nuisance, depth: float | Tensor = 0.0) -> Point:
    """Turn points on the face's surface by yaw and pitch; the projection is orthographic.

    Takes x, y [B,…] on the frontal face, x to the picture's right, and the point's distance from the head's
    ellipsoid (tip of the nose: 0.2). Returns x, y [B,…] as seen, before roll, scale and shift.
    """
    yaw, pitch = (aligned(torch.deg2rad(a), x) for a in (how.yaw, how.pitch))
    z = 0.50 * (1 - (x / 0.85) ** 2 - (y / 1.15) ** 2).clamp(min=0.02).sqrt() + depth
    return x * yaw.cos() + z * yaw.sin(), y * pitch.cos() + z * pitch.sin()


def to_picture(x: Tensor, y: Tensor, how: Nuisance) -> Point:
    """Face units → picture coordinates -1…1: roll, scale, shift."""
    roll, scale = aligned(torch.deg2rad(how.roll), x), aligned(how.scale, x)
    c, s = scale * roll.cos(), scale * roll.sin()
    dx, dy = (aligned(how.shift[:, i], x) for i in (0, 1))
    return c * x - s * y + dx, s * x + c * y + dy
