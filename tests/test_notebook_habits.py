"""What every notebook keeps to: few imports from the package under their own names, a text for each figure."""

import ast
import importlib.metadata
import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from fer_lab.book.parameters import notebooks_folder

NOTEBOOKS = sorted(notebooks_folder().glob("[0-9][0-9]_*.ipynb"))


def code_cells(path) -> list[dict]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def code_of(*cells) -> ast.Module:
    """Code cells as one module, without IPython's own lines."""
    lines = "\n".join("".join(cell["source"]) for cell in cells).splitlines()
    return ast.parse("\n".join(line for line in lines if not line.lstrip().startswith(("%", "!"))))


def shown_in(tree) -> list[tuple[str, ast.expr | None]]:
    """Each call of `show`, and the text that it gives its figure, None without one."""
    names = {"show", "figures.show"}
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and ast.unparse(n.func) in names]
    return [(ast.unparse(n), next((k.value for k in n.keywords if k.arg == "alt"), None)) for n in calls]


def pattern_of(alt: ast.expr) -> str:
    """What a text looks like once it is filled in."""
    parts = alt.values if isinstance(alt, ast.JoinedStr) else [alt]
    return "".join(re.escape(part.value) if isinstance(part, ast.Constant) else ".+" for part in parts)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_imports_are_few_and_keep_their_names(path):
    tree = code_of(*code_cells(path))
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    ours = [
        node for node in imports if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "fer_lab"
    ]
    assert 1 <= len(ours) <= 6
    assert sum(node.end_lineno - node.lineno + 1 for node in imports) <= 15
    assert [alias.name for node in ours for alias in node.names if alias.asname] == []
    imported = {alias.name for node in ours for alias in node.names}
    stored = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    assert imported & stored == set()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_figure_has_a_text_of_its_own(path):
    cells = code_cells(path)
    shown = shown_in(code_of(*cells))
    assert [call for call, alt in shown if alt is None] == []
    patterns = [pattern_of(alt) for _, alt in shown]
    assert min(map(len, patterns)) > 40
    assert len(set(patterns)) == len(patterns) > 1
    saved = []
    for cell in cells:
        drawn = [output for output in cell["outputs"] if "image/png" in output.get("data", {})]
        here = [output["metadata"]["image/png"]["alt"] for output in drawn]
        texts = [pattern_of(alt) for _, alt in shown_in(code_of(cell))]
        assert [text for text in here if not any(re.fullmatch(one, text) for one in texts)] == []
        saved += here
    assert len(set(saved)) == len(saved) > 1


def test_all_ten_notebooks_are_looked_at():
    assert len(NOTEBOOKS) == 10


# What opens on Colab starts with a cell that brings what is missing there.
OPEN = [path for path in NOTEBOOKS if path.name[:2] in ("00", "08")]


def asked_of_pip(path, monkeypatch, absent: set[str]) -> list[list[str]]:
    """What the first cell runs where some modules are absent and others are of Colab's versions."""
    asked: list[list[str]] = []
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in absent else object())
    monkeypatch.setattr(importlib.metadata, "version", lambda name: {"torch": "2.6.0+cu124"}.get(name, "1.0"))
    monkeypatch.setattr(subprocess, "run", lambda words, check: asked.append(words))
    exec("".join(code_cells(path)[0]["source"]), {})
    return asked


@pytest.mark.parametrize("path", OPEN, ids=lambda path: path.stem)
def test_the_first_cell_brings_what_is_missing_and_keeps_torch(path, monkeypatch):
    needed = ast.literal_eval(
        next(n.value for n in code_of(code_cells(path)[0]).body if isinstance(n, ast.Assign))
    )
    assert asked_of_pip(path, monkeypatch, set()) == []
    pip, kept = [sys.executable, "-m", "pip", "install", "-q"], ["torch==2.6.0+cu124", "torchvision==1.0"]
    for name, package in needed.items():
        assert asked_of_pip(path, monkeypatch, {name}) == [[*pip, package, *kept]]
    # Without a torch, pip chooses one.
    everything = asked_of_pip(path, monkeypatch, {*needed, "torch", "torchvision"})
    assert everything == [[*pip, *needed.values()]]
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    book = {Requirement(line).name for line in project["project"]["optional-dependencies"]["book"]}
    assert {*needed.values()} - book == {"fer_lab @ git+URL-OF-THIS-REPOSITORY"}


@pytest.mark.parametrize("path", OPEN, ids=lambda path: path.stem)
def test_the_links_open_this_notebook(path):
    title = "".join(json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"])
    links = re.findall(r"\]\((https://(?:colab|codespaces)[^)]+)\)", title)
    assert links == [
        f"https://colab.research.google.com/github/URL-OF-THIS-REPOSITORY/blob/main/notebooks/{path.name}",
        "https://codespaces.new/URL-OF-THIS-REPOSITORY",
    ]
    assert "git clone URL-OF-THIS-REPOSITORY " in (path.parents[1] / "README.md").read_text(encoding="utf-8")
