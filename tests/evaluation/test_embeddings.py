import dataclasses
import itertools
import math

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import silhouette_samples

from fer_lab.data.augmentation import prepare
from fer_lab.data.faces import REGIONS, FaceSet
from fer_lab.data.synthetic import SyntheticFaces
from fer_lab.evaluation.embeddings import (
    rare_classes,
    separation,
    silhouette,
    structure,
    within_between_scatter,
)
from fer_lab.explanation.maps import mean_pairwise_cosine
from fer_lab.models import create_model
from fer_lab.runs import ResultsStore
from fer_lab.runs.store import over_seeds

# ---------------------------------------------------------------- scatter


def test_scatter_by_hand():
    # Means (0,1) and (4,1); every face is 1 from its mean, every mean 2 from (2,1).
    scatter = within_between_scatter([[0, 0], [0, 2], [4, 0], [4, 2]], [5, 5, 9, 9])
    assert scatter == (1.0, 4.0, 0.25)
    assert within_between_scatter([[0.0], [2.0], [0.0], [2.0]], [0, 0, 1, 1]).ratio == math.inf


def test_scatter_agrees_with_a_slow_loop_and_adds_up():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 5)), rng.choice([0, 3, 4], size=60, p=[0.7, 0.2, 0.1])
    within = between = 0.0
    for label in (0, 3, 4):
        own = [x[i] for i in range(60) if y[i] == label]
        mean = sum(own) / len(own)
        within += sum(float((face - mean) @ (face - mean)) for face in own) / 60
        between += len(own) * float((mean - x.mean(0)) @ (mean - x.mean(0))) / 60
    scatter = within_between_scatter(x, y)
    assert scatter == pytest.approx((within, between, within / between))
    assert scatter.within + scatter.between == pytest.approx(((x - x.mean(0)) ** 2).sum() / 60)
    assert within_between_scatter(7 * x, y).ratio == pytest.approx(scatter.ratio)


def test_scatter_refuses_one_class_and_wrong_sizes():
    with pytest.raises(ValueError, match="at least two classes, got 1"):
        within_between_scatter(np.ones((3, 2)), [1, 1, 1])
    with pytest.raises(ValueError, match=r"got \[3, 2\] and \[2\]"):
        within_between_scatter(np.ones((3, 2)), [1, 1])


# ---------------------------------------------------------------- separation


def test_separation_by_hand():
    # Class 0 at 0 and 2, class 2 at 10 and 12; centers 1 and 11, mean 6: unit² = (36 + 16 + 16 + 36) / 4.
    x = np.array([[0.0], [2.0], [10.0], [12.0]])
    found = separation(x, [0, 0, 2, 2], 3)
    assert found.unit == pytest.approx(26**0.5)
    np.testing.assert_allclose(found.centers, [[1], [np.nan], [11]])
    np.testing.assert_allclose(found.scatter * found.unit, [1, np.nan, 1])
    # Margins of 11 − 1 and 9 − 1.
    np.testing.assert_allclose(found.margin * found.unit, [9, np.nan, 9])
    np.testing.assert_allclose(found.nearest, [[0, 0, 1], [np.nan] * 3, [1, 0, 0]])


def test_separation_from_given_centers_may_be_negative():
    # The faces of class 0 lie at class 1's center.
    found = separation([[4.0], [4.0], [0.0]], [0, 0, 1], 2, centers=[[0.0], [4.0]])
    assert found.margin[0] * found.unit == pytest.approx(-4)
    assert found.scatter[0] * found.unit == pytest.approx(4)


def test_separation_agrees_with_a_slow_loop_and_knows_no_scale():
    rng = np.random.default_rng(0)
    x, y, centers = rng.normal(size=(50, 4)), rng.integers(3, size=50), rng.normal(size=(3, 4))
    found = separation(x, y, 3, centers)
    for label in range(3):
        margins, squares, nearest = [], [], [0, 0, 0]
        for face in x[y == label]:
            distances = [math.dist(face, center) for center in centers]
            own = distances[label]
            wrong = {j: distances[j] for j in range(3) if j != label}
            margins.append(min(wrong.values()) - own)
            squares.append(own**2)
            nearest[min(wrong, key=wrong.get)] += 1
        assert found.margin[label] == pytest.approx(np.mean(margins) / found.unit)
        assert found.scatter[label] == pytest.approx(np.mean(squares) ** 0.5 / found.unit)
        assert found.nearest[label].tolist() == pytest.approx(np.array(nearest) / len(margins))
    larger = separation(9 * x, y, 3, 9 * centers)
    np.testing.assert_allclose(larger.margin, found.margin)
    np.testing.assert_allclose(larger.scatter, found.scatter)


