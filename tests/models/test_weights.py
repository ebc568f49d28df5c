"""Saving and loading; and the weights that ship are small, fit today's code, and score what their cards say."""

import json
import struct
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_lab.data.synthetic import SyntheticFaces
from fer_lab.data.synthetic.generator import set_fingerprint
from fer_lab.evaluation.metrics import predict
from fer_lab.models import create_model, weights
from fer_lab.models.trunks import mobilefacenet
from fer_lab.models.weights import (
    LANDMARK_WEIGHTS,
    SHIPPED_FOLDER,
    STUDY_LANDMARKS,
    CheckpointError,
    card_text,
    is_shipped_name,
    load_model,
    load_weights,
    read_card,
    save_model,
    shipped_models,
    shipped_weights,
)
from fer_lab.runs.run import open_model

FILES = sorted(SHIPPED_FOLDER.glob("*/*.safetensors"))
MODELS = [path for path in FILES if path not in (LANDMARK_WEIGHTS, STUDY_LANDMARKS)]


def rewrite_card(path, **changes):
    """Change the card of a file and leave its tensors as they are."""
    with safetensors.safe_open(path, framework="pt") as file:
        card = json.loads(file.metadata()["fer_lab"])
    state = safetensors.torch.load_file(path)
    card.update(changes)
    card["sha256"] = changes.get("sha256", weights._digest(card, state))
    safetensors.torch.save_file(state, path, metadata={"fer_lab": json.dumps(card)})


def test_a_saved_model_comes_back_whole(toy, tmp_path):
    model = toy(3, width=5)
    model.classes, model.color_order = ("a", "b", "c"), "BGR"
    model.norm.running_mean.fill_(0.25)
    path = tmp_path / "w.safetensors"
    save_model(model, path, data="rendered", seed=3)
    back = load_model(path)
    for (name, ours), (_, theirs) in zip(model.state_dict().items(), back.state_dict().items(), strict=True):
        assert torch.equal(ours, theirs), name
    assert (back.classes, back.color_order, back.options) == (("a", "b", "c"), "BGR", {"width": 5})
    assert not back.training
    assert back.second.weight is back.first.weight
    card = read_card(path)
    assert (card["data"], card["seed"], card["num_classes"]) == ("rendered", 3, 3)
    images = torch.rand(4, 3, 8, 8)
    assert torch.equal(model.eval()(images), back(images))


def test_tied_weights_are_stored_once(toy, tmp_path):
    save_model(toy(), tmp_path / "w.safetensors")
    assert "second.weight" not in safetensors.torch.load_file(tmp_path / "w.safetensors")
    assert read_card(tmp_path / "w.safetensors")["aliases"] == {"second.weight": "first.weight"}


def test_half_precision_halves_the_file_and_keeps_the_model_float32(toy, tmp_path):
    model = toy(3, width=900)
    save_model(model, tmp_path / "full.safetensors")
    save_model(model, tmp_path / "half.safetensors", half=True)
    ratio = (tmp_path / "half.safetensors").stat().st_size / (tmp_path / "full.safetensors").stat().st_size
    assert 0.5 <= ratio < 0.55
    back = load_model(tmp_path / "half.safetensors")
    assert back.head.weight.dtype == torch.float32
    assert back.norm.num_batches_tracked.dtype == torch.int64
    assert torch.equal(back.head.weight, model.head.weight.half().float())


def test_half_precision_refuses_numbers_that_it_cannot_hold(toy, tmp_path):
    model = toy()
    model.norm.running_var[1] = 1e5
    with pytest.raises(ValueError, match=r"norm\.running_var has numbers beyond"):
        save_model(model, tmp_path / "w.safetensors", half=True)
    assert list(tmp_path.iterdir()) == []


def test_a_card_must_be_plain_data_and_cannot_overrule_the_model(toy, tmp_path):
    with pytest.raises(ValueError, match="card must be plain data"):
        save_model(toy(), tmp_path / "w.safetensors", score=torch.tensor(1.0))
    save_model(toy(), tmp_path / "w.safetensors", num_classes=99)
    assert read_card(tmp_path / "w.safetensors")["num_classes"] == 3


