"""The loss against loops, by hand and by its inequalities; attention; the model with all its switches."""

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.reference import normal
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_lab.data.faces import FaceBatch
from fer_lab.models import create_model, triplet_center
from fer_lab.models.baseline import SMOKE
from fer_lab.models.triplet_center import (
    HINGES,
    NEGATIVES,
    ElementAttention,
    PixelAttention,
    TripletCenterLoss,
    center_loss,
)

# Three centers on a plane, and one face of class 0.
CENTERS = torch.tensor([[0.0, 0.0], [2.0, 3.0], [4.0, 1.0]])
FACE, LABEL = torch.tensor([[1.0, 1.0]]), torch.tensor([0])


def loss_with(centers, margin=0.5, **options):
    loss = TripletCenterLoss(*centers.shape, margin, **options)
    loss.centers.data = centers.clone()
    return loss


def slow_negative(x, label, logits, centers, strategy, k):
    """The negative of one face as the formulas say, in plain Python."""
    wrong = [j for j in range(len(centers)) if j != label]

    def whole(j):
        return sum((x[d] - centers[j][d]) ** 2 for d in range(len(x)))

    if strategy == "predicted":
        return centers[max(wrong, key=lambda j: logits[j])]
    if strategy == "hardest":
        return centers[min(wrong, key=whole)]
    if strategy == "semi":
        wrong = sorted(wrong, key=whole)[:k]
    return [min((centers[j][d] for j in wrong), key=lambda c: abs(x[d] - c)) for d in range(len(x))]


def slow_loss(x, labels, logits, weights, centers, strategy, k, hinge, margin):
    total = 0.0
    for i in range(len(x)):
        negative = slow_negative(x[i], labels[i], logits[i], centers, strategy, k)
        own = centers[labels[i]]
        gaps = [
            weights[i][d] * ((x[i][d] - own[d]) ** 2 - (x[i][d] - negative[d]) ** 2) for d in range(len(x[i]))
        ]
        if hinge == "vector":
            total += max(0.0, sum(gaps) + margin)
        else:
            total += sum(max(0.0, gap + weight * margin) for gap, weight in zip(gaps, weights[i], strict=True))
    return total / len(x)


# ---------------------------------------------------------------- the loss


@pytest.mark.parametrize("hinge", HINGES)
@pytest.mark.parametrize("k", [1, 2, 3, 4, 9])
@pytest.mark.parametrize("strategy", NEGATIVES)
def test_against_a_loop_over_the_formula(strategy, k, hinge):
    x, centers, logits = normal(1, 6, 7), normal(2, 5, 7), normal(3, 6, 5)
    weights, labels = normal(4, 6, 7).sigmoid(), torch.tensor([0, 4, 4, 2, 1, 0])
    loss = loss_with(centers, 0.3, negatives=strategy, k=k, hinge=hinge)
    plain = [t.tolist() for t in (x, labels, logits, weights)]
    expected = slow_loss(*plain, centers.tolist(), strategy, k, hinge, 0.3)
    assert expected > 0
    assert loss(x, labels, logits, weights).item() == pytest.approx(expected, rel=1e-5)
    ones = [[1.0] * 7] * 6
    expected = slow_loss(*plain[:3], ones, centers.tolist(), strategy, k, hinge, 0.3)
    assert loss(x, labels, logits).item() == pytest.approx(expected, rel=1e-5)
    negatives = [slow_negative(*row, centers.tolist(), strategy, k) for row in zip(*plain[:3], strict=True)]
    torch.testing.assert_close(loss.negatives(x, labels, logits).detach(), torch.tensor(negatives))


