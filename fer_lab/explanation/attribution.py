"""Four ways to a map over the face: the model's own attention, and three attributions by captum.

An attention map is what a layer multiplied with. It is not by itself an explanation of the answer (Jain &
Wallace, arXiv 1902.10186). An attribution shows what the answer depends on: for GradCAM a layer's features, for
integrated gradients the pixels, for occlusion patches of the picture. Whether a map is right is a third
question: see scores.py.

Every function runs in eval mode, switches gradients on if it needs them, and leaves the model as it was, also
after an exception. Everywhere `images` are float [B,3,S,S], as the model takes them, and `target` is the class
to explain: an index, or one a face int64 [B]; None is each face's predicted class.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from fer_lab.explanation.maps import GRID, scaled_to_mass, to_grid
from fer_lab.models.layers import evaluating
from fer_lab.models.method import Method

WAYS = ("native", "grad_cam", "integrated_gradients", "occlusion")
# Faces that captum runs at once.
CHUNK = 128


@contextmanager
def _explaining(
    model: nn.Module, images: torch.Tensor, target: int | torch.Tensor | None
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Eval mode with gradients; yields images that require one, and the classes to explain, int64 [B]."""
    # Tensors made under inference_mode can never require a gradient.
    with evaluating(model), torch.inference_mode(False), torch.enable_grad():
        images = images.detach().clone().requires_grad_()
        yield images, classes_to_explain(model, images, target)


