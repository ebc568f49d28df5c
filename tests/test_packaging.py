"""pyproject.toml, constraints.txt, environment.yml and the wheel agree; lint and hooks see what they should."""

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from PIL import Image

from fer_lab import load_faces

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
REQUIREMENTS = [
    Requirement(line)
    for lines in (
        PROJECT["project"]["dependencies"],
        *PROJECT["project"]["optional-dependencies"].values(),
    )
    for line in lines
    if not line.startswith("fer_lab[")
]


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def test_conda_gives_python_and_pip_and_pip_installs_this_package():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    *conda, by_pip = environment["dependencies"]
    needed = PROJECT["project"]["requires-python"]
    assert conda == [f"python{needed}", "pip"]
    assert by_pip == {"pip": ["--constraint constraints.txt", "--editable .[book,dev]"]}


def test_every_dependency_is_pinned_to_a_version_that_it_allows():
    pinned = pins()
    assert len(REQUIREMENTS) > 25
    for requirement in REQUIREMENTS:
        version = pinned.get(canonicalize_name(requirement.name))
        assert version, f"{requirement.name} is not in constraints.txt"
        assert requirement.specifier.contains(Version(version)), requirement
    assert (pinned["torch"], pinned["torchvision"]) == ("2.15.0", "0.29.2")


# What the package imports without declaring it, because a declared package needs it or can replace it.
BROUGHT = {"IPython", "cycler", "ipykernel", "jinja2", "lightning", "numba", "traitlets"}
# Import name of what is called otherwise on the package index.
IMPORTED_AS = {
    "dlib-bin": "dlib",
    "pillow": "PIL",
    "scikit-image": "skimage",
    "scikit-learn": "sklearn",
    "umap-learn": "umap",
}


def import_names(lines: list[str]) -> set[str]:
    names = {Requirement(line).name for line in lines}
    return {IMPORTED_AS.get(name, name).replace("-", "_") for name in names}


def test_the_package_imports_what_it_declares_and_nothing_else():
    imported = set()
    for path in (ROOT / "fer_lab").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(node.module.partition(".")[0])
    imported -= {"fer_lab", *sys.stdlib_module_names}
    project = PROJECT["project"]
    extras = project["optional-dependencies"]
    lines = [*project["dependencies"]]
    for extra in ("book", "scale", "heic", "onnx", "teach"):
        lines += extras[extra]
    declared = import_names(lines) - {"fer_lab"}
    assert imported - declared <= BROUGHT
    # What `make lab` starts, and what torch exports with.
    assert declared - imported == {"jupyterlab", "onnxscript"}


def test_every_install_of_the_book_brings_its_packages():
    """make, conda and README, the container; what `dev`, which has no notebooks' packages, is typed beside."""
    lines = {
        "Makefile": "-e '.[book,dev]'",
        "README.md": '-e ".[book,dev]"',
        "constraints.txt": "-e .[book,dev] ",
        "Dockerfile": "-e '.[book]'",
    }
    for name, typed in lines.items():
        assert typed in (ROOT / name).read_text(encoding="utf-8"), name
    extras = PROJECT["project"]["optional-dependencies"]
    assert [name for name, lines in extras.items() if "fer_lab[book]" in lines] == ["scale", "site", "teach"]
    assert import_names(extras["onnx"]) <= import_names(extras["dev"])


ONLY_CORE = """
import sys
from importlib.machinery import PathFinder

class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, *place):
        return None if name.partition(".")[0] in {blocked} else super().find_spec(name, *place)

sys.meta_path[sys.meta_path.index(PathFinder)] = Without
from fer_lab.cli import main
main()
"""


def run_core(folder: Path, *words: str) -> subprocess.CompletedProcess:
    """`fer-lab` where no package of any extra can be imported."""
    project = PROJECT["project"]
    extras = import_names([line for lines in project["optional-dependencies"].values() for line in lines])
    # Where dlib has a wheel, it finds the faces.
    core = {"fer_lab", "setuptools", *import_names(project["dependencies"])} - {"skimage"}
    code = ONLY_CORE.format(blocked=sorted((extras | {"IPython", "numba", "skimage"}) - core))
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", code, *words], cwd=folder, env=environment, capture_output=True, text=True
    )


