"""Maps of attention whose right answer is known: hand-set weights, values and layers."""

import math

import pytest
import torch
from torch import nn

from fer_lab.explanation import explain, native_maps, sinks, token_norms, ways_of
from fer_lab.explanation.attention import carried, outlying, rolled_out, rollout, weighed, without_outliers
from fer_lab.explanation.attribution import WAYS
from fer_lab.models import create_model
from fer_lab.models.layers import Attend, watch

IMAGES = torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(0))


def test_what_a_token_adds_is_the_length_of_its_weighted_and_projected_value():
    # Two heads with values of one number, three tokens.
    weights = torch.tensor([[[0.5, 0.25, 0.25], [0.2, 0.8, 0.0]]])
    values = torch.tensor([[[[2.0], [4.0], [0.0]], [[5.0], [-1.0], [9.0]]]])
    # Kept apart, the heads are the two legs of a triangle; the last token has weight or value zero in each.
    by_hand = [math.hypot(1, 1), math.hypot(1, 0.8), 0]
    assert carried(weights, values, torch.eye(2))[0].tolist() == pytest.approx(by_hand)
    # Projected on one line, one head speaks against the other: 1 − 1, 1 + 0.8.
    against = carried(weights, values, torch.tensor([[1.0, -1.0]]))
    assert against[0].tolist() == pytest.approx([0, 1.8, 0])


def test_the_rollout_of_one_layer_is_half_of_it_and_half_identity():
    weights = torch.rand(2, 3, 5, 5, generator=torch.Generator().manual_seed(0)).softmax(-1)
    once = rolled_out([weights])
    torch.testing.assert_close(once, (weights.mean(1) + torch.eye(5)) / 2)
    torch.testing.assert_close(once.sum(-1), torch.ones(2, 5))


def test_a_rollout_takes_the_first_layer_first():
    swap, stay = torch.tensor([[[[0.0, 1.0], [1.0, 0.0]]]]), torch.eye(2)[None, None]
    first = torch.tensor([[[[1.0, 0.0], [1.0, 0.0]]]])  # everything looks at token 0
    assert rolled_out([stay, stay])[0].tolist() == [[1, 0], [0, 1]]
    # Half of token 0 goes over into token 1, and then the two are mixed evenly.
    assert rolled_out([first, swap])[0].tolist() == [[0.75, 0.25], [0.75, 0.25]]
    # Mixed evenly first, token 0 keeps its half of token 1, and token 1 half of its own half.
    assert rolled_out([swap, first])[0].tolist() == [[0.5, 0.5], [0.5, 0.5]]


def test_norms_far_above_the_median_stand_out():
    # Median 3, deviations 2 1 0 1 97: their median is 1, so the limit is 3 + 3 · 1.4826.
    assert outlying(torch.tensor([1.0, 2.0, 3.0, 4.0, 100.0])).tolist() == [False] * 4 + [True]
    assert outlying(torch.tensor([1.0, 2.0, 3.0, 4.0, 7.4])).tolist() == [False] * 5
    assert not outlying(torch.tensor([[-100.0, 2.0, 3.0, 4.0, 5.0]])).any()


class Part(nn.Module):
    """Values are the tokens' first number; keys are all alike but one that is `liked`."""

    def __init__(self):
        super().__init__()
        self.attend, self.proj = Attend(), nn.Linear(1, 1)
        nn.init.constant_(self.proj.weight, 2.0)

    def forward(self, x):
        return self.attend(torch.ones_like(x[:, None, :, :1]), x[:, None, :, 1:], x[:, None, :, :1])


class Whole(nn.Module):
    """A class token and the 49 pixels of a grid as tokens (value, key) through one block."""

    attention_path = ("block.part",)
    attention_grids = 1
    num_classes = 2

    def __init__(self, fails=False):
        super().__init__()
        self.block, self.fails = nn.Sequential(), fails
        self.block.add_module("part", Part())

    def forward(self, images):
        tokens = images.flatten(2).transpose(1, 2)
        self.block(torch.cat([torch.ones(len(images), 1, 2), tokens], 1))
        if self.fails:
            raise RuntimeError("broken head")
        return images.mean((2, 3))

    def attention_maps(self, images):
        with watch(self) as weights:
            self(images)
        return {"class token": weights["block.part.attend"][:, :, 0, 1:].unflatten(2, (7, 7))}


def test_a_place_without_a_value_is_zero_in_the_weighed_map_however_much_it_is_looked_at():
    images = torch.ones(1, 2, 7, 7)
    images[0, :, 2, 3] = torch.tensor([0.0, 5.0])  # value 0, a key that everybody likes
    images[0, :, 4, 1] = torch.tensor([-3.0, 1.0])  # the same weight as the rest, three times the value
    native, found = explain(Whole(), images, "native")[0, 0], explain(Whole(), images, "weighed")[0, 0]
    assert native.argmax() == 2 * 7 + 3
    assert found[2, 3] == 0
    torch.testing.assert_close(found[4, 1], 3 * found[0, 0])
    torch.testing.assert_close(found[0, 0], 2 * native[0, 0])  # the output's matrix doubles


