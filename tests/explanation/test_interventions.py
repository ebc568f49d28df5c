"""Pictures without one cause, what they do to the logit, and scores of maps against it."""

import dataclasses

import pandas as pd
import pytest
import torch

from fer_lab.data import prepare
from fer_lab.data.synthetic import NUMBERS, SyntheticFaces, redraw
from fer_lab.explanation.interventions import (
    LEAST,
    causal_scores,
    claimed_importance,
    intervene,
    true_importance,
)
from fer_lab.models import create_model

SMILE, BROW = NUMBERS.index(12), NUMBERS.index(4)


@pytest.fixture(scope="module")
def faces():
    drawn = SyntheticFaces(300, seed=4, size=56, imbalance=0)
    return drawn.subset(drawn.labels != 0).subset(range(3, 250, 20))


@pytest.fixture(scope="module")
def given(faces):
    return intervene(faces)


def test_the_same_muscles_give_the_same_picture(faces):
    rows = [5, 0, 5, 11]
    again = redraw(faces, rows, faces.action_units[rows])
    assert torch.equal(again.images, faces.take(rows))
    assert torch.equal(again.regions, faces.regions[faces.rows[rows]])


def test_what_was_not_rendered_cannot_be_drawn_again(faces):
    foreign = dataclasses.replace(faces, knobs={}, name="mine")
    with pytest.raises(ValueError, match="mine was not rendered"):
        redraw(foreign, [0], faces.action_units[:1])
    with pytest.raises(ValueError, match="mine was not rendered"):
        intervene(dataclasses.replace(foreign, action_units=None))


def test_every_acting_muscle_of_a_side_is_left_out_once(faces, given):
    acting = (faces.action_units >= LEAST).sum((1, 2))
    assert given.table.groupby("face").size().tolist() == acting.tolist()
    row = given.table.query("cause == 'AU12 lip corner puller' and side == 'left'").iloc[0]
    units = faces.action_units[[row["face"]]].clone()
    assert row["intensity"] == pytest.approx(units[0, SMILE, 0].item())
    units[0, SMILE, 0] = 0
    assert torch.equal(given.without[row.name], redraw(faces, [row["face"]], units).images[0])
    assert not torch.equal(given.without[row.name], faces.take([row["face"]])[0])


def test_a_cause_moves_its_own_side_and_part(given):
    """The face's own left is on the picture's right."""
    columns = torch.arange(56.0)
    for cause, low, high in (("AU12 lip corner puller", 28, 56), ("AU4 brow lowerer", 0, 28)):
        places = {}
        for side in ("left", "right"):
            chosen = (given.table["cause"] == cause) & (given.table["side"] == side)
            mask = given.masks[torch.tensor(chosen.to_list())].float().mean(0)
            places[side] = (mask.sum(0) @ columns / mask.sum()).item()
            height = (mask.sum(1) @ columns / mask.sum()).item()
            assert low < height < high
        assert places["left"] > places["right"] + 4


def test_true_importance_is_the_fall_of_the_logit(faces, given):
    torch.manual_seed(0)
    model = create_model("baseline").train()
    target = torch.arange(len(faces)) % 7
    falls = true_importance(model, given, target)
    assert model.training
    model.eval()
    for i in (0, 17, len(falls) - 1):
        face = int(given.of_face[i])
        with torch.no_grad():
            whole, less = (
                model(prepare(one, 56))[0, target[face]]
                for one in (faces.take([face]), given.without[i : i + 1])
            )
        assert falls[i].item() == pytest.approx((whole - less).item(), abs=1e-4)


def made(faces, causes=4):
    """Interventions on one face with causes in the four corners of the picture."""
    masks = torch.zeros(causes, 56, 56, dtype=torch.bool)
    for i in range(causes):
        top, left = 28 * (i // 2), 28 * (i % 2)
        masks[i, top : top + 28, left : left + 28] = True
    table = pd.DataFrame(
        {"face": 0, "cause": [f"c{i}" for i in range(causes)], "side": "left", "intensity": 1.0}
    )
    without = faces.take([0] * causes)
    return type(intervene(faces))(faces.subset([0]), table, without, masks)


def test_maps_are_scored_by_the_order_of_their_causes(faces):
    given, truth = made(faces), torch.tensor([3.0, -1.0, 2.0, 0.5])
    right = torch.tensor([[[[8.0, 1.0], [4.0, 2.0]]]])
    torch.testing.assert_close(claimed_importance(right, given), torch.tensor([8.0, 1.0, 4.0, 2.0]) / 15)
    torch.testing.assert_close(claimed_importance(right - 2, given), torch.tensor([6.0, 0.0, 2.0, 0.0]) / 8)
    even = torch.ones(1, 1, 7, 7)
    table = causal_scores({"right": right, "reversed": 1 / right, "even": even}, truth, given)
    assert table["rank"].tolist()[:2] == pytest.approx([1, -1])
    assert table["top"].tolist()[:2] == [1, 0]
    assert table[["rank", "top"]].loc[2].isna().all()  # all causes tie
    moved = faces.region_masks([0])[:, [-1]].float()
    best = causal_scores({"truth": moved}, truth, given)["cosine"].item()
    assert best == pytest.approx(1, abs=1e-6)
    assert table["cosine"].max() < best


def test_a_map_names_the_deciding_muscle_on_either_side_and_by_its_share_of_a_tie(faces):
    given, truth = made(faces), torch.tensor([3.0, -1.0, 2.0, 0.5])
    maps = {"other side": torch.tensor([[[[1.0, 8.0], [4.0, 2.0]]]])}
    maps["tie"] = torch.tensor([[[[8.0, 8.0], [8.0, 2.0]]]])
    assert causal_scores(maps, truth, given)["top"].tolist() == pytest.approx([0, 1 / 3])
    given.table.loc[1, ["cause", "side"]] = "c0", "right"
    assert causal_scores(maps, truth, given)["top"].tolist() == pytest.approx([1, 2 / 3])


def test_two_causes_have_no_order_worth_scoring(faces):
    given = made(faces, 2)
    table = causal_scores({"any": torch.rand(1, 1, 7, 7)}, torch.tensor([1.0, 0.0]), given)
    assert table[["rank", "top"]].isna().all(axis=None)