def classes_to_explain(
    model: nn.Module, images: torch.Tensor, target: int | torch.Tensor | None = None
) -> torch.Tensor:
    """The class to explain for each face, int64 [B].

    Raises ValueError for a target that is not a class, or not one for each face; so do all functions below.
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


def explain(
    model: Method,
    images: torch.Tensor,
    way: str,
    *,
    target: int | torch.Tensor | None = None,
    grid: int = GRID,
    **options: Any,
) -> torch.Tensor:
    """One map a face, by any of `WAYS`, on a common grid so that no way wins by finer pixels.

    "native" is the first entry of the model's own maps. If it has several maps (heads), each is cut at zero and
    scaled to the same sum, and their mean is returned. The other ways are the functions of that name below.
    Returns float32 [B,1,grid,grid] in the way's own units; values above 0 speak for the class. GradCAM and
    attention maps have no values below 0. All zeros for a face where the way finds nothing. Raises ValueError
    for an unknown way, or as the function behind the way does.

    Example:
        `explain(model, prepare(faces.images, model.image_size, model.color_order), "grad_cam")`

    Args:
        target: an attention map belongs to no class and is the same for every target.
        grid: side of the map, in cells; finer maps are averaged over a cell.
        options: of the function behind the way.
    """
    if way == "native":
        maps = next(iter(native_maps(model, images, target, **options).values()))
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


def native_maps(
    model: Method, images: torch.Tensor, target: int | torch.Tensor | None = None
) -> dict[str, torch.Tensor]:
    """The model's own maps over the face, without gradients: name → float32 [B,K,h,w], not normalised.

    The target is for a model whose map belongs to a class (`class_maps`), such as the baseline's class
    activation map. Attention belongs to no class, so other models ignore it. Raises ValueError for a model
    without maps, or with maps of another shape.
    """
    with evaluating(model), torch.no_grad():
        of_class = target is not None and getattr(model, "class_maps", False)
        options = {"target": classes_to_explain(model, images, target)} if of_class else {}
        maps = model.attention_maps(images, **options)
    if not maps:
        raise ValueError(f"{type(model).__name__} has no attention maps of its own; use grad_cam")
    for name, one in maps.items():
        if one.ndim != 4 or len(one) != len(images):
            raise ValueError(f"expected map {name!r} as [{len(images)},K,h,w], got {list(one.shape)}")
    return {name: one.float() for name, one in maps.items()}


def grad_cam(
    model: Method, images: torch.Tensor, target: int | torch.Tensor | None = None, *, allow_zero: bool = False
) -> torch.Tensor:
    """GradCAM (Selvaraju et al., arXiv 1610.02391), through captum: ReLU(Σ_d mean(∂logit/∂F_d) · F_d).

    The maps are float32 [B,1,h,w]. F is the output [B,D,h,w] of the last module to finish that gives one,
    within the model's `trunk` if it has one, else within the model. Raises ValueError if no module gives one
    that influences the logits, and for faces whose map is zero everywhere, unless `allow_zero`.
    """
    from captum.attr import LayerGradCam

    with _explaining(model, images, target) as (images, chosen):
        maps = LayerGradCam(model, _last_grid(model, images)).attribute(
            images, target=chosen, relu_attributions=True
        )
    maps = maps.detach().float()
    empty = (maps.flatten(1) <= 0).all(1).nonzero().squeeze(1).tolist()
    if empty and not allow_zero:
        raise ValueError(
            f"GradCAM is zero everywhere for face {', '.join(map(str, empty))}: nothing in this layer speaks "
            "for the class; choose another target, or train the model first"
        )
    return maps


def _last_grid(model: nn.Module, images: torch.Tensor) -> nn.Module:
    """The module whose output GradCAM weighs, as `grad_cam` says."""
    trunk = getattr(model, "trunk", None)
    root = trunk if isinstance(trunk, nn.Module) else model
    outputs: dict[nn.Module, list[Any]] = {}  # in the order in which the modules (last) finish

    def keep(module: nn.Module, _inputs: Any, output: Any) -> None:
        outputs[module] = [*outputs.pop(module, []), output]

    with ExitStack() as hooks:
        for module in root.modules():
            hooks.enter_context(module.register_forward_hook(keep))
        logits = model(images)
    for module in reversed(outputs):
        if _can_weigh(outputs[module], logits):
            return module
    raise ValueError(f"{type(root).__name__} gave no grid [B,D,h,w] that influences the logits")


def _can_weigh(outputs: list[Any], logits: torch.Tensor) -> bool:
    """Whether a module gave, in one pass, one grid [B,D,h,w] of several places that influences the logits."""
    if len(outputs) != 1 or not isinstance(outputs[0], torch.Tensor) or not logits.requires_grad:
        return False
    grid = outputs[0]
    if grid.ndim != 4 or len(grid) != len(logits) or grid[0, 0].numel() < 2 or not grid.requires_grad:
        return False
    return torch.autograd.grad(logits.sum(), grid, retain_graph=True, allow_unused=True)[0] is not None


def integrated_gradients(
    model: Method,
    images: torch.Tensor,
    target: int | torch.Tensor | None = None,
    *,
    baseline: torch.Tensor | float = 0.0,
    steps: int = 16,
) -> torch.Tensor:
    """Integrated gradients (Sundararajan et al., arXiv 1703.01365), through captum, summed over colours.

    (x − x₀) · ∫₀¹ ∂logit/∂x (x₀ + α(x − x₀)) dα, by Gauss-Legendre quadrature: float32 [B,1,S,S], in logits a
    pixel, of both signs. The map adds up to logit(x) − logit(x₀), up to the error of the quadrature. Raises
    ValueError for fewer than one step.

    Args:
        baseline: x₀, a picture without evidence, [B,3,S,S], or one number; 0 is the mean colour.
        steps: nodes of the quadrature; each costs a pass forward and backward.
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

    A pixel's value is the mean fall over the windows that cover it, float32 [B,1,S,S], in logits, below 0 where
    covering helps. Raises ValueError for a window beyond the picture, or a stride that leaves gaps.

    Args:
        baseline: what covers the face, [B,3,S,S], or one number; 0 is the mean colour.
        window: its side in pixels; None is two cells of the 7×7 grid.
        stride: pixels from one window to the next; None is half a window.
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
