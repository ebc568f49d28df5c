"""Does an accelerator compute what the processor computes? Every model's logits, loss and gradients on both."""

import copy
from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor

from fer_lab._device import best_device, resolve_precision, tensor_float_32
from fer_lab._progress import progress
from fer_lab.bench.models import check_device, random_batch, with_sizes
from fer_lab.data.faces import FaceBatch
from fer_lab.models import create_model
from fer_lab.models.inference import fuse
from fer_lab.models.method import SIZES, Method

COLUMNS = ("model", "size", "logits", "logits_fast", "loss", "gradient")


def bench_device(
    models: Sequence[str] | None = None, sizes: Sequence[str] = SIZES, *, device: str = "auto", batch: int = 4
) -> pd.DataFrame:
    """How far a device's numbers are from the processor's, with random weights on random images.

    None takes all models; a model is left out of the sizes that it does not have. Returns a row a model and
    size, with the columns `COLUMNS`, each a difference relative to the processor's float32: logits (the largest
    as a share of the largest logit) in float32; logits_fast, those of the folded network in the precision that
    "auto" chooses; loss; gradient (the length of the difference over the length, of all parameters together).
    BatchNorm and dropout are in eval mode, since devices draw other random numbers. Raises ValueError where
    "auto" finds no accelerator, for a device that is not here, or as `with_sizes`.
    """
    if device == "auto" and best_device() == "cpu":
        raise ValueError("there is no GPU that torch can use; device cpu compares the processor with itself")
    device = check_device(device)
    jobs = progress(with_sizes(models, sizes), "bench")
    rows = [(name, size, *_differences(name, size, device, batch)) for name, size in jobs]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _differences(name: str, size: str, device: str, batch: int) -> list[float]:
    torch.manual_seed(0)
    here = create_model(name, size=size).eval()
    there = copy.deepcopy(here).to(device)
    faces = random_batch(here, batch)
    images = faces.images.flatten(0, -4)[:batch]
    precise, loss, gradient = _numbers(here, faces, images)
    with tensor_float_32(device, False):
        same = FaceBatch(faces.images.to(device), faces.labels.to(device), faces.indices)
        logits, other_loss, other_gradient = _numbers(there, same, images.to(device))
    fast = fuse(there.to(memory_format=torch.channels_last))
    bf16 = resolve_precision("auto", device) == "bf16"
    autocast = torch.autocast(device, torch.bfloat16, enabled=bf16)
    with torch.inference_mode(), tensor_float_32(device, True), autocast:
        quick = fast(images.to(device)).float().cpu()
    apart = [(one - precise).abs().max() / precise.abs().max() for one in (logits, quick)]
    apart += [(other_loss - loss).abs() / loss.abs(), (other_gradient - gradient).norm() / gradient.norm()]
    return [float(one) for one in apart]


def _numbers(model: Method, faces: FaceBatch, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, total loss and all gradients in one row, on the CPU."""
    with torch.no_grad():
        logits = model(images).cpu()
    loss = model.training_losses(faces)["total"]
    wanted = [one for one in model.parameters() if one.requires_grad]
    found = torch.autograd.grad(loss, wanted, allow_unused=True)
    return logits, loss.detach().cpu(), torch.cat([one.flatten().cpu() for one in found if one is not None])
