import pytest
import torch
from helpers.reference import assert_agrees, images, official_state

from fer_lab.data.expressions import from_canonical
from fer_lab.models import create_model
from fer_lab.models.authors import load_official
from fer_lab.models.authors.poster import poster_naming
from fer_lab.models.weights import load_model, save_model


@pytest.fixture(scope="module")
def state():
    return official_state("poster-small")


def deeper(state, depth):
    """The same checkpoint with more steps, each a copy of the fourth."""
    fourth = {k: v for k, v in state.items() if k.startswith("pyramid_fuse.blocks.3.")}
    more = {k.replace("blocks.3.", f"blocks.{i}."): v for i in range(4, depth) for k, v in fourth.items()}
    return state | more


def without_mix(state):
    """As their AffectNet model: no map over the tokens."""
    return {k: v for k, v in state.items() if not (".block_" in k and ".conv." in k)}


@pytest.fixture(scope="module")
def loaded(state):
    model = create_model("poster", 7, "small", tokens="official")
    report = load_official(model, state)
    return model.eval(), report


@torch.no_grad()
def test_poster_agrees_with_the_authors_code(loaded):
    model, _ = loaded
    embedding = model.embed(images(0, 2))
    assert_agrees(embedding[:, :16], "poster-small.embedding")
    assert_agrees(model.classify(embedding), "poster-small.logits")


def test_report_names_what_never_acts_and_the_colours(loaded, state):
    model, report = loaded
    assert len(report.used) + len(report.ignored) == len(state) == 884
    ignored = {name.rsplit(".", 2)[0] if "output_layer" in name else name for name in report.ignored}
    assert ignored == {"ir_back.output_layer", "pyramid_fuse.cls_token"}
    assert [n for n in report.untouched if not n.endswith("num_batches_tracked")] == []
    assert model.color_order == report.color_order == "BGR"
    assert "takes BGR images" in str(report)


def test_colours_travel_with_the_weights(state, tmp_path):
    model = create_model("poster", 7, "small", tokens="official", token_mix=False)
    assert load_official(model, without_mix(state)).color_order == "RGB"
    assert model.color_order == "RGB"
    model.color_order = "BGR"
    save_model(model, tmp_path / "poster.safetensors")
    assert load_model(tmp_path / "poster.safetensors").color_order == "BGR"


@pytest.mark.parametrize(("size", "depth"), [("base", 6), ("large", 8)])
def test_deeper_checkpoints_fill_the_larger_sizes(state, size, depth):
    model = create_model("poster", 7, size, tokens="official")
    report = load_official(model, deeper(state, depth))
    assert [n for n in report.untouched if not n.endswith("num_batches_tracked")] == []
    last = model.steps[depth - 1].blocks[2].landmark_mlp[2].weight
    name = "pyramid_fuse.blocks.3.block_s.mlp2.fc2.weight"
    torch.testing.assert_close(last, state[name], rtol=0, atol=0)
    if size == "large":
        assert model.size == "paper"
        trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
        idle = sum(v.numel() for k, v in state.items() if k in report.ignored and "running" not in k)
        # The authors' log: 70.84 million trainable parameters.
        assert round((trainable + idle) / 1e6, 2) == 70.84


def test_order_permutes_the_head(state):
    model = create_model("poster", 7, "small", tokens="official")
    load_official(model, {f"module.{k}": v for k, v in state.items()}, order="rafdb")
    expected = state["head.linear.weight"][from_canonical("rafdb")]
    torch.testing.assert_close(model.classify.weight, expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("options", "change", "message"),
    [
        ({"size": "base"}, lambda s: s, "has 4 pyramid steps, this POSTER of size 'base' has 6.*size='small'"),
        ({"tokens": "spatial"}, lambda s: s, "tokens='official'"),
        ({}, without_mix, "token_mix=False"),
        ({"token_mix": False}, lambda s: s, "token_mix=True"),
        ({"num_classes": 8}, lambda s: s, r"head\.linear\.weight is \[7, 512\].*\[8, 512\]"),
        ({"pyramid": False}, lambda s: s, "have no place in poster"),
        ({"landmark_stream": "none", "cross_fusion": False}, lambda s: s, "poster"),
    ],
)
def test_a_checkpoint_of_another_model_changes_nothing(state, options, change, message):
    model = create_model("poster", **({"size": "small", "tokens": "official"} | options))
    before = model.classify.bias.clone(), model.trunk.stem[0].weight.clone()
    with pytest.raises(ValueError, match=message):
        load_official(model, change(state))
    torch.testing.assert_close(model.classify.bias, before[0], rtol=0, atol=0)
    torch.testing.assert_close(model.trunk.stem[0].weight, before[1], rtol=0, atol=0)
    assert model.color_order == "RGB"


def test_files_for_other_models(state):
    with pytest.raises(ValueError, match="POSTER checkpoint"):
        load_official(create_model("dan"), state)


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("pyramid_fuse.blocks.2.upsample_s.weight", "steps.2.widen.1.weight"),
        (
            "pyramid_fuse.blocks.2.block_m.attn_lm.kv.bias",
            "steps.2.blocks.1.landmark_attention.kv.bias",
        ),
        ("pyramid_fuse.blocks.2.block_m.attn_x.kv.bias", None),
        ("pyramid_fuse.blocks.4.upsample_s.weight", None),
        ("ir_back.body.7.shortcut_layer.1.bias", "trunk.stages.2.0.shortcut.1.bias"),
        ("face_landback.conv_45.project.bn.bias", "landmarks.stages.2.0.project.norm.bias"),
        ("head.other.weight", None),
    ],
)
def test_names(state, loaded, name, ours):
    assert poster_naming(loaded[0], state).rename(name) == ours