def test_another_model_is_refused_with_both_named(toy, tmp_path):
    path = tmp_path / "w.safetensors"
    save_model(toy(3), path)
    with pytest.raises(CheckpointError, match=r"of method 'toy', but the model is of method 'other'"):
        load_weights(toy(3, name="other"), path)
    with pytest.raises(CheckpointError, match=r"of num classes 3, but the model is of num classes 4"):
        load_weights(toy(4), path)
    model = toy(3, seed=1, width=6)
    before = model.head.weight.clone()
    with pytest.raises(CheckpointError, match=r"first\.weight is \[4, 3\], expected \[6, 3\]"):
        load_weights(model, path)
    assert torch.equal(model.head.weight, before)


def test_another_class_order_is_refused(toy, tmp_path):
    path = tmp_path / "w.safetensors"
    model = toy(3)
    model.classes = ("surprise", "neutral", "happiness")
    save_model(model, path)
    with pytest.raises(CheckpointError, match="orders its classes"):
        load_weights(toy(3), path)


@pytest.mark.parametrize("place", ["header", "weights", "end"])
def test_damage_is_noticed(toy, tmp_path, place):
    path = tmp_path / "w.safetensors"
    save_model(toy(), path)
    content = bytearray(path.read_bytes())
    if place == "end":
        content = content[:-5]
    else:
        content[2 if place == "header" else -5] ^= 4
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"w\.safetensors"):
        load_model(path)


def test_files_that_are_not_ours_are_named(toy, tmp_path):
    path = tmp_path / "w.safetensors"
    with pytest.raises(FileNotFoundError, match=r"w\.safetensors does not exist"):
        load_model(path)
    safetensors.torch.save_file({"head.weight": torch.ones(2)}, path)
    with pytest.raises(CheckpointError, match=r"no fer_lab card.*fer-lab convert"):
        load_model(path)
    path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        load_model(path)


def test_a_header_that_promises_more_than_the_file_has_is_refused(tmp_path):
    path = tmp_path / "w.safetensors"
    header = json.dumps({"a": {"dtype": "F32", "shape": [10**9], "data_offsets": [0, 4 * 10**9]}}).encode()
    for length in (len(header), 2**62):
        path.write_bytes(struct.pack("<Q", length) + header + b"1234")
        with pytest.raises(CheckpointError, match="not a readable safetensors file"):
            load_model(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "its format is 2, this fer_lab reads format 1"),
        ({"method": "os"}, "cannot be built: unknown model 'os'"),
        ({"method": None}, "method should be str"),
        ({"num_classes": 4}, "4 different classes are named"),
        ({"classes": [1, 2, 3]}, "3 different classes are named"),
        ({"options": {"num_classes": 2}}, "options must not have"),
        ({"options": {"nonsense": 2}}, "cannot be built"),
        ({"options": {"width": 1001}}, "cannot be built: width is too large"),
        ({"options": {"width": 10**9}}, "unusable card: width = 1000000000 is beyond 1,024"),
        ({"options": {"deep": [{"width": 1e9}]}}, "unusable card: deep"),
        ({"num_classes": 10**9, "classes": ["a"]}, "unusable card"),
        ({"options": {"width": -1}}, "cannot be built"),
        ({"options": {"width": 7}}, r"first\.weight is \[4, 3\], expected \[7, 3\]"),
        ({"color_order": "GBR"}, "color_order"),
        ({"sha256": "0"}, "checksum"),
        ({"aliases": {}}, r"second\.weight is missing"),
        ({"aliases": {"second.weight": "first.weight", "third": "first.weight"}}, "third is unknown"),
        ({"aliases": {"second.weight": "nowhere"}}, r"second\.weight shares nowhere, which is missing"),
        ({"aliases": {"second.weight": [1]}}, "aliases"),
    ],
)
def test_a_card_that_lies_is_refused(toy, tmp_path, changes, message):
    path = tmp_path / "w.safetensors"
    save_model(toy(), path)
    rewrite_card(path, **changes)
    with pytest.raises(CheckpointError, match=message):
        load_model(path)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return tmp_path_factory.mktemp("mutated") / "w.safetensors"


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_no_changed_byte_is_read_as_good(written, data):
    from helpers.toy_method import Toy

    torch.manual_seed(0)
    model = Toy(3)
    save_model(model, written)
    original = read_card(written)
    content = bytearray(written.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    written.write_bytes(content)
    fresh = Toy(3)
    try:
        card = load_weights(fresh, written)
    except CheckpointError:
        return
    # Only white space in the header may change unnoticed.
    assert card == original
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, fresh.state_dict()[name]), name


