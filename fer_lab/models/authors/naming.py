"""What the loader has to know about one kind of checkpoint: a table of its names and of ours."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

State = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Naming:
    """The names in one kind of checkpoint → ours.

    Attributes:
        names: the beginning of a name of theirs, up to a dot or its end → what replaces it, or "#reason" where
            the tensors are ignored.
        part: prefix of our names that the checkpoint must fill; "" is the whole model.
        head: our names of the tensors with one row for each class, in the checkpoint's label order.
        color_order: channel order that the model has to take its images in; None leaves it as it is.
    """

    names: Mapping[str, str]
    part: str = ""
    head: tuple[str, ...] = ()
    color_order: str | None = None

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
