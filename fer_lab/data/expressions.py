"""Names, orders and colours of the facial expressions.

No other module knows a label order besides the canonical one. The canonical order is FER+'s (Barsoum et al.,
ICMI 2016, arXiv 1608.01041); the seven-class problem uses its first seven names. A wrong label order is the
usual reason why a good checkpoint scores no better than chance.
"""

import tomllib
from collections.abc import Sequence
from pathlib import Path

import torch

_TABLES = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
ORDERS: dict[str, tuple[str, ...]] = {name: tuple(order) for name, order in _TABLES["orders"].items()}
CANONICAL = ORDERS["canonical"]
ALIASES: dict[str, str] = _TABLES["aliases"]
COLORS: dict[str, str] = _TABLES["colors"]


def class_names(num_classes: int) -> tuple[str, ...]:
    """The first `num_classes` canonical names; ValueError for fewer than 2 or more than 8."""
    if not 2 <= num_classes <= len(CANONICAL):
        raise ValueError(f"expected 2 to {len(CANONICAL)} expression classes, got {num_classes}")
    return CANONICAL[:num_classes]


def canonical_name(word: str) -> str:
    """The canonical name for a data set's own word (`"Happy"` → `"happiness"`); ValueError for other words."""
    key = word.strip().lower()
    key = ALIASES.get(key, key)
    if key not in CANONICAL:
        raise ValueError(f"{word!r} names no expression; expected one of {', '.join(CANONICAL)}")
    return key


def order_of(dataset: str, num_classes: int | None = None) -> tuple[str, ...]:
    """The class names of a data set of `ORDERS` in its own order, index 0 first; 7 classes leave contempt out.

    Raises ValueError for an unknown data set, or a number of classes that it does not have.
    """
    if dataset not in ORDERS:
        raise ValueError(f"unknown label order {dataset!r}; expected one of {', '.join(ORDERS)}")
    names = ORDERS[dataset]
    if num_classes is not None and num_classes != len(names):
        names = tuple(name for name in names if name in CANONICAL[:num_classes])
        if len(names) != num_classes:
            raise ValueError(f"expected {len(ORDERS[dataset])} classes for {dataset}, got {num_classes}")
    return names


def numbers_of(dataset: str) -> dict[int, str]:
    """The numbers that a data set gives its classes → class names. RAF-DB counts from 1, the others from 0."""
    return dict(enumerate(order_of(dataset), start=1 if dataset == "rafdb" else 0))


def to_canonical(dataset: str, num_classes: int | None = None) -> torch.Tensor:
    """Index table [C] from a data set's class index to the canonical one: `canonical = table[own]`."""
    return torch.tensor([CANONICAL.index(name) for name in order_of(dataset, num_classes)])


def from_canonical(dataset: str, num_classes: int | None = None) -> torch.Tensor:
    """The inverse table [C]: entry i is the data set's own index of canonical class i.

    `weight[from_canonical(dataset)]` puts a classifier's rows from the data set's order into the canonical one.
    """
    return to_canonical(dataset, num_classes).argsort()


def colors(classes: Sequence[str]) -> list[str]:
    """One hex colour per class name; other names get matplotlib's cycle (`"C0"`, …)."""
    return [COLORS.get(name, f"C{i}") for i, name in enumerate(classes)]
