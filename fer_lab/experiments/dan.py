"""Notebook 02: what each idea of DAN adds to a ResNet-18, over seeds."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fer_lab.data import FaceRequest
from fer_lab.experiments.request import Training
from fer_lab.experiments.study import AFTERWARDS, SEEDS, STUDY, resnet_trunk

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


def ablation(
    dataset: str = "synthetic", root: str | Path | None = None, seeds: Iterable[int] = (0, 1, 2)
) -> dict[str, Training]:
    """Every variant with the same budget, from a ResNet-18's trunk of the same seed."""
    count = 2000 if dataset == "synthetic" else None
    faces = FaceRequest(dataset=dataset, root=Path(root) if root else None, count=count)
    requests: dict[str, Training] = {}
    for seed in seeds:
        trunk = Training(model="baseline", faces=faces, seed=seed, changes=BUDGET, variant="trunk")
        requests |= _variants(seed, {"faces": faces, "changes": BUDGET, "trunk": trunk})
    return requests


def study(seeds: Iterable[int] = SEEDS) -> dict[str, Training]:
    """The variants that DAN's claims compare, on the study set, from a ResNet-18 at its plateau."""
    requests: dict[str, Training] = {}
    for seed in seeds:
        requests |= _variants(seed, {**STUDY, "changes": AFTERWARDS, "trunk": resnet_trunk(seed)})
    return {name: one for name, one in requests.items() if one.variant != "neither"}


def _variants(seed: int, common: Mapping[str, Any]) -> dict[str, Training]:
    return {
        f"{variant}-{seed}": Training(model=model, options=options, seed=seed, variant=variant, **common)
        for variant, (model, options) in VARIANTS.items()
    }
