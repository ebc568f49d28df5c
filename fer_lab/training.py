"""fit(): train a method by a recipe, safely.

The last epoch's weights are kept (their running average where the recipe asks for one): no epoch is chosen
on any score. A checkpoint is written after every epoch; since every draw is a function of (seed, epoch,
step), a training that was killed goes on from it in the same bits, on CPU in fp32.
"""

import logging
import math
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import torch
from torch import nn

from fer_lab.data.batches import Loader
from fer_lab.data.faces import FaceBatch, FaceSet
from fer_lab.data.progress import progress as progress_bar
from fer_lab.models.method import Method
from fer_lab.models.recipes import Recipe
from fer_lab.runs import Run, model_card

# Reading a loss makes a GPU wait; there, this many steps are looked at together.
CHECK_EVERY_ON_GPU = 50


class TrainingDivergedError(ValueError):
    """A loss term that is not finite; the message has step, term and learning rate."""


def fit(
    model: Method,
    train: FaceSet,
    valid: FaceSet | None,
    recipe: Recipe,
    run_dir: str | Path,
    *,
    resume: bool = True,
    device: str = "auto",
    config: dict | None = None,
    on_epoch: Callable[[Method, int], None] | None = None,
    progress: bool | None = None,
) -> Run:
    """Train a model in place and write everything down in a run's folder.

    Args:
        model: the method; its weights are moved.
        train: faces to learn from.
        valid: faces whose accuracy is put into the history after every epoch; they choose nothing.
            For an honest number these are a hold-out of the training faces.
        recipe: how.
        run_dir: the run's folder; made if absent.
        resume: go on from the folder's checkpoint if it has one; False starts anew.
        device: "auto", "cpu", "cuda", "mps" or an accelerator name that Fabric knows.
        config: more facts to keep in the run's config (command, variant, …).
        on_epoch: called with the model, in eval mode and with the weights that would be kept now, and the
            number of epochs done; its draws do not disturb the training.
        progress: show a bar; None shows one where somebody can see it.

    Returns:
        The finished run: config, history (one row an epoch: epoch, seconds, lr, every loss term,
        train accuracy on the augmented faces, valid accuracy), checkpoint, weights.

    Raises:
        ValueError: faces and model disagree on the classes, or the folder holds another training.
        TrainingDivergedError: a loss term stopped being finite.
    """
    _check_classes(model, train, valid)
    run = Run(run_dir)
    with run.lock():
        return _fit(model, train, valid, recipe, run, resume, device, config or {}, on_epoch, progress)


def _fit(model, train, valid, recipe, run, resume, device, config, on_epoch, progress) -> Run:
    fabric = _fabric(device, recipe.precision)
    identity = {
        **{key: model_card(model)[key] for key in ("method", "num_classes", "size", "options")},
        "recipe": recipe.to_dict(),
        "dataset": train.name,
        "fingerprint": train.fingerprint,
    }
    if not resume:
        run.clear()
    checkpoint = run.load_checkpoint()
    if checkpoint is not None:
        _check_same(identity, checkpoint["identity"], run)
    precision = resolve_precision(recipe.precision, fabric.device)
    run.save_config({**identity, "precision": precision, "device": str(fabric.device), **config})

    model.to(fabric.device, memory_format=torch.channels_last)
    loader = Loader(
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
    )
    optimizer = make_optimizer(model, recipe)
    # SAM keeps momentum, and the learning rate that a schedule moves, in the optimiser inside it.
    inner = optimizer.base_optimizer if recipe.sam_rho else optimizer
    schedule = make_schedule(inner, recipe, steps_per_epoch=len(loader))
    average = _average(model, recipe)
    step = StepSAM(optimizer) if recipe.sam_rho else StepPlain(optimizer)
    history: list[dict] = []
    start = 0
    if checkpoint is not None:
        model.load_state_dict(checkpoint["model"])
        inner.load_state_dict(checkpoint["optimizer"])
        optimizer.param_groups = inner.param_groups
        schedule.load_state_dict(checkpoint["schedule"])
        if average is not None:
            average.module.load_state_dict(checkpoint["average"])
        history, start = checkpoint["history"], checkpoint["epoch"]

    wrapped = fabric.setup_module(model, move_to_device=False)
    wrapped.mark_forward_method("training_losses")
    steps = {"total": recipe.epochs * len(loader), "initial": start * len(loader)}
    bar = progress_bar(description=model.name, shown=progress, **steps)
    with bar:
        for epoch in range(start, recipe.epochs):
            torch.manual_seed(recipe.seed * 1_000_003 + epoch)
            began = time.perf_counter()
            loader.set_epoch(epoch)
            row = _epoch(fabric, wrapped, loader, step, schedule, average, recipe, epoch, bar)
            kept = average.module if average is not None else model
            if valid is not None:
                row["valid_accuracy"] = accuracy(kept, valid, device=fabric.device)
            row = {"epoch": epoch + 1, "seconds": round(time.perf_counter() - began, 3), **row}
            history.append(row)
            run.save_history(pd.DataFrame(history))
            run.save_checkpoint(
                {
                    "identity": identity,
                    "epoch": epoch + 1,
                    "model": model.state_dict(),
                    "optimizer": inner.state_dict(),
                    "schedule": schedule.state_dict(),
                    "average": None if average is None else average.module.state_dict(),
                    "history": history,
                }
            )
            bar.set_postfix({k: f"{v:.3f}" for k, v in row.items() if k.endswith("accuracy")})
            if on_epoch is not None:
                was_training = kept.training
                on_epoch(kept.eval(), epoch + 1)
                kept.train(was_training)
    if average is not None:
        model.load_state_dict(average.module.state_dict())
    model.to("cpu", memory_format=torch.contiguous_format).eval()
    run.save_weights(model)
    return run


