"""What a training starts from, and authors' checkpoints as files of ours."""

import warnings
from pathlib import Path

import torch
from torch import nn

from fer_lab._device import best_device
from fer_lab.data.expressions import CANONICAL, ORDERS, order_of, to_canonical
from fer_lab.data.faces import FaceSet
from fer_lab.models.authors.faceres import trunk_digest
from fer_lab.models.authors.loading import LoadReport, load_official
from fer_lab.models.inference import fuse, in_order
from fer_lab.models.method import Method
from fer_lab.models.weights import check_target, load_weights, save_model


def start_from_weights(model: Method, path: Path, order: str = "") -> str:
    """Fill a model from a file of ours, or from a checkpoint in its authors' names.

    `.safetensors` is a file of ours; `load_official` reads every other one, of a model or its trunk, and what
    `fer-lab trunk` has written. `order`: the data set whose label order the head of an authors' checkpoint has;
    "" leaves it as it is. Returns a sentence on what was filled. Raises FileNotFoundError, or ValueError for a
    file that does not fit, or an order for a file of ours, whose head is canonical.
    """
    if path.suffix != ".safetensors" or trunk_digest(path):
        return str(load_official(model, path, order or None))
    if order:
        raise ValueError(f"{path.name} is in the canonical label order already; leave order={order!r} out")
    load_weights(model, path)
    return f"all tensors of {path.name}"


def convert(model: Method, checkpoint: Path, out: Path, *, order: str = "", force: bool = False) -> LoadReport:
    """Write an authors' checkpoint as a file of ours, which everything here opens: evaluate, predict, explorer.

    `model`: one that it fits, which it fills. `order`: the data set whose label order the checkpoint's head
    has; without it a warning says that the order of the classes is unknown. `force`: write over a file that is
    there, instead of FileExistsError. Raises FileNotFoundError, or ValueError for an `out` that is not
    .safetensors, an unknown order, a checkpoint that does not fit, or one of a trunk that cannot predict.
    """
    check_target(out, force=force)
    if order:
        order_of(order)
    report = load_official(model, checkpoint, order or None)
    # No file has the training loss's centers, which do not act in eval mode.
    acting = [name for name in report.untouched if not name.endswith("centers")]
    if left := sorted({name.partition(".")[0] for name in acting}):
        raise ValueError(
            f"{checkpoint.name} fills a part of {model.name} and leaves {', '.join(left)} at random; train "
            f"from it: fer-lab train {model.name} --size {model.size} --weights {checkpoint}"
        )
    if not order:
        warnings.warn(
            f"the label order of {checkpoint.name} is unknown, and is taken to be the canonical one "
            f"({', '.join(model.classes)}); a wrong order is the usual reason for a bad score: name the "
            "checkpoint's data set with --order, or let --guess-order find it",
            stacklevel=2,
        )
    save_model(model, out, origin=checkpoint.name, order=order)
    return report


def order_scores(model: Method, checkpoint: Path, faces: FaceSet) -> dict[str, float]:
    """Accuracy of an authors' checkpoint under every label order that its head may have, best first.

    Takes faces with canonical labels, those of training, so that no test face takes part in the choice, and
    looks at 50 of a class, at most; the rest is as `convert` takes it. Raises ValueError for a checkpoint
    that does not fit, or classes that are not canonical.
    """
    if faces.classes != CANONICAL[: faces.num_classes]:
        raise ValueError(f"{faces.name} has classes {', '.join(faces.classes)}; expected the canonical ones")
    load_official(model, checkpoint)
    members = [(faces.labels == label).nonzero().squeeze(1) for label in range(faces.num_classes)]
    few = faces.subset(
        torch.cat([rows[torch.linspace(0, len(rows) - 1, min(50, len(rows))).long()] for rows in members])
    )
    device = best_device()
    network = fuse(model).to(device)
    with torch.inference_mode():
        batches = in_order(network, few, device=device, batch_size=32)
        own = torch.cat([network(batch.images).argmax(1).cpu() for batch in batches])
    scores: dict[tuple[int, ...], tuple[float, str]] = {}
    for order, names in ORDERS.items():
        if len(names) >= model.num_classes:
            table = to_canonical(order, model.num_classes)
            accuracy = float((table[own] == few.labels).float().mean())
            # Two names of one order are one candidate.
            scores.setdefault(tuple(table.tolist()), (accuracy, order))
    return {order: accuracy for accuracy, order in sorted(scores.values(), key=lambda pair: -pair[0])}


def start_from_trunk(model: Method, trained: Method) -> str:
    """Copy the trunk of a trained model into another one, as the papers start from face recognition's.

    Where both models name more than the trunk as their `backbone`, as QCS and DCS do with their base network,
    these parts are copied too. Returns a sentence on what was copied. Raises ValueError where one of the two
    has no trunk, or parts that both have differ.
    """
    own, source = (getattr(method, "trunk", None) for method in (model, trained))
    if not (isinstance(own, nn.Module) and isinstance(source, nn.Module)):
        raise ValueError(f"{model.name} and {trained.name} must both have a trunk to hand one over")
    shared = [part for part in model.backbone if part in trained.backbone]
    pairs = [(model.get_submodule(part), trained.get_submodule(part)) for part in shared]
    for part, (mine, theirs) in zip(shared, pairs, strict=True):
        shapes = [{key: value.shape for key, value in one.state_dict().items()} for one in (mine, theirs)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"{part} of {trained.name} ({trained.size}), {model.name} ({model.size}) differ")
    for mine, theirs in pairs:
        mine.load_state_dict(theirs.state_dict())
    return f"{', '.join(shared)} of {trained.name}"
