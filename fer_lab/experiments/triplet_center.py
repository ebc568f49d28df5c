"""Notebook 03: whether metric losses help rare classes, over the imbalance of the training faces."""

from typing import Any

from fer_lab.data import FaceRequest
from fer_lab.experiments.request import Training

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
