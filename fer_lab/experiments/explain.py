"""Notebook 07: where the models that ship look on average, and what a loss on a map does to it, over seeds."""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fer_lab._files import atomic_path
from fer_lab.data import REGIONS, FaceRequest, FaceSet
from fer_lab.experiments import dan
from fer_lab.experiments.request import Training
from fer_lab.experiments.study import SEEDS
from fer_lab.explanation import explain
from fer_lab.explanation.maps import GRID, scaled_to_mass, to_grid
from fer_lab.models import Method, shipped_models
from fer_lab.models.inference import in_order
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
    batches = in_order(model, faces, device="cpu", batch_size=256)
    return _by_class(torch.cat([explain(model, one.images, "native").clamp(min=0) for one in batches]), faces)


def _by_class(maps: Tensor, faces: FaceSet) -> np.ndarray:
    """Maps [N,1,7,7] of all faces → the mean of each class, every map scaled to the sum 1: [C,7,7]."""
    scaled = scaled_to_mass(maps)[:, 0]
    return torch.stack([scaled[faces.labels == c].mean(0) for c in range(faces.num_classes)]).numpy()


def shipped_maps(photographs: FaceSet) -> dict[str, dict[str, np.ndarray]]:
    """Mean maps of the models that ship, {"synthetic" or "ferplus": {method: [C,7,7]}}.

    Each of faces of the kind that it learned from; `photographs` are faces of FER+ that no model learned from.
    """
    sets = {"synthetic": RENDERED.load(), "ferplus": photographs}
    return {
        name: {method: mean_maps(open_model(f"{name}/{method}"), faces) for method in shipped_models(name)}
        for name, faces in sets.items()
    }


def taught_maps(folder: Path, seed: int = 0) -> dict[str, dict[str, np.ndarray]]:
    """Mean maps of one seed of the study, whose runs lie in a folder: {"free" or "taught": {name: [C,7,7]}}.

    The names are the methods' and "moved skin", which the taught maps were drawn to.
    """
    found: dict[str, dict[str, np.ndarray]] = {"free": {}, "taught": {}}
    for one in study([seed]).values():
        faces = one.balanced_faces().load()
        kind = "taught" if "map_weight" in one.changes else "free"
        found[kind][one.model] = mean_maps(open_model(folder / one.name), faces)
    moved = faces.region_masks(range(len(faces)))[:, [REGIONS.index("moved")]]
    skin = _by_class(to_grid(moved.float(), GRID), faces)
    return {kind: {**maps, "moved skin": skin} for kind, maps in found.items()}


def record_mean_maps(path: Path, maps: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """Write mean maps, block → name → [C,7,7], beside the blocks that the file has."""
    before = recorded_mean_maps(path) if path.exists() else {}
    named = {f"{block}/{name}": one for block, maps in {**before, **maps}.items() for name, one in maps.items()}
    arrays: dict[str, Any] = {name: one.astype(np.float16) for name, one in named.items()}
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, **arrays)


def recorded_mean_maps(path: Path) -> dict[str, dict[str, np.ndarray]]:
    """What `record_mean_maps` wrote."""
    maps: dict[str, dict[str, np.ndarray]] = {}
    with np.load(path) as data:
        for key in data.files:
            block, _, name = key.partition("/")
            maps.setdefault(block, {})[name] = data[key].astype(np.float32)
    return maps
