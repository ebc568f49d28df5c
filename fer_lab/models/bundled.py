"""The small weights that come with the package: where they lie, and what their cards say."""

from collections.abc import Mapping
from pathlib import Path

from fer_lab.models.method import list_models

# Sets of weights that ship, the preferred first; a set is named by what it was trained on.
SHIPPED = ("ferplus", "synthetic")
LIMITS = {
    "synthetic": "Learned from drawings alone. It shows how the method works on rendered faces; on photographs "
    "its answers mean little.",
    "": "Learned from photographs whose labels are apparent expressions as annotators named them. Rare classes "
    "are recognised far worse than frequent ones. Not for decisions about people.",
}


def card_text(card: Mapping) -> str:
    """The card of shipped weights as Markdown: data, command, seed, score, limits."""
    scores = "\n".join(
        f"| {name.replace('_', ' ')} | {value:.3f} |" for name, value in card["score"].items() if value == value
    )
    apart = ", whose people appear nowhere in training" if card["dataset"] == "synthetic" else ""
    return (
        f"# {card['method']}, {card['size']}, trained on {card['dataset']}\n\n"
        f"Half-precision weights for {card['num_classes']} classes ({', '.join(card['classes'])}), "
        f"seed {card['seed']}, made by\n\n```\n{card['command']}\n```\n\n"
        f"Measured once on the {card['faces']:,} {card['split']} faces of the same set "
        f"(fingerprint `{card['fingerprint']}`){apart}:\n\n| | |\n| --- | --- |\n{scores}\n\n"
        f"**Limits.** {LIMITS.get(card['dataset'], LIMITS[''])}\n"
    )


def shipped_weights(name: str, trained_on: str | None = None) -> Path:
    """The weights of a model that come with the package.

    Args:
        trained_on: "ferplus" or "synthetic"; None takes the first of `SHIPPED` that there is.

    Raises:
        ValueError: none come for this one.
    """
    folder = Path(__file__).parents[1] / "weights"
    for kind in (trained_on,) if trained_on else SHIPPED:
        if (path := folder / kind / f"{name}.safetensors").exists():
            return path
    there = sorted({path.stem for path in folder.glob("*/*.safetensors")} & set(list_models()))
    others = f", or --model one of {', '.join(there)}" if there else ""
    raise ValueError(f"no weights come with {name}; give --weights FILE{others}")


def shipped_models(trained_on: str) -> list[str]:
    """Names of the methods whose weights come with the package, of one set, in the book's order."""
    folder = Path(__file__).parents[1] / "weights" / trained_on
    return [name for name in list_models() if (folder / f"{name}.safetensors").exists()]


def is_shipped_name(path: Path) -> bool:
    """Whether a path is no path but `model` or `set/model`, such as `dan` or `synthetic/dan`."""
    kind, name = path.parent.as_posix(), path.name
    return not path.exists() and name in list_models() and kind in (".", *SHIPPED)
