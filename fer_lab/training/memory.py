"""TODO."""

import copy

import torch

from fer_lab.data.faces import FaceBatch
from fer_lab.data.loader import KINDS, Loader
from fer_lab.models.method import Method
from fer_lab.models.recipes import Recipe
from fer_lab.parallel.collectives import alone, batchnorm_together
from fer_lab.training.steps import make_optimizer


class BatchTooLargeError(ValueError):
    """A step that does not fit into memory; the message has the batch size and one that fits."""


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch ran out of memory, on whatever device."""
    said = str(error).lower()
    return (
        isinstance(error, torch.OutOfMemoryError) or "out of memory" in said or "can't allocate memory" in said
    )


def attempt(fabric, model, step, batch: FaceBatch, recipe: Recipe) -> dict[str, torch.Tensor] | None:
    """A step's loss terms; None where the memory ran out."""
    try:
        with batchnorm_together(model):
            return step(fabric, model, batch, recipe)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
    # Here and not above: what the failed step had made is free only when its error is.
    return None


def too_large(fabric, model: Method, step, loader: Loader, recipe: Recipe) -> BatchTooLargeError:
    """The error for a batch that does not fit: its size, and one that does, found by halving it.

    The training is over: what the optimiser kept is dropped, to make room.
    """
    model.zero_grad(set_to_none=True)
    for optimizer in (step.optimizer, getattr(step.optimizer, "base_optimizer", step.optimizer)):
        optimizer.state.clear()
    # A copy, whose gradients call nobody: those of a model in several processes would wait for the others.
    trial = copy.deepcopy(model)
    take = type(step)(make_optimizer(trial, recipe))
    shares, share = [], loader.batch_size // loader.world_size
    while share >= 4:  # BatchNorm needs two of something
        share //= 2
        shares.append(share)
    # The other processes may be well, and wait elsewhere.
    with alone():
        trials = ((n, attempt(fabric, trial, take, _blank(model, n, fabric.device), recipe)) for n in shares)
        fits = next((n * loader.world_size for n, terms in trials if terms is not None), 0)
    what = {"single": "faces", "pair": "pairs", "quadruplet": "quadruplets"}[model.batch_kind]
    advice = f"{fits} do: set batch_size={fits}" if fits else "nor does a smaller one: take a smaller model"
    return BatchTooLargeError(
        f"a batch of {loader.batch_size} {what} does not fit into the memory of {fabric.device}; {advice}"
    )


def _blank(model: Method, n: int, device: torch.device) -> FaceBatch:
    """Grey examples, as much work as any."""
    shape = (n,) if model.batch_kind == "single" else (n, KINDS[model.batch_kind])
    labels = torch.zeros(shape, dtype=torch.long, device=device)
    images = torch.zeros(*shape, 3, model.image_size, model.image_size, device=device)
    return FaceBatch(images, labels, labels)
