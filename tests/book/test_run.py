"""Reading parameters, running notebooks, what is reported of those that fail, the book in HTML."""

import json
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup
from PIL import Image

from fer_lab.book import notebook, parameters, run
from fer_lab.book.html import format_numbers, to_mathml
from fer_lab.book.notebook import headline, run_folder
from fer_lab.book.parameters import STANDARD, lay_out, notebooks_folder, read_parameters, select_notebooks
from fer_lab.book.run import NotebookResult, format_table, refresh, reproduce

PARAMETERS = """profile = "smoke"
dataset = "synthetic"
data_root = ""
seed = 0
run_dir = ""  # empty: a temporary folder"""
NASTY = "\"'''\n\\ é {x} \"; import os; os.abort()"
# a red picture, the width of which a thumbnail must not keep
PICTURE = """from IPython.display import display
from PIL import Image
display(Image.new("RGB", (900, 300), (200, 0, 0)))"""


def write(folder: Path, name: str, *cells: str, parameters: str = PARAMETERS, text: str = "") -> Path:
    """A notebook of code cells under a title and a cell of parameters."""
    tagged = nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})
    heading = nbformat.v4.new_markdown_cell(f"# About {name}\n\n{text}")
    notebook = nbformat.v4.new_notebook(cells=[heading, tagged, *map(nbformat.v4.new_code_cell, cells)])
    folder.mkdir(exist_ok=True)
    nbformat.write(notebook, folder / f"{name}.ipynb")
    return folder / f"{name}.ipynb"


@pytest.fixture
def shelf(tmp_path) -> Path:
    for name in ("00_start", "02_dan", "03_next"):
        write(tmp_path / "shelf", name)
    return tmp_path / "shelf"


# ---------------------------------------------------------------------------------------------------------
# Choosing notebooks, reading parameters


@pytest.mark.parametrize(
    ("wanted", "stems"),
    [
        (None, ["00_start", "02_dan", "03_next"]),
        (["03", "00"], ["00_start", "03_next"]),
        (["02_dan", " 02", "02_dan.ipynb"], ["02_dan"]),
    ],
)
def test_notebooks_come_in_reading_order(shelf, wanted, stems):
    assert [path.stem for path in select_notebooks(wanted, shelf)] == stems


def test_an_unknown_notebook_is_refused_and_the_known_are_listed(shelf):
    with pytest.raises(ValueError, match="no notebook 07, dan; there are 00_start, 02_dan, 03_next"):
        select_notebooks(["07", "02", "dan"], shelf)


