"""Images a second, memory, FLOPs and share of the machine's peak of every model.

Each model is measured in a process of its own (`python -m fer_lab.bench`), so that one measurement does not
hide the memory of another. Other programs on the same cores change every number.
"""

import dataclasses
import itertools
import json
import math
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode

from fer_lab._device import best_device, compiled, resolve_precision, synchronize, tensor_float_32
from fer_lab._progress import progress
from fer_lab.data.faces import FaceBatch
from fer_lab.data.loader import KINDS
from fer_lab.models import create_model, list_models
from fer_lab.models.inference import fuse
from fer_lab.models.layers import evaluating
from fer_lab.models.method import SIZES, Method, method_class

MODES = ("train", "inference")
# plain: fp32, eager, contiguous. default: channels_last, bf16 autocast where precision "auto" gives that, and
# for inference the fused form. compiled: default with torch.compile; only on request, since its first step
# takes a minute or more.
PATHS = ("plain", "default")
EVERY_PATH = (*PATHS, "compiled")
BATCHES = {
    "cpu": {"tiny": 64, "paper": 16},
    "mps": {"tiny": 256, "paper": 32},
    "cuda": {"tiny": 1024, "paper": 256},
}
COLUMNS = (
    *("model", "size", "mode", "path", "batch", "images_per_s", "ms_per_step", "peak_mb"),
    *("gflop_per_image", "share_of_peak", "parameters_m", "first_step_s"),
)


@dataclass(frozen=True)
class Job:
    """One measurement: which model, how it runs, examples a step, and how long it is timed."""

    model: str
    size: str
    mode: str
    path: str
    batch: int
    seconds: float
    device: str


def bench_models(
    models: Sequence[str] | None = None,
    sizes: Sequence[str] = SIZES,
    modes: Sequence[str] = MODES,
    *,
    paths: Sequence[str] = PATHS,
    batch: int | None = None,
    seconds: float = 2.0,
    device: str = "auto",
) -> pd.DataFrame:
    """Speed, memory and cost of models with random weights on random images.

    None takes all models, and the batch that suits device and size.
    A model is left out of the sizes that it does not have. Modes and paths are from `MODES` and `EVERY_PATH`,
    the device is "auto", "cpu", "cuda" or "mps". Each row is timed for `seconds`, at least three steps, after
    warming up. Raises ValueError for what is unknown, and RuntimeError for a measurement that failed.

    Returns:
        A row for each combination, with the columns `COLUMNS`:
        images_per_s counts images, of which a quadruplet has four; ms_per_step is the median step;
        peak_mb is what the model and its steps add to the process (to the GPU's memory there; NaN where
        the system does not tell); gflop_per_image is 2 × multiply-adds, backward pass included in training;
        share_of_peak is against `dense_peak` at the same precision, NaN where other programs slowed the peak
        down so much that the share would be above 1; parameters_m counts the millions of parameters that take
        part (see `count_parameters`); first_step_s, the slowest of the first three, is long with torch.compile.
    """
    networks = with_sizes(models, sizes)
    for given, known in ((modes, MODES), (paths, EVERY_PATH)):
        if wrong := [value for value in given if value not in known]:
            raise ValueError(f"expected some of {', '.join(known)}, got {', '.join(map(repr, wrong))}")
    if batch is not None and batch < 2:
        raise ValueError(f"batch normalisation needs a batch of at least 2 examples, got {batch}")
    device = check_device(device)
    suits = BATCHES[device]
    jobs = [
        Job(name, size, *how, batch or suits["tiny" if size == "tiny" else "paper"], seconds, device)
        for (name, size), how in itertools.product(networks, itertools.product(modes, paths))
    ]
    rows = [{**dataclasses.asdict(job), **in_own_process(job)} for job in progress(jobs, "bench")]
    table = pd.DataFrame(rows)
    # Each process measured the peak too; other programs disturbed the best of them least.
    peak = table.groupby("path")["peak_gflops"].transform("max")
    share = table["images_per_s"] * table["gflop_per_image"] / peak
    # A share above 1 says that the peak was measured while something else ran.
    table["share_of_peak"] = share.where(share <= 1)
    return table[list(COLUMNS)]


