"""Layers of a chain of 1×1 convolutions are replaced one after the other, and each stage's map is known."""

import copy

import pytest
import torch
from torch import nn

from fer_lab.explanation.randomization import rank_correlation, weight_randomization
from fer_lab.models import create_model

IMAGE = torch.stack([torch.arange(49.0), torch.arange(49.0).flip(0)]).view(2, 1, 7, 7) / 12


class Chain(nn.Module):
    """Three convolutions one after the other, registered in another order; `aside` never runs."""

    num_classes = 2

    def __init__(self, *weights):
        super().__init__()
        self.last, self.first, self.aside = nn.Conv2d(1, 2, 1), nn.Conv2d(1, 1, 1), nn.Linear(1, 1)
        self.middle = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, affine=False))
        for layer, weight in zip((self.first, self.middle[0], self.last), weights, strict=True):
            nn.init.constant_(layer.weight, weight)
            nn.init.zeros_(layer.bias)
        self.middle[1].eps = 1e-12  # nothing beside a variance of 1

    @property
    def trunk(self):
        return self.first

    def forward(self, images):
        return self.last(self.middle(self.first(images))).mean((2, 3))

    def attention_maps(self, images):
        return {"signed": 3.5 + self.last(self.middle(self.first(images)))[:, :1]}


def test_rank_correlation_is_spearmans():
    from scipy.stats import spearmanr

    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(5, 1, 7, 7, generator=g), torch.randn(5, 1, 7, 7, generator=g).round()
    expected = [spearmanr(x.flatten(), y.flatten()).statistic for x, y in zip(a, b, strict=True)]
    assert rank_correlation(a, b).tolist() == pytest.approx(expected, abs=1e-6)
    assert rank_correlation(a, a.exp()).tolist() == pytest.approx([1] * 5)
    assert rank_correlation(a, -a).tolist() == pytest.approx([-1] * 5)
    assert rank_correlation(a, torch.ones_like(a)).tolist() == [0] * 5
    with pytest.raises(ValueError, match="one shape"):
        rank_correlation(a, b[:2])


def test_layers_become_random_from_the_answer_to_the_pixels():
    model, fresh = Chain(1.0, 1.0, 1.0), Chain(-1.0, 0.0, -1.0)
    table = weight_randomization(model, IMAGE, {"native": {}}, fresh=fresh, stages=3)
    assert table["stage"].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert table["share"].tolist() == pytest.approx([0, 0, 1 / 3, 1 / 3, 2 / 3, 2 / 3, 1, 1])
    assert table["face"].tolist() == [0, 1] * 4
    # `last` turns the map around (3.5 − x, cut at zero), then `middle` makes it the same everywhere.
    turned = rank_correlation(IMAGE, (3.5 - IMAGE).clamp(min=0)).tolist()
    assert -1 < turned[0] < -0.9
    assert table["correlation"].tolist() == pytest.approx([1, 1, *turned, 0, 0, 0, 0])
    # The model itself is what it was.
    assert model.last.weight.unique().tolist() == [1.0]
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_one_stage_replaces_everything_with_buffers_and_what_never_runs():
    model, fresh = Chain(1.0, 1.0, 1.0), Chain(1.0, 1.0, 1.0)
    fresh.middle[1].running_mean += 10.0  # 3.5 + x − 10, cut at zero: nothing left
    table = weight_randomization(model, IMAGE, {"native": {}}, fresh=fresh, stages=1)
    assert table["correlation"].tolist() == pytest.approx([1, 1, 0, 0])


def test_every_way_is_compared_with_its_own_map():
    model, fresh = Chain(1.0, 1.0, 1.0), Chain(-1.0, -1.0, 1.0)
    table = weight_randomization(
        model, IMAGE, {"native": {}, "integrated_gradients": {}}, fresh=fresh, stages=3, target=0
    )
    last = table[table["stage"] == 3].groupby("way")["correlation"].mean()
    # Two turns make the same map again.
    assert last.to_dict() == pytest.approx({"native": 1.0, "integrated_gradients": 1.0})


def test_options_reach_the_way():
    model, fresh = Chain(1.0, 1.0, 1.0), Chain(-1.0, -1.0, -1.0)
    ways = {"integrated_gradients": {"baseline": 10.0}}
    table = weight_randomization(model, IMAGE, ways, fresh=fresh, stages=1, target=0)
    # From 10 on, (x − 10) · weight: with the trained weights nothing speaks for the class.
    assert table["correlation"].tolist() == [0, 0, 0, 0]


def test_a_map_of_a_class_stays_one_of_the_class_that_the_trained_model_answers():
    torch.manual_seed(0)
    model, images = create_model("baseline").eval(), torch.randn(2, 3, 56, 56)
    answers = model(images).argmax(1).tolist()
    other = next(label for label in range(7) if label not in answers)
    fresh = copy.deepcopy(model)
    fresh.fc.bias.data[other] = 1000.0  # answers `other` to everything, by the same features
    table = weight_randomization(model, images, {"native": {}}, fresh=fresh, stages=1)
    assert table["correlation"].tolist() == pytest.approx([1, 1, 1, 1])


def test_an_untrained_model_is_made_where_none_is_given():
    torch.manual_seed(7)
    model = create_model("dan", num_heads=2)
    images = torch.randn(2, 3, 56, 56)
    state = torch.get_rng_state()
    table = weight_randomization(model, images, {"native": {}}, stages=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert table["correlation"][:2].tolist() == pytest.approx([1, 1])
    assert table["correlation"][2:].abs().max() < 0.95
    again = weight_randomization(model, images, {"native": {}}, stages=1)
    assert again.equals(table)
    assert not weight_randomization(model, images, {"native": {}}, stages=1, seed=1).equals(table)


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        weight_randomization(Chain(1.0, 1.0, 1.0), IMAGE, {"native": {}}, stages=0)
    with pytest.raises(ValueError, match="other weights"):
        weight_randomization(Chain(1.0, 1.0, 1.0), IMAGE, {"native": {}}, fresh=nn.Linear(1, 1))
