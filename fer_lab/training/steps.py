"""One step of training: forward, backward, and the optimiser, plain or sharpness-aware; and its losses."""

import dataclasses
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from torch import nn

from fer_lab.data.faces import FaceBatch
from fer_lab.models.layers import once
from fer_lab.models.method import Method, map_loss
from fer_lab.models.recipes import Recipe

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from pytorch_optimizer import SAM


class TrainingDivergedError(ValueError):
    """A loss term that is not finite; the message has step, term and learning rate."""


def take_step(
    fabric: "Fabric", model: Method, optimizer: torch.optim.Optimizer, batch: FaceBatch, recipe: Recipe
) -> dict[str, torch.Tensor]:
    """One optimiser step on one batch → its loss terms before the step, without their gradients.

    Where the recipe has a `sam_rho`, sharpness-aware minimisation (Foret et al., arXiv 2010.01412): climb by ρ
    along the gradient, and step from the first weights by the gradient found up there.
    """
    sam = cast("SAM", optimizer) if recipe.sam_rho else None
    losses = _losses(fabric, model, batch, recipe.map_weight)
    optimizer.zero_grad(set_to_none=True)
    fabric.backward(losses["total"])
    if sam is not None:
        from pytorch_optimizer import disable_running_stats, enable_running_stats

        sam.first_step(zero_grad=True)
        # The second pass sees moved weights that are about to be undone.
        disable_running_stats(model)
        try:
            fabric.backward(_losses(fabric, model, batch, recipe.map_weight)["total"])
        finally:
            enable_running_stats(model)
    if recipe.clip_norm:
        nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
    if sam is not None:
        sam.second_step(zero_grad=False)
    else:
        optimizer.step()
    return {name: loss.detach() for name, loss in losses.items()}


def mixed(batch: FaceBatch, recipe: Recipe, num_classes: int) -> FaceBatch:
    """The batch with each face mixed into the one before it, where the recipe has `mixup` or `cutmix`.

    Cross-entropy learns from the mixed targets [B,C]. A loss that needs one class for a face, such as DAN's
    affinity loss, gets the label with the larger share. Drawn from torch's global generator, which `fit` seeds
    for every epoch and process; of several processes each mixes its own part of the batch. Raises ValueError
    for pairs or quadruplets, whose faces must keep their class.
    """
    if not (recipe.mixup or recipe.cutmix):
        return batch
    from torchvision.transforms import v2

    if batch.labels.ndim != 1:
        raise ValueError("mixup and cutmix need single faces; those of a pair or a quadruplet keep their class")
    kinds = {v2.MixUp: recipe.mixup, v2.CutMix: recipe.cutmix}
    ways = [kind(alpha=alpha) for kind, alpha in kinds.items() if alpha]
    way = ways[int(torch.randint(len(ways), ()))]
    # Row i has the shares of all faces of the batch in face i.
    images, shares = way(batch.images, torch.eye(len(batch), device=batch.images.device))
    targets = F.one_hot(batch.labels, num_classes) if batch.targets is None else batch.targets
    labels = batch.labels[shares.argmax(1)]
    return dataclasses.replace(batch, images=images, labels=labels, targets=shares @ targets.float())


def _losses(fabric: "Fabric", model: Method, batch: FaceBatch, map_weight: float) -> dict[str, torch.Tensor]:
    """The method's losses and, with a weight, that of its maps over the faces of the batch."""
    trunk = getattr(model, "trunk", None) if map_weight else None
    try:
        # On one device Fabric runs a marked method without its precision. Losses and maps share a trunk's pass.
        with fabric.autocast(), nullcontext() if trunk is None else once(trunk):
            losses = model.training_losses(batch)
            if map_weight and batch.moved is not None:
                images, moved = batch.images.flatten(0, -4), batch.moved.flatten(0, -4)
                of_class = {"target": batch.labels.flatten()} if model.class_maps else {}
                first = next(iter(model.attention_maps(images, **of_class).values()))
                losses["map"] = map_loss(first, moved)
                losses["total"] = losses["total"] + map_weight * losses["map"]
            return losses
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise ValueError(
            f"BatchNorm has nothing to compare in a batch of {len(batch)}; set batch_size to 2 or more, "
            "and have as many faces"
        ) from error


def make_optimizer(model: Method, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser over the model's parameter groups, inside SAM where `sam_rho` is above 0."""
    groups = model.parameter_groups(recipe)
    kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimizer]
    settings: dict[str, Any] = {"lr": recipe.lr, "weight_decay": recipe.weight_decay}
    if recipe.optimizer == "sgd":
        settings["momentum"] = recipe.momentum
    if recipe.sam_rho:
        from pytorch_optimizer import SAM

        return SAM(groups, kind, rho=recipe.sam_rho, **settings)
    return kind(groups, **settings)


def base_optimizer(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimiser inside SAM, which has the momentum and the learning rate; another optimiser is its own."""
    return getattr(optimizer, "base_optimizer", optimizer)


def make_schedule(
    optimizer: torch.optim.Optimizer, recipe: Recipe, steps_per_epoch: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """The recipe's schedule: "one_cycle" steps after every batch, the others after every epoch."""
    schedulers = torch.optim.lr_scheduler
    if recipe.schedule == "one_cycle":
        total = recipe.epochs * steps_per_epoch + 1
        # torch divides by the length of the way up minus one step, which may be zero.
        up = 0.0 if abs(recipe.warmup * total - 1) < 1e-9 else float(recipe.warmup)
        rates = [group["lr"] for group in optimizer.param_groups]
        return schedulers.OneCycleLR(optimizer, rates, total_steps=total, pct_start=up, cycle_momentum=False)
    if recipe.schedule == "step":
        return schedulers.StepLR(optimizer, recipe.step_epochs, recipe.gamma)
    return schedulers.ExponentialLR(optimizer, recipe.gamma if recipe.schedule == "exponential" else 1.0)


def read_losses(steps: list[tuple[float, dict[str, torch.Tensor]]], last: int) -> dict[str, float]:
    """Sums of the loss terms of some steps, transferred from the device at once.

    `steps`: (learning rate, loss terms) of consecutive steps, of which the training's `last`-th, from 1, is the
    last. A term that is not finite raises TrainingDivergedError.
    """
    names = list(steps[0][1])
    table = torch.stack([torch.stack([losses[name].float() for name in names]) for _, losses in steps]).cpu()
    for row, column in (~table.isfinite()).nonzero().tolist():
        raise TrainingDivergedError(
            f"step {last - len(steps) + 1 + row}: {names[column]} is {float(table[row, column])} at learning "
            f"rate {steps[row][0]:.2g}; lower the learning rate, set clip_norm, or look at the faces of that "
            "batch"
        )
    return dict(zip(names, table.double().sum(0).tolist(), strict=True))
