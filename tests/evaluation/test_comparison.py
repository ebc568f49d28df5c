"""Models on the same faces: paired differences, adjusted p-values, groups of faces."""

import numpy as np
import pandas as pd
import pytest
from helpers.predictions import decided, random_predictions

from fer_lab.evaluation.comparison import accuracy_by_group, compare, differences
from fer_lab.intervals import holm


def right_or_wrong(right, labels=None):
    """Two classes; each face's decision is its label (0 by default) where `right`, else the other class."""
    right = np.asarray(right, dtype=bool)
    labels = np.zeros(len(right), dtype=int) if labels is None else np.asarray(labels)
    return decided(labels, np.where(right, labels, 1 - labels), c=2)


def test_compare_by_hand():
    labels = [0] * 10 + [1] * 10
    first = decided(labels, [0] * 9 + [1] + [1] * 9 + [0], c=2)
    second = decided(labels, [0] * 9 + [1] + [1] * 3 + [0] * 7, c=2)
    result = compare(first, second)
    accuracy = result.set_index("metric").loc["accuracy"]
    assert accuracy[["only_first", "only_second"]].tolist() == [6, 0]
    # Six faces all one way: 2 · 0.5⁶.
    assert accuracy["p_value"] == pytest.approx(2 / 64)
    assert accuracy[["first", "second", "difference"]].tolist() == pytest.approx([0.9, 0.6, 0.3])
    assert 0 < accuracy["low"] < 0.3 < accuracy["high"] < 0.6
    recall = result.set_index("metric").loc["mean_class_recall"]
    assert recall[["first", "second"]].tolist() == pytest.approx([0.9, (0.9 + 0.3) / 2])


def test_compare_pairs_the_faces():
    first, second = random_predictions(300, skill=1), random_predictions(300, skill=1.1)
    result = compare(first, second)
    difference = first.correct.astype(float) - second.correct
    paired = 1.96 * difference.std() / 300**0.5
    unpaired = 1.96 * (first.correct.var() / 300 + second.correct.var() / 300) ** 0.5
    accuracy = result.iloc[0]
    half = (accuracy["high"] - accuracy["low"]) / 2
    assert half == pytest.approx(paired, rel=0.2)
    assert half < unpaired / 2


def test_a_model_does_not_differ_from_itself():
    result = compare(random_predictions(), random_predictions())
    assert result["p_value"].tolist() == [1, 1]
    assert result[["difference", "low", "high"]].to_numpy().tolist() == [[0, 0, 0], [0, 0, 0]]


def test_compare_refuses_other_faces():
    with pytest.raises(ValueError, match="on different faces: x f"):
        compare(random_predictions(), random_predictions(fingerprint="g"))
    with pytest.raises(ValueError, match="on different faces"):
        compare(random_predictions(), random_predictions(n=100))


def test_differences_are_those_of_compare_with_adjusted_p_values():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 200)
    models = {
        name: right_or_wrong(rng.random(200) < p, labels)
        for name, p in (("base", 0.6), ("x", 0.8), ("y", 0.65))
    }
    table = differences(models, "base")
    assert list(dict.fromkeys(table["model"])) == ["x", "y"]
    single = {name: compare(models[name], models["base"]) for name in ("x", "y")}
    adjusted = holm([single["x"]["p_value"][0], single["y"]["p_value"][0]])
    for name, p_value in zip(("x", "y"), adjusted, strict=True):
        row = table[(table["model"] == name) & (table["metric"] == "accuracy")].iloc[0]
        assert row["value"] == models[name].correct.mean()
        assert row["difference"] == pytest.approx(models[name].correct.mean() - models["base"].correct.mean())
        assert row["only_it"] == (models[name].correct & ~models["base"].correct).sum()
        assert row["only_reference"] == (models["base"].correct & ~models[name].correct).sum()
        assert row["p_value"] == p_value
    with pytest.raises(ValueError, match="expected 'z' and at least one other model, got base, x, y"):
        differences(models, "z")


def test_groups_are_counted_apart_and_in_order():
    models = {"x": right_or_wrong([1, 1, 0, 1]), "y": right_or_wrong([0, 0, 0, 1])}
    tones = pd.Categorical(["light", "dark", "dark", "light"], categories=["light", "medium", "dark"])
    table = accuracy_by_group(models, {"tone": tones, "glasses": [True, False, False, False]})
    found = {(r.property, r.group, r.model): (r.faces, r.value) for r in table.itertuples()}
    assert found["tone", "light", "x"] == (2, 1.0)
    assert found["tone", "dark", "x"] == (2, 0.5)
    assert found["tone", "light", "y"] == (2, 0.5)
    assert found["glasses", False, "y"] == (3, pytest.approx(1 / 3))
    assert list(dict.fromkeys(table[table["property"] == "tone"]["group"])) == ["light", "dark"]
    with pytest.raises(ValueError, match="tone has 3 values for 4 faces"):
        accuracy_by_group(models, {"tone": [0, 0, 1]})
