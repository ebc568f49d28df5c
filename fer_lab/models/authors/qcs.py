"""The names in QCS's and DCS's checkpoints → ours, and reading those files, which hold more than tensors.

`qcs_name` takes a name of theirs and gives ours, "#reason" for a tensor that is ignored, or None for a name
that it does not know.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from fer_lab.models.authors.poster import IR_UNIT
from fer_lab.models.method import Method
from fer_lab.models.qcs import QCS

_IDLE = "#never acts in the authors' model"
_REST = {"conv1": "reduce.0", "conv2": "reduce.1", "conv3": "reduce.2"}
# Later versions of their code call the embeddings by numbers.
for _i, _names in enumerate((("embed_q", "embed_1"), ("embed_k", "embed_2"), ("embed_v", "embed_3"))):
    _REST |= dict.fromkeys(_names, f"embed_taps.{_i}")
_CLASSIFIER = {
    "cls_token": "class_token",
    "pos_embed": "positions",
    "se_block.linear1": "gate.squeeze",
    "se_block.linear2": "gate.excite",
    "head.linear": "classify",
    "norm": "norm",
}
_BLOCK = {
    "norm1": "norm1",
    "norm2": "norm2",
    "attn.qkv": "attention.qkv",
    "attn.proj": "attention.proj",
    "mlp.fc1": "mlp.0",
    "mlp.fc2": "mlp.3",
}


def qcs_name(name: str) -> str | None:
    """A name in a checkpoint of QCS or DCS."""
    if m := re.fullmatch(r"ir_back\.(.+)", name):
        return _trunk_name(m[1])
    if m := re.fullmatch(r"VIT_(base|cross)\.(.+)", name):
        return _classifier_name("base" if m[1] == "base" else "cross_branch", m[2])
    if name.startswith("fusion.classifier."):
        return _IDLE
    if m := re.fullmatch(r"cross_attention_([123])\.(theta|(?:norm[12]|proj|mlp\.fc[12])\.\w+)", name):
        inner = m[2].replace("mlp.fc1", "mlp.0").replace("mlp.fc2", "mlp.3")
        return f"cross.{int(m[1]) - 1}.{inner}"
    if m := re.fullmatch(r"(conv[123]|embed_[qkv123])\.(.+)", name):
        # A single convolution may stand in a list of one, or under "proj".
        inner = m[2].removeprefix("proj.")
        single = m[1][-1] not in "q1" or m[1].startswith("conv")
        return f"{_REST[m[1]]}.{inner.removeprefix('0.') if single else inner}"
    return None


def _trunk_name(name: str) -> str | None:
    if name.startswith("output_layer."):
        return "#IR-50's output for identities, which never acts here"
    if m := re.fullmatch(r"input_layer\.([0-2]\..+)", name):
        return f"trunk.stem.{m[1]}"
    if m := re.fullmatch(r"body([123])\.(\d+)\.(shortcut_layer|res_layer)\.([0-4])\.(.+)", name):
        inner = f"shortcut.{m[4]}" if m[3] == "shortcut_layer" else IR_UNIT[int(m[4])]
        return f"trunk.stages.{int(m[1]) - 1}.{m[2]}.{inner}.{m[5]}"
    return None


def _classifier_name(branch: str, name: str) -> str | None:
    if re.match(r"(patch_embed|eca_block|CON1|IRLinear[12])\.|blocks\.\d+\.conv\.", name):
        return _IDLE
    if name in _CLASSIFIER:
        return f"{branch}.{_CLASSIFIER[name]}"
    place, _, kind = name.rpartition(".")
    if place in _CLASSIFIER:
        return f"{branch}.{_CLASSIFIER[place]}.{kind}"
    if (m := re.fullmatch(r"blocks\.(\d+)\.(.+)", place)) and m[2] in _BLOCK:
        return f"{branch}.blocks.{m[1]}.{_BLOCK[m[2]]}.{kind}"
    return None


def check_qcs(model: Method, state: Mapping) -> None:
    """Raise ValueError, with what to change, for a checkpoint of QCS or DCS that is not of this model."""
    if not isinstance(model, QCS):
        raise ValueError(f"this is a QCS or DCS checkpoint; {model.name} cannot take it")
    theirs = "qcs" if "cross_attention_1.theta" in state else "dcs"
    if model.cross is None:
        raise ValueError("the checkpoint has a cross branch; create the model with form='sd'")
    ours = "qcs" if model.form == "sd" else "dcs" if model.branches == 2 else f"qcs with form={model.form!r}"
    if theirs != ours:
        raise ValueError(
            f"this is a {theirs.upper()} checkpoint and the model is {ours}; use create_model({theirs!r}, …)"
        )


class _Inert:
    """Stands for a class of a checkpoint's author: holds what the file says and does nothing."""


def read_with_recorders(path: Path) -> object:
    """What a checkpoint holds that keeps the training script's recorder objects beside its tensors.

    Still a weights-only load: every class named like a recorder is replaced by one without code, and besides
    it nothing is admitted but NumPy's arrays.

    Raises:
        Exception: whatever torch raises for a file that would have to run other code.
    """
    wanted = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    recorders = [name for name in wanted if re.fullmatch(r"[\w.]*\.?Recorder\w*", name)]
    dtypes = [type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8", "b1")]
    reconstruct = np.empty(0).__reduce__()[0]
    arrays = [np.ndarray, np.dtype, *dtypes, reconstruct]
    # NumPy 2 moved the function; files written before it use the old name.
    arrays.append((reconstruct, "numpy.core.multiarray._reconstruct"))
    with torch.serialization.safe_globals([*arrays, *((_Inert, name) for name in recorders)]):
        return torch.load(path, map_location="cpu", weights_only=True)
