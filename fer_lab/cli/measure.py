"""Commands that answer and measure: info, evaluate, predict, results."""

import dataclasses
import functools
import itertools
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

if TYPE_CHECKING:
    from concurrent.futures import Future


from fer_lab.cli.options import (
    BOOK,
    OWN_RESULTS,
    WEIGHTS,
    Csv,
    DataRoot,
    Dataset,
    FaceCount,
    FaceSeed,
    FaceSize,
    FacesOrOrder,
    Json,
    Knobs,
    MaybePath,
    ReportedSplit,
    Rule,
    SkipBad,
    TestShare,
    listed,
    open_weights,
    store_folder,
    to_fill,
    to_read,
    two_files,
    typed_knobs,
)
from fer_lab.cli.output import format_metrics, save_table, say


def info() -> None:
    """Print versions, device, precision, and the folders in use: what to send with a question."""
    import shutil

    from fer_lab._device import best_device, resolve_precision
    from fer_lab.data.cache import cache_folder
    from fer_lab.models.weights import SHIPPED, shipped_models
    from fer_lab.runs import environment, results_folder

    device = best_device()
    for name, value in environment().items():
        say(f"{name:<10} {value}")
    say(f"{'precision':<10} {resolve_precision('auto', device)} where a recipe says auto")
    say(f"{'cache':<10} {cache_folder()}", f"{'results':<10} {results_folder()}")
    say(f"{'weights':<10} {'; '.join(f'{kind}: ' + ', '.join(shipped_models(kind)) for kind in SHIPPED)}")
    say(f"{'FER_DATA':<10} {os.environ.get('FER_DATA') or 'not set'}")
    found = (shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome"))
    say(f"{'browser':<10} {next(filter(None, found), 'no Chromium found; only tests need one')}")


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

    two_files(csv, json)
    model, answered, data = open_weights(run)
    if data and (data == "synthetic") != (dataset == "synthetic"):
        kinds = ("drawings", "photographs") if data == "synthetic" else ("photographs", "drawings")
        warnings.warn("{} learned from {} and is measured on {}".format(answered, *kinds), stacklevel=1)
    # A data set without contempt is not asked for it: `predict` leaves contempt out of the model's answers.
    classes = model.num_classes if dataset == "synthetic" or model.num_classes == 7 else None
    request = FaceRequest(
        dataset=dataset, root=data_root, classes=classes, size=faces_size, rule=rule, skip_bad=skip_bad,
        order=order, test_share=test_share, count=count, seed=faces_seed, knobs=typed_knobs(knob),
    )  # fmt: skip
    faces = request.sized(model.image_size).load()
    if dataset == "folder" and tuple(model.classes) == CANONICAL and {*faces.classes} < {*CANONICAL[:-1]}:
        # The reader's own folder has some classes alone. It is read again; its warnings were given.
        with warnings.catch_warnings(action="ignore"):
            faces = dataclasses.replace(request, classes=model.num_classes).load()
    split = split or faces.reported_split()
    faces = faces.split(split)
    table = metrics.evaluate(metrics.predict(model, faces, flip=flip))
    where = f"{model.name} on {len(faces)} {split} faces of {faces.name}"
    say(f"{where} ({answered}, trained on {data or 'unknown data'})", *format_metrics(table))
    origin = {"weights": answered, "trained_on": data, "dataset": faces.name, "split": split}
    save_table(table, csv, json, **origin, faces=len(faces))


# Of the square around a face, in the order of a box.
SIDES = ("left", "top", "right", "bottom")


def predict(
    images: Annotated[list[Path], Argument(help="Pictures, folders of pictures, patterns as *.jpg.")],
    weights: Annotated[Path, Option("--weights", "--model", help=WEIGHTS)] = Path("dan"),
    out: Annotated[Path, Option(callback=to_fill, help="Folder of the overlays.")] = Path("predictions"),
    whole: Annotated[bool, Option("--whole", help="The pictures are face crops already.")] = False,
    csv: Csv = None,
    json: Json = None,
) -> None:
    """Find the faces in pictures, name their apparent expressions, and draw where the model looked."""
    from fer_lab.data.photographs import list_photographs

    files = list_photographs(images)
    two_files(csv, json, read=files)

    from fer_lab._files import atomic_path, write_csv, write_json
    from fer_lab.explorer import photo_overlay
    from fer_lab.models.inference import fuse

    model, answered, data = open_weights(weights)
    network = fuse(model)
    pictures: list[dict[str, Any]] = []
    bad = without = 0
    work = functools.partial(photo_overlay.predict_picture, network, whole=whole, trained_on=data)
    for number, (path, answer) in enumerate(zip(files, ahead(work, files), strict=True)):
        found: list[dict[str, Any]] = []
        pictures.append({"file": str(path), "error": "", "faces": found})
        try:
            picture, faces = answer.result()
        except ValueError as error:
            say(str(error), err=True)
            pictures[-1]["error"] = str(error)
            bad += 1
            continue
        if not faces:
            say(f"{path}: no face found; --whole takes the picture as one face", err=True)
            without += 1
            continue
        for face in faces:
            ranked = sorted(face.probabilities.items(), key=lambda item: -item[1])
            say(f"{path} {list(face.box)}  " + "  ".join(f"{name} {p:.3f}" for name, p in ranked))
            facts = {"score": round(face.score, 3), "expression": ranked[0][0], **face.probabilities}
            found.append({**dict(zip(SIDES, face.box, strict=True)), **facts})
        target = _unused(out / f"{number:03d}-{path.stem}.png")
        with atomic_path(target) as temporary:
            photo_overlay.overlay(picture, faces).save(temporary, compress_level=1)
        say(f"overlay: {target}")
    say(f"answered by {answered}, trained on {data or 'unknown data'}")
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
        say(f"{bad} of {len(files)} pictures could not be read", err=True)
    if bad or without == len(files):
        raise typer.Exit(1)


def ahead(work: Callable[[Path], Any], files: Sequence[Path]) -> Iterator["Future[Any]"]:
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


def results(
    latex: Annotated[bool, Option("--latex", help="As LaTeX tables.")] = False,
    metrics: Annotated[str, Option(help="Which metrics.")] = "accuracy,mean_class_recall",
    store: Annotated[
        MaybePath, Option(help="A folder, or book. Default: runs/results if it is there, else book.")
    ] = None,
    fill: Annotated[MaybePath, Option(callback=to_read, help="Update tables in this Markdown file.")] = None,
    claims: Annotated[bool, Option("--claims", help="What the book claims, with verdicts.")] = False,
    board: Annotated[bool, Option("--board", help="On photographs, beside what was published.")] = False,
    csv: Csv = None,
    json: Json = None,
) -> None:
    """Print the recorded results: mean over seeds with a 95 % interval (one seed: over faces)."""
    import pandas as pd

    from fer_lab.runs import ResultsStore
    from fer_lab.runs.store import SHARES

    two_files(csv, json)
    own = OWN_RESULTS.is_dir() and not (fill or claims)
    folder = store_folder(store or (OWN_RESULTS if own else BOOK))
    recorded = ResultsStore(folder)
    if recorded.runs().empty:
        raise ValueError(f"{folder} has no results; `fer-lab train … --record NAME` writes some")
    if fill:
        from fer_lab._files import write_text
        from fer_lab.experiments import tables

        write_text(fill, tables.fill(fill.read_text(encoding="utf-8"), tables.tables(recorded)))
        say(f"tables of {fill} are up to date")
        return
    if claims:
        from fer_lab.experiments.claims import judge
        from fer_lab.experiments.tables import claims as table_of_claims

        found = judge(recorded)
        say(*table_of_claims(found).split("\n"))
        save_table(found, csv, json)
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
            say("", f"{dataset}, {split}", "", *table_of(recorded, dataset, split).split("\n"))
        return
    by, parts = ("method", "size", "variant", "dataset", "split"), []
    for metric in listed(metrics):
        table, title = recorded.table(metric, by=by).sort_values(list(by)), metric.replace("_", " ")
        if SHARES.fullmatch(metric):
            table[["low", "high"]] = table[["low", "high"]].clip(0, 1)
        parts.append(table.assign(metric=metric))
        text = f"{title}\n{table.to_string(index=False, float_format='{:.3f}'.format)}\n"
        if latex:
            text = table.to_latex(index=False, escape=True, caption=title, float_format="%.3f")
        say(*text.split("\n"))
    say(f"these are the results in {folder}" + "; --store book has the book's" * (own and not store), err=True)
    save_table(pd.concat(parts), csv, json, store=str(folder))
