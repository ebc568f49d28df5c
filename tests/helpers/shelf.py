"""Small notebooks for tests of the book, and a worker that only pretends to run them."""

import json
import threading
from pathlib import Path

import nbformat

NASTY = "\"'''\n\\ é {x} \"; import os; os.abort()"
PARAMETERS = """profile = "smoke"
dataset = "synthetic"
data_root = ""
seed = 0
run_dir = ""  # empty: a temporary folder"""


def write_notebook(folder: Path, name: str, *cells: str, parameters: str = PARAMETERS, text: str = "") -> Path:
    """A notebook of code cells under a title and a cell of parameters."""
    tagged = nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})
    heading = nbformat.v4.new_markdown_cell(f"# About {name}\n\n{text}")
    notebook = nbformat.v4.new_notebook(cells=[heading, tagged, *map(nbformat.v4.new_code_cell, cells)])
    folder.mkdir(exist_ok=True)
    nbformat.write(notebook, folder / f"{name}.ipynb")
    return folder / f"{name}.ipynb"


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
