"""Several models on the same faces: differences, robustness against the renderer's knobs, error by group."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fer_lab.evaluation.metrics import OVERALL, _features, _scores
from fer_lab.intervals import _intervals, _resample, binomial_interval, holm
from fer_lab.runs import Predictions


def differences(
    predictions: Mapping[str, Predictions], reference: str, *, resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Every model against one, on the same faces: `compare`, with McNemar's p-values adjusted by `holm`.

    Returns:
        A row a model and metric: model, metric (accuracy, mean_class_recall), value (its own), difference,
        low, high, only_it, only_reference (faces that only one has right), p_value (adjusted).

    Raises:
        ValueError: no model of the reference's name, no other model, or predictions on different faces.
    """
    others = [name for name in predictions if name != reference]
    if reference not in predictions or not others:
        raise ValueError(f"expected {reference!r} and at least one other model, got {', '.join(predictions)}")
    tables, p_values = [], []
    for name in others:
        found = compare(predictions[name], predictions[reference], resamples=resamples, seed=seed)
        counts = {"only_it": found.only_first, "only_reference": found.only_second}
        tables.append(found.table.rename(columns={"first": "value"}).assign(model=name, **counts))
        p_values.append(found.p_value)
    for table, p_value in zip(tables, holm(p_values), strict=True):
        table["p_value"] = p_value
    columns = ["model", "metric", "value", "difference", "low", "high", "only_it", "only_reference", "p_value"]
    return pd.concat(tables, ignore_index=True)[columns]


def accuracy_by_group(predictions: Mapping[str, Predictions], groups: Mapping[str, Sequence]) -> pd.DataFrame:
    """Accuracy within groups of faces, such as by skin tone, with exact binomial 95 % intervals.

    Args:
        predictions: model → predictions, all of the same faces.
        groups: property → the value of each face, [N].

    Returns:
        A row a property, group and model: property, group, model, faces, value, low, high. Groups in sorted
        order, those of a pandas Categorical in its own; a group without faces is left out.

    Raises:
        ValueError: values that are not one for each face.
    """
    rows = []
    for name, values in groups.items():
        order = pd.Series(values).astype("category").cat.remove_unused_categories().cat.categories
        values = np.asarray(values)
        for model, found in predictions.items():
            if len(values) != len(found):
                raise ValueError(f"{name} has {len(values)} values for {len(found)} faces")
            for group in order:
                right = found.correct[values == group]
                low, high = binomial_interval(int(right.sum()), len(right))
                row = {"property": name, "group": group, "model": model, "faces": len(right)}
                rows.append({**row, "value": float(right.mean()), "low": low, "high": high})
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class Comparison:
    """Two models on the same faces.

    Attributes:
        table: metric (accuracy, mean_class_recall), first, second, difference (first − second), low, high.
        only_first, only_second: faces that only one of the two has right.
        p_value: exact McNemar, two-sided: how likely so unequal a split of these faces is by chance.
    """

    table: pd.DataFrame
    only_first: int
    only_second: int
    p_value: float


def compare(first: Predictions, second: Predictions, *, resamples: int = 1000, seed: int = 0) -> Comparison:
    """Difference of two models with a paired bootstrap (both on the same resampled faces), and McNemar's test.

    It speaks of these two trained models. Whether a method is better than another is a question to several
    seeds of each.

    Raises:
        ValueError: predictions on different faces, or none.
    """
    from scipy.stats import binomtest

    same = first.fingerprint == second.fingerprint and first.classes == second.classes
    if (
        not same
        or not np.array_equal(first.rows, second.rows)
        or not np.array_equal(first.labels, second.labels)
    ):
        raise ValueError(
            f"predictions are on different faces: {first.name} {first.fingerprint} ({len(first)}) and "
            f"{second.name} {second.fingerprint} ({len(second)}); predict with both models on one set"
        )
    c, metrics = len(first.classes), 2
    features = np.concatenate([_features(first), _features(second)], axis=1)

    def both(sums: np.ndarray) -> np.ndarray:
        halves = np.split(sums, 2, axis=1)
        return np.stack([_scores(half, c)[:, :metrics] for half in halves])

    def difference(sums: np.ndarray) -> np.ndarray:
        a, b = both(sums)
        return a - b

    whole = features.sum(0, keepdims=True, dtype=np.float64)
    a, b = both(whole)[:, 0]
    drawn = np.concatenate([difference(sums) for sums in _resample(features, resamples, seed)])
    low, high = _intervals(a - b, drawn, difference(whole - features))
    table = pd.DataFrame(
        {"metric": OVERALL[:metrics], "first": a, "second": b, "difference": a - b, "low": low, "high": high}
    )
    only_first = int((first.correct & ~second.correct).sum())
    only_second = int((second.correct & ~first.correct).sum())
    discordant = only_first + only_second
    p_value = float(binomtest(only_first, discordant).pvalue) if discordant else 1.0
    return Comparison(table, only_first, only_second, p_value)
