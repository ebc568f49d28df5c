"""The names in QCS's and DCS's checkpoints, and reading those files, which hold more than tensors."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fer_lab.models.authors.naming import NAMES, Naming, State, inside
from fer_lab.models.authors.trunks import GATED_CLASSIFIER, IR50
from fer_lab.models.method import Method
from fer_lab.models.qcs import QCS


def qcs_names(depth: int) -> dict[str, str]:
    """The table of names of QCS and DCS whose classifiers have `depth` blocks."""
    names = {"fusion.classifier": "#never acts in the authors' model", **inside("ir_back.", "trunk.", IR50)}
    for theirs, ours in NAMES["qcs"].items():
        names |= {theirs: ours, f"{theirs}.proj": ours}
        # A single convolution may be in a list of one; those of the first embedding are two.
        if ours != "embed_taps.0":
            names |= {f"{theirs}.0": ours, f"{theirs}.proj.0": ours}
    for i in range(3):
        names |= inside(f"cross_attention_{i + 1}.", f"cross.{i}.", NAMES["qcs_cross"])
    classifier = NAMES["qcs_classifier"] | GATED_CLASSIFIER
    for i in range(depth):
        classifier |= inside(f"blocks.{i}.", f"blocks.{i}.", NAMES["qcs_block"])
    return names | inside("VIT_base.", "base.", classifier) | inside("VIT_cross.", "cross_branch.", classifier)


def qcs_naming(model: Method, state: State) -> Naming | None:
    """The names in a checkpoint of QCS or DCS; None for another one, ValueError if the model cannot take it."""
    if not any(name.startswith("VIT_base.") for name in state):
        return None
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
    rows = [f"{branch}.classify.{kind}" for branch in ("base", "cross_branch") for kind in ("weight", "bias")]
    return Naming(qcs_names(len(model.base.blocks)), head=tuple(rows))


class _Inert:
    """Takes the place of a class of a checkpoint's author: holds what the file says and does nothing."""


def read_with_recorders(path: Path) -> object:
    """What a checkpoint holds that keeps the training script's recorder objects next to its tensors.

    Still a weights-only load: a class without code replaces every class that is named like a recorder, and
    apart from them only NumPy's arrays are admitted. torch raises for a file that would run other code.
    """
    wanted = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    recorders = [name for name in wanted if re.fullmatch(r"[\w.]*\.?Recorder\w*", name)]
    dtypes = [type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8", "b1")]
    reconstruct: Any = np.empty(0).__reduce__()[0]
    admitted: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [np.ndarray, np.dtype, *dtypes]
    # NumPy 2 moved the function; files written before it use the old name.
    admitted += [reconstruct, (reconstruct, "numpy.core.multiarray._reconstruct")]
    with torch.serialization.safe_globals([*admitted, *((_Inert, name) for name in recorders)]):
        return torch.load(path, map_location="cpu", weights_only=True)
