"""The command line: `fer-lab` or `python -m fer_lab.cli`.

What a reader got wrong ends in one line on stderr and exit code 1 (2 for a wrong option); with FER_LAB_DEBUG=1
in the environment the traceback shows as well. Packages that take seconds to import are imported by the
command that needs them.
"""

import os
import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="The workbook for facial expression recognition: run it, train, measure, look at faces.",
)
data_app = typer.Typer(no_args_is_help=True, help="Check a data set, cache it, render faces.")
bench_app = typer.Typer(no_args_is_help=True, help="Measure speed and memory on this machine.")
app.add_typer(data_app, name="data")
app.add_typer(bench_app, name="bench")

STORE = Path("figures/results")
Dataset = Annotated[str, typer.Option(help="synthetic, ferplus, rafdb, affectnet, sfew or folder.")]
DataRoot = Annotated[
    Path | None, typer.Option(envvar="FER_DATA", help="Folder of the data set.", show_default=False)
]
Rule = Annotated[str, typer.Option(help="FER+ labels: largest, majority or votes.")]
Classes = Annotated[int | None, typer.Option(help="7 or 8; what the data set has if not given.")]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave unreadable images out, and count them.")]
LabelOrder = Annotated[
    str,
    typer.Option(help="Data set whose label order the head of an authors' checkpoint has: rafdb, affectnet, …"),
]
FaceCount = Annotated[int, typer.Option("--faces", help="How many faces to render, for synthetic.")]
FaceSeed = Annotated[int, typer.Option("--faces-seed", help="Of the rendered faces.")]
Knobs = Annotated[list[str] | None, typer.Option("--knob", help="name=value of the renderer.")]


def _listed(text: str | None) -> list[str] | None:
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]


def _pairs(words: list[str] | None, option: str) -> dict[str, str]:
    """["lr=0.1"] → {"lr": "0.1"}."""
    pairs = {}
    for word in words or ():
        name, equals, value = word.partition("=")
        if not equals or not all(part.isidentifier() for part in name.split(".")):
            raise typer.BadParameter(f"expected name=value, got {word!r}", param_hint=option)
        pairs[name] = value
    return pairs


@app.command()
def reproduce(
    profile: Annotated[str, typer.Option(help="smoke, full or paper.")] = "smoke",
    notebooks: Annotated[str | None, typer.Option(help="Which, such as 00,02; all if not given.")] = None,
    dataset: Annotated[
        str, typer.Option(help="As in train; or several, such as synthetic,ferplus: every notebook once each.")
    ] = "synthetic",
    data_root: Annotated[
        Path | None,
        typer.Option(
            envvar="FER_DATA", help="Folder of the data set; of several real ones, with a folder for each."
        ),
    ] = None,
    seeds: Annotated[str, typer.Option(help="Such as 0,1,2: every notebook once a seed.")] = "0",
    out: Annotated[Path, typer.Option(help="Folder of the book.")] = Path("book"),
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", help="Notebooks at a time; with ray, on each machine without GPUs.")
    ] = 1,
    parameter: Annotated[
        list[str] | None,
        typer.Option(
            "--parameter",
            "-p",
            help="name=value, for every chosen notebook; a name with several values: every notebook once each.",
        ),
    ] = None,
    engine: Annotated[
        str, typer.Option(help="pool: processes of this machine. ray: a cluster; goes on where it stopped.")
    ] = "pool",
):
    """Run the notebooks headless; print a table and where the executed notebooks and the HTML book lie."""
    from fer_lab.book import run

    try:
        chosen_seeds = [int(seed) for seed in _listed(seeds)]
    except ValueError:
        raise typer.BadParameter(
            f"expected whole numbers such as 0,1,2, got {seeds!r}", param_hint="--seeds"
        ) from None
    values: dict[str, list[str]] = {}
    for word in parameter or ():
        for name, value in _pairs([word], "--parameter").items():
            values.setdefault(name, []).append(value)
    results = run.reproduce(
        profile,
        _listed(notebooks),
        {name: one for name, (one, *more) in values.items() if not more},
        _listed(dataset),
        data_root if dataset != "synthetic" else None,
        chosen_seeds,
        out,
        jobs,
        grid={name: several for name, several in values.items() if len(several) > 1},
        engine=engine,
        on_result=_say_done,
    )
    _finish(results)
    typer.echo(f"\nexecuted notebooks  {out / 'notebooks'}\nthe book            {out / 'index.html'}")
    _exit_if_failed(results)


