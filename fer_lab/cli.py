"""The command line: `fer-lab` or `python -m fer_lab`.

Text is parsed here and nowhere below: a command turns words into typed values, makes one call, and prints.
Errors are reported in one line on stderr. The exit code is 2 if the fault lies in what the command was given
(an option, a path, a file) and 1 if the work failed on the way. FER_LAB_DEBUG=1 in the environment shows the
traceback instead. A command imports the packages that it needs, since some take seconds.
"""

import contextlib
import dataclasses
import functools
import io
import itertools
import os
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, BadParameter, Option

if TYPE_CHECKING:
    from concurrent.futures import Future

    import pandas as pd

    from fer_lab.book.result import NotebookResult
    from fer_lab.models.method import Method

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="The workbook for facial expression recognition: run it, train models, measure them, look at faces.",
)
data_app, bench_app, export_app = (typer.Typer(no_args_is_help=True) for _ in range(3))
DATA_HELP = "Check a data set, cache it, crop faces from photographs, or render faces."
app.add_typer(data_app, name="data", help=DATA_HELP)
app.add_typer(bench_app, name="bench", help="Measure speed and memory on this machine.")
app.add_typer(export_app, name="export", help="Take a model, or the explorer, to where there is no Python.")

# Where trainings of the reader's own are recorded; the word "book" names the book's store instead.
OWN_RESULTS, BOOK = Path("runs/results"), Path("book")
# The class behind every complaint about a word on the command line. Typer exports only one of its children.
UsageError: Any = BadParameter.__base__
# Faults in what a command was given; another OSError is one of the machine.
WRONG_INPUT = (ValueError, FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError)
# torch's generators tell no larger seeds apart.
LARGEST_SEED = 2**32 - 1
MOST_FACES = 10_000_000
# Of the square around a face, in the order of a box.
SIDES = ("left", "top", "right", "bottom")


def _say(*lines: object, err: bool = False) -> None:
    """Print lines. Everything that goes to the terminal passes here, or as an error through `main`."""
    for line in lines:
        typer.echo(_shown(line), err=err)


def _shown(line: object) -> str:
    """A line in which every character that a terminal would obey is written as its escape.

    Names of files, runs and classes come from others, and half a character of a file's name cannot be printed.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(line))


def _free(fits: Callable[[Path], bool], what: str) -> Callable[[Path | None], Path | None]:
    """A callback that refuses what is there and does not fit, and what lies below a file."""

    def check(path: Path | None) -> Path | None:
        if path is None:
            return None
        if path.exists() and not fits(path):
            raise BadParameter(f"{path} exists and is something else; expected {what}")
        above = next(folder for folder in path.absolute().parents if folder.exists())
        if not above.is_dir():
            raise BadParameter(f"{path} would lie in {above}, which is a file; expected {what}")
        return path

    return check


# The file is written over: it is no folder, pipe or device. The folder may be made.
_to_write, _to_fill = _free(Path.is_file, "a file to write"), _free(Path.is_dir, "a folder to write into")


def _to_read(path: Path | None) -> Path | None:
    """A regular file: a pipe would be waited for, and a device read without end."""
    if path is not None and not path.is_file():
        raise BadParameter(f"{path} is no file; expected one to read")
    return path


def _known_split(name: str) -> str:
    from fer_lab.data.faces import SPLITS

    if name and name not in SPLITS:
        raise BadParameter(f"expected one of {', '.join(SPLITS)}, got {name!r}")
    return name


def _to_make(path: Path) -> Path:
    """A folder that does not exist yet, or is empty."""
    if path.is_dir() and any(path.iterdir()):
        raise BadParameter(f"{path} is not empty; expected a folder to make")
    return _free(Path.is_dir, "a folder to make")(path) or path


def _figure_to_write(path: Path | None) -> Path | None:
    if path is not None and path.suffix.lower() != ".png":
        raise BadParameter(f"figures are PNG files, got {path.name!r}; let the name end in .png")
    return _to_write(path)


def _store(folder: Path) -> Path:
    """The results store that is meant; `book` is the book's, which an installed package does not let change."""
    from fer_lab.runs import results_folder

    return results_folder() if folder == BOOK else folder


def _open(weights: Path) -> "tuple[Method, str, str]":
    """A model in eval mode, the name it goes by, and the data set that trained it ("" if nothing tells)."""
    from fer_lab.explorer.photo_overlay import trained_on
    from fer_lab.models.weights import SHIPPED, is_shipped_name, shipped_models
    from fer_lab.runs import open_model
    from fer_lab.runs.run import weights_file

    file = weights_file(weights)
    if not file.exists() and not weights.exists():
        bundled = ", ".join(f"{kind}/{name}" for kind in SHIPPED for name in shipped_models(kind))
        raise FileNotFoundError(f"{weights} does not exist, and is no bundled model; those are {bundled}")
    name = f"{file.parent.name}/{file.stem}" if is_shipped_name(weights) else str(weights)
    return open_model(weights), name, trained_on(weights)


def _save(table: "pd.DataFrame", csv: Path | None, json: Path | None, **facts: Any) -> None:
    """Write a table as CSV where asked for, and as JSON with some facts beside its rows; NaN becomes null."""
    from fer_lab._files import write_csv, write_json

    if csv:
        write_csv(csv, table)
    if json:
        rows = table.astype(object).where(table.notna(), None).to_dict("records")
        write_json(json, {**facts, "rows": rows})
    for path in filter(None, (csv, json)):
        _say(f"written to {path}")


