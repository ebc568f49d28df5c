"""Run the book headless: a grid of notebooks, data sets, seeds and parameters, a table, and a book in HTML."""

import hashlib
import itertools
import os
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fer_lab._files import atomic_path, locked
from fer_lab.book.html import is_index, without_widgets, write_index
from fer_lab.book.parameters import native, read_literal, read_notebook, read_parameters, select_notebooks
from fer_lab.book.pool import OnResult, recorded, run_in_pool
from fer_lab.book.ray import import_ray, run_on_ray
from fer_lab.book.result import NotebookResult

# profile → seconds that one cell may take; None is no limit
PROFILES: dict[str, int | None] = {"smoke": 300, "full": None, "paper": None}
ENGINES = {"pool": run_in_pool, "ray": run_on_ray}


def reproduce(
    profile: str = "smoke",
    notebooks: Sequence[str] | None = None,
    parameters: Mapping[str, Any] | None = None,
    dataset: str | Sequence[str] = "synthetic",
    data_root: str | os.PathLike | None = None,
    seeds: Iterable[int] = (0,),
    out: str | os.PathLike = "book",
    jobs: int = 1,
    *,
    grid: Mapping[str, Sequence] | None = None,
    engine: str = "pool",
    folder: str | os.PathLike | None = None,
    on_result: OnResult = lambda result: None,
) -> list[NotebookResult]:
    """Run notebooks headless and write `out`/index.html, html/, notebooks/ (executed) and runs/ (their files).

    Every notebook runs once for each data set, seed and combination of the grid. The first page shows all that
    the book holds, from earlier calls too. What an earlier run of the same name left is moved to `out`/earlier.

    Args:
        profile: one of `PROFILES`, given to every notebook.
        notebooks: numbers or stems; None is all of `folder`, by default the book's.
        parameters, grid: one value or several of further parameters, by name; all notebooks must know the name.
        dataset: "synthetic", or data sets that `load_dataset` knows.
        data_root: its folder; with several real data sets, the folder that has a folder named after each.
        jobs: notebooks at a time; each gets cores ÷ jobs threads. On a Ray cluster: on each machine.
        engine: "pool" runs everything again, in processes of this machine. "ray" uses a Ray cluster and keeps
            notebooks that have finished with the same parameters (see `run_on_ray`).
        on_result: called with each result as it comes, from the thread of the caller.

    Returns:
        The results in reading order. A failed notebook has its `error` set and does not stop the others.

    Raises:
        ValueError: an unknown profile, engine, notebook or parameter, or a value of the wrong type; nothing
            has run.
        FileNotFoundError: no folder `data_root`.
        FileExistsError: a file that no run of this book wrote would be written over.
        RunBusyError: another process writes to `out`.
        ImportError: the engine "ray" without Ray.
    """
    for what, name, names in (("profile", profile, PROFILES), ("engine", engine, ENGINES)):
        if name not in names:
            raise ValueError(f"unknown {what} {name!r}; expected one of {', '.join(names)}")
    if engine == "ray":
        import_ray()  # fails here, before anything is written
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1, got {jobs}")
    datasets = _different([dataset] if isinstance(dataset, str) else dataset)
    roots = _roots(datasets, data_root)
    grid, seeds = {name: list(values) for name, values in (grid or {}).items()}, list(seeds)
    if empty := [name for name, values in {"seeds": seeds, "dataset": datasets, **grid}.items() if not values]:
        raise ValueError(f"{empty[0]} is empty; give at least one")
    if twice := [name for name in grid if name in (parameters or {})]:
        raise ValueError(f"{', '.join(twice)} has a value and a grid of values; give one of the two")
    values = {name: [value] for name, value in (parameters or {}).items()} | grid
    if fixed := [name for name in ("profile", "dataset", "data_root", "run_dir") if name in values]:
        raise ValueError(f"{', '.join(fixed)} cannot be set as a parameter; there is an option for it")
    if "seed" in values:
        if seeds != [0]:
            raise ValueError("give either seeds or the parameter seed, not both")
        seeds = values.pop("seed")

    out = Path(out).resolve()
    cells = []
    for path in select_notebooks(notebooks, folder):
        known = read_parameters(path)
        if unknown := [name for name in values if name not in known]:
            raise ValueError(
                f"{path.stem} has no parameter {', '.join(unknown)}; it has {', '.join(known)}. "
                "Choose the notebooks that have it."
            )
        axes: dict[str, list] = {"dataset": datasets}
        for name, several in {"seed": seeds, **values}.items():
            axes[name] = _different(native(name, one, known[name]) for one in several)
        for combination in itertools.product(*axes.values()):
            chosen = dict(zip(axes, combination, strict=True))
            varied = {name: value for name, value in chosen.items() if len(axes[name]) > 1}
            settings = {"dataset": chosen["dataset"], "data_root": roots[chosen["dataset"]], **chosen}
            cells.append(_cell(path, out, profile, varied, settings))
    _check_free(cells, out)
    with locked(out / ".lock"):
        for sub in ("notebooks", "html", "runs"):
            (out / sub).mkdir(exist_ok=True)
        results = ENGINES[engine](cells, jobs, on_result)
        _write_first_page(out, cells, results)
    return results