def _say_done(result) -> None:
    typer.echo(f"{result.notebook}  {result.seconds:.1f} s  {'FAILED' if result.error else 'ok'}", err=True)


def _finish(results) -> None:
    from fer_lab.book.run import format_table

    for result in results:
        if result.error:
            typer.echo(f"\n{result.notebook}: {result.error}\n{result.traceback}", err=True)
    typer.echo("\n" + format_table(results))


def _exit_if_failed(results) -> None:
    if failed := [result.notebook for result in results if result.error]:
        typer.echo(f"{len(failed)} of {len(results)} failed: {', '.join(failed)}", err=True)
        raise typer.Exit(1)


@app.command()
def notebooks(
    folder: Annotated[Path | None, typer.Argument(help="Where to copy the book's notebooks.")] = None,
    execute: Annotated[bool, typer.Option(help="Run the book's own notebooks and keep the outputs.")] = False,
    only: Annotated[str | None, typer.Option(help="With --execute: which, such as 00,02.")] = None,
):
    """Copy the notebooks into a folder of your own, or run the checkout's own and keep their outputs."""
    from fer_lab.book import parameters, run

    if execute == (folder is not None):
        raise typer.BadParameter("give either a folder or --execute")
    if folder is not None:
        for path in parameters.lay_out(folder):
            typer.echo(path)
        return
    results = run.refresh(_listed(only), on_result=_say_done)
    _finish(results)
    _exit_if_failed(results)


@app.command()
def train(
    model: Annotated[str, typer.Argument(help="Such as baseline or dan.")],
    dataset: Dataset = "synthetic",
    data_root: DataRoot = None,
    size: Annotated[str, typer.Option(help="tiny (56 px) or paper (224 px); poster: small, base.")] = "tiny",
    recipe: Annotated[str, typer.Option(help="Default: smoke for synthetic, else scratch.")] = "",
    seed: Annotated[int, typer.Option(help="Of initial weights, batches and augmentation.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; an interrupted one goes on.")] = None,
    changes: Annotated[list[str] | None, typer.Option("--set", help="field=value of the recipe.")] = None,
    option: Annotated[list[str] | None, typer.Option(help="name=value of the model, such as heads=2.")] = None,
    weights: Annotated[
        Path | None,
        typer.Option(help="File to start from: safetensors of ours, or authors' checkpoint, a trunk's too."),
    ] = None,
    order: LabelOrder = "",
    trunk: Annotated[
        Path | None, typer.Option(help="Run, weights or a shipped model whose trunk to start from.")
    ] = None,
    record: Annotated[str, typer.Option(help="Name of the variant in the results store.")] = "",
    store: Annotated[Path, typer.Option(help="The results store.")] = STORE,
    split: Annotated[str, typer.Option(help="Reported on at the end. Default: valid, else test.")] = "",
    scales: Annotated[str, typer.Option(help="Also report on shrunk faces, such as 100,75,50,35 %.")] = "",
    balanced: Annotated[
        int, typer.Option(help="Report on so many rendered faces instead, as many of each class.")
    ] = 0,
    ship: Annotated[Path | None, typer.Option(help="Also write half-precision weights to this file.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start anew in the run's folder.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, …")] = "auto",
    devices: Annotated[int, typer.Option(help="GPUs (or cores) to share every batch among.")] = 1,
    rule: Rule = "majority",
    classes: Classes = None,
    skip_bad: SkipBad = False,
    count: FaceCount = 4000,
    faces_seed: FaceSeed = 0,
    knob: Knobs = None,
):
    """Train a model, then report once on a split that took part in no choice."""
    from fer_lab.experiments import training

    try:
        percents = tuple(int(percent) for percent in _listed(scales))
    except ValueError:
        raise typer.BadParameter(
            f"expected whole numbers such as 100,75,50,35, got {scales!r}", param_hint="--scales"
        ) from None
    source = training.Source(
        dataset=dataset,
        root=data_root,
        classes=classes,
        rule=rule,
        skip_bad=skip_bad,
        count=count,
        seed=faces_seed,
        knobs=_pairs(knob, "--knob"),
    )
    request = training.Training(
        model=model,
        source=source,
        size=size,
        recipe=recipe,
        seed=seed,
        changes=_pairs(changes, "--set"),
        options=_pairs(option, "--option"),
        weights=weights,
        order=order,
        trunk=trunk,
        variant=record,
        split=split,
        scales=percents,
        balanced=balanced,
    )
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


