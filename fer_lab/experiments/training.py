"""Train what a request describes, report once, and fill a results store with the trainings that it lacks."""

import contextlib
import dataclasses
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch.distributed.elastic.multiprocessing.errors import record

from fer_lab._progress import progress
from fer_lab.data import FaceSet
from fer_lab.evaluation.embeddings import embedding_metrics
from fer_lab.evaluation.metrics import OVERALL, evaluate, overall, predict
from fer_lab.evaluation.robustness import accuracy_by_resolution, scores
from fer_lab.experiments import landmarks
from fer_lab.experiments.request import Start, Training
from fer_lab.models.authors import start_from_trunk, start_from_weights
from fer_lab.models.method import create_model
from fer_lab.models.weights import check_target
from fer_lab.parallel import check_devices, launch, stop_with_launcher
from fer_lab.runs import Predictions, ResultsStore, Run
from fer_lab.runs.run import open_model, weights_file
from fer_lab.training.loop import fit


@dataclass(frozen=True)
class Trained:
    """A finished training: its run, predictions and metrics on the reported split, and all epochs' minutes."""

    run: Run
    split: str
    predictions: Predictions
    metrics: pd.DataFrame
    minutes: float


def train(
    request: Training,
    *,
    out: Path | None = None,
    store: ResultsStore | Path | None = None,
    ship: Path | None = None,
    fresh: bool = False,
    device: str = "auto",
    devices: int = 1,
    runs: Path = Path("runs"),
) -> Trained | None:
    """Train, then report once on a split that took part in no choice.

    A tenth of the training faces is held out for choices; `fit` puts the accuracy on it into the history. Where
    torch.distributed.run has started several processes, the first one reports, and the others get None.

    Args:
        out: the run's folder, `runs / request.name` by default; an interrupted run in it is resumed.
        store: results store to record in, under the request's variant.
        ship: also write the weights in half precision, with their card.
        fresh: train from the start where there is a run in the folder.
        devices: how many GPUs (or cores) of this machine to train on, with one process each.
        runs: where the run of a training lies that this one starts from; it is trained if it is not there.

    Raises:
        ValueError, FileNotFoundError: as `Training.check` and `FaceRequest.load`; too many devices.
        RuntimeError: one of several processes failed.
    """
    check_devices(devices, device)
    request.check()
    if ship:
        check_target(ship, card=True)

    def ready(start: Start) -> str | Path | None:
        """The path of what the training starts from, which is trained first if it has no finished run."""
        if not isinstance(start, Training):
            return start
        if not Run(runs / start.name).is_finished:
            train(start, store=store, device=device, devices=devices, runs=runs)
        return runs / start.name

    started = dataclasses.replace(request, weights=ready(request.weights), trunk=ready(request.trunk))
    faces = request.sized_faces.load()
    split, reported = request.reported(faces)
    key: dict[str, Any] = {name: getattr(request, name) for name in ("size", "variant", "seed")}
    key |= {"method": request.model, "dataset": faces.name, "split": split}
    recorder = None
    if store and request.variant:
        recorder = store if isinstance(store, ResultsStore) else ResultsStore(store)
        recorder.check(**key)
    run = Run(out or runs / request.name)
    # Of several processes that torch.distributed.run started, the first one locks.
    first = not (torch.distributed.is_torchelastic_launched() and int(os.environ["RANK"]))
    with run.lock() if first else contextlib.nullcontext():
        if devices > 1:
            _fit_jointly(devices, started, run, faces.fingerprint, fresh, device)
        else:
            _fit(started, run, faces, fresh, device)
        if not first:
            return None
        trained = run.load_model()
        predictions = predict(trained, reported, embeddings=True)
        # A finished run may lie on a disk for reading.
        if os.access(run.folder, os.W_OK):
            run.save_predictions(predictions)
    assert predictions.embeddings is not None
    tables = [evaluate(predictions), embedding_metrics(trained, reported, predictions.embeddings)]
    if request.resolutions:
        tables.append(accuracy_by_resolution(trained, reported, request.resolutions))
    if request.flip:
        tables.append(scores(trained, reported, "_with_mirror_image", *OVERALL[:2], flip=True))
    for percent in request.head_sizes:
        tables.append(scores(trained, request.balanced_faces(percent).load(), f"_at_head_size_{percent}"))
    for name, other in request.also.items():
        if not (other.root or other.rendered):
            warnings.warn(f"{request.variant}: not measured on {name}, whose folder is not given", stacklevel=2)
            continue
        others = other.load()
        tables.append(scores(trained, others.split(others.reported_split()), f"_on_{name}", *OVERALL[:2]))
    metrics = pd.concat(tables, ignore_index=True)
    minutes = float(run.history["seconds"].sum()) / 60
    origin = {"dataset": faces.name, "fingerprint": faces.fingerprint, "split": split}
    origin["command"] = request.command()
    if recorder:
        facts = {"request": request.to_json(), "minutes": minutes, "device": _describe_device(run)}
        holdout = run.history["valid_accuracy"].tolist() if "valid_accuracy" in run.history else ()
        facts |= key | origin
        recorder.record(**facts, metrics=metrics, predictions=predictions, holdout=holdout)
    if ship:
        score = overall(metrics)["value"].round(4).to_dict()
        landmarks.ship(trained, ship, seed=request.seed, score=score, faces=len(reported), **origin)
    return Trained(run, split, predictions, metrics, minutes)


