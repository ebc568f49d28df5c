"""The work behind `fer-lab train`, `evaluate` and `predict`, as plain functions.

Apart from cli.py, so that asking for help or running notebooks does not wait for torch.
"""

import ast
import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image, ImageDraw, ImageOps

from fer_lab.data.batches import prepare
from fer_lab.data.datasets import load_dataset
from fer_lab.data.expressions import COLORS
from fer_lab.data.faces import FaceSet
from fer_lab.data.photos import crop_face, find_faces, open_image
from fer_lab.data.synthetic import SyntheticFaces
from fer_lab.evaluation import evaluate, predict, structure
from fer_lab.models.method import IMAGE_SIZES, Method, create_model, list_models, method_class
from fer_lab.models.recipes import Recipe
from fer_lab.runs import Predictions, ResultsStore, Run, load_model, load_weights, save_model
from fer_lab.training import fit
from fer_lab.workbook import native

# Sets of weights that ship, the preferred first; a set is named by what it was trained on.
SHIPPED = ("ferplus", "synthetic")


def literal(text: str):
    """`"0.5"` → 0.5; text that is no literal stays text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a command's faces come from.

    Attributes:
        dataset: "synthetic", or a name that `load_dataset` knows.
        root: its folder; not needed for "synthetic".
        classes: 7 or 8; None is what the data set has, 7 for "synthetic".
        rule: FER+'s label rule.
        skip_bad: leave unreadable images out.
        count: how many faces to render.
        seed: of the rendered faces.
        size: side in pixels; None is native, and for "synthetic" what the model takes (112 without one).
        knobs: of the renderer, as text.
    """

    dataset: str = "synthetic"
    root: Path | None = None
    classes: int | None = None
    rule: str = "majority"
    skip_bad: bool = False
    count: int = 4000
    seed: int = 0
    size: int | None = None
    knobs: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def load(self) -> FaceSet:
        """The faces.

        Raises:
            ValueError: no folder given, knobs for real faces, and whatever `load_dataset` finds wrong.
        """
        if self.dataset == "synthetic":
            knobs = {name: literal(value) for name, value in self.knobs.items()}
            return SyntheticFaces(
                self.count, seed=self.seed, num_classes=self.classes or 7, size=self.size or 112, **knobs
            )
        if self.knobs:
            raise ValueError(f"only rendered faces have knobs; {self.dataset} does not know {list(self.knobs)}")
        if self.root is None:
            raise ValueError(f"{self.dataset} needs its folder: --data-root, or FER_DATA in the environment")
        return load_dataset(
            self.dataset,
            self.root,
            num_classes=self.classes,
            label_rule=self.rule,
            skip_bad=self.skip_bad,
            size=self.size,
        )

    def sized(self, pixels: int) -> "Source":
        """The same faces for a model: rendered ones at its size, unless another was asked for."""
        if self.dataset != "synthetic" or self.size:
            return self
        return dataclasses.replace(self, size=pixels)

    def words(self) -> list[str]:
        """As options of a command, with $FER_DATA for the reader's folder."""
        words = ["--dataset", self.dataset]
        if self.dataset == "synthetic":
            words += ["--faces", str(self.count)]
            words += ["--faces-seed", str(self.seed)] if self.seed else []
            words += [word for name, value in self.knobs.items() for word in ("--knob", f"{name}={value}")]
        else:
            words += ["--data-root", "$FER_DATA", "--rule", self.rule]
        return words + (["--classes", str(self.classes)] if self.classes else [])


def changed(recipe: Recipe, changes: Mapping[str, str]) -> Recipe:
    """A recipe with fields set from text, each in the type it has; `augmentation.FIELD` reaches inside.

    Raises:
        ValueError: an unknown field, or text that is no such value.
    """
    own, inner = {}, dataclasses.asdict(recipe.augmentation)
    for name, value in changes.items():
        outer, _, field = name.rpartition(".")
        if outer == "augmentation" and field in inner:
            inner[field] = native(name, value, inner[field])
        else:
            own[name] = native(name, value, getattr(recipe, name, None))
    return recipe.replace(augmentation=type(recipe.augmentation).from_dict(inner), **own)


