"""Models against each other: adjusted p-values, paired differences, knobs and groups."""

import numpy as np
import pandas as pd
import pytest
import torch

from fer_lab import intervals
from fer_lab.data.synthetic import SyntheticFaces
from fer_lab.evaluation import comparison, robustness
from fer_lab.evaluation.comparison import compare
from fer_lab.evaluation.metrics import predict
from fer_lab.intervals import binomial_interval
from fer_lab.models import create_model
from fer_lab.runs import Predictions


def predictions(right, labels=None):
    """Two classes; a face that is right gets probability 0.8 on its label."""
    right = np.asarray(right, dtype=bool)
    labels = np.zeros(len(right), dtype=int) if labels is None else np.asarray(labels)
    said = np.where(right, labels, 1 - labels)
    return Predictions(np.where(said[:, None] == np.arange(2), 0.8, 0.2), labels, ("a", "b"), "toy", "0")


def test_holm_by_hand():
    # Sorted 0.01, 0.02, 0.04: times 3, 2, 1 = 0.03, 0.04, 0.04.
    assert intervals.holm([0.04, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    # 0.5 times 2 is cut at 1, and the last may not be smaller than the one before.
    assert intervals.holm([0.5, 0.6]) == [1.0, 1.0]


def test_differences_are_those_of_compare_with_adjusted_p_values():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 200)
    models = {
        name: predictions(rng.random(200) < p, labels) for name, p in (("base", 0.6), ("x", 0.8), ("y", 0.65))
    }
    table = comparison.differences(models, "base")
    assert list(dict.fromkeys(table["model"])) == ["x", "y"]
    single = {name: compare(models[name], models["base"]) for name in ("x", "y")}
    adjusted = intervals.holm([single["x"].p_value, single["y"].p_value])
    for name, p_value in zip(("x", "y"), adjusted, strict=True):
        row = table[(table["model"] == name) & (table["metric"] == "accuracy")].iloc[0]
        assert row["value"] == models[name].correct.mean()
        assert row["difference"] == pytest.approx(models[name].correct.mean() - models["base"].correct.mean())
        assert row["only_it"] == (models[name].correct & ~models["base"].correct).sum()
        assert row["only_reference"] == (models["base"].correct & ~models[name].correct).sum()
        assert row["p_value"] == p_value
    with pytest.raises(ValueError, match="expected 'z' and at least one other model, got base, x, y"):
        comparison.differences(models, "z")


def test_robustness_measures_each_model_on_the_same_turned_faces():
    torch.manual_seed(0)
    models = {"one": create_model("baseline"), "two": create_model("baseline")}
    table = robustness.robustness(
        models, {"scale_range": (0.6, 1.0), "grey": (0,)}, num_faces=24, seed=3, imbalance=0.0
    )
    assert list(table["knob"]) == ["scale_range"] * 4 + ["grey"] * 2
    faces = SyntheticFaces(24, seed=3, size=56, imbalance=0.0, scale_range=(0.6, 0.6))
    for row in table[(table["knob"] == "scale_range") & (table["level"] == 0.6)].itertuples():
        right = predict(models[row.model], faces).correct
        assert row.value == right.mean()
        assert (row.low, row.high) == binomial_interval(int(right.sum()), 24)
    with pytest.raises(ValueError, match="unknown knob spin"):
        robustness.robustness(models, {"spin": (1,)}, num_faces=8)
    with pytest.raises(ValueError, match="one image size"):
        robustness.robustness({"a": models["one"], "b": create_model("baseline", 8)}, {"grey": (0,)})


def test_groups_are_counted_apart_and_in_order():
    models = {"x": predictions([1, 1, 0, 1]), "y": predictions([0, 0, 0, 1])}
    tones = pd.Categorical(["light", "dark", "dark", "light"], categories=["light", "medium", "dark"])
    table = comparison.accuracy_by_group(models, {"tone": tones, "glasses": [True, False, False, False]})
    found = {(r.property, r.group, r.model): (r.faces, r.value) for r in table.itertuples()}
    assert found["tone", "light", "x"] == (2, 1.0)
    assert found["tone", "dark", "x"] == (2, 0.5)
    assert found["tone", "light", "y"] == (2, 0.5)
    assert found["glasses", False, "y"] == (3, pytest.approx(1 / 3))
    assert list(dict.fromkeys(table[table["property"] == "tone"]["group"])) == ["light", "dark"]
    with pytest.raises(ValueError, match="tone has 3 values for 4 faces"):
        comparison.accuracy_by_group(models, {"tone": [0, 0, 1]})
