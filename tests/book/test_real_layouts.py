"""The book on data sets in their true layouts: 7 and 8 classes, two and three parts, drawn faces inside.

By default every notebook that learns from faces runs on a set of 7 classes and two parts and on one of 8
classes and three, and notebook 00 on the other layouts. `pytest -m long` runs the rest, in both profiles.
"""

import os
import shutil
from pathlib import Path

import nbformat
import pytest
from helpers.drawn_sets import SHAPES, dataset_of, write_drawn

from fer_lab.book.parameters import select_notebooks
from fer_lab.book.run import reproduce
from fer_lab.runs import results_folder

NOTEBOOKS = [path.stem[:2] for path in select_notebooks()]
# Notebook 08 draws all its faces.
READING = [number for number in NOTEBOOKS if number != "08"]
# What makes a notebook cheap, where the set alone does not.
CHEAP = {
    "01": {"num_faces": 200, "faces_a_setting": 30},
    "07": {"methods": "baseline", "probed_faces": 4},
    "08": {"people": 8},
}
CHEAP_IN_FULL = CHEAP | {"02": {"study_seeds": 2}, "07": {"methods": "baseline", "num_faces": 8}}
ALWAYS = {
    *(("smoke", "rafdb", number) for number in READING),
    *(("smoke", "folder8", number) for number in READING if number != "01"),  # which only counts them
    *(("smoke", layout, "00") for layout in SHAPES),
}
ALL = [(profile, layout, n) for profile in ("smoke", "full") for layout in SHAPES for n in NOTEBOOKS]


@pytest.fixture(scope="session")
def sets(tmp_path_factory):
    """A function from a layout to the folder of its set, which is drawn once."""
    base = tmp_path_factory.mktemp("sets")

    def folder(layout: str) -> Path:
        return base / layout if (base / layout).exists() else write_drawn(base / layout, layout)

    return folder


@pytest.fixture
def run(sets, tmp_path, monkeypatch):
    """A function that runs one notebook on one thread, with a results store and a cache of its own."""
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    monkeypatch.setenv("FER_LAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FER_LAB_RESULTS", str(shutil.copytree(results_folder(), tmp_path / "results")))

    def one(profile, layout, number, parameters):
        where = sets(layout)
        (result,) = reproduce(profile, [number], parameters, dataset_of(layout), where, out=tmp_path / "book")
        assert result.error == "", result.traceback
        return result

    return one


@pytest.mark.parametrize(
    ("profile", "layout", "number"),
    [
        pytest.param(*case, marks=[] if case in ALWAYS else [pytest.mark.long, pytest.mark.timeout(1800)])
        for case in ALL
    ],
)
def test_every_notebook_runs_on_every_layout(run, profile, layout, number):
    cheap = CHEAP if profile == "smoke" else CHEAP_IN_FULL
    run(profile, layout, number, cheap.get(number, {}))


def test_num_faces_bounds_a_real_set_and_the_notebook_says_so(run):
    result = run("smoke", "ferplus", "00", {"num_faces": 120})
    shown = [o.get("text", "") for cell in nbformat.read(result.path, 4).cells for o in cell.get("outputs", ())]
    assert "120 of the 256 faces of ferplus are used" in "".join(shown)
    # A quarter of the set is for reporting; each of the eight classes has its share to within a face.
    assert abs(result.headline["test_faces"] - 30) < 8
