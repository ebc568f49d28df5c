"""Several models on the same faces: paired differences, McNemar's test, and accuracy by group of faces."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from fer_lab.evaluation.metrics import OVERALL, accuracy_row, face_features, scores_of_sums
from fer_lab.intervals import bootstrap, holm
from fer_lab.runs.predictions import Predictions


def compare(first: Predictions, second: Predictions, *, seed: int = 0) -> pd.DataFrame:
    """Difference of two models with a paired bootstrap (both on the same resampled faces), and McNemar's test.

    Returns a row for accuracy and mean_class_recall: metric, first, second, difference (first − second), low,
    high, only_first and only_second (faces that only one has right), and p_value (exact McNemar, two-sided: how
    likely such an unequal split of these faces is by chance).

    The result is about these two trained models. Whether one method is better than another takes several
    seeds of each: see `fer_lab.intervals.paired_difference`. Raises ValueError for predictions on different
    faces, or none.
    """
    from scipy.stats import binomtest

    same = first.fingerprint == second.fingerprint and first.classes == second.classes
    pairs = ((np.asarray(first.rows), np.asarray(second.rows)), (first.labels, second.labels))
    if not same or not all(np.array_equal(one, other) for one, other in pairs):
        raise ValueError(
            f"predictions are on different faces: {first.name} {first.fingerprint} ({len(first)}) and "
            f"{second.name} {second.fingerprint} ({len(second)}); predict with both models on one set"
        )
    c, metrics = len(first.classes), 2

    def both_and_difference(sums: np.ndarray) -> np.ndarray:
        a, b = (scores_of_sums(half, c)[:, :metrics] for half in np.split(sums, 2, axis=1))
        return np.concatenate([a, b, a - b], axis=1)

    features = np.concatenate([face_features(first), face_features(second)], axis=1)
    result = bootstrap(features, both_and_difference, seed=seed)
    columns = dict(zip(("first", "second", "difference"), np.split(result.value, 3), strict=True))
    low, high = result.low[2 * metrics :], result.high[2 * metrics :]
    table = pd.DataFrame({"metric": OVERALL[:metrics], **columns, "low": low, "high": high})
    only_first = int((first.correct & ~second.correct).sum())
    only_second = int((second.correct & ~first.correct).sum())
    discordant = only_first + only_second
    p_value = float(binomtest(only_first, discordant).pvalue) if discordant else 1.0
    return table.assign(only_first=only_first, only_second=only_second, p_value=p_value)


def differences(predictions: Mapping[str, Predictions], reference: str, *, seed: int = 0) -> pd.DataFrame:
    """Every model against one, on the same faces: `compare`, with McNemar's p-values adjusted by `holm`.

    Returns a row a model and metric: model, metric (accuracy, mean_class_recall), value (its own), difference,
    low, high, only_it, only_reference (faces that only one has right), p_value (adjusted). Raises ValueError
    for no model of the reference's name, no other model, or predictions on different faces.
    """
    others = [name for name in predictions if name != reference]
    if reference not in predictions or not others:
        raise ValueError(f"expected {reference!r} and at least one other model, got {', '.join(predictions)}")
    tables = [compare(predictions[it], predictions[reference], seed=seed).assign(model=it) for it in others]
    for table, p_value in zip(tables, holm([table["p_value"][0] for table in tables]), strict=True):
        table["p_value"] = p_value
    names = {"first": "value", "only_first": "only_it", "only_second": "only_reference"}
    columns = ["model", "metric", "value", "difference", "low", "high", "only_it", "only_reference", "p_value"]
    return pd.concat(tables, ignore_index=True).rename(columns=names)[columns]


def accuracy_by_group(predictions: Mapping[str, Predictions], groups: Mapping[str, Sequence]) -> pd.DataFrame:
    """Accuracy within groups of faces, such as by skin tone, with exact binomial 95 % intervals.

    Takes predictions of the same faces by model, and the value of each face [N] by property. Returns a row a
    property, group and model: property, group, model, faces, value, low, high. Groups in sorted order, those of
    a pandas Categorical in its own; a group without faces is left out. Raises ValueError unless each face has a
    value.
    """
    rows = []
    for name, values in groups.items():
        order = pd.Series(values).astype("category").cat.remove_unused_categories().cat.categories
        of_face = np.asarray(values)
        for model, one in predictions.items():
            if len(of_face) != len(one):
                raise ValueError(f"{name} has {len(of_face)} values for {len(one)} faces")
            for group in order:
                row = {"property": name, "group": group, "model": model}
                rows.append({**row, **accuracy_row(one.correct[of_face == group])})
    return pd.DataFrame(rows)