def _apart(csv: Path | None, json: Path | None, read: Sequence[Path] = ()) -> None:
    """Refuse one file for two tables, and a file for a table that is read."""
    if taken := [str(path) for path in (csv, json) if path and path.resolve() in {f.resolve() for f in read}]:
        raise ValueError(f"{', '.join(taken)} is one of the pictures; name another file for the table")
    if csv and json and csv.resolve() == json.resolve():
        raise ValueError(f"--csv and --json both name {csv}; name two files")


MaybePath = Path | None
Words = list[str] | None
WEIGHTS = "A run's folder, a .safetensors file, or a bundled model such as dan or synthetic/dan."
DATASETS = "ferplus, rafdb, affectnet, sfew or folder"
Dataset = Annotated[str, Option(help=f"synthetic, {DATASETS}.")]
DatasetName = Annotated[str, Argument(help=f"{DATASETS}.")]
DatasetFolder = Annotated[Path, Argument(help="Folder of the data set.")]
PARAMETER_HELP = "name=value, of the cell tagged parameters. A wrong name lists all, a repeated one is a grid."
ROOT_HELP = "Folder of the data set; of several, a folder of them."
DataRoot = Annotated[MaybePath, Option(envvar="FER_DATA", help=ROOT_HELP, show_default=False)]
Rule = Annotated[str, Option(help="Label rule of FER+: largest, majority or votes.")]
Classes = Annotated[int | None, Option(min=2, max=8, help="7 or 8. Default: what the data set has.")]
SkipBad = Annotated[bool, Option("--skip-bad", help="Leave unreadable images out, and count them.")]
FACES_ORDER = "For folder with class folders 1, 2, …: the data set whose numbers they are, such as rafdb."
FacesOrder = Annotated[str, Option("--faces-order", help=FACES_ORDER)]
FacesOrOrder = Annotated[str, Option("--faces-order", "--order", help=FACES_ORDER)]
TestShare = Annotated[float, Option(min=0, max=1, help="For folder without splits: share tested on, like 0.2.")]
TRAIN_SHARE = "Of a data set: the share of every class's training faces to keep, such as 0.1. Default: all."
TrainShare = Annotated[float, Option(min=0, max=1, help=TRAIN_SHARE, show_default=False)]
LabelOrder = Annotated[str, Option(help="Data set whose label order an authors' checkpoint uses.")]
Seed = Annotated[int, Option(min=0, max=LARGEST_SEED, help="Seed of every random draw.")]
COUNT_HELP = "Faces to render, default 4000; or to keep of a data set, default all."
FaceCount = Annotated[int | None, Option("--faces", min=1, max=MOST_FACES, help=COUNT_HELP)]
FaceSeed = Annotated[
    int, Option("--faces-seed", min=0, max=LARGEST_SEED, help="Seed of the renderer, or of the faces kept.")
]
FaceSize = Annotated[
    int | None, Option("--faces-size", min=8, max=1024, help="Side in pixels. Default: the model's.")
]
Knobs = Annotated[Words, Option("--knob", help="name=value of the renderer. A wrong name lists all knobs.")]
Options = Annotated[Words, Option("--option", help="name=value of the model. `fer-lab models` lists all.")]
ReportedSplit = Annotated[
    str, Option(callback=_known_split, help="Default: test for synthetic; else valid, or test.")
]
Csv = Annotated[MaybePath, Option(callback=_to_write, help="Also write a table to this CSV file.")]
Drawing = Annotated[MaybePath, Option(callback=_figure_to_write, help="Also draw it into this PNG.")]
Json = Annotated[MaybePath, Option(callback=_to_write, help="Also write the answers to this JSON file.")]
WhichModels = Annotated[str, Option(help="Which models, such as baseline,dan. Default: all.")]
WhichSizes = Annotated[str, Option(help="Which sizes. poster also has small and base.")]


def _listed(text: str) -> list[str]:
    """ "00, 02" → ["00", "02"]."""
    return [part.strip() for part in text.split(",") if part.strip()]


def _numbers(text: str, option: str, example: str, low: int, high: int) -> list[int]:
    numbers = [int(part) if part.isdecimal() else low - 1 for part in _listed(text)]
    if not all(low <= number <= high for number in numbers):
        raise BadParameter(
            f"expected whole numbers such as {example}, of {low:,} to {high:,}, got {text!r}", param_hint=option
        )
    return numbers


def _pairs(words: Sequence[str] | None, option: str) -> list[tuple[str, str]]:
    """["lr=0.1"] → [("lr", "0.1")]."""
    pairs = []
    for word in words or ():
        name, equals, value = word.partition("=")
        if not equals or not all(part.isidentifier() for part in name.split(".")):
            raise BadParameter(f"expected name=value, got {word!r}", param_hint=option)
        pairs.append((name, value))
    return pairs


