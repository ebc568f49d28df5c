"""The command line: `fer-lab` or `python -m fer_lab.cli`.

Text is parsed here and nowhere below: a command turns words into typed values, makes one call, and prints.
User errors are reported in one line on stderr with exit code 1 (2 for a wrong option). FER_LAB_DEBUG=1 in the
environment shows the traceback as well. A command imports the packages that it needs, since some take seconds.
"""

import dataclasses
import itertools
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import pandas as pd

    from fer_lab.book.result import NotebookResult
    from fer_lab.data import FaceRequest

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="The workbook for facial expression recognition: run it, train models, measure them, look at faces.",
)
data_app = typer.Typer(
    no_args_is_help=True, help="Check a data set, cache it, crop faces from photographs, or render faces."
)
bench_app = typer.Typer(no_args_is_help=True, help="Measure speed and memory on this machine.")
app.add_typer(data_app, name="data")
app.add_typer(bench_app, name="bench")

STORE = Path("figures/results")
MaybePath = Path | None
DATASETS = "ferplus, rafdb, affectnet, sfew or folder"
Dataset = Annotated[str, typer.Option(help=f"synthetic, {DATASETS}.")]
DatasetName = Annotated[str, typer.Argument(help=f"{DATASETS}.")]
DatasetFolder = Annotated[Path, typer.Argument(help="Folder of the data set.")]
DataRoot = Annotated[
    MaybePath, typer.Option(envvar="FER_DATA", help="Folder of the data set.", show_default=False)
]
Rule = Annotated[str, typer.Option(help="Label rule of FER+: largest, majority or votes.")]
Classes = Annotated[int | None, typer.Option(help="7 or 8. Default: what the data set has.")]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave unreadable images out, and count them.")]
FACES_ORDER = "For folder with class folders 1, 2, …: the data set whose numbers they are, such as rafdb."
FacesOrder = Annotated[str, typer.Option("--faces-order", help=FACES_ORDER)]
FacesOrOrder = Annotated[str, typer.Option("--faces-order", "--order", help=FACES_ORDER)]
TestShare = Annotated[float, typer.Option(help="For folder without splits: the share to test on, such as 0.2.")]
LabelOrder = Annotated[str, typer.Option(help="Data set whose label order an authors' checkpoint uses.")]
FaceCount = Annotated[int, typer.Option("--faces", help="Number of faces to render, for synthetic.")]
FaceSeed = Annotated[int, typer.Option("--faces-seed", help="Seed of the rendered faces.")]
FaceSize = Annotated[int | None, typer.Option("--faces-size", help="Side in pixels. Default: the model's.")]
Knobs = Annotated[
    list[str] | None, typer.Option("--knob", help="name=value of the renderer. A wrong name lists all knobs.")
]
Options = Annotated[
    list[str] | None, typer.Option("--option", help="name=value of the model. `fer-lab models` lists all.")
]
ReportedSplit = Annotated[str, typer.Option(help="Default: test for synthetic; else valid, or test.")]
Csv = Annotated[MaybePath, typer.Option(help="Also write the table to this CSV file.")]


def _listed(text: str) -> list[str]:
    """ "00, 02" → ["00", "02"]."""
    return [part.strip() for part in text.split(",") if part.strip()]


def _numbers(text: str, option: str, example: str) -> list[int]:
    try:
        return [int(part) for part in _listed(text)]
    except ValueError:
        raise typer.BadParameter(
            f"expected whole numbers such as {example}, got {text!r}", param_hint=option
        ) from None


def _pairs(words: Sequence[str] | None, option: str) -> list[tuple[str, str]]:
    """["lr=0.1"] → [("lr", "0.1")]."""
    pairs = []
    for word in words or ():
        name, equals, value = word.partition("=")
        if not equals or not all(part.isidentifier() for part in name.split(".")):
            raise typer.BadParameter(f"expected name=value, got {word!r}", param_hint=option)
        pairs.append((name, value))
    return pairs


