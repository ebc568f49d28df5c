import dataclasses
import itertools
import math
import os
import subprocess
import sys
import types

import numpy as np
import pytest
import torch
from sklearn.metrics import silhouette_samples

from fer_lab.data.augmentation import prepare
from fer_lab.data.faces import REGIONS, FaceSet
from fer_lab.data.synthetic import SyntheticFaces
from fer_lab.evaluation.embeddings import (
    embedding_metrics,
    plane_of,
    separation,
    silhouette,
    umap_embedding,
    within_between_scatter,
)
from fer_lab.explanation.maps import mean_pairwise_cosine
from fer_lab.models import create_model

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
        margins, squares = [], []
        for face in x[y == label]:
            distances = [math.dist(face, center) for center in centers]
            own = distances[label]
            wrong = {j: distances[j] for j in range(3) if j != label}
            margins.append(min(wrong.values()) - own)
            squares.append(own**2)
        assert found.margin[label] == pytest.approx(np.mean(margins) / found.unit)
        assert found.scatter[label] == pytest.approx(np.mean(squares) ** 0.5 / found.unit)
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


def test_embedding_metrics_measure_classes_and_the_overlap_of_heads():
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
    table = embedding_metrics(model, faces, embeddings, batch_size=4).set_index(["metric", "class"])["value"]
    assert model.training
    with torch.no_grad():
        maps = model.eval().attention_maps(prepare(faces.images, 56))["heads"]
    expected = mean_pairwise_cosine(maps).mean().item()
    assert table["head_overlap", ""] == pytest.approx(expected, abs=1e-5)
    scatter = within_between_scatter(embeddings, labels.numpy())
    assert table["within_between", ""] == pytest.approx(scatter.ratio)
    single = embedding_metrics(create_model("baseline"), faces, embeddings)
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
    table = embedding_metrics(model, faces, embeddings).set_index(["metric", "class"])["value"]
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
    table = embedding_metrics(model, faces, embeddings).set_index(["metric", "class"])["value"]
    inside = moved[area > 0, 24:32, 24:32].float().mean()
    assert table["map_mass", ""] == pytest.approx(inside.item(), rel=0.05, abs=0.01)
    one_of_a_kind = faces.subset([int((faces.labels == c).nonzero()[0]) for c in (0, 1)])
    for other, told in (
        (model, one_of_a_kind),
        (create_model("qcs", form="none"), faces),
        (model, dataclasses.replace(faces, regions=None)),
    ):
        assert "map_mass" not in set(embedding_metrics(other, told, embeddings[: len(told)])["metric"])


def test_mass_of_a_models_own_map_on_what_the_units_moved():
    faces = SyntheticFaces(40, size=56, seed=3)
    embeddings = np.random.default_rng(0).normal(size=(len(faces), 5))
    model = create_model("dan", num_heads=2)
    moved = faces.region_masks(range(len(faces)))[:, REGIONS.index("moved")]
    area = moved.float().mean((1, 2))

    # One head has all of its mass on one cell of the grid, the other is even.
    def two_heads(images):
        maps = torch.zeros(len(images), 2, 7, 7)
        maps[:, 0, 5, 3] = 9
        maps[:, 1] = 1
        return {"heads": maps}

    model.attention_maps = two_heads
    table = embedding_metrics(model, faces, embeddings, batch_size=16)
    found = table[table["class"] == ""].set_index("metric")["value"]
    acting = area > 0
    inside = moved[acting, 40:48, 24:32].float().mean((1, 2))
    assert found["attention_mass_chance"] == pytest.approx(area[acting].mean().item(), rel=1e-4)
    expected = (inside + area[acting]).mean().item() / 2
    assert found["attention_mass"] == pytest.approx(expected, rel=1e-4)
    photographs = dataclasses.replace(faces, regions=None)
    assert "attention_mass" not in set(embedding_metrics(model, photographs, embeddings)["metric"])


def test_map_mass_passes_over_a_batch_in_which_nothing_moves():
    faces = SyntheticFaces(60, size=56, seed=3)
    neutral, happy = (int((faces.labels == label).nonzero()[0]) for label in (0, 1))
    mostly_neutral = faces.subset([neutral] * 64 + [happy] * 2)
    embeddings = np.random.default_rng(0).normal(size=(66, 5))
    table = embedding_metrics(create_model("qcs", official=True), mostly_neutral, embeddings)
    moved = faces.region_masks(torch.tensor([happy]))[0, REGIONS.index("moved")].float().mean()
    chance = table.loc[table["metric"] == "map_mass_chance", "value"].item()
    assert chance == pytest.approx(moved.item(), rel=1e-3)