def _typed(words: Sequence[str] | None, option: str, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """["lr=0.1"] → {"lr": 0.1}, each value in the type of its default. The call refuses unknown names."""
    from fer_lab.book.parameters import native, read_literal

    names = [name for name, _ in _pairs(words, option)]
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise BadParameter(f"{', '.join(twice)} has several values; give one", param_hint=option)
    return {
        name: read_literal(value) if defaults.get(name) is None else native(name, value, defaults[name])
        for name, value in _pairs(words, option)
    }


def _typed_knobs(words: Sequence[str] | None) -> dict[str, Any]:
    from fer_lab.data.synthetic import KNOBS

    return _typed(words, "--knob", {name: knob.default for name, knob in KNOBS.items()})


def _other_faces(words: Sequence[str] | None, classes: int | None) -> dict[str, Any]:
    """["london=DIR"] → {"london": the description of its faces}; a name of no data set is a folder's."""
    from fer_lab.data import FaceRequest
    from fer_lab.data.layouts import LAYOUTS

    found = {}
    for word in words or ():
        name, _, folder = word.partition("=")
        if not (name.isidentifier() and folder and Path(folder).is_dir()) or name in found:
            raise ValueError(f"--also takes NAME=FOLDER, each name once, the folder there; got {word!r}")
        kind = name if name in LAYOUTS else "folder"
        found[name] = FaceRequest(dataset=kind, root=Path(folder), classes=classes)
    return found


@app.command()
def reproduce(
    profile: Annotated[str, Option(help="smoke, full or paper.")] = "smoke",
    notebooks: Annotated[str, Option(help="Which notebooks, such as 00,02. Default: all.")] = "",
    dataset: Annotated[
        str, Option(help="As in train. With several, such as synthetic,ferplus: all notebooks for each.")
    ] = "synthetic",
    data_root: DataRoot = None,
    seeds: Annotated[str, Option(help="Such as 0,1,2. Every notebook runs once for each seed.")] = "0",
    out: Annotated[Path, Option(callback=_to_fill, help="Folder of the book.")] = Path("book"),
    jobs: Annotated[
        int, Option("--jobs", "-j", min=1, max=1024, help="Notebooks at once; ray: per machine without GPUs.")
    ] = min(2, os.cpu_count() or 1),
    parameter: Annotated[Words, Option("--parameter", "-p", help=PARAMETER_HELP)] = None,
    engine: Annotated[
        str, Option(help="pool: processes of this machine. ray: a cluster; keeps finished notebooks.")
    ] = "pool",
    timings: Annotated[bool, Option("--timings", help="Also print the slowest cells.")] = False,
) -> None:
    """Run the notebooks headless; print a table and the paths of the executed notebooks and the HTML book."""
    from fer_lab.book import run
    from fer_lab.book.result import format_timings

    values: dict[str, list[str]] = {}
    for name, value in _pairs(parameter, "--parameter"):
        values.setdefault(name, []).append(value)
    results = run.reproduce(
        profile,
        _listed(notebooks) or None,
        {name: one for name, (one, *more) in values.items() if not more},
        _listed(dataset),
        data_root if dataset != "synthetic" else None,
        _numbers(seeds, "--seeds", "0,1,2", 0, LARGEST_SEED),
        out,
        jobs,
        grid={name: several for name, several in values.items() if len(several) > 1},
        engine=engine,
        on_result=_report_notebook,
    )
    where = (f"executed notebooks  {out / 'notebooks'}", f"the book            {out / 'index.html'}")
    slowest = ["", "the slowest cells", *format_timings(results).split("\n")] if timings else []
    _conclude(results, *slowest, "", *where)


def _report_notebook(result: "NotebookResult") -> None:
    _say(f"{result.notebook}  {result.seconds:.1f} s  {'FAILED' if result.error else 'ok'}", err=True)


def _conclude(results: "Sequence[NotebookResult]", *lines: str) -> None:
    """Print what failed, a table and some lines; the exit code is 1 if anything failed."""
    from fer_lab.book.result import format_table

    for result in results:
        if result.error:
            _say("", f"{result.notebook}: {result.error}", *result.traceback.split("\n"), err=True)
    _say("", *format_table(results).split("\n"), *lines)
    if failed := [result.notebook for result in results if result.error]:
        _say(f"{len(failed)} of {len(results)} failed: {', '.join(failed)}", err=True)
        raise typer.Exit(1)


@app.command()
def notebooks(
    folder: Annotated[MaybePath, Argument(callback=_to_fill, help="Folder to copy the notebooks into.")] = None,
    execute: Annotated[bool, Option(help="Run the book's own notebooks and keep the outputs.")] = False,
    only: Annotated[str, Option(help="With --execute or --students: which, such as 00,02.")] = "",
    students: Annotated[bool, Option("--students", help="Make a course for nbgrader there.")] = False,
) -> None:
    """Copy the notebooks into a folder of your own, or run the checkout's own and keep their outputs."""
    from fer_lab.book import parameters, run

    if execute == (folder is not None) or (students and execute):
        raise BadParameter("give either a folder or --execute; --students takes a folder")
    if folder is not None and students:
        from fer_lab.book.students import make_course

        _say(*make_course(folder, _listed(only) or None))
    elif folder is not None:
        _say(*parameters.lay_out(folder))
    elif parameters.notebooks_folder().parent == Path(__file__).resolve().parent:
        raise BadParameter("--execute is for a checkout; copy the notebooks into a folder of your own")
    else:
        _conclude(run.refresh(_listed(only) or None, on_result=_report_notebook))


def _print_version(asked: bool) -> None:
    if asked:
        from fer_lab import __version__

        _say(f"fer_lab {__version__}")
        raise typer.Exit


@app.callback()
def start(
    context: typer.Context,
    quiet: Annotated[bool, Option("--quiet", "-q", help="Print nothing but errors.")] = False,
    _version: Annotated[
        bool, Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """What every command has; its help is that of `app`."""
    if quiet:
        context.with_resource(contextlib.redirect_stdout(io.StringIO()))
        before = {name: value for name, value in os.environ.items() if name == "FER_LAB_QUIET"}
        os.environ["FER_LAB_QUIET"] = "1"
        context.call_on_close(lambda: (os.environ.pop("FER_LAB_QUIET"), os.environ.update(before)))


@app.command()
def info() -> None:
    """Print versions, device, precision, and the folders in use: what to send with a question."""
    import shutil

    from fer_lab._device import best_device, resolve_precision
    from fer_lab.data.cache import cache_folder
    from fer_lab.models.weights import SHIPPED, shipped_models
    from fer_lab.runs import environment, results_folder

    device = best_device()
    for name, value in environment().items():
        _say(f"{name:<10} {value}")
    _say(f"{'precision':<10} {resolve_precision('auto', device)} where a recipe says auto")
    _say(f"{'cache':<10} {cache_folder()}", f"{'results':<10} {results_folder()}")
    _say(f"{'weights':<10} {'; '.join(f'{kind}: ' + ', '.join(shipped_models(kind)) for kind in SHIPPED)}")
    _say(f"{'FER_DATA':<10} {os.environ.get('FER_DATA') or 'not set'}")
    found = (shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome"))
    _say(f"{'browser':<10} {next(filter(None, found), 'no Chromium found; only tests need one')}")


@app.command()
def models(name: Annotated[str, Argument(help="One model. Default: all.")] = "") -> None:
    """List the models with sizes, recipes, options and bundled weights; for one, also what its recipes say."""
    from fer_lab.models.method import list_models, method_class, model_options
    from fer_lab.models.recipes import Recipe
    from fer_lab.models.weights import SHIPPED, read_card, shipped_models, shipped_weights

    usual = Recipe(epochs=1, batch_size=1).to_dict()
    for one in [name] if name else list_models():
        cls, options = method_class(one), model_options(one)
        _say(one, f"  sizes    {', '.join(cls.sizes)}", f"  recipes  {', '.join(cls.recipes)}")
        _say(f"  options  {', '.join(f'{key}={value}' for key, value in options.items()) or 'none'}")
        for title, recipe in cls.recipes.items() if name else ():
            special = {key: value for key, value in recipe.to_dict().items() if value != usual[key]}
            inner = special.pop("augmentation", {}).items()
            special |= {f"augmentation.{k}": v for k, v in inner if v != usual["augmentation"][k]}
            _say(f"  recipe   {title}: {', '.join(f'{key}={value}' for key, value in special.items())}")
        for kind in (kind for kind in SHIPPED if one in shipped_models(kind)):
            score = read_card(shipped_weights(one, kind))["score"]["accuracy"]
            learned = "FER+ (grey photographs)" if kind == "ferplus" else "rendered faces"
            right = f"right on {100 * score:.1f} % of other faces"
            _say(f"  weights  {kind}/{one}: learned from {learned}, {right}")


@app.command()
def train(
    model: Annotated[str, Argument(help="Name of a model, such as baseline or dan.")],
    dataset: Dataset = "synthetic",
    data_root: DataRoot = None,
    size: Annotated[str, Option(help="tiny (56 px), paper (224 px); poster: small, base.")] = "tiny",
    recipe: Annotated[str, Option(help="Default: smoke for synthetic, else scratch.")] = "",
    seed: Seed = 0,
    out: Annotated[
        MaybePath, Option(callback=_to_fill, help="Folder of the run; an interrupted run is resumed.")
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
        Path, Option(callback=_to_fill, help="Folder to record in; book: the book's, in a checkout.")
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
        MaybePath, Option(callback=_to_write, help="Also write weights in half precision, .safetensors.")
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
        knobs=_typed_knobs(knob),
    )  # fmt: skip
    request = Training(
        model=model, faces=faces, size=size, recipe=recipe, seed=seed, weights=weights, order=order,
        changes=_typed(changes, "--set", fields), options=_typed(option, "--option", model_options(model)),
        trunk=trunk, variant=record, split=split, balanced=balanced,
        resolutions=tuple(_numbers(resolutions, "--resolutions", "75,50,35", 1, 100)),
        head_sizes=tuple(_numbers(head_sizes, "--head-sizes", "75,125", 1, 1000)),
        also=_other_faces(also, classes), flip=flip,
    )  # fmt: skip
    if worker and out:
        training.train_worker(request, out, worker, fresh=fresh, device=device)
        return
    store = _store(store)
    done = training.train(request, out=out, store=store, ship=ship, fresh=fresh, device=device, devices=devices)
    if done is None:  # one of several processes, and not the first
        return
    _say("", f"{model} on {len(done.predictions)} {done.split} faces of {done.predictions.name}")
    _say(*_format_metrics(done.metrics))
    if start := done.run.config.get("start"):
        _say(f"started from {start}")
    _say(f"run: {done.run.folder}, {done.minutes:.1f} minutes")
    if record:
        _say(f"recorded in {store}")
    if ship:
        _say(f"weights in half precision: {ship}")
    _say(f"next: fer-lab predict photo.jpg --weights {shlex.quote(str(done.run.folder))}")


# What the numbers that are no plain scores mean.
MEANINGS = {
    "ece": "calibration error",
    "within_between": "spread within classes ÷ between",
    "nearest_center_margin": "margin to the nearest other center",
    "class_scatter": "spread of a class",
    "silhouette": "silhouette, −1 to 1",
}


def _format_metrics(metrics: "pd.DataFrame") -> list[str]:
    """Overall numbers, recall by class, measures of the embedding: a line each with its 95 % interval."""
    lines = []
    for row in metrics.to_dict("records"):
        if row["class"] and row["metric"] != "recall":
            continue
        name = MEANINGS.get(row["metric"], f"{row['metric'].replace('_', ' ')} {row['class']}".strip())
        interval = f"  [{row['low']:.3f}, {row['high']:.3f}]" if row["low"] == row["low"] else ""
        value = f"{row['value']:.3f}{interval}" if row["value"] == row["value"] else "no face of this class"
        lines.append(f"{name:<35} {value}")
    return lines


@app.command()
def landmarks(
    out: Annotated[Path, Option(callback=_to_write, help=".safetensors file to write.")],
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
    knobs = _typed_knobs(knob) or None
    photographs = load_dataset("ferplus", data_root) if data_root else None
    if photographs:
        photographs = photographs.split(photographs.reported_split())
    card = ship_landmarks(out, count=count, epochs=epochs, seed=seed, photographs=photographs, knobs=knobs)
    for name, value in card["score"].items():
        _say(f"{name.replace('_', ' '):<32} {value:.2f} %")
    _say(f"weights in half precision: {out}")


@app.command("convert")
def convert_checkpoint(
    checkpoint: Annotated[Path, Argument(help="Checkpoint of the authors.")],
    out: Annotated[Path, Argument(callback=_to_write, help=".safetensors file to write.")],
    model: Annotated[str, Option(help="Model that the checkpoint is of, such as dan.")],
    size: Annotated[str, Option(help="paper. poster also: small, base, large.")] = "paper",
    classes: Annotated[int, Option(min=2, max=1024, help="Number of classes of its head.")] = 7,
    option: Options = None,
    order: LabelOrder = "",
    guess_order: Annotated[
        tuple[str, Path] | None,
        Option(metavar="SET ROOT", help="Find the label order on the labelled faces of a data set."),
    ] = None,
    force: Annotated[bool, Option("--force", help="Write over a file that is there.")] = False,
) -> None:
    """Turn an authors' checkpoint into a file that evaluate, predict and the explorer open."""
    from fer_lab.data import load_faces
    from fer_lab.models.authors import convert, order_scores
    from fer_lab.models.method import create_model, model_options
    from fer_lab.models.weights import check_target

    if guess_order and order:
        raise BadParameter("give either --order or --guess-order")
    check_target(out, force=force)
    network = create_model(model, classes, size, **_typed(option, "--option", model_options(model)))
    if guess_order:
        faces = load_faces(guess_order[0], guess_order[1], classes=7 if classes == 7 else None)
        faces = faces.split("train" if (faces.splits == "train").any() else faces.reported_split())
        (order, best), (second, other), *_ = order_scores(network, checkpoint, faces).items()
        _say(
            f"label order guessed: {order}, {best:.1%} right on {faces.name}; next best {second}, {other:.1%} "
            f"({100 * (best - other):.1f} points less)"
        )
        if best - other < 0.1:
            warnings.warn("these are too close to trust the guess; --order names the order", stacklevel=1)
    _say(convert(network, checkpoint, out, order=order, force=force), f"written: {out}")


@app.command("trunk")
def trunk_file(
    name: Annotated[str, Argument(help="Which one: faceres.")],
    graph: Annotated[Path, Argument(help="Its TensorFlow.js graph, a .json file.")],
    out: Annotated[Path, Argument(callback=_to_write, help=".safetensors file to write.")],
    force: Annotated[bool, Option("--force", help="Write over a file that is there.")] = False,
) -> None:
    """Make a trunk that has seen faces out of a download, for `train --option trunk=faceres --weights OUT`."""
    from fer_lab.models.authors.faceres import write_trunk

    if name != "faceres":
        raise BadParameter(f"no trunk {name!r} can be read; expected faceres", param_hint="NAME")
    write_trunk(graph, out, force=force)
    _say(f"written: {out}", "its terms: VGGFace2's, research alone; see docs/data.md")


@export_app.command("onnx")
def export_to_onnx(
    run: Annotated[Path, Argument(help=WEIGHTS)],
    out: Annotated[Path, Argument(callback=_to_write, help=".onnx file to write.")],
    half: Annotated[bool, Option("--half", help="Store the weights in 16 bits.")] = False,
) -> None:
    """Write a model as ONNX, and check that ONNX Runtime computes the same."""
    from fer_lab.models.export import export_onnx
    from fer_lab.runs import open_model

    difference = export_onnx(open_model(run), out, half=half)
    _say(f"written: {out}, {out.stat().st_size / 1e6:.1f} MB; ONNX Runtime differs by {difference:.0e} at most")


@export_app.command("page")
def export_page(
    out: Annotated[Path, Argument(callback=_to_write, help=".html file to write.")],
    packages: Annotated[
        Path, Option(callback=_to_fill, help="Folder for what npm downloads, used again the next time.")
    ] = Path("runs/npm"),
) -> None:
    """Write the explorer as one page that runs in a browser, with no install and no network."""
    from fer_lab.book.live import build_live

    size = build_live(out, packages)
    _say(f"written: {out}, {size / 1e6:.1f} MB; open it in a browser")


@app.command()
def evaluate(
    run: Annotated[Path, Argument(help=WEIGHTS)],
    dataset: Dataset = "synthetic",
    data_root: DataRoot = None,
    split: ReportedSplit = "",
    rule: Rule = "majority",
    skip_bad: SkipBad = False,
    order: FacesOrOrder = "",
    test_share: TestShare = 0.0,
    count: FaceCount = None,
    faces_seed: FaceSeed = 0,
    faces_size: FaceSize = None,
    knob: Knobs = None,
    flip: Annotated[bool, Option("--flip", help="Answer for each face and its mirror image together.")] = False,
    csv: Csv = None,
    json: Json = None,
) -> None:
    """Measure a trained model on one split, with 95 % bootstrap intervals."""
    from fer_lab.data import FaceRequest
    from fer_lab.data.expressions import CANONICAL
    from fer_lab.evaluation import metrics

    _apart(csv, json)
    model, answered, data = _open(run)
    if data and (data == "synthetic") != (dataset == "synthetic"):
        kinds = ("drawings", "photographs") if data == "synthetic" else ("photographs", "drawings")
        warnings.warn("{} learned from {} and is measured on {}".format(answered, *kinds), stacklevel=1)
    # A data set without contempt is not asked for it: `predict` leaves contempt out of the model's answers.
    classes = model.num_classes if dataset == "synthetic" or model.num_classes == 7 else None
    request = FaceRequest(
        dataset=dataset, root=data_root, classes=classes, size=faces_size, rule=rule, skip_bad=skip_bad,
        order=order, test_share=test_share, count=count, seed=faces_seed, knobs=_typed_knobs(knob),
    )  # fmt: skip
    faces = request.sized(model.image_size).load()
    if dataset == "folder" and tuple(model.classes) == CANONICAL and {*faces.classes} < {*CANONICAL[:-1]}:
        # The reader's own folder has some classes alone.
        faces = dataclasses.replace(request, classes=model.num_classes).load()
    split = split or faces.reported_split()
    faces = faces.split(split)
    table = metrics.evaluate(metrics.predict(model, faces, flip=flip))
    where = f"{model.name} on {len(faces)} {split} faces of {faces.name}"
    _say(f"{where} ({answered}, trained on {data or 'unknown data'})", *_format_metrics(table))
    origin = {"weights": answered, "trained_on": data, "dataset": faces.name, "split": split}
    _save(table, csv, json, **origin, faces=len(faces))


@app.command()
def predict(
    images: Annotated[list[Path], Argument(help="Pictures, folders of pictures, patterns as *.jpg.")],
    weights: Annotated[Path, Option("--weights", "--model", help=WEIGHTS)] = Path("dan"),
    out: Annotated[Path, Option(callback=_to_fill, help="Folder of the overlays.")] = Path("predictions"),
    whole: Annotated[bool, Option("--whole", help="The pictures are face crops already.")] = False,
    csv: Csv = None,
    json: Json = None,
) -> None:
    """Find the faces in pictures, name their apparent expressions, and draw where the model looked."""
    from fer_lab.data.photographs import list_photographs

    files = list_photographs(images)
    _apart(csv, json, read=files)

    from fer_lab._files import atomic_path, write_csv, write_json
    from fer_lab.explorer import photo_overlay
    from fer_lab.models.inference import fuse

    model, answered, data = _open(weights)
    network = fuse(model)
    pictures: list[dict[str, Any]] = []
    bad = without = 0
    work = functools.partial(photo_overlay.predict_picture, network, whole=whole, trained_on=data)
    for number, (path, answer) in enumerate(zip(files, _ahead(work, files), strict=True)):
        found: list[dict[str, Any]] = []
        pictures.append({"file": str(path), "error": "", "faces": found})
        try:
            picture, faces = answer.result()
        except ValueError as error:
            _say(str(error), err=True)
            pictures[-1]["error"] = str(error)
            bad += 1
            continue
        if not faces:
            _say(f"{path}: no face found; --whole takes the picture as one face", err=True)
            without += 1
            continue
        for face in faces:
            ranked = sorted(face.probabilities.items(), key=lambda item: -item[1])
            _say(f"{path} {list(face.box)}  " + "  ".join(f"{name} {p:.3f}" for name, p in ranked))
            facts = {"score": round(face.score, 3), "expression": ranked[0][0], **face.probabilities}
            found.append({**dict(zip(SIDES, face.box, strict=True)), **facts})
        target = _unused(out / f"{number:03d}-{path.stem}.png")
        with atomic_path(target) as temporary:
            photo_overlay.overlay(picture, faces).save(temporary, compress_level=1)
        _say(f"overlay: {target}")
    _say(f"answered by {answered}, trained on {data or 'unknown data'}")
    if csv:
        import pandas as pd

        rows = [
            {"file": one["file"], "face": i, **face}
            for one in pictures
            for i, face in enumerate(one["faces"], 1)
        ]
        head = ["file", "face", *SIDES, "score", "expression", *network.classes]
        write_csv(csv, pd.DataFrame(rows, columns=head))
    if json:
        write_json(json, {"weights": answered, "trained_on": data, "pictures": pictures})
    if bad:
        _say(f"{bad} of {len(files)} pictures could not be read", err=True)
    if bad or without == len(files):
        raise typer.Exit(1)


def _ahead(work: Callable[[Path], Any], files: Sequence[Path]) -> Iterator["Future[Any]"]:
    """What the work on each file gives, in order; two files at a time, as large pictures need memory."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(work, path) for path in files[:2]]
        for path in [*files[2:], *[None] * len(waiting)]:
            yield waiting.pop(0)
            if path:
                waiting.append(pool.submit(work, path))


def _unused(path: Path) -> Path:
    """`path`, or with a number if there is such a file or link."""
    names = (path if i == 1 else path.with_stem(f"{path.stem}-{i}") for i in itertools.count(1))
    return next(free for free in names if not os.path.lexists(free))


@data_app.command("crop")
def data_crop(
    source: Annotated[Path, Argument(help="Folder of photographs, such as class/*.jpg.")],
    out: Annotated[Path, Argument(callback=_to_make, help="Folder to make, with the same folders of classes.")],
    size: Annotated[int, Option(min=8, max=1024, help="Side of the crops in pixels.")] = 112,
    align: Annotated[bool, Option("--align", help="Turn every face upright.")] = False,
) -> None:
    """Crop the face of every photograph into a folder that `--dataset folder` reads."""
    from fer_lab.data.photographs import crop_folder

    outcome = crop_folder(
        source, out, size=size, align=align,
        on_bad=lambda file, reason: _say(reason if str(file) in reason else f"{file}: {reason}", err=True),
    )  # fmt: skip
    _say(", ".join(f"{count} {what}" for what, count in outcome.items()))
    if not outcome["cropped"]:
        _fail(f"no face was cropped, and {out} was not made", 1)
    _say(f"crops: {out}")


@data_app.command("check")
def data_check(
    dataset: DatasetName,
    root: DatasetFolder,
    rule: Rule = "majority",
    order: FacesOrOrder = "",
    test_share: TestShare = 0.0,
    csv: Csv = None,
    json: Json = None,
) -> None:
    """Read a data set's layout, count, verify every image, and say what is missing, in one screen."""
    from fer_lab.data import check_dataset

    _apart(csv, json)
    report = check_dataset(dataset, root, label_rule=rule, order=order, test_share=test_share)
    _say(*report.text().split("\n"))
    if csv or json:
        import pandas as pd

        sizes = {f"{width}×{height}": count for (width, height), count in report.sizes.items()}
        counts = [(split, name, n) for split, inside in report.counts.items() for name, n in inside.items()]
        facts = {name: value for name, value in vars(report).items() if name != "counts"}
        table = pd.DataFrame(counts, columns=["split", "class", "faces"])
        _save(table, csv, json, **facts | {"root": str(root), "sizes": sizes, "ok": report.ok})
    if not report.ok:
        raise typer.Exit(1)


@data_app.command("cache")
def data_cache(
    dataset: DatasetName,
    root: DatasetFolder,
    rule: Rule = "majority",
    size: Annotated[int | None, Option(min=8, max=1024, help="In pixels. Default: the files', or 112.")] = None,
    classes: Classes = None,
    skip_bad: SkipBad = False,
    order: FacesOrOrder = "",
    test_share: TestShare = 0.0,
) -> None:
    """Decode a data set once, into one file that trainings map into memory."""
    from fer_lab.data import FaceRequest

    request = FaceRequest(
        dataset=dataset, root=root, classes=classes, size=size, rule=rule, skip_bad=skip_bad, order=order,
        test_share=test_share,
    )  # fmt: skip
    _say(request.load())


@data_app.command("render")
def data_render(
    folder: Annotated[Path, Argument(callback=_to_make, help="Folder to make, as split/class/*.png.")],
    count: FaceCount = 1000,
    seed: Seed = 0,
    size: Annotated[int, Option(min=32, max=1024, help="Side in pixels.")] = 112,
    classes: Annotated[int, Option(min=2, max=8, help="7 or 8.")] = 7,
    knob: Knobs = None,
) -> None:
    """Render faces with known labels into a folder that `--dataset folder` reads."""
    from fer_lab.data import FaceRequest
    from fer_lab.data.synthetic import write_folder

    faces = FaceRequest(classes=classes, size=size, count=count, seed=seed, knobs=_typed_knobs(knob)).load()
    write_folder(faces, folder)
    _say(f"{folder}: {faces}")


def _print_table(table: "pd.DataFrame", csv: Path | None, figure: Path | None = None, draw: str = "") -> None:
    _say(*table.to_string(index=False, float_format=lambda number: f"{number:.4g}").split("\n"))
    _save(table, csv, None)
    if figure:
        from fer_lab import figures

        _say(f"drawn in {figures.save(getattr(figures, draw)(table), figure)}")


@bench_app.command("models")
def bench_models(
    models: WhichModels = "",
    sizes: WhichSizes = "tiny,paper",
    modes: Annotated[str, Option(help="train, inference or both.")] = "train,inference",
    paths: Annotated[
        str, Option(help="plain: float32, eager. default: fastest without a wait. compiled: torch.compile.")
    ] = "plain,default",
    csv: Csv = None,
    figure: Drawing = None,
) -> None:
    """Images per second, milliseconds per step, memory and FLOPs of every model."""
    from fer_lab.bench import models as speed

    table = speed.bench_models(_listed(models) or None, _listed(sizes), _listed(modes), paths=_listed(paths))
    _print_table(table, csv, figure, "bench_table_figure")


@bench_app.command("losses")
def bench_losses(
    batch: Annotated[int, Option(min=2, max=65_536, help="Faces in a step.")] = 512,
    classes: Annotated[int, Option(min=2, max=1024, help="Number of classes, and so of centers.")] = 8,
    dim: Annotated[int, Option(min=1, max=65_536, help="Dimensions of the embedding.")] = 512,
    csv: Csv = None,
) -> None:
    """Cost of each metric loss, forward and backward, relative to a training step of the paper-size network."""
    from fer_lab.bench import losses

    _print_table(losses.bench_losses(batch, classes, dim), csv)


@bench_app.command("data")
def bench_data(dataset: Dataset = "synthetic", data_root: DataRoot = None, csv: Csv = None) -> None:
    """Faces per second through rendering, reading and augmentation; memory of larger sets."""
    from fer_lab.bench import data

    real: dict[str, Any] = {} if dataset == "synthetic" else {"dataset": dataset, "root": data_root}
    _print_table(data.bench_data(**real), csv)


@bench_app.command("growth")
def bench_growth(csv: Csv = None, figure: Drawing = None) -> None:
    """How the time grows with the number of faces, of classes and of pixels, on one thread."""
    from fer_lab.bench import growth

    _print_table(growth.bench_growth(), csv, figure, "growth")


@bench_app.command("device")
def bench_device(
    models: WhichModels = "",
    sizes: WhichSizes = "tiny,paper",
    device: Annotated[str, Option(help="cuda or mps; auto is the best one here.")] = "auto",
    csv: Csv = None,
) -> None:
    """How far a GPU's logits, losses and gradients are from the processor's, as shares of theirs."""
    from fer_lab.bench import bench_device

    _print_table(bench_device(_listed(models), _listed(sizes), device=device), csv)


@bench_app.command("onnx")
def onnx_table(models: WhichModels = "", sizes: WhichSizes = "tiny,paper", csv: Csv = None) -> None:
    """ONNX Runtime against PyTorch on one thread: difference, and images a second of processor time."""
    from fer_lab.bench import bench_onnx

    _print_table(bench_onnx(_listed(models), _listed(sizes)), csv)


@app.command()
def results(
    latex: Annotated[bool, Option("--latex", help="As LaTeX tables.")] = False,
    metrics: Annotated[str, Option(help="Which metrics.")] = "accuracy,mean_class_recall",
    store: Annotated[
        MaybePath, Option(help="A folder, or book. Default: runs/results if it is there, else book.")
    ] = None,
    fill: Annotated[MaybePath, Option(callback=_to_read, help="Update tables in this Markdown file.")] = None,
    claims: Annotated[bool, Option("--claims", help="What the book claims, with verdicts.")] = False,
    board: Annotated[bool, Option("--board", help="On photographs, beside what was published.")] = False,
    csv: Csv = None,
    json: Json = None,
) -> None:
    """Print the recorded results: mean over seeds with a 95 % interval (one seed: over faces)."""
    import pandas as pd

    from fer_lab.runs import ResultsStore
    from fer_lab.runs.store import SHARES

    _apart(csv, json)
    own = OWN_RESULTS.is_dir() and not (fill or claims)
    folder = _store(store or (OWN_RESULTS if own else BOOK))
    recorded = ResultsStore(folder)
    if recorded.runs().empty:
        raise ValueError(f"{folder} has no results; `fer-lab train … --record NAME` writes some")
    if fill:
        from fer_lab._files import write_text
        from fer_lab.experiments import tables

        write_text(fill, tables.fill(fill.read_text(encoding="utf-8"), tables.tables(recorded)))
        _say(f"tables of {fill} are up to date")
        return
    if claims:
        from fer_lab.experiments.claims import judge
        from fer_lab.experiments.tables import claims as table_of_claims

        found = judge(recorded)
        _say(*table_of_claims(found).split("\n"))
        _save(found, csv, json)
        return
    if board:
        from fer_lab.experiments.tables import board as table_of

        runs = recorded.runs()
        photographs = runs[runs["dataset"] != "synthetic"]
        if photographs.empty or csv or json:
            raise ValueError(
                "--board prints tables of what was measured on photographs, and writes no file"
                + f"; {folder} has nothing on photographs" * photographs.empty
            )
        for (dataset, split), _ in photographs.groupby(["dataset", "split"]):
            _say("", f"{dataset}, {split}", "", *table_of(recorded, dataset, split).split("\n"))
        return
    by, parts = ("method", "size", "variant", "dataset", "split"), []
    for metric in _listed(metrics):
        table, title = recorded.table(metric, by=by).sort_values(list(by)), metric.replace("_", " ")
        if SHARES.fullmatch(metric):
            table[["low", "high"]] = table[["low", "high"]].clip(0, 1)
        parts.append(table.assign(metric=metric))
        text = f"{title}\n{table.to_string(index=False, float_format='{:.3f}'.format)}\n"
        if latex:
            text = table.to_latex(index=False, escape=True, caption=title, float_format="%.3f")
        _say(*text.split("\n"))
    _say(f"these are the results in {folder}" + "; --store book has the book's" * (own and not store), err=True)
    _save(pd.concat(parts), csv, json, store=str(folder))


def main() -> None:
    """Run the command line; what goes wrong is reported in one line."""
    warnings.formatwarning = lambda message, *_, **__: f"{_shown(f'note: {message}')}\n"
    try:
        _check_words(sys.argv[1:])
        code = app(standalone_mode=False)
        if code == 130:  # Ctrl-C
            _say("interrupted; run the same command again to resume where that is possible", err=True)
        sys.exit(code or 0)
    except UsageError as error:
        if not error.format_message():  # no command: the help was printed
            sys.exit(2)
        _fail(f"{error.format_message()} (--help lists what there is)", 2)
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        if os.environ.get("FER_LAB_DEBUG") == "1":
            raise
        hint = '; pip install "fer_lab[book]" brings it' * isinstance(error, ModuleNotFoundError)
        _fail(f"{error}{hint}", 2 if isinstance(error, WRONG_INPUT) else 1)


def _check_words(words: Sequence[str]) -> None:
    """Refuse what no option means: nothing, as of a shell's variable without a value, and control characters.

    A file that is there may have any name, and a value for a notebook any character.
    """
    for word in words:
        if not word:
            raise ValueError("an empty word on the command line; leave the option out, or give it a value")
        if not word.isprintable() and not os.path.lexists(word) and "=" not in word:
            raise ValueError(f"{word!r} has characters that cannot be printed; give a name without them")


def _fail(message: str, code: int) -> None:
    _say(f"fer-lab: {' '.join(message.split())}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