# ---------------------------------------------------------------- the landmark network


def test_a_landmark_network_is_saved_and_loaded_by_the_same_functions(tmp_path):
    path = tmp_path / "w.safetensors"
    net, back = mobilefacenet("tiny"), mobilefacenet("tiny")
    net.stem[0].norm.running_mean.fill_(0.25)
    save_model(net, path, half=True, seed=3)
    card = load_weights(back, path)
    assert (card["method"], card["size"], card["classes"], card["seed"]) == ("mobilefacenet", "tiny", [], 3)
    for name, value in net.half().float().state_dict().items():
        assert torch.equal(back.state_dict()[name], value), name
    content = bytearray(path.read_bytes())
    content[-5] ^= 4
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"w\.safetensors is damaged"):
        load_weights(back, path)


def test_landmark_weights_and_a_methods_weights_are_not_confused(tmp_path):
    net = mobilefacenet("paper")
    before = net.last.conv.weight.clone()
    with pytest.raises(CheckpointError, match=r"of size 'tiny', but the model is of size 'paper'"):
        load_weights(net, LANDMARK_WEIGHTS)
    assert torch.equal(net.last.conv.weight, before)
    with pytest.raises(CheckpointError, match=r"of method 'mobilefacenet', but the model is of method 'dan'"):
        load_weights(create_model("dan"), LANDMARK_WEIGHTS)
    with pytest.raises(CheckpointError, match=r"of method 'dan', but the model is of method 'mobilefacenet'"):
        load_weights(mobilefacenet("tiny"), shipped_weights("dan"))
    with pytest.raises(CheckpointError, match="cannot be built: unknown model 'mobilefacenet'"):
        load_model(LANDMARK_WEIGHTS)


# ---------------------------------------------------------------- what ships


@pytest.fixture(scope="module")
def people():
    """Faces of people whom no shipped model has met."""
    return SyntheticFaces(400, seed=99, size=56)


def test_there_are_weights_of_the_first_methods():
    assert {"synthetic/baseline", "synthetic/dan"} <= {f"{path.parent.name}/{path.stem}" for path in MODELS}


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_file_is_small_and_has_a_card_beside_it(path):
    assert path.stat().st_size <= 2_000_000
    text = path.with_suffix(".md").read_text(encoding="utf-8")
    assert text == card_text(read_card(path))
    assert "\nfer-lab " in text
    assert "**Limits.**" in text


@pytest.mark.parametrize("path", MODELS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_weights_fit_the_code_and_still_score(path, people):
    model = load_model(path)
    card = read_card(path)
    assert card["score"]["accuracy"] > 0.6
    if path.parent.name != "synthetic":
        return
    words = card["command"].split()
    given = {"n": int(words[words.index("--faces") + 1]), "seed": int(words[words.index("--faces-seed") + 1])}
    # Another fingerprint means that the renderer draws other faces since: `make weights` again.
    assert card["fingerprint"] == set_fingerprint(size=56, num_classes=7, **given)
    # 400 other faces of other people: four standard errors of a share near 0.85 are 0.07.
    assert predict(model, people).correct.mean() > card["score"]["accuracy"] - 0.1


def test_a_shipped_model_is_opened_by_its_name():
    model = open_model("synthetic/dan")
    assert (model.name, model.training) == ("dan", False)
    expected = load_model(SHIPPED_FOLDER / "synthetic" / "dan.safetensors").state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
    assert shipped_weights("dan", "synthetic") == SHIPPED_FOLDER / "synthetic" / "dan.safetensors"


def test_shipped_models_stand_in_the_books_order():
    names = shipped_models("synthetic")
    assert names[:2] == ["baseline", "dan"]
    assert set(names) == {path.stem for path in MODELS if path.parent.name == "synthetic"}
    assert shipped_models("nowhere") == []


def test_a_path_is_opened_before_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert is_shipped_name(Path("dan"))
    torch.manual_seed(5)
    own = create_model("baseline")
    save_model(own, tmp_path / "dan")
    assert not is_shipped_name(Path("dan"))
    assert open_model("dan").name == "baseline"


def test_what_does_not_ship_is_refused():
    with pytest.raises(ValueError, match="no weights come with nothing; give --weights FILE, or"):
        shipped_weights("nothing")
    with pytest.raises(ValueError, match="no weights come with dan"):
        shipped_weights("dan", "nowhere")
