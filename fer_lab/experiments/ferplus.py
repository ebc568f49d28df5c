"""The trainings behind the tables on real faces: what each row is, and what it starts from.

Everything is learned on FER2013Train: the faces that the majority rule keeps, with the annotators' vote shares
as targets. No other photographs are used. POSTER's frozen landmark stream learned from rendered faces, and QCS
starts from a trunk that was trained with it. A method that starts from another's trunk is compared with a
network that starts from the same trunk without the method's idea.
"""

from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from fer_lab.data import FaceRequest
from fer_lab.experiments.request import DIGEST, Training
from fer_lab.intervals import holm
from fer_lab.runs import ResultsStore

FROM_RESNET = "from ResNet-18's trunk"
# For triplet-center's rows, which start from a trained trunk.
FEW_EPOCHS = {"epochs": 4, "lr": 0.02}
# A batch of 16 quadruplets is 64 faces; an eighth of an epoch of quadruplets sees half of all faces.
QUADRUPLETS = {"batch_size": 16, "epoch_fraction": 0.125}
ADAMW = {"optimizer": "adamw", "lr": 5e-4, "weight_decay": 0.02}
# Milder augmentation, for a small network that has not learned enough.
MILD: dict[str, float] = {"augmentation.erasing_p": 0, "augmentation.rotation": 8}
MILD |= {"augmentation.brightness": 0.1, "augmentation.contrast": 0.1}
# Without element-wise coefficients, so that nothing but the metric loss differs. The weight is DACL's.
PLAIN: dict[str, Any] = {"element_attention": False, "loss_weight": 0.01}
METRIC_LOSSES: dict[str, dict[str, Any]] = {
    "CE": {"metric_loss": "none"},
    "center loss": {"metric_loss": "center", **PLAIN},
    "He et al.": {"negatives": "hardest", "hinge": "vector", **PLAIN},
    "predicted": {"negatives": "predicted", **PLAIN},
    "semi": {"negatives": "semi", **PLAIN},
    "fully": {"negatives": "fully", **PLAIN},
}
# HSE-FaceRes, as docs/data.md makes its file.
FACE_TRUNK = f"faceres.safetensors{DIGEST}b0ea2cc4805891a0"
# Of four learning rates this one had the most held-out faces right after half an epoch of the plain network.
FACE_TRUNK_CHANGES: dict[str, Any] = {"epochs": 5, "batch_size": 64, **ADAMW, "lr": 1e-3}
FURTHER: dict[str, Any] = {"epochs": 45}
SEEDS = (0, 1, 2)


def trainings(root: str | Path | None = None) -> dict[str, Training]:
    """All trainings on FER+, whose folder is `root`: three seeds of most rows, one of those only tried."""
    return {f"{name}-{seed}": one for seed in SEEDS for name, one in _rows(root, seed).items()}


def metric_losses(root: str | Path | None = None) -> dict[str, Training]:
    """Those of `trainings` that compare metric losses, all from the bundled ResNet-18's trunk."""
    return {name: one for name, one in trainings(root).items() if one.model == "triplet_center"}


def face_trunk(file: str | Path = FACE_TRUNK, root: str | Path | None = None) -> dict[str, Training]:
    """The trainings on FER+ that start from HSE-FaceRes in a `file`, and the same from random weights."""
    faces = FaceRequest(dataset="ferplus", root=Path(root) if root else None)
    starts: dict[str, Path | None] = {"from VGGFace2's trunk": Path(file), "the same trunk at random": None}
    found = {}
    for (variant, weights), seed, model in product(starts.items(), SEEDS, ("baseline", "dan")):
        common: dict[str, Any] = {"faces": faces, "seed": seed, "variant": variant, "weights": weights}
        common |= {"options": {"trunk": "faceres"}, "changes": FACE_TRUNK_CHANGES}
        found[f"{model}, {variant}-{seed}"] = Training(model=model, **common)
    return found


def further(root: str | Path | None = None) -> dict[str, Training]:
    """ResNet-18 and DAN from random weights, trained for three times as long; also with the mirror image."""
    faces = FaceRequest(dataset="ferplus", root=Path(root) if root else None)
    common: dict[str, Any] = {"faces": faces, "variant": f"from scratch, {FURTHER['epochs']} epochs"}
    common |= {"changes": FURTHER, "flip": True}
    return {
        f"{model}, further-{seed}": Training(model=model, seed=seed, **common)
        for model, seed in product(("baseline", "dan"), SEEDS)
    }


def loss_changes(store: ResultsStore, metric: str, name: str = "") -> pd.DataFrame:
    """A row for each of `METRIC_LOSSES`: a metric's mean over seeds, and its change from cross-entropy.

    `name`: the class that the metric is of; "" for all. Columns label, value, low, high; paired by seed,
    difference, low_difference, high_difference, p, adjusted_p (Holm's, over the losses), NaN for "CE" itself.
    """
    known: dict[str, Any] = {"of": metric_losses(), "classes": [name]}
    table = store.table(metric, **known).rename(columns={"mean": "value"})
    plain, *others = table["variant"]
    found = pd.DataFrame([store.difference(metric, one, plain, **known) for one in others])
    found = found.assign(variant=others, difference=found.pop("mean"), adjusted_p=holm(list(found["p"])))
    table = table.assign(label=table["variant"].str.partition(",")[0])
    return table.merge(found.drop(columns=["seeds", "text"]), "left", "variant", suffixes=("", "_difference"))


def _rows(root: str | Path | None, seed: int) -> dict[str, Training]:
    """The rows of the table that have a training with this seed."""
    faces = FaceRequest(dataset="ferplus", root=Path(root) if root else None)

    def training(model: str, variant: str, **more: Any) -> Training:
        return Training(model=model, faces=faces, seed=seed, variant=variant, **more)

    resnet = training("baseline", "from scratch")
    poster = training("poster", "from scratch")
    longer = {"epochs": 6, "lr": 5e-4}
    poster_longer = training("poster", "from scratch, 15 + 6 epochs", weights=poster, changes=longer)
    rows = {
        "resnet": resnet,
        "resnet-longer": training("baseline", FROM_RESNET, trunk=resnet),
        "dan": training("dan", FROM_RESNET, trunk=resnet),
    }
    if seed == 0:
        rows["dan-scratch"] = training("dan", "from scratch")
        rows["dan-scratch-20"] = training("dan", "from scratch, 20 epochs", changes={"epochs": 20})
    few = {"trunk": "ferplus/baseline", "changes": FEW_EPOCHS}
    for loss, options in METRIC_LOSSES.items():
        rows[loss] = training("triplet_center", f"{loss}, {FROM_RESNET}", options=options, **few)
    rows |= {"poster": poster, "poster-longer": poster_longer}
    both = {"options": {"landmark_stream": "joint"}, "changes": {"epochs": 12, "batch_size": 64, **MILD}}
    rows["poster-joint"] = training("poster", "from scratch, both streams learned", **both)
    if seed == 0:
        short = {"epochs": 4, "batch_size": 32, "epoch_fraction": 0.25, **ADAMW}
        rows["qcs-short"] = training("qcs", "from POSTER's trunk", trunk=poster, changes=short)
    changes = {"epochs": 24, **QUADRUPLETS, **ADAMW}
    rows["qcs"] = training("qcs", "from POSTER's trunk, 3 epochs", trunk=poster_longer, changes=changes)
    return rows