def _typed(words: Sequence[str] | None, option: str, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """["lr=0.1"] → {"lr": 0.1}, each value in the type of its default. The call refuses unknown names."""
    from fer_lab.book.parameters import native, read_literal

    return {
        name: read_literal(value) if defaults.get(name) is None else native(name, value, defaults[name])
        for name, value in _pairs(words, option)
    }


def _faces(
    dataset: str,
    root: Path | None,
    count: int,
    seed: int,
    size: int | None,
    classes: int | None,
    rule: str,
    skip_bad: bool,
    knobs: Sequence[str] | None,
) -> "FaceRequest":
    from fer_lab.data import FaceRequest
    from fer_lab.data.synthetic import KNOBS

    defaults = {name: knob.default for name, knob in KNOBS.items()}
    return FaceRequest(
        dataset=dataset,
        root=root,
        count=count,
        seed=seed,
        size=size,
        classes=classes,
        rule=rule,
        skip_bad=skip_bad,
        knobs=_typed(knobs, "--knob", defaults),
    )


@app.command()
def reproduce(
    profile: Annotated[str, typer.Option(help="smoke, full or paper.")] = "smoke",
    notebooks: Annotated[str, typer.Option(help="Which notebooks, such as 00,02. Default: all.")] = "",
    dataset: Annotated[
        str, typer.Option(help="As in train. With several, such as synthetic,ferplus: all notebooks for each.")
    ] = "synthetic",
    data_root: Annotated[
        MaybePath,
        typer.Option(
            envvar="FER_DATA",
            help="Folder of the data set. With several: of a folder for each.",
            show_default=False,
        ),
    ] = None,
    seeds: Annotated[str, typer.Option(help="Such as 0,1,2. Every notebook runs once for each seed.")] = "0",
    out: Annotated[Path, typer.Option(help="Folder of the book.")] = Path("book"),
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", help="Notebooks at a time. With ray: on each machine without GPUs.")
    ] = 1,
    parameter: Annotated[
        list[str] | None,
        typer.Option("--parameter", "-p", help="name=value for every notebook. A repeated name makes a grid."),
    ] = None,
    engine: Annotated[
        str, typer.Option(help="pool: processes of this machine. ray: a cluster; keeps finished notebooks.")
    ] = "pool",
) -> None:
    """Run the notebooks headless; print a table and the paths of the executed notebooks and the HTML book."""
    from fer_lab.book import run

    values: dict[str, list[str]] = {}
    for name, value in _pairs(parameter, "--parameter"):
        values.setdefault(name, []).append(value)
    results = run.reproduce(
        profile,
        _listed(notebooks) or None,
        {name: one for name, (one, *more) in values.items() if not more},
        _listed(dataset),
        data_root if dataset != "synthetic" else None,
        _numbers(seeds, "--seeds", "0,1,2"),
        out,
        jobs,
        grid={name: several for name, several in values.items() if len(several) > 1},
        engine=engine,
        on_result=_report_notebook,
    )
    _print_notebooks(results)
    typer.echo(f"\nexecuted notebooks  {out / 'notebooks'}\nthe book            {out / 'index.html'}")
    _exit_if_failed(results)


def _report_notebook(result: "NotebookResult") -> None:
    typer.echo(f"{result.notebook}  {result.seconds:.1f} s  {'FAILED' if result.error else 'ok'}", err=True)


def _print_notebooks(results: "Sequence[NotebookResult]") -> None:
    from fer_lab.book.result import format_table

    for result in results:
        if result.error:
            typer.echo(f"\n{result.notebook}: {result.error}\n{result.traceback}", err=True)
    typer.echo("\n" + format_table(results))


def _exit_if_failed(results: "Sequence[NotebookResult]") -> None:
    if failed := [result.notebook for result in results if result.error]:
        typer.echo(f"{len(failed)} of {len(results)} failed: {', '.join(failed)}", err=True)
        raise typer.Exit(1)


@app.command()
def notebooks(
    folder: Annotated[Path | None, typer.Argument(help="Folder to copy the notebooks into.")] = None,
    execute: Annotated[bool, typer.Option(help="Run the book's own notebooks and keep the outputs.")] = False,
    only: Annotated[str, typer.Option(help="With --execute: which notebooks, such as 00,02.")] = "",
) -> None:
    """Copy the notebooks into a folder of your own, or run the checkout's own and keep their outputs."""
    from fer_lab.book import parameters, run

    if execute == (folder is not None):
        raise typer.BadParameter("give either a folder or --execute")
    if folder is not None:
        for path in parameters.lay_out(folder):
            typer.echo(path)
        return
    results = run.refresh(_listed(only) or None, on_result=_report_notebook)
    _print_notebooks(results)
    _exit_if_failed(results)


