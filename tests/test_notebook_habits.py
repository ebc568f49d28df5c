"""What every notebook keeps to: few imports from the package, none renamed, none hidden by a variable."""

import ast
import json

import pytest

from fer_lab.book.parameters import notebooks_folder

NOTEBOOKS = sorted(notebooks_folder().glob("[0-9][0-9]_*.ipynb"))


def code_of(path) -> ast.Module:
    """All code cells of a notebook as one module, without IPython's own lines."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    lines = "\n".join(sources).splitlines()
    return ast.parse("\n".join(line for line in lines if not line.lstrip().startswith(("%", "!"))))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_imports_are_few_and_keep_their_names(path):
    tree = code_of(path)
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


def test_all_ten_notebooks_are_looked_at():
    assert len(NOTEBOOKS) == 10
