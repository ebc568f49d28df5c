"""Numbers that several processes must share so that their parts of a batch act as one batch.

Each process sees its own part of every batch, and gradients are averaged over the processes. This is exact
for every loss that is a mean over the faces. It is not exact for the statistics of BatchNorm and for a loss
that is a function of a mean, so these two take their means over all processes here. Extremes over a batch
(QCS's "official" form) remain those of each process's part.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

_alone = False


def count_processes() -> int:
    """The number of processes that train together; 1 where none were started."""
    return dist.get_world_size() if not _alone and dist.is_available() and dist.is_initialized() else 1


@contextmanager
def alone() -> Iterator[None]:
    """While the block runs, this process computes as if there were no others, and waits for none."""
    global _alone
    before, _alone = _alone, True
    try:
        yield
    finally:
        _alone = before


class _Mean(torch.autograd.Function):
    """Mean over the processes, element by element; its gradient is the mean of their gradients."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        # Not in place: the caller keeps this process's own numbers.
        total = x.contiguous().clone()
        dist.all_reduce(total)
        return total / count_processes()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return _Mean.forward(ctx, gradient)


def mean_over_processes(x: torch.Tensor) -> torch.Tensor:
    """The mean of a tensor over the processes, whose parts of the batch have the same size; x itself for one.

    Gradients flow. After the usual averaging of gradients every process has the gradient of the whole batch.
    All processes must call this equally often.
    """
    return x if count_processes() == 1 else _Mean.apply(x)


class _Shared(_BatchNorm):
    """BatchNorm that normalises by mean and variance of the whole batch, whichever processes have its faces."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or count_processes() == 1:
            return super().forward(x)
        self._check_input_dim(x)
        axes = [0, *range(2, x.ndim)]
        shape = [1, -1, *[1] * (x.ndim - 2)]
        wide = x.float()
        mean = mean_over_processes(wide.mean(axes))
        centered = wide - mean.view(shape)
        variance = mean_over_processes(centered.square().mean(axes))
        self._remember(mean.detach(), variance.detach(), x.numel() // x.shape[1] * count_processes())
        y = centered * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            y = y * self.weight.view(shape) + self.bias.view(shape)
        return y.to(x.dtype)

    @torch.no_grad()
    def _remember(self, mean: torch.Tensor, variance: torch.Tensor, n: int) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        # torch, too, keeps the unbiased variance.
        self.running_var.lerp_((variance * n / (n - 1)).to(self.running_var.dtype), share)


class _Shared1d(_Shared, nn.BatchNorm1d):
    pass


class _Shared2d(_Shared, nn.BatchNorm2d):
    pass


class _SharedOnGPU(nn.SyncBatchNorm):
    """The same by torch's own kernels, which run on GPUs alone and do not know of `alone`."""

    process_group = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _BatchNorm.forward(self, x) if count_processes() == 1 else super().forward(x)


@contextmanager
def batchnorm_together(model: nn.Module) -> Iterator[None]:
    """While the block runs, every BatchNorm in training mode sees the batch of all processes.

    Afterwards the model is the plain model again. With one process nothing changes. The model must be on its
    device.
    """
    shared: dict[type[nn.Module], type[nn.Module]] = {nn.BatchNorm1d: _Shared1d, nn.BatchNorm2d: _Shared2d}
    modules = list(model.modules()) if count_processes() > 1 else []
    changed = [(module, type(module)) for module in modules if type(module) in shared]
    try:
        # Only the class changes, so that parameters, statistics and optimiser state remain the same objects.
        for module, kind in changed:
            on_gpu = any(tensor.is_cuda for tensor in module.buffers())
            module.__class__ = _SharedOnGPU if on_gpu else shared[kind]
        yield
    finally:
        for module, kind in changed:
            module.__class__ = kind
