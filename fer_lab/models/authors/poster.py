"""The names in POSTER's checkpoints."""

import re

from fer_lab.models.authors.naming import Naming, State, inside
from fer_lab.models.authors.trunks import IR50, MOBILEFACENET
from fer_lab.models.method import Method
from fer_lab.models.poster import POSTER

_WHOLE = {
    "ir_layer": "image_embedding",
    "pyramid_fuse.pos_embed": "positions",
    "pyramid_fuse.cls_token": "#a class token that never acts",
    "pyramid_fuse.norm": "norm",
    "pyramid_fuse.downsample_m": "narrow.0",
    "pyramid_fuse.downsample_s": "narrow.1",
    "se_block.linear1": "gate.squeeze",
    "se_block.linear2": "gate.excite",
    "head.linear": "classify",
    **inside("ir_back.", "trunk.", IR50),
    **inside("face_landback.", "landmarks.", MOBILEFACENET),
}
_BLOCK = {
    "attn_img": "image_attention",
    "attn_lm": "landmark_attention",
    "mlp1.fc1": "image_mlp.0",
    "mlp1.fc2": "image_mlp.2",
    "mlp2.fc1": "landmark_mlp.0",
    "mlp2.fc2": "landmark_mlp.2",
    "norm1": "norm1",
    "norm2": "norm2",
    "norm3": "norm3",
    "norm4": "norm4",
    "conv": "mix",
}
_STEP = {
    **inside("block_l.", "blocks.0.", _BLOCK),
    **inside("block_m.", "blocks.1.", _BLOCK),
    **inside("block_s.", "blocks.2.", _BLOCK),
    "upsample_m": "widen.0",
    "upsample_s": "widen.1",
}


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
