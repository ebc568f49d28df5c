"""The authors' checkpoints into our models, by name.

Every tensor of the file is either used, ignored for a reason that is on a list, or a reason to refuse the
file; every tensor of the model that the file should fill is filled. Files are read with
`torch.load(weights_only=True)`, so that a pickle cannot run code.
"""

import pickle
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from fer_lab.data.expressions import from_canonical, order_of
from fer_lab.models.authors.dan import _dan_name, _resnet_name
from fer_lab.models.authors.poster import check_poster, face_ir50_name, face_landmark_name, poster_name
from fer_lab.models.authors.qcs import check_qcs, qcs_name, read_with_recorders
from fer_lab.models.baseline import Baseline
from fer_lab.models.dan import DAN
from fer_lab.models.method import Method
from fer_lab.models.poster import POSTER
from fer_lab.models.qcs import QCS

# Keys under which authors keep the state dict inside a checkpoint file.
CONTAINERS = ("model_state_dict", "state_dict", "model", "net")


@dataclass(frozen=True)
class LoadReport:
    """What a file gave.

    Attributes:
        used: our names of the tensors that were filled.
        ignored: the file's names that have no place in the model, with the reason.
        untouched: our names that the file does not speak of (a trunk's file leaves the head alone).
        order: the label order the file's head was declared to have, or None.
        color_order: "RGB" or "BGR" where the file's origin says so; the model keeps it, and everything that
            feeds it pictures goes by that.
    """

    used: tuple[str, ...]
    ignored: dict[str, str]
    untouched: tuple[str, ...]
    order: str | None
    color_order: str | None = None

    def __str__(self) -> str:
        lines = [f"{len(self.used)} tensors loaded"]
        if self.ignored:
            lines.append(
                f"{len(self.ignored)} ignored: " + ", ".join(f"{k} ({v})" for k, v in self.ignored.items())
            )
        if self.untouched:
            shown = ", ".join(sorted({name.split(".")[0] for name in self.untouched}))
            lines.append(f"{len(self.untouched)} of ours left as they were, in {shown}")
        if self.order:
            lines.append(f"head permuted from {self.order}'s label order into the canonical one")
        if self.color_order:
            lines.append(f"takes {self.color_order} images")
        return "; ".join(lines)


def read_state_dict(path: str | Path) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint file, without a container's key or a `module.` prefix.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that is no checkpoint, or one that holds more than tensors and plain data.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content = load_file(path)
        else:
            content = _read_pickled(path)
    except Exception as error:  # torch raises half a dozen unrelated types here
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(
            f"{path} cannot be read as a weights-only checkpoint ({reason}). "
            "A file that would have to run code to load is refused."
        ) from error
    return unwrap_state_dict(content, str(path))


def _read_pickled(path: Path) -> object:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            # torch stores tensors as they are; a compressed one may unpack to any size.
            if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
                raise ValueError("compressed, which torch does not do")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        return read_with_recorders(path)


def unwrap_state_dict(content: object, origin: str = "checkpoint") -> dict[str, torch.Tensor]:
    """Find the state dict in what a checkpoint file holds.

    Raises:
        ValueError: nothing in it looks like a state dict.
    """
    if isinstance(content, Mapping):
        for key in CONTAINERS:
            if isinstance(content.get(key), Mapping):
                content = content[key]
                break
    found = content.items() if isinstance(content, Mapping) else ()
    state = {k: v for k, v in found if isinstance(k, str) and isinstance(v, torch.Tensor)}
    if not state:
        raise ValueError(
            f"{origin} holds no state dict; expected name → tensor, bare or under {', '.join(CONTAINERS)}"
        )
    return {k.removeprefix("module."): v for k, v in state.items()}