def with_sizes(models: Sequence[str] | None, sizes: Sequence[str]) -> list[tuple[str, str]]:
    """Each of the models (None is all of them) with those of the sizes that it has.

    Raises ValueError for an unknown model, or a size that none of them has.
    """
    sizes_of = {name: method_class(name).sizes for name in (list_models() if models is None else models)}
    known = dict.fromkeys(itertools.chain(*sizes_of.values()))
    if unknown := sorted(set(sizes) - set(known)):
        raise ValueError(f"expected some of {', '.join(known)}, got {', '.join(map(repr, unknown))}")
    return [(name, size) for name, own in sizes_of.items() for size in sizes if size in own]


def dense_peak(precision: str = "fp32", device: str = "cpu", *, seconds: float = 1.0) -> float:
    """The machine's practical peak in GFLOP/s in "fp32" or "bf16": the faster of two dense products.

    One is a product of two large square matrices, the other a 3×3 convolution, each run for `seconds`/2. They
    come from different libraries, and neither is the faster one everywhere: on a processor with AVX-512 by AMD,
    MKL multiplies float32 matrices at 101 GFLOP/s a core, where oneDNN's convolutions reach 250.
    """
    kind = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    n, batch, channels, side = (2048, 8, 128, 28) if device == "cpu" else (8192, 256, 256, 56)
    a, b = (torch.rand(n, n, device=device).to(kind) for _ in range(2))
    images, kernels = (
        torch.rand(shape, device=device).to(kind, memory_format=torch.channels_last)
        for shape in ((batch, channels, side, side), (channels, channels, 3, 3))
    )
    products = (
        (2 * n**3, lambda: a @ b),
        # No padding, so that every place has its whole 3×3 neighbourhood and each product counts.
        (2 * batch * (3 * channels * (side - 2)) ** 2, lambda: torch.conv2d(images, kernels)),
    )
    with torch.inference_mode():
        return max(flop / min(times_of(product, device, seconds / 2)) for flop, product in products) / 1e9


def in_own_process(job: Job) -> dict[str, float]:
    """What `measure` gives, in a new process; RuntimeError with the last line of one that failed."""
    cls = method_class(job.model)
    # With the path of its class, the new process also finds a method that the reader registered.
    order = {"code": f"{cls.__module__}:{cls.__qualname__}", "threads": torch.get_num_threads()}
    command = [sys.executable, "-m", "fer_lab.bench", json.dumps(dataclasses.asdict(job) | order)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path or "." for path in sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"killed, code {done.returncode}; too little memory?"])[-1]
        raise RuntimeError(f"measuring {job.model} {job.size} {job.mode} {job.path} failed: {last}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def measure(job: Job) -> dict[str, float]:
    """One row of `bench_models`, measured in this process, and `dense_peak` under the same conditions."""
    device, mode, batch = job.device, job.mode, job.batch
    plain = job.path == "plain"
    before = resident_memory().now

    torch.manual_seed(0)
    model = create_model(job.model, size=job.size).to(device).train(mode == "train")
    model.to(memory_format=torch.contiguous_format if plain else torch.channels_last)
    if mode == "inference" and not plain:
        model = fuse(model)
    precision = resolve_precision("fp32" if plain else "auto", device)
    group = KINDS[model.batch_kind] if mode == "train" else 1
    with FlopCounterMode(display=False) as counter:
        make_step(model, mode, 2, device)()
    step = make_step(model, mode, batch, device, bf16=precision == "bf16")
    method = "training_losses" if mode == "train" else "forward"
    with tensor_float_32(device, not plain), compiled(model, method, job.path == "compiled"):
        first = max(times_of(step, device, 0.0))
        median = statistics.median(times_of(step, device, job.seconds))
        dense = dense_peak(precision, device, seconds=job.seconds / 2)
    peak = torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else resident_memory().peak - before
    return {
        "images_per_s": batch * group / median,
        "ms_per_step": median * 1000,
        "peak_mb": peak,
        "gflop_per_image": counter.get_total_flops() / (2 * group) / 1e9,
        "first_step_s": first,
        "peak_gflops": dense,
        # A new model, since fusing joins some parameters.
        "parameters_m": count_parameters(create_model(job.model, size=job.size), mode) / 1e6,
    }


def count_parameters(model: Method, mode: str) -> int:
    """How many parameters take part: all of them in training, at inference those that the logits depend on.

    QCS's cross branch, for example, takes part in training alone. The model must be on the CPU; all its
    parameters take gradients afterwards.
    """
    parameters = list(model.parameters())
    if mode == "train":
        return sum(p.numel() for p in parameters)
    with evaluating(model.requires_grad_(True)):
        logits = model(torch.zeros(1, 3, model.image_size, model.image_size))
    gradients = torch.autograd.grad(logits.sum(), parameters, allow_unused=True)
    return sum(p.numel() for p, gradient in zip(parameters, gradients, strict=True) if gradient is not None)


def make_step(
    model: Method, mode: str, batch: int, device: str = "cpu", *, bf16: bool = False
) -> Callable[[], None]:
    """A function that does one step, on the same random faces each time.

    Training is forward, backward and SGD with momentum; inference is `forward` alone.
    """
    autocast = torch.autocast(device, torch.bfloat16, enabled=bf16)
    faces = random_batch(model, batch, device)
    images = faces.images.reshape(-1, *faces.images.shape[-3:])[:batch]
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)

    def infer() -> None:
        with torch.inference_mode(), autocast:
            model(images)

    def train() -> None:
        with autocast:
            loss = model.training_losses(faces)["total"]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return train if mode == "train" else infer


