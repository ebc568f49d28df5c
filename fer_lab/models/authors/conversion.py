"""What a training starts from, and authors' checkpoints as files of ours."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from fer_lab.models.authors.loading import LoadReport, load_official
from fer_lab.models.method import Method, create_model
from fer_lab.models.weights import load_weights, save_model


def start_from_weights(model: Method, path: Path, order: str = "") -> str:
    """Fill a model from a file of ours, or from a checkpoint in its authors' names.

    Args:
        path: `.safetensors` is a file of ours; `load_official` reads every other one, of a model or its trunk.
        order: the data set whose label order the head of an authors' checkpoint has; "" leaves it as it is.

    Returns:
        A sentence on what was filled.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file does not fit, or there is an order for a file of ours, whose head is canonical.
    """
    if path.suffix != ".safetensors":
        return str(load_official(model, path, order or None))
    if order:
        raise ValueError(f"{path.name} is in the canonical label order already; leave order={order!r} out")
    load_weights(model, path)
    return f"all tensors of {path.name}"


def convert(
    checkpoint: Path,
    out: Path,
    *,
    model: str,
    size: str = "paper",
    num_classes: int = 7,
    options: Mapping[str, Any] | None = None,
    order: str = "",
) -> LoadReport:
    """Write an authors' checkpoint as a file of ours, which everything here opens: evaluate, predict, explorer.

    Args:
        checkpoint: in its authors' names.
        out: safetensors with a card.
        model, size, num_classes, options: the model that the checkpoint is of, as `create_model` takes them.
        order: the data set whose label order its head has; "" leaves it as it is.

    Raises:
        FileNotFoundError: no such file.
        ValueError: `out` is not .safetensors; the checkpoint does not fit, or is of a trunk alone, which cannot
            predict anything.
    """
    if out.suffix != ".safetensors":
        raise ValueError(f"weights are written as .safetensors, got {out.name!r}")
    network = create_model(model, num_classes=num_classes, size=size, **(options or {}))
    report = load_official(network, checkpoint, order or None)
    # Old files have no batch counters, and no file has the training loss's centers: neither acts in eval mode.
    acting = [name for name in report.untouched if not name.endswith(("num_batches_tracked", "centers"))]
    if left := sorted({name.partition(".")[0] for name in acting}):
        raise ValueError(
            f"{checkpoint.name} fills a part of {model} and leaves {', '.join(left)} at random; train from it: "
            f"fer-lab train {model} --size {size} --weights {checkpoint}"
        )
    save_model(network, out, origin=checkpoint.name, order=order)
    return report


def start_from_trunk(model: Method, trained: Method) -> None:
    """Copy the trunk of a trained model into another method's, as the papers start from face recognition's.

    Raises:
        ValueError: one of the two has no trunk, or their trunks differ.
    """
    own, source = (getattr(method, "trunk", None) for method in (model, trained))
    if not (isinstance(own, nn.Module) and isinstance(source, nn.Module)):
        raise ValueError(f"{model.name} and {trained.name} must both have a trunk to hand one over")
    if {k: v.shape for k, v in own.state_dict().items()} != {
        k: v.shape for k, v in source.state_dict().items()
    }:
        raise ValueError(
            f"the trunks of {trained.name} ({trained.size}) and {model.name} ({model.size}) differ"
        )
    own.load_state_dict(source.state_dict())
