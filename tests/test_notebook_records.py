"""What notebooks show of the results store is what their own cells, with the full profile, would train."""

import json
from pathlib import Path

import pytest

from fer_lab import scales
from fer_lab.commands import Source, Training
from fer_lab.workbook import notebooks_folder, results_folder

# notebook → how many trainings, without the trunks that some of them start from
RECORDED = {"02_dan": 24, "03_triplet_center": 54, "04_poster": 12, "05_qcs": 15, "06_compare": 45}


def asked_for(name: str, folder: Path, store: Path) -> list[Training]:
    """The trainings that a notebook's recording cells start with the full profile and this store."""
    started = []

    def train(request, out, store):
        started.append(request)
        out.mkdir(parents=True, exist_ok=True)

    cells = json.loads((notebooks_folder() / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    texts = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    scope = {
        "profile": "full",
        "dataset": "synthetic",
        "data_root": "",
        "folder": folder,
        "results_folder": lambda: store,
        "scales": scales,
        "Source": Source,
        "Training": Training,
        "train_and_report": train,
    }
    for text in texts:
        if text.startswith("variants = {") or "def record(" in text:
            exec(text, scope)
    return started


@pytest.mark.parametrize("name", RECORDED)
def test_the_store_has_what_the_full_profile_trains(name, tmp_path):
    assert [request.command() for request in asked_for(name, tmp_path, results_folder())] == []


@pytest.mark.parametrize("name", RECORDED)
def test_the_full_profile_fills_an_empty_store(name, tmp_path):
    asked = asked_for(name, tmp_path / "runs", tmp_path / "empty")
    assert len([request for request in asked if not request.variant.startswith("trunk")]) == RECORDED[name]
    assert {request.seed for request in asked} == {0, 1, 2}
    assert len({request.command() for request in asked}) == len(asked)