def _epoch(fabric, model, loader, step, schedule, average, recipe, epoch, bar) -> dict:
    """One pass over the faces → mean loss terms, learning rate and accuracy for the history."""
    model.train()
    sums: dict[str, torch.Tensor] = {}
    pending: list[dict[str, torch.Tensor]] = []
    every = 1 if fabric.device.type == "cpu" else CHECK_EVERY_ON_GPU
    first = epoch * len(loader)
    for i, batch in enumerate(loader):
        terms = step(fabric, model, batch, recipe)
        rate = schedule.optimizer.param_groups[0]["lr"]
        pending.append({name: value.detach() for name, value in terms.items()})
        if len(pending) == every or i + 1 == len(loader):
            _check_finite(pending, first + i + 1, rate)
            for losses in pending:
                for name, value in losses.items():
                    sums[name] = sums.get(name, 0.0) + value.double()
            pending = []
        if recipe.schedule == "one_cycle":
            schedule.step()
        if average is not None:
            average.update(model.module, step=first + i + 1)
        bar.update()
    if recipe.schedule != "one_cycle":
        schedule.step()
    return {"lr": rate, **{name: float(value) / len(loader) for name, value in sums.items()}}


def _check_finite(pending: list[dict[str, torch.Tensor]], last: int, rate: float) -> None:
    """Raise on the first term of the last few steps that is not finite, naming the step (from 1)."""
    for back, losses in zip(range(len(pending) - 1, -1, -1), pending, strict=True):
        for name, value in losses.items():
            if not math.isfinite(float(value)):
                raise TrainingDivergedError(
                    f"step {last - back}: {name} is {float(value)} at learning rate {rate:.2g}; "
                    "lower the learning rate, set clip_norm, or look at the faces of that batch"
                )


class StepPlain:
    """One optimiser step on one batch."""

    def __init__(self, optimizer: torch.optim.Optimizer):
        self.optimizer = optimizer

    def __call__(self, fabric, model, batch: FaceBatch, recipe: Recipe) -> dict[str, torch.Tensor]:
        losses = _losses(fabric, model, batch)
        self.optimizer.zero_grad(set_to_none=True)
        _backward(fabric, model, losses["total"], recipe)
        self.optimizer.step()
        return losses


class StepSAM:
    """Sharpness-aware minimisation (Foret et al., arXiv 2010.01412): climb by ρ, take the gradient there.

    BatchNorm's running statistics are updated in the first pass alone: the second sees moved weights that
    are about to be undone.
    """

    def __init__(self, optimizer: torch.optim.Optimizer):
        self.optimizer = optimizer

    def __call__(self, fabric, model, batch: FaceBatch, recipe: Recipe) -> dict[str, torch.Tensor]:
        losses = _losses(fabric, model, batch)
        self.optimizer.zero_grad(set_to_none=True)
        _backward(fabric, model, losses["total"], recipe, clip=False)
        self.optimizer.first_step(zero_grad=True)
        with batchnorm_statistics_off(model):
            _backward(fabric, model, _losses(fabric, model, batch)["total"], recipe)
        self.optimizer.second_step(zero_grad=False)
        return losses


def _losses(fabric, model, batch: FaceBatch) -> dict[str, torch.Tensor]:
    # On one device Fabric hands a marked method through without its precision.
    with fabric.autocast():
        return model.training_losses(batch)


def _backward(fabric, model, loss: torch.Tensor, recipe: Recipe, clip: bool = True) -> None:
    fabric.backward(loss)
    if clip and recipe.clip_norm:
        nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)


