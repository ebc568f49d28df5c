"""fit(): train a method by a recipe, safely.

The last epoch's weights are kept (their running average where the recipe asks for one): no epoch is chosen
on any score. A checkpoint is written after every epoch; since every draw is a function of (seed, epoch,
step), a training that was killed goes on from it in the same bits, on CPU in fp32.

Several processes that `python -m torch.distributed.run` started train together: each calls `fit` with the same
arguments, takes its part of every batch, and the first one writes. In fp32 they give the weights of one process
with the same batch, but for rounding and for what a method draws itself (dropout, stochastic depth).
"""

import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pandas as pd
import torch

from fer_lab._device import compiled, resolve_precision, tensor_float_32
from fer_lab._progress import progress as progress_bar
from fer_lab.data.faces import FaceSet
from fer_lab.data.loader import Loader
from fer_lab.models.inference import count_right
from fer_lab.models.method import Method
from fer_lab.models.recipes import Recipe
from fer_lab.models.weights import model_card
from fer_lab.runs import Run
from fer_lab.training.memory import attempt, too_large
from fer_lab.training.state import _average, _check_classes, _check_same, _fabric, _fitting
from fer_lab.training.steps import StepPlain, StepSAM, make_optimizer, make_schedule


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
        device: "auto", "cpu", "cuda", "mps" or an accelerator name that Fabric knows; of several processes
            each takes its own.
        config: more facts to keep in the run's config (command, variant, …).
        on_epoch: called with the model, in eval mode and with the weights that would be kept now, and the
            number of epochs done; its draws do not disturb the training.
        progress: show a bar; None shows one where somebody can see it.

    Returns:
        The finished run: config, history (one row an epoch: epoch, seconds, lr, every loss term,
        train accuracy on the augmented faces, valid accuracy), checkpoint, weights.

    Raises:
        ValueError: faces and model disagree on the classes, the folder holds another training, or BatchNorm
            meets a batch of one.
        TrainingDivergedError: a loss term stopped being finite.
        BatchTooLargeError: a batch does not fit into memory.
        CheckpointError: the folder's checkpoint is damaged, or holds something else.
    """
    _check_classes(model, train, valid)
    run = Run(run_dir)
    fabric = _fabric(device, recipe.precision)
    with (
        run.lock() if fabric.is_global_zero else nullcontext(),
        tensor_float_32(fabric.device, recipe.precision != "fp32"),
        compiled(model, "training_losses", recipe.compile),
    ):
        return _fit(fabric, model, train, valid, recipe, run, resume, config or {}, on_epoch, progress)


def _fit(fabric, model, train, valid, recipe, run, resume, config, on_epoch, progress) -> Run:
    first = fabric.is_global_zero
    identity = {
        **{key: model_card(model)[key] for key in ("method", "num_classes", "size", "options")},
        "recipe": recipe.to_dict(),
        "dataset": train.name,
        "fingerprint": train.fingerprint,
    }
    checkpoint = None
    if first:
        if not resume:
            run.clear()
        checkpoint = run.load_checkpoint()
        if checkpoint is not None:
            with _fitting(run):
                found = dict(checkpoint["identity"])
            _check_same(identity, found, run)
        told = {"precision": resolve_precision(recipe.precision, fabric.device), "device": str(fabric.device)}
        run.save_config({**identity, **told, "devices": fabric.world_size, **config})
    # Only the first process need see the folder.
    checkpoint = fabric.broadcast(checkpoint)

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
        rank=fabric.global_rank,
        world_size=fabric.world_size,
    )
    if fabric.world_size > 1 and loader.examples < loader.batch_size:
        raise ValueError(
            f"{loader.examples} faces an epoch are less than a batch of {loader.batch_size}, which several "
            "processes share evenly; take a smaller batch"
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
        with _fitting(run):
            model.load_state_dict(checkpoint["model"])
            inner.load_state_dict(checkpoint["optimizer"])
            optimizer.param_groups = inner.param_groups
            schedule.load_state_dict(checkpoint["schedule"])
            if average is not None:
                average.module.load_state_dict(checkpoint["average"])
            history, start = [dict(row) for row in checkpoint["history"]], checkpoint["epoch"]
            if len(history) != start:
                raise ValueError(f"epoch {start}, but {len(history)} rows of history")

    wrapped = fabric.setup_module(model, move_to_device=False)
    wrapped.mark_forward_method("training_losses")
    steps = {"total": recipe.epochs * len(loader), "initial": start * len(loader)}
    bar = progress_bar(description=model.name, shown=progress if first else False, **steps)
    # Every process judges its share of the faces, none of them twice.
    share = None if valid is None else valid.subset(range(fabric.global_rank, len(valid), fabric.world_size))
    with bar:
        for epoch in range(start, recipe.epochs):
            # Dropout of a face must not hang on which process it is in more than it has to.
            torch.manual_seed((recipe.seed * 1_000_003 + epoch) + fabric.global_rank * 2**32)
            began = time.perf_counter()
            loader.set_epoch(epoch)
            row = _epoch(fabric, wrapped, loader, step, schedule, average, recipe, epoch, bar)
            kept = average.module if average is not None else model
            if valid is not None:
                right = count_right(kept, share, device=fabric.device)
                row["valid_accuracy"] = int(fabric.all_reduce(right, reduce_op="sum")) / len(valid)
            row = {"epoch": epoch + 1, "seconds": round(time.perf_counter() - began, 3), **row}
            history.append(row)
            if first:
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
    if first:
        run.save_weights(model)
    fabric.barrier()
    return run


def _epoch(fabric, model, loader, step, schedule, average, recipe, epoch, bar) -> dict:
    """One pass over the faces → mean loss terms and learning rate for the history."""
    model.train()
    # Reading a loss makes a GPU wait for it, so there they stay until the epoch is over.
    every = 1 if fabric.device.type == "cpu" else len(loader)
    pending: list[tuple[float, dict[str, torch.Tensor]]] = []
    means: dict[str, float] = {}
    first = epoch * len(loader)
    for i, batch in enumerate(loader):
        try:
            terms = attempt(fabric, model, step, batch, recipe)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise ValueError(
                f"BatchNorm has nothing to compare in a batch of {len(batch)}; set batch_size to 2 or more, "
                "and have as many faces"
            ) from error
        if terms is None:
            raise too_large(fabric, model.module, step, loader, recipe)
        rate = schedule.optimizer.param_groups[0]["lr"]
        pending.append((rate, {name: value.detach() for name, value in terms.items()}))
        if len(pending) == every or i + 1 == len(loader):
            for name, value in _read(pending, first + i + 1).items():
                means[name] = means.get(name, 0.0) + value / len(loader)
            pending = []
        if recipe.schedule == "one_cycle":
            schedule.step()
        if average is not None:
            average.update(model.module, step=first + i + 1)
        bar.update()
    if recipe.schedule != "one_cycle":
        schedule.step()
    if fabric.world_size > 1:
        means = {name: float(fabric.all_reduce(torch.tensor(value))) for name, value in means.items()}
    return {"lr": rate, **means}


def _read(pending: list[tuple[float, dict[str, torch.Tensor]]], last: int) -> dict[str, float]:
    """Sums of the loss terms of some steps, of which the last is number `last` (from 1), in one transfer.

    Raises:
        TrainingDivergedError: one of them is not finite.
    """
    names = list(pending[0][1])
    table = torch.stack([torch.stack([losses[name].float() for name in names]) for _, losses in pending]).cpu()
    for row, column in (~table.isfinite()).nonzero().tolist():
        raise TrainingDivergedError(
            f"step {last - len(pending) + 1 + row}: {names[column]} is {float(table[row, column])} at learning "
            f"rate {pending[row][0]:.2g}; lower the learning rate, set clip_norm, or look at the faces of that "
            "batch"
        )
    return dict(zip(names, table.double().sum(0).tolist(), strict=True))
