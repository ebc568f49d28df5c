"""Action units: what each muscle does to the face, and which units make an expression.

Each unit is one function `unit(face, a)` that changes the neutral face in place. `a` [B,2] is its intensity 0…1
on the face's own left and right; 1 is FACS's level E. Numbers, muscles and appearance: P. Ekman, W. V. Friesen,
J. C. Hager, Facial Action Coding System: The Manual (2002). Lengths are face units (anatomy.py).

Expressions are the EMFACS prototypes (W. V. Friesen, P. Ekman, EMFACS-7, 1983; cf. Table 1 of P. Lucey et al.,
The Extended Cohn-Kanade Dataset, CVPRW 2010).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fer_lab.data.synthetic.anatomy import Face


def inner_brow_raiser(face: Face, a: Tensor) -> None:
    """AU 1, frontalis (pars medialis): the inner brows rise, lines cross the middle of the forehead."""
    face.brow_inner_y -= 0.115 * a
    face.brow_mid_y -= 0.035 * a
    face.lid_upper += 0.006 * a
    face.forehead_inner += 0.75 * a


def outer_brow_raiser(face: Face, a: Tensor) -> None:
    """AU 2, frontalis (pars lateralis): the outer brows rise in an arch, lines above them."""
    face.brow_mid_y -= 0.085 * a
    face.brow_outer_y -= 0.095 * a
    face.forehead_outer += 0.75 * a


def brow_lowerer(face: Face, a: Tensor) -> None:
    """AU 4, corrugator and depressor supercilii: brows down and together, upright furrows between them."""
    face.brow_inner_y += 0.080 * a
    face.brow_mid_y += 0.042 * a
    face.brow_inner_x -= 0.034 * a
    face.brow_thick += 0.006 * a
    face.lid_upper -= 0.010 * a
    face.glabella += 0.95 * a


def upper_lid_raiser(face: Face, a: Tensor) -> None:
    """AU 5, levator palpebrae superioris: the upper lid rises, white shows above the iris."""
    face.lid_upper += 0.042 * a
    face.lid_lower += 0.008 * a
    face.lid_crease -= 0.014 * a


def cheek_raiser(face: Face, a: Tensor) -> None:
    """AU 6, orbicularis oculi (pars orbitalis): cheeks up, eyes narrowed from below, crow's-feet."""
    face.cheek_y -= 0.040 * a
    face.cheek_raise += 0.55 * a
    face.lid_lower -= 0.030 * a
    face.lid_upper -= 0.012 * a
    face.lid_bag += 0.55 * a
    face.crow_feet += 0.85 * a
    face.brow_outer_y += 0.012 * a


def lid_tightener(face: Face, a: Tensor) -> None:
    """AU 7, orbicularis oculi (pars palpebralis): the lids tighten, the eye becomes a slit."""
    face.lid_upper -= 0.020 * a
    face.lid_lower -= 0.020 * a
    face.lid_bag += 0.35 * a


def nose_wrinkler(face: Face, a: Tensor) -> None:
    """AU 9, levator labii superioris alaeque nasi: wrinkles across the nose, wings and lip pulled up."""
    face.nose_wrinkle += 1.0 * a
    face.nose_wing_y -= 0.034 * a
    face.nose_tip_y -= 0.016 * a.mean(1)
    face.nose_wing_x += 0.012 * a
    face.brow_inner_y += 0.045 * a
    face.brow_inner_x -= 0.016 * a
    face.lid_lower -= 0.016 * a
    face.lid_upper -= 0.010 * a
    face.lip_raise += 0.030 * a
    face.upper_open += 0.004 * a
    face.nasolabial += 0.45 * a
    face.cheek_raise += 0.25 * a


def upper_lip_raiser(face: Face, a: Tensor) -> None:
    """AU 10, levator labii superioris: the upper lip rises square, the fold beside the nose deepens."""
    face.lip_raise += 0.062 * a
    face.upper_open += 0.012 * a
    face.nose_wing_y -= 0.016 * a
    face.nasolabial += 0.60 * a
    face.cheek_raise += 0.15 * a


def lip_corner_puller(face: Face, a: Tensor) -> None:
    """AU 12, zygomaticus major: the corners rise and spread, cheeks fill, the nasolabial fold deepens."""
    face.corner_y -= 0.088 * a
    face.corner_x += 0.066 * a
    face.cheek_raise += 0.40 * a
    face.cheek_y -= 0.012 * a
    face.nasolabial += 0.70 * a
    face.lid_lower -= 0.006 * a
    face.upper_lip -= 0.007 * a.mean(1)


def dimpler(face: Face, a: Tensor) -> None:
    """AU 14, buccinator: the corner is pressed in and tightens, a dimple beside it."""
    face.corner_x += 0.026 * a
    face.corner_y -= 0.016 * a
    face.dimple += 1.0 * a