def random_batch(model: Method, batch: int, device: torch.device | str = "cpu") -> FaceBatch:
    """Noise in the shape that the method trains on; positives share the anchor's class, negatives do not."""
    group = KINDS[model.batch_kind]
    side = model.image_size
    shape = (batch, 3, side, side) if group == 1 else (batch, group, 3, side, side)
    anchor = torch.arange(batch, device=device) % model.num_classes
    other = (anchor + 1) % model.num_classes
    labels = anchor if group == 1 else torch.stack([anchor, anchor, other, other][:group], 1)
    indices = torch.arange(labels.numel()).view(labels.shape)
    return FaceBatch(torch.randn(shape, device=device), labels, indices)


def check_device(device: str) -> str:
    """The device, or the best one for "auto"; ValueError for one that is not here or cannot be measured."""
    if device == "auto":
        return best_device()
    if device not in BATCHES:
        raise ValueError(f"device must be auto, {', '.join(BATCHES)}, got {device!r}")
    if device not in ("cpu", best_device()):
        raise ValueError(f"there is no {device} device that torch can use; device='cpu' measures the processor")
    return device


def times_of(step: Callable[[], object], device: str, seconds: float) -> list[float]:
    """Seconds of each call, for `seconds` in all and at least three calls."""
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < 3 or time.perf_counter() - began < seconds:
        start = time.perf_counter()
        step()
        synchronize(device)
        times.append(time.perf_counter() - start)
    return times


class Memory(NamedTuple):
    """Resident memory in MB: all of it, the most that it has been, and without pages of files."""

    now: float = math.nan
    peak: float = math.nan
    own: float = math.nan


def resident_memory() -> Memory:
    """This process's memory; NaN where the system does not tell."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not getrusage: a process inherits its mark from the process that started it.
        kilobytes = dict(re.findall(r"^(VmRSS|VmHWM|RssAnon):\s+(\d+) kB", status.read_text(), re.M))
        if len(kilobytes) == 3:
            return Memory(*(int(kilobytes[key]) / 1024 for key in ("VmRSS", "VmHWM", "RssAnon")))
    try:
        import resource
    except ImportError:
        return Memory()
    # Bytes on macOS, kilobytes elsewhere.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    return Memory(peak, peak)
