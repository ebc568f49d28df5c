"""The floors of the package: a folder imports what stands below it, and no folder has a circle inside."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "fer_lab"
# From the top down. A folder imports from folders further down this list alone.
FLOORS = (
    "__main__",
    "cli",
    "explorer",
    "book",
    "experiments",
    "figures",
    "evaluation",
    "explanation",
    "training",
    "runs",
    "bench",
    "models",
    "data",
    "parallel",
)
# Single files at the bottom, which every folder may import.
GROUND = ("_files", "_device", "_progress", "_lazy", "intervals")


def room(module: str) -> str:
    """ "fer_lab.data.faces" → "data"."""
    return module.split(".")[1] if "." in module else ""


def imports(module: str, text: str, known: set[str]) -> list[tuple[int, str]]:
    """(line, module) of everything of the package that a source imports, at its top or inside a function."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module}, line {node.lineno}: relative import of {node.module}"
            # `from fer_lab.data import faces` is of the module faces, not of what else the folder has.
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in known else node.module for name in whole]
        else:
            continue
        found += [(node.lineno, name) for name in names if name == "fer_lab" or name.startswith("fer_lab.")]
    return found


def wrong_imports(module: str, text: str, known: set[str]) -> list[str]:
    """What a module imports from its own floor's neighbours or from above."""
    order = (*FLOORS, *GROUND)
    own = room(module)
    wrong = []
    for line, name in imports(module, text, known):
        other = room(name)
        if other in ("", own):
            continue
        below = order.index(other) > order.index(own) if own in order else False
        if not below or (own in GROUND and GROUND.index(other) > GROUND.index(own)):
            wrong.append(f"{module}, line {line}: imports {name}")
    return wrong


@pytest.fixture(scope="module")
def sources() -> dict[str, str]:
    """Module → its source."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts).removesuffix(".__init__")] = path.read_text(encoding="utf-8")
    return found


def test_every_room_has_its_floor(sources):
    rooms = {room(module) for module in sources} - {""}
    assert rooms == {*FLOORS, *GROUND}


def test_imports_go_down(sources):
    known = set(sources)
    # The package's own face brings from every floor what a reader types, when it is first asked for.
    wrong = [w for m, text in sources.items() if m != "fer_lab" for w in wrong_imports(m, text, known)]
    assert wrong == []


def circle(graph: dict[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_no_folder_has_a_circle_inside(sources):
    known = set(sources)
    graph = {
        module: {name for _, name in imports(module, text, known)} - {"fer_lab"}
        for module, text in sources.items()
        if module != "fer_lab"
    }
    assert circle(graph) == []


@pytest.mark.parametrize(
    ("module", "text", "found"),
    [
        ("fer_lab.data.faces", "from fer_lab.models import dan", ["imports fer_lab.models.dan"]),
        ("fer_lab.data.faces", "from fer_lab.data import loader\nimport fer_lab._files", []),
        ("fer_lab.runs", "def f():\n    import fer_lab.training", ["line 2: imports fer_lab.training"]),
        ("fer_lab._files", "from fer_lab.data.faces import FaceSet", ["imports fer_lab.data.faces"]),
        ("fer_lab._files", "from fer_lab._device import best_device", ["imports fer_lab._device"]),
        ("fer_lab.intervals", "from fer_lab._files import locked", ["imports fer_lab._files"]),
    ],
)
def test_a_wrong_import_is_found(module, text, found, sources):
    wrong = wrong_imports(module, text, set(sources))
    assert len(wrong) == len(found)
    assert all(end in line for line, end in zip(wrong, found, strict=True))


def test_a_circle_is_found():
    assert set(circle({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": set()})) == {"a", "b", "c"}
    assert circle({"a": {"b", "c"}, "b": {"c"}}) == []
