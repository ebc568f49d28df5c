"""The names in DAN's checkpoints."""

import re

from fer_lab.models.authors.naming import Naming, State, inside
from fer_lab.models.dan import DAN
from fer_lab.models.method import Method

_WHOLE = {
    "features.0": "trunk.conv1",
    "features.1": "trunk.bn1",
    "features.4": "trunk.layer1",
    "features.5": "trunk.layer2",
    "features.6": "trunk.layer3",
    "features.7": "trunk.layer4",
    "fc": "fusion.fc",
    "bn": "fusion.norm",
}
_HEAD = {
    "sa.conv1x1": "spatial.reduce",
    "sa.conv_3x3": "spatial.square",
    "sa.conv_1x3": "spatial.row",
    "sa.conv_3x1": "spatial.column",
    "ca.attention.0": "channel.squeeze",
    "ca.attention.1": "channel.norm",
    "ca.attention.3": "channel.excite",
}


def dan_naming(model: Method, state: State) -> Naming | None:
    """The names in a checkpoint of DAN; None for another one, ValueError if the model cannot take it."""
    if not any(name.startswith("cat_head") for name in state):
        return None
    if not isinstance(model, DAN):
        raise ValueError(f"this is a DAN checkpoint; {model.name} cannot take it")
    count = 1 + max(int(m[1]) for name in state if (m := re.match(r"cat_head(\d+)\.", name)))
    if count != len(model.heads):
        raise ValueError(f"the checkpoint has {count} attention heads, this DAN has {len(model.heads)}")
    names = dict(_WHOLE)
    for i in range(count):
        names |= inside(f"cat_head{i}.", f"heads.{i}.", _HEAD)
    rows = ("fc.weight", "fc.bias", "norm.weight", "norm.bias", "norm.running_mean", "norm.running_var")
    return Naming(names, head=tuple(f"fusion.{row}" for row in rows))
