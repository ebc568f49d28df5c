"""The form of a model for inference: the same answers from fewer passes over the features.

In eval mode a BatchNorm is a fixed scale and shift of each channel, so it goes into the convolution (or linear
layer) in front of it. What belongs together is read off one picture's way through the network, not off names:
a pair is folded where the BatchNorm is the only reader of what the convolution gave. A module that knows more,
such as DAN's three parallel convolutions, says so by a method `fold_for_inference`. What took no part in the
answer, the embedding or the maps (QCS's cross branch, POSTER's head for points) is left out.
"""

import copy
from collections import defaultdict

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import fusion

from fer_lab.data.faces import FaceSet
from fer_lab.data.loader import Loader
from fer_lab.models.method import Method

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@torch.inference_mode(False)
def fuse(model: Method) -> Method:
    """A copy for inference that gives the model's answers in eval mode, embedding and attention maps included.

    In fp32 they agree to 1e-5 of the largest number. The copy is in eval mode, laid out channels last, and
    takes no gradient on its weights; it is of no use for training. The model stays as it is.

    Args:
        model: any method, on any device, in any mode.
    """
    fused = copy.deepcopy(model).eval().requires_grad_(True)
    pairs, used = _follow(fused)
    _leave_out(fused, used)
    swaps: dict[nn.Module, nn.Module] = {}
    for layer, norm in pairs:
        if norm.weight is None:
            # torch's function for linear layers knows no BatchNorm without scale and shift.
            norm.weight = nn.Parameter(torch.ones_like(norm.running_var))
            norm.bias = nn.Parameter(torch.zeros_like(norm.running_var))
        fold = fusion.fuse_linear_bn_eval if isinstance(layer, nn.Linear) else fusion.fuse_conv_bn_eval
        swaps |= {layer: fold(layer, norm), norm: nn.Identity()}
    _replace(fused, swaps)
    for module in list(fused.modules()):
        if hasattr(module, "fold_for_inference"):
            module.fold_for_inference()
    return fused.requires_grad_(False).to(memory_format=torch.channels_last)


def _follow(model: Method) -> tuple[list[tuple[nn.Module, nn.Module]], set[nn.Module]]:
    """Send one picture through a model in eval mode whose parameters take gradients.

    Returns:
        (layer, BatchNorm) pairs that may become one layer, and every module that took part.
    """
    calls: dict[nn.Module, list] = defaultdict(list)

    def keep(module, _inputs, output):
        # Taken at once: an activation that writes over the tensor gives it another origin.
        made = isinstance(output, torch.Tensor) and (output.ndim == 2 or not isinstance(module, nn.Linear))
        calls[module].append(output.grad_fn if made else None)

    handles = [module.register_forward_hook(keep) for module in model.modules()]
    try:
        outputs = _outputs(model)
    finally:
        for handle in handles:
            handle.remove()

    readers: dict[object, set] = defaultdict(set)
    reached = set()
    # From every module's output, too: maps may come back without their history.
    ahead = [tensor.grad_fn for tensor in outputs] + [node for nodes in calls.values() for node in nodes]
    ahead = [node for node in dict.fromkeys(ahead) if node is not None]
    seen = set(ahead)
    while ahead:
        node = ahead.pop()
        if hasattr(node, "variable"):
            reached.add(node.variable)
        for before, _ in node.next_functions:
            if before is not None:
                readers[before].add(node)
                if before not in seen:
                    seen.add(before)
                    ahead.append(before)

    made_by = {node: module for module in calls if isinstance(module, _BatchNorm) for node in calls[module]}
    pairs = []
    for layer, nodes in calls.items():
        if not isinstance(layer, (*_CONVOLUTIONS, nn.Linear)) or None in nodes:
            continue
        after = {made_by.get(reader) for node in nodes for reader in readers[node]}
        norm = after.pop() if len(after) == 1 else None
        once = all(len(readers[node]) == 1 for node in nodes)
        if norm is None or not once or len(calls[norm]) != len(nodes) or norm.running_mean is None:
            continue
        pairs.append((layer, norm))
    used = {
        module
        for module in model.modules()
        if any(one in calls for one in module.modules()) or any(p in reached for p in module.parameters())
    }
    return pairs, used


def _outputs(model: Method) -> list[torch.Tensor]:
    """Logits, embedding and maps of a grey picture, with their history."""
    side, device = model.image_size, next(model.parameters()).device
    with torch.enable_grad():
        images = torch.zeros(1, 3, side, side, device=device, requires_grad=True)
        outputs = [model(images)]
        for further in (model.embed, *([model.attention_maps] if model.has_face_maps else [])):
            try:
                found = further(images)
            except NotImplementedError:  # a method of the reader's own may do without
                continue
            outputs += found.values() if isinstance(found, dict) else [found]
    return outputs


def _replace(model: nn.Module, swaps: dict[nn.Module, nn.Module]) -> None:
    """Put other modules in the places of some, wherever in the model these are held."""
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child in swaps:
                setattr(parent, name, swaps[child])


def _leave_out(model: nn.Module, used: set[nn.Module]) -> None:
    """Set modules with parameters that took no part to None; a container keeps its length."""
    container = isinstance(model, nn.Sequential | nn.ModuleList)
    for name, child in list(model.named_children()):
        if child in used:
            _leave_out(child, used)
        elif next(child.parameters(), None) is not None and not container:
            setattr(model, name, None)


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
    """How many faces' largest logit is their label, a number on the device; 0 for no faces."""
    was_training = model.training
    model.eval()
    right = torch.zeros((), dtype=torch.long, device=device)
    with torch.no_grad():
        for batch in in_order(model, faces, device=device, batch_size=batch_size) if len(faces) else ():
            right += (model(batch.images).argmax(1) == batch.labels).sum()
    model.train(was_training)
    return right
