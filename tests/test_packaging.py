"""pyproject.toml, constraints.txt, environment.yml and the wheel say the same."""

import json
import os
import re
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

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
REQUIREMENTS = [
    Requirement(line)
    for lines in (
        PROJECT["project"]["dependencies"],
        *PROJECT["project"]["optional-dependencies"].values(),
    )
    for line in lines
]


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def test_conda_gives_python_and_pip_and_pip_installs_this_package():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    *conda, by_pip = environment["dependencies"]
    needed = PROJECT["project"]["requires-python"]
    assert conda == [f"python{needed}", "pip"]
    assert by_pip == {"pip": ["--constraint constraints.txt", "--editable .[dev]"]}


def test_every_dependency_is_pinned_to_a_version_that_it_allows():
    pinned = pins()
    assert len(REQUIREMENTS) > 25
    for requirement in REQUIREMENTS:
        version = pinned.get(canonicalize_name(requirement.name))
        assert version, f"{requirement.name} is not in constraints.txt"
        assert requirement.specifier.contains(Version(version)), requirement
    assert (pinned["torch"], pinned["torchvision"]) == ("2.15.0", "0.29.2")


def test_constraints_name_versions_and_no_place():
    for name, version in pins().items():
        assert re.fullmatch(r"[a-z0-9-]+", name)
        assert re.fullmatch(r"[0-9][0-9a-z.]*", version), (name, version)


def test_pyproject_lists_every_package():
    packages = {
        ".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "fer_lab").rglob("__init__.py")
    }
    listed = set(PROJECT["tool"]["setuptools"]["packages"])
    assert listed - packages == {"fer_lab.notebooks", "fer_lab.results"}
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
    for folder in ("fer_lab", "notebooks", "figures/results"):
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
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "fer_lab").rglob("*.py")}
    assert notebooks | modules | {"fer_lab/notebooks/98_extra.ipynb", "fer_lab/results/extra.csv"} <= names


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
    assert int(count) == len(list((tmp_path / "mine").iterdir()))
