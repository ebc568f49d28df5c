"""The names in POSTER's checkpoints."""

import re

from fer_lab.models.authors.naming import NAMES, Naming, State, inside
from fer_lab.models.authors.trunks import GATED_CLASSIFIER, IR50, MOBILEFACENET
from fer_lab.models.method import Method
from fer_lab.models.poster import POSTER

_WHOLE = {
    **NAMES["poster"],
    **GATED_CLASSIFIER,
    **inside("ir_back.", "trunk.", IR50),
    **inside("face_landback.", "landmarks.", MOBILEFACENET),
}
_STEP = dict(NAMES["poster_step"])
for _level, _width in enumerate("lms"):
    _STEP |= inside(f"block_{_width}.", f"blocks.{_level}.", NAMES["poster_block"])


def poster_naming(model: Method, state: State) -> Naming | None:
    """The names in a checkpoint of POSTER; None for another one, ValueError if the model cannot take it."""
    if not any(name.startswith("pyramid_fuse.") for name in state):
        return None
    if not isinstance(model, POSTER):
        raise ValueError(f"this is a POSTER checkpoint; {model.name} cannot take it")
    depth = 1 + max(int(m[1]) for n in state if (m := re.match(r"pyramid_fuse\.blocks\.(\d+)\.", n)))
    if depth != len(model.steps):
        known = {4: "small", 6: "base", 8: "large"}
        raise ValueError(
            f"the checkpoint has {depth} pyramid steps, this POSTER of size {model.size!r} has "
            f"{len(model.steps)}; create it with size={known.get(depth)!r}"
        )
    if model.tokens != "official":
        raise ValueError(
            "the authors' POSTER reads the image features in another order; create the model with "
            "tokens='official'"
        )
    mix = "pyramid_fuse.blocks.0.block_l.conv.weight" in state
    if mix != model.token_mix:
        raise ValueError(
            f"the checkpoint has {'a' if mix else 'no'} map over the tokens (their RAF-DB model has one, "
            f"their AffectNet model has none); create the model with token_mix={mix}"
        )
    names = dict(_WHOLE)
    for i in range(depth):
        names |= inside(f"pyramid_fuse.blocks.{i}.", f"steps.{i}.", _STEP)
    # Only their RAF-DB model maps over the tokens, and only their RAF-DB code reads BGR.
    return Naming(names, head=("classify.weight", "classify.bias"), color_order="BGR" if mix else "RGB")
