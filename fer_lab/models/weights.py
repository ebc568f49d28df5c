"""The files that trained models travel in, and the small ones that come with the package.

A file is safetensors with a card in its header, which says how to build the model. safetensors has no checksum,
so the card carries a digest of the weights and of itself: a flipped bit is an error, not a worse model.

POSTER's landmark network travels in the same way. It is not a `Method`: its card names 0 classes, and
`load_weights` fills a network that the caller has built.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import fer_lab
from fer_lab._files import atomic_path
from fer_lab.data.augmentation import COLOR_ORDERS
from fer_lab.models.method import IMAGE_SIZES, Method, create_model, list_models
from fer_lab.models.trunks import MobileFaceNet

FORMAT = 1
# No model here has more classes, heads or centers, and no class a longer name, in bytes: a folder's may be.
LARGEST, LONGEST = 1024, 255
# Bytes of a file, and of its header: more than any network here has.
MAX_BYTES, MAX_HEADER = 2**33, 2**23
# A card may ask for a network of this many times the numbers in its file, and for `SPARE` more. timm builds a
# whole network before the stages that are not needed leave it: at tiny size up to 99.3 % of its numbers.
TIMES, TIMES_WITH_TIMM, SPARE = 2, 200, 4_000_000
# What safetensors and torch raise between them on damaged or foreign bytes.
_UNREADABLE = (safetensors.SafetensorError, OSError, ValueError, TypeError, RuntimeError, LookupError)

# The folders of the weights that ship, the preferred one first; each is named after its training data.
SHIPPED = ("ferplus", "synthetic")
SHIPPED_FOLDER = Path(__file__).parents[1] / "weights"
# What a card calls the landmark network, and its weights at tiny size, made by `fer-lab landmarks`.
LANDMARK_NETWORK = "mobilefacenet"
LANDMARK_WEIGHTS = SHIPPED_FOLDER / "synthetic" / "landmarks.safetensors"
# The same network, trained on faces with the knobs of the study set alone, so that POSTER's second stream has
# seen no more than the methods that POSTER is compared with.
STUDY_LANDMARKS = LANDMARK_WEIGHTS.with_stem("landmarks_study")
LIMITS = {
    "synthetic": "Learned from drawings alone. It shows how the method works on rendered faces; on photographs "
    "its answers mean little.",
    LANDMARK_NETWORK: "It has never seen a photograph. The mirror disagreement measures how far it contradicts "
    "itself. On photographs nothing else is known of it, because nobody has marked landmarks there.",
    "": "Learned from photographs whose labels are apparent expressions as annotators named them. Rare classes "
    "are recognised far worse than frequent ones. Not for decisions about people.",
}


def one_line(text: object, most: int = 600) -> str:
    """A text from elsewhere in one line: control characters escaped, and at most `most` characters of it."""
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in " ".join(str(text).split()))
    return line if len(line) <= most else f"{line[: most // 2]} … {line[-most // 2 :]}"


class CheckpointError(ValueError):
    """A file of weights or training state that is damaged, foreign, or of another model; said in one line."""

    def __init__(self, message: str):
        super().__init__(one_line(message))


def model_card(model: Method | MobileFaceNet) -> dict[str, Any]:
    """What is needed to build the model again: method, size, num_classes, options, classes, color_order."""
    if isinstance(model, MobileFaceNet):
        size = next(name for name, side in IMAGE_SIZES.items() if side == model.image_size)
        card = {"method": LANDMARK_NETWORK, "size": size, "num_classes": 0, "options": {}, "classes": []}
        return {**card, "color_order": "RGB"}
    own = {key: getattr(model, key) for key in ("size", "num_classes", "options", "color_order")}
    return {"method": model.name, "classes": list(model.classes), **own}


def check_target(path: Path, *, card: bool = False, force: bool = True) -> None:
    """Refuse a name that weights, and with `card` their card as Markdown, should not be written under.

    Raises ValueError for another suffix than .safetensors, and FileExistsError where the card would take the
    place of a Markdown file that belongs to no weights, or without `force` for a file that is there.
    """
    if path.suffix != ".safetensors":
        raise ValueError(f"weights are written as .safetensors, got {path.name!r}; let the name end so")
    text = path.with_suffix(".md")
    if card and text.exists() and not path.exists():
        raise FileExistsError(f"{text} is no card of weights, and the new one would replace it; rename one")
    if path.exists() and not force:
        raise FileExistsError(f"{path} is there already; write it over with --force (force=True), or rename it")


def save_model(model: Method | MobileFaceNet, path: str | Path, *, half: bool = False, **card: Any) -> None:
    """Write weights and buffers as safetensors, with `model_card` and `card` as one JSON string in its header.

    `half` stores floating-point tensors as float16, for small files that ship. `card` is plain data to keep
    with them (data, command, seed, score, …). Raises ValueError for a number that is not finite or that
    float16 cannot hold, or a card that is not plain data, and DiskFullError.
    """
    tensors: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    first_names: dict[object, str] = {}
    for name, tensor in model.state_dict().items():
        # safetensors refuses tensors that share memory: tied weights are stored once, under the first name.
        place = (tensor.data_ptr(), tensor.shape, tensor.stride()) if tensor.numel() else name
        if place in first_names:
            aliases[name] = first_names[place]
            continue
        first_names[place] = name
        kind = torch.float16 if half and tensor.is_floating_point() else tensor.dtype
        tensors[name] = tensor.detach().to("cpu", kind, copy=True).contiguous()
        if not tensors[name].isfinite().all():
            large = "beyond ±65,504, too large for float16; use half=False"
            reason = large if tensor.isfinite().all() else "that are not finite"
            raise ValueError(f"{name} has numbers {reason}")
    card = {**card, **model_card(model), "format": FORMAT, "fer_lab": fer_lab.__version__, "aliases": aliases}
    _check_card(card)
    try:
        card["sha256"] = _digest(card, tensors)
        header = {"fer_lab": json.dumps(card, ensure_ascii=False, sort_keys=True)}
    except TypeError as error:
        raise ValueError(f"the card must be plain data (text, numbers, lists, dicts): {error}") from error
    with atomic_path(path, needed=sum(tensor.nbytes for tensor in tensors.values())) as temporary:
        safetensors.torch.save_file(tensors, temporary, metadata=header)


def _digest(card: dict[str, Any], tensors: dict[str, Tensor]) -> str:
    """SHA-256 of a card without its digest, and of its tensors' names, types, shapes and bytes."""
    card = {key: value for key, value in card.items() if key != "sha256"}
    digest = hashlib.sha256(json.dumps(card, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read_card(path: str | Path) -> dict[str, Any]:
    """The card of a file written by `save_model`.

    Raises FileNotFoundError, or CheckpointError for a file that is not safetensors, damaged, or without a card.
    """
    return _read_weights(Path(path))[0]


def _read_weights(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if path.exists() and not path.is_file():
        raise CheckpointError(f"{path} is a folder, a pipe or a device; expected a .safetensors file")
    if not path.is_file():
        raise FileNotFoundError(one_line(f"{path} does not exist; expected a .safetensors file of fer_lab"))
    if path.suffix.lower() in (".pth", ".pt", ".ckpt", ".tar", ".bin", ".pkl"):
        raise CheckpointError(
            f"{path} is an authors' checkpoint; turn it into a file of ours first: fer-lab convert {path.name} "
            f"{path.stem}.safetensors --model NAME --order SET"
        )
    try:
        with open(path, "rb") as start:
            header, size = int.from_bytes(start.read(8), "little"), path.stat().st_size
        # safetensors itself refuses a header beyond the file.
        for what, there, most in ("it", size, MAX_BYTES), ("its header", min(header, size), MAX_HEADER):
            if there > most:
                raise ValueError(f"{what} has {there:,} bytes, at most {most:,} are expected")
        with safetensors.safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get("fer_lab")
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except _UNREADABLE as error:
        raise CheckpointError(
            f"{path} is not a readable safetensors file ({error}); copy it again or write it again"
        ) from error
    if text is None:
        raise CheckpointError(
            f"{path} has no fer_lab card, so its method is unknown; fer-lab convert writes one for an authors' "
            "checkpoint"
        )
    try:
        card = json.loads(text)
        _check_card(card)
    except (ValueError, RecursionError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{path} has an unusable card: {error}") from error
    if _digest(card, state) != card.get("sha256"):
        raise CheckpointError(f"{path} is damaged: its content does not match its checksum; copy it again")
    for alias, name in card["aliases"].items():
        if name not in state:
            raise CheckpointError(f"{path} has an unusable card: {alias} shares {name}, which is missing")
        state[alias] = state[name]
    return card, state


def _check_card(card: dict[str, Any]) -> None:
    if card.get("format") != FORMAT:
        raise ValueError(f"its format is {card.get('format')!r}, this fer_lab reads format {FORMAT}")
    kinds = {"method": str, "size": str, "num_classes": int, "options": dict, "classes": list, "aliases": dict}
    for key, kind in kinds.items():
        if not isinstance(card.get(key), kind):
            raise ValueError(f"{key} should be {kind.__name__}, is {card.get(key)!r}")
    names = {name for name in card["classes"] if isinstance(name, str) and len(name.encode()) <= LONGEST}
    if not len(names) == len(card["classes"]) == card["num_classes"]:
        named = f"different classes are named {card['classes']}; a name has at most {LONGEST} bytes"
        raise ValueError(f"{card['num_classes']} {named}")
    if (order := card.get("color_order")) not in COLOR_ORDERS:
        raise ValueError(f"color_order should be one of {', '.join(COLOR_ORDERS)}, is {order!r}")
    if not all(isinstance(name, str) for name in card["aliases"].values()):
        raise ValueError(f"aliases should be names, are {card['aliases']}")
    numbers = {"num_classes": card["num_classes"], **card["options"]}
    if large := [f"{name} = {value}" for name, value in numbers.items() if _is_large(value)]:
        raise ValueError(f"{', '.join(large)[:200]} is beyond {LARGEST:,}")
    if reserved := {"name", "num_classes", "size", "pretrained"} & set(card["options"]):
        raise ValueError(f"options must not have {sorted(reserved)}")


def _is_large(value: object) -> bool:
    if isinstance(value, dict | list):
        return any(map(_is_large, value.values() if isinstance(value, dict) else value))
    return isinstance(value, int | float) and abs(value) > LARGEST


def load_weights(model: Method | MobileFaceNet, path: str | Path) -> dict[str, Any]:
    """Copy weights into a model of the same method, size and class count; returns their card.

    Raises FileNotFoundError, or CheckpointError, with nothing copied, for a damaged or foreign file or another
    model's.
    """
    card, state = _read_weights(Path(path))
    _fill(model, card, state, Path(path))
    return card


def _fill(model: Method | MobileFaceNet, card: dict[str, Any], state: dict[str, Tensor], path: Path) -> None:
    identity = model_card(model)
    check_identity(card, identity, ("method", "num_classes", "size"), path, "the model")
    classes = identity["classes"]
    if card["classes"] != classes and sorted(card["classes"]) == sorted(classes):
        raise CheckpointError(f"{path} orders its classes {card['classes']}, the model {classes}")
    own = model.state_dict()
    wrong = [f"{name} is missing" for name in own if name not in state]
    wrong += [f"{name} is unknown" for name in state if name not in own]
    for name, tensor in own.items():
        if name in state and state[name].shape != tensor.shape:
            wrong.append(f"{name} is {list(state[name].shape)}, expected {list(tensor.shape)}")
        elif name in state and state[name].is_floating_point() != tensor.is_floating_point():
            kinds = (str(one.dtype).removeprefix("torch.") for one in (state[name], tensor))
            wrong.append("{} is {}, expected {}".format(name, *kinds))
        elif name in state and not state[name].to(tensor.dtype).isfinite().all():
            wrong.append(f"{name} has numbers that are not finite")
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise CheckpointError(f"{path} does not fit {identity['method']}: {'; '.join(wrong[:5])}{more}")
    model.load_state_dict(state)


class _Bounded(TorchDispatchMode):
    """Refuse to make more than `most` numbers out of nothing. A tensor is counted before it is made.

    Only operations without a tensor among their arguments count: a pass through a network needs its numbers for
    a moment alone.
    """

    def __init__(self, most: int):
        super().__init__()
        self.left = self.most = most

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Whether torch imports its compiler for this class, which takes seconds; nothing is compiled here."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if args and isinstance(args[0], list | tuple) and all(isinstance(side, int) for side in args[0]):
            self.left -= math.prod(args[0])
            if self.left < 0:
                raise ValueError(f"it asks for more than {self.most:,} numbers, far more than the file holds")
        return func(*args, **(kwargs or {}))


def load_model(path: str | Path) -> Method:
    """Build the method that `save_model` wrote, in eval mode on the CPU.

    Raises FileNotFoundError, or CheckpointError for a damaged or foreign file, or a card of no known method.
    """
    card, state = _read_weights(Path(path))
    times = TIMES_WITH_TIMM if "timm:" in str(card["options"]) else TIMES
    # A tensor of several names is one: the set compares by identity.
    most = times * sum(tensor.numel() for tensor in set(state.values())) + SPARE
    try:
        with _Bounded(most):
            model = create_model(card["method"], card["num_classes"], card["size"], **card["options"])
    # The card came with the file, and a constructor may raise anything on odd options.
    except Exception as error:
        raise CheckpointError(f"{path} describes a model that cannot be built: {error}") from error
    model.classes = tuple(card["classes"])
    model.color_order = card["color_order"]
    _fill(model, card, state, Path(path))
    return model.eval()


def check_identity(
    card: Mapping[str, Any], expected: Mapping[str, Any], keys: Sequence[str], path: Path, owner: str
) -> None:
    """Compare those of `keys` that both sides have; CheckpointError, which names both, where they differ."""
    for key in keys:
        if key not in card or key not in expected:
            continue
        # Through JSON, which turns tuples into lists.
        theirs, ours = (json.loads(json.dumps(side[key], default=str)) for side in (card, expected))
        if theirs != ours:
            name = key.replace("_", " ")
            raise CheckpointError(
                f"{path} is of {name} {card[key]!r}, but {owner} is of {name} {expected[key]!r}; "
                "use the file that belongs to it, or a new folder"
            )


def shipped_weights(name: str, trained_on: str | None = None) -> Path:
    """The weights of a method that come with the package; ValueError if it has none.

    `trained_on`: "ferplus" or "synthetic"; None takes the first of `SHIPPED` that has the method.
    """
    for kind in (trained_on,) if trained_on else SHIPPED:
        if (path := SHIPPED_FOLDER / kind / f"{name}.safetensors").exists():
            return path
    there = sorted({path.stem for path in SHIPPED_FOLDER.glob("*/*.safetensors")} & set(list_models()))
    others = f", or --model one of {', '.join(there)}" if there else ""
    raise ValueError(f"no weights come with {name}; give --weights FILE{others}")


def shipped_models(trained_on: str) -> list[str]:
    """Names of the methods in one of the folders of `SHIPPED`, in the book's order."""
    return [name for name in list_models() if (SHIPPED_FOLDER / trained_on / f"{name}.safetensors").exists()]


def is_shipped_name(path: Path) -> bool:
    """True if `path` names a method that ships ("dan", "synthetic/dan") and there is no such file or folder."""
    kind, name = path.parent.as_posix(), path.name
    return not path.exists() and name in list_models() and kind in (".", *SHIPPED)


def card_text(card: Mapping[str, Any]) -> str:
    """The card of shipped weights as Markdown: data, command, seed, score, limits."""
    from jinja2 import StrictUndefined, Template  # so that `predict` starts without it

    limits = LIMITS.get(card["method"], LIMITS.get(card["dataset"], LIMITS[""]))
    text = Path(__file__).with_name("card.md.j2").read_text(encoding="utf-8")
    return Template(text, keep_trailing_newline=True, undefined=StrictUndefined).render(card, limits=limits)
