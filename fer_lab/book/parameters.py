"""TODO."""

import ast
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from fer_lab.book.worker import read_notebook

STANDARD = ("profile", "dataset", "data_root", "seed", "run_dir")


# ---------------------------------------------------------------------------------------------------------
# Finding notebooks and reading their parameters


def notebooks_folder() -> Path:
    """Where the book's notebooks lie: beside the package in a checkout, inside it once installed."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "notebooks", package.parent / "notebooks"):
        if any(folder.glob("[0-9][0-9]_*.ipynb")):
            return folder
    raise FileNotFoundError(f"no notebooks in {package.parent / 'notebooks'}; install the package again")


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
