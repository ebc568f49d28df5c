import dataclasses
import math

import numpy as np
import pytest
import torch
from helpers.predictions import decided, random_predictions
from scipy import stats
from torch import nn
from torchmetrics.functional import classification as tm

from fer_lab.data.augmentation import prepare
from fer_lab.data.expressions import CANONICAL
from fer_lab.data.faces import FaceSet
from fer_lab.evaluation.metrics import confusion_matrix, evaluate, overall, predict, rare_classes
from fer_lab.models.method import Method
from fer_lab.runs import Predictions

CLASSES = ("neutral", "happiness", "surprise")


class Toy(Method):
    """Logits from the mean colour; batch statistics would show if eval mode were forgotten."""

    def __init__(self, num_classes=3, color_order="RGB"):
        super().__init__(num_classes, "tiny")
        torch.manual_seed(0)
        self.image_size = 8
        self.color_order = color_order
        self.norm = nn.BatchNorm1d(3)
        self.head = nn.Linear(3, num_classes)

    def embed(self, images):
        assert images.shape[1:] == (3, 8, 8)
        return self.norm(images.mean((2, 3)))

    def forward(self, images):
        return self.head(self.embed(images)) * 5


def faces(n=10, size=16, classes=CLASSES):
    generator = torch.Generator().manual_seed(0)
    return FaceSet(
        storage=torch.randint(256, (n, 3, size, size), dtype=torch.uint8, generator=generator),
        labels=torch.arange(n) % len(classes),
        classes=classes,
        splits=np.array(["valid"] * n),
        subjects=torch.full((n,), -1),
        name="toys",
        fingerprint="f00d",
    )


def value(table, metric, class_="", column="value"):
    row = table[(table["metric"] == metric) & (table["class"] == class_)]
    return row[column].item()


@pytest.mark.parametrize("color_order", ["RGB", "BGR"])
def test_predict_is_the_model_on_prepared_faces(color_order):
    model, data = Toy(color_order=color_order), faces().subset([7, 3, 4, 0, 9])
    result = predict(model, data, batch_size=2, embeddings=True)
    with torch.no_grad():
        images = prepare(data.images, 8, color_order)
        expected, embedded = model.eval()(images).softmax(1), model.embed(images)
    assert np.allclose(result.probabilities, expected, atol=1e-6)
    assert np.allclose(result.embeddings, embedded, atol=1e-6)
    assert result.labels.tolist() == [1, 0, 1, 0, 0]
    assert result.rows.tolist() == [7, 3, 4, 0, 9]
    assert (result.classes, result.name, result.fingerprint) == (CLASSES, "toys", data.fingerprint)
    assert predict(model, data).embeddings is None


class LeftOrRight(Toy):
    """Class 0 for faces that are brighter on their left half."""

    def forward(self, images):
        left, right = images[..., :4].mean((1, 2, 3)), images[..., 4:].mean((1, 2, 3))
        return torch.stack([left, right, right - 0.1], 1) * 3


def test_a_face_and_its_mirror_image_give_the_mean_of_their_answers():
    model, data = LeftOrRight(), faces()
    alone = predict(model, data).probabilities
    mirrored = predict(model, dataclasses.replace(data, storage=data.storage.flip(-1))).probabilities
    assert abs(alone - mirrored).max() > 0.01
    together = predict(model, data, flip=True, batch_size=3).probabilities
    assert np.allclose(together, (alone + mirrored) / 2, atol=1e-6)


def test_color_orders_differ():
    rgb, bgr = (predict(Toy(color_order=order), faces()).probabilities for order in ("RGB", "BGR"))
    assert np.abs(rgb - bgr).max() > 0.01


def test_predict_gives_every_module_its_mode_back():
    model = Toy().train()
    model.norm.eval()
    before = model.norm.running_mean.clone()
    predict(model, faces())
    assert (model.training, model.norm.training, model.head.training) == (True, False, True)
    model.norm.train()
    predict(model, faces())
    assert torch.equal(model.norm.running_mean, before)
    model.head.weight.data.fill_(float("nan"))
    with pytest.raises(ValueError, match="not finite for 10 of 10 faces"):
        predict(model, faces())
    model.head = nn.Linear(5, 3)
    with pytest.raises(RuntimeError):
        predict(model, faces())
    assert model.norm.training


def test_predict_refuses_other_classes():
    with pytest.raises(ValueError, match=r"toy has 4 classes \(.*\), but toys has 3 .*; add faces of sadness"):
        predict(Toy(4), faces())
    with pytest.raises(ValueError, match="into the model's order"):
        predict(Toy(), faces(classes=("happiness", "neutral", "surprise")))
    with pytest.raises(ValueError, match=r"toys has 3 \(a, b, c\); name the class folders after"):
        predict(Toy(), faces(classes=("a", "b", "c")))
    with pytest.raises(ValueError, match="no face of contempt can be right: load the set with classes=7"):
        predict(Toy(7), faces(classes=CANONICAL))
    with pytest.raises(ValueError, match="no faces"):
        predict(Toy(), faces().subset([]))