def test_parameters_are_read_with_their_defaults(tmp_path):
    path = write(tmp_path, "00_a", parameters=PARAMETERS + "\nlr: float = 1e-3\nheads = [1, 2]  # a list")
    found = read_parameters(path)
    assert found == {
        "profile": "smoke",
        "dataset": "synthetic",
        "data_root": "",
        "seed": 0,
        "run_dir": "",
        "lr": 1e-3,
        "heads": [1, 2],
    }


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ("profile = 'smoke'\nseed = 0", "no parameter dataset, data_root, run_dir"),
        (PARAMETERS + "\nlr = 1 / 3", "line 6: expected `name = literal`, got 'lr = 1 / 3'"),
        (PARAMETERS + "\na = b = 1", "line 6"),
        (PARAMETERS + "\nprint()", "line 6"),
    ],
)
def test_a_cell_of_parameters_that_cannot_be_set_is_refused(tmp_path, parameters, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        read_parameters(write(tmp_path, "00_a", parameters=parameters))


def test_a_notebook_without_parameters_or_without_cells_is_refused(tmp_path):
    path = tmp_path / "00_a.ipynb"
    nbformat.write(nbformat.v4.new_notebook(), path)
    with pytest.raises(ValueError, match="one cell tagged 'parameters', it has 0"):
        read_parameters(path)
    path.write_text("{ nothing")
    with pytest.raises(ValueError, match=r"00_a\.ipynb is not a readable notebook"):
        read_parameters(path)


@pytest.mark.parametrize(
    ("value", "default", "native"),
    [
        ("1e-4", 0.1, 1e-4),
        ("3", 0.1, 3.0),
        (3, 0.1, 3.0),
        ("7", 0, 7),
        ("true", False, True),
        ("False", True, False),
        ("[1, 2]", [0], [1, 2]),
        ((1, 2), (0,), [1, 2]),
        (NASTY, "", NASTY),
        ("5", "text", "5"),
        (Path("a b"), "", "a b"),
        ("anything", None, "anything"),
    ],
)
def test_values_arrive_in_the_type_of_the_default(value, default, native):
    found = parameters.native("x", value, default)
    assert found == native
    assert type(found) is type(native)


@pytest.mark.parametrize(("value", "default"), [("1.5", 0), ("x", 0.1), (1, True), ("1", False), (3, "text")])
def test_values_of_another_type_are_refused(value, default):
    with pytest.raises(ValueError, match=f"parameter x takes {type(default).__name__}"):
        parameters.native("x", value, default)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"profile": "quick"}, ValueError, "unknown profile 'quick'; expected one of smoke, full, paper"),
        ({"notebooks": ["09"]}, ValueError, "no notebook 09"),
        ({"parameters": {"sede": 1}}, ValueError, "00_start has no parameter sede; it has profile"),
        ({"parameters": {"seed": "x"}}, ValueError, "parameter seed takes int"),
        ({"parameters": {"profile": "full"}}, ValueError, "there is an option for it"),
        ({"parameters": {"seed": 1}, "seeds": (1, 2)}, ValueError, "either seeds or the parameter seed"),
        ({"seeds": ()}, ValueError, "at least one"),
        ({"grid": {"seed": []}}, ValueError, "seed is empty"),
        ({"grid": {"seed": [1]}, "parameters": {"seed": 1}}, ValueError, "a value and a grid of values"),
        ({"engine": "dask"}, ValueError, "unknown engine 'dask'"),
        ({"jobs": 0}, ValueError, "jobs must be at least 1"),
        ({"dataset": "ferplus"}, ValueError, "'ferplus' needs its folder"),
        ({"dataset": "ferplus", "data_root": "nowhere"}, FileNotFoundError, "no folder nowhere"),
    ],
)
def test_bad_requests_are_refused_before_anything_runs(shelf, tmp_path, arguments, error, message):
    with pytest.raises(error, match=message):
        reproduce(folder=shelf, out=tmp_path / "book", **arguments)
    assert not (tmp_path / "book").exists()


# ---------------------------------------------------------------------------------------------------------
# Running


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """(folder, results by name, seconds until each came) of a notebook that works and two that fail."""
    base = tmp_path_factory.mktemp("base")
    shelf = base / "shelf"
    math = "$a<b$ then\n\n$$\\begin{aligned}x&=1\\\\y&=2\\end{aligned}$$\n\n[go](01_bad.ipynb#x), $\\nosuch{x}$"
    parameters = PARAMETERS + "\ntext = ''\nlr = 0.1\nheads = [1]"
    write(
        shelf,
        "00_good",
        "import os, sys\nfrom fer_lab.book.notebook import headline, run_folder",
        "ballast = bytearray(200_000_000)",
        "(run_folder(run_dir) / 'made.txt').write_text(text)",
        "headline(accuracy=0.8123456, threads=int(os.environ['OMP_NUM_THREADS']))\n"
        "headline(python=sys.executable, policy=os.environ['OMP_WAIT_POLICY'], here=os.getcwd())\n"
        "headline(text=text, lr=lr, heads=str(heads), seed=seed, profile=profile)",
        PICTURE,
        "import ipywidgets\nipywidgets.IntSlider()",
        parameters=parameters,
        text=math,
    )
    write(shelf, "01_bad", "x = 1", "def f():\n    return 1 / 0\nf()", "print('never')", parameters=parameters)
    write(
        shelf, "02_dead", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "1", parameters=parameters
    )
    arrived, start = {}, time.monotonic()
    results = reproduce(
        folder=shelf,
        out=base / "bo{o}k",
        parameters={"text": NASTY, "lr": "1e-4", "heads": [4, 2], "seed": "3"},
        on_result=lambda result: arrived.update({result.notebook: time.monotonic() - start}),
    )
    return base / "bo{o}k", {result.notebook: result for result in results}, arrived


def test_a_notebook_gets_its_parameters_as_they_are(book):
    folder, results, _ = book
    good = results["00_good"]
    assert good.error == ""
    assert {k: good.headline[k] for k in ("text", "lr", "heads", "seed", "profile")} == {
        "text": NASTY,
        "lr": 1e-4,
        "heads": "[4, 2]",
        "seed": 3,
        "profile": "smoke",
    }
    assert (folder / "runs" / "00_good" / "made.txt").read_text() == NASTY


