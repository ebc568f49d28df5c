"""Notebook 02: what each idea of DAN adds to a ResNet-18, over seeds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fer_lab.experiments.request import Training
from fer_lab.experiments.study import AFTERWARDS, SEEDS, resnet_trunk, study

# variant → method and its options
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "ResNet-18": ("baseline", {}),
    "DAN, K = 1": ("dan", {"num_heads": 1}),
    "DAN, K = 2": ("dan", {"num_heads": 2}),
    "DAN, K = 4": ("dan", {"num_heads": 4}),
    "DAN, K = 8": ("dan", {"num_heads": 8}),
    "no affinity loss": ("dan", {"affinity_weight": 0.0}),
    "no partition loss": ("dan", {"partition_weight": 0.0}),
}


def ablation(
    dataset: str = "synthetic", root: str | Path | None = None, seeds: Sequence[int] = SEEDS
) -> dict[str, Training]:
    """Every variant with the same budget, from a ResNet-18 of the same seed that has reached its plateau."""
    common = study(dataset, root)
    return {
        f"{variant}-{seed}": Training(
            model=model,
            options=options,
            seed=seed,
            changes=AFTERWARDS,
            trunk=resnet_trunk(seed, **common),
            variant=variant,
            **common,
        )
        for seed in seeds
        for variant, (model, options) in VARIANTS.items()
    }
