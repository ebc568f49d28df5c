"""The study set: the rendered faces, seeds and trunk that the claims of `claims.py` share.

The faces are hard enough that a plain ResNet-18 at its plateau is wrong on every fifth of other people's faces;
the rows `plateau` of the pilot seeds in the results store have the numbers. A seed fixes the trunk, the batches
and the augmentation of all variants that are compared, so the runs are paired.
"""

from typing import Any

from fer_lab.data import FaceRequest
from fer_lab.experiments.request import Training

SEEDS = tuple(range(8))
# Of the pilots, which say how small an effect the study can see; no claim is decided on them.
PILOT_SEEDS = (101, 102, 103)
KNOBS = {"inter_class_similarity": 0.6, "intra_class_variance": 0.8, "imbalance": 0}
# Arguments of `Training`. Reported on faces of other people, 300 of each class.
STUDY: dict[str, Any] = {"faces": FaceRequest(count=5000, knobs=KNOBS), "balanced": 2100}
PLATEAU = {"epochs": 24, "precision": "bf16"}
AFTERWARDS = {"epochs": 6, "precision": "bf16"}


def resnet_trunk(seed: int) -> Training:
    """A ResNet-18 at its plateau, the start of a seed's variants."""
    return Training(model="baseline", seed=seed, changes=PLATEAU, variant="plateau", **STUDY)