@pytest.mark.parametrize(
    ("options", "negative", "expected"),
    [
        # Whole squared distances of (1,1) to the wrong centers: 1 + 4 and 9 + 0. Pull is 1 + 1.
        ({"negatives": "hardest", "hinge": "vector"}, [2, 3], 0.0),  # 2 + 0.5 − 5 < 0
        ({"negatives": "hardest", "hinge": "vector", "margin": 4.0}, [2, 3], 1.0),
        ({"negatives": "hardest"}, [2, 3], 0.5),  # (1 + 0.5 − 1) + max(0, 1 + 0.5 − 4)
        ({"negatives": "semi", "k": 1}, [2, 3], 0.5),
        ({"negatives": "predicted"}, [4, 1], 1.5),  # max(0, 1 + 0.5 − 9) + (1 + 0.5 − 0)
        ({"negatives": "fully"}, [2, 1], 2.0),  # (1 + 0.5 − 1) + (1 + 0.5 − 0)
        ({"negatives": "semi", "k": 2}, [2, 1], 2.0),
        ({"negatives": "fully", "margin": 0.0}, [2, 1], 1.0),
    ],
)
def test_worked_by_hand(options, negative, expected):
    loss = loss_with(CENTERS, **options)
    logits = torch.tensor([[9.0, 0.0, 1.0]])
    assert loss.negatives(FACE, LABEL, logits).tolist() == [negative]
    assert loss(FACE, LABEL, logits).item() == pytest.approx(expected)


def test_weights_count_dimensions():
    loss = loss_with(CENTERS, negatives="fully")
    assert loss(FACE, LABEL, weights=torch.tensor([[1.0, 0.0]])).item() == pytest.approx(0.5)
    assert loss(FACE, LABEL, weights=torch.tensor([[0.5, 0.25]])).item() == pytest.approx(0.25 + 0.375)
    # On the vector they weigh the distances, not the margin: max(0, 1 − 9 · 0 + 4 − 0) and so on.
    vector = loss_with(CENTERS, 4.0, negatives="predicted", hinge="vector")
    logits = torch.tensor([[0.0, 0.0, 1.0]])
    assert vector(FACE, LABEL, logits, torch.tensor([[0.0, 1.0]])).item() == pytest.approx(1 + 4 - 0)


@st.composite
def situations(draw):
    seed = draw(st.integers(0, 2**31 - 1))
    classes, dim, faces = (draw(st.integers(low, high)) for low, high in ((2, 8), (1, 9), (1, 6)))
    rng = np.random.default_rng(seed)
    # Whole numbers, so that ties between centers occur.
    kind = draw(st.sampled_from(["real", "whole"]))
    numbers = [rng.normal(size=s) * 2 for s in ((faces, dim), (classes, dim), (faces, classes))]
    x, centers, logits = (
        torch.tensor(n.round() if kind == "whole" else n, dtype=torch.float32) for n in numbers
    )
    return x, torch.from_numpy(rng.integers(classes, size=faces)), logits, centers


def push(situation, **options):
    x, labels, logits, centers = situation
    negatives = loss_with(centers, **options).negatives(x, labels, logits)
    return (x - negatives).square().sum(1).detach()


@settings(deadline=None, max_examples=60)
@given(situations())
def test_every_freedom_brings_the_negative_nearer(situation):
    last = len(situation[3]) - 1
    chain = [push(situation, negatives="fully")]
    chain += [push(situation, negatives="semi", k=k) for k in range(last, 0, -1)]
    chain += [push(situation, negatives="hardest"), push(situation, negatives="predicted")]
    for near, far in itertools.pairwise(chain):
        assert (near <= far * (1 + 1e-6)).all()


@settings(deadline=None, max_examples=60)
@given(situations(), st.sampled_from(HINGES))
def test_one_center_is_the_hardest_and_all_centers_are_fully(situation, hinge):
    x, labels, logits, centers = situation
    last = len(centers) - 1

    def of(**options):
        loss = loss_with(centers, 0.2, hinge=hinge, **options)
        return loss.negatives(x, labels, logits), loss(x, labels, logits)

    for one, other in (
        (of(negatives="semi", k=1), of(negatives="hardest")),
        (of(negatives="semi", k=last), of(negatives="fully")),
        (of(negatives="semi", k=last + 5), of(negatives="fully")),
    ):
        # Of centers equally near either may be taken; how far the negative is does not depend on it.
        torch.testing.assert_close((x - one[0]).abs(), (x - other[0]).abs(), rtol=0, atol=0)
        assert one[1].item() == other[1].item()


