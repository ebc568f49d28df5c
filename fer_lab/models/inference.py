"""The form of a model for inference: the same answers from fewer operations."""

import copy
from typing import Any, cast

import torch
from torch import Tensor

from fer_lab.data.faces import FaceSet
from fer_lab.data.loader import Loader
from fer_lab.models.layers import evaluating
from fer_lab.models.method import Method


@torch.inference_mode(False)
def fuse(model: Method) -> Method:
    """A copy for inference that gives the model's logits, embedding and attention maps of eval mode.

    Every module that has a method `fold_for_inference` simplifies itself: BatchNorms go into the layers in
    front of them, and what takes no part in the answer is left out. In fp32 the numbers agree to 1e-5 of the
    largest. The copy is in eval mode, is laid out channels last, and cannot be trained.
    """
    fused = copy.deepcopy(model).eval()
    for module in list(fused.modules()):
        if hasattr(module, "fold_for_inference"):
            cast(Any, module).fold_for_inference()
    return fused.requires_grad_(False).to(memory_format=torch.channels_last)


def in_order(model: Method, faces: FaceSet, *, device: torch.device | str, batch_size: int) -> Loader:
    """Every face once, in order and unchanged, in the size and colour order that the model takes."""
    look: dict[str, Any] = {"size": model.image_size, "color_order": model.color_order}
    return Loader(faces, batch_size=batch_size, sampler="sequential", device=device, **look)


def count_right(model: Method, faces: FaceSet, *, device: torch.device | str, batch_size: int = 256) -> Tensor:
    """The number of faces whose largest logit is their label, int64 scalar on the device; 0 for no faces."""
    right = torch.zeros((), dtype=torch.long, device=device)
    with evaluating(model), torch.no_grad():
        for batch in in_order(model, faces, device=device, batch_size=batch_size) if len(faces) else ():
            right += (model(batch.images).argmax(1) == batch.labels).sum()
    return right
