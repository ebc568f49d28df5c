"""What a training starts from, and the authors' checkpoints on the command line: small files, their names."""

import json
import warnings

import pytest
import torch
from helpers.reference import images, official_state
from helpers.small_sets import picture, write_affectnet, write_numbered, write_rafdb, write_sfew
from typer.testing import CliRunner

from fer_lab import cli
from fer_lab.data.expressions import ORDERS
from fer_lab.models import create_model
from fer_lab.models.authors import convert, load_official, start_from_trunk, start_from_weights
from fer_lab.models.weights import load_model, read_card, save_model

# method → size, options, and which of the authors' names and shapes
PUBLISHED = {
    "dan": ("paper", {}, "dan"),
    "poster": ("small", {"tokens": "official"}, "poster-small"),
    "qcs": ("paper", {"official": True}, "qcs-7"),
    "dcs": ("paper", {"official": True}, "dcs-7"),
}


def run(*words):
    return CliRunner().invoke(cli.app, [str(word) for word in words], catch_exceptions=False)


@pytest.fixture(scope="module")
def rafdb(tmp_path_factory):
    return write_rafdb(tmp_path_factory.mktemp("rafdb"), each=3)


def theirs(name, path):
    torch.save({"state_dict": {f"module.{k}": v for k, v in official_state(name).items()}}, path)
    return path


@pytest.mark.parametrize("method", PUBLISHED)
def test_a_published_checkpoint_is_converted_and_measured(method, rafdb, tmp_path):
    size, options, name = PUBLISHED[method]
    checkpoint, out = theirs(name, tmp_path / "theirs.pth"), tmp_path / "ours.safetensors"
    words = [word for key, value in options.items() for word in ("--option", f"{key}={value}")]
    done = run("convert", checkpoint, out, "--model", method, "--size", size, "--order", "rafdb", *words)
    assert done.exit_code == 0, done.output
    assert "from rafdb's label order" in done.output
    assert read_card(out)["origin"] == "theirs.pth"

    direct = create_model(method, 7, size, **options)
    load_official(direct, official_state(name), order="rafdb")
    converted = load_model(out)
    assert converted.color_order == direct.color_order
    with torch.inference_mode():
        torch.testing.assert_close(converted(images(0, 1)), direct.eval()(images(0, 1)), rtol=0, atol=0)

    done = run("evaluate", out, "--dataset", "rafdb", "--data-root", rafdb)
    assert done.exit_code == 0, done.output
    assert f"{method} on 21 test faces of rafdb" in done.output


