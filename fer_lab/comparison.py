"""Several models on the same faces: differences, robustness against the renderer's knobs, error by group."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch

from fer_lab.data.faces import FaceSet
from fer_lab.data.synthetic import SyntheticFaces
from fer_lab.evaluation import binomial_interval, compare, predict
from fer_lab.models.method import Method
from fer_lab.runs import Predictions


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number, so that one false alarm among all of them is as rare as in one test.

    Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6, 1979:
    the i-th smallest of n is multiplied by n − i + 1, and none becomes smaller than one before it.
    """
    p_values = np.asarray(p_values, dtype=float)
    order = np.argsort(p_values, kind="stable")
    scaled = p_values[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty_like(scaled)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(scaled))
    return adjusted.tolist()


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


def robustness(
    models: Mapping[str, Method],
    settings: Mapping[str, Sequence],
    *,
    num_faces: int = 300,
    seed: int = 0,
    **knobs,
) -> pd.DataFrame:
    """Accuracy of models as one knob of the renderer turns and all others stay.

    The same people, expressions and poses are drawn at every setting. A level that is one number stands for
    an even one where the knob is a range, as `scale_range` is: all heads of that size.

    Args:
        models: name → model; all of one image size and class count.
        settings: knob → levels.
        num_faces: drawn for each level.
        seed: of the faces; take one that no model was trained on.
        knobs: of the renderer, the same for all.

    Returns:
        A row a knob, level and model: knob, level, model, faces, value (the accuracy), low, high (exact
        binomial, 95 %).

    Raises:
        ValueError: no models, models of several image sizes, an unknown knob or level.
    """
    sizes = {(model.image_size, model.num_classes) for model in models.values()}
    if len(sizes) != 1:
        raise ValueError(f"expected models of one image size and class count, got {sorted(sizes)}")
    size, classes = sizes.pop()
    rows = []
    for knob, levels in settings.items():
        values = [(x, x) if knob == "scale_range" and not isinstance(x, tuple) else x for x in levels]
        drawn = {"seed": seed, "size": size, "num_classes": classes, **knobs}
        faces = _one_after_another([SyntheticFaces(num_faces, **drawn | {knob: value}) for value in values])
        right = {name: predict(model, faces, batch_size=64).correct for name, model in models.items()}
        for i, level in enumerate(levels):
            for name, hits in right.items():
                here = hits[i * num_faces : (i + 1) * num_faces]
                low, high = binomial_interval(int(here.sum()), len(here))
                row = {"knob": knob, "level": level, "model": name, "faces": len(here)}
                rows.append({**row, "value": float(here.mean()), "low": low, "high": high})
    return pd.DataFrame(rows)


def _one_after_another(sets: Sequence[FaceSet]) -> FaceSet:
    """Faces and labels of several drawn sets as one, so that a model is made ready once."""
    images, labels, people = (
        torch.cat([getattr(one, name) for one in sets]) for name in ("storage", "labels", "subjects")
    )
    splits = np.concatenate([one.splits for one in sets])
    fingerprint = " ".join(one.fingerprint for one in sets)
    return FaceSet(images, labels, sets[0].classes, splits, people, sets[0].name, fingerprint)


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
