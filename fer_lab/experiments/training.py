"""The work behind `fer-lab train` and its kin, as plain functions.

Apart from cli.py, so that asking for help or running notebooks does not wait for torch.
"""

import ast
import dataclasses
import json
import re
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.distributed.elastic.multiprocessing.errors import record

from fer_lab._files import atomic_path
from fer_lab._progress import progress
from fer_lab.book.parameters import native
from fer_lab.data.datasets import load_dataset
from fer_lab.data.faces import FaceSet
from fer_lab.data.synthetic import SyntheticFaces
from fer_lab.data.synthetic.generator import set_fingerprint
from fer_lab.evaluation.embeddings import structure
from fer_lab.evaluation.metrics import evaluate, predict
from fer_lab.evaluation.robustness import accuracy_by_scale
from fer_lab.models.authors.convert import start_from_trunk, start_from_weights
from fer_lab.models.bundled import card_text, is_shipped_name
from fer_lab.models.method import IMAGE_SIZES, create_model, method_class
from fer_lab.models.recipes import Recipe
from fer_lab.models.weights import read_card, save_model
from fer_lab.parallel.launch import check_devices, launch, stop_with_launcher
from fer_lab.runs import Predictions, ResultsStore, Run
from fer_lab.runs.run import open_model
from fer_lab.training.loop import fit

# Added to the seed of the faces trained on, so that balanced faces are of other people.
BALANCED_SEED = 1_000_003


def literal(text: str):
    """`"0.5"` → 0.5, `"true"` → True; text that is no literal stays text."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return ast.literal_eval(text)
    except Exception:  # thousands of signs or brackets end in MemoryError, {[]} in TypeError
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
            return SyntheticFaces(self.count, **self._rendering())
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

    def fingerprint(self) -> str:
        """Of the rendered faces, which need not be drawn for it."""
        return set_fingerprint(self.count, **self._rendering())

    def _rendering(self) -> dict:
        knobs = {name: literal(value) for name, value in self.knobs.items()}
        return {"seed": self.seed, "num_classes": self.classes or 7, "size": self.size or 112, **knobs}

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
        weights: file to start from: safetensors of ours, or a checkpoint in its authors' names, of the whole
            model or of its trunk.
        order: the data set whose label order the head of an authors' checkpoint has; "" leaves it as it is.
        trunk: a run's folder or a file of weights whose trunk to start from, whatever method it is of.
        variant: name in the results store; "" if it is not recorded.
        split: reported on; "" is "valid" where there are such faces, else "test".
        scales: also report the accuracy on faces shrunk to so many percent of their side.
        balanced: report on so many rendered faces of other people instead, every class equally often, so that
            the recall of a class that is rare in training can be measured; the split is called "balanced".
    """

    model: str
    source: Source
    size: str = "tiny"
    recipe: str = ""
    seed: int = 0
    changes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    options: Mapping[str, str] = dataclasses.field(default_factory=dict)
    weights: Path | None = None
    order: str = ""
    trunk: Path | None = None
    variant: str = ""
    split: str = ""
    scales: Sequence[int] = ()
    balanced: int = 0

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
        if self.weights:  # of a run or the name alone: other folders are the reader's own
            of_run = (self.weights.parent / "config.json").exists()
            inside = f"runs/{self.weights.parent.name}/" if of_run else ""
            words += ["--weights", f"{inside}{self.weights.name}"]
        words += ["--order", self.order] if self.order else []
        if self.trunk:
            words += ["--trunk", str(self.trunk) if is_shipped_name(self.trunk) else f"runs/{self.trunk.name}"]
        words += ["--split", self.split] if self.split else []
        words += ["--scales", ",".join(map(str, self.scales))] if self.scales else []
        words += ["--balanced", str(self.balanced)] if self.balanced else []
        words += ["--record", self.variant] if self.variant else []
        return " ".join(word if word == "$FER_DATA" else shlex.quote(word) for word in words)

    def recorded(self, store: Path) -> bool:
        """Whether a results store has a row of this very training: the command, and, if rendered, the faces.

        Neither the order of a command's options matters, nor what the run was called that it starts from.
        """
        rows, wanted = ResultsStore(store).runs(), _told_apart(self.command())
        same = [_told_apart(command) == wanted for command in rows["command"]]
        rows = rows.loc[np.array(same, dtype=bool)]
        source = self.source.sized(self.image_size)
        if source.dataset == "synthetic":
            rows = rows[rows["fingerprint"] == source.fingerprint()]
        return len(rows) > 0

    def starts_from(self) -> set[Path]:
        """Folders of runs, or what would be one, whose weights or trunk this training starts from."""
        given = {self.weights.parent} if self.weights else set()
        return given | ({self.trunk} if self.trunk and not is_shipped_name(self.trunk) else set())

    def reported(self, faces: FaceSet) -> tuple[str, FaceSet]:
        """What the finished model is measured on: the name of the split, and its faces.

        Raises:
            ValueError: no faces in the split, or balanced faces that are not rendered.
        """
        if not self.balanced:
            split = self.split or faces.reported_split()
            return split, faces.split(split)
        if self.source.dataset != "synthetic" or self.split:
            raise ValueError("balanced faces are rendered, and take the place of a split: give one of the two")
        knobs = {**self.source.knobs, "imbalance": "0", "label_noise": "0"}
        seed = self.source.seed + BALANCED_SEED
        source = dataclasses.replace(self.source, count=self.balanced, seed=seed, knobs=knobs)
        return "balanced", source.sized(self.image_size).load()


