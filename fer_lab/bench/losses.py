"""The cost of the metric losses, relative to a training step of the network that uses them."""

import functools
import itertools
import statistics
from collections.abc import Callable

import pandas as pd
import torch

from fer_lab._progress import progress
from fer_lab.bench.models import BATCHES, Job, check_device, in_own_process, times_of
from fer_lab.models.triplet_center import HINGES, NEGATIVES, TripletCenterLoss, center_loss


def bench_losses(batch: int = 512, classes: int = 8, dim: int = 512, *, device: str = "auto") -> pd.DataFrame:
    """The cost of the metric losses: forward and backward, relative to a training step at paper size.

    The step is that of "triplet_center", by the default path and at the batch of `BATCHES`, scaled to `batch`:
    on two cores a step of 512 takes a minute and 20 GB. All losses run in float32, for a second each, after
    warming up. Batch, classes and dim are B, C and D; the device is "auto", "cpu", "cuda" or "mps".

    Returns a row for each loss: loss, batch, classes, dim, ms (median), share_of_step. Raises ValueError for
    sizes for which there is no loss, and RuntimeError if the step could not be measured.
    """
    device = check_device(device)
    steps = loss_steps(batch, classes, dim, device)
    job = Job("triplet_center", "paper", "train", "default", BATCHES[device]["paper"], 1.0, device)
    step_ms = in_own_process(job)["ms_per_step"] * batch / job.batch
    rows = []
    for name, step in progress(steps.items(), "losses"):
        for _ in range(2):
            step()
        ms = statistics.median(times_of(step, device, 1.0)) * 1000
        rows.append((name, batch, classes, dim, ms, ms / step_ms))
    return pd.DataFrame(rows, columns=["loss", "batch", "classes", "dim", "ms", "share_of_step"])


def loss_steps(batch: int, classes: int, dim: int, device: str = "cpu") -> dict[str, Callable[[], None]]:
    """Forward and backward of each metric loss and of cross-entropy, by name, on one set of random faces."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((batch, dim), (batch, classes), (batch, dim), (classes, dim))
    leaves = [torch.rand(shape, generator=generator).to(device).requires_grad_() for shape in shapes]
    x, logits, weights, centers = leaves
    labels = torch.randint(classes, (batch,), generator=generator).to(device)
    losses: dict[str, Callable[[], torch.Tensor]] = {
        "cross_entropy": lambda: torch.nn.functional.cross_entropy(logits, labels),
        "center": lambda: center_loss(x, labels, centers, weights),
    }
    for hinge, negatives in itertools.product(HINGES, NEGATIVES):
        loss = TripletCenterLoss(classes, dim, 0.1, negatives, hinge=hinge).to(device)
        losses[f"{negatives}, {hinge}"] = functools.partial(loss, x, labels, logits, weights)

    def step(loss: Callable[[], torch.Tensor]) -> None:
        for leaf in leaves:
            leaf.grad = None
        loss().backward()

    return {name: functools.partial(step, loss) for name, loss in losses.items()}
