"""TODO."""

import logging
import os
from contextlib import contextmanager

import torch

from fer_lab._device import best_device, resolve_precision
from fer_lab.data.faces import FaceSet
from fer_lab.models.method import Method
from fer_lab.models.recipes import Recipe
from fer_lab.models.weights import CheckpointError
from fer_lab.runs import Run


def _average(model: Method, recipe: Recipe):
    if not recipe.ema_decay:
        return None
    from timm.utils import ModelEmaV3

    # Warm-up: the average follows closely at first, or it would remember the random start for long.
    return ModelEmaV3(model, decay=recipe.ema_decay, use_warmup=True)


def _fabric(device: str, precision: str):
    try:
        from lightning_fabric import Fabric
    except ImportError:
        from lightning.fabric import Fabric

    logging.getLogger(Fabric.__module__.split(".")[0]).setLevel(logging.WARNING)
    device = best_device() if device == "auto" else device
    plugin = {"fp32": "32-true", "bf16": "bf16-mixed"}[resolve_precision(precision, device)]
    processes = {"devices": 1}
    if torch.distributed.is_torchelastic_launched():
        here, all_of_them = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
        processes = {"devices": here, "num_nodes": all_of_them // here, "strategy": "ddp"}
    fabric = Fabric(accelerator=device, precision=plugin, **processes)
    fabric.launch()
    return fabric


def _check_classes(model: Method, train: FaceSet, valid: FaceSet | None) -> None:
    for faces in (train, valid):
        if faces is not None and faces.num_classes != model.num_classes:
            raise ValueError(
                f"{faces.name} has {faces.num_classes} classes ({', '.join(faces.classes)}), "
                f"the model {model.num_classes}; create it with num_classes={faces.num_classes}"
            )
    model.classes = tuple(train.classes)


@contextmanager
def _fitting(run: Run):
    """Say so where a checkpoint is whole and yet holds something else than a training's state."""
    try:
        yield
    # Dictionaries, torch's modules and its optimisers each raise errors of their own.
    except Exception as error:
        reason = str(error).split("\n")[0]
        raise CheckpointError(
            f"{run.folder / 'checkpoint.pt'} does not fit this training ({type(error).__name__}: {reason}); "
            "delete it to train from the start"
        ) from error


def _check_same(wanted: dict, found: dict, run: Run) -> None:
    """A checkpoint goes on only as the training that it is."""
    for key, value in wanted.items():
        if found.get(key) != value:
            raise ValueError(
                f"{run.folder} holds a training with another {key} ({found.get(key)!r}, now {value!r}); "
                "choose another folder, or start anew with resume=False"
            )
