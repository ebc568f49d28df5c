"""Notebook 03: what metric losses and selective attention change, with balanced and with rare classes."""

import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from fer_lab._files import atomic_path
from fer_lab.data import FaceRequest, FaceSet, prepare
from fer_lab.evaluation.embeddings import Plane, plane_of
from fer_lab.experiments.request import Training
from fer_lab.experiments.study import AFTERWARDS, RARE_AFTERWARDS, SEEDS, from_starts, resnet_trunk, setting
from fer_lab.figures import Frame
from fer_lab.models import Method, Recipe, create_model
from fer_lab.models.authors import start_from_trunk
from fer_lab.models.triplet_center import TripletCenter
from fer_lab.runs import open_model
from fer_lab.training.loop import fit

# RAF-DB's three rarest classes, and the renderer's at the same imbalance.
RARE = ("anger", "disgust", "fear")
NO_ATTENTION: dict[str, Any] = {"pixel_attention": False, "element_attention": False}
# He et al.'s margin is one number for the whole embedding: a variance for each of its 128 dimensions, as the
# other losses have.
LOSSES: dict[str, dict[str, Any]] = {
    "center": {"metric_loss": "center"},
    "He et al.": {"negatives": "hardest", "hinge": "vector", "margin": 128.0},
    "predicted": {"negatives": "predicted"},
    "semi": {"negatives": "semi"},
    "fully": {"negatives": "fully"},
}
# The λ of each loss. The rule, written before the trials, whose accuracies on held-out training faces are in
# search.csv: of the weights whose mean accuracy lies within a point of the loss's best, the largest.
CHOSEN = {"center": 0.01, "He et al.": 0.01, "predicted": 0.001, "semi": 0.01, "fully": 0.01}


def study(seeds: Iterable[int] = SEEDS, faces: FaceRequest | None = None) -> dict[str, Training]:
    """What the claims compare on balanced classes: every loss at its own weight, and the attentions."""
    attended = {
        "CE, pixel-wise": {"metric_loss": "none", "element_attention": False},
        "semi, both attentions": {**LOSSES["semi"], "loss_weight": CHOSEN["semi"]},
    }
    return _variants(seeds, _losses() | attended, faces)


def study_of_rare_classes(seeds: Iterable[int] = SEEDS) -> dict[str, Training]:
    """The same losses with RAF-DB's imbalance; all are measured on the study's balanced faces."""
    losses = {f"{name}, rare": options for name, options in _losses().items()}
    return _variants(seeds, losses, None, rare=True)


def _losses() -> dict[str, dict[str, Any]]:
    weighed = {name: {**options, "loss_weight": CHOSEN[name]} for name, options in LOSSES.items()}
    return {name: {**one, **NO_ATTENTION} for name, one in ({"CE": {"metric_loss": "none"}} | weighed).items()}


def _variants(
    seeds: Iterable[int], variants: Mapping[str, dict[str, Any]], faces: FaceRequest | None, rare: bool = False
) -> dict[str, Training]:
    """Each variant from each seed's trunk at its plateau."""
    named = {variant: ("triplet_center", options) for variant, options in variants.items()}
    after = {"triplet_center": RARE_AFTERWARDS if rare else AFTERWARDS}
    return from_starts(seeds, named, lambda seed: resnet_trunk(seed, faces, rare), setting(faces, rare), after)


# -----------------------------------------------------------------------------------------------------
# Two dimensions, epoch by epoch

# The margin of He et al. is one number for both dimensions.
IN_PLANE: dict[str, dict[str, Any]] = {
    "cross-entropy": {"metric_loss": "none"},
    "He et al.": {**LOSSES["He et al."], "margin": 2.0},
    "prediction based": LOSSES["predicted"],
    "semi-synthesised": LOSSES["semi"],
    "fully synthesised": LOSSES["fully"],
}
PLANE: dict[str, Any] = {"embedding_dim": 2, "element_attention": False, "loss_weight": 1.0}
PLANE_FACES = FaceRequest(count=3000, size=56, knobs={"imbalance": 0})
PLANE_EPOCHS = 8
# The recorded frames, in the folder of the results store.
PLANE_FILE = "plane.npz"


def watch_plane(
    model: TripletCenter, training: FaceSet, shown: FaceSet, recipe: Recipe, folder: Path
) -> list[Frame]:
    """Train a triplet-center model of two dimensions → after every epoch where it puts some faces, and why."""
    images, frames = prepare(shown.images, model.image_size), []

    def keep(_now: Method, _epoch: int) -> None:
        with torch.no_grad():
            xy = model.embed(images).numpy()
        centers = None if model.centers is None else model.centers.detach().clone().numpy()
        frames.append(Frame(xy, centers, plane_of(model, xy, 60)))

    fit(model, training, None, recipe, folder, on_epoch=keep, device="cpu")
    return frames


def record_plane(path: Path, folder: Path, seed: int = 0) -> None:
    """Watch every loss of `IN_PLANE` from the bundled ResNet-18's trunk, and write the frames of 300 faces."""
    faces, trunk = PLANE_FACES.load(), open_model("synthetic/baseline")
    training, shown = faces.split("train"), faces.split("test")
    shown = shown.subset(range(min(300, len(shown))))
    arrays: dict[str, Any] = {"labels": shown.labels.numpy().astype(np.uint8)}
    for name, options in IN_PLANE.items():
        torch.manual_seed(seed)
        model = cast(TripletCenter, create_model("triplet_center", faces.num_classes, **{**options, **PLANE}))
        start_from_trunk(model, trunk)
        recipe = model.recipes["smoke"].replace(epochs=PLANE_EPOCHS, seed=seed)
        for epoch, frame in enumerate(watch_plane(model, training, shown, recipe, folder / name), 1):
            parts = {"xy": frame.xy, "centers": frame.centers, **cast(Plane, frame.plane)._asdict()}
            arrays |= {f"{name}/{epoch}/{part}": value for part, value in parts.items() if value is not None}
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, **arrays)


def recorded_plane(path: Path) -> tuple[np.ndarray, dict[str, list[Frame]]]:
    """What `record_plane` wrote: labels [N], and for every loss a frame an epoch."""
    with np.load(path) as data:
        parts = ("xy", "centers", *Plane._fields)
        frames: dict[str, list[Frame]] = {name: [] for name in IN_PLANE}
        for name, epoch in itertools.product(IN_PLANE, range(1, PLANE_EPOCHS + 1)):
            xy, centers, *rest = (data.get(f"{name}/{epoch}/{part}") for part in parts)
            frames[name].append(Frame(xy, centers, Plane(*rest)))
        return data["labels"].astype(np.int64), frames
