"""TrainingState: everything that a training changes, and the checkpoint that keeps it."""

import logging
import os
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, cast

import torch

from fer_lab._device import best_device, resolve_precision
from fer_lab.data.faces import FaceSet
from fer_lab.data.loader import Loader
from fer_lab.models.method import Method
from fer_lab.models.recipes import Recipe
from fer_lab.models.weights import CheckpointError, model_card
from fer_lab.runs import Run
from fer_lab.runs.environment import environment
from fer_lab.training.steps import TrainingDivergedError, base_optimizer, make_optimizer, make_schedule

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class TrainingState:
    """Everything that a training changes, built for a model, faces and a recipe.

    The model moves to Fabric's device. Several processes and fewer faces than a batch raise ValueError.

    Attributes:
        identity: model, recipe, faces and origin as plain data; a checkpoint belongs to the training with
            the same.
        wrapped: the method as Fabric runs it; gradients are averaged over the processes.
        optimizer: the recipe's optimiser, inside SAM where the recipe has it.
        average: running average of the weights; None where the recipe has none.
        history: a row for each epoch done.
    """

    def __init__(
        self,
        fabric: "Fabric",
        model: Method,
        train: FaceSet,
        recipe: Recipe,
        origin: Mapping[str, Any] | None = None,
    ):
        self.fabric = fabric
        self.recipe = recipe
        self.identity = {
            **{key: model_card(model)[key] for key in ("method", "num_classes", "size", "options")},
            "recipe": recipe.to_dict(),
            "dataset": train.name,
            "fingerprint": train.fingerprint,
            "origin": dict(origin or {}),
        }
        self.model = model.to(fabric.device).to(memory_format=torch.channels_last)
        self.loader = Loader(
            train,
            batch_size=recipe.batch_size,
            size=model.image_size,
            kind=model.batch_kind,
            sampler=recipe.sampler,
            negatives=recipe.negatives,
            augmentation=recipe.augmentation,
            seed=recipe.seed,
            device=fabric.device,
            color_order=model.color_order,
            soft_targets=recipe.soft_targets and train.votes is not None,
            label_smoothing=recipe.label_smoothing,
            drop_last=True,
            epoch_fraction=recipe.epoch_fraction,
            moved=recipe.map_weight > 0,
            rank=fabric.global_rank,
            world_size=fabric.world_size,
        )
        if fabric.world_size > 1 and self.loader.examples < recipe.batch_size:
            raise ValueError(
                f"{self.loader.examples} faces an epoch are less than a batch of {recipe.batch_size}, which "
                "several processes share evenly; take a smaller batch"
            )
        self.optimizer = make_optimizer(model, recipe)
        self.schedule = make_schedule(base_optimizer(self.optimizer), recipe, steps_per_epoch=len(self.loader))
        self.average = None
        if recipe.ema_decay:
            from timm.utils import ModelEmaV3

            # Warm-up: at first the average follows closely, or the random start would stay in it for long.
            self.average = ModelEmaV3(model, decay=recipe.ema_decay, use_warmup=True)
        self.history: list[dict[str, Any]] = []
        wrapped = fabric.setup_module(model, move_to_device=False)
        wrapped.mark_forward_method("training_losses")
        wrapped.mark_forward_method("attention_maps")
        # Fabric's wrapper answers as the method does.
        self.wrapped = cast(Method, wrapped)

    @property
    def epoch(self) -> int:
        """The number of epochs done."""
        return len(self.history)

    @property
    def kept(self) -> Method:
        """The model with the weights that are evaluated and kept: the average, where there is one."""
        return self.model if self.average is None else cast(Method, self.average.module)

    def reduce(self, number: torch.Tensor, operation: Literal["sum", "mean"]) -> float:
        """The sum or mean of a number over the processes."""
        return float(cast(torch.Tensor, self.fabric.all_reduce(number, reduce_op=operation)))

    def checkpoint(self) -> dict[str, Any]:
        """The state as plain data and tensors, for `Run.save_checkpoint`."""
        return {
            "identity": self.identity,
            "epoch": self.epoch,
            "model": self.model.state_dict(),
            "optimizer": base_optimizer(self.optimizer).state_dict(),
            "schedule": self.schedule.state_dict(),
            "average": None if self.average is None else self.average.module.state_dict(),
            "history": self.history,
        }

    def restore(self, checkpoint: dict[str, Any], run: Run) -> None:
        """Continue from what `checkpoint` gave and the run's folder kept.

        One of another training raises ValueError, one that lacks what this one needs CheckpointError.
        """
        base = base_optimizer(self.optimizer)
        try:
            # Checkpoints of before do not say where the training started.
            stored = {"origin": self.identity["origin"], **checkpoint["identity"]}
            changed = [key for key, value in self.identity.items() if stored.get(key) != value]
            if not changed:
                self.model.load_state_dict(checkpoint["model"])
                base.load_state_dict(checkpoint["optimizer"])
                self.optimizer.param_groups = base.param_groups
                self.schedule.load_state_dict(checkpoint["schedule"])
                if self.average is not None:
                    self.average.module.load_state_dict(checkpoint["average"])
                self.history = [dict(row) for row in checkpoint["history"]]
                if self.epoch != checkpoint["epoch"]:
                    raise ValueError(f"epoch {checkpoint['epoch']}, but {self.epoch} rows of history")
        # Dictionaries, torch's modules and its optimisers each raise errors of their own.
        except Exception as error:
            reason = f"{type(error).__name__}: {error}".split("\n")[0]
            raise CheckpointError(
                f"{run.folder / 'checkpoint.pt'} does not fit this training ({reason}); delete it to train "
                "from the start"
            ) from error
        for key in changed:
            raise ValueError(
                f"{run.folder} holds a training with another {key} "
                f"({_difference(stored.get(key), self.identity[key])}); choose another folder, or train from "
                "the start (--fresh, in Python resume=False)"
            )
        before, now = run.environment, environment()
        other = [key for key in ("torch", "cpu", "threads") if before.get(key) != now[key]]
        if other and self.epoch < self.recipe.epochs:
            changes = "; ".join(f"{key} {before.get(key)}, now {now[key]}" for key in other)
            warnings.warn(
                f"{run.folder} was begun with {changes}: the weights will be close to those of a whole "
                "training, but not bit for bit the same",
                stacklevel=2,
            )

    def check_finite(self) -> None:
        """TrainingDivergedError where an epoch's last step ruined the weights, which no loss has seen yet."""
        for name, tensor in [*self.model.state_dict().items(), *self.kept.state_dict().items()]:
            if not tensor.isfinite().all():
                raise TrainingDivergedError(
                    f"epoch {self.epoch}: {name} is not finite; lower the learning rate, or set clip_norm"
                )

    def finish(self) -> None:
        """Give the model the weights that are kept, in eval mode on the CPU."""
        if self.average is not None:
            self.model.load_state_dict(self.average.module.state_dict())
        self.model.to("cpu").to(memory_format=torch.contiguous_format).eval()


