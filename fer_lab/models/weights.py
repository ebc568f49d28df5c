"""The files that trained models travel in: safetensors with a card that says how to build the model.

safetensors has no checksum, so the card carries a digest of the weights and of itself: a flipped bit is an
error and not a slightly worse model.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import safetensors
import safetensors.torch
import torch

import fer_lab
from fer_lab._files import atomic_path
from fer_lab.models.method import Method, create_model

FORMAT = 1
# No model here has more classes, heads or centers; one whose card says so would be built until memory ends.
LARGEST = 1024
# What safetensors and torch raise between them on damaged or foreign bytes.
_UNREADABLE = (safetensors.SafetensorError, OSError, ValueError, TypeError, RuntimeError, LookupError)


class CheckpointError(ValueError):
    """A file of weights or training state that is damaged, foreign, or another model's."""


def model_card(model: Method) -> dict:
    """What is needed to build the model again: method, size, num_classes, options, classes, color_order."""
    return {
        "method": model.name,
        "size": model.size,
        "num_classes": model.num_classes,
        "options": model.options,
        "classes": list(model.classes),
        "color_order": model.color_order,
    }


def save_model(model: Method, path: str | Path, *, half: bool = False, **card) -> None:
    """Write weights and buffers as safetensors, with `model_card` and `card` as one JSON string in its header.

    Args:
        half: store floating-point tensors as float16, for small files that ship.
        card: plain data to keep beside them (data, command, seed, score, …).

    Raises:
        ValueError: a number that float16 cannot hold, or a card that is not plain data.
        DiskFullError: no space.
    """
    tensors, aliases, places = {}, {}, {}
    for name, tensor in model.state_dict().items():
        # safetensors refuses tensors that share memory: tied weights are stored once, under the first name.
        place = (tensor.data_ptr(), tensor.shape, tensor.stride()) if tensor.numel() else name
        if place in places:
            aliases[name] = places[place]
            continue
        places[place] = name
        small = half and tensor.is_floating_point()
        kind = torch.float16 if small else tensor.dtype
        tensors[name] = tensor.detach().to("cpu", kind, copy=True).contiguous()
        if small and not torch.equal(tensors[name].isfinite(), tensor.detach().cpu().isfinite()):
            raise ValueError(f"{name} has numbers beyond ±65,504, too large for float16; use half=False")
    card = {**card, **model_card(model), "format": FORMAT, "fer_lab": fer_lab.__version__}
    card["aliases"] = aliases
    _check_card(card)
    try:
        card["sha256"] = _digest(card, tensors)
        header = {"fer_lab": json.dumps(card, ensure_ascii=False, sort_keys=True)}
    except TypeError as error:
        raise ValueError(f"the card must be plain data (text, numbers, lists, dicts): {error}") from error
    with atomic_path(path, needed=sum(tensor.nbytes for tensor in tensors.values())) as temporary:
        safetensors.torch.save_file(tensors, temporary, metadata=header)


