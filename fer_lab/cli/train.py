"""Commands that train: train, landmarks."""

import shlex
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from fer_lab.cli.options import (
    MOST_FACES,
    OWN_RESULTS,
    Classes,
    DataRoot,
    Dataset,
    FaceCount,
    FaceSeed,
    FaceSize,
    FacesOrder,
    Knobs,
    LabelOrder,
    MaybePath,
    Options,
    ReportedSplit,
    Rule,
    Seed,
    SkipBad,
    TestShare,
    TrainShare,
    Words,
    other_faces,
    store_folder,
    to_fill,
    to_write,
    typed,
    typed_knobs,
    whole_numbers,
)
from fer_lab.cli.output import format_metrics, say


def train(
    model: Annotated[str, Argument(help="Name of a model, such as baseline or dan.")],
    dataset: Dataset = "synthetic",
    data_root: DataRoot = None,
    size: Annotated[str, Option(help="tiny (56 px), paper (224 px); poster: small, base.")] = "tiny",
    recipe: Annotated[str, Option(help="Default: smoke for synthetic, else scratch.")] = "",
    seed: Seed = 0,
    out: Annotated[
        MaybePath, Option(callback=to_fill, help="Folder of the run; an interrupted run is resumed.")
    ] = None,
    changes: Annotated[
        Words,
        Option("--set", help="field=value of the recipe, such as epochs=6; `fer-lab models dan` shows DAN's."),
    ] = None,
    option: Options = None,
    weights: Annotated[
        MaybePath, Option(help="Start from weights as predict takes them, or an authors' checkpoint.")
    ] = None,
    order: LabelOrder = "",
    trunk: Annotated[MaybePath, Option(help="Start from the trunk of weights, as predict takes them.")] = None,
    record: Annotated[str, Option(help="Record the result, with this name of the variant.")] = "",
    store: Annotated[
        Path, Option(callback=to_fill, help="Folder to record in; book: the book's, in a checkout.")
    ] = OWN_RESULTS,
    split: ReportedSplit = "",
    resolutions: Annotated[str, Option(help="Also report on shrunk faces, such as 75,50,35 %.")] = "",
    head_sizes: Annotated[str, Option(help="Also report on balanced faces with heads of 75,125 %.")] = "",
    also: Annotated[
        Words, Option(help="NAME=FOLDER: also report on a data set, or on a folder of classes, of that name.")
    ] = None,
    flip: Annotated[bool, Option("--flip", help="Also report on each face with its mirror image.")] = False,
    balanced: Annotated[
        int, Option(min=0, max=MOST_FACES, help="Report on this many rendered faces, with balanced classes.")
    ] = 0,
    ship: Annotated[
        MaybePath, Option(callback=to_write, help="Also write weights in half precision, .safetensors.")
    ] = None,
    fresh: Annotated[bool, Option("--fresh", help="Train from the start again.")] = False,
    device: Annotated[str, Option(help="auto, cpu, cuda, …")] = "auto",
    devices: Annotated[int, Option(min=1, max=1024, help="How many GPUs (or cores) share every batch.")] = 1,
    rule: Rule = "majority",
    classes: Classes = None,
    skip_bad: SkipBad = False,
    faces_order: FacesOrder = "",
    test_share: TestShare = 0.0,
    train_share: TrainShare = 0.0,
    count: FaceCount = None,
    faces_seed: FaceSeed = 0,
    faces_size: FaceSize = None,
    knob: Knobs = None,
    worker: Annotated[str, Option(hidden=True, help="Fingerprint of the faces; set by --devices.")] = "",
) -> None:
    """Train a model, then report once on a split that took part in no choice."""
    from fer_lab.data import FaceRequest
    from fer_lab.experiments import Training, training
    from fer_lab.models.method import model_options
    from fer_lab.models.recipes import Recipe

    if order and not weights:
        raise ValueError("--order is the label order of --weights; numbered class folders take --faces-order")
    fields = Recipe(epochs=1, batch_size=1).to_dict()
    fields |= {f"augmentation.{name}": value for name, value in fields.pop("augmentation").items()}
    faces = FaceRequest(
        dataset=dataset, root=data_root, classes=classes, size=faces_size, rule=rule, skip_bad=skip_bad,
        order=faces_order, test_share=test_share, train_share=train_share, count=count, seed=faces_seed,
        knobs=typed_knobs(knob),
    )  # fmt: skip
    request = Training(
        model=model, faces=faces, size=size, recipe=recipe, seed=seed, weights=weights, order=order,
        changes=typed(changes, "--set", fields), options=typed(option, "--option", model_options(model)),
        trunk=trunk, variant=record, split=split, balanced=balanced,
        resolutions=tuple(whole_numbers(resolutions, "--resolutions", "75,50,35", 1, 100)),
        head_sizes=tuple(whole_numbers(head_sizes, "--head-sizes", "75,125", 1, 1000)),
        also=other_faces(also, classes), flip=flip,
    )  # fmt: skip
    if worker and out:
        training.train_worker(request, out, worker, fresh=fresh, device=device)
        return
    store = store_folder(store)
    done = training.train(request, out=out, store=store, ship=ship, fresh=fresh, device=device, devices=devices)
    if done is None:  # one of several processes, and not the first
        return
    say("", f"{model} on {len(done.predictions)} {done.split} faces of {done.predictions.name}")
    say(*format_metrics(done.metrics))
    if start := done.run.config.get("start"):
        say(f"started from {start}")
    say(f"run: {done.run.folder}, {done.minutes:.1f} minutes")
    if record:
        say(f"recorded in {store}")
    if ship:
        say(f"weights in half precision: {ship}")
    say(f"next: fer-lab predict photo.jpg --weights {shlex.quote(str(done.run.folder))}")


def landmarks(
    out: Annotated[Path, Option(callback=to_write, help=".safetensors file to write.")],
    count: Annotated[int, Option("--faces", min=64, max=MOST_FACES, help="Training faces to render.")] = 12_000,
    epochs: Annotated[int, Option(min=1, max=10_000, help="Passes over the training faces.")] = 10,
    seed: Seed = 0,
    data_root: DataRoot = None,
    knob: Knobs = None,
) -> None:
    """Train POSTER's tiny landmark stream on rendered faces; measure it on others, and on FER+ if given."""
    from fer_lab.data.datasets import load_dataset
    from fer_lab.experiments.landmarks import ship_landmarks
    from fer_lab.models.weights import check_target

    check_target(out, card=True)
    knobs = typed_knobs(knob) or None
    photographs = load_dataset("ferplus", data_root) if data_root else None
    if photographs:
        photographs = photographs.split(photographs.reported_split())
    card = ship_landmarks(out, count=count, epochs=epochs, seed=seed, photographs=photographs, knobs=knobs)
    for name, value in card["score"].items():
        say(f"{name.replace('_', ' '):<32} {value:.2f} %")
    say(f"weights in half precision: {out}")
