"""What the loader has to know about one kind of checkpoint: a table of its names and of ours."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

State = Mapping[str, Tensor]
NAMES: dict[str, dict[str, str]] = tomllib.loads(Path(__file__).with_name("names.toml").read_text("utf-8"))


@dataclass(frozen=True)
class Naming:
    """The names in one kind of checkpoint → ours."""

    # The beginning of a name of theirs, up to a dot or its end → what replaces it, or "#reason" where the
    # tensors are ignored.
    names: Mapping[str, str]
    part: str = ""  # prefix of our names that the checkpoint must fill; "" is the whole model
    head: tuple[str, ...] = ()  # our names of the tensors with a row for each class, in their label order
    color_order: str | None = None  # in which the model has to take its images; None leaves it as it is

    def rename(self, name: str) -> str | None:
        """Our name, "#reason" for a tensor that is ignored, None for an unknown name."""
        beginning, rest = name, ""
        while beginning and beginning not in self.names:
            beginning, _, last = beginning.rpartition(".")
            rest = f".{last}{rest}"
        ours = self.names.get(beginning)
        return ours if ours is None or ours.startswith("#") else ours + rest


def inside(theirs: str, ours: str, names: Mapping[str, str]) -> dict[str, str]:
    """The names of a part of a network, with the prefixes that it has in the whole."""
    return {theirs + key: name if name.startswith("#") else ours + name for key, name in names.items()}