def _digest(card: dict, tensors: dict[str, torch.Tensor]) -> str:
    """SHA-256 of a card, but for the digest in it, and of its tensors' names, types, shapes and bytes."""
    card = {key: value for key, value in card.items() if key != "sha256"}
    digest = hashlib.sha256(json.dumps(card, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read_card(path: str | Path) -> dict:
    """The card of a file written by `save_model`, without its weights.

    Raises:
        FileNotFoundError: no such file.
        CheckpointError: not safetensors, or no card of ours in it.
    """
    return _read_weights(Path(path), tensors=False)[0]


def _read_weights(path: Path, tensors: bool = True) -> tuple[dict, dict[str, torch.Tensor]]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; expected a .safetensors file written by fer_lab")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get("fer_lab")
            state = {name: file.get_tensor(name) for name in file.keys()} if tensors else {}  # noqa: SIM118
    except _UNREADABLE as error:
        raise CheckpointError(
            f"{path} is no readable safetensors file ({error}); copy it again or make it anew"
        ) from error
    if text is None:
        raise CheckpointError(
            f"{path} has no fer_lab card, so its method is unknown; authors' checkpoints are read by "
            "fer_lab.models.authors.loading.load_official"
        )
    try:
        card = json.loads(text)
        _check_card(card)
    except (ValueError, RecursionError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{path} has an unusable card: {error}") from error
    if tensors:
        if _digest(card, state) != card.get("sha256"):
            raise CheckpointError(f"{path} is damaged: its content does not match its checksum; copy it again")
        for alias, name in card["aliases"].items():
            state[alias] = state.get(name)
    return card, state


def _check_card(card: dict) -> None:
    if card.get("format") != FORMAT:
        raise ValueError(f"format {card.get('format')!r}, this fer_lab reads {FORMAT}")
    kinds = {"method": str, "size": str, "num_classes": int, "options": dict, "classes": list, "aliases": dict}
    for key, kind in kinds.items():
        if not isinstance(card.get(key), kind):
            raise ValueError(f"{key} should be {kind.__name__}, is {card.get(key)!r}")
    if len(card["classes"]) != card["num_classes"] or not all(isinstance(c, str) for c in card["classes"]):
        raise ValueError(f"{card['num_classes']} classes are named {card['classes']}")
    if card.get("color_order") not in ("RGB", "BGR"):
        raise ValueError(f"color_order should be RGB or BGR, is {card.get('color_order')!r}")
    if not all(isinstance(name, str) for name in card["aliases"].values()):
        raise ValueError(f"aliases should be names, are {card['aliases']}")
    large = {"num_classes": card["num_classes"], **card["options"]}
    if large := [f"{name} = {value}" for name, value in large.items() if _is_large(value)]:
        raise ValueError(f"{', '.join(large)[:200]} is beyond {LARGEST:,}")
    if reserved := {"name", "num_classes", "size"} & set(card["options"]):
        raise ValueError(f"options must not have {sorted(reserved)}")


def _is_large(value) -> bool:
    if isinstance(value, dict | list):
        return any(map(_is_large, value.values() if isinstance(value, dict) else value))
    return isinstance(value, int | float) and abs(value) > LARGEST


def load_weights(model: Method, path: str | Path) -> dict:
    """Copy weights into a model of the same method, size and class count, tensor for tensor.

    Returns:
        The file's card.

    Raises:
        FileNotFoundError: no such file.
        CheckpointError: a damaged or foreign file, or another model's; nothing was copied.
    """
    path = Path(path)
    card, state = _read_weights(path)
    check_identity(card, model_card(model), ("method", "num_classes", "size"), path, "the model")
    if card["classes"] != list(model.classes) and sorted(card["classes"]) == sorted(model.classes):
        raise CheckpointError(f"{path} orders its classes {card['classes']}, the model {list(model.classes)}")
    own = model.state_dict()
    wrong = [f"{name} is missing" for name in own if state.get(name) is None]
    wrong += [f"{name} is unknown" for name in state if name not in own]
    for name, tensor in own.items():
        if state.get(name) is not None and state[name].shape != tensor.shape:
            wrong.append(f"{name} is {list(state[name].shape)}, expected {list(tensor.shape)}")
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise CheckpointError(f"{path} does not fit {model.name}: {'; '.join(wrong[:5])}{more}")
    model.load_state_dict(state)
    return card


def load_model(path: str | Path) -> Method:
    """Build the model that `save_model` wrote, in eval mode on the CPU; its card is `model.card`.

    Raises:
        FileNotFoundError: no such file.
        CheckpointError: a damaged or foreign file, or a card that describes no model of this package.
    """
    card = read_card(path)
    try:
        model = create_model(card["method"], card["num_classes"], card["size"], **card["options"])
    # The card came with the file, and what a constructor makes of odd options is anyone's guess.
    except Exception as error:
        raise CheckpointError(f"{path} describes a model that cannot be built: {error}") from error
    model.classes = tuple(card["classes"])
    model.color_order = card["color_order"]
    model.card = load_weights(model, path)
    return model.eval()


def check_identity(found: dict, expected: dict, keys: Sequence[str], path: Path, owner: str) -> None:
    """Compare what both sides know of `keys`.

    Raises:
        CheckpointError: they differ; the message names both.
    """
    for key in keys:
        if key not in found or key not in expected:
            continue
        # Through JSON, which turns tuples into lists.
        theirs, ours = (json.loads(json.dumps(side[key], default=str)) for side in (found, expected))
        if theirs != ours:
            name = key.replace("_", " ")
            raise CheckpointError(
                f"{path} is of {name} {found[key]!r}, but {owner} is of {name} {expected[key]!r}; "
                "use the file that belongs to it, or a new folder"
            )