@dataclass(frozen=True, kw_only=True)
class Training:
    """What `fer-lab train` was asked for.

    Attributes:
        model, size: as `create_model` takes them.
        recipe: name of one of the model's recipes; "" is "smoke" for rendered faces, else "scratch".
        seed: of initial weights, batches and augmentation.
        changes: fields of the recipe, as text.
        options: keyword options of the model, as text.
        weights: safetensors to start from.
        trunk: a run's folder or a file of weights whose trunk to start from, whatever method it is of.
        variant: name in the results store; "" if it is not recorded.
        split: reported on; "" is "valid" where there are such faces, else "test".
    """

    model: str
    source: Source
    size: str = "tiny"
    recipe: str = ""
    seed: int = 0
    changes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    options: Mapping[str, str] = dataclasses.field(default_factory=dict)
    weights: Path | None = None
    trunk: Path | None = None
    variant: str = ""
    split: str = ""

    @property
    def recipe_name(self) -> str:
        return self.recipe or ("smoke" if self.source.dataset == "synthetic" else "scratch")

    @property
    def image_size(self) -> int:
        """Side of the images that the model will take, in pixels."""
        return IMAGE_SIZES.get(self.size, IMAGE_SIZES["paper"])

    def chosen_recipe(self) -> Recipe:
        """The recipe with its changes.

        Raises:
            ValueError: an unknown model, recipe or field.
        """
        recipes = method_class(self.model).recipes
        if self.recipe_name not in recipes:
            known = ", ".join(recipes)
            raise ValueError(f"{self.model} has no recipe {self.recipe_name!r}; it has {known}")
        return changed(recipes[self.recipe_name].replace(seed=self.seed), self.changes)

    def folder(self) -> Path:
        """Where the run goes if nobody says: a folder of its own for every different request."""
        asked = {**self.options, **self.changes, **self.source.knobs}
        changes = [f"{name}={value}" for name, value in asked.items()]
        kind = [self.variant or self.recipe_name, *changes]
        parts = [self.source.dataset, self.model, self.size, *kind, f"seed{self.seed}"]
        return Path("runs") / "-".join(parts).replace("/", "_").replace("\\", "_")

    def command(self) -> str:
        """The training as others can run it."""
        words = ["fer-lab", "train", self.model, *self.source.words()]
        words += ["--size", self.size, "--recipe", self.recipe_name, "--seed", str(self.seed)]
        words += [word for name, value in self.changes.items() for word in ("--set", f"{name}={value}")]
        words += [word for name, value in self.options.items() for word in ("--option", f"{name}={value}")]
        # the name alone: the folder is the reader's own
        words += ["--weights", self.weights.name] if self.weights else []
        if self.trunk:
            shipped = str(self.trunk) in list_models() and not self.trunk.exists()
            words += ["--trunk", str(self.trunk) if shipped else f"runs/{self.trunk.name}"]
        words += ["--split", self.split] if self.split else []
        words += ["--record", self.variant] if self.variant else []
        return " ".join(word if word == "$FER_DATA" else shlex.quote(word) for word in words)


@dataclass(frozen=True)
class Trained:
    """A finished training: its run, what it said of the split reported on, and the numbers of that."""

    run: Run
    split: str
    predictions: Predictions
    metrics: pd.DataFrame
    minutes: float


def train(
    request: Training,
    *,
    out: Path | None = None,
    store: Path | None = None,
    ship: Path | None = None,
    fresh: bool = False,
    device: str = "auto",
    faces: FaceSet | None = None,
) -> Trained:
    """Train, then report once on a split that took part in no choice.

    A tenth of the training faces is held out for choices; `fit` puts the accuracy on it into the history.

    Args:
        out: the run's folder; an interrupted run in it goes on.
        store: results store to record in, under the request's variant.
        ship: also write the weights in half precision, with their card.
        fresh: start anew where there is a run in the folder.
        faces: what the request's source has loaded before, to spare a second reading.

    Raises:
        ValueError: an unknown model, recipe, field, option or split; and as `Source.load`.
    """
    recipe = request.chosen_recipe()
    faces = request.source.sized(request.image_size).load() if faces is None else faces
    split = request.split or ("valid" if (faces.splits == "valid").any() else "test")
    reported = faces.split(split)
    training, held_out = faces.split("train").holdout()
    torch.manual_seed(request.seed)
    options = {name: literal(value) for name, value in request.options.items()}
    model = create_model(request.model, num_classes=faces.num_classes, size=request.size, **options)
    if request.weights:
        load_weights(model, request.weights)
    if request.trunk:
        start_from_trunk(model, open_model(request.trunk))

    told = {"command": request.command(), "variant": request.variant}
    run = fit(
        model, training, held_out, recipe, out or request.folder(), device=device, resume=not fresh, config=told
    )
    trained = run.load_model().to(next(model.parameters()).device)
    predictions = predict(trained, reported, embeddings=True)
    run.save_predictions(predictions)
    metrics = pd.concat(
        [evaluate(predictions), structure(trained, reported, predictions.embeddings)], ignore_index=True
    )
    minutes = float(run.history["seconds"].sum()) / 60
    origin = {
        "dataset": faces.name,
        "fingerprint": faces.fingerprint,
        "split": split,
        "command": told["command"],
    }
    if store and request.variant:
        ResultsStore(store).record(
            method=request.model,
            size=request.size,
            variant=request.variant,
            seed=request.seed,
            minutes=minutes,
            device=describe_device(run),
            metrics=metrics,
            predictions=predictions,
            **origin,
        )
    if ship:
        overall = metrics[metrics["class"] == ""]
        score = dict(zip(overall["metric"], overall["value"].round(4).tolist(), strict=True))
        save_model(trained, ship, half=True, seed=request.seed, score=score, **origin)
    return Trained(run, split, predictions, metrics, minutes)


