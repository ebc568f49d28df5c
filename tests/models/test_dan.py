import json
import math

import pytest
import torch
import torch.nn.functional as F
from helpers.reference import GOLDEN, assert_agrees, normal

from fer_lab.data.faces import FaceBatch
from fer_lab.models import create_model
from fer_lab.models.dan import (
    AttentionFusion,
    ChannelAttention,
    SpatialAttention,
    affinity_loss,
    partition_loss,
)


def batch(n=4, classes=7, size=56, seed=0):
    g = torch.Generator().manual_seed(seed)
    return FaceBatch(
        images=torch.randn(n, 3, size, size, generator=g),
        labels=torch.arange(n) % classes,
        indices=torch.arange(n),
    )


# ---------------------------------------------------------------- affinity loss


def test_affinity_loss_agrees_with_the_authors_code():
    features = normal(8, 4, 512, 7, 7).mean((2, 3))
    loss = affinity_loss(features, torch.tensor([0, 3, 6, 3]), normal(7, 7, 512))
    assert_agrees(loss.reshape(()), "affinity_loss")


def test_affinity_loss_against_a_loop_over_the_formula():
    x, c, y = normal(1, 5, 6), normal(2, 3, 6), [0, 2, 2, 1, 0]
    spread = 0.0
    for d in range(6):
        column = c[:, d].tolist()
        mean = sum(column) / 3
        spread += sum((v - mean) ** 2 for v in column) / 2
    total = 0.0
    for i in range(5):
        total += sum((float(x[i, d]) - float(c[y[i], d])) ** 2 for d in range(6))
    expected = total / 5 / spread
    assert affinity_loss(x, torch.tensor(y), c).item() == pytest.approx(expected, rel=1e-5)


def test_affinity_loss_worked_by_hand():
    # Centers (0,0) and (2,0): variance 2 + 0. Faces one away from their centers: mean distance² 1.
    centers = torch.tensor([[0.0, 0.0], [2.0, 0.0]])
    faces = torch.tensor([[0.0, 1.0], [3.0, 0.0]])
    assert affinity_loss(faces, torch.tensor([0, 1]), centers).item() == pytest.approx(0.5)
    assert affinity_loss(centers, torch.tensor([0, 1]), centers).item() == 0.0


def test_affinity_gradients_reach_faces_and_every_center():
    x = normal(3, 4, 8).requires_grad_()
    c = normal(4, 5, 8).requires_grad_()
    affinity_loss(x, torch.tensor([0, 0, 1, 1]), c).backward()
    assert (x.grad.abs().sum(1) > 0).all()
    # Classes absent from the batch are moved through the variance that divides the loss.
    assert (c.grad.abs().sum(1) > 0).all()


@pytest.mark.parametrize("shapes", [((4, 8), (5, 7)), ((4, 8, 1), (5, 8)), ((4, 8), (1, 8))])
def test_affinity_loss_refuses_shapes_that_do_not_fit(shapes):
    with pytest.raises(ValueError, match=r"centers"):
        affinity_loss(torch.zeros(shapes[0]), torch.zeros(4, dtype=torch.long), torch.zeros(shapes[1]))


# ---------------------------------------------------------------- partition loss


def test_partition_loss_agrees_with_the_authors_code():
    assert_agrees(partition_loss(F.log_softmax(normal(9, 4, 4, 512), dim=1)).reshape(()), "partition_loss")


def test_partition_loss_worked_by_hand():
    # Two heads, one channel, values 0 and 2: variance 2, log(1 + 2/2).
    heads = torch.tensor([[[0.0], [2.0]]])
    assert partition_loss(heads).item() == pytest.approx(math.log(2))


def test_partition_loss_against_a_loop_over_the_formula():
    heads = normal(5, 3, 4, 6)
    variances = []
    for i in range(3):
        for d in range(6):
            column = heads[i, :, d].tolist()
            mean = sum(column) / 4
            variances.append(sum((v - mean) ** 2 for v in column) / 3)
    expected = math.log(1 + 4 / (sum(variances) / len(variances)))
    assert partition_loss(heads).item() == pytest.approx(expected, rel=1e-5)


