"""Mean maps: one a class, each of mass 1, and what was recorded is what the models that ship give."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fer_lab.data import FaceRequest, prepare
from fer_lab.experiments import explain
from fer_lab.explanation import explain as explain_map
from fer_lab.models import shipped_models
from fer_lab.runs import open_model

RECORDED = Path(__file__).parents[2] / "figures" / "results" / explain.MEAN_MAPS


def test_the_mean_map_of_a_class_is_the_mean_of_its_faces_maps():
    faces = FaceRequest(count=60, size=56, seed=3).load()
    model = open_model("synthetic/dan")
    found = explain.mean_maps(model, faces)
    assert found.shape == (7, 7, 7)
    one = explain_map(model, prepare(faces.take(faces.labels == 1), 56), "native").double()
    expected = (one / one.sum((2, 3), keepdim=True)).mean(0)[0]
    np.testing.assert_allclose(found[1], expected, atol=1e-5)


def test_recorded_maps_come_back_and_cover_every_model_that_ships():
    maps = explain.recorded_mean_maps(RECORDED)
    assert {name: set(block) for name, block in maps.items()} == {
        name: set(shipped_models(name)) for name in ("synthetic", "ferplus")
    }
    for block in maps.values():
        for one in block.values():
            np.testing.assert_allclose(one.sum((1, 2)), 1, atol=5e-3)


def test_the_recorded_maps_of_rendered_faces_are_those_of_today_s_weights(monkeypatch, tmp_path):
    """A tenth of the faces gives nearly the same means; other weights would not."""
    faces = FaceRequest(count=210, seed=5000, size=56, knobs={"imbalance": 0}).load()
    recorded = explain.recorded_mean_maps(RECORDED)["synthetic"]["baseline"]
    found = explain.mean_maps(open_model("synthetic/baseline"), faces)
    alike = torch.corrcoef(torch.tensor(np.stack([found.ravel(), recorded.ravel()])))[0, 1].item()
    assert alike > 0.97


def test_what_is_written_is_what_was_measured(monkeypatch, tmp_path):
    monkeypatch.setattr(explain, "RENDERED", FaceRequest(count=40, size=56))
    monkeypatch.setattr(explain, "shipped_models", lambda name: ["baseline"])
    photographs = FaceRequest(count=80, size=56, classes=8).load()
    explain.record_mean_maps(tmp_path / "maps.npz", photographs)
    maps = explain.recorded_mean_maps(tmp_path / "maps.npz")
    expected = explain.mean_maps(open_model("ferplus/baseline"), photographs)
    np.testing.assert_allclose(maps["ferplus"]["baseline"], expected, atol=1e-3)
    assert maps["synthetic"]["baseline"].shape == (7, 7, 7)
    with pytest.raises(FileNotFoundError):
        explain.recorded_mean_maps(tmp_path / "none.npz")