def test_a_collapsed_embedding_is_not_separated_at_all():
    found = separation(np.ones((4, 3)), [0, 0, 1, 1], 2)
    assert found.margin.tolist() == [0, 0]
    assert found.scatter.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("labels", "centers", "message"),
    [
        ([0, 3], None, r"labels must be 0…2, got 0…3"),
        ([0, 0], None, "at least two centers, got 2 and 1"),
        ([0, 1], np.zeros((2, 2)), r"expected centers \[3,2\], got \[2, 2\]"),
        ([0], None, r"got \[2, 2\] and \[1\]"),
    ],
)
def test_separation_refuses(labels, centers, message):
    with pytest.raises(ValueError, match=message):
        separation(np.eye(2), labels, 3, centers)


def test_silhouette_is_the_mean_over_the_faces():
    # Face 0: a = 1 to its fellow, b = (9 + 10) / 2; and so on.
    x, y = [[0.0], [1.0], [9.0], [10.0]], [0, 0, 1, 1]
    expected = [(b - 1) / b for b in (9.5, 8.5, 8.5, 9.5)]
    assert silhouette(x, y) == pytest.approx(np.mean(expected))
    with pytest.raises(ValueError, match="2 classes or more"):
        silhouette(x, [0, 0, 0, 0])
    with pytest.raises(ValueError, match="got 4"):
        silhouette(x, [0, 1, 2, 3])


def test_of_many_faces_some_are_drawn(monkeypatch):
    rng = np.random.default_rng(1)
    y = rng.integers(2, size=400)
    x = y[:, None] + 0.3 * rng.normal(size=(400, 2))
    whole = silhouette(x, y)
    monkeypatch.setattr("fer_lab.evaluation.embeddings.SILHOUETTE_FACES", 200)
    assert silhouette(x, y) == silhouette(x, y) != whole
    assert silhouette(x, y) == pytest.approx(whole, abs=4 * silhouette_samples(x, y).std() / 200**0.5)


def test_rare_classes_have_less_than_half_an_equal_share():
    # 12 faces, 4 classes: an equal share is 3.
    labels = [0] * 6 + [1] * 3 + [2] * 2 + [3]
    assert rare_classes(torch.tensor(labels), "abcd") == ("d",)
    assert rare_classes(np.arange(8) % 4, "abcd") == ()
    assert rare_classes([0, 0, 0, 1], "abc") == ("c",)


# ---------------------------------------------------------------- over seeds


@pytest.fixture
def store(tmp_path):
    """Two variants, three seeds each; the recalls of b and c are (s, 0.2 + s) / 10 and 0.1 more."""
    filled = ResultsStore(tmp_path)
    for variant, more in (("plain", 0.0), ("better", 0.1)):
        for seed in range(3):
            recall = {"a": 0.9, "b": 0.1 * seed + more, "c": 0.2 + 0.1 * seed + more}
            rows = [("recall", name, value) for name, value in recall.items()]
            rows.append(("accuracy", "", 0.5 + 0.1 * seed))
            filled.record(
                **dict.fromkeys(("size", "fingerprint", "device", "command"), "x"),
                method="triplet_center",
                variant=variant,
                dataset="synthetic",
                split="test",
                seed=seed,
                minutes=0.1,
                metrics=pd.DataFrame(rows, columns=["metric", "class", "value"]),
            )
    return filled


def test_classes_are_averaged_within_a_run_and_runs_over_seeds(store):
    table = over_seeds(store, "recall", ("b", "c"), by=("variant",)).set_index("variant")
    assert table["mean"].to_dict() == pytest.approx({"plain": 0.2, "better": 0.3})
    assert table["seeds"].tolist() == [3, 3]
    # Student's t with two degrees of freedom: 4.3027 · 0.1 / √3.
    assert table.loc["plain", "high"] - 0.2 == pytest.approx(4.3027 * 0.1 / 3**0.5, rel=1e-4)
    assert over_seeds(store, "accuracy", by=("variant",))["mean"].tolist() == pytest.approx([0.6, 0.6])


def test_a_difference_at_the_same_seed_has_no_spread_of_the_seeds(store):
    table = over_seeds(store, "recall", ("b", "c"), minus="plain")
    assert table[["method", "variant", "seeds"]].values.tolist() == [["triplet_center", "better", 3]]
    assert table[["mean", "low", "high"]].iloc[0].tolist() == pytest.approx([0.1] * 3)


def test_a_store_without_the_metric_gives_no_rows(store, tmp_path):
    columns = ["method", "variant", "dataset", "split", "mean", "low", "high", "seeds"]
    for table in (over_seeds(store, "silhouette"), over_seeds(ResultsStore(tmp_path / "none"), "accuracy")):
        assert list(table.columns) == columns
        assert table.empty
    with pytest.raises(ValueError, match="no column knob; there are id"):
        over_seeds(store, "accuracy", by=("knob",))


# ---------------------------------------------------------------- overlap of maps, and all together