def test_the_core_alone_predicts(tmp_path):
    pytest.importorskip("dlib")
    rendered = load_faces(count=16, size=224, seed=5).images[3].permute(1, 2, 0).numpy()
    Image.fromarray(rendered).resize((448, 448)).save(tmp_path / "face.png")
    done = run_core(tmp_path, "predict", "face.png", "--csv", "faces.csv", "--json", "faces.json")
    assert (done.returncode, done.stderr) == (0, "")
    with Image.open(tmp_path / "predictions" / "000-face.png") as overlay:
        assert overlay.size == (448, 448)
    (face,) = json.loads((tmp_path / "faces.json").read_text(encoding="utf-8"))["pictures"][0]["faces"]
    assert f"{face['expression']} {face[face['expression']]:.3f}" in done.stdout
    assert (tmp_path / "faces.csv").read_text(encoding="utf-8").startswith("file,face,left,top,")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["models"], "weights  ferplus/dan"),
        (["info"], "torch      "),
        (["evaluate", "synthetic/baseline", "--faces", "40"], "mean class recall"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_the_core_alone_answers(words, said, tmp_path):
    done = run_core(tmp_path, *words)
    assert (done.returncode, done.stderr) == (0, "")
    assert said in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["reproduce", "--notebooks", "00"], "No module named 'nbformat'"),
        (["train", "baseline"], "No module named 'matplotlib'"),
        (["export", "onnx", "dan", "dan.onnx"], "writing ONNX needs its packages: pip install 'fer_lab[onnx]'"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_the_core_lacks_is_named_in_one_line(words, said, tmp_path):
    done = run_core(tmp_path, *words)
    hint = "" if "pip" in said else '; pip install "fer_lab[book]" brings it'
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"fer-lab: {said}{hint}\n")
    assert not list(tmp_path.iterdir())


def test_constraints_name_versions_and_no_place():
    for name, version in pins().items():
        assert re.fullmatch(r"[a-z0-9-]+", name)
        assert re.fullmatch(r"[0-9][0-9a-z.]*", version), (name, version)


def test_lint_sees_every_file():
    listed = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--show-files"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    seen = {Path(line) for line in listed.stdout.splitlines()}
    sources = {path for folder in ("fer_lab", "tests") for path in (ROOT / folder).rglob("*.py")}
    assert {ROOT / "fer_lab" / name / "run.py" for name in ("book", "runs")} <= sources
    assert sources | set((ROOT / "notebooks").glob("*.ipynb")) <= seen


HOOKS = {
    hook["id"]: hook
    for repo in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    for hook in repo["hooks"]
    if repo["repo"] == "local" and hook["language"] == "system"
}


def run_hook(name: str, *files: Path) -> subprocess.CompletedProcess:
    tool, *words = shlex.split(HOOKS[name]["entry"])
    tool = str(Path(sys.executable).parent / Path(tool).name) if tool.startswith(".venv/") else tool
    return subprocess.run([tool, *words, *map(str, files)], capture_output=True, text=True)


def test_hooks_run_what_is_installed_and_download_nothing():
    assert set(HOOKS) == {"ruff-check", "ruff-format", "mypy", "widget-state", "size"}
    pages = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    assert [repo["repo"] for repo in pages["repos"]] == ["local"]


def test_a_hook_refuses_a_large_file(tmp_path):
    small, large = tmp_path / "a b.png", tmp_path / "c.npz"
    small.write_bytes(bytes(2 * 2**20))
    large.write_bytes(bytes(2 * 2**20 + 1))
    assert run_hook("size", small).returncode == 0
    refused = run_hook("size", small, large)
    assert refused.returncode == 1
    assert refused.stdout == f"above 2 MB: {large}\n"