@app.command()
def models(name: Annotated[str, typer.Argument(help="One model. Default: all.")] = "") -> None:
    """List the models with their sizes, recipes and options."""
    from fer_lab.models.method import list_models, method_class, model_options

    for one in [name] if name else list_models():
        cls, options = method_class(one), model_options(one)
        typer.echo(f"{one}\n  sizes    {', '.join(cls.sizes)}\n  recipes  {', '.join(cls.recipes)}")
        typer.echo(f"  options  {', '.join(f'{key}={value}' for key, value in options.items()) or 'none'}")


@app.command()
def train(
    model: Annotated[str, typer.Argument(help="Name of a model, such as baseline or dan.")],
    dataset: Dataset = "synthetic",
    data_root: DataRoot = None,
    size: Annotated[str, typer.Option(help="tiny (56 px), paper (224 px); poster: small, base.")] = "tiny",
    recipe: Annotated[str, typer.Option(help="Default: smoke for synthetic, else scratch.")] = "",
    seed: Annotated[int, typer.Option(help="Seed of initial weights, batches and augmentation.")] = 0,
    out: Annotated[MaybePath, typer.Option(help="Folder of the run; an interrupted run is resumed.")] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="field=value of the recipe, or augmentation.FIELD=value.")
    ] = None,
    option: Options = None,
    weights: Annotated[
        MaybePath, typer.Option(help="Start from a run, a .safetensors file, or an authors' checkpoint.")
    ] = None,
    order: LabelOrder = "",
    trunk: Annotated[
        MaybePath, typer.Option(help="Start from the trunk of a run, a .safetensors file, or a bundled model.")
    ] = None,
    record: Annotated[str, typer.Option(help="Record the result, with this name of the variant.")] = "",
    store: Annotated[Path, typer.Option(help="Results store to record in.")] = STORE,
    split: ReportedSplit = "",
    scales: Annotated[str, typer.Option(help="Also report on shrunk faces, such as 100,75,50,35 %.")] = "",
    balanced: Annotated[
        int, typer.Option(help="Evaluate on this many rendered faces, with balanced classes.")
    ] = 0,
    ship: Annotated[MaybePath, typer.Option(help="Also write half-precision weights to this file.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Train from the start again.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, …")] = "auto",
    devices: Annotated[int, typer.Option(help="Number of GPUs (or cores) that share every batch.")] = 1,
    rule: Rule = "majority",
    classes: Classes = None,
    skip_bad: SkipBad = False,
    faces_order: FacesOrder = "",
    test_share: TestShare = 0.0,
    count: FaceCount = 4000,
    faces_seed: FaceSeed = 0,
    faces_size: FaceSize = None,
    knob: Knobs = None,
    worker: Annotated[str, typer.Option(hidden=True, help="Fingerprint of the faces; set by --devices.")] = "",
) -> None:
    """Train a model, then report once on a split that took part in no choice."""
    from fer_lab.experiments import Training, training
    from fer_lab.models.method import model_options
    from fer_lab.models.recipes import Recipe

    if order and not weights:
        raise ValueError("--order is the label order of --weights; numbered class folders take --faces-order")
    fields = Recipe(epochs=1, batch_size=1).to_dict()
    fields |= {f"augmentation.{name}": value for name, value in fields.pop("augmentation").items()}
    request = Training(
        model=model,
        faces=dataclasses.replace(
            _faces(dataset, data_root, count, faces_seed, faces_size, classes, rule, skip_bad, knob),
            order=faces_order,
            test_share=test_share,
        ),
        size=size,
        recipe=recipe,
        seed=seed,
        changes=_typed(changes, "--set", fields),
        options=_typed(option, "--option", model_options(model)),
        weights=weights,
        order=order,
        trunk=trunk,
        variant=record,
        split=split,
        scales=tuple(_numbers(scales, "--scales", "100,75,50,35")),
        balanced=balanced,
    )
    if worker and out:
        training.train_worker(request, out, worker, fresh=fresh, device=device)
        return
    done = training.train(request, out=out, store=store, ship=ship, fresh=fresh, device=device, devices=devices)
    if done is None:  # one of several processes, and not the first
        return
    typer.echo(f"\n{model} on {len(done.predictions)} {done.split} faces of {done.predictions.name}")
    typer.echo(_format_metrics(done.metrics))
    if start := done.run.config.get("start"):
        typer.echo(f"started from {start}")
    typer.echo(f"run: {done.run.folder}, {done.minutes:.1f} minutes")
    if record:
        typer.echo(f"recorded in {store}")
    if ship:
        typer.echo(f"weights in half precision: {ship}")


