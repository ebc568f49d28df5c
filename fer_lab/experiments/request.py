"""Training, the description of one training: typed values that the results store knows it by."""

import dataclasses
import hashlib
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union

from fer_lab.data import FaceRequest, FaceSet
from fer_lab.data.expressions import order_of
from fer_lab.data.synthetic import KNOBS
from fer_lab.models.authors.faceres import trunk_digest
from fer_lab.models.authors.loading import read_state_dict
from fer_lab.models.method import IMAGE_SIZES, create_model, default_recipe, method_class
from fer_lab.models.recipes import Recipe
from fer_lab.models.weights import is_shipped_name, read_card
from fer_lab.runs import ResultsStore, Run
from fer_lab.runs.run import weights_file
from fer_lab.runs.store import check_texts

# Added to the seed of the training faces, so that the balanced faces are of other people.
BALANCED_SEED = 1_000_003

# Between a file's name and its digest, since files of one name may differ.
DIGEST = "@sha256:"

# What a training may start from: another training, a bundled model such as "synthetic/dan", or a path.
Start = Union["Training", str, Path, None]
STARTS = ("weights", "trunk")


def changed(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """A recipe with some fields replaced; `augmentation.FIELD` reaches inside its augmentation.

    An unknown field, or a value out of its range, raises ValueError.
    """
    outer, inner = {}, dataclasses.asdict(recipe.augmentation)
    for name, value in changes.items():
        prefix, _, field = name.rpartition(".")
        within = prefix == "augmentation" and field in inner
        default = inner[field] if within else getattr(recipe, name, "")
        if isinstance(value, str) and not isinstance(default, str):
            raise ValueError(f"{name} takes a {type(default).__name__} such as {default!r}, got {value!r}")
        if within:
            inner[field] = value
        else:
            outer[name] = value
    return recipe.replace(augmentation=type(recipe.augmentation).from_dict(inner), **outer)


@dataclass(frozen=True, kw_only=True)
class Training:
    """One training: which model learns what from which faces, and what it is measured on.

    Example:
        >>> trunk = Training(model="baseline", changes={"epochs": 6}, variant="trunk")
        >>> Training(model="dan", options={"num_heads": 2}, trunk=trunk, variant="DAN, K = 2")

    Attributes:
        model, size, options: as `create_model` takes them; the seed fixes weights, batches and augmentation.
        faces: of all splits.
        recipe: name of one of the model's recipes; "" is "smoke" for rendered faces, else "scratch".
        changes: fields of the recipe that differ, such as {"epochs": 6, "augmentation.flip": 0.0}.
        weights: what the whole model starts from: another training, a bundled model, a run's folder, a file of
            ours, or a checkpoint in its authors' names, which may hold the trunk alone.
        order: the data set whose label order the head of an authors' checkpoint has; "" leaves it as it is.
        trunk: what the trunk alone starts from: a training, bundled model, folder or file of any method.
        variant: name in the results store; "" if it is not recorded.
        split: reported on; "" is `FaceSet.reported_split`.
        resolutions: also report the accuracy on faces shrunk to these percentages of their side.
        head_sizes: also report it on balanced faces whose heads are these percentages of the usual size.
        also: name → faces of another data set, such as photographs for a training on rendered faces; also
            report the accuracy and the mean class recall on their reported split, and choose nothing by it.
        flip: also report the scores of the answers to a face and its mirror image together.
        balanced: report on this many rendered faces of other people instead, with balanced classes, so that
            the recall of a class that is rare in training can be measured; the split is called "balanced".
    """

    model: str
    faces: FaceRequest = dataclasses.field(default_factory=FaceRequest)
    size: str = "tiny"
    recipe: str = ""
    seed: int = 0
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    weights: Start = None
    order: str = ""
    trunk: Start = None
    variant: str = ""
    split: str = ""
    resolutions: Sequence[int] = ()
    head_sizes: Sequence[int] = ()
    balanced: int = 0
    flip: bool = False
    also: Mapping[str, FaceRequest] = dataclasses.field(default_factory=dict)

    @property
    def recipe_name(self) -> str:
        return self.recipe or default_recipe(self.faces.dataset)

    @property
    def sized_faces(self) -> FaceRequest:
        """The faces in the size that the model takes."""
        return self.faces.sized(IMAGE_SIZES.get(self.size, IMAGE_SIZES["paper"]))

    def chosen_recipe(self) -> Recipe:
        """The recipe with its changes; an unknown model, recipe or field raises ValueError."""
        recipes = method_class(self.model).recipes
        if self.recipe_name not in recipes:
            known = ", ".join(recipes)
            raise ValueError(f"{self.model} has no recipe {self.recipe_name!r}; it has {known}")
        return changed(recipes[self.recipe_name].replace(seed=self.seed), self.changes)

    def check(self) -> None:
        """Find what is wrong with a request before a face is rendered or read.

        Raises ValueError for an unknown model, size, option, recipe, field or label order, a value out of its
        range, or weights or a trunk in a file that cannot be read; FileNotFoundError for no weights or trunk at
        the path given.
        """
        self.chosen_recipe()
        check_texts({"variant": self.variant})
        if self.order:
            order_of(self.order)
        create_model(self.model, self.faces.classes or 7, self.size, **self.options)
        for start in (self.weights, self.trunk):
            if isinstance(start, Training):
                start.check()
            elif start:
                if not (Path(start).exists() or is_shipped_name(Path(start))):
                    raise FileNotFoundError(f"no weights at {start}")
                file = weights_file(start)
                if start is self.weights and (file.suffix != ".safetensors" or trunk_digest(file)):
                    read_state_dict(file)
                else:
                    read_card(file)
        if self.balanced and (self.split or not self.faces.rendered):
            raise ValueError("balanced faces are rendered, and take the place of a split: give one of the two")
        if self.head_sizes and not self.balanced:
            raise ValueError("only balanced faces can be rendered with other head sizes; give their number")

    def reported(self, faces: FaceSet) -> tuple[str, FaceSet]:
        """What the finished model is measured on: the split's name and its faces; ValueError if it has none."""
        if not self.balanced:
            split = self.split or faces.reported_split()
            return split, faces.split(split)
        return "balanced", self.balanced_faces().load()

    def balanced_faces(self, head_size: int = 100) -> FaceRequest:
        """The balanced faces, with heads of a percentage of their usual size.

        Their `load` raises ValueError for a size that the renderer does not draw.
        """
        low, high = self.faces.knobs.get("scale_range", KNOBS["scale_range"].default)
        heads = {"scale_range": (low * head_size / 100, high * head_size / 100)} if head_size != 100 else {}
        knobs = {**self.faces.knobs, "imbalance": 0, "label_noise": 0, **heads}
        seed = self.faces.seed + BALANCED_SEED
        return dataclasses.replace(self.sized_faces, count=self.balanced, seed=seed, knobs=knobs)

    # -----------------------------------------------------------------------------------------------------
    # As data, and what is rendered from the data

    def to_data(self) -> dict[str, Any]:
        """Plain data for JSON, equal for equal trainings, without empty fields and the reader's folders."""
        starts = {name: _origin(getattr(self, name)) for name in STARTS}
        also = {name: one.to_data() for name, one in self.also.items()}
        data = vars(self) | {"faces": self.faces.to_data(), "recipe": self.recipe_name, "also": also, **starts}
        return {name: _plain(value) for name, value in data.items() if value}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> "Training":
        """The inverse of `to_data`, without the reader's folders."""
        starts = {name: cls.from_data(data[name]) for name in STARTS if isinstance(data.get(name), Mapping)}
        also = {name: FaceRequest.from_data(one) for name, one in data.get("also", {}).items()}
        return cls(**{**data, **starts, "also": also, "faces": FaceRequest.from_data(data["faces"])})

    def to_json(self) -> str:
        """The one JSON text of a training; the results store finds it by this text."""
        return json.dumps(self.to_data(), sort_keys=True, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "Training":
        """The inverse of `to_json`."""
        return cls.from_data(json.loads(text))

    @property
    def name(self) -> str:
        """Name of the run's folder; another training has another name."""
        digest = hashlib.sha256(self.to_json().encode()).hexdigest()[:6]
        kind = self.variant or self.recipe_name
        parts = [self.faces.dataset, self.model, self.size, kind, f"seed{self.seed}", digest]
        return re.sub(r"[^\w.+=-]+", "_", "-".join(parts))

    def words(self, root: str = "$FER_DATA") -> list[str]:
        """Arguments of `fer-lab train`. With the default folder the paths of weights and trunk are portable."""
        data, faces, portable = self.to_data(), self.faces, root == "$FER_DATA"
        options: dict[str, Any] = {"dataset": faces.dataset}
        if faces.count is not None:
            options |= {"faces": str(faces.count), "faces-seed": faces.seed}
        if faces.rendered:
            options |= {"knob": data["faces"].get("knobs")}
        else:
            options |= {"data-root": root, "rule": faces.rule, "skip-bad": faces.skip_bad}
            options |= {"faces-order": faces.order, "test-share": faces.test_share}
            if faces.train_share:
                options |= {"train-share": faces.train_share, "faces-seed": faces.seed}
        options |= {"classes": faces.classes, "faces-size": faces.size}
        options |= {"size": self.size, "recipe": self.recipe_name, "seed": str(self.seed)}
        options |= {"set": data.get("changes"), "option": data.get("options")}
        for name in STARTS:
            origin = data.get(name) if portable else getattr(self, name)
            run = isinstance(origin, Mapping) and f"runs/{Training.from_data(origin).name}"
            options[name] = origin and (run or str(origin).partition(DIGEST)[0])
        resolutions, head_sizes = (",".join(map(str, sizes)) for sizes in (self.resolutions, self.head_sizes))
        options |= {"order": self.order, "split": self.split, "resolutions": resolutions, "flip": self.flip}
        options |= {"head-sizes": head_sizes, "balanced": self.balanced, "record": self.variant}
        options["also"] = {name: f"{root}/{name}" if portable else one.root for name, one in self.also.items()}
        return [self.model, *(word for name, value in options.items() for word in _option(f"--{name}", value))]

    def command(self) -> str:
        """The training as others can run it, with $FER_DATA for the reader's data folder."""
        line = ["fer-lab", "train", *self.words()]
        return " ".join(word if "$FER_DATA" in word else shlex.quote(word) for word in line)

    def recorded(self, store: ResultsStore | str | Path) -> bool:
        """Whether a results store has a row of this training and, for rendered faces, of these very faces."""
        store = store if isinstance(store, ResultsStore) else ResultsStore(store)
        rows = store.rows([self])
        return len(rows) > 0 and (
            not self.faces.rendered or self.sized_faces.fingerprint() in set(rows["fingerprint"])
        )


def _origin(start: Start) -> Any:
    """What a training starts from, as data: a request, a bundled model's name, or a file's name and digest.

    Other folders than those of runs belong to the reader and are left out.
    """
    if start is None or isinstance(start, Training):
        return start and start.to_data()
    path = Path(start)
    if is_shipped_name(path):
        return path.as_posix()
    folder = path if path.is_dir() else path.parent
    name = path.name
    if (folder / "config.json").exists():
        if request := Run(folder).config.get("request"):
            return request
        name = f"runs/{path.relative_to(folder.parent).as_posix()}"
    if not (file := weights_file(path)).is_file():
        return name
    if digest := trunk_digest(file):
        return name + DIGEST + digest
    with open(file, "rb") as content:
        return name + DIGEST + hashlib.file_digest(content, "sha256").hexdigest()[:16]


def _plain(value: Any) -> Any:
    """A value as canonical JSON has it: names are sorted, and 1.0 is written as 1."""
    if isinstance(value, Mapping):
        return {name: _plain(value[name]) for name in sorted(value)}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _option(name: str, value: Any) -> list[str]:
    """The words of an option of the command line; none for what is empty."""
    if isinstance(value, Mapping):
        return [word for field, one in value.items() for word in (name, f"{field}={one}")]
    if value is True:
        return [name]
    return [name, str(value)] if value else []
