"""The workbook, run headless: papermill over the notebooks, a grid of seeds, one table, a book in HTML.

A notebook of the book has one cell tagged `parameters` with one assignment of a literal a line, among them
those of `STANDARD`; it records its headline numbers by `headline` and writes files under `run_folder(run_dir)`
alone.
"""

import hashlib
import itertools
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from fer_lab._files import atomic_path
from fer_lab.book.html import format_numbers, without_widgets, write_index
from fer_lab.book.parameters import native, read_parameters, select_notebooks
from fer_lab.book.pool import run_in_pool
from fer_lab.book.ray import _import_ray, run_on_ray
from fer_lab.book.worker import NotebookResult

# profile → seconds that one cell may take; None is no limit
PROFILES: dict[str, int | None] = {"smoke": 300, "full": None, "paper": None}


def format_table(results: Sequence[NotebookResult]) -> str:
    """One line a notebook: name, seconds, memory, figures, headline numbers or what stopped it."""
    rows = [("notebook", "seconds", "MB", "figures", "headline numbers")]
    for r in results:
        numbers = f"FAILED in {r.error}" if r.error else format_numbers(r.headline)
        rows.append((r.notebook, f"{r.seconds:.1f}", str(r.peak_mb or ""), str(r.figures), numbers))
    seconds, figures = sum(r.seconds for r in results), sum(r.figures for r in results)
    rows.append(("total", f"{seconds:.1f}", "", str(figures), ""))
    width = max(len(row[0]) for row in rows)
    lines = (
        f"{name:<{width}}  {took:>7}  {mb:>5}  {count:>7}  {numbers}" for name, took, mb, count, numbers in rows
    )
    return "\n".join(line.rstrip() for line in lines)


# ---------------------------------------------------------------------------------------------------------
# Running


def reproduce(
    profile: str = "smoke",
    notebooks: Sequence[str] | None = None,
    parameters: Mapping | None = None,
    dataset: str | Sequence[str] = "synthetic",
    data_root: str | os.PathLike | None = None,
    seeds: Iterable[int] = (0,),
    out: str | os.PathLike = "book",
    jobs: int = 1,
    *,
    grid: Mapping[str, Sequence] | None = None,
    engine: str = "pool",
    folder: str | os.PathLike | None = None,
    on_result: Callable[[NotebookResult], None] = lambda result: None,
) -> list[NotebookResult]:
    """Run notebooks headless and write `out`/index.html, html/, notebooks/ (executed) and runs/ (their files).

    Args:
        profile: one of `PROFILES`, given to every notebook.
        notebooks: numbers or stems; None is the whole book.
        parameters: further parameters by name. Every chosen notebook must know every name.
        dataset: "synthetic", or a data set that `load_dataset` knows, lying in `data_root`. Of several, every
            notebook runs once each; real ones then lie in folders of their names in `data_root`.
        seeds: every notebook runs once a seed.
        out: folder of the book, made if missing.
        jobs: notebooks at a time; each gets cores ÷ jobs threads. On a Ray cluster: on each machine.
        grid: several values of further parameters, by name; every notebook runs once each combination.
        engine: "pool" runs processes of this machine and everything anew; "ray" uses a Ray cluster, and keeps
            what has finished with the same notebook and parameters (see `run_on_ray`).
        folder: other notebooks than the book's.
        on_result: called with each result as it comes, from the thread of the caller.

    Returns:
        One result a notebook, data set, seed and combination, in reading order; a failed notebook has its
        `error` set, and the others have run.

    Raises:
        ValueError: an unknown profile, engine, notebook or parameter, or a value of the wrong type; nothing
            has run.
        FileNotFoundError: no folder `data_root`.
        ImportError: the engine "ray" without Ray.
    """
    if profile not in PROFILES:
        raise ValueError(f"unknown profile {profile!r}; expected one of {', '.join(PROFILES)}")
    check_engine(engine)
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1, got {jobs}")
    datasets = list(dict.fromkeys([dataset] if isinstance(dataset, str) else dataset))
    roots = _roots(datasets, data_root)
    grid, seeds = {name: list(values) for name, values in (grid or {}).items()}, list(dict.fromkeys(seeds))
    if empty := [name for name, values in {"seeds": seeds, "dataset": datasets, **grid}.items() if not values]:
        raise ValueError(f"{empty[0]} is empty; give at least one")
    if twice := [name for name in grid if name in (parameters or {})]:
        raise ValueError(f"{', '.join(twice)} has a value and a grid of values; give one of the two")
    given = {name: [value] for name, value in (parameters or {}).items()} | grid
    if fixed := [name for name in ("profile", "dataset", "data_root", "run_dir") if name in given]:
        raise ValueError(f"{', '.join(fixed)} cannot be set as a parameter; there is an option for it")
    if "seed" in given:
        if seeds != [0]:
            raise ValueError("give either seeds or the parameter seed, not both")
        seeds = [native("seed", seed, 0) for seed in given.pop("seed")]

    out = Path(out).resolve()
    cells = []
    for path in select_notebooks(notebooks, folder):
        known = read_parameters(path)
        if unknown := [name for name in given if name not in known]:
            raise ValueError(
                f"{path.stem} has no parameter {', '.join(unknown)}; it has {', '.join(known)}. "
                "Choose the notebooks that have it."
            )
        own = [[native(name, value, known[name]) for value in values] for name, values in given.items()]
        for name, seed, *values in itertools.product(datasets, seeds, *own):
            chosen = dict(zip(given, values, strict=True))
            varied = {"dataset": name} if len(datasets) > 1 else {}
            varied |= {"seed": seed} if len(seeds) > 1 else {}
            varied |= {key: value for key, value in chosen.items() if len(given[key]) > 1}
            faces = {"dataset": name, "data_root": roots[name]}
            cells.append(_cell(path, out, profile, varied, {**faces, "seed": seed, **chosen}))
    for sub in ("notebooks", "html", "runs"):
        (out / sub).mkdir(parents=True, exist_ok=True)
    results = {"pool": run_in_pool, "ray": run_on_ray}[engine](cells, jobs, on_result)
    write_index(out / "index.html", results, f"Profile {profile}, faces: {', '.join(datasets)}.")
    return results


