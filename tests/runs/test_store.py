import math
import os
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from fer_lab.runs import Predictions, ResultsStore, results_folder

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
    "request": '{"model": "dan"}',
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
    columns = (
        "id,method,size,variant,dataset,fingerprint,split,seed,minutes,device,versions,commit,command,request"
    )
    assert ",".join(store.runs().columns) == columns
    assert list(store.metrics().columns) == ["id", "metric", "class", "value", "low", "high"]
    assert store.table().empty
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
    assert store.answers(first).correct.tolist() == [True, True]
    store.record(**RUN, metrics=metrics(0.7))
    assert len(store.runs()) == 2
    assert store.metrics().query("metric == 'accuracy'")["value"].tolist() == [0.7, 0.6]
    with pytest.raises(FileNotFoundError, match="has no predictions of dan-tiny-ferplus-valid-0"):
        store.answers(first)


def test_a_table_is_read_again_only_when_its_file_changes(store, monkeypatch):
    store.record(**RUN, metrics=metrics(0.5))
    first = store.metrics()
    read = []
    monkeypatch.setattr("fer_lab.runs.store.read_csv", lambda path, columns: read.append(path) or first.head(1))
    first.loc[0, "value"] = 0.9  # of the caller's own copy
    assert store.metrics()["value"][0] == 0.5
    assert read == []
    text = (store.folder / "metrics.csv").read_text()
    (store.folder / "metrics.csv").write_text(text.replace(",0.5,", ",0.75,"))
    assert len(store.metrics()) == 1
    assert [path.name for path in read] == ["metrics.csv"]


def test_the_accuracy_on_held_out_faces_is_kept_by_epoch(store):
    @dataclass
    class Asked:
        text: str

        def to_json(self):
            return self.text

    asked = [Asked(RUN["request"])]
    assert store.curves(asked).empty
    store.record(**RUN, metrics=metrics(), holdout=[0.25, 0.5])
    store.record(**{**RUN, "seed": 1, "request": "other"}, metrics=metrics(), holdout=[0.75])
    assert store.curves(asked).to_dict("list") == {
        "variant": ["", ""],
        "seed": [0, 0],
        "epoch": [1, 2],
        "holdout_accuracy": [0.25, 0.5],
    }
    # Recorded anew, a run has the new curve alone.
    store.record(**RUN, metrics=metrics(), holdout=[0.5])
    assert store.curves(asked)["holdout_accuracy"].tolist() == [0.5]
    store.record(**RUN, metrics=metrics())
    assert store.curves(asked).empty
    assert len(store.curves([Asked("other")])) == 1


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
    assert [path.name for path in (store.folder / "predictions").iterdir()] == [".._.._x_y-valid.npz"]
    with pytest.raises(ValueError, match=r"already a run of dataset '\.\./\.\./x y', not '\.\._\.\._x_y'"):
        store.record(**{**RUN, "dataset": ".._.._x_y"}, metrics=metrics())


def test_wrong_questions_are_answered(store):
    with pytest.raises(ValueError, match="metric and value; value missing"):
        store.record(**RUN, metrics=pd.DataFrame({"metric": ["accuracy"]}))
    store.record(**RUN, metrics=pd.DataFrame({"metric": ["accuracy"], "value": [0.5]}))
    assert store.metrics()["class"].tolist() == [""]
    with pytest.raises(ValueError, match=r"no run 'x' in .*; there are dan-tiny-ferplus-valid-0"):
        store.answers("x")
    with pytest.raises(ValueError, match=r"no 'speed' in .*metrics are accuracy"):
        store.table("speed")
    with pytest.raises(ValueError, match="no column nonsense"):
        store.table(by=("nonsense",))
    with pytest.raises(ValueError, match="no column nonsense"):
        store.table(nonsense=1)


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


def test_predictions_of_other_runs_stay_in_the_file(store):
    first, second = (Predictions(np.eye(2)[[i, i]], [0, 1], ("a", "b"), "ferplus", "f") for i in (0, 1))
    ids = [
        store.record(**{**RUN, "seed": seed}, metrics=metrics(), predictions=one)
        for seed, one in enumerate((first, second))
    ]
    assert [store.answers(one).predicted.tolist() for one in ids] == [[0, 0], [1, 1]]
    before = (store.folder / "predictions" / "ferplus-valid.npz").read_bytes()
    store.record(**RUN, metrics=metrics(), predictions=first)
    assert (store.folder / "predictions" / "ferplus-valid.npz").read_bytes() == before
    store.record(**RUN, metrics=metrics())
    assert store.answers(ids[1]).predicted.tolist() == [1, 1]


def test_the_store_of_the_book_has_the_answers_of_every_run():
    """Accuracy from the answers is the recorded accuracy, to the last bit."""
    store = ResultsStore(results_folder())
    accuracy = store.metrics().query("metric == 'accuracy'").set_index("id")["value"]
    assert len(accuracy) == len(store.runs()) > 0
    assert {path.name for path in (store.folder / "predictions").iterdir()} == {
        "ferplus-valid.npz",
        "synthetic-balanced.npz",
        "synthetic-test.npz",
    }
    for row in store.runs().itertuples():
        answers = store.answers(row.id)
        assert answers.correct.mean() == accuracy[row.id], row.id
        assert answers.name == row.dataset


# ---------------------------------------------------------------- over seeds