@settings(deadline=None, max_examples=40)
@given(situations(), st.sampled_from(NEGATIVES))
def test_no_entry_comes_from_the_own_class(situation, strategy):
    x, labels, logits, centers = situation
    chosen = loss_with(centers, negatives=strategy).choose(x, labels, logits)
    assert chosen.shape == x.shape
    assert (chosen != labels[:, None]).all()


@pytest.mark.parametrize("strategy", NEGATIVES)
def test_gradients_reach_the_embedding_the_own_center_and_the_chosen_entries_alone(strategy):
    x, labels = normal(1, 3, 6).requires_grad_(), torch.tensor([0, 0, 3])
    logits = normal(3, 3, 7).requires_grad_()
    # So large a margin that every hinge is open.
    loss = loss_with(normal(2, 7, 6), 100.0, negatives=strategy)
    loss(x, labels, logits).backward()
    chosen = loss.choose(x, labels, logits)
    touched = torch.zeros(7, 6, dtype=torch.bool).scatter_(0, chosen, True)
    touched[[0, 3]] = True
    assert torch.equal(loss.centers.grad != 0, touched)
    assert not touched.all()
    assert (x.grad != 0).all()
    assert logits.grad is None
    own, negative = loss.centers[labels], loss.negatives(x, labels, logits)
    torch.testing.assert_close(x.grad, (2 * (negative - own) / 3).detach())


def test_a_closed_hinge_is_silent():
    x = torch.tensor([[0.1, 0.0]]).requires_grad_()
    loss = loss_with(10 * CENTERS, 0.5, negatives="fully")
    value = loss(x, LABEL)
    value.backward()
    assert value.item() == 0
    assert x.grad.abs().max() == 0
    assert loss.centers.grad.abs().max() == 0


@pytest.mark.parametrize("strategy", NEGATIVES)
def test_a_table_in_pieces_gives_the_same(strategy, monkeypatch):
    x, labels, logits = normal(1, 10, 6), torch.arange(10) % 4, normal(2, 10, 4)
    loss = loss_with(normal(3, 4, 6), negatives=strategy)
    whole = loss.choose(x, labels, logits)
    rows = []
    nearest = TripletCenterLoss._nearest
    monkeypatch.setattr(
        TripletCenterLoss, "_nearest", lambda self, x, y: rows.append(len(x)) or nearest(self, x, y)
    )
    monkeypatch.setattr(triplet_center, "LARGEST_TABLE", 3 * 4 * 6 * 4)  # three faces of float32
    assert torch.equal(loss.choose(x, labels, logits), whole)
    assert rows == ([] if strategy == "predicted" else [3, 3, 3, 1])


@pytest.mark.parametrize("hinge", HINGES)
@pytest.mark.parametrize("strategy", NEGATIVES)
def test_finite_under_bf16_autocast_alone_and_with_one_class(strategy, hinge):
    layer = torch.nn.Linear(4, 6)
    for labels in (torch.tensor([2]), torch.tensor([1, 1, 1])):
        loss = TripletCenterLoss(3, 6, 0.1, negatives=strategy, hinge=hinge)
        with torch.autocast("cpu", torch.bfloat16):
            x = layer(normal(1, len(labels), 4))
            assert x.dtype == torch.bfloat16
            value = loss(x, labels, normal(2, len(labels), 3).bfloat16(), torch.rand(len(labels), 6).bfloat16())
        value.backward()
        assert value.dtype == torch.float32
        assert value.isfinite()
        assert loss.centers.grad.isfinite().all()
        assert layer.weight.grad.isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k must be at least 1, got 0"),
        ({"margin": -0.1}, "margin must be .* at least 0, got -0.1"),
        ({"margin": math.nan}, "margin"),
        ({"negatives": "easy"}, "one of hardest, predicted, semi, fully, got 'easy'"),
        ({"hinge": "soft"}, "one of dimension, vector, got 'soft'"),
        ({"num_classes": 1}, "at least 2 classes"),
    ],
)
def test_the_loss_refuses_what_has_no_meaning(options, message):
    with pytest.raises(ValueError, match=message):
        TripletCenterLoss(**{"num_classes": 3, "dim": 2, "margin": 0.1} | options)