def test_a_notebook_runs_in_this_python_in_its_own_folder(book):
    folder, results, _ = book
    numbers = results["00_good"].headline
    assert numbers["python"] == sys.executable
    assert numbers["here"] == str(folder / "runs" / "00_good")
    assert numbers["policy"] == "PASSIVE"


def test_what_is_reported_of_a_notebook(book):
    good = book[1]["00_good"]
    assert good.title == "About 00_good"
    assert good.figures == 1
    assert good.headline["accuracy"] == 0.8123456
    assert 200 < good.peak_mb < 1000
    assert 0 < good.seconds < 60
    executed = nbformat.read(good.path, 4)
    assert executed.cells[-1].execution_count == len(executed.cells) - 1


def test_a_failed_cell_is_named_with_its_traceback_and_the_others_run(book):
    _, results, _ = book
    bad = results["01_bad"]
    assert bad.error == "cell 4 of 5: ZeroDivisionError: division by zero"
    assert "----> 2     return 1 / 0" in bad.traceback
    assert "\x1b" not in bad.traceback
    assert list(results) == ["00_good", "01_bad", "02_dead"]


def test_a_killed_kernel_is_reported_within_seconds(book):
    _, results, arrived = book
    assert results["02_dead"].error.startswith("cell 3 of 4: DeadKernelError")
    assert "signal.SIGKILL" in results["02_dead"].traceback
    assert arrived["02_dead"] - arrived["01_bad"] < 20


def test_the_pages_fetch_nothing(book):
    folder, _, _ = book
    pages = sorted(folder.rglob("*.html"))
    assert [page.name for page in pages] == ["00_good.html", "01_bad.html", "02_dead.html", "index.html"]
    for page in pages:
        text = page.read_text(encoding="utf-8")
        soup = BeautifulSoup(text, "html.parser")
        assert soup.find_all("script") == []
        for tag in soup.find_all(["link", "img", "iframe", "source", "object", "embed"]):
            source = tag.get("src") or tag.get("href") or tag.get("data")
            assert source.startswith("data:") or (page.parent / source).exists()
        assert not re.search(r"(@import|url\()\s*['\"]?(https?:)?//", text)


def test_a_page_shows_formulas_figures_errors_and_links(book):
    folder, _, _ = book
    good = BeautifulSoup((folder / "html" / "00_good.html").read_text(encoding="utf-8"), "html.parser")
    inline, block = good.find_all("math")
    assert inline.get_text() == "a<b"
    assert (block["display"], len(block.find_all("mtr"))) == ("block", 2)
    assert r"\nosuch{x}" in [code.get_text() for code in good.find_all("code")]
    assert good.find("a", string="go")["href"] == "01_bad.html#x"
    assert sum(image["src"].startswith("data:image/png") for image in good.find_all("img")) == 1
    assert "IntSlider(" not in " ".join(area.get_text() for area in good.find_all(class_="jp-OutputArea"))
    assert "ZeroDivisionError" in (folder / "html" / "01_bad.html").read_text(encoding="utf-8")


def test_the_first_page_lists_every_notebook(book):
    folder, _, _ = book
    index = BeautifulSoup((folder / "index.html").read_text(encoding="utf-8"), "html.parser")
    rows = index.find_all("tr")[1:]
    assert [row.a["href"] for row in rows] == [f"html/{n}.html" for n in ("00_good", "01_bad", "02_dead")]
    assert "accuracy 0.812" in rows[0].get_text()
    assert "ZeroDivisionError: division by zero" in rows[1].find(class_="failed").get_text()
    assert Image.open(folder / rows[0].img["src"]).size == (384, 128)
    assert rows[1].img is None


def test_refresh_keeps_outputs_and_nothing_of_the_run(tmp_path):
    path = write(tmp_path, "00_a", "print(seed, run_dir == '')\nimport ipywidgets\nipywidgets.IntSlider()")
    before = nbformat.read(path, 4)
    (result,) = refresh(folder=tmp_path)
    after = nbformat.read(path, 4)
    assert (result.error, result.path) == ("", str(path))
    assert [cell.source for cell in after.cells] == [cell.source for cell in before.cells]
    assert [cell.metadata for cell in after.cells] == [cell.metadata for cell in before.cells]
    assert [output.get("text") for output in after.cells[-1].outputs] == ["0 True\n"]
    assert set(after.metadata) == {"language_info"}
    assert [p.name for p in tmp_path.iterdir()] == ["00_a.ipynb"]


