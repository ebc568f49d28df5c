"""What tests run in two processes and compare with one: `python -m helpers.together PART FOLDER`."""

import os
import sys
from contextlib import contextmanager, nullcontext
from pathlib import Path
from unittest import mock

import torch
import torch.nn.functional as F
from torch.distributed.elastic.multiprocessing.errors import record

from fer_lab.models import Recipe, create_model
from fer_lab.models.dan import partition_loss
from fer_lab.parallel import (
    alone,
    batchnorm_together,
    collectives,
    launch,
    mean_over_processes,
    stop_with_launcher,
)
from fer_lab.training import fit, loop
from helpers.patterns import Small, patterns

# SGD: Adam makes a whole step of a gradient that is nothing but rounding, as of a bias in front of a BatchNorm.
RECIPE = Recipe(epochs=2, batch_size=12, lr=1e-3, momentum=0.9, schedule="one_cycle")
# name → (method, its options, what is changed in the recipe); 4 steps an epoch
CASES = {
    "baseline": ("baseline", {}, {"epochs": 5}),
    "dan": ("dan", {}, {"epochs": 5}),
    "dan, sharpness-aware": ("dan", {}, {"sam_rho": 0.05, "clip_norm": 1.0, "ema_decay": 0.9}),
    "triplet_center": ("triplet_center", {}, {"sampler": "balanced", "label_smoothing": 0.1}),
    "qcs": ("qcs", {}, {"batch_size": 4, "epoch_fraction": 1 / 3}),
    "dan, taught maps": ("dan", {}, {"map_weight": 1.0}),
}
# An odd number of faces to judge, and one that only the first process can.
TRAIN, VALID, LONELY = 48, 33, 1


def train(case: str, folder: Path, valid: int = VALID) -> None:
    """One case, into FOLDER/case."""
    method, options, changes = CASES[case]
    torch.manual_seed(0)
    model = create_model(method, 3, **options)
    with smooth():
        recipe = RECIPE.replace(**changes)
        fit(model, patterns(TRAIN), patterns(valid, 1), recipe, folder / case, progress=False)
    # The BatchNorms that were shared meanwhile are torch's own again.
    assert not [module for module in model.modules() if type(module).__module__ == collectives.__name__]


@contextmanager
def smooth():
    """ReLU without its kink, where the last bit of a number decides whether a gradient passes or not.

    One of n features on the other side moves the gradient by 1/√n: by a thousandth here, after one step.
    """

    def silu(x, inplace=False):
        return F.silu(x)

    with mock.patch.object(F, "relu", silu), mock.patch.object(torch, "relu", silu):
        yield


def trainings(folder: Path) -> None:
    """Every case; then one of them judged on a single face, and with each BatchNorm left to itself."""
    for case in CASES:
        train(case, folder)
    train("triplet_center", folder / "lonely", valid=LONELY)
    loop.batchnorm_together = lambda model: nullcontext()
    train("triplet_center", folder / "apart")


class Full(torch.autograd.Function):
    """Nothing, but for a backward pass that wants memory which is not there."""

    @staticmethod
    def forward(_ctx, x):
        return x.clone()

    @staticmethod
    def backward(_ctx, _gradient):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 7 GiB.")


class Hungry(Small):
    """Fits three faces at the most, in the second of two processes; in the first any number."""

    most = 3

    def training_losses(self, batch):
        losses = super().training_losses(batch)
        full = len(batch.labels) > self.most and torch.distributed.get_rank() == 1
        return losses | {"total": Full.apply(losses["total"])} if full else losses


def out_of_memory(folder: Path) -> None:
    """A training in which one process of two runs out of memory in the middle of a backward pass."""
    fit(Hungry(), patterns(), None, RECIPE.replace(sam_rho=0.05), folder, progress=False)


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# name → (BatchNorm, its input for the whole batch)
NORMS = {
    "pictures": (lambda: torch.nn.BatchNorm2d(3), numbers(8, 3, 5, 4) * 2 + 1),
    "rows": (lambda: torch.nn.BatchNorm1d(4), numbers(8, 4)),
    "rows of places": (lambda: torch.nn.BatchNorm1d(4), numbers(8, 4, 6)),
    "cumulative": (lambda: torch.nn.BatchNorm2d(3, momentum=None), numbers(8, 3, 2, 2)),
    "without scale": (lambda: torch.nn.BatchNorm2d(3, affine=False), numbers(8, 3, 2, 2)),
    "without memory": (lambda: torch.nn.BatchNorm2d(3, track_running_stats=False), numbers(8, 3, 2, 2)),
    "half": (lambda: torch.nn.BatchNorm2d(3), numbers(8, 3, 5, 4).bfloat16()),
}
HEADS = numbers(8, 4, 16)


def share(x: torch.Tensor, rank: int) -> torch.Tensor:
    """A process's half of a batch."""
    return x.chunk(2)[rank].clone().requires_grad_()


def pieces(folder: Path) -> None:
    """What every process finds of a mean, of each of `NORMS`, and of DAN's partition loss."""
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    x = torch.tensor([1.0, 10.0])[rank].requires_grad_()
    mean = mean_over_processes(x)
    (mean * (rank + 1)).backward()
    found = {"mean": mean.detach(), "gradient": x.grad, "processes": collectives.count_processes()}
    with alone():
        found |= {
            "processes alone": collectives.count_processes(),
            "mean alone": mean_over_processes(x).detach(),
        }
    for name, (make, whole) in NORMS.items():
        found[name] = norm_step(make(), share(whole, rank), share(numbers(*whole.shape, seed=1), rank))
    heads = share(HEADS, rank)
    loss = partition_loss(heads)
    loss.backward()
    found |= {"partition": loss.detach(), "partition gradient": heads.grad}
    torch.save(found, folder / f"{rank}.pt")


def norm_step(norm: torch.nn.Module, x: torch.Tensor, weights: torch.Tensor) -> dict[str, torch.Tensor]:
    """One step in training mode under a loss that weighs every number differently, and what is left of it."""
    with batchnorm_together(torch.nn.Sequential(norm)):
        y = norm(x)
    (y.float() * weights).sum().backward()
    left = {f"{name} gradient": p.grad for name, p in norm.named_parameters()} | norm.state_dict()
    return {name: value.detach() for name, value in {"y": y, "x gradient": x.grad, **left}.items()}


def in_two_processes(part: str, folder: Path) -> None:
    """Run one of the functions above in two processes, however many cores there are."""
    here = os.pathsep.join(filter(None, (str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH"))))
    with (
        mock.patch.dict(os.environ, PYTHONPATH=here),
        mock.patch("fer_lab.parallel.processes.count_devices", return_value=(2, "processor cores")),
    ):
        launch(2, ["helpers.together", part, str(folder)], device="cpu")


@record
def main(part: str, folder: str) -> None:
    """One of the functions above."""
    stop_with_launcher()
    Path(folder).mkdir(exist_ok=True)
    {"trainings": trainings, "out_of_memory": out_of_memory, "pieces": pieces}[part](Path(folder))


if __name__ == "__main__":
    main(*sys.argv[1:])
