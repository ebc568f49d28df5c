"""One unit moves its own features its own way, on its own side; prototypes are EMFACS's."""

import pytest
import torch

from fer_lab.data.expressions import CANONICAL
from fer_lab.data.faces import REGIONS
from fer_lab.data.synthetic.action_units import (
    NUMBERS,
    PROTOTYPES,
    UNITS,
    action_units,
    expression_units,
    unit_index,
)
from fer_lab.data.synthetic.anatomy import Identity, neutral_face
from fer_lab.data.synthetic.drawing import render

WHO = Identity.sample(1, 0, spread=0.0)


def points(units):
    """Landmarks [68,2] of the plain person in face units (the picture is 2 wide)."""
    return render(units, WHO, size=64).landmarks[0] / 32


def eye_opening(p):
    return p[40, 1] + p[41, 1] - p[37, 1] - p[38, 1]


def mouth_opening(p):
    return p[66, 1] - p[62, 1]


def lip_thickness(p):
    return p[57, 1] - p[51, 1] - mouth_opening(p)


# unit → (what is measured, the least change in face units that full intensity makes)
EFFECTS = {
    1: (lambda p: -p[[21, 22], 1].mean(), 0.05),
    2: (lambda p: -p[[17, 26], 1].mean(), 0.05),
    4: (lambda p: p[[21, 22], 1].mean() - (p[22, 0] - p[21, 0]), 0.08),
    5: (eye_opening, 0.04),
    6: (lambda p: -eye_opening(p), 0.03),
    7: (lambda p: -eye_opening(p), 0.03),
    9: (lambda p: -p[[31, 35], 1].mean(), 0.02),
    10: (lambda p: -p[[50, 52], 1].mean(), 0.03),
    12: (lambda p: p[54, 0] - p[48, 0] - p[[48, 54], 1].mean(), 0.15),
    14: (lambda p: p[54, 0] - p[48, 0], 0.03),
    15: (lambda p: p[[48, 54], 1].mean() - p[62, 1], 0.05),
    17: (lambda p: -p[57, 1], 0.01),
    20: (lambda p: p[54, 0] - p[48, 0], 0.10),
    23: (lambda p: -lip_thickness(p), 0.03),
    25: (mouth_opening, 0.03),
    26: (lambda p: p[8, 1] + mouth_opening(p), 0.15),
}


def test_there_are_sixteen_units_each_described():
    assert NUMBERS == (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 25, 26)
    assert set(EFFECTS) == set(NUMBERS)
    for unit in UNITS:
        assert unit.description.endswith(".")
        assert set(unit.moves) <= set(vars(neutral_face(WHO)))


@pytest.mark.parametrize("number", NUMBERS)
def test_unit_moves_its_landmarks_the_right_way_and_more_with_intensity(number):
    measure, least = EFFECTS[number]
    rest, half, full = (measure(points({number: a})) for a in (0.0, 0.5, 1.0))
    assert full - rest >= least
    assert rest < half < full


@pytest.mark.parametrize(("number", "left", "right"), [(2, 26, 17), (12, 54, 48), (15, 54, 48), (5, 44, 37)])
def test_a_unit_on_the_own_left_moves_the_pictures_right(number, left, right):
    moved = (points({number: (1.0, 0.0)}) - points({})).abs().amax(1)
    assert moved[left] > 0.02
    assert moved[right] < 0.3 * moved[left]


@pytest.mark.parametrize("number", NUMBERS)
def test_pixels_change_where_the_unit_is_said_to_move_them(number):
    rest, full = render({}, WHO, size=64), render({number: 1.0}, WHO, size=64)
    change = (full.images.int() - rest.images.int()).abs().sum(1)[0].float()
    inside = (full.regions[0] >> REGIONS.index("moved") & 1).bool()
    density = change[inside].mean() / change[~inside].mean()
    assert change.sum() > 500
    assert density > 5


def test_nothing_is_moved_on_a_neutral_face():
    assert not (render({}, WHO, size=64).regions >> REGIONS.index("moved") & 1).any()


@pytest.mark.parametrize("key", [12, "12", "AU12", "au 12", "lip_corner_puller"])
def test_units_are_found_by_number_and_name(key):
    assert UNITS[unit_index(key)].number == 12


def test_unknown_unit_is_refused_with_the_list():
    with pytest.raises(
        ValueError, match=r"unknown action unit 3; expected one of 1 inner_brow_raiser, .*26 jaw_drop"
    ):
        action_units({3: 1.0})


@pytest.mark.parametrize("value", [-0.1, 1.01, float("nan"), float("inf")])
def test_intensities_outside_0_to_1_are_refused(value):
    with pytest.raises(ValueError, match=r"intensities must be in 0…1, got .* for AU12 of face 0"):
        action_units({12: value})


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"must be \[B,16,2\].*got \[1, 5, 2\]"):
        action_units(torch.zeros(5, 2))


def test_mapping_takes_both_sides_or_each():
    table = action_units({12: 0.5, 4: (1.0, 0.25)})
    assert table[0, unit_index(12)].tolist() == [0.5, 0.5]
    assert table[0, unit_index(4)].tolist() == [1.0, 0.25]
    assert table.sum() == 2.25


def test_every_expression_has_a_prototype_with_its_emfacs_units():
    assert set(PROTOTYPES) == set(CANONICAL)
    required = {
        "happiness": {6, 12},
        "surprise": {1, 2, 5, 26},
        "fear": {1, 2, 4, 5, 7, 20, 26},
        "disgust": {9, 15},
        "sadness": {1, 4, 15},
        "anger": {4, 5, 7, 23},
        "contempt": {12, 14},
    }
    for name, units in required.items():
        assert units <= set(PROTOTYPES[name]), name
    assert expression_units("neutral").sum() == 0


def test_expression_units_are_the_prototypes_and_contempt_is_one_sided():
    assert expression_units("happiness")[unit_index(12)].tolist() == [1, 1]
    assert expression_units("contempt")[:, 1].sum() == 0
    with pytest.raises(ValueError, match=r"no prototype for 'boredom'; expected one of neutral"):
        expression_units("boredom")
