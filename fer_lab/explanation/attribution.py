"""Ways to a map over the face: the model's own attention, and three attributions by captum.

An attention map is what a layer multiplied with. It is not by itself an explanation of the answer (Jain &
Wallace, arXiv 1902.10186). An attribution shows what the answer depends on: for GradCAM a layer's features, for
integrated gradients the pixels, for occlusion patches of the picture. Whether a map is right: see scores.py.

Every function runs in eval mode, switches gradients on if it needs them, and leaves the model as it was, also
after an exception. Everywhere `images` are float [B,3,S,S], as the model takes them, and `target` is the class
to explain: an index, or one a face int64 [B]; None is each face's predicted class.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fer_lab.explanation.attention import ATTENTION_WAYS
from fer_lab.explanation.maps import GRID, scaled_to_mass, to_grid
from fer_lab.models.layers import evaluating
from fer_lab.models.method import Method

WAYS = ("native", "grad_cam", "integrated_gradients", "occlusion")
Target = int | Tensor | None
Pixels = int | None
# Faces that captum runs at once: on a processor 64 are no faster, and take twice the memory (POSTER and QCS).
CHUNK = 32


@contextmanager
def _explaining(model: Method, images: Tensor, target: Target) -> Iterator[tuple[Tensor, Tensor]]:
    """Eval mode with gradients; yields images that require one, and the classes to explain, int64 [B]."""
    # Tensors made under inference_mode can never require a gradient.
    with evaluating(model), torch.inference_mode(False), torch.enable_grad():
        images = images.detach().clone().requires_grad_()
        yield images, classes_to_explain(model, images, target)


def classes_to_explain(model: Method, images: Tensor, target: Target = None) -> Tensor:
    """The class to explain for each face, int64 [B].

    Raises ValueError for a target that is not a class, or not one for each face; so do all functions below.
    """
    if target is None:
        with evaluating(model), torch.no_grad():
            return model(images).argmax(1)
    chosen = torch.as_tensor(target, device=images.device)
    chosen = chosen.expand(len(images)) if chosen.ndim == 0 else chosen
    classes = model.num_classes
    if chosen.shape != (len(images),) or not ((chosen >= 0) & (chosen < classes)).all():
        raise ValueError(f"target must be a class 0…{classes - 1}, or one for each of the {len(images)} faces")
    return chosen


def ways_of(model: Method) -> tuple[str, ...]:
    """The ways that `explain` has for a model: `WAYS`, and behind them those of attention.py that apply."""
    if not model.attention_path:
        return WAYS
    return (*WAYS, *(way for way in ATTENTION_WAYS if way != "rollout" or len(model.attention_path) > 1))


def explain(
    model: Method, images: Tensor, way: str, *, target: Target = None, grid: int = GRID, **options: Any
) -> Tensor:
    """One map a face, by one of `ways_of(model)`, on a common grid so that no way wins by finer pixels.

    "native" is the first entry of the model's own maps. If a way gives several maps (heads), each is cut at
    zero and scaled to the same sum, and their mean is returned. The other ways are the functions of that name
    here and in attention.py. Returns float32 [B,1,grid,grid] in the way's own units; values above 0 speak for
    the class. GradCAM and attention maps have no values below 0, and an attention map is the same for every
    target. All zeros for a face where the way finds nothing. Options are those of the function behind the way.
    Raises ValueError for an unknown way, or as that function does.

    Example:
        `explain(model, prepare(faces.images, model.image_size, model.color_order), "grad_cam")`
    """
    functions: dict[str, Callable[..., Tensor]] = {
        "native": lambda *given: next(iter(native_maps(*given).values())),
        "grad_cam": partial(grad_cam, allow_zero=True),
        "integrated_gradients": integrated_gradients,
        "occlusion": occlusion,
        **ATTENTION_WAYS,
    }
    if way not in functions:
        raise ValueError(f"unknown way {way!r}; there are {', '.join(functions)}")
    maps = functions[way](model, images, target, **options)
    if maps.shape[1] > 1:
        maps = scaled_to_mass(maps.clamp(min=0)).mean(1, keepdim=True)
    return to_grid(maps, grid)


def native_maps(model: Method, images: Tensor, target: Target = None) -> dict[str, Tensor]:
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


def grad_cam(model: Method, images: Tensor, target: Target = None, *, allow_zero: bool = False) -> Tensor:
    """GradCAM (Selvaraju et al., arXiv 1610.02391), through captum: ReLU(Σ_d mean(∂logit/∂F_d) · F_d).

    The maps are float32 [B,1,h,w]. F is the output [B,D,h,w] of the last module to finish that gives one,
    within the model's `trunk` if it has one, else within the model. Raises ValueError if no module gives one
    that influences the logits, and for faces whose map is zero everywhere, unless `allow_zero`.
    """
    from captum.attr import LayerGradCam

    with _explaining(model, images, target) as (images, chosen):
        maps = LayerGradCam(model, _last_grid(model, images)).attribute(images, chosen, relu_attributions=True)
    maps = maps.detach().float()
    empty = (maps.flatten(1) <= 0).all(1).nonzero().squeeze(1).tolist()
    if empty and not allow_zero:
        raise ValueError(
            f"GradCAM is zero everywhere for face {', '.join(map(str, empty))}: nothing in this layer speaks "
            "for the class; choose another target, or train the model first"
        )
    return maps


def _last_grid(model: nn.Module, images: Tensor) -> nn.Module:
    """The module whose output GradCAM weighs, as `grad_cam` says."""
    trunk = getattr(model, "trunk", None)
    root = trunk if isinstance(trunk, nn.Module) else model
    outputs: dict[nn.Module, list[Any]] = {}  # in the order in which the modules (last) finish

    def keep(module: nn.Module, _inputs: Any, output: Any) -> None:
        outputs[module] = [*outputs.pop(module, []), output]

    with ExitStack() as hooks:
        for module in root.modules():
            hooks.enter_context(module.register_forward_hook(keep))
        total = model(images).sum()
    for module in reversed(outputs):
        grid = outputs[module][0]
        once = len(outputs[module]) == 1 and isinstance(grid, Tensor) and grid.requires_grad
        if once and grid.ndim == 4 and len(grid) == len(images) and grid[0, 0].numel() > 1:
            gradient = torch.autograd.grad(total, grid, retain_graph=True, allow_unused=True)[0]
            if gradient is not None:
                return module
    raise ValueError(f"{type(root).__name__} gave no grid [B,D,h,w] that influences the logits")


def integrated_gradients(
    model: Method, images: Tensor, target: Target = None, *, baseline: Tensor | float = 0.0, steps: int = 16
) -> Tensor:
    """Integrated gradients (Sundararajan et al., arXiv 1703.01365), through captum, summed over colours.

    (x − x₀) · ∫₀¹ ∂logit/∂x (x₀ + α(x − x₀)) dα, by Gauss-Legendre quadrature: float32 [B,1,S,S], in logits a
    pixel, of both signs. The map adds up to logit(x) − logit(x₀), up to the error of the quadrature, whose
    nodes (`steps`) each cost a pass forward and backward. `baseline` is x₀, a picture without evidence,
    [B,3,S,S], or one number; 0 is the mean colour. Raises ValueError for fewer than one step.
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
    model: Method, images: Tensor, target: Target = None, *, window: Pixels = None, stride: Pixels = None
) -> Tensor:
    """How much the logit falls when a window is covered (Zeiler & Fergus, arXiv 1311.2901), through captum.

    A pixel's value is the mean fall over the windows that cover it, float32 [B,1,S,S], in logits, below 0 where
    covering (with the mean colour) helps. The window's side is in pixels, or two cells of the 7×7 grid; the
    stride from one to the next is half a window. Raises ValueError for a window beyond the picture, or a stride
    that leaves gaps.
    """
    from captum.attr import Occlusion

    side = images.shape[-1]
    window = max(1, round(2 * side / GRID)) if window is None else window
    stride = max(1, window // 2) if stride is None else stride
    if not 1 <= stride <= window <= side:
        raise ValueError(
            f"expected 1 ≤ stride ≤ window ≤ {side}, the picture's side, got stride {stride}, window {window}"
        )
    shape, step = ((images.shape[1], length, length) for length in (window, stride))
    many = max(1, CHUNK // len(images))
    with _explaining(model, images, target) as (images, chosen), torch.no_grad():
        images = images.detach()
        maps = Occlusion(model).attribute(images, shape, step, target=chosen, perturbations_per_eval=many)
    # A window covers all colours, so every colour has the same value.
    return maps[:, :1].float()