@pytest.mark.parametrize(
    ("x", "labels", "logits", "message"),
    [
        (torch.zeros(2, 3), [0, 1], None, r"an embedding \[B,2\] .*got \[2, 3\]"),
        (torch.zeros(2), [0, 1], None, r"got \[2\]"),
        (torch.zeros(0, 2), [], None, "at least one face"),
        (torch.zeros(2, 2), [0], None, r"expected labels \[2\], got \[1\]"),
        (torch.zeros(2, 2), [0, 3], None, "labels must be 0…2, got 0…3"),
        (torch.zeros(2, 2), [-1, 0], None, "labels must be 0…2, got -1…0"),
        (torch.zeros(2, 2), [0, 1], None, r"needs logits \[2,3\], got None"),
        (torch.zeros(2, 2), [0, 1], torch.zeros(2, 4), r"needs logits \[2,3\], got \[2, 4\]"),
    ],
)
def test_the_loss_refuses_what_does_not_fit(x, labels, logits, message):
    loss = TripletCenterLoss(3, 2, 0.1, negatives="predicted")
    for call in (loss, loss.negatives):
        with pytest.raises(ValueError, match=message):
            call(x, torch.tensor(labels, dtype=torch.long), logits)


def test_center_loss_by_hand_and_its_gradient():
    x = torch.tensor([[1.0, 1.0], [2.0, 5.0]]).requires_grad_()
    labels = torch.tensor([0, 1])
    # Squares (1 + 1) and (0 + 4), halved and averaged.
    loss = center_loss(x, labels, CENTERS)
    loss.backward()
    assert loss.item() == pytest.approx((2 + 4) / 4)
    torch.testing.assert_close(x.grad, (x.detach() - CENTERS[labels]) / 2)
    weights = torch.tensor([[0.5, 1.0], [1.0, 0.0]])
    assert center_loss(x, labels, CENTERS, weights).item() == pytest.approx(1.5 / 4)
    with pytest.raises(ValueError, match="labels must be"):
        center_loss(x, torch.tensor([0, 9]), CENTERS)


# ---------------------------------------------------------------- selective attention


def test_pixel_attention_is_a_weighted_mean():
    block = PixelAttention(8).eval()
    features = normal(1, 3, 8, 7, 7)
    p = block.attention_map(features)
    assert p.shape == (3, 1, 7, 7)
    assert 0 < p.min() < p.max() < 1
    torch.testing.assert_close(block(features), (p * features).sum((2, 3)) / p.sum((2, 3)))
    # Coefficients that are all alike give the plain mean, also where a sigmoid is 0 in float32.
    for score in (0.0, -200.0):
        torch.nn.init.zeros_(block.score.weight)
        torch.nn.init.constant_(block.score.bias, score)
        if score == 0:
            torch.testing.assert_close(block(features), features.mean((2, 3)))
        assert block(features).isfinite().all()


def test_element_attention_is_the_second_of_a_two_way_softmax():
    block = ElementAttention(16, 5, balanced=False).eval()
    pooled = normal(1, 4, 16)
    scores = block.score(block.bottleneck(pooled)).view(4, 5, 2)
    expected = scores[..., 1].exp() / scores.exp().sum(2)
    torch.testing.assert_close(block(pooled), expected)
    assert block(pooled).shape == (4, 5)
    block.balanced = True
    torch.testing.assert_close(block(pooled), expected / expected.mean(1, keepdim=True))


