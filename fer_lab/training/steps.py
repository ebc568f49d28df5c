"""One step of training: forward, backward, the optimiser; plain or sharpness-aware, and whether it fits."""

from contextlib import contextmanager

import torch
from torch import nn

from fer_lab.data.faces import FaceBatch
from fer_lab.models.method import Method
from fer_lab.models.recipes import Recipe


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
