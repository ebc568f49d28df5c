"""The authors' checkpoints into our models, by name.

Every tensor of the file is either used, ignored for a reason that is on a list, or a reason to refuse the
file; every tensor of the model that the file should fill is filled. Files are read with
`torch.load(weights_only=True)`, so that a pickle cannot run code.
"""

import pickle
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from fer_lab.data.expressions import from_canonical
from fer_lab.models.authors.dan import dan_naming
from fer_lab.models.authors.naming import Naming, State
from fer_lab.models.authors.poster import poster_naming
from fer_lab.models.authors.qcs import qcs_naming, read_with_recorders
from fer_lab.models.authors.trunks import trunk_naming
from fer_lab.models.method import Method

# Keys under which a checkpoint file keeps the state dict, one inside the other. The running average of the
# weights, where a file has one, is what its training script evaluated.
AVERAGES = ("state_dict_ema", "model_ema", "ema_state_dict", "ema")
CONTAINERS = (*AVERAGES, "model_state_dict", "state_dict", "model", "net", "module")
# Parts of a name that torch.compile and DataParallel put in, at any depth.
WRAPPERS = ("_orig_mod", "module")
# Beside a network: AveragedModel's counter, and the class weights in a Lightning module's loss.
NO_NETWORK = ("n_averaged", "criterion.", "loss.", "loss_fn.")
COUNTER = "num_batches_tracked"


@dataclass(frozen=True)
class LoadReport:
    """What a checkpoint filled."""

    used: tuple[str, ...]  # our names of the tensors that were filled
    ignored: dict[str, str]  # the checkpoint's names that have no place in the model, with the reason
    # Our names that the checkpoint does not have (a trunk's file has no head), apart from the BatchNorms'
    # counters of batches, which old files lack and which only act without a momentum.
    untouched: tuple[str, ...]
    order: str | None  # the label order that was declared for the checkpoint's head
    # "RGB" or "BGR" where the checkpoint's origin tells it. The model keeps it, and all that feeds it follows
    # it.
    color_order: str | None = None

    def __str__(self) -> str:
        lines = [f"{len(self.used)} tensors loaded"]
        if self.ignored:
            reasons = ", ".join(f"{name} ({reason})" for name, reason in self.ignored.items())
            lines.append(f"{len(self.ignored)} ignored: {reasons}")
        if self.untouched:
            shown = ", ".join(sorted({name.split(".")[0] for name in self.untouched}))
            lines.append(f"{len(self.untouched)} of ours left as they were, in {shown}")
        if self.order:
            lines.append(f"head permuted from {self.order}'s label order into the canonical one")
        if self.color_order:
            lines.append(f"takes {self.color_order} images")
        return "; ".join(lines)


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint file, without containers and without the prefixes of wrappers.

    A file with the weights and their running average gives the average, with a warning. Raises
    FileNotFoundError, or ValueError for no checkpoint, or one of more than tensors and plain data.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    try:
        if path.suffix == ".safetensors":
            content: object = safetensors.torch.load_file(path)
        else:
            content = _read_pickled(path)
    except Exception as error:  # torch raises half a dozen unrelated types here
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(
            f"{path} cannot be read as a weights-only checkpoint ({reason}). "
            "A file that would have to run code to load is refused."
        ) from error
    return _state_dict_in(content, str(path))


def _read_pickled(path: Path) -> object:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            # torch stores tensors uncompressed; a compressed one may unpack to any size.
            if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
                raise ValueError("compressed, which torch does not do")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        return read_with_recorders(path)


