import re

import pytest
import torch
import torch.nn.functional as F
from helpers.reference import assert_agrees, normal

from fer_lab.data import FaceRequest, prepare
from fer_lab.data.faces import FaceBatch
from fer_lab.experiments.study import STUDY
from fer_lab.models import create_model
from fer_lab.models.layers import watch
from fer_lab.models.poster import (
    POSTER,
    CrossBlock,
    FusionAttention,
    PyramidStep,
    image_tokens,
    poster_loss,
    with_class_token,
)
from fer_lab.models.trunks import mobilefacenet
from fer_lab.models.weights import LANDMARK_WEIGHTS, STUDY_LANDMARKS, load_weights, read_card
from fer_lab.runs.run import open_model

ALONE = {"landmark_stream": "none", "cross_fusion": False, "pyramid": False}
IDEAS = {
    "image": ALONE,
    "landmarks": {"cross_fusion": False, "pyramid": False},
    "fusion": {"pyramid": False},
    "pyramid": {},
}


def batch(n=4, classes=7, seed=0):
    return FaceBatch(
        images=normal(seed, n, 3, 56, 56), labels=torch.arange(n) % classes, indices=torch.arange(n)
    )


def tiny(**options):
    """With random landmark weights: constructors touch no disk."""
    torch.manual_seed(0)
    return POSTER(7, "tiny", **options)


# ---------------------------------------------------------------- loss


def test_loss_agrees_with_the_authors_code():
    losses = poster_loss(3 * normal(10, 5, 7), torch.tensor([1, 2, 6, 0, 4]))
    assert_agrees(losses["total"], "poster.loss")


def test_loss_against_a_loop_over_the_formula():
    logits, labels = normal(1, 4, 5), [0, 4, 2, 2]
    plain = smoothed = 0.0
    for row, label in zip(logits.double(), labels, strict=True):
        minus_log = [float(-row[c] + torch.logsumexp(row, 0)) for c in range(5)]
        plain += minus_log[label] / 4
        smoothed += (0.8 * minus_log[label] + 0.2 * sum(minus_log) / 5) / 4
    losses = poster_loss(logits, torch.tensor(labels))
    assert losses["cross_entropy"].item() == pytest.approx(plain, rel=1e-5)
    assert losses["smoothed"].item() == pytest.approx(smoothed, rel=1e-5)
    assert losses["total"].item() == pytest.approx(2 * smoothed + plain, rel=1e-5)


def test_soft_targets_take_the_labels_place():
    logits, labels = normal(1, 4, 5), torch.tensor([0, 4, 2, 2])
    hard = poster_loss(logits, labels)
    soft = poster_loss(logits, torch.zeros(4, dtype=torch.long), F.one_hot(labels, 5).float())
    assert soft["total"].item() == pytest.approx(hard["total"].item(), rel=1e-5)
    assert poster_loss(logits.bfloat16(), labels)["total"].dtype == torch.float32


# ---------------------------------------------------------------- tokens


