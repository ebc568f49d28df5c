"""Accuracy on small faces: the same faces with fewer pixels.

A face far from the camera is cropped and enlarged like any other, but has less in it. Here every face is
shrunk to a share of its side and enlarged again.
"""

import dataclasses
import hashlib
from collections.abc import Sequence

import pandas as pd
import torch
import torch.nn.functional as F

from fer_lab.data.faces import FaceSet
from fer_lab.evaluation import evaluate, predict
from fer_lab.models.method import Method

# Percent of the side, as in the book's figures.
SCALES = (100, 75, 50, 35)


def shrunk(faces: FaceSet, percent: int) -> FaceSet:
    """The same faces with what is left of them at `percent` of their side, in images of the old size.

    Args:
        percent: 1…100; 100 gives the faces themselves.

    Raises:
        ValueError: another percentage, or one that leaves less than 4 pixels.
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


def accuracy_by_scale(model: Method, faces: FaceSet, percents: Sequence[int] = SCALES) -> pd.DataFrame:
    """Accuracy on `shrunk` faces, a row a scale, in the columns of `evaluate`.

    The metric is named "accuracy_at_75" and so on.

    Raises:
        ValueError: as `shrunk` and `predict`.
    """
    rows = []
    for percent in percents:
        metrics = evaluate(predict(model, shrunk(faces, percent)))
        accuracy = metrics[metrics["metric"] == "accuracy"]
        rows.append(accuracy.assign(metric=f"accuracy_at_{percent}"))
    return pd.concat(rows, ignore_index=True)
