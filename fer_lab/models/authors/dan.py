"""TODO."""

import re

_DAN_TRUNK = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
_DAN_SPATIAL = {"conv1x1": "reduce", "conv_3x3": "square", "conv_1x3": "row", "conv_3x1": "column"}
_DAN_CHANNEL = {"0": "squeeze", "1": "norm", "3": "excite"}


def _dan_name(name: str) -> str | None:
    if m := re.fullmatch(r"features\.(\d)\.(.+)", name):
        return f"trunk.{_DAN_TRUNK[m[1]]}.{m[2]}" if m[1] in _DAN_TRUNK else None
    if m := re.fullmatch(r"cat_head(\d+)\.sa\.(conv\w+)\.([01]\..+)", name):
        return f"heads.{m[1]}.spatial.{_DAN_SPATIAL[m[2]]}.{m[3]}" if m[2] in _DAN_SPATIAL else None
    if m := re.fullmatch(r"cat_head(\d+)\.ca\.attention\.([013])\.(.+)", name):
        return f"heads.{m[1]}.channel.{_DAN_CHANNEL[m[2]]}.{m[3]}"
    if m := re.fullmatch(r"(fc|bn)\.(.+)", name):
        return f"fusion.{'fc' if m[1] == 'fc' else 'norm'}.{m[2]}"
    return None


def _resnet_name(name: str) -> str | None:
    if name.startswith(("fc.", "feature.")):
        return "#a classifier of identities, not of expressions"
    if re.match(r"(conv1|bn1|layer[1-4])\.", name):
        return f"trunk.{name}"
    return None