def lip_corner_depressor(face: Face, a: Tensor) -> None:
    """AU 15, depressor anguli oris: the corners are pulled down, lines run from them to the chin."""
    face.corner_y += 0.078 * a
    face.corner_x -= 0.006 * a
    face.marionette += 0.75 * a


def chin_raiser(face: Face, a: Tensor) -> None:
    """AU 17, mentalis: the chin pushes the lower lip up, its skin wrinkles."""
    m = a.mean(1)
    face.mouth_y -= 0.030 * m
    face.lower_lip += 0.010 * m
    face.upper_lip -= 0.008 * m
    face.chin_boss += 0.9 * m
    face.corner_y += 0.010 * a


def lip_stretcher(face: Face, a: Tensor) -> None:
    """AU 20, risorius: the mouth is drawn out sideways, lips flatten, lower teeth may show."""
    face.corner_x += 0.075 * a
    face.corner_y += 0.022 * a
    face.upper_lip -= 0.012 * a.mean(1)
    face.lower_lip -= 0.014 * a.mean(1)
    face.lip_stretch += 1.0 * a.mean(1)
    face.marionette += 0.35 * a


def lip_tightener(face: Face, a: Tensor) -> None:
    """AU 23, orbicularis oris: the lips tighten and grow thin."""
    m = a.mean(1)
    face.upper_lip -= 0.022 * m
    face.lower_lip -= 0.026 * m
    face.corner_x -= 0.022 * a
    face.lip_press += 0.9 * m


def lips_part(face: Face, a: Tensor) -> None:
    """AU 25, depressor labii inferioris or a relaxed mentalis: the lips part."""
    face.upper_open += 0.016 * a
    face.lower_open += 0.030 * a


def jaw_drop(face: Face, a: Tensor) -> None:
    """AU 26, masseter relaxed: the jaw drops and the mouth opens."""
    m = a.mean(1)
    face.jaw_drop += 0.125 * m
    face.chin_y += 0.120 * m
    face.lower_open += 0.165 * a
    face.upper_open += 0.006 * a
    face.corner_y += 0.052 * a
    face.corner_x -= 0.052 * a


@dataclass(frozen=True)
class ActionUnit:
    """One row of `UNITS`.

    Attributes:
        number: in the Facial Action Coding System.
        name: snake case, as in the manual.
        apply: changes a neutral face in place.
        places: (x outwards, y, radius) of the skin that the unit moves, in face units on the mean face.
    """

    number: int
    name: str
    apply: Callable[[Face, Tensor], None]
    places: tuple[tuple[float, float, float], ...]

    @property
    def description(self) -> str:
        """One sentence: the muscle's visible effect."""
        return (self.apply.__doc__ or "").split(": ", 1)[1]


UNITS: tuple[ActionUnit, ...] = (
    ActionUnit(1, "inner_brow_raiser", inner_brow_raiser, ((0.12, -0.30, 0.11), (0.10, -0.44, 0.10))),
    ActionUnit(2, "outer_brow_raiser", outer_brow_raiser, ((0.36, -0.33, 0.12), (0.32, -0.45, 0.10))),
    ActionUnit(4, "brow_lowerer", brow_lowerer, ((0.13, -0.26, 0.12), (0.26, -0.27, 0.09))),
    ActionUnit(5, "upper_lid_raiser", upper_lid_raiser, ((0.20, -0.12, 0.08), (0.31, -0.12, 0.08))),
    ActionUnit(6, "cheek_raiser", cheek_raiser, ((0.33, 0.06, 0.14), (0.44, -0.05, 0.08))),
    ActionUnit(7, "lid_tightener", lid_tightener, ((0.19, -0.07, 0.09), (0.32, -0.07, 0.09))),
    ActionUnit(9, "nose_wrinkler", nose_wrinkler, ((0.05, -0.02, 0.09), (0.09, 0.14, 0.10))),
    ActionUnit(10, "upper_lip_raiser", upper_lip_raiser, ((0.11, 0.38, 0.10), (0.19, 0.28, 0.08))),
    ActionUnit(12, "lip_corner_puller", lip_corner_puller, ((0.24, 0.43, 0.11), (0.33, 0.27, 0.10))),
    ActionUnit(14, "dimpler", dimpler, ((0.26, 0.45, 0.11),)),
    ActionUnit(15, "lip_corner_depressor", lip_corner_depressor, ((0.21, 0.48, 0.10), (0.23, 0.58, 0.09))),
    ActionUnit(17, "chin_raiser", chin_raiser, ((0.05, 0.68, 0.12), (0.05, 0.54, 0.09))),
    ActionUnit(20, "lip_stretcher", lip_stretcher, ((0.26, 0.48, 0.12),)),
    ActionUnit(23, "lip_tightener", lip_tightener, ((0.06, 0.45, 0.11), (0.16, 0.45, 0.08))),
    ActionUnit(25, "lips_part", lips_part, ((0.07, 0.46, 0.12),)),
    ActionUnit(26, "jaw_drop", jaw_drop, ((0.08, 0.56, 0.14), (0.08, 0.74, 0.14))),
)
NUMBERS = tuple(unit.number for unit in UNITS)

