"""Method, what every model of the book can do, and the table that finds models by name."""

import importlib
import inspect
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from fer_lab.data.expressions import class_names
from fer_lab.data.faces import FaceBatch
from fer_lab.data.requests import SYNTHETIC
from fer_lab.models.recipes import Recipe

SIZES = ("tiny", "paper")
IMAGE_SIZES = {"tiny": 56, "paper": 224}

# name → "module:Class"; a module is imported when its method is first needed.
_METHODS: dict[str, str] = {
    "baseline": "fer_lab.models.baseline:Baseline",
    "dan": "fer_lab.models.dan:DAN",
    "triplet_center": "fer_lab.models.triplet_center:TripletCenter",
    "poster": "fer_lab.models.poster:POSTER",
    "dcs": "fer_lab.models.qcs:DCS",
    "qcs": "fer_lab.models.qcs:QCS",
}
# name → title in tables and figures. The title of a reader's own method is its name.
TITLES = {
    "baseline": "ResNet-18",
    "dan": "DAN",
    "triplet_center": "triplet-center",
    "poster": "POSTER",
    "dcs": "DCS",
    "qcs": "QCS",
}


class Method(nn.Module):
    """An expression classifier that trainer, notebooks and explainers use without knowing its paper.

    Every method is built from `num_classes` (C), `size` and keyword options of its own. Two are common:
    `trunk`, one of those that its docstring lists or "timm:NAME" for any network of timm, and `pretrained`,
    which lets timm download its weights for that network.

    Class attributes:
        batch_kind: the kind of one training example: "single", "pair" or "quadruplet".
        color_order: what the weights learned from: "RGB", "BGR", or "GREY" for faces without colour, in which
            case every picture is turned grey first. An instance may override it; `fit` sets "GREY".
        paper: citation with URL.
        recipes: named recipes, at least "smoke" (tiny, rendered faces) and "scratch" (real faces).
        sizes: names of the sizes it comes in.
        class_maps: whether `attention_maps` takes a keyword `target`, a class for each face int64 [B], because
            a map of the model may belong to a class.
        backbone: the parts that a trained model hands over to another one, see `start_from_trunk`.

    Attributes:
        num_classes: C.
        size: the size it was created with ("tiny", "paper", …).
        image_size: side of the images it takes, in pixels.
        classes: class names in output order.
        options: the keyword options that build it again, for files of weights.
        has_face_maps: whether it has attention maps that may be drawn over the face.
    """

    batch_kind: ClassVar[str] = "single"
    color_order: str = "RGB"
    paper: ClassVar[str] = ""
    recipes: ClassVar[dict[str, Recipe]] = {}
    sizes: ClassVar[tuple[str, ...]] = SIZES
    class_maps: ClassVar[bool] = False
    backbone: ClassVar[tuple[str, ...]] = ("trunk",)
    has_face_maps: bool = True

    def __init__(self, num_classes: int, size: str):
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"a classifier needs at least 2 classes, got {num_classes}")
        self.num_classes = num_classes
        self.size = size
        self.image_size = IMAGE_SIZES.get(size, IMAGE_SIZES["paper"])
        self.classes = (
            class_names(num_classes) if num_classes <= 8 else tuple(f"class {i}" for i in range(num_classes))
        )
        self.name = type(self).__name__.lower()
        self.options: dict[str, Any] = {}

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images [B,3,H,W] → logits [B,C]. The inference path; nothing else runs."""
        raise NotImplementedError

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        """Images [B,3,H,W] → what the classifier sees, [B,D]."""
        raise NotImplementedError

    def training_losses(self, batch: FaceBatch) -> dict[str, torch.Tensor]:
        """Named scalar loss terms and their weighted sum under "total"; soft targets are used if given."""
        raise NotImplementedError

    def attention_maps(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Images [B,3,H,W] → named maps over the face, each [B,K,h,w], not normalised."""
        raise NotImplementedError

    def load_shipped(self) -> None:
        """Load weights that ship with the package and that the method cannot do without; by default none.

        `create_model` calls it: constructors touch no disk.
        """

    def fold_for_inference(self) -> None:
        """Leave out what takes no part in logits, embedding and attention maps; by default nothing.

        `fuse` calls it, and every other module's method of this name, on a copy of the model in eval mode.
        """

    def recipe_for(self, dataset: str) -> Recipe:
        """The recipe to train with on a data set, unless another one is chosen."""
        return self.recipes[default_recipe(dataset)]

    def parameter_groups(self, recipe: Recipe) -> list[dict[str, Any]]:
        """Optimiser groups; a group may scale the recipe's learning rate by its own "lr"."""
        return [{"params": [p for p in self.parameters() if p.requires_grad]}]


