"""Notebook 03: what metric losses and selective attention change, with balanced and with rare classes."""

from collections.abc import Iterable
from typing import Any

from fer_lab.data import FaceRequest
from fer_lab.experiments.request import Training
from fer_lab.experiments.study import AFTERWARDS, PILOT_SEEDS, STUDY, resnet_trunk

SEEDS = (0, 1, 2)
# the renderer's knob `imbalance` → in words
LEVELS = {0: "all alike", 1: "as RAF-DB", 1.5: "harsher"}
# Without element-wise coefficients, so that nothing but the metric loss differs. The weight is DACL's.
PLAIN: dict[str, Any] = {"element_attention": False, "loss_weight": 0.01}
LOSSES: dict[str, dict[str, Any]] = {
    "CE": {"metric_loss": "none"},
    "center": {"metric_loss": "center", **PLAIN},
    "He et al.": {"negatives": "hardest", "hinge": "vector", **PLAIN},
    "predicted": {"negatives": "predicted", **PLAIN},
    "semi": {"negatives": "semi", **PLAIN},
    "fully": {"negatives": "fully", **PLAIN},
}
# RAF-DB's three rarest classes, and the renderer's at the same imbalance.
RARE = ("anger", "disgust", "fear")


def imbalance(level: float | None = None) -> dict[str, Training]:
    """Every loss at one level of imbalance, or at all, from three seeds and random weights.

    All are measured on the same balanced faces of other people. A variant is called "LOSS, imbalance LEVEL".
    """
    requests = {}
    for knob in LEVELS if level is None else (level,):
        faces = FaceRequest(count=2000, knobs={"imbalance": knob})
        for loss, options in LOSSES.items():
            variant = f"{loss}, imbalance {knob:g}"
            for seed in SEEDS:
                requests[f"{variant}-{seed}"] = Training(
                    model="triplet_center",
                    faces=faces,
                    seed=seed,
                    options=options,
                    balanced=700,
                    variant=variant,
                )
    return requests


# The study's losses, each at its own weight, without attention.
NO_ATTENTION: dict[str, Any] = {"pixel_attention": False, "element_attention": False}
# He et al.'s margin is one number for the whole embedding: a variance for each of its 128 dimensions, as the
# other losses have.
STUDIED: dict[str, dict[str, Any]] = {
    "center": {"metric_loss": "center"},
    "He et al.": {"negatives": "hardest", "hinge": "vector", "margin": 128.0},
    "predicted": {"negatives": "predicted"},
    "semi": {"negatives": "semi"},
    "fully": {"negatives": "fully"},
}
WEIGHTS = (0.001, 0.003, 0.01, 0.03)


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
        for loss, options in STUDIED.items()
        for weight in WEIGHTS
        for seed in seeds
    }
