"""The group `fer-lab data`: check, cache, crop, render."""

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from fer_lab.cli.options import (
    Classes,
    Csv,
    DatasetFolder,
    DatasetName,
    FaceCount,
    FacesOrOrder,
    Json,
    Knobs,
    Rule,
    Seed,
    SkipBad,
    TestShare,
    to_make,
    two_files,
    typed_knobs,
)
from fer_lab.cli.output import fail, save_table, say


def crop(
    source: Annotated[Path, Argument(help="Folder of photographs, such as class/*.jpg.")],
    out: Annotated[Path, Argument(callback=to_make, help="Folder to make, with the same folders of classes.")],
    size: Annotated[int, Option(min=8, max=1024, help="Side of the crops in pixels.")] = 112,
    align: Annotated[bool, Option("--align", help="Turn every face upright.")] = False,
) -> None:
    """Crop the face of every photograph into a folder that `--dataset folder` reads."""
    from fer_lab.data.photographs import crop_folder

    outcome = crop_folder(
        source, out, size=size, align=align,
        on_bad=lambda file, reason: say(reason if str(file) in reason else f"{file}: {reason}", err=True),
    )  # fmt: skip
    say(", ".join(f"{count} {what}" for what, count in outcome.items()))
    if not outcome["cropped"]:
        fail(f"no face was cropped, and {out} was not made", 1)
    say(f"crops: {out}")


def check(
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

    two_files(csv, json)
    report = check_dataset(dataset, root, label_rule=rule, order=order, test_share=test_share)
    say(*report.text().split("\n"))
    if csv or json:
        import pandas as pd

        sizes = {f"{width}×{height}": count for (width, height), count in report.sizes.items()}
        counts = [(split, name, n) for split, inside in report.counts.items() for name, n in inside.items()]
        facts = {name: value for name, value in vars(report).items() if name != "counts"}
        table = pd.DataFrame(counts, columns=["split", "class", "faces"])
        save_table(table, csv, json, **facts | {"root": str(root), "sizes": sizes, "ok": report.ok})
    if not report.ok:
        raise typer.Exit(1)


def cache(
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
    say(request.load())


def render(
    folder: Annotated[Path, Argument(callback=to_make, help="Folder to make, as split/class/*.png.")],
    count: FaceCount = 1000,
    seed: Seed = 0,
    size: Annotated[int, Option(min=32, max=1024, help="Side in pixels.")] = 112,
    classes: Annotated[int, Option(min=2, max=8, help="7 or 8.")] = 7,
    knob: Knobs = None,
) -> None:
    """Render faces with known labels into a folder that `--dataset folder` reads."""
    from fer_lab.data import FaceRequest
    from fer_lab.data.synthetic import write_folder

    faces = FaceRequest(classes=classes, size=size, count=count, seed=seed, knobs=typed_knobs(knob)).load()
    write_folder(faces, folder)
    say(f"{folder}: {faces}")
