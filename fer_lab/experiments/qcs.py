"""Notebook 05: five ways to train QCS's base network, over seeds."""

from pathlib import Path
from typing import Any

from fer_lab.data import FaceRequest
from fer_lab.experiments.request import Training

SEEDS = (0, 1, 2)
# variant → method and its options
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "CE only": ("qcs", {"form": "none"}),
    "DCS": ("dcs", {}),
    "QCS (S)": ("qcs", {"form": "s"}),
    "QCS (D)": ("qcs", {"form": "d"}),
    "QCS (SD)": ("qcs", {"form": "sd"}),
}
# The same number of images: two passes of four faces an example, or four passes of two.
BUDGETS: dict[str, dict[str, Any]] = {
    "qcs": {"epochs": 2, "batch_size": 4, "precision": "bf16"},
    "dcs": {"epochs": 4, "batch_size": 8, "precision": "bf16"},
}


def distillation(dataset: str = "synthetic", root: str | Path | None = None) -> dict[str, Training]:
    """Every way from three seeds, all from one trunk a seed, which cross-entropy trained."""
    count = 2000 if dataset == "synthetic" else None
    faces = FaceRequest(dataset=dataset, root=Path(root) if root else None, count=count)

    def training(variant: str, seed: int, trunk: Training | None) -> Training:
        model, options = WAYS.get(variant, WAYS["CE only"])
        changes = BUDGETS[model]
        return Training(
            model=model, faces=faces, seed=seed, changes=changes, options=options, trunk=trunk, variant=variant
        )

    trunks = {seed: training("trunk", seed, None) for seed in SEEDS}
    return {f"{way}-{seed}": training(way, seed, trunks[seed]) for way in WAYS for seed in SEEDS}