def test_a_spatial_token_is_a_place_and_an_official_one_is_not():
    features = torch.zeros(1, 8, 14, 14)
    features[0, 3, 4:6, 6:8] = 1.0  # row 2, column 3 of the 7×7 grid
    spatial = image_tokens(features)
    assert spatial.shape == (1, 49, 32)
    assert spatial[0].sum(1).nonzero().flatten().tolist() == [7 * 2 + 3]
    official = image_tokens(features, "official")
    assert official.shape == (1, 49, 32)
    torch.testing.assert_close(official.flatten(), features.flatten())
    everywhere = torch.zeros(1, 8, 14, 14)
    everywhere[0, 0, 0, 0] = everywhere[0, 0, 13, 13] = 1.0
    assert len(image_tokens(everywhere)[0].sum(1).nonzero()) == 2
    assert image_tokens(everywhere, "official")[0].sum(1).nonzero().flatten().tolist() == [0, 195 // 32]


def test_class_token_is_the_mean():
    x = normal(2, 2, 5, 3)
    with_class = with_class_token(x)
    torch.testing.assert_close(with_class[:, 0], x.sum(1) / 5)
    torch.testing.assert_close(with_class[:, 1:], x)


def test_wrong_grids_and_layouts_are_refused():
    with pytest.raises(ValueError, match=r"\[B,D,14,14\], got \[1, 8, 7, 7\]"):
        image_tokens(torch.zeros(1, 8, 7, 7))
    with pytest.raises(ValueError, match="spatial, official"):
        image_tokens(torch.zeros(1, 8, 14, 14), "flat")


# ---------------------------------------------------------------- blocks


def test_attention_against_a_loop_over_the_formula():
    block = FusionAttention(8, 2)
    query, source = normal(1, 1, 3, 8), normal(2, 1, 5, 8)
    keys, values = block.kv(source)[0].split(8, dim=1)
    heads = []
    for h in range(2):
        part = slice(4 * h, 4 * h + 4)
        rows = []
        for q in query[0, :, part]:
            weights = torch.stack([(q * k).sum() / 4**0.5 for k in keys[:, part]]).softmax(0)
            rows.append(sum(w * v for w, v in zip(weights, values[:, part], strict=True)))
        heads.append(torch.stack(rows))
    torch.testing.assert_close(block(query, source)[0], block.proj(torch.cat(heads, dim=1)))


def test_cross_block_follows_its_formula():
    block = CrossBlock(8, 2, 1, 10, 0.0, True).eval()
    x = normal(3, 2, 10, 8)
    img, lm = x[:, :5], x[:, 5:]
    image = img + block.image_attention(block.norm1(lm), block.norm1(img))
    image = image + block.image_mlp(block.norm2(image))
    marks = lm + block.landmark_attention(block.norm3(img), block.norm3(lm))
    marks = marks + block.landmark_mlp(block.norm4(marks))
    expected = F.conv1d(torch.cat([image, marks], 1), block.mix.weight, block.mix.bias)
    torch.testing.assert_close(block(x), expected)
    assert {block.norm1.eps, block.norm2.eps, block.norm3.eps, block.norm4.eps} == {1e-6}


def test_each_stream_asks_the_others_question():
    block = CrossBlock(8, 2, 1, 10, 0.0, False).eval()
    x = normal(3, 1, 10, 8)
    other_marks = x.clone()
    other_marks[:, 5:] = normal(4, 1, 5, 8)
    # The image's part changes with the landmarks only through the queries: not where nothing differs to see.
    with torch.no_grad():
        assert not torch.allclose(block(x)[:, :5], block(other_marks)[:, :5])
        same_places = x.clone()
        same_places[:, :5] = x[:, :1]
        changed = same_places.clone()
        changed[:, 5:] = other_marks[:, 5:]
        torch.testing.assert_close(block(same_places)[:, :5], block(changed)[:, :5])


def test_narrow_levels_come_back_narrow_first():
    step = PyramidStep([torch.nn.Identity() for _ in range(3)], 4)
    wide, middle, narrow = normal(1, 2, 4, 8), normal(2, 2, 4, 4), normal(3, 2, 4, 2)
    out = step([wide, middle, narrow])
    updated = middle + step.widen[1](narrow)
    torch.testing.assert_close(out[1], updated)
    torch.testing.assert_close(out[0], wide + step.widen[0](updated))
    torch.testing.assert_close(out[2], narrow)


# ---------------------------------------------------------------- the model


@pytest.mark.parametrize("idea", IDEAS)
def test_ideas_switch_alone(idea):
    model = tiny(**IDEAS[idea]).eval()
    x = batch().images
    assert model(x).shape == (4, 7)
    assert len(model.steps[0].blocks) == (3 if idea == "pyramid" else 1)
    assert isinstance(model.steps[0].blocks[0], CrossBlock) == (idea in ("fusion", "pyramid"))
    assert (model.landmarks is None) == (idea == "image")
    if model.landmarks is not None:
        with torch.no_grad():
            before = model(x)
            model.landmarks.last.conv.weight.mul_(-1)
            assert not torch.allclose(model(x), before)
    losses = model.train().training_losses(batch())
    losses["total"].backward()
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


def test_tiny_stays_under_a_million_parameters():
    assert 900_000 < sum(p.numel() for p in tiny().parameters()) < 1_000_000


def test_drop_path_grows_over_the_depth():
    rates = [step.blocks[0].drop.p for step in POSTER(7, "small").steps]
    assert rates == pytest.approx([0, 0.1 / 3, 0.2 / 3, 0.1])


def test_frozen_stream_has_no_gradient_and_its_statistics_never_move():
    model = tiny().train()
    assert model.training
    assert not any(module.training for module in model.landmarks.modules())
    before = {k: v.clone() for k, v in model.landmarks.state_dict().items()}
    optimizer = torch.optim.AdamW(model.parameter_groups(model.recipes["smoke"])[0]["params"], 1e-2)
    for i in range(2):
        model.training_losses(batch(seed=i))["total"].backward()
        optimizer.step()
    assert all(p.grad is None for p in model.landmarks.parameters())
    assert all(torch.equal(v, before[k]) for k, v in model.landmarks.state_dict().items())
    assert model.trunk.stem[1].num_batches_tracked == 2


def test_joint_stream_learns_but_for_its_unused_head():
    model = tiny(landmark_stream="joint").train()
    assert model.landmarks.last.norm.training
    model.training_losses(batch())["total"].backward()
    still = [n for n, p in model.landmarks.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert still
    assert all(name.startswith("head.") for name in still)
    assert model.landmarks.stem[0].norm.num_batches_tracked == 1


def test_input_gradients_pass_through_a_frozen_stream():
    model = tiny().eval()
    x = batch().images.requires_grad_()
    model.landmarks(x).sum().backward()
    assert x.grad.abs().sum() > 0


# ---------------------------------------------------------------- attention


def test_fused_unless_watched_and_equal_then():
    model = tiny().eval()
    x = batch().images
    with torch.no_grad():
        fused = model(x)
        with watch(model) as weights:
            explicit = model(x)
    torch.testing.assert_close(explicit, fused, rtol=1e-4, atol=1e-5)
    # Two steps, three levels, two attentions each.
    assert len(weights) == 12
    assert not any(module.watched for module in model.modules() if hasattr(module, "watched"))


def test_weights_by_level_and_maps_of_the_first_steps_widest():
    model = tiny().eval()
    x = batch().images
    with torch.no_grad():
        last, first, maps = model.attention_weights(x), model.attention_weights(x, 0), model.attention_maps(x)
    names = [f"{keys}, level {i}" for keys in ("image", "landmarks") for i in (1, 2, 3)]
    assert list(last) == list(first) == names
    for name in names:
        assert last[name].shape == (4, 4, 50, 50)
        torch.testing.assert_close(last[name].sum(-1), torch.ones(4, 4, 50))
        assert not torch.equal(last[name], first[name])
    assert list(maps) == ["image", "landmarks"]
    for keys, drawn in maps.items():
        # Place (r, c) of a map is key 1 + 7r + c of the class token's row.
        torch.testing.assert_close(drawn[:, :, 2, 5], first[f"{keys}, level 1"][:, :, 0, 1 + 7 * 2 + 5])


def follows(before, after):
    """Correlation of maps [B,K,7,7] with those of the picture moved one cell, each at its place."""

    def standard(maps):
        return (maps - maps.mean((2, 3), keepdim=True)) / maps.std((2, 3), keepdim=True)

    return (standard(before[..., 1:5]) * standard(after[..., 2:6])).mean().item()


def test_maps_move_with_the_face_and_attention_behind_a_mixing_step_does_not():
    """What makes a map a map over the face, on the weights that ship."""
    model = open_model("synthetic/poster").eval()
    images = prepare(FaceRequest(count=24, seed=5).load().images, 56)
    moved = images.roll(8, dims=3)
    with torch.no_grad():
        for before, after in zip(
            model.attention_maps(images).values(), model.attention_maps(moved).values(), strict=True
        ):
            assert follows(before, after) > 0.7
        for step, levels in ((0, (2, 3)), (1, (1, 2, 3))):
            mixed = [model.attention_weights(one, step) for one in (images, moved)]
            for name in (f"{keys}, level {i}" for keys in ("image", "landmarks") for i in levels):
                rows = (one[name][:, :, 0, 1:].unflatten(2, (7, 7)) for one in mixed)
                assert abs(follows(*rows)) < 0.3, name


@pytest.mark.parametrize(("idea", "names"), [("image", ["image"]), ("landmarks", ["image", "landmarks"])])
def test_maps_without_cross_fusion_are_the_image_class_tokens(idea, names):
    model = tiny(**IDEAS[idea]).eval()
    with torch.no_grad():
        weights = model.attention_weights(batch().images, 0)["all, level 1"]
        maps = model.attention_maps(batch().images)
    assert list(maps) == names
    torch.testing.assert_close(maps["image"].flatten(2), weights[:, :, 0, 1:50])
    if "landmarks" in names:
        torch.testing.assert_close(maps["landmarks"].flatten(2), weights[:, :, 0, 51:])


def test_official_tokens_are_never_drawn_over_a_face():
    model = tiny(tokens="official").eval()
    assert not model.has_face_maps
    with pytest.raises(ValueError, match="not a place on the face"):
        model.attention_maps(batch().images)
    assert model.attention_weights(batch().images)["image, level 1"].shape == (4, 4, 50, 50)


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tokens": "flat"}, "tokens must be one of spatial, official"),
        ({"landmark_stream": "cold"}, "landmark_stream must be one of frozen, joint, none"),
        ({"landmark_stream": "none"}, "cross_fusion=False"),
        ({"size": "huge"}, "size must be one of tiny, small, base, paper, large"),
        ({"depth": 3}, "depth"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        create_model("poster", **options)


@pytest.mark.parametrize("shape", [(1, 3, 64, 64), (2, 1, 56, 56), (3, 56, 56)])
def test_other_image_shapes_are_refused_with_both_shapes(shape):
    with pytest.raises(ValueError, match=re.escape(f"[B,3,56,56], got {list(shape)}")):
        tiny()(torch.zeros(shape))


# ---------------------------------------------------------------- shipped landmark weights


def test_create_model_fills_the_tiny_stream_and_the_constructor_does_not():
    shipped, bare = create_model("poster"), POSTER(7, "tiny")
    reference = mobilefacenet("tiny")
    load_weights(reference, LANDMARK_WEIGHTS)
    for name, value in reference.state_dict().items():
        torch.testing.assert_close(shipped.landmarks.state_dict()[name], value, rtol=0, atol=0)
    assert not torch.equal(bare.landmarks.last.conv.weight, reference.last.conv.weight)
    assert LANDMARK_WEIGHTS.stat().st_size < 1_000_000


def test_the_study_s_landmark_stream_learned_from_the_study_s_faces_alone():
    stream = create_model("poster", landmark_weights="study").landmarks
    reference = mobilefacenet("tiny")
    load_weights(reference, STUDY_LANDMARKS)
    assert torch.equal(stream.last.conv.weight, reference.last.conv.weight)
    assert read_card(STUDY_LANDMARKS)["fingerprint"] == STUDY["faces"].sized(56).fingerprint()
    with pytest.raises(ValueError, match="wide, study, got 'narrow'"):
        create_model("poster", landmark_weights="narrow")
