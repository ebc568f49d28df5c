"""What notebooks show of the results store is what their own cells, with the full profile, would train."""

import json
from pathlib import Path

import pytest

from fer_lab.book.parameters import notebooks_folder
from fer_lab.evaluation import robustness
from fer_lab.experiments.ferplus import ROWS, ferplus_trainings
from fer_lab.experiments.tables import comparison_frame
from fer_lab.experiments.training import Source, Training, record_missing
from fer_lab.runs import ResultsStore
from fer_lab.runs.store import results_folder

# notebook and data set → how many trainings, without the trunks that some of them start from
RECORDED = {
    ("02_dan", "synthetic"): 24,
    ("03_triplet_center", "synthetic"): 54,
    ("04_poster", "synthetic"): 12,
    ("05_qcs", "synthetic"): 15,
    ("06_compare", "synthetic"): 45,
    ("06_compare", "ferplus"): sum(row.seeds for row in ROWS.values()),
}


@pytest.fixture
def asked_for(tmp_path, monkeypatch):
    """(notebook, data set, store) → the trainings that its recording cells start with the full profile."""
    started = []

    def train(request, out, store):
        for start in request.starts_from():
            assert (start / "weights.safetensors").exists(), f"{request.variant} starts from nothing"
        started.append(request)
        out.mkdir(parents=True)
        (out / "weights.safetensors").touch()

    def run(name: str, dataset: str, store: Path) -> list[Training]:
        cells = json.loads((notebooks_folder() / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
        texts = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        scope = {
            "profile": "full",
            "dataset": dataset,
            "data_root": "",
            "folder": tmp_path / "runs",
            "results_folder": lambda: store,
            "robustness": robustness,
            "Source": Source,
            "Training": Training,
            "record_missing": record_missing,
            "ferplus_trainings": ferplus_trainings,
            "store": ResultsStore(store),
            "comparison_frame": comparison_frame,
        }
        for text in texts:
            if text.startswith("variants = {") or "record_missing(" in text:
                exec(text, scope)
        return started

    monkeypatch.setattr("fer_lab.experiments.training.train", train)
    return run


@pytest.mark.parametrize(("name", "dataset"), RECORDED)
def test_the_store_has_what_the_full_profile_trains(name, dataset, asked_for):
    assert [request.command() for request in asked_for(name, dataset, results_folder())] == []


@pytest.mark.parametrize(("name", "dataset"), RECORDED)
def test_the_full_profile_fills_an_empty_store(name, dataset, asked_for, tmp_path):
    asked = asked_for(name, dataset, tmp_path / "empty")
    rows = [request for request in asked if not request.variant.startswith("trunk")]
    assert len(rows) == RECORDED[name, dataset]
    assert {request.seed for request in asked} == {0, 1, 2}
    assert len({request.command() for request in asked}) == len(asked)


def test_every_row_on_real_faces_is_one_that_the_full_profile_trains():
    """None is left in the table that only its own command could repeat."""
    trainings = ferplus_trainings(None, Path("runs")).values()
    planned = {(one.model, one.variant, one.seed) for one in trainings}
    runs = ResultsStore(results_folder()).runs()
    found = runs[runs["dataset"] == "ferplus"]
    assert set(zip(found["method"], found["variant"], found["seed"], strict=True)) == planned