def test_balanced_elements_cannot_switch_the_loss_off():
    """Coefficients alone learn, against a loss that nothing else lowers."""
    pooled, losses = normal(1, 32, 16), {}
    costs = normal(2, 5).square() + 0.5
    for balanced in (False, True):
        torch.manual_seed(0)
        block = ElementAttention(16, 5, balanced)
        optimizer = torch.optim.Adam(block.parameters(), 0.05)
        for _ in range(60):
            optimizer.zero_grad()
            loss = (block(pooled) * costs).sum(1).mean()
            loss.backward()
            optimizer.step()
        losses[balanced] = loss.item()
    assert losses[False] < 0.05 * costs.sum()
    # All on the cheapest dimension, whose weight is then 5.
    assert 5 * costs.min() * 0.99 < losses[True] < costs.sum()


# ---------------------------------------------------------------- the model


def batch(n=4, classes=7, size=56):
    g = torch.Generator().manual_seed(0)
    images = torch.randn(n, 3, size, size, generator=g)
    return FaceBatch(images=images, labels=torch.arange(n) % classes, indices=torch.arange(n))


def build(**options):
    torch.manual_seed(0)
    return create_model("triplet_center", 7, **options)


def test_total_is_cross_entropy_and_the_weighted_loss():
    model = build(loss_weight=0.3, negatives="predicted", element_attention=False)
    faces = batch()
    terms = model.training_losses(faces)
    assert list(terms) == ["cross_entropy", "triplet_center", "total"]
    torch.testing.assert_close(terms["total"], terms["cross_entropy"] + 0.3 * terms["triplet_center"])
    x = model.embed(faces.images)
    logits = model.logits(x)
    torch.testing.assert_close(terms["cross_entropy"], F.cross_entropy(logits, faces.labels))
    torch.testing.assert_close(terms["triplet_center"], model.triplet_center(x, faces.labels, logits))


def test_element_weights_weigh_the_loss_and_not_the_answer():
    model, faces = build(), batch()
    without = build(element_attention=False)
    answers = [one.eval()(faces.images) for one in (model, without)]
    torch.testing.assert_close(*answers, rtol=0, atol=0)
    model.train()
    weights = model.elements(model.features(faces.images).mean((2, 3)))
    assert weights.shape == (4, 128)
    expected = model.triplet_center(model.embed(faces.images), faces.labels, weights=weights)
    torch.testing.assert_close(model.training_losses(faces)["triplet_center"], expected)


def test_center_loss_and_cross_entropy_alone():
    faces = batch()
    model = build(metric_loss="center", element_attention=False)
    terms = model.training_losses(faces)
    expected = center_loss(model.embed(faces.images), faces.labels, model.centers)
    torch.testing.assert_close(terms["center"], expected)
    alone = build(metric_loss="none")
    terms = alone.training_losses(faces)
    assert list(terms) == ["cross_entropy", "total"]
    assert terms["total"] is terms["cross_entropy"]
    assert alone.centers is None
    assert not any("center" in name or "elements" in name for name, _ in alone.named_parameters())


def test_one_seed_starts_every_variant_from_the_same_network():
    variants = [build(metric_loss="none"), build(negatives="fully"), build(metric_loss="center", k=3)]
    first = variants[0].state_dict()
    for other in variants[1:]:
        state = other.state_dict()
        assert all(torch.equal(state[name], value) for name, value in first.items())


def test_centers_learn_at_their_own_rate_and_do_not_decay():
    model = build(center_lr=20.0)
    rest, centers = model.parameter_groups(SMOKE)
    assert centers["params"] == [model.centers]
    assert centers["lr"] == pytest.approx(20 * SMOKE.lr)
    assert centers["weight_decay"] == 0
    assert "lr" not in rest
    grouped = {id(p) for p in rest["params"]} | {id(model.centers)}
    assert grouped == {id(p) for p in model.parameters()}
    assert len(build(metric_loss="none").parameter_groups(SMOKE)) == 1


@pytest.mark.parametrize("dim", [None, 2, 9])
def test_the_embedding_has_the_size_asked_for(dim):
    model = build(embedding_dim=dim).eval()
    x = model.embed(batch().images)
    assert x.shape == (4, dim or 128)
    assert model.gain == pytest.approx((128 / (dim or 128)) ** 0.5)
    assert model.centers.shape == (7, dim or 128)
    torch.testing.assert_close(model(batch().images), model.logits(x))
    assert model.elements(model.features(batch().images).mean((2, 3))).shape == x.shape


