import dataclasses

import numpy as np
import pytest

from fer_lab.runs import Predictions
from fer_lab.runs.predictions import Answers, load_together, save_together

CLASSES = ("neutral", "happiness", "surprise")


def random_predictions(n=50, seed=0, **more):
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.ones(3), n)
    return Predictions(probabilities, rng.integers(3, size=n), CLASSES, "faces", "f00d", **more)


def test_predicted_and_correct():
    p = Predictions([[0.2, 0.5, 0.3], [0.4, 0.4, 0.2]], [2, 0], CLASSES, "faces", "f")
    assert p.predicted.tolist() == [1, 0]
    assert p.correct.tolist() == [False, True]
    assert p.rows.tolist() == [0, 1]
    assert p.probabilities.dtype == np.float32


def test_wrong_answers_and_their_titles():
    p = Predictions(np.eye(3)[[0, 1, 2, 0, 1]], [0, 2, 2, 1, 0], CLASSES, "faces", "f")
    assert p.wrong().tolist() == [1, 3, 4]
    assert p.wrong(2).tolist() == [1, 3]
    assert p.titles(p.wrong(2)) == ["surprise → happiness", "happiness → neutral"]
    assert p.titles([0]) == ["neutral → neutral"]
    assert p.titles([]) == p.titles(p.wrong(0)) == []


def test_saved_and_loaded_is_the_same(tmp_path):
    p = random_predictions(
        rows=np.arange(50)[::-1] * 7, embeddings=np.random.default_rng(1).normal(size=(50, 4))
    )
    p.save(tmp_path / "p.npz")
    back = Predictions.load(tmp_path / "p.npz")
    for key in ("probabilities", "labels", "rows", "embeddings"):
        assert np.array_equal(getattr(back, key), getattr(p, key)), key
    assert (back.classes, back.name, back.fingerprint) == (CLASSES, "faces", "f00d")


def test_files_of_several_runs_keep_every_answer(tmp_path):
    close = np.array([[0.33333, 0.33334, 0.33333], [0.5, 0.49999, 0.00001], [0.00001, 0.49999, 0.5]])
    p = Predictions(close, [1, 0, 1], CLASSES, "faces", "f", rows=[7, 8, 70_000], embeddings=np.zeros((3, 64)))
    save_together(tmp_path / "p.npz", {"b-0": p.answers(), "a+b=c-1": random_predictions().answers()})
    assert set(load_together(tmp_path / "p.npz")) == {"b-0", "a+b=c-1"}
    back = load_together(tmp_path / "p.npz")["b-0"]
    assert back.predicted.tolist() == [1, 0, 2]
    assert back.correct.tolist() == [True, True, False]
    assert back.rows.tolist() == [7, 8, 70_000]
    assert (back.classes, back.name, back.fingerprint) == (CLASSES, "faces", "f")


def test_files_of_several_runs_are_small_and_the_same_bytes_in_any_order(tmp_path):
    first, second = random_predictions(3000), random_predictions(3000, seed=1)
    save_together(tmp_path / "a.npz", {"x": first.answers(), "y": second.answers()})
    save_together(tmp_path / "b.npz", {"y": second.answers(), "x": first.answers()})
    save_together(tmp_path / "again.npz", load_together(tmp_path / "a.npz"))
    first.save(tmp_path / "full.npz")
    content = (tmp_path / "a.npz").read_bytes()
    assert content == (tmp_path / "b.npz").read_bytes() == (tmp_path / "again.npz").read_bytes()
    assert len(content) < 2 * 0.25 * (tmp_path / "full.npz").stat().st_size


@pytest.mark.parametrize(
    ("predicted", "labels", "rows", "message"),
    [
        ([0], [0, 1], [0, 1], "1 answers, 2 labels, 2 rows"),
        ([0, 1], [0, 1], [0], "2 answers, 2 labels, 1 rows"),
        ([0, 3], [0, 1], [0, 1], "must lie in 0…2"),
        ([0, 1], [0, -1], [0, 1], "must lie in 0…2"),
    ],
)
def test_sizes_and_classes_of_answers_are_checked(predicted, labels, rows, message):
    with pytest.raises(ValueError, match=message):
        Answers(predicted, labels, CLASSES, "faces", "f", rows)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"probabilities": np.ones((2, 4))}, r"expected probabilities \[2,3\]"),
        ({"labels": [0, 3]}, "labels must lie in 0…2"),
        ({"labels": [0, -1]}, "labels must lie in 0…2"),
        ({"rows": [1]}, "one entry for each of the 2 faces"),
        ({"embeddings": np.ones((3, 2))}, "one entry for each of the 2 faces"),
    ],
)
def test_sizes_and_labels_are_checked(change, message):
    good = {"probabilities": np.ones((2, 3)) / 3, "labels": [0, 1]}
    with pytest.raises(ValueError, match=message):
        Predictions(**{**good, **change}, classes=CLASSES, name="faces", fingerprint="f")


def test_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "p.npz"
    with pytest.raises(FileNotFoundError, match=r"p\.npz does not exist"):
        Predictions.load(path)
    random_predictions(500).save(path)
    good = path.read_bytes()
    flipped = bytearray(good)
    flipped[300] ^= 8
    for content in (b"", b"no zip", good[: len(good) // 2], bytes(flipped)):
        path.write_bytes(content)
        for load in (Predictions.load, load_together):
            with pytest.raises(ValueError, match=r"p\.npz is no readable file of predictions"):
                load(path)


def test_pickled_content_is_refused(tmp_path):
    path = tmp_path / "p.npz"
    np.savez(path, probabilities=np.array([{"a": 1}], dtype=object), labels=[0], allow_pickle=True)
    with pytest.raises(ValueError, match=r"p\.npz"):
        Predictions.load(path)


def test_the_faces_of_several_runs_are_written_once(tmp_path):
    first = random_predictions().answers()
    second = dataclasses.replace(first, predicted=first.predicted[::-1])
    save_together(tmp_path / "p.npz", {"x": first, "y": second})
    with np.load(tmp_path / "p.npz") as data:
        assert sum(name.endswith("/labels") for name in data.files) == 1
    back = load_together(tmp_path / "p.npz")
    for name, one in (("x", first), ("y", second)):
        for part in ("predicted", "labels", "rows"):
            np.testing.assert_array_equal(getattr(back[name], part), getattr(one, part))