def load_official(
    model: Method, source: Mapping[str, torch.Tensor] | str | Path, order: str | None = None
) -> LoadReport:
    """Fill a model from a checkpoint in its authors' names.

    Args:
        model: DAN, or a model with a ResNet-18 trunk for a face-recognition ResNet-18; POSTER for a
            checkpoint of its own depth, a face-recognition IR-50 (its trunk) or a MobileFaceNet for 68
            landmarks (its landmark stream); QCS or DCS for theirs, or for a face-recognition IR-50.
        source: a state dict or a file's path.
        order: the data set whose label order the checkpoint's head has ("rafdb", "affectnet", …); the head
            is permuted into the canonical order. None leaves it as it is.

    Returns:
        What was used, ignored and left. The model is changed only if everything fits.

    Raises:
        ValueError: a tensor that is neither known nor on the list of those without effect, one that is
            missing, or one whose shape is not the model's (both shapes are named).
    """
    state = read_state_dict(source) if isinstance(source, str | Path) else unwrap_state_dict(source)
    rename, head, part = _renaming(model, state)
    own = model.state_dict()
    filled: dict[str, torch.Tensor] = {}
    ignored: dict[str, str] = {}
    refused: list[str] = []
    for name, tensor in state.items():
        target = rename(name)
        if target is None:
            refused.append(name)
        elif target.startswith("#"):
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
    expected = {name for name in own if name.startswith(part)}
    # Old files have no batch counters; they only matter for a BatchNorm without momentum.
    missing = [n for n in expected - filled.keys() if not n.endswith("num_batches_tracked") and n != "centers"]
    if missing:
        raise ValueError(f"the checkpoint lacks {len(missing)} tensors: {', '.join(sorted(missing)[:8])}")
    if order is not None:
        if not head:
            raise ValueError("order was given, but the checkpoint has no expression classifier to permute")
        if len(order_of(order, model.num_classes)) != model.num_classes:
            raise ValueError(f"{order} does not have {model.num_classes} classes")
        table = from_canonical(order, model.num_classes)
        for name in head:
            filled[name] = filled[name][table]
    model.load_state_dict(filled, strict=False)
    color_order = None
    if isinstance(model, POSTER) and head:
        # Only their RAF-DB model maps over the tokens, and only their RAF-DB code reads BGR.
        color_order = model.color_order = "BGR" if model.token_mix else "RGB"
    return LoadReport(
        used=tuple(filled),
        ignored=ignored,
        untouched=tuple(name for name in own if name not in filled),
        order=order,
        color_order=color_order,
    )


def _renaming(model: Method, state: Mapping) -> tuple[Callable[[str], str | None], tuple[str, ...], str]:
    """(their name → ours, "#reason" to ignore it, None to refuse it; our names of the head's rows; the prefix
    of what the file must fill)."""
    if any(name.startswith("cat_head") for name in state):
        if not isinstance(model, DAN):
            raise ValueError(f"this is a DAN checkpoint; {model.name} cannot take it")
        count = 1 + max(int(m[1]) for n in state if (m := re.match(r"cat_head(\d+)\.", n)))
        if count != len(model.heads):
            raise ValueError(f"the checkpoint has {count} attention heads, this DAN has {len(model.heads)}")
        rows = ("fusion.fc.weight", "fusion.fc.bias")
        return (
            _dan_name,
            rows + tuple(f"fusion.norm.{k}" for k in ("weight", "bias", "running_mean", "running_var")),
            "",
        )
    if "conv1.weight" in state and any(name.startswith("layer1.") for name in state):
        if not isinstance(model, DAN | Baseline):
            raise ValueError(f"this is a ResNet-18 checkpoint; {model.name} has no ResNet-18 trunk")
        return _resnet_name, (), "trunk."
    if any(name.startswith("pyramid_fuse.") for name in state):
        check_poster(model, state)
        return poster_name, ("classify.weight", "classify.bias"), ""
    if any(name.startswith("VIT_base.") for name in state):
        check_qcs(model, state)
        rows = [
            f"{branch}.classify.{kind}" for branch in ("base", "cross_branch") for kind in ("weight", "bias")
        ]
        return qcs_name, tuple(rows), ""
    if "input_layer.0.weight" in state:
        if not (isinstance(model, POSTER | QCS) and model.size != "tiny"):
            raise ValueError(f"an IR-50: {model.name} ({model.size}) has no such trunk")
        return face_ir50_name, (), "trunk."
    if "conv_6_sep.conv.weight" in state:
        if not (isinstance(model, POSTER) and model.size != "tiny" and model.landmarks is not None):
            raise ValueError(f"a MobileFaceNet: {model.name} ({model.size}) has no such landmark stream")
        return face_landmark_name, (), "landmarks."
    shown = ", ".join(list(state)[:4])
    raise ValueError(
        f"no known checkpoint has these names: {shown}, …; expected DAN, POSTER, QCS, DCS, a face "
        "ResNet-18, a face IR-50 or a MobileFaceNet for landmarks"
    )
