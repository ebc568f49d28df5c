"""fit(): train a method by a recipe, safely.

The last epoch's weights are kept (their running average where the recipe has one): no score chooses an epoch.
A checkpoint is written after every epoch. Every random draw is a function of (seed, epoch, step), so that a
training that was killed and resumed ends in the same bits, on CPU in fp32.

Several processes that `python -m torch.distributed.run` started train together: each calls `fit` with the same
arguments and takes its part of every batch, and the first one writes. In fp32 they give the weights of one
process with the same batch, up to rounding, to what a method draws itself (dropout, stochastic depth), and to
mixed faces.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from tqdm.auto import tqdm

from fer_lab._device import compiled, resolve_precision, tensor_float_32
from fer_lab._progress import note
from fer_lab._progress import progress as progress_bar
from fer_lab.data.faces import FaceSet
from fer_lab.models.inference import count_right
from fer_lab.models.layers import evaluating
from fer_lab.models.method import Method
from fer_lab.models.recipes import Recipe
from fer_lab.parallel import batchnorm_together
from fer_lab.runs import Run
from fer_lab.training.memory import attempt, too_large
from fer_lab.training.state import TrainingState, check_classes, make_fabric
from fer_lab.training.steps import mixed, read_losses

OnEpoch = Callable[[Method, int], None] | None


def fit(
    model: Method,
    train: FaceSet,
    valid: FaceSet | None,
    recipe: Recipe,
    run_dir: str | Path | Run,
    *,
    resume: bool = True,
    device: str = "auto",
    origin: Mapping[str, Any] | None = None,
    config: dict | None = None,
    on_epoch: OnEpoch = None,
    progress: bool | None = None,
) -> Run:
    """Train a model in place and write everything down in a run's folder.

    Args:
        valid: faces whose accuracy is added to the history after every epoch; they choose nothing.
            For an honest number, hold them out of the training faces.
        run_dir: the run's folder, created if absent; or a run, whose lock may be held already.
        resume: continue from the folder's checkpoint if it has one; False starts from the beginning.
        device: "auto", "cpu", "cuda", "mps" or an accelerator name that Fabric knows; each of several processes
            takes a device of its own.
        origin: where the model's first weights come from, as plain data; a run that started elsewhere is
            another training. Without it a run is continued from its checkpoint whatever the model began with.
        config: more facts to keep in the run's config (command, variant, …).
        on_epoch: called with the model, in eval mode and with the weights that would be kept now, and the
            number of epochs done; its random draws do not disturb the training.
        progress: show a bar; None shows one at a terminal and in a live notebook.

    Returns:
        The finished run: config, history (one row an epoch: epoch, seconds, lr, every loss term, valid
        accuracy), checkpoint, weights.

    Raises:
        ValueError: faces and model disagree on the classes, the folder holds another training, or BatchNorm
            meets a batch of one.
        TrainingDivergedError: a loss term or a weight stopped being finite.
        BatchTooLargeError: a batch does not fit into memory.
        CheckpointError: the folder's checkpoint is damaged, or holds something else.
    """
    check_classes(model, train, valid)
    model.classes = tuple(train.classes)
    if train.is_grey():
        # The weights never see a colour, so they must not be shown one later.
        model.color_order = "GREY"
    run = run_dir if isinstance(run_dir, Run) else Run(run_dir)
    fabric = make_fabric(device, recipe.precision)
    is_main = fabric.is_global_zero
    with (
        run.lock() if is_main else nullcontext(),
        tensor_float_32(fabric.device, recipe.precision != "fp32"),
        compiled(model, "training_losses", recipe.compile),
    ):
        state = TrainingState(fabric, model, train, recipe, origin)
        # Only the first process needs to see the folder.
        checkpoint = fabric.broadcast(run.load_checkpoint() if is_main and resume else None)
        if checkpoint is not None:
            state.restore(checkpoint, run)
        elif is_main:
            # The weights of a training that is not continued would make this one look finished before it is.
            run.clear()
        writes = is_main and (checkpoint is None or not run.is_finished)
        if writes:
            precision = resolve_precision(recipe.precision, fabric.device)
            hardware = {"precision": precision, "device": str(fabric.device), "devices": fabric.world_size}
            run.save_config({**state.identity, **hardware, **(config or {})})
        with batchnorm_together(model):
            _train(state, run, valid, on_epoch, progress if is_main else False)
        state.finish()
        if writes:
            run.save_weights(model)
        fabric.barrier()
    return run


def _train(
    state: TrainingState, run: Run, valid: FaceSet | None, on_epoch: OnEpoch, progress: bool | None
) -> None:
    """Every epoch that is still to do: train, evaluate, write the checkpoint."""
    fabric, recipe, loader = state.fabric, state.recipe, state.loader
    total, done = recipe.epochs * len(loader), state.epoch * len(loader)
    with progress_bar(description=state.model.name, shown=progress, total=total, initial=done) as bar:
        for epoch in range(state.epoch, recipe.epochs):
            # One seed per epoch and process, so that a resumed training draws the same dropout masks.
            torch.manual_seed(epoch_seed(recipe.seed, epoch, fabric.global_rank))
            start = time.perf_counter()
            row = _train_epoch(state, bar)
            if valid is not None:
                # Every process evaluates its share of the faces, so that each face counts once.
                share = valid.subset(range(fabric.global_rank, len(valid), fabric.world_size))
                right = count_right(state.kept, share, device=fabric.device)
                row["valid_accuracy"] = state.reduce(right, "sum") / len(valid)
            seconds = round(time.perf_counter() - start, 3)
            state.history.append({"epoch": epoch + 1, "seconds": seconds, **row})
            state.check_finite()
            if fabric.is_global_zero:
                run.save_history(pd.DataFrame(state.history))
                run.save_checkpoint(state.checkpoint())
            scores = {key: f"{value:.3f}" for key, value in row.items() if key.endswith("accuracy")}
            bar.set_postfix(scores)
            if progress is None:
                shown = "".join(f", {key.replace('_', ' ')} {value}" for key, value in scores.items())
                took = f"{seconds:.0f} s, loss {row['total']:.3f}{shown}"
                note(bar, f"{state.model.name}: epoch {epoch + 1} of {recipe.epochs}, {took}")
            if on_epoch is not None:
                with evaluating(state.kept):
                    on_epoch(state.kept, epoch + 1)


def epoch_seed(seed: int, epoch: int, rank: int) -> int:
    """Seed of what a method draws itself in one epoch and process; torch reads 32 bits of it."""
    return (seed * 1_000_003 + epoch + rank * 2_654_435_761) % 2**32


def _train_epoch(state: TrainingState, bar: tqdm) -> dict[str, float]:
    """One pass over the training faces → the learning rate at its end and the mean loss terms."""
    fabric, recipe, loader = state.fabric, state.recipe, state.loader
    state.wrapped.train()
    loader.set_epoch(state.epoch)
    last = (state.epoch + 1) * len(loader)
    means: dict[str, float] = {}
    unread = []
    for step, batch in enumerate(loader, last - len(loader) + 1):
        losses = attempt(state, mixed(batch, recipe, state.model.num_classes))
        if losses is None:
            raise too_large(state)
        rate = state.optimizer.param_groups[0]["lr"]
        unread.append((rate, losses))
        # A GPU must wait while its numbers are read, so they stay there until the epoch ends.
        if fabric.device.type == "cpu" or step == last:
            for name, total in read_losses(unread, step).items():
                means[name] = means.get(name, 0.0) + total / len(loader)
            unread = []
        if recipe.schedule == "one_cycle":
            state.schedule.step()
        if state.average is not None:
            state.average.update(state.model, step=step)
        bar.update()
    if recipe.schedule != "one_cycle":
        state.schedule.step()
    if fabric.world_size > 1:
        means = {name: state.reduce(torch.tensor(mean), "mean") for name, mean in means.items()}
    return {"lr": rate, **means}
