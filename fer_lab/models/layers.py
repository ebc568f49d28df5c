"""What several papers share: attention that can be watched, a gate, eval mode, BatchNorms that fold."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import fusion

LayerT = TypeVar("LayerT", bound=nn.Module)


class Attend(nn.Module):
    """softmax(q kᵀ / √d) v, using PyTorch's fused kernel, unless `watch` is active or that kernel is slower.

    A fused kernel never forms the weights. Under `watch` this module takes the explicit path and passes
    the weights through `probe`, an identity whose output a hook can read. The module also takes the explicit
    path for bfloat16 on a CPU: there, at the sizes of the book, a training step by the fused kernel takes 3 to
    10 times as long.
    """

    def __init__(self) -> None:
        super().__init__()
        self.probe = nn.Identity()
        self.watched = False

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """q [B,H,N,d], k [B,H,M,d], v [B,H,M,e] → [B,H,N,e]."""
        slow = q.device.type == "cpu" and _dtype_of_products(q) == torch.bfloat16
        if not (self.watched or slow):
            return F.scaled_dot_product_attention(q, k, v)
        return self.probe((q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1)).softmax(dim=-1)) @ v


def _dtype_of_products(q: torch.Tensor) -> torch.dtype:
    """The type in which a matrix product with q is computed, under autocast or not."""
    if torch.is_autocast_enabled(q.device.type):
        return torch.get_autocast_dtype(q.device.type)
    return q.dtype


@contextmanager
def watch(model: nn.Module) -> Iterator[dict[str, torch.Tensor]]:
    """Collect the attention weights of every `Attend` in a model while the block runs.

    Yields a dict that each forward pass fills: module name → weights [B,H,N,M] of the last pass, detached. All
    is put back when the block ends, also after an exception. Raises ValueError for a model without such
    attention.

    Example:
        >>> with watch(model) as weights:
        ...     model(images)
        >>> weights["blocks.0.attention.attend"].sum(-1)  # all ones
    """
    attends = {name: module for name, module in model.named_modules() if isinstance(module, Attend)}
    if not attends:
        raise ValueError(f"{type(model).__name__} has no softmax attention to watch")
    maps: dict[str, torch.Tensor] = {}
    before = {name: module.watched for name, module in attends.items()}

    def keep(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: Any, output: torch.Tensor) -> None:
            maps[name] = output.detach()

        return hook

    with ExitStack() as hooks:
        try:
            for name, module in attends.items():
                module.watched = True
                hooks.enter_context(module.probe.register_forward_hook(keep(name)))
            yield maps
        finally:
            for name, module in attends.items():
                module.watched = before[name]


class SEGate(nn.Module):
    """Squeeze-and-excitation on a vector: x · sigmoid(W₂ ReLU(W₁ x)) (Hu et al., arXiv 1709.01507)."""

    def __init__(self, dim: int):
        super().__init__()
        self.squeeze = nn.Linear(dim, dim)
        self.excite = nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[...,dim] → [...,dim]."""
        return x * torch.sigmoid(self.excite(F.relu(self.squeeze(x))))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode while the block runs; every module gets its own mode back, also after an exception."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@runtime_checkable
class Folds(Protocol):
    """A module that has a simpler form for inference."""

    def fold_for_inference(self) -> None:
        """Take that form, in place and in eval mode; the outputs stay what they were."""


def fold(layer: LayerT, norm: nn.Module) -> tuple[LayerT, nn.Module]:
    """One layer for a convolution (or linear layer) and the BatchNorm that alone reads its output.

    In eval mode a BatchNorm is a fixed scale and shift of each channel, which the layer can apply itself.
    Returns the layer, and an identity for the BatchNorm's place; any other two modules are returned unchanged.
    """
    if not (isinstance(layer, nn.Conv2d | nn.Linear) and isinstance(norm, _BatchNorm)):
        return layer, norm
    if norm.weight is None:
        # torch's function for linear layers needs a scale and a shift.
        norm.weight = nn.Parameter(torch.ones_like(norm.running_var))
        norm.bias = nn.Parameter(torch.zeros_like(norm.running_var))
    if isinstance(layer, nn.Linear):
        return fusion.fuse_linear_bn_eval(layer, norm), nn.Identity()
    return fusion.fuse_conv_bn_eval(layer, norm), nn.Identity()


class Chain(nn.Sequential):
    """Layers that are only ever called in a row, so that each BatchNorm folds into the layer before it."""

    def fold_for_inference(self) -> None:
        """Fold each BatchNorm."""
        for i in range(len(self) - 1):
            self[i], self[i + 1] = fold(self[i], self[i + 1])


@torch.no_grad()
def output_shapes(model: nn.Module, images: torch.Tensor) -> dict[str, tuple[int, ...]]:
    """Module → shape of its first output in one pass, for diagrams; parameters too, after a batch of 1.

    "image" is the images' own shape. Groups of images [B,n,3,S,S] pass through both branches of QCS or DCS.
    """
    shapes = {"image": tuple(images.shape)}

    def keep(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            first = output if isinstance(output, torch.Tensor) else output[0]
            shapes.setdefault(name, tuple(first.shape))

        return hook

    with ExitStack() as hooks:
        for name, module in model.named_modules():
            hooks.enter_context(module.register_forward_hook(keep(name)))
        with evaluating(model):
            cast(Any, model.branch_logits if images.ndim == 5 else model)(images)
    return {**shapes, **{name: (1, *value.shape) for name, value in model.named_parameters()}}