def _format_metrics(metrics: "pd.DataFrame") -> str:
    """Overall numbers, then recall by class, each with its 95 % interval."""
    lines = []
    for row in metrics.to_dict("records"):
        if row["class"] and row["metric"] != "recall":
            continue
        name = f"{row['metric'].replace('_', ' ')} {row['class']}".strip()
        interval = f"  [{row['low']:.3f}, {row['high']:.3f}]" if row["low"] == row["low"] else ""
        lines.append(f"{name:<24} {row['value']:.3f}{interval}")
    return "\n".join(lines)


@app.command()
def landmarks(
    out: Annotated[Path | None, typer.Option(help="File to write. Default: the bundled one.")] = None,
    count: Annotated[int, typer.Option("--faces", help="Number of training faces to render.")] = 12_000,
    epochs: Annotated[int, typer.Option(help="Passes over the training faces.")] = 10,
    seed: Annotated[int, typer.Option(help="Seed of weights and faces.")] = 0,
    data_root: Annotated[
        Path | None,
        typer.Option(
            envvar="FER_DATA", help="Folder of FER+, to measure on photographs too.", show_default=False
        ),
    ] = None,
) -> None:
    """Train POSTER's tiny landmark stream on rendered faces, and measure it on other people."""
    from fer_lab.data.datasets import load_dataset
    from fer_lab.experiments.landmarks import ship_landmarks
    from fer_lab.models.weights import LANDMARK_WEIGHTS

    photographs = load_dataset("ferplus", data_root) if data_root else None
    if photographs:
        photographs = photographs.split(photographs.reported_split())
    target = out or LANDMARK_WEIGHTS
    card = ship_landmarks(target, count=count, epochs=epochs, seed=seed, photographs=photographs)
    for name, value in card["score"].items():
        typer.echo(f"{name.replace('_', ' '):<32} {value:.2f} %")
    typer.echo(f"weights in half precision: {target}")


@app.command("convert")
def convert_checkpoint(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint of the authors.")],
    out: Annotated[Path, typer.Argument(help=".safetensors file to write.")],
    model: Annotated[str, typer.Option(help="Model that the checkpoint is of, such as dan.")],
    size: Annotated[str, typer.Option(help="paper. poster also: small, base, large.")] = "paper",
    classes: Annotated[int, typer.Option(help="Number of classes of its head.")] = 7,
    option: Options = None,
    order: LabelOrder = "",
    guess_order: Annotated[
        tuple[str, Path] | None,
        typer.Option(metavar="SET ROOT", help="Find the label order on the labelled faces of a data set."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
) -> None:
    """Turn an authors' checkpoint into a file that evaluate, predict and the explorer open."""
    from fer_lab.data import load_faces
    from fer_lab.models.authors import convert, order_scores
    from fer_lab.models.method import model_options

    settings: dict[str, Any] = {"model": model, "size": size, "num_classes": classes}
    settings["options"] = _typed(option, "--option", model_options(model))
    if guess_order:
        if order:
            raise typer.BadParameter("give either --order or --guess-order")
        faces = load_faces(guess_order[0], guess_order[1], classes=7 if classes == 7 else None)
        faces = faces.split("train" if (faces.splits == "train").any() else faces.reported_split())
        (order, best), (second, other), *_ = order_scores(checkpoint, faces, **settings).items()
        typer.echo(
            f"label order guessed: {order}, {best:.1%} right on {faces.name}; next best {second}, {other:.1%} "
            f"({100 * (best - other):.1f} points less)"
        )
        if best - other < 0.1:
            warnings.warn("these are too close to trust the guess; --order names the order", stacklevel=1)
    report = convert(checkpoint, out, order=order, force=force, **settings)
    typer.echo(f"{report}\nwritten: {out}")


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="A run's folder, a .safetensors file, or a bundled model.")],
    dataset: Dataset = "synthetic",
    data_root: DataRoot = None,
    split: ReportedSplit = "",
    rule: Rule = "majority",
    skip_bad: SkipBad = False,
    order: FacesOrOrder = "",
    test_share: TestShare = 0.0,
    count: FaceCount = 4000,
    faces_seed: FaceSeed = 0,
    faces_size: FaceSize = None,
    knob: Knobs = None,
) -> None:
    """Measure a trained model on one split, with 95 % bootstrap intervals."""
    from fer_lab.evaluation import metrics
    from fer_lab.runs import open_model

    model = open_model(run)
    # A data set without contempt is not asked for it: `predict` leaves contempt out of the model's answers.
    classes = model.num_classes if dataset == "synthetic" or model.num_classes == 7 else None
    request = _faces(dataset, data_root, count, faces_seed, faces_size, classes, rule, skip_bad, knob)
    request = dataclasses.replace(request, order=order, test_share=test_share)
    faces = request.sized(model.image_size).load()
    split = split or faces.reported_split()
    faces = faces.split(split)
    table = metrics.evaluate(metrics.predict(model, faces))
    typer.echo(f"{model.name} on {len(faces)} {split} faces of {faces.name}\n{_format_metrics(table)}")


