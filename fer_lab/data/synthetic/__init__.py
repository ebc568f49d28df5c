"""Faces rendered from the Facial Action Coding System, with known truth and with knobs for their difficulty."""

from fer_lab.data.synthetic.action_units import (
    NUMBERS,
    PROTOTYPES,
    UNITS,
    ActionUnit,
    action_units,
    expression_units,
    unit_index,
)
from fer_lab.data.synthetic.anatomy import BEARDS, GLASSES, HAIR_STYLES, Identity, Nuisance
from fer_lab.data.synthetic.drawing import Rendering, render
from fer_lab.data.synthetic.generator import KNOBS, Knob, SyntheticFaces, redraw, write_folder
