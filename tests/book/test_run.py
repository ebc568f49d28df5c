"""A grid of notebooks, requests that are refused, and notebooks that are published with their outputs."""

import json
import re

import nbformat
import pytest
from helpers.shelf import PARAMETERS, write_notebook

from fer_lab.book import run
from fer_lab.book.run import refresh, reproduce


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"profile": "quick"}, ValueError, "unknown profile 'quick'; expected one of smoke, full, paper"),
        ({"notebooks": ["09"]}, ValueError, "no notebook 09"),
        ({"parameters": {"sede": 1}}, ValueError, "00_start has no parameter sede; it has profile"),
        ({"parameters": {"seed": "x"}}, ValueError, "parameter seed takes int"),
        ({"parameters": {"profile": "full"}}, ValueError, "there is an option for it"),
        ({"parameters": {"seed": 1}, "seeds": (1, 2)}, ValueError, "either seeds or the parameter seed"),
        ({"seeds": ()}, ValueError, "at least one"),
        ({"grid": {"seed": []}}, ValueError, "seed is empty"),
        ({"grid": {"seed": [1]}, "parameters": {"seed": 1}}, ValueError, "a value and a grid of values"),
        ({"engine": "dask"}, ValueError, "unknown engine 'dask'; expected one of pool, ray"),
        ({"jobs": 0}, ValueError, "jobs must be at least 1"),
        ({"dataset": "ferplus"}, ValueError, "'ferplus' needs its folder"),
        ({"dataset": "ferplus", "data_root": "nowhere"}, FileNotFoundError, "no folder nowhere"),
    ],
)
def test_bad_requests_are_refused_before_anything_runs(shelf, tmp_path, arguments, error, message):
    with pytest.raises(error, match=message):
        reproduce(folder=shelf, out=tmp_path / "book", **arguments)
    assert not (tmp_path / "book").exists()


def test_every_seed_is_a_run_of_its_own(workers, shelf, tmp_path):
    results = reproduce(folder=shelf, notebooks=["00", "02"], seeds=(0, 4, 4), out=tmp_path / "book")
    names = ["00_start_seed0", "00_start_seed4", "02_dan_seed0", "02_dan_seed4"]
    assert [result.notebook for result in results] == names
    requests = [json.loads((tmp_path / "book" / "runs" / n / "request.json").read_text()) for n in names]
    assert [request["parameters"]["seed"] for request in requests] == [0, 4, 0, 4]


def test_a_grid_is_every_combination_in_reading_order(workers, shelf, tmp_path):
    for path in shelf.glob("*.ipynb"):
        write_notebook(shelf, path.stem, parameters=PARAMETERS + "\nlr = 0.1\nheads = [1]")
    for name in ("ferplus", "rafdb"):
        (tmp_path / "sets" / name).mkdir(parents=True)
    results = reproduce(
        folder=shelf,
        notebooks=["02"],
        parameters={"lr": "0.5"},
        grid={"heads": ["[1, 2]", "[1]"]},
        dataset=["synthetic", "ferplus", "rafdb"],
        data_root=tmp_path / "sets",
        out=tmp_path / "book",
    )
    names = [result.notebook for result in results]
    assert len(set(names)) == 6
    assert [name.split("_heads")[0] for name in names[::2]] == [
        "02_dan_synthetic",
        "02_dan_ferplus",
        "02_dan_rafdb",
    ]
    assert names[0].startswith("02_dan_synthetic_heads=1-2-")
    requests = [json.loads((tmp_path / "book" / "runs" / name / "request.json").read_text()) for name in names]
    given = [request["parameters"] for request in requests]
    assert [one["heads"] for one in given] == [[1, 2], [1]] * 3
    assert {one["lr"] for one in given} == {0.5}
    assert [one["data_root"] for one in given[::2]] == [
        "",
        *(str(tmp_path / "sets" / n) for n in ("ferplus", "rafdb")),
    ]


@pytest.mark.parametrize(
    ("value", "label"), [(3, "k=3"), (0.5, "k=0.5"), ("a/../b", "k=a-..-b-"), ("x" * 90, "k=" + "x" * 40)]
)
def test_a_value_in_a_files_name(value, label):
    assert run._label("k", value).startswith(label)
    assert re.fullmatch(r"[\w.+=-]{1,60}", run._label("k", value))
    assert run._label("k", "a b") != run._label("k", "a/b")


def test_refresh_keeps_outputs_and_nothing_of_the_run(tmp_path):
    path = write_notebook(
        tmp_path, "00_a", "print(seed, run_dir == '')\nimport ipywidgets\nipywidgets.IntSlider()"
    )
    before = nbformat.read(path, 4)
    (result,) = refresh(folder=tmp_path)
    after = nbformat.read(path, 4)
    assert (result.error, result.path) == ("", str(path))
    assert [cell.source for cell in after.cells] == [cell.source for cell in before.cells]
    assert [cell.metadata for cell in after.cells] == [cell.metadata for cell in before.cells]
    assert [output.get("text") for output in after.cells[-1].outputs] == ["0 True\n"]
    assert set(after.metadata) == {"language_info"}
    assert [p.name for p in tmp_path.iterdir()] == ["00_a.ipynb"]
