"""Where a model looks: its native maps, captum's attributions, and how much of a map lies where.

An attention map is what a layer multiplied with. It is not by itself an explanation of the answer (Jain &
Wallace, arXiv 1902.10186). An attribution asks the answer: GradCAM how it hangs on a layer's features,
integrated gradients on the pixels, occlusion on patches of the picture. Whether a map is right is a third
question, for attribution_scores.py.

Everything runs in eval mode, with gradients where they are needed wherever it is called, and leaves the model
as it was, also after an exception.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from fer_lab.explanation.maps import (
    GRID,
    mass_in_regions,
    normalize_for_display,
    scaled_to_mass,
    to_grid,
    upsample,
)
from fer_lab.models.layers import evaluating
from fer_lab.models.method import Method

__all__ = [
    "GRID",
    "WAYS",
    "classes_to_explain",
    "evaluating",
    "explain",
    "grad_cam",
    "integrated_gradients",
    "mass_in_regions",
    "native_maps",
    "normalize_for_display",
    "occlusion",
    "upsample",
]

WAYS = ("native", "grad_cam", "integrated_gradients", "occlusion")
# Faces that captum runs at once.
CHUNK = 128


@contextmanager
def _explaining(
    model: nn.Module, images: torch.Tensor, target: int | torch.Tensor | None
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Eval mode with gradients; yields images that take one and the class to explain, int64 [B]."""
    # Tensors made under inference_mode can never take a gradient.
    with evaluating(model), torch.inference_mode(False), torch.enable_grad():
        images = images.detach().clone().requires_grad_()
        yield images, classes_to_explain(model, images, target)


def classes_to_explain(
    model: nn.Module, images: torch.Tensor, target: int | torch.Tensor | None = None
) -> torch.Tensor:
    """The class to explain of each face, int64 [B]: the predicted one, or as `target` says.

    Args:
        target: a class index for all, or one a face int64 [B]; None is each face's predicted class.

    Raises:
        ValueError: a target that is no class, or not one for each face.
    """
    classes = getattr(model, "num_classes", None)
    if target is None or classes is None:
        with evaluating(model), torch.no_grad():
            logits = model(images)
        if target is None:
            return logits.argmax(1)
        classes = logits.shape[1]
    chosen = torch.as_tensor(target, device=images.device)
    chosen = chosen.expand(len(images)) if chosen.ndim == 0 else chosen
    if chosen.shape != (len(images),) or not ((chosen >= 0) & (chosen < classes)).all():
        raise ValueError(f"target must be a class 0…{classes - 1}, or one for each of the {len(images)} faces")
    return chosen


# ---------------------------------------------------------------------------------------------------------
# Four ways to a map


def explain(
    model: Method,
    images: torch.Tensor,
    way: str,
    *,
    target: int | torch.Tensor | None = None,
    grid: int = GRID,
    **options,
) -> torch.Tensor:
    """One map a face, by any of `WAYS`, all on the same grid so that none wins by finer pixels.

    "native" is the first of the model's own maps; where it has several (heads), each is cut at zero and
    scaled to the same sum, and the maps are averaged. The others are the functions of that name below.

    Args:
        images: float [B,3,S,S], as the model takes them.
        target: class index, or one a face int64 [B]; None is each face's predicted class. Native maps take
            no notice of it.
        grid: side of the map, in cells; finer maps are averaged over a cell.
        options: of the function behind the way.

    Returns:
        float32 [B,1,grid,grid] in the way's own units, above 0 what speaks for the class; "native" (but for
        a class activation map) and "grad_cam" know nothing below 0. All zeros for a face where the way
        finds nothing.

    Raises:
        ValueError: an unknown way, and as the function behind the way.
    """
    if way == "native":
        maps = next(iter(native_maps(model, images, **options).values()))
        if maps.shape[1] > 1:
            maps = scaled_to_mass(maps.clamp(min=0)).mean(1, keepdim=True)
    elif way == "grad_cam":
        maps = grad_cam(model, images, target, allow_zero=True, **options)
    elif way == "integrated_gradients":
        maps = integrated_gradients(model, images, target, **options)
    elif way == "occlusion":
        maps = occlusion(model, images, target, **options)
    else:
        raise ValueError(f"unknown way {way!r}; there are {', '.join(WAYS)}")
    return to_grid(maps, grid)


