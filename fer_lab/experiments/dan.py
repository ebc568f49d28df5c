"""Notebook 02: what each idea of DAN adds to a ResNet-18, over seeds."""

from collections.abc import Iterable
from typing import Any

from fer_lab.data import FaceRequest
from fer_lab.experiments.request import Training
from fer_lab.experiments.study import SEEDS, from_starts, resnet_trunk, setting

# variant → method and its options
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "ResNet-18": ("baseline", {}),
    **{f"DAN, K = {heads}": ("dan", {"num_heads": heads}) for heads in (1, 2, 4, 8)},
    "no affinity loss": ("dan", {"affinity_weight": 0.0}),
    "no partition loss": ("dan", {"partition_weight": 0.0}),
}


def study(seeds: Iterable[int] = SEEDS, faces: FaceRequest | None = None) -> dict[str, Training]:
    """The variants that DAN's claims compare, from a ResNet-18 at its plateau."""
    return from_starts(seeds, VARIANTS, lambda seed: resnet_trunk(seed, faces), setting(faces))
