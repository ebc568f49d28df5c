"""Notebook 06: every method under one budget, over seeds."""

import itertools
from typing import Any

from fer_lab.data import FaceRequest
from fer_lab.experiments import poster
from fer_lab.experiments.request import Training

SEEDS = (0, 1, 2)
# condition, which is the variant's name → the knobs of the training faces, and how the trunks are called
CONDITIONS: dict[str, tuple[dict[str, float], str]] = {
    "same budget": ({}, "trunk"),
    "label noise 0.3": ({"label_noise": 0.3}, "trunk, label noise 0.3"),
    "same budget, no imbalance": ({"imbalance": 0}, "trunk, no imbalance"),
}
# The trunk alone and a classifier: method and options.
TRUNKS: dict[str, tuple[str, dict[str, Any]]] = {
    "ResNet-18": ("baseline", {}),
    "IR-50": ("poster", poster.VARIANTS["image only"]),
}
TRUNK_OF = dict.fromkeys(("baseline", "dan", "triplet_center"), "ResNet-18")
TRUNK_OF |= dict.fromkeys(("poster", "qcs"), "IR-50")


def same_budget(condition: str | None = None) -> dict[str, Training]:
    """Every method from three seeds, in one of `CONDITIONS` or in all.

    From a trunk of its kind, trained by cross-entropy, every method sees the same number of faces more, in
    steps of 16 faces, at one learning rate. For QCS a quadruplet counts as four. All are measured on faces of
    other people, with balanced classes.
    """
    requests = {}
    for variant, seed in itertools.product([condition] if condition else CONDITIONS, SEEDS):
        knobs, trunk_variant = CONDITIONS[variant]
        faces = FaceRequest(count=2000, knobs=knobs)
        common: dict[str, Any] = {"faces": faces, "seed": seed, "balanced": 1400}
        long = {"epochs": 6, "precision": "bf16"}
        trunks = {
            kind: Training(model=model, options=options, changes=long, variant=trunk_variant, **common)
            for kind, (model, options) in TRUNKS.items()
        }
        for model, kind in TRUNK_OF.items():
            steps = {"epochs": 1, "batch_size": 4} if model == "qcs" else {"epochs": 4}
            changes = {**steps, "lr": 3e-4, "precision": "bf16"}
            requests[f"{model}, {variant}-{seed}"] = Training(
                model=model, changes=changes, trunk=trunks[kind], variant=variant, **common
            )
    return requests
