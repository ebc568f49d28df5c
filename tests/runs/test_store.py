import math
import os

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from fer_lab.intervals import seed_interval
from fer_lab.runs import Predictions, ResultsStore

RUN = {
    "method": "dan",
    "size": "tiny",
    "variant": "",
    "dataset": "ferplus",
    "fingerprint": "12e4567",
    "split": "valid",
    "seed": 0,
    "minutes": 3.14159,
    "device": "cpu",
    "command": "fer-lab train dan",
}


def metrics(accuracy=0.5):
    return pd.DataFrame(
        {
            "metric": ["accuracy", "recall", "recall"],
            "class": ["", "fear", "NA"],
            "value": [accuracy, 1 / 3, float("nan")],
            "low": [0.4, 0.1, float("nan")],
            "high": [0.6, 0.5, float("nan")],
        }
    )


@pytest.fixture
def store(tmp_path):
    return ResultsStore(tmp_path / "results")


def test_an_empty_store_has_the_columns(store):
    columns = "id,method,size,variant,dataset,fingerprint,split,seed,minutes,device,versions,commit,command"
    assert ",".join(store.runs().columns) == columns
    assert list(store.metrics().columns) == ["id", "metric", "class", "value", "low", "high"]
    assert store.summary().empty
    assert not store.folder.exists()


def test_what_is_recorded_is_read_back(store, monkeypatch):
    monkeypatch.setenv("FER_DATA", "/data/faces")
    run_id = store.record(**{**RUN, "command": "fer-lab train --data-root /data/faces/x"}, metrics=metrics())
    assert run_id == "dan-tiny-ferplus-valid-0"
    row = store.runs().iloc[0]
    assert (row["variant"], row["fingerprint"], row["seed"], row["minutes"]) == ("", "12e4567", 0, 3.14)
    assert row["command"] == "fer-lab train --data-root $FER_DATA/x"
    assert "torch" in row["versions"]
    table = store.metrics()
    assert table["class"].tolist() == ["", "fear", "NA"]
    assert table["value"][1] == 1 / 3
    assert math.isnan(table["value"][2])


def test_the_same_run_replaces_itself(store):
    predictions = Predictions(np.eye(2), [0, 1], ("a", "b"), "ferplus", "f")
    first = store.record(**RUN, metrics=metrics(0.5), predictions=predictions)
    store.record(**{**RUN, "seed": 1}, metrics=metrics(0.6))
    before = [(store.folder / name).read_bytes() for name in ("runs.csv", "metrics.csv")]
    assert store.record(**RUN, metrics=metrics(0.5), predictions=predictions) == first
    assert [(store.folder / name).read_bytes() for name in ("runs.csv", "metrics.csv")] == before
    assert store.predictions(first).correct.tolist() == [True, True]
    store.record(**RUN, metrics=metrics(0.7))
    assert len(store.runs()) == 2
    assert store.metrics().query("metric == 'accuracy'")["value"].tolist() == [0.7, 0.6]
    with pytest.raises(FileNotFoundError):
        store.predictions(first)


def test_rows_are_sorted_whatever_the_order_of_recording(store):
    for method, seed in (("poster", 0), ("dan", 10), ("dan", 9), ("dan", 0)):
        store.record(**{**RUN, "method": method, "seed": seed}, metrics=metrics())
    assert store.runs()[["method", "seed"]].values.tolist() == [
        ["dan", 0],
        ["dan", 9],
        ["dan", 10],
        ["poster", 0],
    ]
    assert store.metrics()["id"].unique().tolist() == store.runs()["id"].tolist()


def test_an_id_stays_in_the_folder_and_belongs_to_one_run(store):
    predictions = Predictions(np.eye(2), [0, 1], ("a", "b"), "x", "f")
    run_id = store.record(**{**RUN, "dataset": "../../x y"}, metrics=metrics(), predictions=predictions)
    assert run_id == "dan-tiny-.._.._x_y-valid-0"
    assert [path.name for path in (store.folder / "predictions").iterdir()] == [f"{run_id}.npz"]
    with pytest.raises(ValueError, match=r"already a run of dataset '\.\./\.\./x y', not '\.\._\.\._x_y'"):
        store.record(**{**RUN, "dataset": ".._.._x_y"}, metrics=metrics())


def test_wrong_questions_are_answered(store):
    with pytest.raises(ValueError, match="metric and value; value missing"):
        store.record(**RUN, metrics=pd.DataFrame({"metric": ["accuracy"]}))
    store.record(**RUN, metrics=pd.DataFrame({"metric": ["accuracy"], "value": [0.5]}))
    assert store.metrics()["class"].tolist() == [""]
    with pytest.raises(ValueError, match=r"no run 'x' in .*; there are dan-tiny-ferplus-valid-0"):
        store.predictions("x")
    with pytest.raises(ValueError, match=r"no 'speed' for class ''.*metrics are accuracy"):
        store.summary("speed")
    with pytest.raises(ValueError, match="no column nonsense"):
        store.summary(by=("nonsense",))


def test_numbers_of_a_recording_that_was_cut_short_are_not_shown(store):
    store.record(**RUN, metrics=metrics())
    whole = (store.folder / "runs.csv").read_bytes()
    store.record(**{**RUN, "seed": 1}, metrics=metrics())
    (store.folder / "runs.csv").write_bytes(whole)
    assert store.metrics()["id"].unique().tolist() == ["dan-tiny-ferplus-valid-0"]


def test_processes_that_record_at_once_lose_nothing(store):
    children = []
    for method in "abc":
        child = os.fork()
        if not child:
            code = 1
            try:
                for seed in range(4):
                    store.record(**{**RUN, "method": method, "seed": seed}, metrics=metrics(seed / 10))
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    assert len(store.runs()) == 12
    assert len(store.metrics()) == 36


def test_summary_by_hand(store):
    for seed, value in enumerate([0.80, 0.82, 0.87]):
        store.record(**{**RUN, "seed": seed}, metrics=metrics(value))
    store.record(**{**RUN, "variant": "one head"}, metrics=metrics(0.7))
    table = store.summary(by=("method", "variant"))
    assert table["variant"].tolist() == ["", "one head"]
    assert table["seeds"].tolist() == [3, 1]
    # mean 0.83, standard deviation 0.0360555, Student's t for two degrees of freedom 4.302653
    half = 4.302653 * 0.0360555 / 3**0.5
    assert table.loc[0, ["mean", "low", "high"]].tolist() == pytest.approx(
        [0.83, 0.83 - half, 0.83 + half], abs=1e-6
    )
    assert table.loc[1, "mean"] == 0.7
    assert math.isnan(table.loc[1, "low"])
    assert store.summary("recall", class_="fear")["mean"][0] == pytest.approx(1 / 3)


def test_t_covers_what_the_bootstrap_of_three_seeds_does_not():
    samples = np.random.default_rng(0).normal(size=(1000, 3))
    t = [low <= 0 <= high for _, low, high in map(seed_interval, samples)]
    assert 0.93 < np.mean(t) < 0.97
    result = stats.bootstrap(
        (samples,), np.mean, axis=1, n_resamples=200, batch=50, method="BCa", vectorized=True, random_state=0
    )
    bootstrap = result.confidence_interval
    assert np.mean((bootstrap.low <= 0) & (bootstrap.high >= 0)) < 0.80
