"""The names in POSTER's checkpoints."""

import re

from fer_lab.models.authors.naming import Naming, State, inside
from fer_lab.models.authors.trunks import GATED_CLASSIFIER, IR50, MOBILEFACENET
from fer_lab.models.method import Method
from fer_lab.models.poster import POSTER

_WHOLE = {
    "ir_layer": "image_embedding",
    "pyramid_fuse.pos_embed": "positions",
    "pyramid_fuse.cls_token": "#a class token that never acts",
    "pyramid_fuse.norm": "norm",
    "pyramid_fuse.downsample_m": "narrow.0",
    "pyramid_fuse.downsample_s": "narrow.1",
    **GATED_CLASSIFIER,
    **inside("ir_back.", "trunk.", IR50),
    **inside("face_landback.", "landmarks.", MOBILEFACENET),
}
_BLOCK = {"attn_img": "image_attention", "attn_lm": "landmark_attention", "conv": "mix"}
_BLOCK |= {f"norm{i}": f"norm{i}" for i in range(1, 5)}
for _theirs, _ours in (("mlp1.", "image_mlp."), ("mlp2.", "landmark_mlp.")):
    _BLOCK |= inside(_theirs, _ours, {"fc1": "0", "fc2": "2"})
_STEP = {"upsample_m": "widen.0", "upsample_s": "widen.1"}
for _level, _width in enumerate("lms"):
    _STEP |= inside(f"block_{_width}.", f"blocks.{_level}.", _BLOCK)


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
