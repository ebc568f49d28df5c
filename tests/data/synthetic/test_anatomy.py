"""Identities are people, neutral faces are relaxed, and points turn, roll, scale and shift as they should."""

import dataclasses
import math

import pytest
import torch

from fer_lab.data.synthetic.anatomy import (
    BEARDS,
    GLASSES,
    HAIR_STYLES,
    Identity,
    Nuisance,
    head_halfwidth,
    neutral_face,
    project,
    to_picture,
)


def same(a, b):
    return all(torch.equal(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))


def test_equal_seeds_give_equal_people_and_other_seeds_give_others():
    assert same(Identity.sample(6, 3), Identity.sample(6, 3))
    assert not same(Identity.sample(6, 3), Identity.sample(6, 4))


def test_spread_zero_is_one_plain_person():
    who = Identity.sample(5, 0, spread=0.0)
    for field in dataclasses.fields(who):
        value = getattr(who, field.name)
        assert torch.equal(value, value[:1].expand_as(value)), field.name
    assert who.glasses[0] == GLASSES.index("none")
    assert who.beard[0] == BEARDS.index("none")


@pytest.mark.parametrize("key", ["skin_tone", "width", "jaw", "eye_size", "nose_length", "age"])
def test_spread_widens_the_range_of_people(key):
    narrow, wide = (getattr(Identity.sample(300, 1, spread=s), key).std() for s in (0.3, 1.0))
    assert wide > 2.5 * narrow


@pytest.mark.parametrize("spread", [0.5, 1.0, 1.25])
def test_parameters_stay_in_their_ranges(spread):
    who = Identity.sample(400, 2, spread=spread)
    for key in ("skin_tone", "age", "softness", "freckles", "lipstick", "ears", "hair", "iris", "clothes"):
        value = getattr(who, key)
        assert 0 <= value.min() <= value.max() <= 1, key
    assert set(who.hair_style.tolist()) <= set(range(len(HAIR_STYLES)))


def test_every_hair_style_beard_and_pair_of_glasses_occurs():
    who = Identity.sample(1000, 0)
    assert who.hair_style.unique().tolist() == list(range(len(HAIR_STYLES)))
    assert who.beard.unique().tolist() == list(range(len(BEARDS)))
    assert who.glasses.unique().tolist() == list(range(len(GLASSES)))


def test_table_names_what_the_tensors_number():
    who = Identity.sample(50, 5)
    table = who.table()
    assert table["beard"] == [BEARDS[i] for i in who.beard]
    assert table["glasses"] == [bool(g) for g in who.glasses]
    assert table["age_marks"] == [a > 0.5 for a in who.age.tolist()]


def test_take_and_replace():
    who = Identity.sample(4, 0)
    assert torch.equal(who.take([2, 0]).iris, who.iris[[2, 0]])
    changed = who.replace(age=0.25)
    assert changed.age.tolist() == [0.25] * 4
    assert not torch.equal(who.age, changed.age)
    with pytest.raises(ValueError, match=r"unknown Identity field \['hat'\]; expected some of skin_tone"):
        who.replace(hat=1)


def test_head_ends_at_the_chin_and_is_widest_at_its_middle():
    face = neutral_face(Identity.sample(6, 0))
    y = torch.stack([face.head_top, face.head_middle, face.chin_y], 1)
    half = head_halfwidth(face, y)
    torch.testing.assert_close(half[:, 1], face.head_width)
    assert half[:, [0, 2]].abs().max() < 1e-3


def test_a_portrait_without_nuisances_leaves_points_where_they_are():
    how = Nuisance.none(2)
    x, y = torch.tensor([[0.1, -0.3], [0.0, 0.2]]), torch.tensor([[0.4, 0.0], [-0.5, 0.1]])
    for moved in (project(x, y, how, 0.2), to_picture(x, y, how)):
        torch.testing.assert_close(moved[0], x)
        torch.testing.assert_close(moved[1], y)


def test_a_turned_head_moves_what_stands_out_further():
    how = Nuisance.none(1).replace(yaw=15.0, pitch=10.0)
    origin = torch.zeros(1)
    flat, nose = project(origin, origin, how), project(origin, origin, how, 0.2)
    assert nose[0] > flat[0] > 0
    assert nose[1] > flat[1] > 0
    torch.testing.assert_close(nose[0] - flat[0], torch.tensor([0.2 * math.sin(math.radians(15))]))


def test_roll_scale_and_shift_by_hand():
    how = Nuisance.none(1).replace(roll=90.0, scale=0.5, shift=torch.tensor([0.1, -0.2]))
    x, y = to_picture(torch.tensor([0.4]), torch.tensor([0.2]), how)
    # clockwise by 90°: (0.4, 0.2) → (-0.2, 0.4); halved; shifted
    torch.testing.assert_close(x, torch.tensor([-0.1 + 0.1]), atol=1e-6, rtol=0)
    torch.testing.assert_close(y, torch.tensor([0.2 - 0.2]), atol=1e-6, rtol=0)