def native_maps(model: Method, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """The model's own attention over the face, in eval mode and without gradients.

    Args:
        images: float [B,3,S,S], as the model takes them.

    Returns:
        Name → float32 [B,K,h,w], not normalised.

    Raises:
        ValueError: a model without maps, or with maps of another shape.
    """
    with evaluating(model), torch.no_grad():
        maps = model.attention_maps(images)
    if not maps:
        raise ValueError(f"{type(model).__name__} has no attention maps of its own; use grad_cam")
    for name, one in maps.items():
        if one.ndim != 4 or len(one) != len(images):
            raise ValueError(f"expected map {name!r} as [{len(images)},K,h,w], got {list(one.shape)}")
    return {name: one.float() for name, one in maps.items()}


def grad_cam(
    model: Method,
    images: torch.Tensor,
    target: int | torch.Tensor | None = None,
    layer: nn.Module | None = None,
    *,
    allow_zero: bool = False,
) -> torch.Tensor:
    """GradCAM (Selvaraju et al., arXiv 1610.02391), through captum: ReLU(Σ_d mean(∂logit/∂F_d) · F_d).

    Args:
        images: float [B,3,S,S].
        target: class index, or one a face int64 [B]; None is each face's predicted class.
        layer: a module of the model whose output is a grid [B,D,h,w]. None is the model's `last_features`
            if it names such a module, else its `trunk`; where that gives something else than a grid, or the
            model has neither, the last module inside that gave one.
        allow_zero: return maps of zeros, too, instead of raising.

    Returns:
        float32 [B,1,h,w], ≥ 0.

    Raises:
        ValueError: no such layer; one that did not run, ran more than once, gave no grid, or on which the
            logits do not hang; a target that is no class; faces whose map is zero everywhere.
    """
    from captum.attr import LayerGradCam

    with _explaining(model, images, target) as (images, chosen):
        layer = _grid_layer(model, images, layer)
        maps = LayerGradCam(model, layer).attribute(images, target=chosen, relu_attributions=True)
    maps = maps.detach().float()
    empty = (maps.flatten(1) <= 0).all(1).nonzero().squeeze(1).tolist()
    if empty and not allow_zero:
        raise ValueError(
            f"GradCAM is zero everywhere for face {', '.join(map(str, empty))}: nothing in this layer speaks "
            "for the class; choose another target or layer, or train the model first"
        )
    return maps


def _grid_layer(model: nn.Module, images: torch.Tensor, layer: nn.Module | None) -> nn.Module:
    """The module whose output GradCAM weighs: the one given, or the model's last grid, as `grad_cam` says."""
    names = {module: name or type(model).__name__ for name, module in model.named_modules()}
    if layer is not None and layer not in names:
        raise ValueError(f"the layer is no part of {type(model).__name__}; take one of model.named_modules()")
    root = layer
    for name in ("last_features", "trunk"):
        root = getattr(model, name, None) if root is None else root
    root = root if isinstance(root, nn.Module) else model

    runs: dict[nn.Module, list] = {}
    with _outputs(root, runs):
        logits = model(images)

    def fault(module: nn.Module) -> str:
        outputs = runs.get(module, [])
        if len(outputs) != 1:
            return f"ran {len(outputs)} times in one pass, expected once"
        grid = outputs[0]
        if not isinstance(grid, torch.Tensor) or grid.ndim != 4 or len(grid) != len(images):
            given = list(grid.shape) if isinstance(grid, torch.Tensor) else type(grid).__name__
            return f"gave {given}, expected a grid [{len(images)},D,h,w]"
        if grid[0, 0].numel() < 2:
            return f"gave {list(grid.shape)}, a single place"
        found = None
        if grid.requires_grad and logits.requires_grad:
            found = torch.autograd.grad(logits.sum(), grid, retain_graph=True, allow_unused=True)[0]
        return "has no part in the logits" if found is None else ""

    if layer is not None:
        if reason := fault(layer):
            raise ValueError(f"layer {names[layer]} {reason}; choose another one")
        return layer
    for module in reversed(runs):
        if not fault(module):
            return module
    raise ValueError(
        f"{names[root]} gave no grid [B,D,h,w] that the logits hang on; say which layer's output to weigh"
    )


@contextmanager
def _outputs(root: nn.Module, runs: dict[nn.Module, list]) -> Iterator[None]:
    """Collect what every module inside `root` gives, in the order in which they (last) finish."""

    def keep(module, _inputs, output):
        runs[module] = [*runs.pop(module, []), output]

    handles = [module.register_forward_hook(keep) for module in root.modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def integrated_gradients(
    model: Method,
    images: torch.Tensor,
    target: int | torch.Tensor | None = None,
    *,
    baseline: torch.Tensor | float = 0.0,
    steps: int = 16,
) -> torch.Tensor:
    """Integrated gradients (Sundararajan et al., arXiv 1703.01365), through captum, summed over colours.

    (x − x₀) · ∫₀¹ ∂logit/∂x (x₀ + α(x − x₀)) dα, by Gauss-Legendre quadrature. The map adds up to
    logit(x) − logit(x₀), but for the quadrature's error.

    Args:
        images: x, float [B,3,S,S].
        target: class index, or one a face int64 [B]; None is each face's predicted class.
        baseline: x₀, a picture without evidence, [B,3,S,S], or one number; 0 is the mean colour.
        steps: nodes of the quadrature, so many passes forward and backward.

    Returns:
        float32 [B,1,S,S], in logits a pixel, of both signs.

    Raises:
        ValueError: a target that is no class, fewer than one step.
    """
    from captum.attr import IntegratedGradients

    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    with _explaining(model, images, target) as (images, chosen):
        maps = IntegratedGradients(model).attribute(
            images, baseline, chosen, n_steps=steps, internal_batch_size=max(CHUNK, len(images))
        )
    return maps.detach().float().sum(1, keepdim=True)


def occlusion(
    model: Method,
    images: torch.Tensor,
    target: int | torch.Tensor | None = None,
    *,
    baseline: torch.Tensor | float = 0.0,
    window: int | None = None,
    stride: int | None = None,
) -> torch.Tensor:
    """How much the logit falls when a window is covered (Zeiler & Fergus, arXiv 1311.2901), through captum.

    A pixel's value is the mean fall over the windows that cover it.

    Args:
        images: float [B,3,S,S].
        target: class index, or one a face int64 [B]; None is each face's predicted class.
        baseline: what is seen instead, [B,3,S,S], or one number; 0 is the mean colour.
        window: its side in pixels; None is two cells of the 7×7 grid.
        stride: from one window to the next; None is half a window.

    Returns:
        float32 [B,1,S,S], in logits, below 0 where covering helps.

    Raises:
        ValueError: a target that is no class; a window beyond the picture, or a stride that leaves gaps.
    """
    from captum.attr import Occlusion

    side = images.shape[-1]
    window = max(1, round(2 * side / GRID)) if window is None else window
    stride = max(1, window // 2) if stride is None else stride
    if not 1 <= stride <= window <= side:
        raise ValueError(
            f"expected 1 ≤ stride ≤ window ≤ {side}, the picture's side, got stride {stride}, window {window}"
        )
    colors = images.shape[1]
    with _explaining(model, images, target) as (images, chosen), torch.no_grad():
        maps = Occlusion(model).attribute(
            images.detach(),
            (colors, window, window),
            (colors, stride, stride),
            baseline,
            chosen,
            perturbations_per_eval=max(1, CHUNK // max(1, len(images))),
        )
    # A window covers all colours, so every colour has the same value.
    return maps[:, :1].float()
