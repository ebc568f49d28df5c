"""What this machine has, and how to use it: device, precision, TensorFloat-32, torch.compile."""

import os
import shutil
import types
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def best_device() -> str:
    """ "cuda" where torch can use a GPU, else "mps" on a Mac that has one, else "cpu"."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def device_name() -> str:
    """The maker's name of the best device, such as "NVIDIA H200"; "cpu" or "mps" where that is the best."""
    best = best_device()
    return torch.cuda.get_device_name(0) if best == "cuda" else best


def synchronize(device: str) -> None:
    """Wait until the device has finished its work; otherwise only kernel launches are timed."""
    if device in ("cuda", "mps"):
        getattr(torch, device).synchronize()


def resolve_precision(precision: str, device: torch.device | str = "cpu") -> str:
    """ "auto" → "bf16" where the processor multiplies bf16 natively, else "fp32"; others unchanged.

    Native means AMX or AVX-512 BF16 on a CPU, compute capability 8 or more on an NVIDIA GPU. Warns where "bf16"
    is asked for on a CPU without: there a product of matrices took 60 times as long as in float32.
    """
    kind = torch.device(device).type
    if kind == "cuda":
        native = torch.cuda.get_device_capability()[0] >= 8
    else:
        native = kind == "cpu" and (torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())
    if precision == "bf16" and kind == "cpu" and not native:
        warnings.warn(
            "this processor has no units for bf16, and needs many times as long for it as for fp32; "
            "precision=auto takes what is fast here",
            stacklevel=1,  # one place, so that a training says it once
        )
    return precision if precision != "auto" else "bf16" if native else "fp32"


@contextmanager
def tensor_float_32(device: torch.device | str, allowed: bool) -> Iterator[None]:
    """Decide whether a GPU may multiply float32 numbers with ten bits of their mantissa while the block runs.

    PyTorch's default allows it for convolutions and not for matrix products. Other devices do not change.
    """
    if torch.device(device).type != "cuda":
        yield
        return
    products, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    try:
        torch.set_float32_matmul_precision("high" if allowed else "highest")
        torch.backends.cudnn.allow_tf32 = allowed
        yield
    finally:
        torch.set_float32_matmul_precision(products)
        torch.backends.cudnn.allow_tf32 = convolutions


@contextmanager
def compiled(model: torch.nn.Module, method: str, wanted: bool = True) -> Iterator[None]:
    """Compile a model's method by torch.compile while the block runs; afterwards the model is as before.

    On two cores the first call took 8 to 72 seconds (docs/speed.md). Numbers agree with those of the plain
    method up to rounding, but dropout and stochastic depth draw other random numbers.

    `method`: its name, such as "training_losses". `wanted`: False does nothing. Raises ValueError without a
    C++ compiler, which torch.compile needs.
    """
    if not wanted:
        yield
        return
    if not any(shutil.which(name) for name in (os.environ.get("CXX"), "g++", "clang++", "cl") if name):
        needs = "torch.compile needs a C++ compiler (g++ or clang++)"
        raise ValueError(f"{needs}, and none is installed; leave compile off")
    # A bound method and not a plain function: Fabric marks methods only, and a copy of the model gets its own.
    fast = torch.compile(getattr(type(model), method), dynamic=False)
    setattr(model, method, types.MethodType(fast, model))
    try:
        yield
    finally:
        delattr(model, method)