def _difference(before: object, now: object) -> str:
    """What differs between two values, such as "epochs: 2, now 1"; field by field where both have fields."""
    if not (isinstance(before, Mapping) and isinstance(now, Mapping)):
        return f"{before!r}, now {now!r}"
    changed = (name for name in {**before, **now} if before.get(name) != now.get(name))
    return ", ".join(f"{name}: {_difference(before.get(name), now.get(name))}" for name in changed)


def check_classes(model: Method, *sets: FaceSet | None) -> None:
    """Raise ValueError where a set of faces has another number of classes than the model, or other names."""
    for faces in sets:
        if faces is not None and faces.num_classes != model.num_classes:
            raise ValueError(
                f"{faces.name} has {faces.num_classes} classes ({', '.join(faces.classes)}), "
                f"the model {model.num_classes}; create it with num_classes={faces.num_classes}"
            )
    # Of two sets, the model takes the names of the first.
    orders = {tuple(faces.classes): faces.name for faces in sets if faces is not None}
    if len(orders) > 1:
        names = "; ".join(f"{name} has {', '.join(classes)}" for classes, name in orders.items())
        raise ValueError(f"the sets of faces name or order their classes differently: {names}; make them equal")


def make_fabric(device: str, precision: str) -> "Fabric":
    """Fabric on a device ("auto" is the best one), with the other processes where torchrun started this one."""
    try:
        from lightning_fabric import Fabric
        from lightning_fabric.plugins import MixedPrecision
    except ImportError:  # the same classes, as the package `lightning` has them
        from lightning.fabric import Fabric  # type: ignore[no-redef]
        from lightning.fabric.plugins import MixedPrecision  # type: ignore[no-redef]

    class Autocast(MixedPrecision):
        """Without rounding the batch: soft targets stay in float32, on several devices as on one."""

        def convert_input(self, data: Any) -> Any:
            return data

    logging.getLogger(Fabric.__module__.split(".")[0]).setLevel(logging.WARNING)
    device = best_device() if device == "auto" else device
    settings: dict[str, Any] = {"devices": 1}
    if torch.distributed.is_torchelastic_launched():
        here, everywhere = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
        settings = {"devices": here, "num_nodes": everywhere // here, "strategy": "ddp"}
    if resolve_precision(precision, device) == "bf16":
        settings["plugins"] = Autocast("bf16-mixed", "cpu" if device == "cpu" else "cuda")
    fabric = Fabric(accelerator=device, **settings)
    fabric.launch()
    return fabric