def _different(values: Iterable[Any]) -> list[Any]:
    """The values without repetitions; 1, 1.0, True and "1" are four values."""
    return list({repr(value): value for value in values}.values())


def _check_free(cells: Sequence[Mapping], out: Path) -> None:
    """Raise FileExistsError where another file than a book's would be written over."""
    remedy = "choose another --out"
    for cell in cells:
        output, page, run_dir = Path(cell["output"]), Path(cell["page"]), Path(cell["run_dir"])
        if output.parent.resolve() == Path(cell["source"]).parent:
            raise FileExistsError(f"{output.parent} holds the notebooks that are to be run; {remedy}")
        there = [path for path in (output, page, page.with_suffix(".png")) if path.exists()]
        if there and not (run_dir / "request.json").exists():
            raise FileExistsError(f"{there[0]} was not written by a run of this book; move it, or {remedy}")
    if not is_index(out / "index.html"):
        raise FileExistsError(f"{out / 'index.html'} is not the first page of a book; move it, or {remedy}")


def _write_first_page(out: Path, cells: Sequence[Mapping], results: Sequence[NotebookResult]) -> None:
    """Write index.html: these results, and those that earlier calls left in the same book."""
    earlier = [found for folder in (out / "runs").iterdir() if (found := recorded(folder))]
    shown = {result.notebook: (cell, result) for cell, result in [*earlier, *zip(cells, results, strict=True)]}

    def in_reading_order(name: str) -> list[int | str]:
        return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]

    rows = [shown[name] for name in sorted(shown, key=in_reading_order)]
    profiles, datasets = (
        _different(str(cell.get("parameters", {}).get(key, "unknown")) for cell, _ in rows)
        for key in ("profile", "dataset")
    )
    heading = f"Profile {', '.join(profiles)}, faces: {', '.join(datasets)}."
    write_index(out / "index.html", [result for _, result in rows], heading)


def _roots(datasets: Sequence[str], data_root: str | os.PathLike | None) -> dict[str, str]:
    """The folder of each data set, "" for rendered faces without a folder."""
    real = [name for name in datasets if name != "synthetic"]
    roots = dict.fromkeys(datasets, "")
    if not data_root:
        if real:
            raise ValueError(f"data set {real[0]!r} needs its folder: give data_root")
        return roots
    for name in real or datasets:
        root = Path(data_root, name if len(real) > 1 else "")
        if not root.is_dir():
            raise FileNotFoundError(f"no folder {root}; data_root is where {name} was unpacked")
        roots[name] = str(root.resolve())
    return roots


def _cell(path: Path, out: Path, profile: str, varied: Mapping, settings: Mapping) -> dict[str, Any]:
    """One notebook of a grid; `varied` holds the settings that distinguish it from the others."""
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
        "parameters": {"profile": profile, "run_dir": run_dir, **settings},
    }


def _label(key: str, value: Any) -> str:
    """Part of a file name: `seed`, 3 → "seed3"; `heads`, [1, 2] → "heads=1-2-5ef96c40", which ends in a digest.

    A digest tells values apart that look alike: in a file's name, to a disk that ignores case, or because one
    is text and the other is not.
    """
    text = str(value)
    plain = re.sub(r"[^\w.+-]+", "-", text).strip("-.")[:40]
    clear = not isinstance(value, str) or (text == text.lower() and read_literal(text) == text)
    if plain != text or not clear:
        plain += "-" + hashlib.sha256(repr(value).encode()).hexdigest()[:8]
    return {"seed": f"seed{plain}", "dataset": plain}.get(key, f"{key}={plain}")


def refresh(
    notebooks: Sequence[str] | None = None,
    *,
    folder: str | os.PathLike | None = None,
    on_result: OnResult = lambda result: None,
) -> list[NotebookResult]:
    """Run notebooks with their own defaults and keep the outputs in them, as they are published.

    A notebook that fails stays as it was. Timings and widgets are not kept.
    """
    import nbformat

    paths = select_notebooks(notebooks, folder)
    with tempfile.TemporaryDirectory(prefix="fer_lab-") as scratch:
        cells = [_cell(path, Path(scratch), "smoke", {}, {}) | {"parameters": {}, "page": ""} for path in paths]
        results = run_in_pool(cells, 1, on_result)
        for path, result in zip(paths, results, strict=True):
            if result.error:
                continue
            notebook = without_widgets(read_notebook(Path(result.path)))
            for part in (notebook, *notebook.cells):
                for key in ("papermill", "execution"):
                    part.metadata.pop(key, None)
                if not part.metadata.get("tags", True):
                    del part.metadata["tags"]
            with atomic_path(path) as whole:
                nbformat.write(notebook, whole)
    return [replace(result, path=str(path)) for path, result in zip(paths, results, strict=True)]
