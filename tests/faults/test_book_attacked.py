"""The book's folder attacked: foreign files in it, two runs at once, names that meet, planted code."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from helpers.shelf import PARAMETERS, FakeWorker, write_notebook

from fer_lab._files import RunBusyError
from fer_lab.book.run import reproduce

pytestmark = pytest.mark.fault("the book's folder")

# What Python, IPython and Jupyter would run by itself if they looked for it in the folder that they work in.
PLANTED = [
    "random.py",
    "json.py",
    "torch.py",
    "papermill.py",
    "fer_lab.py",
    "IPython.py",
    "sitecustomize.py",
    "usercustomize.py",
    "ipython_config.py",
    "ipython_kernel_config.py",
    "jupyter_config.py",
    "profile_default/startup/00-first.py",
]
# Values of one parameter that a file's name could take for each other.
ALIKE = {
    "case": ["sgd", "SGD", "Sgd"],
    "signs": ["a b", "a/b", "a-b", "a\\b", "-a-b-", "a:b"],
    "length": ["x" * 40, "x" * 41, "x" * 300],
    "type": [1, "1", 1.0, "1.0", True, "True"],
    "nothing": ["", " ", "-", "."],
}


@pytest.fixture
def shelf(tmp_path) -> Path:
    for name in ("00_start", "02_dan", "03_next"):
        write_notebook(tmp_path / "shelf", name)
    return tmp_path / "shelf"


@pytest.fixture
def workers(monkeypatch):
    FakeWorker.started, FakeWorker.codes = [], {}
    monkeypatch.setattr(subprocess, "Popen", FakeWorker)
    return FakeWorker


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def rows_of(book: Path) -> list[str]:
    """The notebooks on a book's first page, in order."""
    return re.findall(r"<summary>([^ ]*) ·", (book / "index.html").read_text())


@pytest.mark.parametrize("way", ["plain", "link", "another book", "edited copy", "a page of one's own"])
def test_a_file_that_no_run_wrote_is_never_written_over(workers, shelf, tmp_path, way):
    out = tmp_path / "book"
    if way == "plain":
        shutil.copytree(shelf, out / "notebooks")
    elif way == "link":
        out.mkdir()
        (out / "notebooks").symlink_to(shelf)
    elif way == "another book":  # whose runs remain, and whose notebooks are the sources of this one
        reproduce(folder=shelf, out=out)
        shutil.copytree(shelf, out / "notebooks", dirs_exist_ok=True)
    elif way == "edited copy":
        write_notebook(tmp_path / "mine", "02_dan", "my_own_work = 1")
        shutil.copytree(tmp_path / "mine", out / "notebooks")
    else:
        out.mkdir()
        (out / "index.html").write_text("my home page")
    sources = shelf if way == "edited copy" or way == "a page of one's own" else out / "notebooks"
    before, kept = contents(out), contents(shelf)
    started = len(workers.started)
    with pytest.raises(FileExistsError, match="choose another --out"):
        reproduce(folder=sources, out=out)
    assert contents(out) == before
    assert contents(shelf) == kept
    assert len(workers.started) == started


def test_a_part_run_into_a_whole_book_keeps_the_others_on_the_first_page(workers, shelf, tmp_path):
    whole = reproduce(folder=shelf, out=tmp_path / "book")
    names = [result.notebook for result in whole]
    for part in (["02"], ["03", "00"], ["00", "02", "03"]):
        reproduce(folder=shelf, notebooks=part, out=tmp_path / "book")
        assert rows_of(tmp_path / "book") == names
    reproduce(folder=shelf, notebooks=["02"], seeds=(1, 2), out=tmp_path / "book")
    assert rows_of(tmp_path / "book") == ["00_start", "02_dan", "02_dan_seed1", "02_dan_seed2", "03_next"]


@pytest.mark.parametrize("again", [{}, {"seeds": [5]}, {"parameters": {"run_note": "x"}}])
def test_what_an_earlier_run_trained_is_set_aside_and_not_deleted(workers, shelf, tmp_path, again):
    write_notebook(shelf, "00_start", parameters=PARAMETERS + "\nrun_note = ''")
    book = tmp_path / "book"
    trained = []
    for options in ({}, again, {}):
        reproduce(folder=shelf, notebooks=["00"], out=book, **options)
        trained.append(f"weights {len(trained)}")
        (book / "runs" / "00_start" / "weights").write_text(trained[-1])
        (book / "notebooks" / "00_start.ipynb").write_text(f"executed {trained[-1]}")
    found = sorted(path.read_text() for path in book.rglob("weights"))
    assert found == trained
    notebooks = sorted(path.read_text() for path in book.rglob("*.ipynb"))
    assert notebooks == [f"executed {one}" for one in trained]


def test_two_at_once_cannot_write_one_book(workers, shelf, tmp_path):
    met = []

    def second(result):
        with pytest.raises(RunBusyError, match="in use by another process"):
            reproduce(folder=shelf, out=tmp_path / "book", notebooks=["03"])
        met.append(result.notebook)

    reproduce(folder=shelf, out=tmp_path / "book", on_result=second)
    assert met == ["00_start", "02_dan", "03_next"]
    reproduce(folder=shelf, out=tmp_path / "book", notebooks=["03"])


@pytest.mark.parametrize("kind", ALIKE)
def test_two_values_never_share_a_file(workers, tmp_path, kind):
    shelf = tmp_path / "shelf"
    write_notebook(shelf, "00_start", parameters=PARAMETERS + "\nk = None")
    results = reproduce(folder=shelf, grid={"k": ALIKE[kind]}, out=tmp_path / "book")
    names = [result.notebook.casefold() for result in results]
    assert len(set(names)) == len(ALIKE[kind])
    given = [json.loads((w.run_dir / "request.json").read_text())["parameters"]["k"] for w in workers.started]
    assert [repr(one) for one in given] == [repr(one) for one in ALIKE[kind]]


@pytest.mark.parametrize(
    ("default", "values", "kept"),
    [("0", ["3", "3"], 1), ("0.1", ["0.5", ".5", "5e-1", "1"], 2), ("[1]", ["[1, 2]", "[1,2]", "(1, 2)"], 1)],
)
def test_one_value_given_twice_runs_once(workers, tmp_path, default, values, kept):
    shelf = tmp_path / "shelf"
    write_notebook(shelf, "00_start", parameters=f"{PARAMETERS}\nk = {default}")
    results = reproduce(
        folder=shelf, grid={"k": values, "seed": ["1", "01", "1"][::2]}, out=tmp_path / "b", jobs=4
    )
    assert len(results) == len(workers.started) == kept
    assert all(result.error == "" for result in results)


def test_python_files_in_a_notebooks_folder_are_not_run(tmp_path, monkeypatch):
    shelf, book, loot = tmp_path / "shelf", tmp_path / "book", tmp_path / "loot"
    write_notebook(
        shelf, "00_start", "import random, json\nimport IPython, torch, fer_lab", "print(random.random())"
    )
    for name in PLANTED:
        file = book / "runs" / "00_start" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"open({str(loot)!r}, 'a').write({name!r} + chr(10))")
    monkeypatch.setenv("PYTHONPATH", f".{os.pathsep}")
    (result,) = reproduce(folder=shelf, out=book)
    assert not loot.exists(), loot.read_text()
    assert result.error == ""
