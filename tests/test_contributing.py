"""CONTRIBUTING.md's example is a whole method: this takes it from the page and trains it."""

import re
import sys
import types
from pathlib import Path

import pytest
import torch

from fer_lab.data.synthetic import SyntheticFaces
from fer_lab.evaluation.metrics import evaluate, predict
from fer_lab.explanation import attribution
from fer_lab.models import create_model, list_models
from fer_lab.models.method import _METHODS
from fer_lab.training.loop import fit

PAGE = Path(__file__).parent.parent / "CONTRIBUTING.md"


@pytest.fixture
def mymethod(monkeypatch):
    model_code, register_code = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    module = types.ModuleType("fer_lab.models.mymethod")
    exec(compile(model_code, str(PAGE), "exec"), module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr("fer_lab.models.method._METHODS", dict(_METHODS))
    exec(register_code, {})
    return "mymethod"


def test_the_example_trains_evaluates_and_shows_where_it_looks(mymethod, tmp_path):
    assert mymethod in list_models()
    faces = SyntheticFaces(200, seed=0, size=56, imbalance=0.0)
    torch.manual_seed(0)
    model = create_model(mymethod, faces.num_classes)
    recipe = model.recipes["smoke"].replace(epochs=4, lr=0.02)
    run = fit(model, faces.split("train"), faces.split("test"), recipe, tmp_path / "run")
    assert run.history.total.iloc[-1] < run.history.total.iloc[0]
    predictions = predict(run.load_model(), faces.split("train"), embeddings=True)
    metrics = evaluate(predictions).set_index(["metric", "class"])
    assert metrics.value["accuracy", ""] > 1.5 / 7
    assert predictions.embeddings.shape[1] == 147
    images = torch.randn(2, 3, 56, 56)
    assert attribution.native_maps(model, images)["contribution"].shape == (2, 1, 7, 7)
