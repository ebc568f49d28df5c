"""Find the book's notebooks, read their parameters, and turn text into a parameter's type.

A notebook has one cell tagged `parameters`, with one assignment of a literal a line. Every notebook has those
of `STANDARD`.
"""

import ast
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nbformat import NotebookNode

# A link to a figure, or a figure; its words are the first group.
_FIGURE_LINK = re.compile(r"!?\[([^]]*)\]\(\.\./figures[^)]*\)")
STANDARD = ("profile", "dataset", "data_root", "seed", "run_dir")


def notebooks_folder() -> Path:
    """The folder of the book's notebooks: next to the package in a checkout, inside it once installed."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "notebooks", package.parent / "notebooks"):
        if any(folder.glob("[0-9][0-9]_*.ipynb")):
            return folder
    raise FileNotFoundError(f"no notebooks in {package.parent / 'notebooks'}; install the package again")


def lay_out(folder: str | os.PathLike) -> list[Path]:
    """Copy the book's notebooks, and the Markdown files beside them, into `folder`, and docs into its `docs`.

    Their links to each other are changed, and those to figures, which are not copied, become plain words. Where
    one of the files is already there, FileExistsError is raised and nothing copied.
    """
    target, source = Path(folder), notebooks_folder()
    copies = {path: path.name for path in sorted(source.iterdir()) if path.suffix in (".ipynb", ".md")}
    copies |= {path: f"docs/{path.name}" for path in sorted((source.parent / "docs").glob("*.md"))}
    present = [name for name in copies.values() if (target / name).exists()]
    if present or (target / "docs").is_file():
        names = ", ".join(present or ["docs"])
        raise FileExistsError(f"{target} already has {names}; choose another folder or move them")
    for path, name in copies.items():
        text = path.read_text(encoding="utf-8").replace("](../docs/", "](docs/")
        text = _FIGURE_LINK.sub(r"\1", text.replace("](../notebooks/", "](../"))
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_text(text, encoding="utf-8", newline="\n")
    return [target / name for name in copies.values()]


def select_notebooks(
    wanted: Sequence[str] | None = None, folder: str | os.PathLike | None = None
) -> list[Path]:
    """Notebooks in reading order, of the book or another folder: by number ("02") or stem, or all for None.

    A name that no notebook has raises ValueError.
    """
    known = sorted(Path(folder or notebooks_folder()).glob("[0-9][0-9]_*.ipynb"))
    if wanted is None:
        return known
    names = {str(name).strip().removesuffix(".ipynb") for name in wanted}
    if unknown := sorted(names - {name for path in known for name in (path.stem, path.stem[:2])}):
        raise ValueError(f"no notebook {', '.join(unknown)}; there are {', '.join(p.stem for p in known)}")
    return [path for path in known if names & {path.stem, path.stem[:2]}]


def read_notebook(path: Path) -> "NotebookNode":
    """A notebook, converted to nbformat 4; a file that is none raises ValueError."""
    import nbformat

    try:
        return nbformat.read(path, as_version=4)
    except (OSError, UnicodeDecodeError, nbformat.reader.NotJSONError, nbformat.ValidationError) as error:
        raise ValueError(f"{path} is not a readable notebook: {str(error).splitlines()[0][:200]}") from error


def read_parameters(path: str | os.PathLike) -> dict[str, Any]:
    """Names and defaults in a notebook's cell tagged `parameters`.

    Without such a cell or a standard name, or with a line that is not `name = literal`, it raises ValueError.
    """
    path = Path(path)
    tagged = [c for c in read_notebook(path)["cells"] if "parameters" in c["metadata"].get("tags", ())]
    if len(tagged) != 1:
        raise ValueError(f"{path.name} must have one cell tagged 'parameters', it has {len(tagged)}")
    parameters = {}
    node: Any  # other statements than assignments have no targets
    for node in ast.parse(tagged[0]["source"]).body:
        try:
            targets: list[Any] = [node.target] if isinstance(node, ast.AnnAssign) else node.targets
            (target,) = targets
            parameters[target.id] = ast.literal_eval(node.value)
        except (AttributeError, ValueError, TypeError):
            raise ValueError(
                f"{path.name}, parameters cell, line {node.lineno}: expected `name = literal`, "
                f"got {ast.unparse(node)!r}"
            ) from None
    if missing := [name for name in STANDARD if name not in parameters]:
        raise ValueError(f"{path.name} has no parameter {', '.join(missing)}; every notebook needs them")
    return parameters


def read_literal(text: str) -> Any:
    """`"0.5"` → 0.5, `"true"` → True, `"[1, 2]"` → [1, 2]. Text that is no Python literal stays text."""
    word = text.strip()
    try:
        return ast.literal_eval({"true": "True", "false": "False"}.get(word.lower(), word))
    except Exception:  # thousands of digits or brackets raise MemoryError, {[]} raises TypeError
        return text


def native(name: str, value: Any, default: Any) -> Any:
    """The value of parameter `name` in the type of its default. Text from a command line is read as a literal.

    A text parameter keeps its text unread, whatever it contains. A float parameter also takes whole numbers.
    With None as default any value is passed on as it is. Another type than the default's raises ValueError.
    """
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if default is None or (isinstance(default, str) and isinstance(value, str)):
        return value
    read = read_literal(value) if isinstance(value, str) else value
    if isinstance(default, float) and isinstance(read, int) and not isinstance(read, bool):
        read = float(read) if abs(read) < 2**1023 else value
    if isinstance(default, list | tuple) and isinstance(read, list | tuple):
        read = default = list(read)
    if type(read) is not type(default):
        raise ValueError(f"parameter {name} takes {type(default).__name__} such as {default!r}, got {value!r}")
    return read