@contextmanager
def batchnorm_statistics_off(model: nn.Module):
    """Leave every BatchNorm's running statistics as they are while the block runs."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [m.momentum for m in norms]
    try:
        for m in norms:
            m.momentum = 0.0
        yield
    finally:
        for m, momentum in zip(norms, momenta, strict=True):
            m.momentum = momentum


def make_optimizer(model: Method, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser over the model's parameter groups, inside SAM where `sam_rho` is above 0."""
    groups = model.parameter_groups(recipe)
    kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimizer]
    settings = {"lr": recipe.lr, "weight_decay": recipe.weight_decay}
    if recipe.optimizer == "sgd":
        settings["momentum"] = recipe.momentum
    if recipe.sam_rho:
        from pytorch_optimizer import SAM

        return SAM(groups, kind, rho=recipe.sam_rho, **settings)
    return kind(groups, **settings)


def make_schedule(
    optimizer: torch.optim.Optimizer, recipe: Recipe, steps_per_epoch: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """The recipe's schedule: "one_cycle" steps after every batch, the others after every epoch."""
    schedulers = torch.optim.lr_scheduler
    if recipe.schedule == "one_cycle":
        return schedulers.OneCycleLR(
            optimizer,
            max_lr=[group["lr"] for group in optimizer.param_groups],
            total_steps=recipe.epochs * steps_per_epoch + 1,
            pct_start=recipe.warmup,
            cycle_momentum=False,
        )
    if recipe.schedule == "step":
        return schedulers.StepLR(optimizer, recipe.step_epochs, recipe.gamma)
    return schedulers.ExponentialLR(optimizer, recipe.gamma if recipe.schedule == "exponential" else 1.0)


def _average(model: Method, recipe: Recipe):
    if not recipe.ema_decay:
        return None
    from timm.utils import ModelEmaV3

    # Warm-up: the average follows closely at first, or it would remember the random start for long.
    return ModelEmaV3(model, decay=recipe.ema_decay, use_warmup=True)


def in_order(model: Method, faces: FaceSet, *, device: torch.device | str, batch_size: int) -> Loader:
    """Every face once, in order and unchanged, in the size and colour order that the model takes."""
    return Loader(
        faces,
        batch_size=batch_size,
        size=model.image_size,
        sampler="sequential",
        device=device,
        color_order=model.color_order,
    )


def accuracy(model: Method, faces: FaceSet, *, device: torch.device | str, batch_size: int = 256) -> float:
    """Share of faces whose largest logit is their label, 0…1; the model's mode is put back."""
    loader = in_order(model, faces, device=device, batch_size=batch_size)
    was_training = model.training
    model.eval()
    with torch.no_grad():
        right = sum(int((model(batch.images).argmax(1) == batch.labels).sum()) for batch in loader)
    model.train(was_training)
    return right / len(faces)


def resolve_precision(precision: str, device: torch.device | str = "cpu") -> str:
    """ "auto" → "bf16" where the processor multiplies bf16 natively, else "fp32"; others unchanged.

    Native means AMX or AVX-512 BF16 on a CPU, compute capability 8 or more on an NVIDIA GPU.
    """
    if precision != "auto":
        return precision
    if torch.device(device).type == "cuda":
        return "bf16" if torch.cuda.get_device_capability()[0] >= 8 else "fp32"
    native = torch.device(device).type == "cpu" and (
        torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    )
    return "bf16" if native else "fp32"


def _fabric(device: str, precision: str):
    try:
        from lightning_fabric import Fabric
    except ImportError:
        from lightning.fabric import Fabric

    logging.getLogger(Fabric.__module__.split(".")[0]).setLevel(logging.WARNING)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    plugin = {"fp32": "32-true", "bf16": "bf16-mixed"}[resolve_precision(precision, device)]
    return Fabric(accelerator=device, devices=1, precision=plugin)


def _check_classes(model: Method, train: FaceSet, valid: FaceSet | None) -> None:
    for faces in (train, valid):
        if faces is not None and faces.num_classes != model.num_classes:
            raise ValueError(
                f"{faces.name} has {faces.num_classes} classes ({', '.join(faces.classes)}), "
                f"the model {model.num_classes}; create it with num_classes={faces.num_classes}"
            )
    model.classes = tuple(train.classes)


def _check_same(wanted: dict, found: dict, run: Run) -> None:
    """A checkpoint goes on only as the training that it is."""
    for key, value in wanted.items():
        if found.get(key) != value:
            raise ValueError(
                f"{run.folder} holds a training with another {key} ({found.get(key)!r}, now {value!r}); "
                "choose another folder, or start anew with resume=False"
            )