def test_a_trunk_alone_is_to_train_from_not_to_predict_with(rafdb, tmp_path):
    poster = official_state("poster-small")
    ir50 = {k.removeprefix("ir_back."): v for k, v in poster.items() if k.startswith("ir_back.")}
    torch.save(ir50, tmp_path / "ir50.pth")
    with pytest.raises(ValueError, match=r"leaves .*base.* at random; train from it: fer-lab train qcs"):
        convert(create_model("qcs", size="paper"), tmp_path / "ir50.pth", tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()
    for method in ("qcs", "poster"):
        model = create_model(method, 7, "paper")
        said = start_from_weights(model, tmp_path / "ir50.pth")
        assert "ours left as they were" in said
        first = next(name for name in ir50 if name.endswith("input_layer.0.weight"))
        assert any(torch.equal(value, ir50[first]) for value in model.trunk.state_dict().values())


def test_training_starts_from_a_face_recognition_trunk(rafdb, tmp_path):
    stem = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
    state = {}
    for name, value in official_state("dan").items():
        if name.startswith("features."):
            _, number, rest = name.split(".", 2)
            state[f"{stem[number]}.{rest}"] = value
    torch.save({"state_dict": state}, tmp_path / "resnet18_faces.pth")
    words = ["--dataset", "rafdb", "--data-root", rafdb, "--weights", tmp_path / "resnet18_faces.pth"]
    words += ["--recipe", "rafdb", "--set", "epochs=1", "--set", "batch_size=8", "--set", "lr=1e-12"]
    done = run("train", "dan", "--size", "paper", *words, "--out", tmp_path / "run")
    assert done.exit_code == 0, done.output
    assert "started from" in done.output
    trained = load_model(tmp_path / "run" / "weights.safetensors")
    torch.testing.assert_close(trained.trunk.conv1.weight, state["conv1.weight"])

    missing = ["--dataset", "rafdb", "--data-root", tmp_path / "nowhere", "--weights", tmp_path / "none.pth"]
    with pytest.raises(FileNotFoundError, match="no weights at"):
        run("train", "dan", "--size", "paper", *missing, "--out", tmp_path / "other")


def test_files_of_ours_need_no_order(tmp_path):
    torch.manual_seed(0)
    given, model = create_model("baseline"), create_model("baseline")
    save_model(given, tmp_path / "ours.safetensors")
    with pytest.raises(ValueError, match="canonical label order already"):
        start_from_weights(model, tmp_path / "ours.safetensors", "rafdb")
    assert "ours.safetensors" in start_from_weights(model, tmp_path / "ours.safetensors")
    assert torch.equal(model.fc.weight, given.fc.weight)
    with pytest.raises(ValueError, match=r"written as \.safetensors"):
        convert(create_model("dan"), tmp_path / "theirs.pth", tmp_path / "ours.pth")


def test_a_trunk_is_handed_over_to_another_method():
    trained, model = create_model("baseline"), create_model("dan")
    start_from_trunk(model, trained)
    given = trained.trunk.state_dict()
    assert all(torch.equal(value, given[name]) for name, value in model.trunk.state_dict().items())
    with pytest.raises(ValueError, match="differ"):
        start_from_trunk(create_model("dan", size="paper"), trained)


def test_methods_that_share_more_than_a_trunk_hand_over_the_whole_base_network():
    trained, model = create_model("qcs", form="none"), create_model("dcs")
    fresh = {name: value.clone() for name, value in model.state_dict().items()}
    assert "base of qcs" in start_from_trunk(model, trained)
    for name, value in model.state_dict().items():
        given = trained.state_dict().get(name, fresh[name])
        assert torch.equal(value, given), name
    assert not torch.equal(model.base.positions, fresh["base.positions"])
    assert start_from_trunk(create_model("poster"), trained) == "trunk of qcs"
    with pytest.raises(ValueError, match=r"base of qcs .* differ"):
        start_from_trunk(create_model("qcs", num_classes=8), trained)


@pytest.mark.parametrize(
    ("dataset", "write", "classes", "split"),
    [
        ("rafdb", write_rafdb, 7, "test"),
        ("affectnet", write_affectnet, 8, "valid"),
        ("sfew", write_sfew, 7, "valid"),
    ],
)
def test_who_has_the_photographs_runs_one_command(dataset, write, classes, split, tmp_path, monkeypatch):
    monkeypatch.setenv("FER_LAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    root = write(tmp_path / dataset, each=4)
    quick = ["--set", "epochs=1", "--set", "batch_size=8"]
    done = run("train", "dan", "--dataset", dataset, "--data-root", root, *quick, "--record", "from scratch")
    assert done.exit_code == 0, done.output
    assert f"dan on {4 * classes} {split} faces of {dataset}" in done.output
    assert done.output.count("recall ") >= classes
    said = run("results")
    assert dataset in said.output


def test_an_unknown_label_order_is_said_and_no_file_is_lost(tmp_path):
    checkpoint, out = theirs("dan", tmp_path / "theirs.pth"), tmp_path / "ours.safetensors"
    with pytest.warns(
        UserWarning, match=r"label order of theirs\.pth is unknown.*usual reason for a bad score"
    ):
        assert run("convert", checkpoint, out, "--model", "dan").exit_code == 0
    before = out.read_bytes()
    with pytest.raises(FileExistsError, match=r"ours\.safetensors is there already; .* --force"):
        run("convert", checkpoint, out, "--model", "dan", "--order", "rafdb")
    assert out.read_bytes() == before
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        done = run("convert", checkpoint, out, "--model", "dan", "--order", "rafdb", "--force")
    assert done.exit_code == 0
    assert out.read_bytes() != before


@pytest.mark.parametrize("order", ["rafdb", "fer2013", "canonical"])
def test_the_label_order_is_guessed(order, tmp_path, monkeypatch):
    monkeypatch.setenv("FER_LAB_CACHE", str(tmp_path / "cache"))
    # Faces are labelled by what the network answers, so that exactly one order is right.
    torch.manual_seed(0)
    root, checkpoint = tmp_path / "faces", theirs("dan", tmp_path / "theirs.pth")
    answers = torch.arange(7).repeat_interleave(3)
    for i, name in enumerate(ORDERS[order][own] for own in answers if own < 7):
        picture(root / "train" / name / f"{i}.png", 10 * int(answers[i]) + i % 3)
    greys = {round((10 * int(own) + i % 3) / 255, 4): int(own) for i, own in enumerate(answers)}

    def answer(self, images):
        shown = (images[:, 0, 0, 0] * 0.229 + 0.485).tolist()
        own = [greys[min(greys, key=lambda grey: abs(grey - value))] for value in shown]
        return torch.nn.functional.one_hot(torch.tensor(own), 7).float()

    monkeypatch.setattr("fer_lab.models.dan.DAN.forward", answer)
    out = tmp_path / "ours.safetensors"
    done = run("convert", checkpoint, out, "--model", "dan", "--guess-order", "folder", root)
    assert done.exit_code == 0, done.output
    assert f"label order guessed: {order}, 100.0% right on folder; next best" in done.output
    assert f"permuted from {order}'s label order" in done.output
    assert read_card(out)["order"] == order
    done = run(
        "convert", checkpoint, out, "--model", "dan", "--guess-order", "folder", root, "--order", "rafdb"
    )
    assert done.exit_code == 2


def test_predict_and_evaluate_point_to_convert(tmp_path):
    checkpoint = theirs("dan", tmp_path / "theirs.pth")
    picture(tmp_path / "face.png", 90)
    for words in (["predict", tmp_path / "face.png", "--weights", checkpoint], ["evaluate", checkpoint]):
        with pytest.raises(ValueError, match=r"fer-lab convert theirs\.pth theirs\.safetensors --model NAME"):
            run(*words)


@pytest.mark.parametrize(
    "words", [["rafdb"], ["folder", "--order", "rafdb"], ["folder", "--faces-order", "rafdb"]]
)
def test_bundled_weights_with_contempt_are_measured_on_numbered_faces(words, tmp_path, monkeypatch):
    monkeypatch.setenv("FER_LAB_CACHE", str(tmp_path / "cache"))
    root = write_numbered(tmp_path / "rafdb", "rafdb", ("train", "test"), each=2)
    with pytest.warns(UserWarning, match="has no contempt"):
        done = run("evaluate", "baseline", "--data-root", root, "--dataset", *words)
    assert done.exit_code == 0, done.output
    assert f"baseline on 14 test faces of {words[0]}" in done.output
    assert "recall fear" in done.output
    assert "contempt" not in done.output
    with pytest.raises(ValueError, match="classes named by numbers"):
        run("evaluate", "baseline", "--data-root", root, "--dataset", "folder")


def test_a_training_on_a_numbered_folder_can_be_repeated(tmp_path, monkeypatch):
    monkeypatch.setenv("FER_LAB_CACHE", str(tmp_path / "cache"))
    for split in write_numbered(tmp_path / "set", "rafdb", ("all",), each=5).iterdir():
        words = ["--dataset", "folder", "--data-root", split, "--faces-order", "rafdb", "--test-share", "0.2"]
    quick = ["--set", "epochs=1", "--set", "batch_size=8", "--out", tmp_path / "run"]
    done = run("train", "baseline", *words, *quick)
    assert done.exit_code == 0, done.output
    assert "baseline on 7 test faces of folder" in done.output
    command = json.loads((tmp_path / "run" / "config.json").read_text())["command"]
    assert "--faces-order rafdb --test-share 0.2" in command
    with pytest.raises(ValueError, match="numbered class folders take --faces-order"):
        run("train", "baseline", *words, "--order", "rafdb")
