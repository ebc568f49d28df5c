"""The names in DAN's checkpoints."""

import re

from fer_lab.models.authors.naming import NAMES, Naming, State, inside
from fer_lab.models.dan import DAN
from fer_lab.models.method import Method


def dan_naming(model: Method, state: State) -> Naming | None:
    """The names in a checkpoint of DAN; None for another one, ValueError if the model cannot take it."""
    if not any(name.startswith("cat_head") for name in state):
        return None
    if not isinstance(model, DAN):
        raise ValueError(f"this is a DAN checkpoint; {model.name} cannot take it")
    count = 1 + max(int(m[1]) for name in state if (m := re.match(r"cat_head(\d+)\.", name)))
    if count != len(model.heads):
        raise ValueError(f"the checkpoint has {count} attention heads, this DAN has {len(model.heads)}")
    names = dict(NAMES["dan"])
    for i in range(count):
        names |= inside(f"cat_head{i}.", f"heads.{i}.", NAMES["dan_head"])
    rows = ("fc.weight", "fc.bias", "norm.weight", "norm.bias", "norm.running_mean", "norm.running_var")
    return Naming(names, head=tuple(f"fusion.{row}" for row in rows))
