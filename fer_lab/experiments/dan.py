"""Notebook 02: what each idea of DAN adds to a ResNet-18, over seeds."""

from pathlib import Path
from typing import Any

from fer_lab.data import FaceRequest
from fer_lab.experiments.request import Training

SEEDS = (0, 1, 2)
BUDGET = {"epochs": 6, "precision": "bf16"}
# variant → method and its options
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "ResNet-18": ("baseline", {}),
    "DAN, K = 1": ("dan", {"num_heads": 1}),
    "DAN, K = 2": ("dan", {"num_heads": 2}),
    "DAN, K = 4": ("dan", {"num_heads": 4}),
    "DAN, K = 8": ("dan", {"num_heads": 8}),
    "no affinity loss": ("dan", {"affinity_weight": 0.0}),
    "no partition loss": ("dan", {"partition_weight": 0.0}),
    "neither": ("dan", {"affinity_weight": 0.0, "partition_weight": 0.0}),
}


def ablation(dataset: str = "synthetic", root: str | Path | None = None) -> dict[str, Training]:
    """Every variant from three seeds, with the same budget, from a ResNet-18's trunk of the same seed."""
    faces = FaceRequest(dataset=dataset, root=Path(root) if root else None, count=2000)
    requests = {}
    for seed in SEEDS:
        trunk = Training(model="baseline", faces=faces, seed=seed, changes=BUDGET, variant="trunk")
        for variant, (model, options) in VARIANTS.items():
            requests[f"{variant}-{seed}"] = Training(
                model=model,
                faces=faces,
                seed=seed,
                changes=BUDGET,
                options=options,
                trunk=trunk,
                variant=variant,
            )
    return requests