@pytest.mark.parametrize("trunk", ["resnet18", "ir50", "mobilefacenet"])
def test_any_trunk_gives_maps_over_the_same_grid_and_learns_everywhere(trunk):
    model = build(trunk=trunk)
    model.training_losses(batch())["total"].backward()
    still = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert [n for n in still if not n.endswith("bias")] == []
    assert model.attention_maps(batch().images)["pixel-wise"].shape == (4, 1, 7, 7)
    assert sum(p.numel() for p in model.parameters()) < 1_000_000


def test_the_finer_grid_of_a_trunk_is_averaged_two_by_two():
    model = build(trunk="ir50").eval()
    x = batch().images
    torch.testing.assert_close(model.features(x), F.avg_pool2d(model.trunk(x), 2))


def test_the_map_is_the_one_that_weighs_the_places():
    model = build().eval()
    x = batch().images
    p = model.attention_maps(x)["pixel-wise"]
    features = model.trunk(x)
    weighted = (p * features).sum((2, 3)) / p.sum((2, 3))
    torch.testing.assert_close(model.embed(x), model.norm(weighted))


@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize("dim", [None, 2])
def test_without_pixel_attention_the_map_is_the_class_activation(dim, standardize):
    model = build(pixel_attention=False, embedding_dim=dim, standardize=standardize)
    x = batch().images
    model(x)  # moves the statistics of the embedding's normalisation
    model.eval()
    maps = model.attention_maps(x)["class activation"]
    assert maps.shape == (4, 1, 7, 7)
    # The mean of the map is the predicted logit above that of no features at all.
    none = model.logits(model.embed_features(torch.zeros(1, 128, 7, 7)))[0]
    logits, best = model(x).max(1)
    torch.testing.assert_close(maps.mean((1, 2, 3)), logits - none[best], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.embed(x), model.norm(model.project(model.trunk(x).mean((2, 3)))))


def test_a_standardised_embedding_has_a_unit():
    faces = batch(8).images
    for dim in (None, 2):
        x = build(embedding_dim=dim).embed(faces)
        torch.testing.assert_close(x.mean(0), torch.zeros(x.shape[1]), rtol=0, atol=1e-5)
        # BatchNorm adds 1e-5 to the variance, which shows where a dimension hardly varies yet.
        spread = x.var(0, unbiased=False)
        assert 0.9 < spread.median() <= 1.0001
        assert spread.max() <= 1.0001
    plain = build(standardize=False)
    features = plain.features(faces)
    torch.testing.assert_close(plain.embed_features(features), plain.pixels(features))


def test_paper_size_has_the_papers_embedding():
    model = create_model("triplet_center", 7, "paper", negatives="fully")
    assert model.centers.shape == (7, 512)
    # A bottleneck 512 → 256 → 64 → 2 · 512 with two BatchNorms, and a map from 128 channels.
    assert sum(p.numel() for p in model.elements.parameters()) == 512 * 256 + 256 * 64 + 640 + 65 * 1024
    assert sum(p.numel() for p in model.pixels.parameters()) == 512 * 128 + 2 * 128 + 129


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric_loss": "arcface"}, "one of triplet_center, center, none"),
        ({"trunk": "vgg"}, "one of resnet18, ir50, mobilefacenet"),
        ({"negatives": "easy"}, "negatives must be one of"),
        ({"hinge": "soft"}, "hinge must be one of"),
        ({"k": 0}, "k must be at least 1"),
        ({"margin": -1.0}, "margin"),
        ({"loss_weight": 0.0}, "loss_weight must be a finite number above 0, got 0.0"),
        ({"center_lr": 0.0}, "center_lr"),
        ({"embedding_dim": 0}, "embedding_dim must be at least 1"),
        ({"size": "huge"}, "size must be one of tiny, paper"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        create_model("triplet_center", **options)
