"""What several papers share: attention that can be watched, a gate, eval mode, BatchNorms that fold."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import fusion

LayerT = TypeVar("LayerT", bound=nn.Module)


class Attend(nn.Module):
    """softmax(q kᵀ / √d) v, using PyTorch's fused kernel, unless `watch` is active or that kernel is slower.

    A fused kernel never forms the weights. Under `watch` this module takes the explicit path and passes
    the weights through `probe`, an identity whose output a hook can read. So it does for bfloat16 on a CPU:
    there, at the sizes of the book, a training step by the fused kernel takes 3 to 10 times as long.
    """

    def __init__(self) -> None:
        super().__init__()
        self.probe = nn.Identity()
        self.watched = False

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q [B,H,N,d], k [B,H,M,d], v [B,H,M,e] → [B,H,N,e]."""
        products = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else q.dtype
        if self.watched or (q.is_cpu and products == torch.bfloat16):
            return self.probe((q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1)).softmax(dim=-1)) @ v
        return F.scaled_dot_product_attention(q, k, v)


@contextmanager
def watch(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Collect the attention weights of every `Attend` in a model while the block runs.

    Yields a dict that each forward pass fills: module name → weights [B,H,N,M] of the last pass, detached but
    in training mode. All is put back when the block ends, also after an exception. ValueError for a model
    without such attention.

    Example:
        >>> with watch(model) as weights:
        ...     model(images)
        >>> weights["blocks.0.attention.attend"].sum(-1)  # all ones
    """
    attends = {name: module for name, module in model.named_modules() if isinstance(module, Attend)}
    if not attends:
        raise ValueError(f"{type(model).__name__} has no softmax attention to watch")
    maps: dict[str, Tensor] = {}

    def keep(name: str, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
        maps[name] = output if model.training else output.detach()

    with ExitStack() as back:
        for name, module in attends.items():
            back.callback(setattr, module, "watched", module.watched)
            module.watched = True
            back.enter_context(module.probe.register_forward_hook(partial(keep, name)))
        yield maps


@contextmanager
def once(module: nn.Module) -> Iterator[None]:
    """While the block runs, a module computes each input once, and gives that output again when asked again."""
    forward = module.forward
    seen: dict[tuple[Any, ...], tuple[Tensor, Any]] = {}

    def remember(x: Tensor) -> Any:
        # The input is kept, so that its memory cannot become another one's.
        key = (x.data_ptr(), x.shape)
        if key not in seen:
            seen[key] = x, forward(x)
        return seen[key][1]

    module.forward = remember
    try:
        yield
    finally:
        del module.forward


class SEGate(nn.Module):
    """Squeeze-and-excitation on a vector: x · sigmoid(W₂ ReLU(W₁ x)) (Hu et al., arXiv 1709.01507)."""

    def __init__(self, dim: int):
        super().__init__()
        self.squeeze = nn.Linear(dim, dim)
        self.excite = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
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


def fold(layer: LayerT, norm: nn.Module) -> tuple[LayerT, nn.Module]:
    """One layer for a convolution (or linear layer) and the BatchNorm that alone reads its output.

    In eval mode a BatchNorm is a fixed scale and shift of each channel, which the layer can apply itself. Its
    own place takes an identity. Any other two modules are returned unchanged.
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
def output_shapes(model: nn.Module, images: Tensor) -> dict[str, tuple[int, ...]]:
    """Module → shape of its first output in one pass, for diagrams; parameters too, after a batch of 1.

    "image" is the images' own shape. Groups of images [B,n,3,S,S] pass through both branches of QCS or DCS.
    """
    shapes = {"image": tuple(images.shape)}

    def keep(name: str, _module: nn.Module, _inputs: Any, output: Any) -> None:
        shapes.setdefault(name, tuple((output if isinstance(output, Tensor) else output[0]).shape))

    with ExitStack() as hooks, evaluating(model):
        for name, module in model.named_modules():
            hooks.enter_context(module.register_forward_hook(partial(keep, name)))
        cast(Any, model.branch_logits if images.ndim == 5 else model)(images)
    return {**shapes, **{name: (1, *value.shape) for name, value in model.named_parameters()}}
