"""Commands that run the notebooks, and copy them: reproduce, notebooks."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, BadParameter, Option

if TYPE_CHECKING:
    from fer_lab.book.result import NotebookResult

from fer_lab.cli.options import (
    LARGEST_SEED,
    PARAMETER_HELP,
    DataRoot,
    MaybePath,
    Words,
    listed,
    name_values,
    to_fill,
    whole_numbers,
)
from fer_lab.cli.output import say


def reproduce(
    profile: Annotated[str, Option(help="smoke, full or paper.")] = "smoke",
    notebooks: Annotated[str, Option(help="Which notebooks, such as 00,02. Default: all.")] = "",
    dataset: Annotated[
        str, Option(help="As in train. With several, such as synthetic,ferplus: all notebooks for each.")
    ] = "synthetic",
    data_root: DataRoot = None,
    seeds: Annotated[str, Option(help="Such as 0,1,2. Every notebook runs once for each seed.")] = "0",
    out: Annotated[Path, Option(callback=to_fill, help="Folder of the book.")] = Path("book"),
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
    for name, value in name_values(parameter, "--parameter"):
        values.setdefault(name, []).append(value)
    results = run.reproduce(
        profile,
        listed(notebooks) or None,
        {name: one for name, (one, *more) in values.items() if not more},
        listed(dataset),
        data_root if dataset != "synthetic" else None,
        whole_numbers(seeds, "--seeds", "0,1,2", 0, LARGEST_SEED),
        out,
        jobs,
        grid={name: several for name, several in values.items() if len(several) > 1},
        engine=engine,
        on_result=_report_notebook,
    )
    where = (f"executed notebooks  {out / 'notebooks'}", f"the book            {out / 'index.html'}")
    slowest = ["", "the slowest cells", *format_timings(results).split("\n")] if timings else []
    _conclude(results, *slowest, "", *where)


def notebooks(
    folder: Annotated[MaybePath, Argument(callback=to_fill, help="Folder to copy them into.")] = None,
    execute: Annotated[bool, Option(help="Run the book's own notebooks and keep the outputs.")] = False,
    only: Annotated[str, Option(help="With --execute or --students: which, such as 00,02.")] = "",
    students: Annotated[bool, Option("--students", help="Make a course for nbgrader there.")] = False,
) -> None:
    """Copy notebooks and docs into a folder of your own, or run the checkout's own and keep their outputs."""
    from fer_lab.book import parameters, run

    if execute == (folder is not None) or (students and execute):
        raise BadParameter("give either a folder or --execute; --students takes a folder")
    if folder is not None and students:
        from fer_lab.book.students import make_course

        say(*make_course(folder, listed(only) or None))
    elif folder is not None:
        say(*parameters.lay_out(folder))
    elif parameters.notebooks_folder().parent == Path(__file__).resolve().parents[1]:
        raise BadParameter("--execute is for a checkout; copy the notebooks into a folder of your own")
    else:
        _conclude(run.refresh(listed(only) or None, on_result=_report_notebook))


def _report_notebook(result: "NotebookResult") -> None:
    say(f"{result.notebook}  {result.seconds:.1f} s  {'FAILED' if result.error else 'ok'}", err=True)


def _conclude(results: "Sequence[NotebookResult]", *lines: str) -> None:
    """Print what failed, a table and some lines; the exit code is 1 if anything failed."""
    from fer_lab.book.result import format_table

    for result in results:
        if result.error:
            say("", f"{result.notebook}: {result.error}", *result.traceback.split("\n"), err=True)
    say("", *format_table(results).split("\n"), *lines)
    if failed := [result.notebook for result in results if result.error]:
        say(f"{len(failed)} of {len(results)} failed: {', '.join(failed)}", err=True)
        raise typer.Exit(1)