class FakeWorker:
    """Stands in for the process of a notebook: leaves a result, ends with `codes`, or waits to be killed."""

    started: list
    codes: dict

    def __init__(self, command, cwd, env, **_):
        self.run_dir, self.env, self.killed = Path(cwd), env, threading.Event()
        self.found = sorted(path.name for path in self.run_dir.iterdir())
        self.code = self.codes.get(self.run_dir.name, 0)
        self.started.append(self)

    def wait(self):
        if self.code is None:
            return -9 if self.killed.wait(30) else 1
        if self.code == 0:
            (self.run_dir / "result.json").write_text(json.dumps({"notebook": self.run_dir.name}))
        return self.code

    def kill(self):
        self.killed.set()


@pytest.fixture
def workers(monkeypatch):
    FakeWorker.started, FakeWorker.codes = [], {}
    monkeypatch.setattr(subprocess, "Popen", FakeWorker)
    return FakeWorker


def test_every_seed_is_a_run_of_its_own(workers, shelf, tmp_path):
    results = reproduce(folder=shelf, notebooks=["00", "02"], seeds=(0, 4, 4), out=tmp_path / "book")
    names = ["00_start_seed0", "00_start_seed4", "02_dan_seed0", "02_dan_seed4"]
    assert [result.notebook for result in results] == names
    requests = [json.loads((tmp_path / "book" / "runs" / n / "request.json").read_text()) for n in names]
    assert [request["parameters"]["seed"] for request in requests] == [0, 4, 0, 4]


def test_a_grid_is_every_combination_in_reading_order(workers, shelf, tmp_path):
    for path in shelf.glob("*.ipynb"):
        write(shelf, path.stem, parameters=PARAMETERS + "\nlr = 0.1\nheads = [1]")
    for name in ("ferplus", "rafdb"):
        (tmp_path / "sets" / name).mkdir(parents=True)
    results = reproduce(
        folder=shelf,
        notebooks=["02"],
        parameters={"lr": "0.5"},
        grid={"heads": ["[1, 2]", "[1]"]},
        dataset=["synthetic", "ferplus", "rafdb"],
        data_root=tmp_path / "sets",
        out=tmp_path / "book",
    )
    names = [result.notebook for result in results]
    assert len(set(names)) == 6
    assert [name.split("_heads")[0] for name in names[::2]] == [
        "02_dan_synthetic",
        "02_dan_ferplus",
        "02_dan_rafdb",
    ]
    assert names[0].startswith("02_dan_synthetic_heads=1-2-")
    requests = [json.loads((tmp_path / "book" / "runs" / name / "request.json").read_text()) for name in names]
    given = [request["parameters"] for request in requests]
    assert [one["heads"] for one in given] == [[1, 2], [1]] * 3
    assert {one["lr"] for one in given} == {0.5}
    assert [one["data_root"] for one in given[::2]] == [
        "",
        *(str(tmp_path / "sets" / n) for n in ("ferplus", "rafdb")),
    ]


@pytest.mark.parametrize(
    ("value", "label"), [(3, "k=3"), (0.5, "k=0.5"), ("a/../b", "k=a-..-b-"), ("x" * 90, "k=" + "x" * 40)]
)
def test_a_value_in_a_files_name(value, label):
    assert run._label("k", value).startswith(label)
    assert re.fullmatch(r"[\w.+=-]{1,60}", run._label("k", value))
    assert run._label("k", "a b") != run._label("k", "a/b")


@pytest.mark.parametrize(("cores", "jobs", "threads"), [(8, 1, "8"), (8, 3, "2"), (2, 4, "1")])
def test_threads_are_cores_over_jobs(workers, shelf, tmp_path, monkeypatch, cores, jobs, threads):
    monkeypatch.setattr(run.os, "cpu_count", lambda: cores)
    reproduce(folder=shelf, out=tmp_path / "book", jobs=jobs)
    assert {worker.env["OMP_NUM_THREADS"] for worker in workers.started} == {threads}
    assert {worker.env["OMP_WAIT_POLICY"] for worker in workers.started} == {"PASSIVE"}


def test_what_an_interrupted_run_left_is_continued_and_a_finished_one_starts_afresh(workers, shelf, tmp_path):
    def run(**options):
        reproduce(folder=shelf, notebooks=["00"], out=tmp_path / "book", **options)
        return workers.started[-1].found

    run_dir = tmp_path / "book" / "runs" / "00_start"
    assert run() == ["log.txt", "request.json"]
    (run_dir / "checkpoint").write_text("")
    assert run() == ["log.txt", "request.json"]
    (run_dir / "checkpoint").write_text("")
    (run_dir / "result.json").unlink()
    assert run() == ["checkpoint", "log.txt", "request.json"]
    (run_dir / "checkpoint").write_text("")
    (run_dir / "result.json").unlink()
    assert run(seeds=[5]) == ["log.txt", "request.json"]


