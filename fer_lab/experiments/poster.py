"""Notebook 04: POSTER's ideas, added one after the other, over seeds."""

from pathlib import Path
from typing import Any

from fer_lab.data import FaceRequest
from fer_lab.evaluation.robustness import SCALES
from fer_lab.experiments.request import Training

SEEDS = (0, 1, 2)
BUDGET = {"epochs": 4, "precision": "bf16"}
# variant → options; each has one idea more than the one before
VARIANTS: dict[str, dict[str, Any]] = {
    "image only": {"landmark_stream": "none", "cross_fusion": False, "pyramid": False},
    "+ landmarks": {"cross_fusion": False, "pyramid": False},
    "+ cross fusion": {"pyramid": False},
    "+ pyramid (POSTER)": {},
}


def ablation(dataset: str = "synthetic", root: str | Path | None = None) -> dict[str, Training]:
    """Every variant from three seeds and random weights; the accuracy on shrunk faces is measured as well."""
    count = 2000 if dataset == "synthetic" else None
    faces = FaceRequest(dataset=dataset, root=Path(root) if root else None, count=count)
    return {
        f"{variant}-{seed}": Training(
            model="poster",
            faces=faces,
            seed=seed,
            changes=BUDGET,
            options=options,
            scales=SCALES,
            variant=variant,
        )
        for variant, options in VARIANTS.items()
        for seed in SEEDS
    }
