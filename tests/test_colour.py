"""Weights that learned from grey pictures give a colour picture the answer of its grey twin, on every path."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from fer_lab import evaluate, load_faces, open_model, predict
from fer_lab.data import prepare
from fer_lab.data.augmentation import to_grey
from fer_lab.explanation import explain
from fer_lab.explorer.photo_overlay import predict_picture
from fer_lab.models.weights import shipped_models

FACES = load_faces(count=70, size=112, seed=8, imbalance=0.0)
TWINS = dataclasses.replace(FACES, storage=to_grey(FACES.images))
MODELS = [f"ferplus/{name}" for name in shipped_models("ferplus")]


def test_weights_that_ship_know_what_they_learned_from():
    assert len(MODELS) == 5
    for name in MODELS:
        assert open_model(name).color_order == "GREY"
    for name in shipped_models("synthetic"):
        assert open_model(f"synthetic/{name}").color_order == "RGB"


@pytest.mark.parametrize("name", MODELS)
def test_predictions_and_metrics_are_those_of_the_grey_twins(name):
    model = open_model(name)
    seven = [dataclasses.replace(part, classes=model.classes) for part in (FACES, TWINS)]
    colour, grey = (predict(model, part) for part in seven)
    assert np.array_equal(colour.probabilities, grey.probabilities)
    assert evaluate(colour).equals(evaluate(grey))


@pytest.mark.parametrize("way", ["native", "grad_cam"])
def test_maps_are_those_of_the_grey_twins(way):
    model = open_model("ferplus/dan")
    maps = [
        explain(model, prepare(part.take(range(4)), model.image_size, model.color_order), way)
        for part in (FACES, TWINS)
    ]
    assert torch.equal(*maps)


def test_a_photograph_gets_the_answer_of_its_grey_twin(tmp_path):
    model = open_model("ferplus/dan")
    image = Image.fromarray(FACES.take([3])[0].permute(1, 2, 0).numpy())
    answers = []
    for name, picture in (("colour", image), ("grey", image.convert("L"))):
        picture.save(tmp_path / f"{name}.png")
        (face,) = predict_picture(model, tmp_path / f"{name}.png", whole=True)[1]
        answers.append(list(face.probabilities.values()))
    # The crop is resized before the colours go, which rounds once more.
    assert answers[0] == pytest.approx(answers[1], abs=0.02)
    coloured = open_model("synthetic/dan")
    (face,) = predict_picture(coloured, tmp_path / "grey.png", whole=True)[1]
    assert list(face.probabilities.values()) != pytest.approx(answers[0], abs=0.02)
