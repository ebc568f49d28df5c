"""The book as a course for nbgrader: a teacher's edition with worked answers, and a students' edition without.

A self-checking exercise of the book is one code cell that ends in `check_answer(…)`. Its worked answer is the
Python block folded below the cell or, where the reader only types a number, in the metadata `solutions` of that
text, an entry for each exercise above it. In a course the exercise is two cells: the answer, and a locked one
that marks it.
"""

import ast
import os
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fer_lab.book.parameters import read_notebook, select_notebooks

if TYPE_CHECKING:
    from nbformat import NotebookNode

# The module is loaded again, so that nothing counts that the cells above made of it.
MARKING = """from importlib import reload

import fer_lab.book.notebook

mark_answer = reload(fer_lab.book.notebook).mark_answer
"""
FOLDED = re.compile(
    r"<details><summary>Solution</summary>.*?</details>\s*| Solutions are folded below each\.", re.DOTALL
)


def make_course(
    folder: str | os.PathLike,
    notebooks: Sequence[str] | None = None,
    *,
    source: str | os.PathLike | None = None,
) -> list[Path]:
    """Write nbgrader_config.py, gradebook.db, source/ (the teacher's edition) and release/ (the students').

    Each notebook is one assignment, each self-checking exercise one point. `notebooks` and `source` are as for
    `select_notebooks`. Returns the students' notebooks. Raises ImportError where nbgrader is not installed; the
    message has the line that installs it. Raises FileExistsError where the folder already has a course,
    ValueError for an unknown notebook, or an exercise without a worked answer, with nothing written then, and
    RuntimeError where nbgrader refused a notebook.
    """
    try:
        from nbgrader.converters import GenerateAssignment
        from nbgrader.converters.base import NbGraderException
        from nbgrader.coursedir import CourseDirectory
    except ImportError as error:
        raise ImportError("a course needs nbgrader: pip install 'fer_lab[teach]'") from error
    import nbformat
    from traitlets.config import PyFileConfigLoader

    folder = Path(folder).resolve()
    editions = {path.stem: teachers_edition(path) for path in select_notebooks(notebooks, source)}
    settings = folder / "nbgrader_config.py"
    if present := [one.name for one in (settings, folder / "gradebook.db", folder / "source") if one.exists()]:
        raise FileExistsError(f"{folder} already has a course ({', '.join(present)}); choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(Path(__file__).with_name("nbgrader_config.txt"), settings)
    config = PyFileConfigLoader(settings.name, str(folder)).load_config()
    path = os.environ.get("PATH", "")
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), path])  # nbgrader calls alembic
    try:
        for stem, edition in editions.items():
            (folder / "source" / stem).mkdir(parents=True)
            nbformat.write(edition, folder / "source" / stem / f"{stem}.ipynb")
            course = CourseDirectory(root=str(folder), assignment_id=stem, config=config)
            GenerateAssignment(coursedir=course, config=config).start()
    except NbGraderException as error:
        raise RuntimeError(f"nbgrader made no students' edition of {stem}: {error}") from error
    finally:
        os.environ["PATH"] = path
    return [folder / "release" / stem / f"{stem}.ipynb" for stem in editions]


def teachers_edition(path: Path) -> "NotebookNode":
    """A notebook in which each self-checking exercise is an answer and a marking cell, and nothing is folded.

    An exercise without a worked answer, or with one of another name than it asks for, raises ValueError.
    """
    from nbformat.v4 import new_code_cell

    notebook = read_notebook(path)
    cells: list[NotebookNode] = []
    number, worked = 0, _worked_answers(notebook.cells)
    for i, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            cell.source = FOLDED.sub("", cell.source).strip()
        if not _is_exercise(cell):
            cells += [cell] if cell.source else []
            continue
        number += 1
        where = f"{path.name}, exercise cell {number}"
        empty, check = _at_the_end_of_the_empty_answer(cell.source, worked.get(i, ""), where)
        answer = f"{empty}\n\n### BEGIN SOLUTION\n{worked[i]}\n### END SOLUTION"
        marking = f"{MARKING}\n{check.replace('check_answer(', 'mark_answer(')}"
        marks = {"grade": True, "locked": True, "points": 1}
        for kind, text, more in (("answer", answer, {"solution": True}), ("marking", marking, marks)):
            flags = {"schema_version": 3, "grade": False, "solution": False, "locked": False, "task": False}
            metadata = {"nbgrader": {**flags, **more, "grade_id": f"{kind}-{number}"}}
            cells.append(new_code_cell(text, id=f"{kind}-{number}", metadata=metadata))
    notebook.cells = cells
    return notebook


def _is_exercise(cell: "NotebookNode") -> bool:
    return cell.cell_type == "code" and "check_answer(" in cell.source


def _worked_answers(cells: "list[NotebookNode]") -> dict[int, str]:
    """Index of an exercise → its worked answer, from the next text; its metadata `solutions` are taken out."""
    worked: dict[int, str] = {}
    waiting: list[int] = []
    for i, cell in enumerate(cells):
        if _is_exercise(cell):
            waiting.append(i)
        elif cell.cell_type == "markdown":
            folded = re.search(r"<summary>Solution</summary>.*?```python\n(.*?)\n```", cell.source, re.S)
            answers = cell.metadata.pop("solutions", [folded[1]] if folded else [])
            worked |= zip(waiting, answers, strict=False)
            waiting = []
    return worked


def _at_the_end_of_the_empty_answer(exercise: str, worked: str, where: str) -> tuple[str, str]:
    """An exercise in two: up to where it gives a value to the same name as the worked answer, and the rest."""

    def name(statement: ast.stmt) -> str:
        if isinstance(statement, ast.FunctionDef):
            return statement.name
        return ast.unparse(statement.targets[0]) if isinstance(statement, ast.Assign) else ""

    wanted = [name(statement) for statement in ast.parse(worked).body][-1:]
    for statement in ast.parse(exercise).body:
        if any(wanted) and [name(statement)] == wanted:
            lines = exercise.splitlines()
            return "\n".join(lines[: statement.end_lineno]), "\n".join(lines[statement.end_lineno :]).strip()
    raise ValueError(f"{where}: no worked answer, or one that gives another name than the exercise: {wanted}")