@app.command()
def predict(
    images: Annotated[list[Path], typer.Argument(help="Pictures, and folders of pictures.")],
    model: Annotated[str, typer.Option(help="Bundled model to use, such as dan or synthetic/dan.")] = "dan",
    weights: Annotated[MaybePath, typer.Option(help="A run or a .safetensors file instead.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the overlays.")] = Path("predictions"),
    whole: Annotated[bool, typer.Option("--whole", help="The pictures are face crops already.")] = False,
    csv: Annotated[MaybePath, typer.Option(help="Also write a row for each face to this CSV file.")] = None,
    json: Annotated[MaybePath, typer.Option(help="Also write answers and errors to this JSON file.")] = None,
) -> None:
    """Find the faces in pictures, name their apparent expressions, and draw where the model looked."""
    from fer_lab.data.photographs import list_photographs

    files = list_photographs(images)
    if taken := [str(path) for path in (csv, json) if path and path.resolve() in {f.resolve() for f in files}]:
        raise ValueError(f"{', '.join(taken)} is one of the pictures; name another file for the table")

    from fer_lab.explorer import photo_overlay
    from fer_lab.models.inference import fuse
    from fer_lab.models.weights import shipped_weights
    from fer_lab.runs import open_model

    kind, _, name = model.rpartition("/")
    source = weights or shipped_weights(name, kind or None)
    network, data = fuse(open_model(source)), photo_overlay.trained_on(source)
    answered = str(weights or f"{source.parent.name}/{source.stem}")
    rows: list[dict[str, Any]] = []
    pictures: list[dict[str, Any]] = []
    bad = without = 0
    for number, path in enumerate(files):
        try:
            picture, faces = photo_overlay.predict_picture(network, path, whole=whole, trained_on=data)
        except ValueError as error:
            typer.echo(str(error), err=True)
            pictures.append({"file": str(path), "error": str(error), "faces": []})
            bad += 1
            continue
        found = [
            {
                **dict(zip(("left", "top", "right", "bottom"), face.box, strict=True)),
                "score": round(face.score, 3),
                "expression": max(face.probabilities, key=lambda key: face.probabilities[key]),
                **face.probabilities,
            }
            for face in faces
        ]
        rows += [{"file": str(path), "face": i, **one} for i, one in enumerate(found, 1)]
        pictures.append({"file": str(path), "error": "", "faces": found})
        if not faces:
            typer.echo(f"{path}: no face found; --whole takes the picture as one face", err=True)
            without += 1
            continue
        for face in faces:
            ranked = sorted(face.probabilities.items(), key=lambda item: -item[1])
            typer.echo(f"{path} {list(face.box)}  " + "  ".join(f"{name} {p:.3f}" for name, p in ranked))
        target = _unused(out / f"{number:03d}-{path.stem}.png")
        photo_overlay.overlay(picture, faces).save(target)
        typer.echo(f"overlay: {target}")
    typer.echo(f"answered by {answered}, trained on {data or 'unknown data'}")
    if csv:
        import pandas as pd

        from fer_lab._files import write_csv

        head = ["file", "face", "left", "top", "right", "bottom", "score", "expression", *network.classes]
        write_csv(csv, pd.DataFrame(rows, columns=head))
    if json:
        from fer_lab._files import write_json

        write_json(json, {"weights": answered, "trained_on": data, "pictures": pictures})
    if bad:
        typer.echo(f"{bad} of {len(files)} pictures could not be read", err=True)
    if bad or without == len(files):
        raise typer.Exit(1)


