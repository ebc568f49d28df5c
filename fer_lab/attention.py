"""Where a model looks: its native maps, captum's GradCAM, and how much of a map lies where.

An attention map is what a layer multiplied with. It is not by itself an explanation of the answer (Jain &
Wallace, arXiv 1902.10186); GradCAM and the shares of mass here are ways to check one.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import nn

from fer_lab.models.method import Method


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode inside; every module gets its own mode back, also after an exception."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def native_maps(model: Method, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """The model's own attention over the face, in eval mode and without gradients.

    Args:
        images: float [B,3,S,S], as the model takes them.

    Returns:
        Name → float32 [B,K,h,w], not normalised.

    Raises:
        ValueError: a model without maps, or with maps of another shape.
    """
    with _evaluating(model), torch.no_grad():
        maps = model.attention_maps(images)
    if not maps:
        raise ValueError(f"{type(model).__name__} has no attention maps of its own; use grad_cam")
    for name, one in maps.items():
        if one.ndim != 4 or len(one) != len(images):
            raise ValueError(f"expected map {name!r} as [{len(images)},K,h,w], got {list(one.shape)}")
    return {name: one.float() for name, one in maps.items()}


def upsample(maps: torch.Tensor, size: int, mode: str = "bilinear") -> torch.Tensor:
    """Maps [B,K,h,w] → [B,K,size,size], interpolated between the centres of the grid's cells.

    Args:
        mode: "bilinear" stays within the maps' values; "bicubic" looks smoother and may leave them a little.

    Raises:
        ValueError: another number of dimensions.
    """
    _check(maps)
    return F.interpolate(maps.float(), size=(size, size), mode=mode, align_corners=False)


def normalize_for_display(maps: torch.Tensor) -> torch.Tensor:
    """Stretch every map [B,K,h,w] to 0…1 on its own; a constant map becomes zeros.

    For pictures only: what one map has more of than another is lost.

    Raises:
        ValueError: another number of dimensions, or values that are not finite.
    """
    _check(maps)
    maps = maps.detach().float()
    if not maps.isfinite().all():
        raise ValueError("maps hold values that are not finite; there is nothing to show")
    low, high = maps.amin((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)
    return torch.where(high > low, (maps - low) / (high - low), 0.0)


def _check(maps: torch.Tensor) -> None:
    if maps.ndim != 4:
        raise ValueError(f"expected maps [B,K,h,w], got {list(maps.shape)}")


def grad_cam(
    model: Method,
    images: torch.Tensor,
    target: int | torch.Tensor | None = None,
    layer: nn.Module | None = None,
) -> torch.Tensor:
    """GradCAM (Selvaraju et al., arXiv 1610.02391), through captum: ReLU(Σ_d mean(∂logit/∂F_d) · F_d).

    Args:
        images: float [B,3,S,S].
        target: class index, or one a face int64 [B]; None is each face's predicted class.
        layer: a module whose output is a grid [B,D,h,w]; None is `model.trunk`.

    Returns:
        float32 [B,1,h,w], ≥ 0.

    Raises:
        ValueError: a model without a trunk, a target that is no class, or faces whose map is zero everywhere.
    """
    from captum.attr import LayerGradCam

    layer = getattr(model, "trunk", None) if layer is None else layer
    if not isinstance(layer, nn.Module):
        raise ValueError(f"{type(model).__name__} has no trunk; say which layer's output to weigh")
    # Tensors made under inference_mode can never take a gradient.
    with _evaluating(model), torch.inference_mode(False), torch.enable_grad():
        images = images.detach().clone()
        with torch.no_grad():
            logits = model(images)
        chosen = logits.argmax(1) if target is None else torch.as_tensor(target, device=logits.device)
        chosen = chosen.expand(len(images)) if chosen.ndim == 0 else chosen
        if chosen.shape != (len(images),) or not ((chosen >= 0) & (chosen < logits.shape[1])).all():
            raise ValueError(
                f"target must be a class 0…{logits.shape[1] - 1}, or one for each of the {len(images)} faces"
            )
        maps = LayerGradCam(model, layer).attribute(images, target=chosen, relu_attributions=True)
    maps = maps.detach().float()
    if empty := (maps.flatten(1) <= 0).all(1).nonzero().squeeze(1).tolist():
        raise ValueError(
            f"GradCAM is zero everywhere for face {', '.join(map(str, empty))}: nothing in this layer speaks "
            "for the class; choose another target or layer, or train the model first"
        )
    return maps


def mass_in_regions(maps: torch.Tensor, masks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Share of each map's mass in each region, beside the share that an even map would have.

    Args:
        maps: [B,K,h,w], not negative; brought to the masks' size.
        masks: bool [B,R,S,S]; regions may overlap.

    Returns:
        share [B,K,R], 0…1 (NaN for a map of zeros), and chance [B,R], the regions' share of the area.

    Raises:
        ValueError: shapes that do not fit, masks that are not bool, or negative mass.
    """
    _check(maps)
    if masks.ndim != 4 or masks.dtype != torch.bool or len(masks) != len(maps):
        raise ValueError(f"expected bool masks [{len(maps)},R,S,S], got {masks.dtype} {list(masks.shape)}")
    if (maps < 0).any():
        raise ValueError("maps have negative values, whose share means nothing; clamp them first")
    mass = upsample(maps, masks.shape[-1]).flatten(2).double()
    inside = masks.flatten(2).double()
    share = mass @ inside.transpose(1, 2) / mass.sum(2, keepdim=True)
    return share.float(), inside.mean(2).float()
