"""Shelves of notebooks, and one book made of three of them, for every test of the book."""

import subprocess
import time
from pathlib import Path

import pytest
from helpers.shelf import NASTY, PARAMETERS, FakeWorker, write_notebook

from fer_lab.book.run import reproduce

# a red picture, the width of which a thumbnail must not keep
PICTURE = """from IPython.display import display
from PIL import Image
display(Image.new("RGB", (900, 300), (200, 0, 0)))"""


@pytest.fixture
def shelf(tmp_path) -> Path:
    for name in ("00_start", "02_dan", "03_next"):
        write_notebook(tmp_path / "shelf", name)
    return tmp_path / "shelf"


@pytest.fixture(scope="session")
def book(tmp_path_factory):
    """(folder, results by name, seconds until each came) of a notebook that works and two that fail."""
    base = tmp_path_factory.mktemp("base")
    shelf = base / "shelf"
    math = "$a<b$ then\n\n$$\\begin{aligned}x&=1\\\\y&=2\\end{aligned}$$\n\n[go](01_bad.ipynb#x), $\\nosuch{x}$"
    parameters = PARAMETERS + "\ntext = ''\nlr = 0.1\nheads = [1]"
    write_notebook(
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
    write_notebook(
        shelf, "01_bad", "x = 1", "def f():\n    return 1 / 0\nf()", "print('never')", parameters=parameters
    )
    write_notebook(
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


@pytest.fixture
def workers(monkeypatch):
    FakeWorker.started, FakeWorker.codes = [], {}
    monkeypatch.setattr(subprocess, "Popen", FakeWorker)
    return FakeWorker