def _unused(path: Path) -> Path:
    """`path`, or with a number if there is such a file; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = (path if i == 1 else path.with_stem(f"{path.stem}-{i}") for i in itertools.count(1))
    return next(free for free in names if not free.exists())


@data_app.command("crop")
def data_crop(
    source: Annotated[Path, typer.Argument(help="Folder of photographs, such as class/*.jpg.")],
    out: Annotated[Path, typer.Argument(help="Folder to make, with the same folders of classes.")],
    size: Annotated[int, typer.Option(help="Side of the crops in pixels.")] = 112,
    align: Annotated[bool, typer.Option("--align", help="Turn every face upright.")] = False,
) -> None:
    """Crop the face of every photograph into a folder that `--dataset folder` reads."""
    from fer_lab.data.photographs import crop_folder

    def report(file: Path, reason: str) -> None:
        typer.echo(reason if str(file) in reason else f"{file}: {reason}", err=True)

    outcome = crop_folder(source, out, size=size, align=align, on_bad=report)
    typer.echo(", ".join(f"{count} {what}" for what, count in outcome.items()))
    if not outcome["cropped"]:
        raise ValueError(f"no face was cropped, and {out} was not made")
    typer.echo(f"crops: {out}")


@data_app.command("check")
def data_check(
    dataset: DatasetName,
    root: DatasetFolder,
    rule: Rule = "majority",
    order: FacesOrOrder = "",
    test_share: TestShare = 0.0,
) -> None:
    """Read a data set's layout, count, verify every image, and say what is missing, in one screen."""
    from fer_lab.data import check_dataset

    report = check_dataset(dataset, root, label_rule=rule, order=order, test_share=test_share)
    typer.echo(report.text())
    if not report.ok:
        raise typer.Exit(1)


@data_app.command("cache")
def data_cache(
    dataset: DatasetName,
    root: DatasetFolder,
    rule: Rule = "majority",
    size: Annotated[int | None, typer.Option(help="Side in pixels. Default: the files', or 112.")] = None,
    classes: Classes = None,
    skip_bad: SkipBad = False,
    order: FacesOrOrder = "",
    test_share: TestShare = 0.0,
) -> None:
    """Decode a data set once, into one file that trainings map into memory."""
    request = _faces(dataset, root, 4000, 0, size, classes, rule, skip_bad, None)
    typer.echo(dataclasses.replace(request, order=order, test_share=test_share).load())


@data_app.command("render")
def data_render(
    folder: Annotated[Path, typer.Argument(help="Folder to write, as split/class/*.png.")],
    count: FaceCount = 1000,
    seed: Annotated[int, typer.Option(help="Seed of the renderer.")] = 0,
    size: Annotated[int, typer.Option(help="Side in pixels.")] = 112,
    classes: Annotated[int, typer.Option(help="7 or 8.")] = 7,
    knob: Knobs = None,
) -> None:
    """Render faces with known labels into a folder that `--dataset folder` reads."""
    from fer_lab.data.synthetic import write_folder

    faces = _faces("synthetic", None, count, seed, size, classes, "majority", False, knob).load()
    write_folder(faces, folder)
    typer.echo(f"{folder}: {faces}")


def _print_table(table: "pd.DataFrame", csv: Path | None) -> None:
    typer.echo(table.to_string(index=False, float_format=lambda number: f"{number:.4g}"))
    if csv:
        csv.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(csv, index=False)
        typer.echo(f"written to {csv}")


