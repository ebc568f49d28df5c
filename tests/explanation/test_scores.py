"""Scores of hand-made maps on models whose answer is known."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from fer_lab.explanation import scores as scores_module
from fer_lab.explanation.scores import (
    area,
    better_than,
    blurred,
    mean_over_faces,
    perturbation_curves,
    place_scores,
    priors,
    probing_scores,
)


class Sums(nn.Module):
    """Two logits: the sum of weight · pixel, and 0. `power` bends the first."""

    def __init__(self, weight, power=1):
        super().__init__()
        self.weight, self.power, self.seen, self.num_classes = weight, power, [], 2
        self.drop = nn.Dropout(0.5)

    def forward(self, images):
        self.seen.append(self.training)
        total = (self.drop(images) * self.weight).sum((1, 2, 3)) ** self.power
        return torch.stack([total, torch.zeros_like(total)], 1)


WEIGHT = torch.tensor([[4.0, 1.0], [0.0, 2.0]])
ONES = torch.ones(1, 1, 2, 2)


@pytest.fixture
def black(monkeypatch):
    """In place of a cell comes black, and no blur."""
    monkeypatch.setattr(scores_module, "blurred", torch.zeros_like)


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def test_priors_know_nothing_of_the_face():
    known = priors(3)
    assert list(known) == ["chance", "centre"]
    assert known["chance"].shape == known["centre"].shape == (3, 1, 7, 7)
    assert torch.equal(known["chance"], torch.ones(3, 1, 7, 7))
    assert known["centre"][2].argmax() == 24
    masks = torch.zeros(3, 7, 7, dtype=torch.bool)
    masks[0, 0, 0] = masks[1, 0, 0] = masks[1, 6, 6] = True
    other = priors(3, masks)["other"]
    assert other[:, 0, 0, 0].tolist() == [0.5, 0.5, 1]  # of each face's two others
    assert other[:, 0, 6, 6].tolist() == [0.5, 0, 0.5]
    assert other.sum() == 3


def test_place_scores_by_hand():
    masks = torch.zeros(3, 2, 2, dtype=torch.bool)
    masks[:, 0, 0] = True
    maps = torch.tensor([[[[3.0, 1.0], [0.0, -9.0]]], [[[1.0, 2.0], [0.0, 1.0]]], [[[-1.0, 0.0], [0.0, -2.0]]]])
    scores = place_scores({"mine": maps, "even": torch.ones(3, 1, 2, 2)}, masks)
    mine = scores[scores["way"] == "mine"]
    assert mine["face"].tolist() == [0, 1, 2]
    assert mine["hit"].tolist() == [1, 0, 0.25]  # the third has nothing above zero and counts as even
    assert mine["mass"].tolist() == [0.75, 0.25, 0.25]
    assert mine["empty"].tolist() == [False, False, True]
    assert scores["chance"].tolist() == [0.25] * 6
    assert scores[scores["way"] == "even"][["hit", "mass"]].to_numpy().tolist() == [[0.25, 0.25]] * 3
    with pytest.raises(ValueError, match=r"expected map 'bad' as \[3,1,h,w\], got \[3, 2, 2, 2\]"):
        place_scores({"bad": torch.ones(3, 2, 2, 2)}, masks)


def test_blur_takes_detail_and_keeps_the_mean():
    flat = torch.full((1, 3, 56, 56), 0.7)
    torch.testing.assert_close(blurred(flat), flat)
    board = (torch.arange(56)[:, None] // 2 + torch.arange(56) // 2).remainder(2).float().expand(1, 3, 56, 56)
    assert blurred(board)[:, :, 10:-10, 10:-10].std() < 0.01 < board.std()
    assert blurred(torch.rand(1, 3, 2, 2)).shape == (1, 3, 2, 2)


def test_curves_follow_the_maps_order(black):
    model = Sums(WEIGHT)
    maps = torch.tensor(
        [[[[9.0, 3.0], [-2.0, 5.0]], [[-9.0, -3.0], [2.0, -5.0]]]]
    )  # largest first, smallest first
    deletion = perturbation_curves(model, ONES, maps, target=0, steps=4)
    # Weights 4, 2, 1, 0 go in this order, and in the opposite one.
    by_hand = [[sigmoid(x) for x in (7, 3, 1, 0, 0)], [sigmoid(x) for x in (7, 7, 6, 4, 0)]]
    torch.testing.assert_close(deletion, torch.tensor([by_hand]))
    insertion = perturbation_curves(model, ONES, maps, target=0, steps=4, insertion=True)
    by_hand = [[sigmoid(x) for x in (0, 4, 6, 7, 7)], [sigmoid(x) for x in (0, 0, 1, 3, 7)]]
    torch.testing.assert_close(insertion, torch.tensor([by_hand]))
    # The other class's probability goes the other way; in two steps two cells go at once.
    other = perturbation_curves(model, ONES, maps[:, :1], target=1, steps=2)
    torch.testing.assert_close(other, torch.tensor([[[1 - sigmoid(x) for x in (7, 1, 0)]]]))


def test_curves_replace_whole_cells_of_a_coarse_map(black):
    model = Sums(torch.arange(16.0).view(4, 4) / 100)
    images = torch.ones(1, 1, 4, 4)
    maps = torch.tensor([[[[0.0, 1.0], [0.0, 0.0]]]])
    curve = perturbation_curves(model, images, maps, target=0, steps=4)
    assert curve[0, 0, 1].item() == pytest.approx(sigmoid(1.2 - (2 + 3 + 6 + 7) / 100))


def test_ties_go_in_a_random_order_that_is_the_same_each_time(black):
    images = torch.ones(200, 1, 2, 2)
    even = torch.ones(200, 1, 2, 2)
    ask = {"target": 0, "steps": 4}
    first = perturbation_curves(Sums(WEIGHT), images, even, **ask)
    assert torch.equal(first, perturbation_curves(Sums(WEIGHT), images, even, **ask))
    left = torch.special.logit(first[:, 0, 1].double())
    counts = torch.tensor([(left.round() == 7 - w).sum() for w in (4, 1, 0, 2)])
    assert counts.sum() == 200
    assert counts.min() > 30  # each cell is the first about 50 times


def test_curves_run_in_eval_mode_and_put_it_back():
    model = Sums(WEIGHT).train()
    probing_scores(model, ONES, {"mine": torch.rand(1, 1, 3, 3)}, target=0, steps=2)
    assert set(model.seen) == {False}
    assert model.training
    assert model.drop.training


@pytest.mark.parametrize(
    ("maps", "options", "message"),
    [
        (torch.ones(2, 1, 2, 2), {}, r"expected maps \[1,K,h,w\], got \[2, 1, 2, 2\]"),
        (torch.ones(1, 1, 2, 2), {"steps": 5}, "steps must lie in 1…4"),
        (torch.ones(1, 1, 2, 2), {"target": 2}, "class 0…1"),
    ],
)
def test_curves_that_make_no_sense_are_refused(maps, options, message):
    with pytest.raises(ValueError, match=message):
        perturbation_curves(Sums(WEIGHT), ONES, maps, **{"steps": 2, **options})


def test_area_is_the_mean_height():
    assert area(torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.5, 0.0], [1.0, 0.0, 0.0]])).tolist() == [1, 0.5, 0.25]


def test_probing_scores_are_the_functions_scores():
    g = torch.Generator().manual_seed(0)
    images = torch.rand(4, 1, 6, 6, generator=g)
    model = Sums(torch.rand(6, 6, generator=g) / 9, power=2).eval()
    maps = {"one": torch.rand(4, 1, 3, 3, generator=g), "other": torch.rand(4, 1, 3, 3, generator=g)}
    scores = probing_scores(model, images, maps, target=0, steps=3)
    assert scores["way"].tolist() == ["one"] * 4 + ["other"] * 4
    assert scores["face"].tolist() == [0, 1, 2, 3] * 2
    other = scores[scores["way"] == "other"]
    for name, insertion in (("deletion", False), ("insertion", True)):
        curve = perturbation_curves(model, images, maps["other"], target=0, steps=3, insertion=insertion)
        np.testing.assert_allclose(other[name], area(curve)[:, 0], rtol=1e-6)
    with pytest.raises(ValueError, match="expected map 'flat'"):
        probing_scores(model, images, {"flat": torch.ones(4, 9)})


def scores(**ways):
    return pd.concat([pd.DataFrame({"way": way, "face": range(len(v)), "hit": v}) for way, v in ways.items()])


def test_means_have_the_bootstraps_interval():
    from scipy.stats import bootstrap

    values = np.random.default_rng(0).exponential(size=400)
    row = mean_over_faces(scores(mine=values), ["hit"]).iloc[0]
    expected = bootstrap((values,), np.mean, n_resamples=20_000, random_state=np.random.default_rng(1))
    assert row["value"] == pytest.approx(values.mean())
    assert (row["faces"], row["metric"], row["way"]) == (400, "hit", "mine")
    assert row["low"] == pytest.approx(expected.confidence_interval.low, abs=0.03)
    assert row["high"] == pytest.approx(expected.confidence_interval.high, abs=0.03)


def test_differences_are_paired_by_face_within_a_group():
    noise = np.random.default_rng(0).normal(size=50)
    one = scores(mine=noise + 0.3, chance=noise).assign(model="a")
    two = scores(mine=noise[::-1] + 0.1, chance=noise[::-1]).iloc[::-1].assign(model="b")
    table = mean_over_faces(pd.concat([one, two]), ["hit"], by=["model"], reference="chance")
    table = table.set_index(["model", "way"])
    for model, difference in (("a", 0.3), ("b", 0.1)):
        row = table.loc[(model, "mine")]
        assert [row["difference"], row["difference_low"], row["difference_high"]] == pytest.approx(
            [difference] * 3
        )
        assert row["high"] - row["low"] > 0.3
        assert table.loc[(model, "chance"), "difference"] == 0


def test_maps_are_counted_that_beat_a_rival_face_by_face():
    noise = np.random.default_rng(0).normal(size=50)
    far, near = noise + 0.3, noise + 0.01 * np.random.default_rng(1).normal(size=50)
    one = scores(mine=far, other=near, chance=noise, blob=noise + 0.6).assign(model="a")
    two = scores(mine=far, other=noise - 0.3, chance=noise, blob=noise - 0.6).assign(model="b")
    both = pd.concat([one, two]).assign(fall=lambda t: -t["hit"])
    table = better_than({"luck": "chance", "blob": "blob"}, both, ["hit", "fall"], lower=["fall"])
    # Against chance `mine` in both models; against the blob both maps of model b.
    assert table.loc["hit"].tolist() == ["2 of 4", "2 of 4", "1 of 4"]
    assert table.loc["fall"].tolist() == table.loc["hit"].tolist()
    assert table.columns.tolist() == ["luck", "blob", "all of them"]
    by_way = better_than({"luck": "chance", "blob": "blob"}, both, ["hit"], rows=["way"])
    assert by_way["blob"].to_dict() == {"mine": "1 of 2", "other": "1 of 2"}


def test_unknown_scores_are_left_out_and_equal_ones_have_no_width():
    row = mean_over_faces(scores(mine=[0.5, math.nan, 0.5]), ["hit"]).iloc[0]
    assert (row["faces"], row["value"], row["low"], row["high"]) == (2, 0.5, 0.5, 0.5)
    row = mean_over_faces(scores(mine=[math.nan]), ["hit"]).iloc[0]
    assert row["faces"] == 0
    assert math.isnan(row["value"])


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda t: t.drop(columns="face"), {}, "face missing"),
        (lambda t: pd.concat([t, t]), {}, "occurs twice in a group"),
        (lambda t: t, {"reference": "luck"}, "no way 'luck' to compare mine with"),
    ],
)
def test_tables_that_cannot_be_averaged_are_refused(change, options, message):
    with pytest.raises(ValueError, match=message):
        mean_over_faces(change(scores(mine=[0.1, 0.2])), ["hit"], **options)
