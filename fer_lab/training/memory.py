"""A step that does not fit into memory, and a batch size that does."""

import copy

import torch

from fer_lab.bench import random_batch
from fer_lab.data.faces import FaceBatch
from fer_lab.parallel import alone
from fer_lab.training.state import TrainingState
from fer_lab.training.steps import base_optimizer, make_optimizer, take_step


class BatchTooLargeError(ValueError):
    """A step that does not fit into memory; the message has the batch size and one that fits."""


def is_out_of_memory(error: RuntimeError) -> bool:
    """True if torch ran out of memory, on any device."""
    message = str(error).lower()
    lacking = "out of memory" in message or "can't allocate memory" in message
    return isinstance(error, torch.OutOfMemoryError) or lacking


def attempt(state: TrainingState, batch: FaceBatch) -> dict[str, torch.Tensor] | None:
    """Take a step → its loss terms, or None where the memory ran out."""
    try:
        return take_step(state.fabric, state.wrapped, state.optimizer, batch, state.recipe)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
    # Not inside `except`: the tensors of the failed step are freed only when its error is.
    return None


def too_large(state: TrainingState) -> BatchTooLargeError:
    """The error for a batch that does not fit: its size, and a size that fits, found by halving.

    The training is over: the optimiser's state is dropped, to make room.
    """
    model, loader, device = state.model, state.loader, state.fabric.device
    model.zero_grad(set_to_none=True)
    for optimizer in (state.optimizer, base_optimizer(state.optimizer)):
        optimizer.state.clear()
    # A copy of the model has no hooks on its gradients: the hooks would wait for the other processes.
    trial = copy.copy(state)
    trial.wrapped = copy.deepcopy(model)
    trial.optimizer = make_optimizer(trial.wrapped, state.recipe)
    fits, share = 0, loader.batch_size // loader.world_size
    # The other processes may have room enough, and take no part in the trials.
    with alone():
        while share >= 4 and not fits:  # BatchNorm needs two examples
            share //= 2
            if attempt(trial, random_batch(model, share, device)) is not None:
                fits = share * loader.world_size
    examples = {"single": "faces", "pair": "pairs", "quadruplet": "quadruplets"}[model.batch_kind]
    advice = f"{fits} do: set batch_size={fits}" if fits else "nor does a smaller one: take a smaller model"
    return BatchTooLargeError(
        f"a batch of {loader.batch_size} {examples} does not fit into the memory of {device}; {advice}"
    )