def test_a_long_token_is_left_out_of_the_map_and_counted():
    generator = torch.Generator().manual_seed(0)
    images = 1 + 0.1 * torch.rand(1, 2, 7, 7, generator=generator)
    images[0, :, 6, 6] = torch.tensor([1.0, 5.0])
    native, found = (explain(Whole(), images, way)[0, 0] for way in ("native", "without_outliers"))
    assert native.argmax() == 48
    assert found[6, 6] == 0
    torch.testing.assert_close(found.flatten()[:48], native.flatten()[:48])
    assert token_norms(Whole(), images)[0, 0, 6, 6].item() == pytest.approx(math.hypot(1, 5))
    face = torch.zeros(1, 14, 14, dtype=torch.bool)
    face[:, :6, :6] = True  # nine whole cells; the rest of the 49 is beside the face
    table = sinks(Whole(), images, face).set_index("tokens")
    assert table["count"].to_dict() == {"face": 9, "beside": 40, "outlying": 1}
    assert table["beside"].to_dict() == {"face": 0, "beside": 1, "outlying": 1}
    share = native / native.mean()
    assert table["attention"]["outlying"] == pytest.approx(share[6, 6].item(), rel=1e-5)
    assert table["attention"]["face"] == pytest.approx(share[:3, :3].mean().item(), rel=1e-5)
    norms = token_norms(Whole(), images)[0, 0]
    assert table["norm"]["face"] == pytest.approx((norms[:3, :3].mean() / norms.mean()).item(), rel=1e-5)
    assert table["value"]["outlying"] == pytest.approx((1 / images[0, 0].mean()).item(), rel=1e-5)


def test_everything_is_put_back_after_an_exception():
    model = Whole(fails=True).train()
    with pytest.raises(RuntimeError, match="broken head"):
        weighed(model, torch.ones(1, 2, 7, 7))
    assert model.training
    assert not model.block.part.attend.watched
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())


def test_every_model_lists_the_ways_that_it_has():
    torch.manual_seed(0)
    assert ways_of(create_model("dan")) == WAYS
    assert ways_of(create_model("qcs")) == (*WAYS, "weighed", "rollout", "without_outliers")
    assert ways_of(create_model("poster")) == (*WAYS, "weighed", "without_outliers")
    official = create_model("poster", tokens="official")
    assert ways_of(official) == WAYS
    with pytest.raises(ValueError, match="POSTER has no class token that reads places"):
        explain(official, IMAGES, "weighed")
    with pytest.raises(ValueError, match="places in one layer of attention alone"):
        explain(create_model("poster"), IMAGES, "rollout")
    with pytest.raises(ValueError, match="DAN has no class token"):
        explain(create_model("dan"), IMAGES, "without_outliers")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("qcs", {}),
        ("dcs", {}),
        ("poster", {}),
        ("poster", {"cross_fusion": False}),
        ("poster", {"cross_fusion": False, "landmark_stream": "none"}),
    ],
)
def test_the_path_of_a_real_model_ends_where_its_native_map_is_read(name, options):
    torch.manual_seed(0)
    model = create_model(name, **options).train()
    for way in ways_of(model)[len(WAYS) :]:
        maps = explain(model, IMAGES, way)
        assert maps.shape == (2, 1, 7, 7)
        assert maps.isfinite().all()
        assert maps.min() >= 0
        assert maps.flatten(1).std(1).min() > 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fer_lab.explanation.attention.outlying", lambda norms: torch.zeros_like(norms).bool())
        own = next(iter(native_maps(model, IMAGES).values()))
        torch.testing.assert_close(without_outliers(model, IMAGES), own)
    assert model.training


def test_where_all_values_are_alike_the_weighed_map_is_the_native_one():
    torch.manual_seed(0)
    model = create_model("qcs")
    layer = model.base.blocks[1].attention
    with torch.no_grad():
        layer.qkv.weight[2 * 96 :] = 0  # the values are the bias alone
        layer.qkv.bias[2 * 96 :] = 1
        layer.proj.weight.copy_(torch.eye(96))
    weights = native_maps(model, IMAGES)["class token"]  # [B,4,7,7], three grids added up
    with watch(model) as seen:
        model.eval()(IMAGES)
    apart = seen["base.blocks.1.attention.attend"][:, :, 0, 1:].unflatten(2, (3, 7, 7))
    by_hand = (24 * apart.square().sum(1)).sqrt().sum(1, keepdim=True)  # 24 numbers a head
    torch.testing.assert_close(weighed(model, IMAGES), by_hand)
    assert torch.corrcoef(torch.stack([by_hand[0].flatten(), weights[0].sum(0).flatten()]))[0, 1] > 0.9


def test_a_rollout_through_a_layer_that_looks_at_one_place_moves_the_map_there():
    torch.manual_seed(0)
    model = create_model("qcs").eval()
    base = rollout(model, IMAGES)
    assert base.sum() < 2  # the rest is the class token's own
    torch.testing.assert_close(base, rollout(model, IMAGES))
    with watch(model) as seen:
        model(IMAGES)
    first, last = (seen[f"base.blocks.{i}.attention.attend"].mean(1) for i in range(2))
    row = (last[:, 0] + torch.eye(148)[0]) / 2
    row = (row[:, None] @ first)[:, 0] / 2 + row / 2
    torch.testing.assert_close(base[:, 0], row[:, 1:].unflatten(1, (3, 7, 7)).sum(1))