def _format_metrics(metrics) -> str:
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
    out: Annotated[Path | None, typer.Option(help="The file. Default: the one that ships.")] = None,
    count: Annotated[int, typer.Option("--faces", help="How many faces to render and learn from.")] = 12_000,
    epochs: Annotated[int, typer.Option(help="Passes over them.")] = 10,
    seed: Annotated[int, typer.Option(help="Of weights and faces.")] = 0,
    data_root: Annotated[
        Path | None,
        typer.Option(envvar="FER_DATA", help="FER+, to see how it fares on photographs.", show_default=False),
    ] = None,
):
    """Train POSTER's tiny landmark stream on rendered faces; measure it on other people."""
    from fer_lab.data.datasets import load_dataset
    from fer_lab.experiments.landmarks import ship_landmarks
    from fer_lab.models.poster import LANDMARK_WEIGHTS

    photographs = load_dataset("ferplus", data_root).split("valid") if data_root else None
    target = out or LANDMARK_WEIGHTS
    card = ship_landmarks(target, count=count, epochs=epochs, seed=seed, photographs=photographs)
    for name, value in card["score"].items():
        typer.echo(f"{name.replace('_', ' '):<32} {value:.2f} %")
    typer.echo(f"weights in half precision: {target}")


@app.command("convert")
def convert_checkpoint(
    checkpoint: Annotated[Path, typer.Argument(help="A file in its authors' names.")],
    out: Annotated[Path, typer.Argument(help="The .safetensors to write.")],
    model: Annotated[str, typer.Option(help="What it is of, such as dan.")],
    size: Annotated[str, typer.Option(help="paper; poster: small, base, large.")] = "paper",
    classes: Annotated[int, typer.Option(help="How many its head has.")] = 7,
    option: Annotated[list[str] | None, typer.Option(help="name=value of the model, such as heads=2.")] = None,
    order: LabelOrder = "",
):
    """Turn an authors' checkpoint into a file that evaluate, predict and the explorer open."""
    from fer_lab.experiments.training import literal
    from fer_lab.models.authors.convert import convert

    report = convert(
        checkpoint,
        out,
        model=model,
        size=size,
        num_classes=classes,
        options={name: literal(value) for name, value in _pairs(option, "--option").items()},
        order=order,
    )
    typer.echo(f"{report}\nwritten: {out}")


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="Folder of a run, safetensors file, or name of a shipped model.")],
    dataset: Dataset = "synthetic",
    data_root: DataRoot = None,
    split: Annotated[str, typer.Option(help="train, valid or test. Default: valid, else test.")] = "",
    rule: Rule = "majority",
    skip_bad: SkipBad = False,
    count: FaceCount = 4000,
    faces_seed: FaceSeed = 0,
    knob: Knobs = None,
):
    """Measure a trained model on one split, with 95 % bootstrap intervals."""
    from fer_lab.evaluation import metrics
    from fer_lab.experiments import training

    model = training.open_model(run)
    source = training.Source(
        dataset=dataset,
        root=data_root,
        classes=model.num_classes,
        rule=rule,
        skip_bad=skip_bad,
        count=count,
        seed=faces_seed,
        knobs=_pairs(knob, "--knob"),
    )
    faces = source.sized(model.image_size).load()
    split = split or faces.reported_split()
    faces = faces.split(split)
    metrics = metrics.evaluate(metrics.predict(model, faces))
    typer.echo(f"{model.name} on {len(faces)} {split} faces of {faces.name}\n{_format_metrics(metrics)}")