def test_a_folder_that_no_run_made_is_left_alone(workers, shelf, tmp_path):
    mine = tmp_path / "book" / "runs" / "00_start" / "mine.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("keep")
    reproduce(folder=shelf, notebooks=["00"], out=tmp_path / "book")
    assert mine.read_text() == "keep"


def test_a_worker_that_dies_is_a_failed_notebook(workers, shelf, tmp_path):
    workers.codes = {"02_dan": -9}
    results = reproduce(folder=shelf, out=tmp_path / "book")
    assert [result.error for result in results] == ["", "the process that ran it ended with code -9", ""]


def test_an_interrupt_kills_what_runs_and_starts_nothing_more(workers, shelf, tmp_path):
    workers.codes = {"02_dan": None}

    def interrupt(result):
        while len(workers.started) < 2:
            time.sleep(0.01)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reproduce(folder=shelf, out=tmp_path / "book", on_result=interrupt)
    assert [(worker.run_dir.name, worker.killed.is_set()) for worker in workers.started] == [
        ("00_start", False),
        ("02_dan", True),
    ]


# ---------------------------------------------------------------------------------------------------------
# Small things


def test_headline_prints_outside_a_notebook(capsys):
    headline(accuracy=0.81234, mean_class_recall=1 / 3, faces=12)
    assert capsys.readouterr().out == "accuracy 0.812 · mean class recall 0.333 · faces 12\n"
    assert format_numbers({}) == ""


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (None, "Your turn"),
        (0.5, "Right."),
        (0.5009, "Right."),
        (0.49, "Not yet: 0.49 is too small."),
        (2, "Not yet: 2 is too large."),
    ],
)
def test_answers_of_exercises(capsys, answer, said):
    notebook.check_answer(answer, 0.5)
    assert capsys.readouterr().out.startswith(said)


def test_run_folder(tmp_path):
    assert run_folder(tmp_path / "a" / "b").is_dir()
    first, second = run_folder(), run_folder("")
    assert first != second
    assert list(first.iterdir()) == []
    first.rmdir(), second.rmdir()


def test_table():
    results = [
        NotebookResult("00_start", seconds=1.26, headline={"accuracy": 0.5}, figures=2, peak_mb=812),
        NotebookResult("02_dan", seconds=10, figures=3, error="cell 2 of 9: ValueError: no"),
    ]
    assert format_table(results).splitlines() == [
        "notebook  seconds     MB  figures  headline numbers",
        "00_start      1.3    812        2  accuracy 0.5",
        "02_dan       10.0               3  FAILED in cell 2 of 9: ValueError: no",
        "total        11.3               5",
    ]


@pytest.mark.parametrize("tex", ["", r"\frac", r"\begin{nothing}x\end{nothing}"])
def test_a_formula_that_cannot_be_converted_stays_readable(tex):
    assert "\\" not in re.sub(r"<code>.*</code>", "", to_mathml(tex))


def test_lay_out_copies_notebooks_and_overwrites_nothing(shelf, tmp_path, monkeypatch):
    monkeypatch.setattr("fer_lab.book.parameters.notebooks_folder", lambda: shelf)
    (shelf / "README.md").write_text("for teachers")
    assert [path.name for path in lay_out(tmp_path / "mine")] == [
        "00_start.ipynb",
        "02_dan.ipynb",
        "03_next.ipynb",
        "README.md",
    ]
    (tmp_path / "mine" / "00_start.ipynb").write_text("my own")
    (tmp_path / "mine" / "02_dan.ipynb").unlink()
    with pytest.raises(FileExistsError, match=r"already has 00_start.ipynb, 03_next.ipynb, README.md"):
        lay_out(tmp_path / "mine")
    assert (tmp_path / "mine" / "00_start.ipynb").read_text() == "my own"
    assert not (tmp_path / "mine" / "02_dan.ipynb").exists()


def test_every_notebook_of_the_book_has_the_standard_parameters():
    paths = select_notebooks(folder=notebooks_folder())
    assert paths[0].name == "00_start_here.ipynb"
    for path in paths:
        defaults = read_parameters(path)
        assert [defaults[name] for name in STANDARD] == ["smoke", "synthetic", "", 0, ""], path.name
