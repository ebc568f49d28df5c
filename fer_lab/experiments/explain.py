"""Notebook 07: where the models that ship look on average, and what a loss on a map does to it, over seeds."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fer_lab._files import atomic_path
from fer_lab.data import FaceRequest, FaceSet, prepare
from fer_lab.experiments import dan
from fer_lab.experiments.request import Training
from fer_lab.experiments.study import SEEDS
from fer_lab.explanation import explain
from fer_lab.explanation.maps import scaled_to_mass
from fer_lab.models import Method, shipped_models
from fer_lab.runs import open_model

# The recorded maps, in the folder of the results store: a chart of numbers, without a face.
MEAN_MAPS = "mean_maps.npz"
RENDERED = FaceRequest(count=2100, seed=5000, size=56, knobs={"imbalance": 0})

# Variants of DAN's study whose own maps are taught: the class activation map, and the attention of four heads.
NETWORKS = ("ResNet-18", "DAN, K = 4")
# The largest of 0.1, 0.3, 1 and 3 whose accuracy on held-out faces was within a point of the best (search.csv).
MAP_WEIGHT = 3.0


def study(seeds: Iterable[int] = SEEDS, faces: FaceRequest | None = None) -> dict[str, Training]:
    """Each of `NETWORKS` without and with a loss that draws its maps to the places that moved."""
    found = {}
    for one in dan.study(seeds, faces).values():
        if one.variant in NETWORKS:
            for maps, more in {"free": {}, "taught": {"map_weight": MAP_WEIGHT}}.items():
                variant = f"{one.variant}, {maps} maps"
                changes = {**one.changes, **more}
                found[f"{variant}-{one.seed}"] = dataclasses.replace(one, variant=variant, changes=changes)
    return found


def mean_maps(model: Method, faces: FaceSet) -> np.ndarray:
    """The mean native map over the faces of each class, each map scaled to the sum 1: float32 [C,7,7]."""
    parts = []
    for rows in torch.arange(len(faces)).split(256):
        images = prepare(faces.take(rows), model.image_size, model.color_order)
        parts.append(scaled_to_mass(explain(model, images, "native").clamp(min=0))[:, 0])
    maps = torch.cat(parts)
    return torch.stack([maps[faces.labels == c].mean(0) for c in range(faces.num_classes)]).numpy()


def record_mean_maps(path: Path, photographs: FaceSet) -> None:
    """Write the mean maps of the models that ship, of each on faces of the kind that it learned from.

    `photographs` are faces of FER+ that no model learned from.
    """
    arrays: dict[str, Any] = {}
    for name, faces in (("synthetic", RENDERED.load()), ("ferplus", photographs)):
        for method in shipped_models(name):
            arrays[f"{name}/{method}"] = mean_maps(open_model(f"{name}/{method}"), faces).astype(np.float16)
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, **arrays)


def recorded_mean_maps(path: Path) -> dict[str, dict[str, np.ndarray]]:
    """What `record_mean_maps` wrote: {"synthetic" or "ferplus": {method: [C,7,7]}}."""
    maps: dict[str, dict[str, np.ndarray]] = {}
    with np.load(path) as data:
        for key in data.files:
            name, _, method = key.partition("/")
            maps.setdefault(name, {})[method] = data[key].astype(np.float32)
    return maps
