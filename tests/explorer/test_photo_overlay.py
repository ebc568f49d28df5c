"""What a model says of the faces in a picture, and the heat that is drawn over them."""

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.data import astronaut

from fer_lab.explorer.photo_overlay import INFERNO, Seen, look, overlay, predict_picture, trained_on
from fer_lab.figures.style import HEAT
from fer_lab.models import create_model
from fer_lab.runs import Run


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return create_model("baseline").eval()


def test_look_gives_every_box_its_own_answer(model):
    noise = np.random.default_rng(0).integers(0, 256, (112, 112, 3), dtype=np.uint8)
    picture = Image.new("RGB", (300, 150))
    picture.paste(Image.fromarray(noise), (20, 30))
    noisy, black = look(model, picture, [(20, 30, 132, 142), (160, 10, 230, 80)])
    alone = look(model, Image.fromarray(noise), [(0, 0, 112, 112)])[0]
    assert list(noisy.probabilities) == list(model.classes)
    assert sum(noisy.probabilities.values()) == pytest.approx(1, abs=1e-5)
    assert list(noisy.probabilities.values()) == pytest.approx(list(alone.probabilities.values()), abs=1e-4)
    assert list(black.probabilities.values()) != pytest.approx(list(noisy.probabilities.values()), abs=1e-4)
    assert noisy.heat.shape == (7, 7)
    assert (noisy.heat.min(), noisy.heat.max()) == (0, 1)


def test_an_overlay_heats_the_face_alone():
    heat = np.zeros((7, 7), dtype=np.float32)
    heat[0, 6] = 1
    face = Seen((50, 60, 150, 160), {"fear": 0.25, "happiness": 0.75}, heat)
    picture = Image.new("RGB", (200, 200), (10, 10, 10))
    drawn = np.asarray(overlay(picture, [face])).astype(int)
    assert (np.asarray(picture) == 10).all()
    assert drawn[66, 144].sum() > 300
    assert drawn[145, 65].sum() < 60
    assert (drawn[170:, :] == 10).all()
    assert (drawn[40:58, 52:140] != 10).any()


def test_heat_has_the_colours_of_the_books_figures():
    places = np.linspace(0, 1, len(INFERNO))
    assert np.abs(INFERNO - 255 * HEAT(places)[:, :3]).max() < 3
    assert len(INFERNO) == 9


def test_a_picture_in_memory_and_its_file_give_the_same_answers(model, tmp_path):
    picture = Image.fromarray(astronaut())
    picture.save(tmp_path / "her.png")
    answers = [predict_picture(model, source)[1] for source in (tmp_path / "her.png", picture, astronaut())]
    assert [len(faces) for faces in answers] == [1, 1, 1]
    assert answers[0][0].probabilities == answers[1][0].probabilities == answers[2][0].probabilities
    left, top, right, bottom = answers[0][0].box
    assert right - left == bottom - top
    wide = predict_picture(model, picture, trained_on="synthetic")[1][0].box
    assert wide[2] - wide[0] > 1.2 * (right - left)
    assert [face.box for face in predict_picture(model, picture.crop((0, 0, 300, 200)), whole=True)[1]] == [
        (50, 0, 250, 200)
    ]


def test_weights_say_what_trained_them(tmp_path):
    assert trained_on("synthetic/dan") == "synthetic"
    assert trained_on("ferplus/dan") == "ferplus"
    run = Run(tmp_path / "run")
    run.save_weights(create_model("baseline"))
    assert trained_on(run.folder) == ""
    run.save_config({"dataset": "rafdb"})
    assert trained_on(run.folder) == "rafdb"
