"""What a batch that is spread over several processes needs in order to be one batch.

Each process sees its own part of every batch, and gradients are averaged over them. That is exact for every
loss that is a mean over the faces. Two things are not, and take their means over all processes here: the
statistics of BatchNorm, and a loss that is a function of such a mean. Extremes over a batch (QCS's "official"
form) stay those of a process's part.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import nn

_alone = False


def count_processes() -> int:
    """How many processes train together; 1 where nothing was started."""
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
    """Mean over the processes, element by element; its gradient is the mean of theirs."""

    @staticmethod
    def forward(_ctx, x: torch.Tensor) -> torch.Tensor:
        return _mean(x)

    @staticmethod
    def backward(_ctx, gradient: torch.Tensor) -> torch.Tensor:
        return _mean(gradient)


def _mean(x: torch.Tensor) -> torch.Tensor:
    # Not in place: the caller's tensor stays this process's own.
    total = x.contiguous().clone()
    dist.all_reduce(total)
    return total / count_processes()


def mean_over_processes(x: torch.Tensor) -> torch.Tensor:
    """A tensor's mean over the processes, each with a share of the batch of the same size; x itself for one.

    Gradients flow, so that after the usual averaging of gradients every process has that of the whole batch.
    All processes must call it equally often.
    """
    return x if count_processes() == 1 else _Mean.apply(x)


class _TogetherMixin:
    """BatchNorm that normalises by the whole batch's mean and variance, wherever its faces are."""

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
        if self.weight is not None:
            y = y * self.weight.view(shape) + self.bias.view(shape)
        return y.to(x.dtype)

    @torch.no_grad()
    def _remember(self, mean: torch.Tensor, variance: torch.Tensor, n: int) -> None:
        if self.running_mean is None:
            return
        self.num_batches_tracked += 1
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        # Unbiased, as torch keeps it.
        self.running_var.lerp_((variance * n / (n - 1)).to(self.running_var.dtype), share)


class _Together1d(_TogetherMixin, nn.BatchNorm1d):
    pass


class _Together2d(_TogetherMixin, nn.BatchNorm2d):
    pass


@contextmanager
def batchnorm_together(model: nn.Module) -> Iterator[None]:
    """While the block runs, every BatchNorm in training mode sees the batch of all processes.

    On a GPU by torch's own SyncBatchNorm, which knows no processor, elsewhere by plain arithmetic.
    """
    kinds = {nn.BatchNorm1d: _Together1d, nn.BatchNorm2d: _Together2d}
    # The class alone is exchanged: parameters, statistics and optimiser state stay the very same objects.
    modules = model.modules() if count_processes() > 1 else ()
    changed = [(module, type(module)) for module in modules if type(module) in kinds]
    try:
        for module, kind in changed:
            on_gpu = next(module.buffers(), torch.empty(0)).is_cuda
            module.__class__ = nn.SyncBatchNorm if on_gpu else kinds[kind]
            module.process_group = None
        yield
    finally:
        for module, kind in changed:
            module.__class__ = kind
            del module.process_group
