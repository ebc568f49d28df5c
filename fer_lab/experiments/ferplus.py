"""The trainings behind the tables on real faces: what each row is, and what it starts from.

Everything is learned on FER2013Train with FER+'s majority labels, without outside data. From random weights a
network of this size needs some 15 epochs; what goes on from another's trunk is compared with what went on from
it without the idea in question.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fer_lab.experiments.training import Source, Training

FROM_RESNET = "from ResNet-18's trunk"
# Of triplet-center's rows, which go on from a trained trunk.
FEW_EPOCHS = {"epochs": "4", "lr": "0.02"}
# A batch of 16 quadruplets is 64 faces; an eighth of an epoch of quadruplets sees half of all faces.
QUADRUPLETS = {"batch_size": "16", "epoch_fraction": "0.125"}
ADAMW = {"optimizer": "adamw", "lr": "5e-4", "weight_decay": "0.02"}
# What a small network that has not learned enough is spared.
MILD = {
    "augmentation.erasing_p": "0",
    "augmentation.rotation": "8",
    "augmentation.brightness": "0.1",
    "augmentation.contrast": "0.1",
}
PLAIN = {"element_attention": "False", "loss_weight": "0.01"}


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        method: as `create_model` takes it.
        variant: its name in the table.
        trunk: name of the row whose run of the same seed it takes its trunk from, or of weights that ship.
        weights: name of the row whose run of the same seed it goes on from as a whole.
        changes, options: of recipe and model, as text.
        seeds: how many.
    """

    method: str
    variant: str
    trunk: str = ""
    weights: str = ""
    changes: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)
    seeds: int = 3


def _triplet_center() -> Iterator[tuple[str, Row]]:
    """The metric losses, all from one trunk."""
    losses = {
        "CE": {"metric_loss": "none"},
        "center loss": {"metric_loss": "center", **PLAIN},
        "He et al.": {"negatives": "hardest", "hinge": "vector", **PLAIN},
        "predicted": {"negatives": "predicted", **PLAIN},
        "semi": {"negatives": "semi", **PLAIN},
        "fully": {"negatives": "fully", **PLAIN},
    }
    for name, options in losses.items():
        told = {"trunk": "ferplus/baseline", "changes": FEW_EPOCHS, "options": options}
        yield name, Row("triplet_center", f"{name}, {FROM_RESNET}", **told)


# name of the runs → the row
ROWS = {
    "resnet": Row("baseline", "from scratch"),
    "resnet-longer": Row("baseline", FROM_RESNET, trunk="resnet"),
    "dan": Row("dan", FROM_RESNET, trunk="resnet"),
    "dan-scratch": Row("dan", "from scratch", seeds=1),
    "dan-scratch-20": Row("dan", "from scratch, 20 epochs", changes={"epochs": "20"}, seeds=1),
    **dict(_triplet_center()),
    "poster": Row("poster", "from scratch"),
    "poster-longer": Row(
        "poster", "from scratch, 15 + 6 epochs", weights="poster", changes={"epochs": "6", "lr": "5e-4"}
    ),
    "poster-joint": Row(
        "poster",
        "from scratch, both streams learned",
        changes={"epochs": "12", "batch_size": "64", **MILD},
        options={"landmark_stream": "joint"},
    ),
    "qcs-short": Row(
        "qcs",
        "from POSTER's trunk",
        trunk="poster",
        changes={"epochs": "4", "batch_size": "32", "epoch_fraction": "0.25", **ADAMW},
        seeds=1,
    ),
    "qcs": Row(
        "qcs",
        "from POSTER's trunk, 3 epochs",
        trunk="poster-longer",
        changes={"epochs": "24", **QUADRUPLETS, **ADAMW},
    ),
}


def ferplus_trainings(root: str | Path | None, folder: Path) -> dict[str, Training]:
    """All trainings of `ROWS`, as `commands.record_missing` takes them.

    Args:
        root: of the FER+ data set.
        folder: that of the runs.
    """
    source = Source(dataset="ferplus", root=Path(root) if root else None)
    trainings = {}
    for name, row in ROWS.items():
        for seed in range(row.seeds):
            trunk = Path(row.trunk) if "/" in row.trunk else folder / f"{row.trunk}-{seed}"
            trainings[f"{name}-{seed}"] = Training(
                model=row.method,
                source=source,
                seed=seed,
                changes=row.changes,
                options=row.options,
                weights=folder / f"{row.weights}-{seed}" / "weights.safetensors" if row.weights else None,
                trunk=trunk if row.trunk else None,
                variant=row.variant,
            )
    return trainings