@bench_app.command("models")
def bench_models(
    models: Annotated[str, typer.Option(help="Which models, such as baseline,dan. Default: all.")] = "",
    sizes: Annotated[str, typer.Option(help="Which sizes. poster also has small and base.")] = "tiny,paper",
    modes: Annotated[str, typer.Option(help="train, inference or both.")] = "train,inference",
    paths: Annotated[
        str,
        typer.Option(help="plain: float32, eager. default: fastest without a wait. compiled: torch.compile."),
    ] = "plain,default",
    csv: Csv = None,
    figure: Annotated[MaybePath, typer.Option(help="Also draw images per second into this PNG.")] = None,
) -> None:
    """Images per second, milliseconds per step, memory and FLOPs of every model."""
    from fer_lab import figures
    from fer_lab.bench import models as speed

    table = speed.bench_models(_listed(models) or None, _listed(sizes), _listed(modes), paths=_listed(paths))
    _print_table(table, csv)
    if figure:
        typer.echo(f"drawn in {figures.save(figures.bench_table_figure(table), figure)}")


@bench_app.command("losses")
def bench_losses(
    batch: Annotated[int, typer.Option(help="Faces in a step.")] = 512,
    classes: Annotated[int, typer.Option(help="Number of classes, and so of centers.")] = 8,
    dim: Annotated[int, typer.Option(help="Dimensions of the embedding.")] = 512,
    csv: Csv = None,
) -> None:
    """Cost of each metric loss, forward and backward, relative to a training step of the paper-size network."""
    from fer_lab.bench import losses

    _print_table(losses.bench_losses(batch, classes, dim), csv)


@bench_app.command("data")
def bench_data(dataset: Dataset = "synthetic", data_root: DataRoot = None, csv: Csv = None) -> None:
    """Faces per second through rendering, reading and augmentation; memory of larger sets."""
    from fer_lab.bench import data

    if dataset == "synthetic":
        _print_table(data.bench_data(), csv)
    else:
        _print_table(data.bench_data(dataset=dataset, root=data_root), csv)


@app.command()
def results(
    latex: Annotated[bool, typer.Option("--latex", help="As LaTeX tables.")] = False,
    metrics: Annotated[str, typer.Option(help="Which metrics.")] = "accuracy,mean_class_recall",
    store: Annotated[MaybePath, typer.Option(help="Default: figures/results here, else the book's.")] = None,
    fill: Annotated[MaybePath, typer.Option(help="Update the tables in this Markdown file.")] = None,
) -> None:
    """Print the recorded results: mean over seeds with a 95 % interval (one seed: over faces)."""
    from fer_lab.runs import ResultsStore, results_folder

    folder = store or (STORE if STORE.is_dir() else results_folder())
    recorded = ResultsStore(folder)
    if recorded.runs().empty:
        raise ValueError(f"{folder} has no results; `fer-lab train … --record NAME` writes some")
    if fill:
        from fer_lab.experiments import tables

        text = tables.fill(fill.read_text(encoding="utf-8"), tables.tables(recorded))
        fill.write_text(text, encoding="utf-8")
        typer.echo(f"tables of {fill} are up to date")
        return
    by = ("method", "size", "variant", "dataset", "split")
    for metric in _listed(metrics):
        table, title = recorded.table(metric, by=by).sort_values(list(by)), metric.replace("_", " ")
        if latex:
            typer.echo(table.to_latex(index=False, escape=True, caption=title, float_format="%.3f"))
        else:
            typer.echo(f"{title}\n{table.to_string(index=False, float_format='{:.3f}'.format)}\n")


@app.command()
def tried(folders: Annotated[list[Path], typer.Argument(help="Folders of runs.")], csv: Csv = None) -> None:
    """Compare runs: their recipes, and accuracy on the held-out part of the training faces."""
    from fer_lab.experiments import tables

    table = tables.tried(folders)
    typer.echo(table.drop(columns="command").to_string(index=False))
    if csv:
        table.to_csv(csv, index=False)
        typer.echo(f"written to {csv}")


def main() -> None:
    """Run the command line; user errors are reported in one line."""
    warnings.formatwarning = lambda message, *_, **__: f"note: {message}\n"
    try:
        app()
    except SystemExit as end:
        if end.code == 130:  # Ctrl-C
            print("interrupted; run the same command again to resume where that is possible", file=sys.stderr)
        raise
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        if os.environ.get("FER_LAB_DEBUG") == "1":
            raise
        print(f"fer-lab: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