def default_recipe(dataset: str) -> str:
    """Name of the recipe for a data set: "smoke" for rendered faces, else "scratch"."""
    return "smoke" if dataset == SYNTHETIC else "scratch"


def classification_loss(
    logits: torch.Tensor, labels: torch.Tensor, targets: torch.Tensor | None = None
) -> torch.Tensor:
    """Mean cross-entropy of logits [B,C] with labels [B], or with soft targets [B,C] where there are any.

    Computed in float32 whatever the logits' type, so that bf16 autocast does not blur it.
    """
    return F.cross_entropy(logits.float(), labels if targets is None else targets)


def list_models() -> list[str]:
    """Names that `create_model` knows, in the book's order."""
    return list(_METHODS)


def register_method(name: str, path: str) -> None:
    """Give a name for `create_model` to a method of your own.

    Its path is `"package.module:Class"`, imported when it is first needed. Raises ValueError for a name already
    taken by another class, or a path without a colon.
    """
    if ":" not in path:
        raise ValueError(f"expected 'package.module:Class', got {path!r}")
    if _METHODS.get(name, path) != path:
        raise ValueError(f"{name!r} is already {_METHODS[name]}")
    _METHODS[name] = path


def method_class(name: str) -> type[Method]:
    """The class behind a name.

    Raises ValueError for an unknown name; the message lists the known ones.
    """
    if name not in _METHODS:
        raise ValueError(f"unknown model {name!r}; expected one of {', '.join(_METHODS)}")
    module, _, attribute = _METHODS[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def model_options(name: str) -> dict[str, Any]:
    """A method's own keyword options with their defaults.

    Raises ValueError for an unknown name.
    """
    parameters = inspect.signature(method_class(name)).parameters
    return {key: p.default for key, p in parameters.items() if key not in ("num_classes", "size")}


def create_model(name: str, num_classes: int = 7, size: str = "tiny", **options: Any) -> Method:
    """Build a method by name, with random weights from torch's global generator.

    A part that ships trained is loaded by the method's `load_shipped`. Raises ValueError for an unknown
    name, size or option, or as `load_shipped` does.

    Args:
        name: one of `list_models()`.
        num_classes: C; 7 and 8 get the canonical expression names.
        size: "tiny" (56 px) or "paper" (224 px); some methods have more.
        options: the method's own keyword options, see `model_options`.

    Example:
        >>> create_model("dan", num_heads=2, trunk="timm:resnet18")
    """
    known = model_options(name)
    if unknown := [key for key in options if key not in known]:
        there = ", ".join(f"{key}={value!r}" for key, value in known.items()) or "none"
        raise ValueError(f"{name} has no option {', '.join(unknown)}; its options and their defaults: {there}")
    try:
        model = method_class(name)(num_classes=num_classes, size=size, **options)
    except TypeError as error:
        raise ValueError(f"{name} cannot be built with the options {options}: {error}") from error
    model.name = name
    # A file of weights replaces what a trunk was pre-trained to, so opening it must not download that again.
    model.options = {key: value for key, value in options.items() if key != "pretrained"}
    model.load_shipped()
    return model
