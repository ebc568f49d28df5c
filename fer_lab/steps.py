"""One step of training: forward, backward, the optimiser; plain or sharpness-aware, and whether it fits."""

import copy
from contextlib import contextmanager

import torch
from torch import nn

from fer_lab.data.batches import KINDS, Loader
from fer_lab.data.faces import FaceBatch
from fer_lab.models.method import Method
from fer_lab.models.processes import alone, batchnorm_together
from fer_lab.models.recipes import Recipe


class BatchTooLargeError(ValueError):
    """A step that does not fit into memory; the message has the batch size and one that fits."""


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
        total = recipe.epochs * steps_per_epoch + 1
        # Where the way up would end with the first step, torch divides by its length of zero.
        nothing_up = abs(recipe.warmup * total - 1) < 1e-9
        return schedulers.OneCycleLR(
            optimizer,
            max_lr=[group["lr"] for group in optimizer.param_groups],
            total_steps=total,
            pct_start=0.0 if nothing_up else float(recipe.warmup),
            cycle_momentum=False,
        )
    if recipe.schedule == "step":
        return schedulers.StepLR(optimizer, recipe.step_epochs, recipe.gamma)
    return schedulers.ExponentialLR(optimizer, recipe.gamma if recipe.schedule == "exponential" else 1.0)


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
