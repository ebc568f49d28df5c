"""The workbook, run headless: papermill over the notebooks, a grid of seeds, one table, a book in HTML.

A notebook of the book has one cell tagged `parameters` with one assignment of a literal a line, among them
those of `STANDARD`; it records its headline numbers by `headline` and writes files under `run_folder(run_dir)`
alone.
"""

import ast
import hashlib
import itertools
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from fer_lab.atomic import atomic_path
from fer_lab.book import format_numbers, without_widgets, write_index
from fer_lab.engines import check_engine, run_in_pool, run_on_ray
from fer_lab.worker import HEADLINE, NotebookResult, read_notebook

# profile → seconds that one cell may take; None is no limit
PROFILES: dict[str, int | None] = {"smoke": 300, "full": None, "paper": None}
STANDARD = ("profile", "dataset", "data_root", "seed", "run_dir")


# ---------------------------------------------------------------------------------------------------------
# What notebooks call


def headline(**numbers: float | int | str) -> None:
    """Show a notebook's headline numbers and record them for the book's table.

    Several calls add up; a name given twice keeps its last value.
    """
    plain = {name: value if isinstance(value, int | str) else float(value) for name, value in numbers.items()}
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if shell is None:
        print(format_numbers(plain))
        return
    from IPython.display import display

    display({HEADLINE: plain, "text/plain": format_numbers(plain)}, raw=True)


def check_answer(answer: float | None, expected: float, *, tolerance: float = 1e-3) -> None:
    """Say whether an exercise's answer is right; an answer of None has not been given yet.

    Args:
        tolerance: how far off, in the answer's own units, still counts as right.
    """
    if answer is None:
        print("Your turn: put your answer in place of None and run this cell again.")
    elif abs(float(answer) - float(expected)) <= tolerance:
        print("Right.")
    else:
        print(f"Not yet: {answer} is too {'small' if answer < expected else 'large'}.")


def run_folder(run_dir: str | os.PathLike = "") -> Path:
    """The folder a notebook writes to: `run_dir`, made if missing, or a fresh temporary one for ""."""
    if not str(run_dir):
        return Path(tempfile.mkdtemp(prefix="fer_lab-"))
    folder = Path(run_dir).expanduser().resolve()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


# ---------------------------------------------------------------------------------------------------------
# Finding notebooks and reading their parameters


def notebooks_folder() -> Path:
    """Where the book's notebooks lie: beside the package in a checkout, inside it once installed."""
    package = Path(__file__).resolve().parent
    for folder in (package / "notebooks", package.parent / "notebooks"):
        if any(folder.glob("[0-9][0-9]_*.ipynb")):
            return folder
    raise FileNotFoundError(f"no notebooks in {package.parent / 'notebooks'}; install the package again")


def results_folder() -> Path:
    """The results store that the notebooks show: figures/results in a checkout, else the package's copy."""
    package = Path(__file__).resolve().parent
    checkout = package.parent / "figures" / "results"
    return checkout if checkout.is_dir() else package / "results"


def lay_out(folder: str | os.PathLike) -> list[Path]:
    """Copy the book's notebooks (and what explains them) into `folder`.

    Raises:
        FileExistsError: one of the files is already there; nothing is copied then.
    """
    target = Path(folder)
    source = notebooks_folder()
    files = sorted(p for p in source.iterdir() if p.suffix in (".ipynb", ".md"))
    if present := [p.name for p in files if (target / p.name).exists()]:
        raise FileExistsError(f"{target} already has {', '.join(present)}; choose another folder or move them")
    target.mkdir(parents=True, exist_ok=True)
    return [Path(shutil.copy(path, target / path.name)) for path in files]


def select_notebooks(
    wanted: Sequence[str] | None = None, folder: str | os.PathLike | None = None
) -> list[Path]:
    """Notebooks in reading order; `wanted` names them by number ("02") or stem ("02_dan"), None is all.

    Raises:
        ValueError: a name that no notebook has; the message lists those there are.
    """
    known = sorted(Path(folder or notebooks_folder()).glob("[0-9][0-9]_*.ipynb"))
    if wanted is None:
        return known
    names = {str(name).strip().removesuffix(".ipynb") for name in wanted}
    found = [path for path in known if path.stem in names or path.stem[:2] in names]
    matched = {path.stem for path in found} | {path.stem[:2] for path in found}
    if unknown := sorted(names - matched):
        raise ValueError(f"no notebook {', '.join(unknown)}; there are {', '.join(p.stem for p in known)}")
    return found


def read_parameters(path: str | os.PathLike) -> dict:
    """Names and defaults in a notebook's cell tagged `parameters`.

    Raises:
        ValueError: no such cell, a line that is not `name = literal`, or a standard name missing.
    """
    path = Path(path)
    cells = read_notebook(path)["cells"]
    tagged = [c for c in cells if "parameters" in c["metadata"].get("tags", ())]
    if len(tagged) != 1:
        raise ValueError(f"{path.name} must have one cell tagged 'parameters', it has {len(tagged)}")
    parameters = {}
    for node in ast.parse(tagged[0]["source"]).body:
        try:
            (target,) = node.targets if isinstance(node, ast.Assign) else (node.target,)
            parameters[target.id] = ast.literal_eval(node.value)
        except (AttributeError, ValueError, TypeError):
            raise ValueError(
                f"{path.name}, parameters cell, line {node.lineno}: expected `name = literal`, "
                f"got {ast.unparse(node)!r}"
            ) from None
    if missing := [name for name in STANDARD if name not in parameters]:
        raise ValueError(f"{path.name} has no parameter {', '.join(missing)}; every notebook needs them")
    return parameters


def native(name: str, value, default):
    """`value` in the type of the notebook's default; text, as it comes from a command line, is read.

    A text parameter is passed on as it is, whatever it contains.
    """
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if default is None or (isinstance(default, str) and isinstance(value, str)):
        return value
    read = value
    if isinstance(value, str):
        try:
            read = ast.literal_eval(
                {"true": "True", "false": "False"}.get(value.strip().lower(), value.strip())
            )
        except Exception:  # thousands of signs or brackets end in MemoryError, {[]} in TypeError
            read = value
    if isinstance(default, float) and isinstance(read, int) and not isinstance(read, bool):
        read = float(read) if abs(read) < 2**1023 else value
    if isinstance(default, list | tuple) and isinstance(read, list | tuple):
        read = default = list(read)
    if type(read) is not type(default):
        raise ValueError(f"parameter {name} takes {type(default).__name__} such as {default!r}, got {value!r}")
    return read


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
