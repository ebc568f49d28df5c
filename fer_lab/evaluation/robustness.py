"""Accuracy on harder faces: with fewer pixels, or with one knob of the renderer turned."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

from fer_lab.data.faces import FaceSet
from fer_lab.data.synthetic import SyntheticFaces
from fer_lab.evaluation.metrics import accuracy_row, evaluate, predict
from fer_lab.models.method import Method


def shrunk(faces: FaceSet, percent: int) -> FaceSet:
    """The same faces shrunk to `percent` of their side and enlarged again to the old size.

    A face far from the camera is cropped and enlarged like any other, but holds less detail. At 100 they are
    the faces themselves. Raises ValueError for a percentage outside 1…100, or one that leaves less than 4
    pixels.
    """
    small = round(faces.image_size * percent / 100)
    if not 1 <= percent <= 100 or small < 4:
        raise ValueError(
            f"percent must lie in 1…100 and leave at least 4 of {faces.image_size} pixels, got {percent!r}"
        )
    if percent == 100:
        return faces
    pieces = [
        _resize(_resize(faces.take(rows).float(), small), faces.image_size).round().to(torch.uint8)
        for rows in torch.arange(len(faces)).split(1024)
    ]
    digest = hashlib.sha256(f"{faces.fingerprint} at {percent} %".encode()).hexdigest()[:16]
    regions = None if faces.regions is None else faces.regions[faces.rows]
    return dataclasses.replace(
        faces, storage=torch.cat(pieces), rows=torch.arange(len(faces)), regions=regions, fingerprint=digest
    )


def _resize(images: torch.Tensor, size: int) -> torch.Tensor:
    return F.interpolate(images, size=(size, size), mode="bilinear", antialias=True, align_corners=False)


def accuracy_by_resolution(model: Method, faces: FaceSet, percents: Sequence[int]) -> pd.DataFrame:
    """Accuracy on `shrunk` faces, a row a percentage of the side, in the columns of `evaluate`.

    The metric is named "accuracy_at_resolution_75" and so on. Raises ValueError as `shrunk` and `predict` do.
    """
    return pd.concat(
        [scores(model, shrunk(faces, percent), f"_at_resolution_{percent}") for percent in percents],
        ignore_index=True,
    )


def scores(model: Method, faces: FaceSet, ending: str, *names: str, flip: bool = False) -> pd.DataFrame:
    """Some metrics of `evaluate` ("accuracy" if none is named) with an ending added to each name.

    `flip`: of the answers to the faces and their mirror images together, as `predict` gives them.
    """
    metrics = evaluate(predict(model, faces, flip=flip))
    chosen = metrics[metrics["metric"].isin(names or ["accuracy"])]
    return chosen.assign(metric=chosen["metric"] + ending)


def accuracy_by_knob(
    models: Mapping[str, Method],
    settings: Mapping[str, Sequence],
    *,
    num_faces: int = 300,
    seed: int = 0,
    **knobs: Any,
) -> pd.DataFrame:
    """Accuracy of models while one knob of the renderer turns and all others keep their values.

    The same people, expressions and poses are drawn at every level. For the knob `scale_range`, which is a
    range, a level may be one number: all heads have that size. Returns a row a knob, level and model: knob,
    level, model, faces, value (the accuracy), low, high (exact binomial, 95 %). Raises ValueError for no
    models, models of several image sizes, an unknown knob or level.

    Args:
        settings: knob → levels; `num_faces` are drawn for each.
        seed: of the faces. Choose one that no model was trained on.
        knobs: of the renderer, the same at every level.
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
                row = {"knob": knob, "level": level, "model": name}
                rows.append({**row, **accuracy_row(hits[i * num_faces : (i + 1) * num_faces])})
    return pd.DataFrame(rows)


def _one_after_another(sets: Sequence[FaceSet]) -> FaceSet:
    """Faces and labels of several rendered sets in one set, so that `predict` prepares a model only once."""
    images, labels, people = (
        torch.cat([getattr(one, name) for one in sets]) for name in ("storage", "labels", "subjects")
    )
    splits = np.concatenate([one.splits for one in sets])
    fingerprint = " ".join(one.fingerprint for one in sets)
    return FaceSet(images, labels, sets[0].classes, splits, people, sets[0].name, fingerprint)