def _told_apart(command: str) -> list[str]:
    """What tells a training from others: the words of its command, a run's folder without its name."""
    return sorted(re.sub(r"^runs/[^/]+/?", "", word) for word in shlex.split(command))


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
    devices: int = 1,
    faces: FaceSet | None = None,
) -> Trained | None:
    """Train, then report once on a split that took part in no choice.

    A tenth of the training faces is held out for choices; `fit` puts the accuracy on it into the history.
    Where torch.distributed.run has started several processes of this one, all train together, the first one
    reports, and the others get None.

    Args:
        out: the run's folder; an interrupted run in it goes on.
        store: results store to record in, under the request's variant.
        ship: also write the weights in half precision, with their card.
        fresh: start anew where there is a run in the folder.
        devices: train on so many GPUs (or cores) of this machine, one process each.
        faces: what the request's source has loaded before, to spare a second reading.

    Raises:
        ValueError: an unknown model, recipe, field, option or split; more devices than there are; and as
            `Source.load`.
        FileNotFoundError: no weights or trunk where they should be, said before any face is read.
        RuntimeError: one of several processes failed.
    """
    check_devices(devices, device)
    request.chosen_recipe()
    for given in filter(None, (request.weights, request.trunk)):
        if not (given.exists() or is_shipped_name(given)):
            raise FileNotFoundError(f"no weights at {given}")
    faces = request.source.sized(request.image_size).load() if faces is None else faces
    split, reported = request.reported(faces)
    run = Run(out or request.folder())
    if devices > 1:
        _fit_on(devices, request, run, faces.fingerprint, fresh, device)
    else:
        _fit(request, run, faces, fresh, device)
        if torch.distributed.is_initialized() and torch.distributed.get_rank():
            return None
    trained = run.load_model()
    predictions = predict(trained, reported, embeddings=True)
    run.save_predictions(predictions)
    tables = [evaluate(predictions), structure(trained, reported, predictions.embeddings)]
    if request.scales:
        tables.append(accuracy_by_scale(trained, reported, request.scales))
    metrics = pd.concat(tables, ignore_index=True)
    minutes = float(run.history["seconds"].sum()) / 60
    origin = {
        "dataset": faces.name,
        "fingerprint": faces.fingerprint,
        "split": split,
        "command": request.command(),
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
        save_model(trained, ship, half=True, seed=request.seed, score=score, faces=len(reported), **origin)
        with atomic_path(ship.with_suffix(".md")) as path:
            path.write_text(card_text(read_card(ship)), encoding="utf-8")
    return Trained(run, split, predictions, metrics, minutes)


def record_missing(requests: Mapping[str, Training], folder: Path, store: Path) -> list[str]:
    """Train those of some trainings that a results store lacks, each into the folder of its name.

    Args:
        requests: trainings with a variant, by name. Where one starts from `folder / NAME` of another, that is
            trained before it, unless a finished run lies there; a run that was interrupted goes on.

    Returns:
        The names of those trained, in order.
    """
    trained: list[str] = []

    def train_first(name: str) -> None:
        for other in requests:
            if folder / other in requests[name].starts_from() and not Run(folder / other).is_finished:
                train_first(other)
        train(requests[name], out=folder / name, store=store)
        trained.append(name)

    for name, request in requests.items():
        if name not in trained and not request.recorded(store):
            train_first(name)
    return trained


def _fit(request: Training, run: Run, faces: FaceSet, fresh: bool, device: str) -> None:
    """Fit the model that was asked for."""
    training, held_out = faces.split("train").holdout()
    torch.manual_seed(request.seed)
    options = {name: literal(value) for name, value in request.options.items()}
    model = create_model(request.model, num_classes=faces.num_classes, size=request.size, **options)
    told = {"command": request.command(), "variant": request.variant}
    if request.weights:
        told["start"] = start_from_weights(model, request.weights, request.order)
    if request.trunk:
        start_from_trunk(model, open_model(request.trunk))
    recipe = request.chosen_recipe()
    fit(model, training, held_out, recipe, run.folder, device=device, resume=not fresh, config=told)


def _fit_on(devices: int, request: Training, run: Run, fingerprint: str, fresh: bool, device: str) -> None:
    """The same in several processes, which read the faces themselves."""
    asked = dataclasses.asdict(request) | {"source": None}
    order = {
        "request": asked,
        "source": dataclasses.asdict(request.source),
        "folder": run.folder.resolve(),
        "fingerprint": fingerprint,
        "fresh": fresh,
        "device": device,
    }
    with tempfile.TemporaryDirectory(prefix="fer_lab-train-") as scratch:
        path = Path(scratch) / "order.json"
        path.write_text(json.dumps(order, default=str))
        with progress(description=request.model, total=request.chosen_recipe().epochs) as bar:
            done = 0 if fresh else len(run.history)

            def look() -> None:
                bar.update(max(0, len(run.history) - done) - bar.n)

            launch(devices, ["fer_lab.experiments.training", str(path)], device=device, on_poll=look)


@record
def main(path: str) -> None:
    """One of the processes of `train(…, devices=…)`."""
    stop_with_launcher()
    order = json.loads(Path(path).read_text())
    paths = {key: Path(value) if (value := order["request"][key]) else None for key in ("weights", "trunk")}
    root = order["source"]["root"]
    source = Source(**order["source"] | {"root": Path(root) if root else None})
    request = Training(**order["request"] | paths | {"source": source})
    faces = source.sized(request.image_size).load()
    if faces.fingerprint != order["fingerprint"]:
        raise ValueError(f"{faces.name} changed while several processes began to read it; start again")
    _fit(request, Run(order["folder"]), faces, order["fresh"], order["device"])


def describe_device(run: Run) -> str:
    """The GPU's name, or the processor's with the threads that were used; how many processes, if several."""
    here, devices = run.environment, run.config.get("devices", 1)
    one = here["device"] if here["device"] != "cpu" else f"{here['cpu']}, {here['threads']} threads"
    return one if devices == 1 else f"{devices} × {one}"


if __name__ == "__main__":
    main(sys.argv[1])