# Units and their weight in the full-blown expression.
PROTOTYPES: dict[str, dict[int, float]] = {
    "neutral": {},
    "happiness": {6: 0.85, 12: 1.0, 25: 0.8},
    "surprise": {1: 1.0, 2: 1.0, 5: 0.8, 25: 0.8, 26: 1.0},
    "sadness": {1: 1.0, 4: 0.55, 15: 1.0, 17: 0.35},
    "anger": {4: 1.0, 5: 0.4, 7: 0.8, 23: 1.0},
    "disgust": {4: 0.25, 9: 1.0, 10: 0.75, 15: 0.45},
    "fear": {1: 1.0, 2: 0.55, 4: 0.75, 5: 1.0, 7: 0.25, 20: 1.0, 25: 0.8, 26: 0.35},
    "contempt": {12: 0.65, 14: 1.0},
}


def unit_index(key: int | str) -> int:
    """Row of a unit in `UNITS`, found by FACS number (12, "12", "AU12") or name ("lip_corner_puller").

    Raises:
        ValueError: an unknown unit; the message lists the known ones.
    """
    word = str(key).strip().lower().removeprefix("au").strip()
    for i, unit in enumerate(UNITS):
        if word in (str(unit.number), unit.name):
            return i
    known = ", ".join(f"{unit.number} {unit.name}" for unit in UNITS)
    raise ValueError(f"unknown action unit {key!r}; expected one of {known}")


def action_units(units: Mapping[int | str, float | tuple[float, float]] | Tensor) -> Tensor:
    """Check unit intensities and return them as a tensor [B,U,2] in the order of `UNITS`.

    Args:
        units: for one face {12: 0.8, "brow_lowerer": (1.0, 0.2)}, where a pair is (own left, own right); or a
            tensor [U,2] or [B,U,2].

    Raises:
        ValueError: an unknown unit, a wrong shape, an intensity outside 0…1 or not finite.
    """
    if isinstance(units, Mapping):
        table = torch.zeros(1, len(UNITS), 2)
        for key, value in units.items():
            table[0, unit_index(key)] = torch.as_tensor(value, dtype=torch.float32)
    else:
        table = torch.as_tensor(units, dtype=torch.float32)
        table = table[None] if table.ndim == 2 else table
    if table.ndim != 3 or table.shape[1:] != (len(UNITS), 2):
        raise ValueError(
            f"action units must be [B,{len(UNITS)},2] (unit; own left, own right), got {list(table.shape)}"
        )
    wrong = ~((table >= 0) & (table <= 1))
    if wrong.any():
        face, unit, side = wrong.nonzero()[0].tolist()
        raise ValueError(
            f"intensities must be in 0…1, got {table[face, unit, side].item():g} for "
            f"AU{NUMBERS[unit]} of face {face}; the units are {', '.join(map(str, NUMBERS))}"
        )
    return table


def expression_units(name: str, intensity: float = 1.0) -> Tensor:
    """The prototype of an expression as unit intensities [U,2]; contempt shows on the own left side only.

    Raises:
        ValueError: an expression without a prototype, or an intensity outside 0…1.
    """
    if name not in PROTOTYPES:
        raise ValueError(f"no prototype for {name!r}; expected one of {', '.join(PROTOTYPES)}")
    if not 0 <= intensity <= 1:
        raise ValueError(f"intensity must be in 0…1, got {intensity!r}")
    table = torch.zeros(len(UNITS), 2)
    for number, weight in PROTOTYPES[name].items():
        table[NUMBERS.index(number)] = weight * intensity
    if name == "contempt":
        table[:, 1] = 0
    return table


def move(face: Face, units: Tensor) -> Face:
    """Apply all units [B,U,2] to a neutral face, in place; opposed units cancel each other partly."""
    for i, unit in enumerate(UNITS):
        unit.apply(face, units[:, i])
    face.upper_lip.clamp_(min=0.012)
    face.lower_lip.clamp_(min=0.016)
    for lid in (face.lid_upper, face.lid_lower):
        lid.clamp_(-0.01, 0.14)
    face.lid_upper.copy_(torch.maximum(face.lid_upper, 0.018 - face.lid_lower))
    return face
