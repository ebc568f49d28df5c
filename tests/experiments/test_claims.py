"""Verdicts: made stores with known differences, and the committed file against the committed store."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fer_lab.experiments import Training, claims, triplet_center
from fer_lab.experiments.study import PILOT_SEEDS, resnet_trunk
from fer_lab.intervals import paired_difference, smallest_effect
from fer_lab.runs import Predictions, ResultsStore

ROOT = Path(__file__).parents[2]
SEEDS = range(6)


def record(store, request, metrics, probabilities=((0.5, 0.5),)):
    """A row of a request, whose faces all show the first class."""
    probabilities = np.array(probabilities)
    zeros = np.zeros(len(probabilities))
    store.record(
        method="dan",
        size="tiny",
        variant=request.variant,
        dataset="synthetic",
        fingerprint="f",
        split="balanced",
        seed=request.seed,
        minutes=1,
        device="cpu",
        command="",
        request=request.to_json(),
        metrics=pd.DataFrame(metrics),
        predictions=Predictions(probabilities, zeros, ("neutral", "happiness"), "made", "f"),
    )


def store_of(folder, monkeypatch, gain, noise=0.002, metric="accuracy", seeds=SEEDS, pilot=()):
    """A store with "with" and "without" the idea: `gain` apart, on 400 faces, with `noise` between seeds."""
    requests = {
        f"{variant}-{seed}": Training(model="dan", seed=seed, variant=variant, options=options)
        for variant, options in (("with", {}), ("without", {"num_heads": 1}))
        for seed in SEEDS
    }
    every = requests | {
        f"{variant}-{seed}": Training(model="dan", seed=seed, variant=variant, options=options)
        for variant, options in (("with", {}), ("without", {"num_heads": 1}))
        for seed in pilot
    }
    monkeypatch.setattr(claims, "PILOT_SEEDS", tuple(pilot))
    monkeypatch.setitem(
        claims.FAMILIES,
        "made",
        lambda seeds=SEEDS: {name: one for name, one in every.items() if one.seed in seeds},
    )
    store = ResultsStore(folder)
    rng = np.random.default_rng(0)
    values = {}
    for name, request in every.items():
        if request.seed not in (*seeds, *pilot):
            continue
        value = 0.7 + rng.normal(0, noise) + (gain if request.variant == "with" else 0)
        values[name] = value
        right = np.arange(400) < round(400 * value)
        probabilities = np.where(right[:, None], [0.9, 0.1], [0.1, 0.9])
        record(store, request, {"metric": [metric], "value": [value]}, probabilities)
    return store, values


def claim(**more):
    made = {"name": "idea", "family": "made", "hypothesis": "It helps.", "metric": "accuracy"}
    return claims.Claim(**{**made, "a": "with", "b": "without", "expected": "better", **more})


@pytest.mark.parametrize(
    ("gain", "noise", "verdict"),
    [
        (0.05, 0.002, "better"),
        (-0.05, 0.002, "worse"),
        (0.0, 0.002, "equivalent"),
        (0.0, 0.05, "not known"),
        (0.01, 0.05, "not known"),
    ],
)
def test_a_verdict_follows_from_difference_and_spread(tmp_path, monkeypatch, gain, noise, verdict):
    store, values = store_of(tmp_path, monkeypatch, gain, noise)
    (row,) = claims.judge(store, [claim()]).to_dict("records")
    assert row["verdict"] == verdict
    found = paired_difference(
        [values[f"with-{seed}"] for seed in SEEDS], [values[f"without-{seed}"] for seed in SEEDS]
    )
    assert row["difference"] == pytest.approx(found.difference)
    assert (row["seeds"], row["planned"], row["faces"]) == (6, 6, 400)
    assert 1.05 < row["cost"] < 2  # four heads against one
    assert row["crossed_low"] < row["difference"] < row["crossed_high"]


def test_a_smaller_number_can_be_the_better_one(tmp_path, monkeypatch):
    store, _ = store_of(tmp_path, monkeypatch, -0.05, metric="within_between")
    (row,) = claims.judge(store, [claim(metric="within_between")]).to_dict("records")
    assert row["verdict"] == "better"
    assert np.isnan(row["crossed_low"])


def test_ratios_are_never_called_equivalent(tmp_path, monkeypatch):
    store, _ = store_of(tmp_path, monkeypatch, 0.0, metric="within_between")
    (row,) = claims.judge(store, [claim(metric="within_between")]).to_dict("records")
    assert row["verdict"] == "not known"


def test_p_is_adjusted_for_the_family_and_the_smallest_effect_with_it(tmp_path, monkeypatch):
    store, values = store_of(tmp_path, monkeypatch, 0.004, pilot=(101, 102, 103))
    alone = claims.judge(store, [claim()]).iloc[0]
    family = claims.judge(store, [claim(name=f"{i}") for i in range(8)]).iloc[0]
    assert family["adjusted_p"] == pytest.approx(min(1, 8 * alone["p"]))
    spread = np.std([values[f"with-{seed}"] - values[f"without-{seed}"] for seed in (101, 102, 103)], ddof=1)
    assert alone["smallest_effect"] == pytest.approx(smallest_effect(spread, 6))
    assert family["smallest_effect"] == pytest.approx(smallest_effect(spread, 6, comparisons=8))
    assert (alone["seeds"], alone["planned"]) == (6, 6)  # pilot seeds decide nothing


def test_missing_seeds_are_counted_and_none_at_all_is_said(tmp_path, monkeypatch):
    store, _ = store_of(tmp_path, monkeypatch, 0.05, seeds=range(3))
    row = claims.judge(store, [claim()]).iloc[0]
    assert (row["seeds"], row["planned"], row["verdict"]) == (3, 6, "unfinished")
    assert row["adjusted_p"] < 0.05  # which is what makes people stop early
    store, _ = store_of(tmp_path / "empty", monkeypatch, 0.05, seeds=())
    row = claims.judge(store, [claim()]).iloc[0]
    assert (row["seeds"], row["verdict"]) == (0, "not run")


def test_the_same_claims_on_other_trainings_have_no_pilot(tmp_path, monkeypatch):
    store, _ = store_of(tmp_path, monkeypatch, 0.05, pilot=(101, 102, 103))
    given = {name: one for name, one in claims.FAMILIES["made"]().items() if one.seed < 3}
    row = claims.judge(store, [claim()], given).iloc[0]
    assert (row["seeds"], row["planned"]) == (3, 3)
    assert np.isnan(row["smallest_effect"])


def test_a_claim_may_be_on_some_classes(tmp_path, monkeypatch):
    store, _ = store_of(tmp_path, monkeypatch, 0.0)
    for request in claims.FAMILIES["made"]().values():
        rare = 0.5 if request.variant == "with" else 0.3
        recalls = [rare, rare + 0.1, 0.9]
        record(store, request, {"metric": "recall", "class": ["fear", "anger", "neutral"], "value": recalls})
    row = claims.judge(store, [claim(metric="recall", classes=("fear", "anger"))]).iloc[0]
    assert row["difference"] == pytest.approx(0.2)


def test_claims_name_variants_of_their_family_once():
    assert len({one.name for one in claims.CLAIMS}) == len(claims.CLAIMS)
    for one in claims.CLAIMS:
        variants = {request.variant for request in claims.FAMILIES[one.family]().values()}
        assert {one.a, one.b} <= variants
        assert one.expected in ("better", "worse", "equivalent")


def test_the_study_set_is_as_hard_as_its_design_asks():
    """A plain ResNet-18 at its plateau has 70 to 85 % accuracy on balanced faces of other people."""
    store = ResultsStore(ROOT / "figures" / "results")
    plateaus = [resnet_trunk(seed) for seed in PILOT_SEEDS]
    table = store.table(of=plateaus)
    assert table["seeds"].tolist() == [3]
    assert 0.70 < table["mean"].item() < 0.85


def test_the_committed_verdicts_are_those_of_the_committed_store():
    folder = ROOT / "figures" / "results"
    recorded = pd.read_csv(folder / "claims.csv")
    judged = claims.judge(ResultsStore(folder))
    assert list(recorded.columns) == list(judged.columns)
    assert recorded["verdict"].tolist() == judged["verdict"].tolist()
    np.testing.assert_allclose(
        recorded.select_dtypes("number"), judged.select_dtypes("number").astype(float), rtol=1e-6
    )


def test_what_notebooks_02_and_03_say_was_found_is_what_the_file_says():
    """Their prose interprets these verdicts; where one changes, "What was found" must be written anew."""
    found = pd.read_csv(ROOT / "figures" / "results" / "claims.csv").set_index("claim")
    dan = found[found["family"] == "DAN"]["verdict"]
    assert (dan["affinity-compactness"], dan["partition-overlap"]) == ("not known", "better")
    assert set(dan.drop(["affinity-compactness", "partition-overlap"])) == {"equivalent"}
    losses = found[found["family"] == "triplet center"]
    assert set(losses.loc[losses["metric"] == "within_between", "verdict"]) == {"better"}
    assert set(losses.loc[losses["metric"] == "accuracy", "verdict"]) == {"equivalent"}
    margins = losses[losses["metric"] == "nearest_center_margin"]
    assert margins.pop("verdict").to_dict() == {
        f"{loss}-margin": "worse" if loss == "center" else "better" for loss in triplet_center.LOSSES
    }
    assert margins["difference"].idxmax() == "semi-margin"
    rare = found[(found["family"] == "rare classes") & (found["metric"] == "recall")]["verdict"]
    assert {name for name, verdict in rare.items() if verdict == "worse"} == {
        f"{loss}-rare-recall" for loss in ("center", "semi", "fully")
    }
    assert set(rare) == {"worse", "not known"}
    assert found.loc["predicted-rare-accuracy", "verdict"] == "equivalent"
    compact = losses[losses["metric"] == "within_between"]["difference"]
    assert list(compact.sort_values().index[:3]) == [
        f"{one}-compactness" for one in ("center", "semi", "fully")
    ]