def _roots(datasets: Sequence[str], data_root: str | os.PathLike | None) -> dict[str, str]:
    """The folder of each data set, "" for rendered faces."""
    real = [name for name in datasets if name != "synthetic"]
    if real and not data_root:
        raise ValueError(f"data set {real[0]!r} needs its folder: give data_root")
    roots = {name: Path(data_root) / name if len(real) > 1 else Path(data_root) for name in real}
    if data_root and not real:
        roots = {name: Path(data_root) for name in datasets}
    for name, root in roots.items():
        if not root.is_dir():
            raise FileNotFoundError(f"no folder {root}; data_root is where {name} was unpacked")
    return {name: str(roots[name].resolve()) if name in roots else "" for name in datasets}


def _cell(path: Path, out: Path, profile: str, varied: Mapping, parameters: Mapping) -> dict:
    """What an engine needs to know of one notebook; `varied` is what tells it from the others of a grid."""
    name = "_".join([path.stem, *(_label(key, value) for key, value in varied.items())])
    run_dir = str(out / "runs" / name)
    return {
        "name": name,
        "source": str(path.resolve()),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "output": str(out / "notebooks" / f"{name}.ipynb"),
        "page": str(out / "html" / f"{name}.html"),
        "run_dir": run_dir,
        "timeout": PROFILES[profile],
        "parameters": {"profile": profile, "run_dir": run_dir, **parameters},
    }


def _label(key: str, value) -> str:
    """`seed`, 3 → "seed3"; `heads`, [1, 2] → "heads=1-2-5ef9": fit for a file's name, and unlike others."""
    text = str(value)
    plain = re.sub(r"[^\w.+-]+", "-", text).strip("-.")[:40]
    if plain != text:
        plain += "-" + hashlib.sha256(text.encode()).hexdigest()[:4]
    return {"seed": f"seed{plain}", "dataset": plain}.get(key, f"{key}={plain}")


def refresh(
    notebooks: Sequence[str] | None = None,
    *,
    folder: str | os.PathLike | None = None,
    on_result: Callable[[NotebookResult], None] = lambda result: None,
) -> list[NotebookResult]:
    """Run notebooks with their own defaults and keep the outputs in them, as they are published.

    A notebook that fails stays as it was. Timings and widgets are not kept.
    """
    import nbformat

    with tempfile.TemporaryDirectory(prefix="fer_lab-") as scratch:
        cells = [
            {
                "name": path.stem,
                "source": str(path),
                "output": f"{scratch}/{path.name}",
                "run_dir": f"{scratch}/runs/{path.stem}",
                "timeout": PROFILES["smoke"],
                "parameters": {},
            }
            for path in select_notebooks(notebooks, folder)
        ]
        results = run_in_pool(cells, 1, on_result)
        for cell, result in zip(cells, results, strict=True):
            if result.error:
                continue
            notebook = without_widgets(nbformat.read(cell["output"], as_version=4))
            notebook.metadata.pop("papermill", None)
            for one in notebook.cells:
                one.metadata.pop("papermill", None)
                one.metadata.pop("execution", None)
                if not one.metadata.get("tags", True):
                    del one.metadata["tags"]
            with atomic_path(cell["source"]) as whole:
                nbformat.write(notebook, whole)
    return [replace(result, path=cell["source"]) for cell, result in zip(cells, results, strict=True)]


ENGINES = ("pool", "ray")


# ---------------------------------------------------------------------------------------------------------
# Ray


def check_engine(engine: str) -> None:
    """Raise ValueError for an unknown engine, ImportError with the line that installs it for one not there."""
    if engine not in ENGINES:
        raise ValueError(f"unknown engine {engine!r}; expected one of {', '.join(ENGINES)}")
    if engine == "ray":
        _import_ray()