def test_umap_gets_a_seed_and_one_job(monkeypatch):
    used = {}

    class UMAP:
        def __init__(self, **settings):
            used.update(settings)

        def fit_transform(self, embeddings):
            return embeddings[:, :2].astype(np.float64) * 2

    monkeypatch.setitem(sys.modules, "umap", types.SimpleNamespace(UMAP=UMAP))
    embeddings = np.arange(30.0).reshape(10, 3)
    xy = umap_embedding(embeddings, seed=5)
    assert xy.dtype == np.float32
    np.testing.assert_array_equal(xy, 2 * embeddings[:, :2])
    assert (used["random_state"], used["n_jobs"], used["n_neighbors"]) == (5, 1, 9)
    with pytest.raises(ValueError, match="at least 4 faces"):
        umap_embedding(embeddings[:3])


READ_ONLY = """
import os, warnings
from numba.core import caching

def refuse(self):
    raise OSError("read-only")

caching.InTreeCacheLocator.ensure_cache_path = refuse
caching.UserWideCacheLocator.ensure_cache_path = refuse
import numpy as np
from fer_lab.evaluation.embeddings import umap_embedding

xy = umap_embedding(np.random.default_rng(0).normal(size=(12, 4)))
print(xy.shape, os.path.isdir(os.environ["NUMBA_CACHE_DIR"]))
"""


def test_umap_needs_no_folder_that_can_be_written():
    environment = {key: value for key, value in os.environ.items() if key != "NUMBA_CACHE_DIR"}
    done = subprocess.run([sys.executable, "-c", READ_ONLY], env=environment, capture_output=True, text=True)
    assert done.stdout.split("\n")[0] == "(12, 2) True", done.stderr


def model_in_plane(**options):
    torch.manual_seed(0)
    model = create_model("triplet_center", 3, embedding_dim=2, **options)
    if model.centers is not None:
        model.triplet_center.centers.data = torch.tensor([[0.0, 0.0], [2.0, 3.0], [4.0, 1.0]])
    return model


def test_the_plane_is_what_the_classifier_answers():
    model = model_in_plane(metric_loss="none")
    with torch.no_grad():
        model.classify.weight.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]]))
        model.classify.bias.copy_(torch.tensor([0.0, 0.0, -9.0]))
    plane = plane_of(model, [[-1.0, -1.0], [1.0, 1.0]], steps=8)
    assert plane.silent is None
    assert plane.decision.shape == (8, 8)
    assert (plane.decision == np.where(plane.x > 0, 0, 1)[None]).all()
    assert plane.x[0] < -1 < 1 < plane.x[-1]


def test_no_loss_means_a_half_plane_for_two_vectors_and_a_box_for_dimensions():
    # Classes 0 and 1 alone count: class 2 is far away.
    far = np.array([[0.0, 0.0], [4.0, 4.0], [90.0, 90.0]])
    xy = [[-4.0, -4.0], [8.0, 8.0]]
    silent = {}
    for hinge in ("vector", "dimension"):
        model = model_in_plane(hinge=hinge, negatives="hardest", margin=8.0)
        model.triplet_center.centers.data = torch.tensor(far, dtype=torch.float32)
        plane = plane_of(model, xy, steps=95)
        silent[hinge] = plane.silent[0]
    x, y = np.meshgrid(plane.x, plane.y)
    # ‖x‖² + 8 ≤ ‖x − c‖² is 8 (x + y) ≤ 32 − 8; in one dimension, 8 x ≤ 16 − 8.
    near = (x < 30) & (y < 30)
    inside = {"vector": x + y <= 3, "dimension": (x <= 1) & (y <= 1)}
    for hinge, expected in inside.items():
        assert (silent[hinge] == expected)[near].all()


def test_a_plane_of_many_dimensions_is_refused():
    with pytest.raises(ValueError, match="expected an embedding of two dimensions, got 128"):
        plane_of(create_model("triplet_center"), [[0.0, 0.0]])