def test_contempt_is_left_out_where_the_faces_do_not_have_it():
    model, data = Toy(8), faces(classes=CANONICAL[:7])
    with pytest.warns(
        UserWarning, match="toys has no contempt: it is left out of the answers of toy"
    ) as record:
        result = predict(model, data)
    assert record[0].filename == __file__
    whole = predict(model, faces(classes=CANONICAL)).probabilities[:, :7]
    assert result.classes == CANONICAL[:7]
    np.testing.assert_allclose(result.probabilities, whole / whole.sum(1, keepdims=True), atol=1e-6)


def test_confusion_matrix_by_hand():
    matrix = confusion_matrix(decided([0, 0, 0, 1, 2], [0, 2, 2, 1, 0]))
    assert matrix.tolist() == [[1, 0, 2], [0, 1, 0], [1, 0, 0]]


def test_metrics_by_hand():
    # Recalls 1/3, 1/1, 0/1. F1: 2·1/(3+2), 2·1/(1+1), 0.
    table = evaluate(decided([0, 0, 0, 1, 2], [0, 2, 2, 1, 0]))
    assert value(table, "accuracy") == pytest.approx(2 / 5)
    assert [value(table, "recall", f"c{i}") for i in range(3)] == pytest.approx([1 / 3, 1, 0])
    assert value(table, "mean_class_recall") == pytest.approx(4 / 9)
    assert value(table, "macro_f1") == pytest.approx((2 / 5 + 1 + 0) / 3)
    assert value(table, "ece") == pytest.approx(0.8 - 2 / 5, abs=1e-6)
    assert list(table.columns) == ["metric", "class", "value", "low", "high"]


def test_overall_has_the_metrics_of_all_classes_by_name():
    table = evaluate(decided([0, 0, 0, 1, 2], [0, 2, 2, 1, 0]))
    whole = overall(table)
    assert list(whole.index) == ["accuracy", "mean_class_recall", "macro_f1", "ece"]
    assert list(whole.columns) == ["value", "low", "high"]
    assert whole.value["accuracy"] == pytest.approx(2 / 5)
    assert whole.low["macro_f1"] == value(table, "macro_f1", column="low")


def test_a_class_absent_from_the_truth_is_not_averaged_in():
    # Class 2 is predicted but never true, class 3 neither: recalls 1/2 and 1; F1 2/3, 1, 0 and none.
    absent = decided([0, 0, 1], [0, 2, 1], c=4)
    table = evaluate(absent)
    assert value(table, "mean_class_recall") == pytest.approx(3 / 4)
    assert value(table, "macro_f1") == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert all(math.isnan(value(table, "recall", "c2", column)) for column in ("value", "low", "high"))
    assert math.isnan(value(table, "recall", "c3"))
    # What torchmetrics makes of it: a recall of 0 for class 2.
    theirs = tm.multiclass_recall(torch.tensor(absent.predicted), torch.tensor(absent.labels), 4)
    assert theirs.item() == pytest.approx(1 / 2)


def test_metrics_agree_with_torchmetrics_and_a_slow_loop():
    p = random_predictions(c=4)
    table = evaluate(p)
    probabilities, labels = torch.tensor(p.probabilities), torch.tensor(p.labels)
    recalls = tm.multiclass_recall(probabilities, labels, 4, average="none")
    assert table[table["metric"] == "recall"]["value"].tolist() == pytest.approx(recalls.tolist())
    assert value(table, "mean_class_recall") == pytest.approx(recalls.mean().item())
    assert value(table, "accuracy") == pytest.approx(p.correct.mean())
    assert value(table, "macro_f1") == pytest.approx(tm.multiclass_f1_score(probabilities, labels, 4).item())
    assert value(table, "ece") == pytest.approx(
        tm.multiclass_calibration_error(probabilities, labels, 4, n_bins=15).item(), abs=1e-6
    )
    assert confusion_matrix(p).tolist() == tm.multiclass_confusion_matrix(probabilities, labels, 4).tolist()
    gaps = []
    for b in range(15):
        inside = [
            (s.max(), r) for s, r in zip(p.probabilities, p.correct, strict=True) if b < s.max() * 15 <= b + 1
        ]
        gaps.append(abs(sum(s for s, _ in inside) - sum(r for _, r in inside)))
    assert value(table, "ece") == pytest.approx(sum(gaps) / 200, abs=1e-6)


def test_calibration_by_hand():
    # One bin (14/15, 1]: confidences 1.0 (right) and 0.96 (wrong) → |1.96 − 1| / 2.
    p = Predictions([[1.0, 0.0], [0.96, 0.04]], [0, 1], "ab", "x", "f")
    assert value(evaluate(p), "ece") == pytest.approx(0.48, abs=1e-6)
    # Two bins, over- and underconfident: they must not cancel. (0.95 − 0) + (1 − 0.6), over 2 faces.
    p = Predictions([[0.95, 0.05], [0.6, 0.4]], [1, 0], "ab", "x", "f")
    assert value(evaluate(p), "ece") == pytest.approx((0.95 + 0.4) / 2, abs=1e-6)