@app.command()
def predict(
    images: Annotated[list[Path], typer.Argument(help="Pictures.")],
    model: Annotated[str, typer.Option(help="Whose weights, of those that come with the package.")] = "dan",
    weights: Annotated[Path | None, typer.Option(help="A run's folder or a file of weights instead.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the overlays.")] = Path("predictions"),
    whole: Annotated[bool, typer.Option("--whole", help="The pictures are face crops already.")] = False,
):
    """Say how likely each expression is for every face in pictures; write where the model looked."""
    from fer_lab.explorer import photo_overlay
    from fer_lab.models import bundled
    from fer_lab.models.inference import fuse
    from fer_lab.runs import run

    network = fuse(run.open_model(weights or bundled.shipped_weights(model)))
    without = 0
    for number, path in enumerate(images):
        picture, faces = photo_overlay.predict_picture(network, path, whole=whole)
        if not faces:
            typer.echo(f"{path}: no face found; --whole takes the picture as one face", err=True)
            without += 1
            continue
        for face in faces:
            ranked = sorted(face.probabilities.items(), key=lambda item: -item[1])
            typer.echo(f"{path} {list(face.box)}  " + "  ".join(f"{name} {p:.3f}" for name, p in ranked))
        out.mkdir(parents=True, exist_ok=True)
        target = out / f"{number:03d}-{path.stem}.png"
        photo_overlay.overlay(picture, faces).save(target)
        typer.echo(f"overlay: {target}")
    if without == len(images):
        raise typer.Exit(1)


@data_app.command("check")
def data_check(
    dataset: Annotated[str, typer.Argument(help="ferplus, rafdb, affectnet, sfew or folder.")],
    root: Annotated[Path, typer.Argument(help="Its folder.")],
    rule: Rule = "majority",
):
    """Read a data set's layout, count, verify every image, and say what is missing, in one screen."""
    from fer_lab.data.datasets import check_dataset

    report = check_dataset(dataset, root, label_rule=rule)
    typer.echo(report.text())
    if not report.ok:
        raise typer.Exit(1)


@data_app.command("cache")
def data_cache(
    dataset: Annotated[str, typer.Argument(help="ferplus, rafdb, affectnet, sfew or folder.")],
    root: Annotated[Path, typer.Argument(help="Its folder.")],
    rule: Rule = "majority",
    size: Annotated[int | None, typer.Option(help="Side in pixels; native if all are equal, else 112.")] = None,
    classes: Classes = None,
    skip_bad: SkipBad = False,
):
    """Decode a data set once, into one file that trainings map into memory."""
    from fer_lab.data.datasets import load_dataset

    faces = load_dataset(dataset, root, num_classes=classes, label_rule=rule, size=size, skip_bad=skip_bad)
    typer.echo(faces)


@data_app.command("render")
def data_render(
    folder: Annotated[Path, typer.Argument(help="Folder to write, split/class/*.png.")],
    count: FaceCount = 1000,
    seed: Annotated[int, typer.Option()] = 0,
    size: Annotated[int, typer.Option(help="Side in pixels.")] = 112,
    classes: Annotated[int, typer.Option(help="7 or 8.")] = 7,
    knob: Knobs = None,
):
    """Render faces with known labels into a folder that `--dataset folder` reads."""
    from fer_lab.data.synthetic import SyntheticFaces, write_folder
    from fer_lab.experiments.training import literal

    knobs = {name: literal(value) for name, value in _pairs(knob, "--knob").items()}
    faces = SyntheticFaces(count, seed=seed, size=size, num_classes=classes, **knobs)
    write_folder(faces, folder)
    typer.echo(f"{folder}: {faces}")


def _print_table(table, csv: Path | None) -> None:
    typer.echo(table.to_string(index=False, float_format=lambda number: f"{number:.4g}"))
    if csv:
        csv.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(csv, index=False)
        typer.echo(f"written to {csv}")