def _state_dict_in(content: object, origin: str = "checkpoint") -> dict[str, Tensor]:
    while isinstance(content, Mapping):
        inside = [key for key in CONTAINERS if isinstance(content.get(key), Mapping)]
        if not inside:
            break
        if inside[0] in AVERAGES and set(inside) - set(AVERAGES):
            average = f"{inside[0]}, the running average, is read"
            warnings.warn(f"{origin} holds {' and '.join(inside)}; {average}", stacklevel=4)
        content = content[inside[0]]
    items = content.items() if isinstance(content, Mapping) else ()
    state = {k: v for k, v in items if isinstance(k, str) and isinstance(v, Tensor)}
    if aside := [name for name in state if name.startswith(NO_NETWORK)]:
        warnings.warn(f"{origin}: {', '.join(aside)} left out, not part of a network", stacklevel=4)
        state = {name: tensor for name, tensor in state.items() if name not in aside}
    if not state:
        raise ValueError(f"{origin} holds no state dict: name → tensor, bare or under {', '.join(CONTAINERS)}")
    names = [[part for part in name.split(".") if part not in WRAPPERS] for name in state]
    # `model.` of Lightning, `net.` and the like: no network here has a single part that holds all others.
    while len(names) > 1 and all(len(name) > 1 and name[0] == names[0][0] for name in names):
        names = [name[1:] for name in names]
    unwrapped = {".".join(name): tensor for name, tensor in zip(names, state.values(), strict=True)}
    if len(unwrapped) < len(state):
        raise ValueError(f"{origin} holds tensors under the same name with and without {' or '.join(WRAPPERS)}")
    return unwrapped


def load_official(model: Method, source: State | str | Path, order: str | None = None) -> LoadReport:
    """Fill a model from a checkpoint in its authors' names.

    Args:
        model: DAN, or a model with a ResNet-18 trunk for a face-recognition ResNet-18; POSTER for a
            checkpoint of its own depth, a face-recognition IR-50 (its trunk) or a MobileFaceNet for 68
            landmarks (its landmark stream); QCS or DCS for theirs, or for a face-recognition IR-50.
        source: a state dict or a file's path.
        order: the data set whose label order the checkpoint's head has ("rafdb", "affectnet", …); the head
            is permuted into the canonical order. None leaves it as it is.

    Returns what was used, ignored and left. The model is changed only if everything fits. Raises
    FileNotFoundError, or ValueError for a tensor that is neither known nor on the list of those without effect,
    one that is missing, or one whose shape is not the model's (both shapes are named).

    Example:
        >>> model = create_model("dan", size="paper")
        >>> print(load_official(model, "dan_rafdb.pth", order="rafdb"))
    """
    state = read_state_dict(source) if isinstance(source, str | Path) else _state_dict_in(source)
    naming = _naming_of(model, state)
    filled, ignored = _rename(state, naming, model)
    own = list(model.state_dict())
    expected = {name for name in own if name.startswith(naming.part)} - {"centers"}
    missing = [name for name in expected - filled.keys() if not name.endswith(COUNTER)]
    if missing:
        raise ValueError(f"the checkpoint lacks {len(missing)} tensors: {', '.join(sorted(missing)[:8])}")
    if order is not None:
        if not naming.head:
            raise ValueError("order was given, but the checkpoint has no expression classifier to permute")
        table = from_canonical(order, model.num_classes)
        filled |= {name: filled[name][table] for name in naming.head}
    model.load_state_dict(filled, strict=False)
    model.color_order = naming.color_order or model.color_order
    return LoadReport(
        used=tuple(filled),
        ignored=ignored,
        untouched=tuple(name for name in own if name not in filled and not name.endswith(COUNTER)),
        order=order,
        color_order=naming.color_order,
    )


def _naming_of(model: Method, state: State) -> Naming:
    for kind in (dan_naming, poster_naming, qcs_naming, trunk_naming):
        if (naming := kind(model, state)) is not None:
            return naming
    raise ValueError(
        f"no known checkpoint has these names: {', '.join(list(state)[:4])}, …; expected DAN, POSTER, QCS, "
        "DCS, a face ResNet-18, a face IR-50 or a MobileFaceNet for landmarks"
    )


def _rename(state: State, naming: Naming, model: Method) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(our name → tensor that fits; their name → reason to ignore it)."""
    own = model.state_dict()
    filled: dict[str, Tensor] = {}
    ignored: dict[str, str] = {}
    refused: list[str] = []
    for name, tensor in state.items():
        target = naming.rename(name)
        if target is not None and target.startswith("#"):
            ignored[name] = target[1:]
        elif target not in own:
            refused.append(name)
        elif own[target].shape != tensor.shape:
            raise ValueError(
                f"{name} is {list(tensor.shape)} in the checkpoint, {target} is {list(own[target].shape)} in "
                f"this {model.name} of size {model.size!r} with {model.num_classes} classes"
            )
        else:
            filled[target] = tensor
    if refused:
        raise ValueError(f"{len(refused)} tensors have no place in {model.name}: {', '.join(refused[:8])}")
    return filled, ignored
