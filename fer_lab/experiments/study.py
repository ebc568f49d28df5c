"""The study set: the rendered faces, seeds and trunk that the claims of `claims.py` share.

The faces are hard enough that a plain ResNet-18 at its plateau is wrong on every fifth of other people's faces;
the rows `plateau` of the pilot seeds in the results store have the numbers. A seed fixes the trunk, the batches
and the augmentation of all variants that are compared, so the runs are paired.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from fer_lab.data import FaceRequest
from fer_lab.experiments.request import Training

SEEDS = tuple(range(8))
# Of the pilots, which say how small an effect the study can see; no claim is decided on them.
PILOT_SEEDS = (101, 102, 103)
HARD = {"inter_class_similarity": 0.6, "intra_class_variance": 0.8, "imbalance": 0}
# Arguments of `Training`. Reported on faces of other people, 300 of each class.
STUDY: dict[str, Any] = {"faces": FaceRequest(count=5000, knobs=HARD), "balanced": 2100}
PLATEAU = {"epochs": 24, "precision": "bf16"}
AFTERWARDS = {"epochs": 6, "precision": "bf16"}

# The same with RAF-DB's imbalance: so many faces that the rarest class has 200 to learn from, in epochs that
# show a model as many images.
RARE: dict[str, Any] = {"faces": FaceRequest(count=14_000, knobs={**HARD, "imbalance": 1}), "balanced": 2100}
RARE_PLATEAU = {**PLATEAU, "epochs": 9}
RARE_AFTERWARDS = {**AFTERWARDS, "epochs": 2}


def setting(faces: FaceRequest | None = None, rare: bool = False) -> dict[str, Any]:
    """Arguments of `Training` for the study's faces, or for others with their own reported split."""
    return (RARE if rare else STUDY) if faces is None else {"faces": faces}


def resnet_trunk(seed: int, faces: FaceRequest | None = None, rare: bool = False) -> Training:
    """A ResNet-18 at its plateau, the start of a seed's variants."""
    changes = RARE_PLATEAU if rare else PLATEAU
    variant = "plateau, rare" if rare else "plateau"
    return Training(model="baseline", seed=seed, changes=changes, variant=variant, **setting(faces, rare))


def from_starts(
    seeds: Iterable[int],
    variants: Mapping[str, tuple[str, Mapping[str, Any]]],
    start: Callable[[int], Training],
    setting: Mapping[str, Any],
    changes: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Training]:
    """Each variant (method, options) from each seed's start; `changes` by method, else `AFTERWARDS`."""
    requests = {}
    for seed, (variant, (model, options)) in itertools.product(seeds, variants.items()):
        changed = (changes or {}).get(model, AFTERWARDS)
        common = {"seed": seed, "variant": variant, "changes": changed, "trunk": start(seed), **setting}
        requests[f"{variant}-{seed}"] = Training(model=model, options=options, **common)
    return requests
