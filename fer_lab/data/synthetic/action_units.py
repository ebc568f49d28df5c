"""Action units: what each muscle does to the face, and which units make an expression.

Each unit adds to some lengths of the neutral face, in proportion to its intensity 0…1 on the face's own left
and right; 1 is FACS's level E. Numbers, muscles and appearance: P. Ekman, W. V. Friesen, J. C. Hager, Facial
Action Coding System: The Manual (2002). Lengths are face units (anatomy.py).

Expressions are the EMFACS prototypes (W. V. Friesen, P. Ekman, EMFACS-7, 1983; cf. Table 1 of P. Lucey et al.,
The Extended Cohn-Kanade Dataset, CVPRW 2010).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fer_lab.data.synthetic.anatomy import Face


@dataclass(frozen=True)
class ActionUnit:
    """One row of `UNITS`."""

    number: int  # in the Facial Action Coding System
    name: str  # snake case, as in the manual
    muscle: str
    description: str  # the muscle's visible effect, one sentence
    moves: dict[str, float]  # length of the neutral face → what full intensity adds to it
    # (x outwards, y, radius) of the skin that the unit moves, in face units on the mean face.
    places: tuple[tuple[float, float, float], ...]


# fmt: off
UNITS: tuple[ActionUnit, ...] = (
    ActionUnit(1, "inner_brow_raiser", "frontalis (pars medialis)",
               "the inner brows rise, lines cross the middle of the forehead.",
               {"brow_inner_y": -0.115, "brow_mid_y": -0.035, "lid_upper": 0.006, "forehead_inner": 0.75},
               ((0.12, -0.30, 0.11), (0.10, -0.44, 0.10))),
    ActionUnit(2, "outer_brow_raiser", "frontalis (pars lateralis)",
               "the outer brows rise in an arch, lines above them.",
               {"brow_mid_y": -0.085, "brow_outer_y": -0.095, "forehead_outer": 0.75},
               ((0.36, -0.33, 0.12), (0.32, -0.45, 0.10))),
    ActionUnit(4, "brow_lowerer", "corrugator and depressor supercilii",
               "brows down and together, upright furrows between them.",
               {"brow_inner_y": 0.080, "brow_mid_y": 0.042, "brow_inner_x": -0.034, "brow_thick": 0.006,
                "lid_upper": -0.010, "glabella": 0.95},
               ((0.13, -0.26, 0.12), (0.26, -0.27, 0.09))),
    ActionUnit(5, "upper_lid_raiser", "levator palpebrae superioris",
               "the upper lid rises, white shows above the iris.",
               {"lid_upper": 0.042, "lid_lower": 0.008, "lid_crease": -0.014},
               ((0.20, -0.12, 0.08), (0.31, -0.12, 0.08))),
    ActionUnit(6, "cheek_raiser", "orbicularis oculi (pars orbitalis)",
               "cheeks up, eyes narrowed from below, crow's-feet.",
               {"cheek_y": -0.040, "cheek_raise": 0.55, "lid_lower": -0.030, "lid_upper": -0.012,
                "lid_bag": 0.55, "crow_feet": 0.85, "brow_outer_y": 0.012},
               ((0.33, 0.06, 0.14), (0.44, -0.05, 0.08))),
    ActionUnit(7, "lid_tightener", "orbicularis oculi (pars palpebralis)",
               "the lids tighten, the eye becomes a slit.",
               {"lid_upper": -0.020, "lid_lower": -0.020, "lid_bag": 0.35},
               ((0.19, -0.07, 0.09), (0.32, -0.07, 0.09))),
    ActionUnit(9, "nose_wrinkler", "levator labii superioris alaeque nasi",
               "wrinkles across the nose, wings and lip pulled up.",
               {"nose_wrinkle": 1.0, "nose_wing_y": -0.034, "nose_tip_y": -0.016, "nose_wing_x": 0.012,
                "brow_inner_y": 0.045, "brow_inner_x": -0.016, "lid_lower": -0.016, "lid_upper": -0.010,
                "lip_raise": 0.030, "upper_open": 0.004, "nasolabial": 0.45, "cheek_raise": 0.25},
               ((0.05, -0.02, 0.09), (0.09, 0.14, 0.10))),
    ActionUnit(10, "upper_lip_raiser", "levator labii superioris",
               "the upper lip rises square, the fold beside the nose deepens.",
               {"lip_raise": 0.062, "upper_open": 0.012, "nose_wing_y": -0.016, "nasolabial": 0.60,
                "cheek_raise": 0.15},
               ((0.11, 0.38, 0.10), (0.19, 0.28, 0.08))),
    ActionUnit(12, "lip_corner_puller", "zygomaticus major",
               "the corners rise and spread, cheeks fill, the nasolabial fold deepens.",
               {"corner_y": -0.088, "corner_x": 0.066, "cheek_raise": 0.40, "cheek_y": -0.012,
                "nasolabial": 0.70, "lid_lower": -0.006, "upper_lip": -0.007},
               ((0.24, 0.43, 0.11), (0.33, 0.27, 0.10))),
    ActionUnit(14, "dimpler", "buccinator",
               "the corner is pressed in and tightens, a dimple beside it.",
               {"corner_x": 0.026, "corner_y": -0.016, "dimple": 1.0},
               ((0.26, 0.45, 0.11),)),
    ActionUnit(15, "lip_corner_depressor", "depressor anguli oris",
               "the corners are pulled down, lines run from them to the chin.",
               {"corner_y": 0.078, "corner_x": -0.006, "marionette": 0.75},
               ((0.21, 0.48, 0.10), (0.23, 0.58, 0.09))),
    ActionUnit(17, "chin_raiser", "mentalis",
               "the chin pushes the lower lip up, its skin wrinkles.",
               {"mouth_y": -0.030, "lower_lip": 0.010, "upper_lip": -0.008, "chin_boss": 0.9,
                "corner_y": 0.010},
               ((0.05, 0.68, 0.12), (0.05, 0.54, 0.09))),
    ActionUnit(20, "lip_stretcher", "risorius",
               "the mouth is drawn out sideways, lips flatten, lower teeth may show.",
               {"corner_x": 0.075, "corner_y": 0.022, "upper_lip": -0.012, "lower_lip": -0.014,
                "lip_stretch": 1.0, "marionette": 0.35},
               ((0.26, 0.48, 0.12),)),
    ActionUnit(23, "lip_tightener", "orbicularis oris",
               "the lips tighten and grow thin.",
               {"upper_lip": -0.022, "lower_lip": -0.026, "corner_x": -0.022, "lip_press": 0.9},
               ((0.06, 0.45, 0.11), (0.16, 0.45, 0.08))),
    ActionUnit(25, "lips_part", "depressor labii inferioris or a relaxed mentalis",
               "the lips part.",
               {"upper_open": 0.016, "lower_open": 0.030},
               ((0.07, 0.46, 0.12),)),
    ActionUnit(26, "jaw_drop", "masseter relaxed",
               "the jaw drops and the mouth opens.",
               {"jaw_drop": 0.125, "chin_y": 0.120, "lower_open": 0.165, "upper_open": 0.006, "corner_y": 0.052,
                "corner_x": -0.052},
               ((0.08, 0.56, 0.14), (0.08, 0.74, 0.14))),
)
# fmt: on
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
    """Row of a unit in `UNITS`, by FACS number (12, "12", "AU12") or name; ValueError for an unknown one."""
    word = str(key).strip().lower().removeprefix("au").strip()
    for i, unit in enumerate(UNITS):
        if word in (str(unit.number), unit.name):
            return i
    known = ", ".join(f"{unit.number} {unit.name}" for unit in UNITS)
    raise ValueError(f"unknown action unit {key!r}; expected one of {known}")


def action_units(units: Mapping[int | str, float | tuple[float, float]] | Tensor) -> Tensor:
    """Unit intensities as a tensor [B,U,2], in the order of `UNITS`; ValueError for anything outside 0…1.

    `units`: for one face {12: 0.8, "brow_lowerer": (1.0, 0.2)}, where a pair is (own left, own right); or a
    tensor [U,2] or [B,U,2].
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


def expression_units(name: str) -> Tensor:
    """The prototype of an expression as unit intensities [U,2]; ValueError for one that has none.

    Contempt shows on the own left side only.
    """
    if name not in PROTOTYPES:
        raise ValueError(f"no prototype for {name!r}; expected one of {', '.join(PROTOTYPES)}")
    table = torch.zeros(len(UNITS), 2)
    for number, weight in PROTOTYPES[name].items():
        table[NUMBERS.index(number)] = weight
    if name == "contempt":
        table[:, 1] = 0
    return table


def move(face: Face, units: Tensor) -> Face:
    """Apply all units [B,U,2] to a neutral face, in place; opposed units cancel each other partly."""
    for i, unit in enumerate(UNITS):
        sides = units[:, i]
        for name, most in unit.moves.items():
            length = getattr(face, name)
            length += most * (sides if length.ndim == 2 else sides.mean(1))
    face.upper_lip.clamp_(min=0.012)
    face.lower_lip.clamp_(min=0.016)
    for lid in (face.lid_upper, face.lid_lower):
        lid.clamp_(-0.01, 0.14)
    face.lid_upper.copy_(torch.maximum(face.lid_upper, 0.018 - face.lid_lower))
    return face
