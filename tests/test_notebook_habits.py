"""What every notebook keeps to: few imports from the package under their own names, a text for each figure."""

import ast
import json
import re

import pytest

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
