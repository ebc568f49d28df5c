"""The results store has what the experiments of the notebooks describe, and nothing else."""

import numpy as np
import pytest

from fer_lab.data import FaceRequest
from fer_lab.experiments import Training, compare, dan, ferplus, train_missing
from fer_lab.experiments.claims import FAMILIES
from fer_lab.experiments.study import PILOT_SEEDS, SEEDS
from fer_lab.intervals import holm
from fer_lab.runs import ResultsStore, results_folder

# function → how many rows of tables it describes, without the trunks that some of them start from
EXPERIMENTS = {
    compare.same_budget: 45,
    ferplus.trainings: 42,
}


def starts(request: Training) -> list[Training]:
    """The trainings that a training starts from, and those that these start from."""
    direct = [start for start in (request.weights, request.trunk) if isinstance(start, Training)]
    return [one for start in direct for one in (*starts(start), start)]


@pytest.fixture(scope="module")
def store():
    return ResultsStore(results_folder())


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_the_store_has_every_row(experiment, store):
    requests = experiment()
    assert len(requests) == len({one.to_json() for one in requests.values()}) == EXPERIMENTS[experiment]
    assert [name for name, one in requests.items() if not one.recorded(store)] == []
    assert len(store.table(of=requests, by=("id",))) == len(requests)


def test_every_row_is_one_of_the_experiments_and_none_is_lost(store):
    asked = [one for experiment in EXPERIMENTS for one in experiment().values()]
    texts = {one.to_json() for request in asked for one in (request, *starts(request))}
    recorded = set(store.runs()["request"])
    assert texts <= recorded
    # The claims' trainings are recorded seed by seed; what is missing is a verdict "not run" or fewer seeds.
    every_seed = (SEEDS, PILOT_SEEDS)
    studied = [one for study in FAMILIES.values() for seeds in every_seed for one in study(seeds).values()]
    # Of the trunk that is the reader's own download, too, what is missing is fewer seeds.
    studied += [*ferplus.face_trunk().values(), *ferplus.further().values()]
    assert recorded - texts <= {one.to_json() for request in studied for one in (request, *starts(request))}


def test_every_command_is_the_rendering_of_its_request(store):
    for row in store.runs().itertuples():
        request = Training.from_json(row.request)
        assert request.command() == row.command
        assert request.to_json() == row.request
        assert (request.model, request.size, request.variant, request.seed) == (
            row.method,
            row.size,
            row.variant,
            row.seed,
        )


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_the_full_profile_fills_an_empty_store(experiment, tmp_path, monkeypatch):
    """Every row is trained once, after what it starts from."""
    trained = []

    def train(request, *, store, runs):
        trained.append(request.name)

    monkeypatch.setattr("fer_lab.experiments.training.train", train)
    requests = experiment()
    assert train_missing(requests, tmp_path / "runs", tmp_path / "empty") == list(requests)
    assert trained == [one.name for one in requests.values()]
    assert len(set(trained)) == len(trained)
    assert train_missing(requests, tmp_path / "runs", results_folder()) == []


def test_one_level_or_condition_is_a_part_of_all():
    assert compare.same_budget("label noise 0.3").items() <= compare.same_budget().items()
    assert {one.variant for one in compare.same_budget("label noise 0.3").values()} == {"label noise 0.3"}
    assert {one.variant.partition(",")[0] for one in ferplus.metric_losses().values()} == set(
        ferplus.METRIC_LOSSES
    )


def test_losses_are_compared_with_cross_entropy_seed_by_seed(store):
    table = ferplus.loss_changes(store, "recall", "disgust").set_index("label")
    assert list(table.index) == list(ferplus.METRIC_LOSSES)
    plain = store.table("recall", of=ferplus.metric_losses(), classes=["disgust"]).set_index("variant")
    assert list(table["value"]) == list(plain["mean"])
    np.testing.assert_allclose(table["difference"][1:], (table["value"] - table.loc["CE", "value"])[1:])
    changes = ["difference", "low_difference", "high_difference", "p", "adjusted_p"]
    assert table.loc["CE", changes].isna().all()
    assert list(table["adjusted_p"][1:]) == holm(list(table["p"][1:]))
    assert not np.allclose(table["value"], ferplus.loss_changes(store, "accuracy")["value"])


def test_the_same_experiment_on_another_data_set(tmp_path):
    (request, *_) = dan.study(faces=FaceRequest(dataset="ferplus", root=tmp_path)).values()
    assert (request.faces.dataset, request.faces.root) == ("ferplus", tmp_path)
    assert request.recipe_name == "scratch"
    assert "$FER_DATA" in request.command()
    assert str(tmp_path) not in request.to_json()