def test_overlap_by_hand_and_by_a_slow_loop():
    left, right = torch.eye(2).view(2, 1, 2)
    both = left + right
    assert mean_pairwise_cosine(torch.stack([left, left, left])[None]).tolist() == pytest.approx([1])
    assert mean_pairwise_cosine(torch.stack([left, 3 * right])[None]).tolist() == pytest.approx([0])
    # Pairs: 0, 1/√2, 1/√2.
    assert mean_pairwise_cosine(torch.stack([left, right, both])[None]).tolist() == pytest.approx([2**0.5 / 3])
    assert mean_pairwise_cosine(torch.zeros(1, 2, 3, 3)).tolist() == [0]
    maps = torch.randn(3, 4, 7, 7, generator=torch.Generator().manual_seed(0))
    loop = [
        np.mean(
            [torch.cosine_similarity(a.flatten(), b.flatten(), dim=0) for a, b in itertools.combinations(m, 2)]
        )
        for m in maps
    ]
    assert mean_pairwise_cosine(maps).tolist() == pytest.approx(loop, abs=1e-6)
    for wrong in (maps[:, :1], maps[0]):
        with pytest.raises(ValueError, match="K of at least 2"):
            mean_pairwise_cosine(wrong)


def test_structure_measures_classes_and_the_overlap_of_heads():
    torch.manual_seed(0)
    labels = torch.arange(10) % 7
    faces = FaceSet(
        storage=torch.randint(0, 256, (10, 3, 56, 56), dtype=torch.uint8),
        labels=labels,
        classes=tuple("abcdefg"),
        splits=np.array(["test"] * 10),
        subjects=torch.full((10,), -1),
        name="noise",
        fingerprint="noise",
    )
    model = create_model("dan", num_heads=3)
    embeddings = np.random.default_rng(0).normal(size=(10, 5))
    table = structure(model, faces, embeddings, batch_size=4).set_index(["metric", "class"])["value"]
    assert model.training
    with torch.no_grad():
        maps = model.eval().attention_maps(prepare(faces.images, 56))["heads"]
    expected = mean_pairwise_cosine(maps).mean().item()
    assert table["head_overlap", ""] == pytest.approx(expected, abs=1e-5)
    scatter = within_between_scatter(embeddings, labels.numpy())
    assert table["within_between", ""] == pytest.approx(scatter.ratio)
    single = structure(create_model("baseline"), faces, embeddings)
    assert "head_overlap" not in set(single["metric"])
    apart = separation(embeddings, labels.numpy(), 7)
    margins = [table["nearest_center_margin", name] for name in "abcdefg"]
    np.testing.assert_allclose(margins, apart.margin)
    np.testing.assert_allclose(table["class_scatter", "c"], apart.scatter[2])
    assert table["nearest_center_margin", ""] == pytest.approx(apart.margin.mean())
    assert table["silhouette", ""] == pytest.approx(silhouette(embeddings, labels.numpy()))


def test_mass_of_cross_similarity_maps_on_what_the_units_moved():
    faces = SyntheticFaces(90, size=56, seed=3)
    faces = faces.subset((faces.class_counts() > 1)[faces.labels])
    embeddings = np.random.default_rng(0).normal(size=(len(faces), 5))
    model = create_model("qcs")
    table = structure(model, faces, embeddings).set_index(["metric", "class"])["value"]
    moved = faces.region_masks(torch.arange(len(faces)))[:, REGIONS.index("moved")]
    area = moved.float().mean((1, 2))
    assert model.training
    # Every anchor is drawn as often as every other; neutral ones move nothing and do not count.
    assert table["map_mass_chance", ""] == pytest.approx(area[area > 0].mean().item(), rel=0.05)
    assert 0 < table["map_mass", ""] < 3 * table["map_mass_chance", ""]

    # All of the mass on one cell of the grid: the share of that cell which is inside.
    def one_cell(images):
        maps = torch.zeros(len(images), 4, 3, 7, 7)
        maps[..., 3, 3] = 1
        return maps

    model.similarity_maps = one_cell
    table = structure(model, faces, embeddings).set_index(["metric", "class"])["value"]
    inside = moved[area > 0, 24:32, 24:32].float().mean()
    assert table["map_mass", ""] == pytest.approx(inside.item(), rel=0.05, abs=0.01)
    one_of_a_kind = faces.subset([int((faces.labels == c).nonzero()[0]) for c in (0, 1)])
    for other, told in (
        (model, one_of_a_kind),
        (create_model("qcs", form="none"), faces),
        (model, dataclasses.replace(faces, regions=None)),
    ):
        assert "map_mass" not in set(structure(other, told, embeddings[: len(told)])["metric"])


def test_map_mass_passes_over_a_batch_in_which_nothing_moves():
    faces = SyntheticFaces(60, size=56, seed=3)
    neutral, happy = (int((faces.labels == label).nonzero()[0]) for label in (0, 1))
    mostly_neutral = faces.subset([neutral] * 64 + [happy] * 2)
    embeddings = np.random.default_rng(0).normal(size=(66, 5))
    table = structure(create_model("qcs", official=True), mostly_neutral, embeddings)
    moved = faces.region_masks(torch.tensor([happy]))[0, REGIONS.index("moved")].float().mean()
    chance = table.loc[table["metric"] == "map_mass_chance", "value"].item()
    assert chance == pytest.approx(moved.item(), rel=1e-3)
