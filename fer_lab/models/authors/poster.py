"""The names in POSTER's checkpoints, and in those of the two networks that it starts from → ours.

Every function here takes a name of theirs and gives ours, "#reason" for a tensor that is ignored, or None for
a name that it does not know.
"""

import re
from collections.abc import Mapping

from fer_lab.models.method import Method
from fer_lab.models.poster import POSTER

IR_UNIT = ("norm1", "conv1", "activation", "conv2", "norm2")


def ir50_name(name: str) -> str | None:
    """A name inside IR-50, without its prefix, such as body.3.res_layer.0.weight → stages.1.0.norm1.weight."""
    if name.startswith("output_layer."):
        return "#IR-50's output for identities, which never acts here"
    if m := re.fullmatch(r"input_layer\.([0-2]\..+)", name):
        return f"stem.{m[1]}"
    if m := re.fullmatch(r"body\.(\d+)\.(shortcut_layer|res_layer)\.([0-4])\.(.+)", name):
        unit, part, place = int(m[1]), m[2], int(m[3])
        stage, first = (0, 0) if unit < 3 else (1, 3) if unit < 7 else (2, 7)
        inner = f"shortcut.{place}" if part == "shortcut_layer" else IR_UNIT[place]
        return f"stages.{stage}.{unit - first}.{inner}.{m[4]}"
    return None


def face_ir50_name(name: str) -> str | None:
    if re.match(r"body\.2[123]\.", name):
        return "#IR-50's last stage, which is not used"
    inner = ir50_name(name)
    return inner if inner is None or inner.startswith("#") else f"trunk.{inner}"


_MOBILE_UNIT = {"conv": "spread", "conv_dw": "depthwise", "project": "project"}
_MOBILE_PART = {"conv": "conv", "bn": "norm", "prelu": "activation"}
_MOBILE_PLACE = {"conv1": "stem.0", "conv2_dw": "stem.1", "conv_6_sep": "last"}
_MOBILE_DOWN = {"conv_23": 0, "conv_34": 1, "conv_45": 2}


def mobilefacenet_name(name: str) -> str | None:
    """A name inside MobileFaceNet, such as conv_3.model.0.conv_dw.bn.bias → stages.0.1.depthwise.norm.bias."""
    if m := re.fullmatch(r"output_layer\.conv_6_dw\.(conv|bn)\.(.+)", name):
        return f"head.depthwise.{_MOBILE_PART[m[1]]}.{m[2]}"
    if m := re.fullmatch(r"output_layer\.(linear|bn)\.(.+)", name):
        return f"head.{'linear' if m[1] == 'linear' else 'norm'}.{m[2]}"
    if m := re.fullmatch(r"(conv1|conv2_dw|conv_6_sep)\.(conv|bn|prelu)\.(.+)", name):
        return f"{_MOBILE_PLACE[m[1]]}.{_MOBILE_PART[m[2]]}.{m[3]}"
    inner = r"(conv|conv_dw|project)\.(conv|bn|prelu)\.(.+)"
    if m := re.fullmatch(r"(conv_23|conv_34|conv_45)\." + inner, name):
        return f"stages.{_MOBILE_DOWN[m[1]]}.0.{_MOBILE_UNIT[m[2]]}.{_MOBILE_PART[m[3]]}.{m[4]}"
    if m := re.fullmatch(r"conv_([345])\.model\.(\d+)\." + inner, name):
        unit = f"stages.{int(m[1]) - 3}.{int(m[2]) + 1}.{_MOBILE_UNIT[m[3]]}"
        return f"{unit}.{_MOBILE_PART[m[4]]}.{m[5]}"
    return None


def face_landmark_name(name: str) -> str | None:
    """A name in a file of MobileFaceNet for 68 landmarks → one in our landmark stream."""
    inner = mobilefacenet_name(name)
    return inner and f"landmarks.{inner}"


def check_poster(model: Method, state: Mapping) -> None:
    """Raise ValueError, with what to change, for a POSTER checkpoint that is not of this model."""
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


_POSTER_LEVEL = {"l": 0, "m": 1, "s": 2}
_POSTER_PART = {
    "attn_img": "image_attention",
    "attn_lm": "landmark_attention",
    "mlp1.fc1": "image_mlp.0",
    "mlp1.fc2": "image_mlp.2",
    "mlp2.fc1": "landmark_mlp.0",
    "mlp2.fc2": "landmark_mlp.2",
    "conv": "mix",
} | {f"norm{i}": f"norm{i}" for i in range(1, 5)}
_POSTER_REST = {
    "ir_layer": "image_embedding",
    "pyramid_fuse.norm": "norm",
    "pyramid_fuse.downsample_m": "narrow.0",
    "pyramid_fuse.downsample_s": "narrow.1",
    "se_block.linear1": "gate.squeeze",
    "se_block.linear2": "gate.excite",
    "head.linear": "classify",
}


def poster_name(name: str) -> str | None:
    """A name in a checkpoint of POSTER."""
    if name == "pyramid_fuse.cls_token":
        return "#a class token that never acts"
    if name == "pyramid_fuse.pos_embed":
        return "positions"
    for prefix, ours, inside in (
        ("ir_back.", "trunk.", ir50_name),
        ("face_landback.", "landmarks.", mobilefacenet_name),
    ):
        if name.startswith(prefix):
            inner = inside(name.removeprefix(prefix))
            return inner if inner is None or inner.startswith("#") else ours + inner
    if m := re.fullmatch(r"pyramid_fuse\.blocks\.(\d+)\.block_([lms])\.(\w+(?:\.fc[12])?)\.(.+)", name):
        part = _POSTER_PART.get(m[3])
        return part and f"steps.{m[1]}.blocks.{_POSTER_LEVEL[m[2]]}.{part}.{m[4]}"
    if m := re.fullmatch(r"pyramid_fuse\.blocks\.(\d+)\.upsample_([ms])\.(.+)", name):
        return f"steps.{m[1]}.widen.{_POSTER_LEVEL[m[2]] - 1}.{m[3]}"
    place, _, kind = name.rpartition(".")
    return f"{_POSTER_REST[place]}.{kind}" if place in _POSTER_REST else None