def train_missing(requests: Mapping[str, Training], folder: Path, store: ResultsStore | Path) -> list[str]:
    """Train those requests that a results store lacks, each in its own folder inside `folder` → their names.

    What a request starts from is trained before it, unless its finished run is there; interrupted runs resume.
    """
    trained = []
    for name, request in requests.items():
        if not request.recorded(store):
            train(request, store=store, runs=folder)
            trained.append(name)
    return trained


def _fit(request: Training, run: Run, faces: FaceSet, fresh: bool, device: str) -> None:
    """Fit the model of a request whose weights and trunk are paths."""
    training, held_out = faces.split("train").holdout()
    torch.manual_seed(request.seed)
    model = create_model(request.model, num_classes=faces.num_classes, size=request.size, **request.options)
    config = {"command": request.command(), "variant": request.variant, "request": request.to_data()}
    if isinstance(request.weights, str | Path):
        config["start"] = start_from_weights(model, weights_file(request.weights), request.order)
    if isinstance(request.trunk, str | Path):
        config["start"] = start_from_trunk(model, open_model(request.trunk))
    recipe, data = request.chosen_recipe(), request.to_data()
    origin: dict[str, Any] = {name: data[name] for name in ("weights", "trunk", "order") if name in data}
    fit(model, training, held_out, recipe, run, device=device, resume=not fresh, origin=origin, config=config)


def _fit_jointly(devices: int, request: Training, run: Run, fingerprint: str, fresh: bool, device: str) -> None:
    """The same in several processes of `fer-lab train`, which load the faces themselves."""
    words = ["fer_lab", "train", *request.words(root=str(request.faces.root or ""))]
    words += ["--out", str(run.folder.resolve()), "--device", device, "--worker", fingerprint]
    words += ["--fresh"] if fresh else []
    done = 0 if fresh else len(run.history)
    with progress(description=request.model, total=request.chosen_recipe().epochs) as bar:

        def look() -> None:
            bar.update(max(0, len(run.history) - done) - bar.n)

        launch(devices, words, device=device, on_poll=look, keep=run.lock_file)


@record
def train_worker(request: Training, out: Path, fingerprint: str, *, fresh: bool, device: str) -> None:
    """Fit, and report nothing: one of the processes that `train` starts for several devices.

    Other faces than those that the starting process has loaded raise ValueError.
    """
    stop_with_launcher()
    faces = request.sized_faces.load()
    if faces.fingerprint != fingerprint:
        raise ValueError(f"{faces.name} changed while several processes began to read it; start again")
    _fit(request, Run(out, locked_by_launcher=True), faces, fresh, device)


def _describe_device(run: Run) -> str:
    """The GPU's name, or the processor's with its threads; with several processes, how many of them."""
    here, devices = run.environment, run.config.get("devices", 1)
    one = here["device"] if here["device"] != "cpu" else f"{here['cpu']}, {here['threads']} threads"
    return one if devices == 1 else f"{devices} × {one}"