@dataclass
class Asked:
    """What a store knows a training by."""

    text: str

    def to_json(self) -> str:
        return self.text


def test_a_table_by_hand(store):
    for seed, value in enumerate([0.80, 0.82, 0.87]):
        store.record(**{**RUN, "seed": seed}, metrics=metrics(value))
    store.record(**{**RUN, "variant": "one head"}, metrics=metrics(0.55))
    table = store.table(by=("method", "variant"))
    assert table["variant"].tolist() == ["", "one head"]
    assert table["seeds"].tolist() == [3, 1]
    # mean 0.83, standard deviation 0.0360555, Student's t for two degrees of freedom 4.302653
    half = 4.302653 * 0.0360555 / 3**0.5
    assert table.loc[0, ["mean", "low", "high"]].tolist() == pytest.approx(
        [0.83, 0.83 - half, 0.83 + half], abs=1e-6
    )
    # One seed: the interval over faces.
    assert table.loc[1, ["mean", "low", "high"]].tolist() == [0.55, 0.4, 0.6]
    assert store.table("recall", classes=["fear"])["mean"][0] == pytest.approx(1 / 3)


@pytest.fixture
def two(store):
    """Two variants, three seeds each; the recalls of b and c are (s, 2 + s) / 10 and 0.1 more."""
    for variant, more in (("plain", 0.0), ("better", 0.1)):
        for seed in range(3):
            recall = {"a": 0.9, "b": 0.1 * seed + more, "c": 0.2 + 0.1 * seed + more}
            rows = [("recall", name, value) for name, value in recall.items()]
            rows += [("accuracy", "", 0.5 + 0.1 * seed), ("overlap", "", (1 - 3 * more) * seed)]
            numbers = pd.DataFrame(rows, columns=["metric", "class", "value"])
            request = f"{variant} {seed}"
            row = {**RUN, "variant": variant, "seed": seed, "request": request}
            store.record(**row, metrics=numbers)
    return store


def test_classes_are_averaged_within_a_run_and_runs_over_seeds(two):
    table = two.table("recall", classes=("b", "c"), by=("variant",)).set_index("variant")
    assert table["mean"].to_dict() == pytest.approx({"plain": 0.2, "better": 0.3})
    assert table["seeds"].tolist() == [3, 3]
    # Student's t with two degrees of freedom: 4.3027 · 0.1 / √3.
    assert table.loc["plain", "high"] - 0.2 == pytest.approx(4.3027 * 0.1 / 3**0.5, rel=1e-4)


def test_rows_come_in_the_order_of_the_requests(two):
    requests = {name: Asked(name) for name in ("plain 1", "gone 0", "better 2", "plain 0")}
    table = two.table(of=requests)
    assert table[["variant", "seeds"]].values.tolist() == [["plain", 2], ["better", 1]]
    assert two.table(of=requests.values(), variant=["better", "other"])["variant"].tolist() == ["better"]
    assert two.table(of=[]).empty
    assert list(two.table(of=[]).columns) == ["method", "variant", "mean", "low", "high", "seeds"]


def test_a_difference_at_the_same_seed_has_no_spread_of_the_seeds(two):
    found = two.difference("recall", "better", "plain", classes=("b", "c"))
    assert (found.mean, found.low, found.high) == pytest.approx([0.1] * 3)
    assert found.seeds == 3
    assert found.p < 1e-6
    assert str(found).startswith(
        "better has a higher recall of b, c than plain: +10.0 points (95 % interval [+10.0"
    )
    assert two.difference("recall", "plain", "better", classes=("b",)).text.startswith(
        "plain has a lower recall"
    )


def test_a_difference_that_is_not_decided_says_so_first(two):
    # Seeds 0, 1, 2 differ by 0, −0.3, −0.6.
    found = two.difference("overlap", "better", "plain")
    assert found.mean == pytest.approx(-0.3)
    half = 4.302653 * 0.3 / 3**0.5
    assert (found.low, found.high) == pytest.approx((-0.3 - half, -0.3 + half), abs=1e-5)
    assert found.p == pytest.approx(stats.ttest_1samp([0, -0.3, -0.6], 0).pvalue)
    assert found.text.startswith("Not decided by these runs: overlap, better against plain: -0.300 (95 %")
    assert "paired over 3 seeds" in found.text


def test_one_seed_or_none_decides_nothing(two):
    one = two.difference("accuracy", "better", "plain", seed=1)
    assert (one.mean, one.seeds) == (0.0, 1)
    assert math.isnan(one.p)
    assert one.text.endswith("+0.0 points (a single seed).")
    none = two.difference("accuracy", "better", "worse")
    assert (none.seeds, none.text) == (0, "Not measured yet: accuracy, better against worse.")


def test_sides_may_be_methods_and_must_be_one_variant_each(two):
    two.record(**{**RUN, "method": "poster", "variant": "plain"}, metrics=metrics(0.7))
    found = two.difference("accuracy", {"method": "poster"}, {"method": "dan"}, variant="plain")
    assert found.mean == pytest.approx(0.2)
    assert found.text.startswith("Not decided by these runs: accuracy, POSTER against DAN: +20.0 points")
    with pytest.raises(ValueError, match="DAN has several runs of one seed"):
        two.difference("accuracy", {"method": "poster"}, {"method": "dan"})
