"""Notebook 03: what metric losses and selective attention change, with balanced and with rare classes."""

from collections.abc import Iterable, Mapping
from typing import Any

from fer_lab.data import FaceRequest
from fer_lab.experiments.request import Training
from fer_lab.experiments.study import (
    AFTERWARDS,
    PILOT_SEEDS,
    RARE_AFTERWARDS,
    SEEDS,
    STUDY,
    resnet_trunk,
    setting,
)

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
# Every λ that was tried, and the one that the trials chose; search.csv has their accuracies.
WEIGHTS = (0.001, 0.003, 0.01, 0.03)
CHOSEN = {"center": 0.01, "He et al.": 0.01, "predicted": 0.001, "semi": 0.01, "fully": 0.01}


def tuning(seeds: Iterable[int] = PILOT_SEEDS[:2]) -> dict[str, Training]:
    """Every loss at every weight, for a choice by the accuracy on held-out training faces.

    The rule, written before the trials: of the weights whose mean accuracy lies within a point of the loss's
    best, the largest.
    """
    return {
        f"{loss}, {weight:g}-{seed}": Training(
            model="triplet_center",
            faces=STUDY["faces"],
            seed=seed,
            changes=AFTERWARDS,
            options={**options, **NO_ATTENTION, "loss_weight": weight},
            trunk=resnet_trunk(seed),
        )
        for loss, options in LOSSES.items()
        for weight in WEIGHTS
        for seed in seeds
    }


def study(seeds: Iterable[int] = SEEDS, faces: FaceRequest | None = None) -> dict[str, Training]:
    """What the claims compare on balanced classes: every loss at its own weight, and the attentions."""
    attended = {
        "CE, pixel-wise": {"metric_loss": "none", "element_attention": False},
        "semi, both attentions": {**LOSSES["semi"], "loss_weight": CHOSEN["semi"]},
    }
    return _variants(seeds, _losses() | attended, AFTERWARDS, faces)


def study_of_rare_classes(
    seeds: Iterable[int] = SEEDS, faces: FaceRequest | None = None
) -> dict[str, Training]:
    """The same losses with RAF-DB's imbalance; all are measured on the study's balanced faces."""
    losses = {f"{name}, rare": options for name, options in _losses().items()}
    return _variants(seeds, losses, RARE_AFTERWARDS, faces, rare=True)


def _losses() -> dict[str, dict[str, Any]]:
    weighed = {name: {**options, "loss_weight": CHOSEN[name]} for name, options in LOSSES.items()}
    return {name: {**one, **NO_ATTENTION} for name, one in ({"CE": {"metric_loss": "none"}} | weighed).items()}


def _variants(
    seeds: Iterable[int],
    variants: Mapping[str, dict[str, Any]],
    changes: Mapping[str, Any],
    faces: FaceRequest | None,
    rare: bool = False,
) -> dict[str, Training]:
    """Each variant from each seed's trunk at its plateau."""
    return {
        f"{variant}-{seed}": Training(
            model="triplet_center",
            seed=seed,
            changes=changes,
            options=options,
            trunk=resnet_trunk(seed, faces, rare),
            variant=variant,
            **setting(faces, rare),
        )
        for seed in seeds
        for variant, options in variants.items()
    }
