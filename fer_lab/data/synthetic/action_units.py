"""Action units: what each muscle does to the face, and which units make an expression.

Each unit adds to some lengths of the neutral face, in proportion to its intensity 0…1 on the face's own left
and right; 1 is FACS's level E. Numbers, muscles and appearance: P. Ekman, W. V. Friesen, J. C. Hager, Facial
Action Coding System: The Manual (2002). Lengths are face units (anatomy.py).

Expressions are the EMFACS prototypes (W. V. Friesen, P. Ekman, EMFACS-7, 1983; cf. Table 1 of P. Lucey et al.,
The Extended Cohn-Kanade Dataset, CVPRW 2010). Both tables are in action_units.toml.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

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


_TABLES = tomllib.loads(Path(__file__).with_name("action_units.toml").read_text(encoding="utf-8"))
UNITS = tuple(ActionUnit(**row | {"places": tuple(map(tuple, row["places"]))}) for row in _TABLES["unit"])
NUMBERS = tuple(unit.number for unit in UNITS)

# Units and their weight in the full-blown expression.
PROTOTYPES: dict[str, dict[int, float]] = {
    name: {int(number): weight for number, weight in units.items()}
    for name, units in _TABLES["expression"].items()
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
