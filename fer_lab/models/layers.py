"""Blocks that several papers share: attention that can be watched, the squeeze-and-excitation gate."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import nn


class Attend(nn.Module):
    """softmax(q kᵀ · scale) v, by the fused kernel unless somebody watches or it is the slower way.

    A fused kernel never forms the weights. Under `watch` this module takes the explicit path and passes
    the weights through `probe`, an identity whose output a hook can read. So it does for bfloat16 on a
    processor, where torch's fused kernel takes 3 to 10 times as long for a training step, at the sizes here.
    """

    def __init__(self, scale: float | None = None, dropout: float = 0.0):
        super().__init__()
        self.scale = scale
        self.dropout = dropout
        self.probe = nn.Identity()
        self.watched = False

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """q [B,H,N,d], k [B,H,M,d], v [B,H,M,e] → [B,H,N,e]; scale defaults to d^−½."""
        dropout = self.dropout if self.training else 0.0
        slow = q.device.type == "cpu" and _dtype_of_products(q) == torch.bfloat16
        if not (self.watched or slow):
            return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, scale=self.scale)
        scale = self.scale if self.scale is not None else q.shape[-1] ** -0.5
        weights = self.probe((q * scale @ k.transpose(-2, -1)).softmax(dim=-1))
        return F.dropout(weights, dropout) @ v


def _dtype_of_products(q: torch.Tensor) -> torch.dtype:
    """What a matrix product with q is computed in here, under autocast or not."""
    if torch.is_autocast_enabled(q.device.type):
        return torch.get_autocast_dtype(q.device.type)
    return q.dtype


@contextmanager
def watch(model: nn.Module) -> Iterator[dict[str, torch.Tensor]]:
    """Collect the attention weights of every `Attend` in a model while the block runs.

    Yields:
        A dict, filled by each forward pass: module name → weights [B,H,N,M], detached, of the last pass.

    Everything is put back when the block ends, also by an exception.

    Raises:
        ValueError: a model without attention of this kind.
    """
    found = {name: module for name, module in model.named_modules() if isinstance(module, Attend)}
    if not found:
        raise ValueError(f"{type(model).__name__} has no softmax attention to watch")
    maps: dict[str, torch.Tensor] = {}
    before = {name: module.watched for name, module in found.items()}
    handles = []

    def keep(name):
        def hook(_module, _inputs, output):
            maps[name] = output.detach()

        return hook

    try:
        for name, module in found.items():
            module.watched = True
            handles.append(module.probe.register_forward_hook(keep(name)))
        yield maps
    finally:
        for handle in handles:
            handle.remove()
        for name, module in found.items():
            module.watched = before[name]


class SEGate(nn.Module):
    """Squeeze-and-excitation on a vector: x · sigmoid(W₂ ReLU(W₁ x)) (Hu et al., arXiv 1709.01507)."""

    def __init__(self, dim: int, hidden: int | None = None):
        super().__init__()
        hidden = hidden or dim
        self.squeeze = nn.Linear(dim, hidden)
        self.excite = nn.Linear(hidden, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[...,dim] → [...,dim]."""
        return x * torch.sigmoid(self.excite(F.relu(self.squeeze(x))))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode inside; every module gets its own mode back, also after an exception."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
