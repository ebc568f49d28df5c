"""Training as data: what it is known by, how it is written, and what is wrong with it."""

import dataclasses
import json
import shlex
from pathlib import Path

import pytest
import torch

from fer_lab.data import FaceRequest
from fer_lab.experiments import Training, request
from fer_lab.models.method import method_class

TRUNK = Training(model="baseline", changes={"epochs": 6}, seed=2, variant="trunk")
ASKED = Training(
    model="dan",
    faces=FaceRequest(count=80, seed=1, knobs={"imbalance": 0, "scale_range": (0.4, 1.0)}),
    seed=2,
    changes={"lr": 5e-4, "augmentation.flip": 0.0},
    options={"num_heads": 2, "affinity_weight": 0.0},
    trunk=TRUNK,
    resolutions=(50,),
    variant="DAN, K = 2",
)


def test_a_training_and_its_data_are_the_same_training():
    back = Training.from_json(ASKED.to_json())
    assert back.to_json() == ASKED.to_json()
    assert back.command() == ASKED.command()
    assert back.name == ASKED.name
    assert back.trunk.to_data() == TRUNK.to_data()
    assert json.loads(ASKED.to_json())["faces"]["knobs"] == {"imbalance": 0, "scale_range": [0.4, 1]}


def test_equal_trainings_have_equal_data_whatever_the_order_and_kind_of_numbers():
    turned = dataclasses.replace(ASKED, changes=dict(reversed(ASKED.changes.items())), resolutions=[50.0])
    assert turned.to_json() == ASKED.to_json()
    assert dataclasses.replace(ASKED, options={"num_heads": 2, "affinity_weight": 0}).name == ASKED.name


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 3},
        {"trunk": None},
        {"trunk": dataclasses.replace(TRUNK, seed=3)},
        {"trunk": None, "weights": TRUNK},
        {"options": {"num_heads": 3, "affinity_weight": 0.0}},
        {"faces": dataclasses.replace(ASKED.faces, count=81)},
        {"split": "valid"},
    ],
    ids=str,
)
def test_another_training_has_other_data_and_another_folder(change):
    other = dataclasses.replace(ASKED, **change)
    assert other.to_json() != ASKED.to_json()
    assert other.name != ASKED.name


def test_the_command_is_written_for_others():
    words = shlex.split(ASKED.command())
    assert words[:5] == ["fer-lab", "train", "dan", "--dataset", "synthetic"]
    for part in (
        ["--faces", "80", "--faces-seed", "1", "--knob", "imbalance=0", "--knob", "scale_range=[0.4, 1]"],
        ["--set", "augmentation.flip=0", "--set", "lr=0.0005"],
        ["--option", "affinity_weight=0", "--option", "num_heads=2"],
        ["--trunk", f"runs/{TRUNK.name}", "--resolutions", "50", "--record", "DAN, K = 2"],
    ):
        i = words.index(part[0])
        assert words[i : i + len(part)] == part
    real = Training(model="dan", faces=FaceRequest(dataset="ferplus", root=Path("/mine"), skip_bad=True))
    assert "--data-root $FER_DATA --rule majority --skip-bad" in real.command()
    assert real.words("/mine")[3:5] == ["--data-root", "/mine"]


def test_a_path_is_known_by_the_training_that_made_it_or_by_its_name(tmp_path):
    run = tmp_path / "anything"
    run.mkdir()
    with_path = dataclasses.replace(ASKED, trunk=run)
    assert with_path.to_data()["trunk"] == "anything"
    (run / "config.json").write_text(json.dumps({"request": TRUNK.to_data()}))
    assert with_path.to_json() == ASKED.to_json()
    assert f"--trunk runs/{TRUNK.name}" in with_path.command()
    file = dataclasses.replace(ASKED, trunk=None, weights=run / "weights.safetensors")
    assert file.to_json() == dataclasses.replace(ASKED, trunk=None, weights=TRUNK).to_json()
    (run / "config.json").write_text("{}")
    assert file.to_data()["weights"] == "runs/anything/weights.safetensors"
    assert with_path.to_data()["trunk"] == "runs/anything"
    theirs = Training(model="dan", weights=tmp_path / "theirs.pth", order="rafdb")
    assert "--weights theirs.pth --order rafdb" in theirs.command()
    bundled = Training(model="dan", trunk="synthetic/baseline")
    assert "--trunk synthetic/baseline" in bundled.command()
    assert Training(model="dan", trunk=Path("synthetic/baseline")).to_json() == bundled.to_json()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "dane"}, "unknown model 'dane'"),
        ({"size": "huge"}, "huge"),
        ({"recipe": "best"}, "dan has no recipe 'best'; it has smoke, scratch"),
        ({"changes": {"learning_rate": 1.0}}, "no recipe field learning_rate; there are epochs"),
        ({"changes": {"lr": "0.1"}}, "lr takes a float such as .*, got '0.1'"),
        ({"changes": {"augmentation.flop": 0.1}}, r"no recipe field augmentation\.flop"),
        (
            {"options": {"heads": 2}},
            "dan has no option heads; its options and their defaults: num_heads=4, aff",
        ),
        ({"options": {"num_heads": "2"}}, "dan cannot be built with the options {'num_heads': '2'}"),
        ({"model": "baseline", "options": {"heads": 2}, "trunk": None}, "baseline has no option heads"),
        ({"balanced": 14, "split": "test"}, "give one of the two"),
        ({"balanced": 14, "faces": FaceRequest(dataset="ferplus")}, "give one of the two"),
        ({"trunk": dataclasses.replace(TRUNK, size="huge")}, "huge"),
    ],
)
def test_what_is_wrong_is_found_before_a_face_is_made(change, message, monkeypatch):
    monkeypatch.setattr(FaceRequest, "load", lambda self: pytest.fail("faces were read"))
    wrong = dataclasses.replace(ASKED, **change)
    with pytest.raises(ValueError, match=message):
        wrong.check()


def test_weights_that_are_not_there_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no weights at .*gone"):
        Training(model="dan", trunk=tmp_path / "gone").check()


def test_changes_reach_inside_the_augmentation():
    recipe = ASKED.chosen_recipe()
    plain = method_class("dan").recipes["smoke"]
    assert (recipe.seed, recipe.lr, recipe.augmentation.flip) == (2, 5e-4, 0)
    assert recipe.epochs == plain.epochs
    assert recipe.augmentation.rotation == plain.augmentation.rotation


# ---------------------------------------------------------------- what is reported


def test_balanced_faces_are_of_other_people_with_balanced_classes():
    faces = FaceRequest(count=80, seed=7, knobs={"imbalance": 2.0, "label_noise": 0.5})
    split, reported = Training(model="baseline", faces=faces, balanced=28).reported(None)
    assert split == "balanced"
    assert reported.class_counts().tolist() == [4] * 7
    assert torch.equal(reported.labels, reported.true_labels)
    assert reported.image_size == 56
    assert reported.knobs["seed"] == 7 + request.BALANCED_SEED