def test_intervals_agree_with_scipys_bootstrap():
    p = random_predictions(n=150)
    table = evaluate(p, resamples=4000)

    def mean_recall(index, axis=-1):
        recalls = [
            np.where(p.labels[index] == k, p.correct[index], 0).sum(axis) / (p.labels[index] == k).sum(axis)
            for k in range(3)
        ]
        return np.mean(recalls, axis=0)

    for metric, statistic in (
        ("accuracy", lambda index, axis=-1: p.correct[index].mean(axis)),
        ("mean_class_recall", mean_recall),
    ):
        theirs = stats.bootstrap(
            (np.arange(150),), statistic, n_resamples=4000, method="BCa", vectorized=True, random_state=0
        ).confidence_interval
        assert value(table, metric, column="low") == pytest.approx(theirs.low, abs=0.008)
        assert value(table, metric, column="high") == pytest.approx(theirs.high, abs=0.008)


def test_the_interval_of_accuracy_covers_the_truth():
    hits = 0
    for seed in range(200):
        correct = np.random.default_rng(seed).random(120) < 0.8
        table = evaluate(decided(np.zeros(120, int), np.where(correct, 0, 1), c=2), resamples=300, seed=seed)
        hits += value(table, "accuracy", column="low") <= 0.8 <= value(table, "accuracy", column="high")
    assert 0.90 <= hits / 200 <= 0.99


def test_the_interval_of_calibration_error_is_not_above_the_truth():
    """Confidences are 0.02 too high; the percentile interval holds that in none of these samples."""
    hits = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        confidence = rng.uniform(0.55, 0.95, 300)
        labels = (rng.random(300) > confidence - 0.02).astype(int)
        p = Predictions(np.column_stack([confidence, 1 - confidence]), labels, "ab", "x", "f")
        table = evaluate(p, resamples=200, seed=seed)
        hits += value(table, "ece", column="low") <= 0.02 <= value(table, "ece", column="high")
    assert hits >= 24


def test_intervals_hold_the_value_and_shrink_with_the_number_of_faces():
    widths = []
    for n in (100, 1600):
        table = evaluate(random_predictions(n), resamples=400)
        assert (table["low"] <= table["value"]).all()
        assert (table["value"] <= table["high"]).all()
        assert (table["high"] - table["low"] > 0).all()
        widths.append((table["high"] - table["low"]).to_numpy())
    assert (widths[0][:3] / widths[1][:3]).tolist() == pytest.approx([4, 4, 4], rel=0.2)


def test_the_same_seed_gives_the_same_intervals():
    p = random_predictions()
    assert evaluate(p).equals(evaluate(p))
    assert not evaluate(p).equals(evaluate(p, seed=1))


def test_flawless_is_not_certain():
    # Clopper and Pearson for n of n: the lower end is 0.025^(1/n).
    table = evaluate(decided([0] * 5 + [1] * 20, [0] * 5 + [1] * 20, c=2))
    assert value(table, "recall", "c0", "low") == pytest.approx(0.025 ** (1 / 5))
    assert value(table, "accuracy", column="low") == pytest.approx(0.025 ** (1 / 25))
    assert value(table, "recall", "c1", "high") == 1
    table = evaluate(decided([0] * 5 + [1] * 20, [1] * 25, c=2))
    assert value(table, "recall", "c0") == 0
    assert value(table, "recall", "c0", "high") == pytest.approx(1 - 0.025 ** (1 / 5))


def test_evaluate_refuses_nothing_and_too_few_resamples():
    with pytest.raises(ValueError, match="no predictions on x"):
        evaluate(Predictions(np.zeros((0, 2)), [], "ab", "x", "f"))
    with pytest.raises(ValueError, match="at least 100 resamples, got 10"):
        evaluate(random_predictions(), resamples=10)


def test_rare_classes_have_less_than_half_an_equal_share():
    # 12 faces, 4 classes: an equal share is 3.
    labels = [0] * 6 + [1] * 3 + [2] * 2 + [3]
    assert rare_classes(torch.tensor(labels), "abcd") == ("d",)
    assert rare_classes(np.arange(8) % 4, "abcd") == ()
    assert rare_classes([0, 0, 0, 1], "abc") == ("c",)


def test_it_computes_on_the_best_device_and_leaves_the_model_where_it_is(monkeypatch):
    asked = []
    monkeypatch.setattr("fer_lab.evaluation.metrics.best_device", lambda: asked.append(1) or "cpu")
    model = Toy()
    predict(model, faces())
    assert asked == [1]
    predict(model, faces(), device="cpu")
    assert asked == [1]
    with pytest.raises(RuntimeError, match=r"meta|Cannot copy"):
        predict(model, faces(), device="meta")
    assert next(model.parameters()).device.type == "cpu"