def start_from_trunk(model: Method, trained: Method) -> None:
    """Copy the trunk of a trained model into another method's, as the papers start from face recognition's.

    Raises:
        ValueError: one of the two has no trunk, or their trunks differ.
    """
    if not (hasattr(model, "trunk") and hasattr(trained, "trunk")):
        raise ValueError(f"{model.name} and {trained.name} must both have a trunk to hand one over")
    own, given = model.trunk.state_dict(), trained.trunk.state_dict()
    if {k: v.shape for k, v in own.items()} != {k: v.shape for k, v in given.items()}:
        raise ValueError(
            f"the trunks of {trained.name} ({trained.size}) and {model.name} ({model.size}) differ"
        )
    model.trunk.load_state_dict(given)


def describe_device(run: Run) -> str:
    """The GPU's name, or the processor's with the threads that were used."""
    here = run.environment
    return here["device"] if here["device"] != "cpu" else f"{here['cpu']}, {here['threads']} threads"


def open_model(path: Path) -> Method:
    """The trained model in a run's folder, in a file of weights, or the shipped one of a method's name."""
    if not path.exists() and str(path) in list_models():
        path = shipped_weights(str(path))
    return load_model(path) if path.is_file() else Run(path).load_model()


# ---------------------------------------------------------------------------------------------------------
# Faces in a reader's own pictures


def shipped_weights(name: str) -> Path:
    """The weights of a model that come with the package.

    Raises:
        ValueError: none come for this one.
    """
    folder = Path(__file__).parent / "weights"
    for trained_on in SHIPPED:
        if (path := folder / trained_on / f"{name}.safetensors").exists():
            return path
    there = sorted({path.stem for path in folder.glob("*/*.safetensors")})
    others = f", or --model one of {', '.join(there)}" if there else ""
    raise ValueError(f"no weights come with {name}; give --weights FILE{others}")


@dataclass(frozen=True)
class Seen:
    """One face in a picture.

    Attributes:
        box: (left, top, right, bottom) in pixels of the picture.
        probabilities: by expression.
        heat: float [h,w], 0…1, where the model looked.
    """

    box: tuple[int, int, int, int]
    probabilities: dict[str, float]
    heat: np.ndarray


def look(model: Method, image: Image.Image, boxes: Sequence[tuple[int, int, int, int]]) -> list[Seen]:
    """Probabilities and attention of the faces in `boxes` of an RGB picture."""
    images = torch.stack([crop_face(image, box) for box in boxes])
    ready = prepare(images, model.image_size, model.color_order)
    model.eval()
    with torch.no_grad():
        probabilities = model(ready).softmax(1).tolist()
        maps = next(iter(model.attention_maps(ready).values())).mean(1)
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    heats = ((maps - low) / (high - low).clamp_min(1e-12)).numpy()
    return [
        Seen(tuple(box), dict(zip(model.classes, row, strict=True)), heat)
        for box, row, heat in zip(boxes, probabilities, heats, strict=True)
    ]


def overlay(image: Image.Image, faces: Sequence[Seen]) -> Image.Image:
    """The picture with each face's attention as heat, a frame, and the likeliest expression above it."""
    from matplotlib import colormaps

    drawn = image.copy()
    for face in faces:
        left, top, right, bottom = face.box
        size = (right - left, bottom - top)
        heat = Image.fromarray(np.uint8(face.heat * 255)).resize(size, Image.Resampling.BICUBIC)
        coloured = Image.fromarray(np.uint8(colormaps["inferno"](np.asarray(heat))[..., :3] * 255))
        drawn.paste(coloured, (left, top), heat.point(lambda value: value * 0.6))
    pen = ImageDraw.Draw(drawn)
    for face in faces:
        name, p = max(face.probabilities.items(), key=lambda item: item[1])
        height = max(12, (face.box[3] - face.box[1]) // 9)
        color = COLORS.get(name, "#ffffff")
        pen.rectangle(face.box, outline=color, width=max(2, height // 8))
        at = (face.box[0], max(0, face.box[1] - height - 4))
        text = f"{name} {p:.0%}"
        pen.rectangle(pen.textbbox(at, text, font_size=height), fill="#000000")
        pen.text(at, text, fill=color, font_size=height)
    return drawn


def predict_picture(model: Method, path: Path, *, whole: bool = False) -> tuple[Image.Image, list[Seen]]:
    """A picture and what the model says of its faces.

    Args:
        whole: take the picture as one face crop (its middle square) instead of looking for faces.

    Raises:
        ValueError: not a picture that is accepted; see `open_image`.
    """
    image = open_image(path)
    if whole:
        image = ImageOps.fit(image, (min(image.size),) * 2)
        boxes = [(0, 0, *image.size)]
    else:
        boxes = [face.box for face in find_faces(image)]
    return image, look(model, image, boxes) if boxes else []
