"""The form of a model for inference: the same answers from fewer operations."""

import copy

import torch

from fer_lab.data.faces import FaceSet
from fer_lab.data.loader import Loader
from fer_lab.models.layers import Folds, evaluating
from fer_lab.models.method import Method


@torch.inference_mode(False)
def fuse(model: Method) -> Method:
    """A copy for inference that gives the model's logits, embedding and attention maps of eval mode.

    Every module that has a method `fold_for_inference` simplifies itself: BatchNorms go into the layers in
    front of them, and what takes no part in the answer is left out. In fp32 the numbers agree to 1e-5 of the
    largest. The copy is in eval mode, is laid out channels last, and cannot be trained. The model stays as it
    is.

    Args:
        model: any method, on any device, in any mode.
    """
    fused = copy.deepcopy(model).eval()
    for module in list(fused.modules()):
        if isinstance(module, Folds):
            module.fold_for_inference()
    return fused.requires_grad_(False).to(memory_format=torch.channels_last)


def in_order(model: Method, faces: FaceSet, *, device: torch.device | str, batch_size: int) -> Loader:
    """Every face once, in order and unchanged, in the size and colour order that the model takes."""
    return Loader(
        faces,
        batch_size=batch_size,
        size=model.image_size,
        sampler="sequential",
        device=device,
        color_order=model.color_order,
    )


def count_right(
    model: Method, faces: FaceSet, *, device: torch.device | str, batch_size: int = 256
) -> torch.Tensor:
    """The number of faces whose largest logit is their label, int64 scalar on the device; 0 for no faces."""
    right = torch.zeros((), dtype=torch.long, device=device)
    with evaluating(model), torch.no_grad():
        for batch in in_order(model, faces, device=device, batch_size=batch_size) if len(faces) else ():
            right += (model(batch.images).argmax(1) == batch.labels).sum()
    return right
