"""A course for nbgrader: what the students' edition shows, and how answers are marked."""

import re
import sys
from pathlib import Path

import nbformat
import pytest
from helpers.shelf import write_notebook
from nbgrader.api import Gradebook
from nbgrader.converters import Autograde
from nbgrader.coursedir import CourseDirectory
from traitlets.config import PyFileConfigLoader
from typer.testing import CliRunner

from fer_lab.book import hide_answer
from fer_lab.book.notebook import mark_answer
from fer_lab.book.parameters import notebooks_folder, read_notebook, select_notebooks
from fer_lab.book.students import make_course, teachers_edition
from fer_lab.cli import app

STEMS = [path.stem for path in select_notebooks()]
WORKED = re.compile(r"### BEGIN SOLUTION\n(.*)\n### END SOLUTION", re.DOTALL)


def codes(path, kind):
    """The code cells of nbgrader in a notebook: "answer" or "marking", in their order."""
    return [c.source for c in nbformat.read(path, 4).cells if c.id.startswith(f"{kind}-")]


@pytest.fixture(scope="module")
def course(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("book") / "course"
    assert [path.stem for path in make_course(folder)] == STEMS
    return folder


@pytest.mark.parametrize("stem", STEMS)
def test_the_students_edition_has_every_exercise_and_no_solution(stem, course):
    source, release = (course / step / stem / f"{stem}.ipynb" for step in ("source", "release"))
    exercises = [
        cell.source
        for cell in read_notebook(notebooks_folder() / f"{stem}.ipynb").cells
        if cell.cell_type == "code" and "check_answer(" in cell.source
    ]
    assert len(exercises) >= 3
    assert len(codes(release, "answer")) == len(codes(release, "marking")) == len(exercises)
    text = "\n".join(cell.source for cell in nbformat.read(release, 4).cells)
    for answer in codes(source, "answer"):
        worked = WORKED.search(answer)[1]
        assert worked not in text
        body = worked.partition("):\n")[2]
        assert not body or body not in text
    whole = release.read_text(encoding="utf-8")
    for word in (
        "BEGIN SOLUTION",
        "END SOLUTION",
        "<summary>Solution",
        "Solutions are folded",
        '"solutions"',
    ):
        assert word not in whole
    for cell in nbformat.read(release, 4).cells:
        if cell.id.startswith("marking-"):
            assert cell.metadata["editable"] is cell.metadata["deletable"] is False
            assert cell.metadata["nbgrader"]["points"] == 1
            assert "check_answer" not in cell.source
            assert len(re.findall(r"mark_answer\(", cell.source)) == 1


# What the other exercises with a number take from their notebooks is tested in test_exercises.py.
@pytest.mark.parametrize("stem", STEMS)
def test_the_worked_numbers_are_right_and_others_are_not(stem, course):
    source = course / "source" / stem / f"{stem}.ipynb"
    tried = 0
    for answer, marking in zip(codes(source, "answer"), codes(source, "marking"), strict=True):
        if not answer.startswith("answer = None"):
            continue
        known: dict = {}
        exec(answer, known)
        exec(marking, known)
        for wrong in (None, known["answer"] + 2, float("inf"), float("nan")):
            with pytest.raises((AssertionError, ValueError, OverflowError)):
                exec(marking, known | {"answer": wrong})
        tried += 1
    assert tried >= 1


def test_an_answer_that_is_not_right_stops_the_cell():
    mark_answer(2.0, 2.0005)
    mark_answer(2.0, hide_answer(2.0))
    for answer, expected in ((None, 2.0), (2.1, 2.0), (2.1, hide_answer(2.0)), (None, hide_answer(2.0))):
        with pytest.raises(AssertionError, match="no answer yet" if answer is None else "is not the answer"):
            mark_answer(answer, expected)


FOLD = "<details><summary>Solution</summary>{}</details>\n\n**Next.** And this?"
DOUBLE = "```python\ndef double(x):\n    return 2 * x\n```\n"


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """A course of one notebook with three exercises: two numbers and a function."""
    base = tmp_path_factory.mktemp("small")
    path = write_notebook(
        base / "shelf",
        "00_tiny",
        "from fer_lab.book import check_answer",
        f'answer = None\ncheck_answer(answer, "{hide_answer(42)}")',
        f'answer = None\ncheck_answer(answer, "{hide_answer(0.5)}", tolerance=1e-3)',
        "def double(x):\n    return None\n\n\ncheck_answer(double(4), 8.0)",
    )
    notebook = nbformat.read(path, 4)
    folds = [
        nbformat.v4.new_markdown_cell(FOLD.format(text)) for text in ("It is 42.", "A half.", f"\n\n{DOUBLE}")
    ]
    folds[0].metadata["solutions"], folds[1].metadata["solutions"] = ["answer = 42"], ["answer = 1 / 2"]
    for place, fold in zip((4, 6, 8), folds, strict=True):
        notebook.cells.insert(place, fold)
    nbformat.write(notebook, path)
    make_course(base / "course", source=base / "shelf")
    return base / "course"


def hand_in(course, student, change=lambda cells: None, step="release"):
    notebook = nbformat.read(course / step / "00_tiny" / "00_tiny.ipynb", 4)
    change({cell.id: cell for cell in notebook.cells})
    folder = course / "submitted" / student / "00_tiny"
    folder.mkdir(parents=True)
    nbformat.write(notebook, folder / "00_tiny.ipynb")


def redefine(cells):
    cells["answer-1"].source = (
        "import fer_lab.book, fer_lab.book.notebook\n"
        "check_answer = mark_answer = lambda *_, **__: print('Right.')\n"
        "fer_lab.book.check_answer = fer_lab.book.notebook.mark_answer = mark_answer\n"
        "fer_lab.book.notebook._is_right = lambda *_: True\n"
        "print('score: 3 / 3')\nanswer = 1"
    )
    cells["answer-2"].source = "answer = 0.5"  # the one that is honest
    cells["marking-3"].source = "print('Right.')"
    cells["marking-3"].metadata["nbgrader"]["points"] = 100


def test_marks(small, monkeypatch):
    """The teacher's edition has all points, the empty one none, and redefining gains none."""
    hand_in(small, "teacher", step="source")
    hand_in(small, "empty")
    hand_in(small, "crooked", redefine)
    monkeypatch.chdir(small)
    config = PyFileConfigLoader("nbgrader_config.py", str(small)).load_config()
    directory = CourseDirectory(root=str(small), assignment_id="00_tiny", config=config)
    Autograde(coursedir=directory, config=config).start()
    with Gradebook(directory.db_url) as book:
        found = {s.student.id: (s.score, s.max_score) for s in book.assignment_submissions("00_tiny")}
    assert found == {"teacher": (3, 3), "empty": (0, 3), "crooked": (1, 3)}


def test_a_course_is_not_written_over_another(small):
    before = sorted(small.rglob("*"))
    with pytest.raises(FileExistsError, match=r"already has a course \(nbgrader_config.py"):
        make_course(small)
    assert sorted(small.rglob("*")) == before


@pytest.mark.parametrize(
    ("exercise", "metadata", "message"),
    [
        ("answer = None\ncheck_answer(answer, 1.0)", {}, "exercise cell 1: no worked answer"),
        ("answer = None\ncheck_answer(answer, 1.0)", {"solutions": ["other = 1"]}, r"\['other'\]"),
        ("answer = None\ncheck_answer(answer, 1.0)", {"solutions": ["print(1)"]}, r"\[''\]"),
    ],
)
def test_an_exercise_without_its_answer_is_named_before_anything_is_written(
    exercise, metadata, message, tmp_path
):
    path = write_notebook(tmp_path / "shelf", "00_bad", exercise)
    notebook = nbformat.read(path, 4)
    notebook.cells.append(nbformat.v4.new_markdown_cell("The text below it.", metadata=metadata))
    nbformat.write(notebook, path)
    with pytest.raises(ValueError, match=f"00_bad.ipynb, .*{message}"):
        make_course(tmp_path / "course", source=tmp_path / "shelf")
    assert not (tmp_path / "course").exists()
    with pytest.raises(ValueError, match="exercise cell 1"):
        teachers_edition(path)


def test_without_nbgrader_one_line_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "nbgrader.converters", None)
    done = CliRunner().invoke(app, ["notebooks", str(tmp_path / "new"), "--students"])
    assert str(done.exception) == "a course needs nbgrader: pip install 'fer_lab[teach]'"
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("stem", STEMS)
def test_the_cell_in_which_one_types_holds_no_answer(stem):
    cells = read_notebook(notebooks_folder() / f"{stem}.ipynb").cells
    exercises = [cell for cell in cells if cell.cell_type == "code" and "check_answer(" in cell.source]
    assert exercises
    assert not any({"solution", "solutions"} & cell.metadata.keys() for cell in exercises)