@bench_app.command("models")
def bench_models(
    models: Annotated[str | None, typer.Option(help="Such as baseline,dan; all if not given.")] = None,
    sizes: Annotated[str, typer.Option(help="Which sizes; poster also has small and base.")] = "tiny,paper",
    modes: Annotated[str, typer.Option(help="Which modes.")] = "train,inference",
    paths: Annotated[
        str,
        typer.Option(help="plain: fp32, eager. default: the fastest without waiting. compiled: torch.compile."),
    ] = "plain,default",
    csv: Annotated[Path | None, typer.Option(help="Also write the table there.")] = None,
    figure: Annotated[Path | None, typer.Option(help="Also draw images a second, into this PNG.")] = None,
):
    """Images a second, milliseconds a step, memory and FLOPs of every model."""
    from fer_lab import figures
    from fer_lab.bench import models as speed

    table = speed.bench_models(_listed(models), _listed(sizes), _listed(modes), paths=_listed(paths))
    _print_table(table, csv)
    if figure:
        typer.echo(f"drawn in {figures.save(figures.bench_table_figure(table), figure)}")


@bench_app.command("losses")
def bench_losses(
    batch: Annotated[int, typer.Option(help="Faces a step.")] = 512,
    classes: Annotated[int, typer.Option(help="Classes, so many centers.")] = 8,
    dim: Annotated[int, typer.Option(help="Dimensions of the embedding.")] = 512,
    csv: Annotated[Path | None, typer.Option(help="Also write the table there.")] = None,
):
    """What each metric loss costs, forward and backward, beside a training step of the paper-size network."""
    from fer_lab.bench import losses

    _print_table(losses.bench_losses(batch, classes, dim), csv)


@bench_app.command("data")
def bench_data(
    dataset: Dataset = "synthetic",
    data_root: DataRoot = None,
    csv: Annotated[Path | None, typer.Option(help="Also write the table there.")] = None,
):
    """Faces a second through rendering, reading and augmentation; what a larger set costs."""
    from fer_lab.bench import data

    real = {} if dataset == "synthetic" else {"dataset": dataset, "root": data_root}
    _print_table(data.bench_data(**real), csv)


@app.command()
def results(
    latex: Annotated[bool, typer.Option("--latex", help="As LaTeX tables.")] = False,
    metrics: Annotated[str, typer.Option(help="Which numbers.")] = "accuracy,mean_class_recall",
    store: Annotated[Path | None, typer.Option(help="Default: figures/results here, else the book's.")] = None,
    fill: Annotated[Path | None, typer.Option(help="Make the tables in this text anew, as README's.")] = None,
):
    """The recorded results: mean over seeds with a 95 % interval."""
    from fer_lab.runs import ResultsStore
    from fer_lab.runs.store import results_folder

    folder = store or (STORE if STORE.is_dir() else results_folder())
    recorded = ResultsStore(folder)
    if recorded.runs().empty:
        raise ValueError(f"{folder} has no results; `fer-lab train … --record NAME` writes some")
    if fill:
        from fer_lab.experiments import tables

        text = tables.fill(fill.read_text(encoding="utf-8"), tables.tables(recorded))
        fill.write_text(text, encoding="utf-8")
        typer.echo(f"tables of {fill} made anew")
        return
    for metric in _listed(metrics):
        table, title = recorded.summary(metric), metric.replace("_", " ")
        if latex:
            typer.echo(table.to_latex(index=False, escape=True, caption=title, float_format="%.3f"))
        else:
            typer.echo(f"{title}\n{table.to_string(index=False, float_format='{:.3f}'.format)}\n")


@app.command()
def tried(
    folders: Annotated[list[Path], typer.Argument(help="Folders of runs.")],
    csv: Annotated[Path | None, typer.Option(help="Write the table here, too.")] = None,
):
    """Runs side by side: recipe, and accuracy on the held-out part of the training faces."""
    from fer_lab.experiments import tables

    table = tables.tried(folders)
    typer.echo(table.drop(columns="command").to_string(index=False))
    if csv:
        table.to_csv(csv, index=False)
        typer.echo(f"written to {csv}")


def main() -> None:
    """Run the command line; what a reader can mend ends in one line."""
    warnings.formatwarning = lambda message, *_, **__: f"note: {message}\n"
    try:
        app()
    except SystemExit as end:
        if end.code == 130:  # Ctrl-C
            print("interrupted; the same command goes on where it can", file=sys.stderr)
        raise
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        if os.environ.get("FER_LAB_DEBUG") == "1":
            raise
        print(f"fer-lab: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
