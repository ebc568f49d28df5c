"""Mean maps: one a class, each of mass 1, and what was recorded is what the models that ship give."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fer_lab.data import FaceRequest, prepare
from fer_lab.experiments import Training, explain
from fer_lab.explanation import explain as explain_map
from fer_lab.models import create_model, shipped_models
from fer_lab.models.weights import save_model
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
    taught = {"baseline", "dan", "moved skin"}
    assert {name: set(block) for name, block in maps.items()} == {
        **{name: set(shipped_models(name)) for name in ("synthetic", "ferplus")},
        **dict.fromkeys(("free", "taught"), taught),
    }
    for block in maps.values():
        for name, one in block.items():
            # A face at rest moves no skin.
            np.testing.assert_allclose(one.sum((1, 2))[name == "moved skin" :], 1, atol=5e-3)
    skin = torch.tensor(maps["free"]["moved skin"])[1:].flatten()
    for method in ("baseline", "dan"):
        free, drawn = (
            torch.corrcoef(torch.stack([torch.tensor(maps[block][method])[1:].flatten(), skin]))[0, 1]
            for block in ("free", "taught")
        )
        assert drawn > free + 0.1


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
    photographs, path = FaceRequest(count=80, size=56, classes=8).load(), tmp_path / "maps.npz"
    explain.record_mean_maps(path, {"other": {"dan": np.full((7, 7, 7), 1 / 49)}})
    explain.record_mean_maps(path, explain.shipped_maps(photographs))
    maps = explain.recorded_mean_maps(path)
    expected = explain.mean_maps(open_model("ferplus/baseline"), photographs)
    np.testing.assert_allclose(maps["ferplus"]["baseline"], expected, atol=1e-3)
    assert maps["synthetic"]["baseline"].shape == maps["other"]["dan"].shape == (7, 7, 7)
    with pytest.raises(FileNotFoundError):
        explain.recorded_mean_maps(tmp_path / "none.npz")


def test_taught_maps_are_those_of_the_runs_in_a_folder(monkeypatch, tmp_path):
    few = {
        variant: Training(
            model="dan", faces=FaceRequest(count=40), seed=0, variant=variant, balanced=28, changes=changes
        )
        for variant, changes in (("free maps", {}), ("taught maps", {"map_weight": 1.0}))
    }
    monkeypatch.setattr(explain, "study", lambda seeds: few)
    models = {}
    for number, one in enumerate(few.values()):
        torch.manual_seed(number)
        models[one.variant] = create_model("dan").eval()
        (tmp_path / one.name).mkdir()
        save_model(models[one.variant], tmp_path / one.name / "weights.safetensors")
    found = explain.taught_maps(tmp_path)
    faces = next(iter(few.values())).balanced_faces().load()
    for block in ("free", "taught"):
        expected = explain.mean_maps(models[f"{block} maps"], faces)
        np.testing.assert_allclose(found[block]["dan"], expected, atol=1e-6)
    skin = found["free"]["moved skin"]
    assert skin[0].sum() == 0
    np.testing.assert_allclose(skin[1:].sum((1, 2)), 1, atol=1e-5)
