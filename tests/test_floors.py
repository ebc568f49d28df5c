"""The package's order: imports go down the floors, and within a floor only to what stands above."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "fer_lab"
# From the ground up. A module imports only modules that come before it; a new file takes a place here.
ORDER = [
    "fer_lab",
    "fer_lab.atomic",
    "fer_lab.data",
    "fer_lab.data.expressions",
    "fer_lab.data.faces",
    "fer_lab.data.progress",
    "fer_lab.data.synthetic.anatomy",
    "fer_lab.data.synthetic.canvas",
    "fer_lab.data.synthetic.action_units",
    "fer_lab.data.synthetic.features",
    "fer_lab.data.synthetic.hair",
    "fer_lab.data.synthetic.skin",
    "fer_lab.data.synthetic.drawing",
    "fer_lab.data.synthetic.generator",
    "fer_lab.data.synthetic",
    "fer_lab.data.images",
    "fer_lab.data.cache",
    "fer_lab.data.label_files",
    "fer_lab.data.layouts",
    "fer_lab.data.datasets",
    "fer_lab.data.batches",
    "fer_lab.data.photos",
    "fer_lab.models.recipes",
    "fer_lab.models.layers",
    "fer_lab.models.trunks",
    "fer_lab.models.processes",
    "fer_lab.models.method",
    "fer_lab.models",
    "fer_lab.models.fuse",
    "fer_lab.models.baseline",
    "fer_lab.models.dan",
    "fer_lab.models.triplet_center",
    "fer_lab.models.poster",
    "fer_lab.models.qcs",
    "fer_lab.models.official_poster",
    "fer_lab.models.official_qcs",
    "fer_lab.models.official",
    "fer_lab.hardware",
    "fer_lab.runs.files",
    "fer_lab.runs.predictions",
    "fer_lab.runs.weights",
    "fer_lab.runs.folder",
    "fer_lab.runs.store",
    "fer_lab.runs",
    "fer_lab.checkpoints",
    "fer_lab.shipped",
    "fer_lab.overlays",
    "fer_lab.steps",
    "fer_lab.training",
    "fer_lab.launch",
    "fer_lab.landmarks",
    "fer_lab.evaluation",
    "fer_lab.maps",
    "fer_lab.structure",
    "fer_lab.scales",
    "fer_lab.comparison",
    "fer_lab.attention",
    "fer_lab.attribution_scores",
    "fer_lab.weight_randomization",
    "fer_lab.bench",
    "fer_lab.bench_data",
    "fer_lab.figures.style",
    "fer_lab.figures.pictures",
    "fer_lab.figures.charts",
    "fer_lab.figures.comparison",
    "fer_lab.figures.similarity",
    "fer_lab.figures.embeddings",
    "fer_lab.figures.explanations",
    "fer_lab.figures.points",
    "fer_lab.figures",
    "fer_lab.cards",
    "fer_lab.panels",
    "fer_lab.controls",
    "fer_lab.explorer",
    "fer_lab.book",
    "fer_lab.worker",
    "fer_lab.engines",
    "fer_lab.workbook",
    "fer_lab.commands",
    "fer_lab.real_faces",
    "fer_lab.report",
    "fer_lab.cli",
]


def module_name(path: Path, package: Path = PACKAGE) -> str:
    parts = ("fer_lab", *path.relative_to(package).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(source: str, name: str, modules: set[str]) -> list[tuple[int, str]]:
    """(line, module) of everything of fer_lab that `source`, the module `name`, imports anywhere."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                found.append((node.lineno, f"relative import of {base}"))
                continue
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                found.append((node.lineno, inner if inner in modules else base))
    ours = {(line, to) for line, to in found if to.split(".")[0] == "fer_lab" or to.startswith("relative")}
    return sorted(ours)


def violations(sources: dict[str, str]) -> list[str]:
    """What breaks the order in `sources` (module name → text)."""
    broken = []
    for name, source in sources.items():
        if name not in ORDER:
            broken.append(f"{name} has no place in the order")
            continue
        for line, to in imports(source, name, set(ORDER)):
            if to not in ORDER or ORDER.index(to) >= ORDER.index(name):
                broken.append(f"{name}, line {line}: imports {to}")
    return broken


def test_the_package_keeps_the_order():
    sources = {module_name(path): path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")}
    assert len(sources) > 10
    assert violations(sources) == []


@pytest.mark.parametrize(
    ("name", "source", "found"),
    [
        ("fer_lab.data.faces", "from fer_lab.models import create_model", ["imports fer_lab.models"]),
        ("fer_lab.data.faces", "from fer_lab.data import batches", ["imports fer_lab.data.batches"]),
        ("fer_lab.runs", "def f():\n    import fer_lab.training", ["line 2: imports fer_lab.training"]),
        ("fer_lab.models.dan", "from fer_lab.models.poster import X", ["imports fer_lab.models.poster"]),
        ("fer_lab.models.dan", "from .layers import X", ["relative import of layers"]),
        ("fer_lab.helpers", "", ["fer_lab.helpers has no place"]),
        ("fer_lab.models.dan", "import torch\nfrom fer_lab.models.method import Method", []),
    ],
)
def test_a_wrong_import_is_found(name, source, found):
    broken = violations({name: source})
    assert len(broken) == len(found)
    assert all(expected in message for expected, message in zip(found, broken, strict=True))