def test_a_hook_strips_the_state_of_widgets_and_nothing_else(tmp_path):
    source = ROOT / "notebooks" / "09_scale_out.ipynb"
    path = Path(shutil.copy(source, tmp_path))
    notebook = json.loads(path.read_text(encoding="utf-8"))
    notebook["metadata"]["widgets"] = {"application/vnd.jupyter.widget-state+json": {"state": {}}}
    path.write_text(json.dumps(notebook), encoding="utf-8")
    assert run_hook("widget-state", path).returncode == 0
    assert path.read_bytes() == source.read_bytes()


def test_pyproject_lists_every_package():
    packages = {
        ".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "fer_lab").rglob("__init__.py")
    }
    listed = set(PROJECT["tool"]["setuptools"]["packages"])
    assert listed - packages == {"fer_lab.docs", "fer_lab.notebooks", "fer_lab.results"}
    assert packages <= listed


def test_citation_and_package_have_one_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    version = re.search(r'__version__ = "(.+)"', (ROOT / "fer_lab" / "__init__.py").read_text(encoding="utf-8"))
    assert citation["version"] == version[1]
    assert citation["license"] == PROJECT["project"]["license"] == "MIT"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """A wheel of this tree with one notebook and one result more."""
    tree = tmp_path_factory.mktemp("tree")
    ignored = shutil.ignore_patterns("__pycache__")
    for folder in ("fer_lab", "notebooks", "docs", "figures/results"):
        shutil.copytree(ROOT / folder, tree / folder, ignore=ignored)
    for path in ROOT.iterdir():
        if path.name in ("pyproject.toml", "LICENSE", "README.md"):
            shutil.copy(path, tree)
    notebook = {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    (tree / "notebooks" / "98_extra.ipynb").write_text(json.dumps(notebook))
    (tree / "figures" / "results" / "extra.csv").write_text("a\n")
    build = "import sys, setuptools.build_meta as b; print(b.build_wheel(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", build, str(tree)], cwd=tree, capture_output=True, text=True, check=True
    )
    return tree / done.stdout.split()[-1]


def test_the_wheel_carries_notebooks_and_results(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    notebooks = {f"fer_lab/notebooks/{path.name}" for path in (ROOT / "notebooks").glob("*.ipynb")}
    package = {path.relative_to(ROOT).as_posix() for path in (ROOT / "fer_lab").rglob("*.*") if path.is_file()}
    package = {path for path in package if "__pycache__" not in path}
    assert {"fer_lab/py.typed", "fer_lab/book/index.html.j2"} <= package
    store = ROOT / "figures" / "results"
    results = {
        f"fer_lab/results/{path.relative_to(store).as_posix()}" for path in store.rglob("*") if path.suffix
    }
    assert "fer_lab/results/plane.npz" in results
    extra = {"fer_lab/notebooks/98_extra.ipynb", "fer_lab/results/extra.csv"}
    assert notebooks | package | results | extra <= names


def test_notebooks_are_laid_out_from_an_installed_wheel(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = (
        "from fer_lab.book.parameters import lay_out; from fer_lab.runs.store import results_folder; "
        "print(results_folder()); print(len(lay_out('mine')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=True,
    )
    results, count = done.stdout.split()
    assert results == str(tmp_path / "site" / "fer_lab" / "results")
    assert (tmp_path / "mine" / "98_extra.ipynb").exists()
    assert int(count) == len([path for path in (tmp_path / "mine").rglob("*") if path.is_file()])
    # Every link that leads out of a notebook or a document leads to a file.
    for path in [*(tmp_path / "mine").glob("0*.ipynb"), *(tmp_path / "mine").rglob("*.md")]:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".ipynb":
            cells = json.loads(text)["cells"]
            text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
        targets = re.findall(r"\]\(([^)#:\s]+)\)", text)
        assert [name for name in targets if not (path.parent / name).exists()] == [], path
