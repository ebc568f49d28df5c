"""From drawings to photographs: what is compared differs in its start alone."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from fer_lab.data import FaceRequest
from fer_lab.experiments import tables, train, transfer
from fer_lab.runs import Predictions, ResultsStore


@pytest.mark.parametrize("share", ["1 % of the faces, ", "10 % of the faces, ", ""])
def test_both_starts_have_the_same_faces_and_recipe_but_for_the_learning_rate(share):
    requests = transfer.study([2])
    scratch, drawn = (requests[f"{share}{start}-2"] for start in (transfer.SCRATCH, transfer.DRAWN_FIRST))
    assert (scratch.weights, drawn.weights) == (None, requests[f"{transfer.ALONE}-2"])
    alike = dataclasses.replace(
        drawn,
        weights=None,
        variant=scratch.variant,
        changes={**drawn.changes, "lr": scratch.chosen_recipe().lr},
    )
    assert alike.chosen_recipe() == scratch.chosen_recipe()
    assert dataclasses.replace(alike, changes=scratch.changes) == scratch
    assert scratch.faces.train_share == {"1 %": 0.01, "10 ": 0.1, "": 0}[share[:3]]
    assert scratch.faces.seed == (2 if share else 0)


def test_the_network_that_no_photograph_taught_saw_none():
    alone = transfer.alone(1)
    assert alone.faces.rendered
    assert (alone.weights, alone.trunk) == (None, None)
    assert alone.faces.knobs["grey"] == 1
    assert alone.faces.classes == 8


def test_what_has_no_folder_is_left_out_with_a_word(tmp_path):
    quick = {"epochs": 1, "batch_size": 16}
    asked = dataclasses.replace(transfer.alone(0), faces=FaceRequest(count=60, classes=8), changes=quick)
    with pytest.warns(UserWarning, match="not measured on (ferplus|london), whose folder is not given"):
        done = train(asked, runs=tmp_path)
    assert not done.metrics["metric"].str.contains("_on_").any()


def test_a_row_for_every_set_that_was_measured(tmp_path):
    store = ResultsStore(tmp_path)
    values = {"accuracy": 0.9, "mean_class_recall": 0.8, "accuracy_on_ferplus": 0.3}
    values |= {"mean_class_recall_on_ferplus": 0.25}
    values |= {"accuracy_on_london": 0.6, "mean_class_recall_on_london": 0.5}
    for seed in (0, 1):
        request = transfer.alone(seed)
        answers = Predictions(np.eye(2), np.array([0, 1]), ("neutral", "happiness"), "synthetic", "f")
        rows = [{"metric": name, "value": value + seed / 50} for name, value in values.items()]
        facts = {"method": "baseline", "size": "tiny", "variant": transfer.ALONE, "dataset": "synthetic"}
        facts |= {
            "fingerprint": "f",
            "split": "test",
            "seed": seed,
            "minutes": 1,
            "device": "cpu",
            "command": "",
        }
        store.record(**facts, request=request.to_json(), metrics=pd.DataFrame(rows), predictions=answers)
    _heads, _line, *found = tables.drawings_alone(store).splitlines()
    assert [line.split(" | ")[0] for line in found] == ["| drawings of other people", "| FER+", "| London set"]
    assert [float(line.split(" | ")[2].split()[0]) for line in found] == [91.0, 31.0, 61.0]
    assert [float(line.split(" | ")[3].split()[0]) for line in found] == [81.0, 26.0, 51.0]