def test_partition_loss_falls_when_heads_move_apart_and_is_finite_when_they_agree():
    heads = normal(6, 2, 4, 8)
    assert partition_loss(2 * heads) < partition_loss(heads)
    same = torch.ones(2, 4, 8, requires_grad=True)
    loss = partition_loss(same)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(same.grad).all()


def test_a_single_head_has_nothing_to_differ_from():
    heads = normal(6, 2, 1, 8).requires_grad_()
    loss = partition_loss(heads)
    loss.backward()
    assert loss.item() == 0.0
    assert heads.grad.abs().max().item() == 0.0
    with pytest.raises(ValueError, match=r"\[B,K,D\]"):
        partition_loss(torch.zeros(2, 8))


# ---------------------------------------------------------------- blocks


def test_spatial_attention_is_the_sum_of_three_looks():
    block = SpatialAttention(32, 16).eval()
    x = normal(1, 2, 32, 7, 7)
    attention = block.attention_map(x)
    assert attention.shape == (2, 1, 7, 7)
    assert attention.min() >= 0
    u = block.reduce(x)
    s = (block.square(u) + block.row(u) + block.column(u)).clamp(min=0)
    torch.testing.assert_close(attention[:, 0], s.sum(1))
    torch.testing.assert_close(block(x), x * attention)


def test_channel_attention_gates_the_mean():
    block = ChannelAttention(32).eval()
    x = normal(2, 3, 32, 7, 7)
    pooled = x.mean((2, 3))
    ratio = block(x) / pooled
    assert block(x).shape == (3, 32)
    assert 0 < ratio.min() < ratio.max() < 1


def test_heads_compete_for_every_channel():
    fusion = AttentionFusion(8, 7)
    heads = fusion.compete(normal(3, 2, 4, 8))
    torch.testing.assert_close(heads.exp().sum(1), torch.ones(2, 8))
    alone = normal(3, 2, 1, 8)
    torch.testing.assert_close(fusion.compete(alone), alone)


# ---------------------------------------------------------------- the model


def test_paper_size_has_the_published_number_of_parameters():
    model = create_model("dan", 7, "paper")
    count = sum(p.numel() for n, p in model.named_parameters() if n != "centers")
    shapes = json.loads((GOLDEN / "dan_parameters.json").read_text())
    learned = {n: s for n, s in shapes.items() if "running" not in n}
    assert count == sum(math.prod(s) for s in learned.values())
    assert round(count / 1e6, 1) == 19.7
    assert sum(v.numel() for v in model.heads[0].channel.parameters()) == 512 * 32 * 2 + 32 * 3 + 512


def test_switched_off_terms_are_reported_but_do_not_train():
    model = create_model("dan", 7, affinity_weight=0.0, partition_weight=0.0)
    losses = model.training_losses(batch())
    assert losses["affinity"] > 0
    assert losses["partition"] > 0
    torch.testing.assert_close(losses["total"], losses["cross_entropy"])
    assert not losses["affinity"].requires_grad
    assert not losses["partition"].requires_grad
    assert not model.centers.requires_grad


def test_total_is_the_weighted_sum():
    model = create_model("dan", 7, affinity_weight=0.5, partition_weight=2.0)
    terms = model.training_losses(batch())
    expected = terms["cross_entropy"] + 0.5 * terms["affinity"] + 2.0 * terms["partition"]
    torch.testing.assert_close(terms["total"], expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"num_heads": 0}, "num_heads"), ({"affinity_weight": -1.0}, "affinity_weight"), ({"k": 2}, "k")],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        create_model("dan", **options)


def test_maps_are_one_per_head_over_the_grid():
    model = create_model("dan", num_heads=3).eval()
    maps = model.attention_maps(batch().images)["heads"]
    assert maps.shape == (4, 3, 7, 7)
    with torch.no_grad():
        features = model.trunk(batch().images)
        torch.testing.assert_close(maps[:, 1:2], model.heads[1].spatial.attention_map(features))
