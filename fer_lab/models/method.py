"""Method, what every model of the book can do, and the table that finds models by name."""

import importlib
import inspect
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from fer_lab.data.expressions import class_names
from fer_lab.data.faces import FaceBatch
from fer_lab.data.requests import SYNTHETIC
from fer_lab.models.recipes import Recipe

SIZES = ("tiny", "paper")
IMAGE_SIZES = {"tiny": 56, "paper": 224}
GRID = 7  # side of the grid that the networks end in, at either size

# name → "module:Class"; a module is imported when its method is first needed.
_METHODS: dict[str, str] = {
    "baseline": "fer_lab.models.baseline:Baseline",
    "dan": "fer_lab.models.dan:DAN",
    "triplet_center": "fer_lab.models.triplet_center:TripletCenter",
    "poster": "fer_lab.models.poster:POSTER",
    "dcs": "fer_lab.models.qcs:DCS",
    "qcs": "fer_lab.models.qcs:QCS",
}
# name → title in tables and figures. The title of a method that is registered later is its name.
TITLES = {name: name.upper() for name in _METHODS}
TITLES |= {"baseline": "ResNet-18", "triplet_center": "triplet-center"}


class Method(nn.Module):
    """An expression classifier that trainer, notebooks and explainers use without knowing its paper.

    Every method is built from `num_classes` (C), `size` and keyword options of its own. Two are common:
    `trunk`, one of those that its docstring lists or "timm:NAME" for any network of timm, and `pretrained`,
    which lets timm download its weights for that network.
    """

    batch_kind: ClassVar[str] = "single"  # of one training example; or "pair", "quadruplet"
    # What the weights learned from: "RGB", "BGR", or "GREY" for faces without colour, in which case every
    # picture is turned grey first. An instance may override it; `fit` sets "GREY".
    color_order: str = "RGB"
    paper: ClassVar[str] = ""  # citation with URL
    recipes: ClassVar[dict[str, Recipe]] = {}  # at least "smoke" (tiny, rendered faces), "scratch" (real faces)
    sizes: ClassVar[tuple[str, ...]] = SIZES
    # Whether `attention_maps` takes a keyword `target`, a class for each face int64 [B], because a map of the
    # model may belong to a class.
    class_maps: ClassVar[bool] = False
    backbone: ClassVar[tuple[str, ...]] = ("trunk",)  # what a trained model hands over, see `start_from_trunk`
    has_face_maps: bool = True  # whether it has attention maps that may be drawn over the face
    # Names of the softmax attention layers in which every token is still a place, the first layer first. Token
    # 0 is the class token, then come the places of `attention_grids` grids of 7×7.
    attention_path: tuple[str, ...] = ()
    attention_grids: int = 1

    def __init__(self, num_classes: int, size: str):
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"a classifier needs at least 2 classes, got {num_classes}")
        self.num_classes = num_classes
        self.size = size
        self.image_size = IMAGE_SIZES.get(size, IMAGE_SIZES["paper"])  # side of the images, in pixels
        numbered = tuple(f"class {i}" for i in range(num_classes))
        self.classes = class_names(num_classes) if num_classes <= 8 else numbered  # in output order
        self.name = type(self).__name__.lower()
        self.options: dict[str, Any] = {}  # the keyword options that build it again, for files of weights

    def forward(self, images: Tensor) -> Tensor:
        """Images [B,3,H,W] → logits [B,C]. The inference path; nothing else runs."""
        raise NotImplementedError

    def embed(self, images: Tensor) -> Tensor:
        """Images [B,3,H,W] → what the classifier sees, [B,D]."""
        raise NotImplementedError

    def training_losses(self, batch: FaceBatch) -> dict[str, Tensor]:
        """Named scalar loss terms and their weighted sum under "total"; soft targets are used if given."""
        raise NotImplementedError

    def attention_maps(self, images: Tensor) -> dict[str, Tensor]:
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


def classification_loss(logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """Mean cross-entropy of logits [B,C] with labels [B], or with soft targets [B,C] where there are any.

    Computed in float32 whatever the logits' type, so that bf16 autocast does not blur it.
    """
    return F.cross_entropy(logits.float(), labels if targets is None else targets)


def map_loss(maps: Tensor, moved: Tensor) -> Tensor:
    """1 − cosine between each face's map and the skin that its active units move; their mean, in float32.

    Maps [B,K,h,w] of any sign, of which the mean over K counts, each scaled to the same length; moved
    [B,1,H,W], 0…1. A face at rest moves nothing and adds 0. After Belharbi et al., FG 2024,
    https://arxiv.org/abs/2402.00281, who teach a layer's features in this way.
    """
    truth = F.adaptive_avg_pool2d(moved.float(), (maps.shape[2], maps.shape[3])).flatten(1)
    seen = F.normalize(maps.float().flatten(2), dim=2).mean(1)
    return (truth.any(1) * (1 - F.cosine_similarity(seen, truth))).mean()


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
    """The class behind a name; ValueError, which lists the known ones, for another name."""
    if name not in _METHODS:
        raise ValueError(f"unknown model {name!r}; expected one of {', '.join(_METHODS)}")
    module, _, attribute = _METHODS[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def model_options(name: str) -> dict[str, Any]:
    """A method's own keyword options with their defaults; ValueError for an unknown name."""
    parameters = inspect.signature(method_class(name)).parameters
    return {key: p.default for key, p in parameters.items() if key not in ("num_classes", "size")}


def create_model(name: str, num_classes: int = 7, size: str = "tiny", **options: Any) -> Method:
    """Build one of `list_models()` by name, with random weights from torch's global generator.

    7 and 8 classes get the canonical expression names. Sizes are "tiny" (56 px) and "paper" (224 px); some
    methods have more. A part that ships trained is loaded by the method's `load_shipped`. Raises ValueError
    for an unknown name, size or option (see `model_options`), or as `load_shipped` does.

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
