"""Charts hold the numbers that they were given, in the colours of their classes."""

import itertools
import sys
import types

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from fer_lab import figures
from fer_lab.data.expressions import CANONICAL, COLORS
from fer_lab.evaluation.metrics import evaluate
from fer_lab.figures.style import INK, SERIES
from fer_lab.runs import Predictions

CLASSES = CANONICAL[:3]


def lines(ax):
    return {line.get_gid(): line.get_ydata().tolist() for line in ax.lines if line.get_gid()}


def texts(ax):
    return [text.get_text() for text in ax.texts]


@pytest.fixture
def history():
    return pd.DataFrame(
        {
            "epoch": [1, 2, 3],
            "seconds": [1.0, 2.0, 2.0],
            "lr": [0.1, 0.05, 0.0],
            "cross_entropy": [2.0, 1.0, 0.5],
            "partition": [90.0, 40.0, 9.0],
            "total": [92.0, 41.0, 9.5],
            "train_accuracy": [0.2, 0.5, 0.75],
            "valid_accuracy": [0.25, 0.5, 0.625],
        }
    )


def test_training_curves_draw_every_term_accuracy_and_rate(history):
    loss, accuracy, rate = figures.training_curves(history).axes
    assert lines(loss) == {name: history[name].tolist() for name in ("cross_entropy", "partition", "total")}
    assert lines(accuracy) == {"valid_accuracy": [25, 50, 62.5], "train_accuracy": [20, 50, 75]}
    assert lines(rate) == {"lr": [0.1, 0.05, 0.0]}
    assert loss.get_yscale() == "log"  # terms 180 times apart
    assert [text.get_text() for text in accuracy.get_legend().get_texts()] == [
        "valid (last 62.5%)",
        "train (last 75.0%)",
    ]
    assert all(ax.get_xlabel() == "epoch" and ax.get_ylabel() for ax in (loss, accuracy, rate))


def test_a_single_term_needs_no_total_and_terms_that_are_near_no_logarithm(history):
    history = history[["epoch", "cross_entropy", "total"]].assign(total=history["cross_entropy"])
    (loss,) = figures.training_curves(history).axes
    assert lines(loss) == {"cross_entropy": [2.0, 1.0, 0.5]}
    assert loss.get_yscale() == "linear"


def test_training_curves_need_their_columns(history):
    with pytest.raises(ValueError, match="total missing"):
        figures.training_curves(history.drop(columns="total"))
    with pytest.raises(ValueError, match="no rows"):
        figures.training_curves(history[:0])


def test_confusion_shades_rows_and_writes_counts():
    matrix = np.array([[3, 1, 0], [0, 0, 0], [1, 1, 2]])
    (ax,) = figures.confusion(matrix, CLASSES).axes
    share = np.array([[0.75, 0.25, 0], [0, 0, 0], [0.25, 0.25, 0.5]])
    np.testing.assert_allclose(ax.images[0].get_array(), share)
    assert texts(ax) == ["75%", "3", "25%", "1", "25%", "1", "25%", "1", "50%", "2"]
    positions = [text.get_position() for text in ax.texts[::2]]
    assert [(round(y + 0.1), x) for x, y in positions] == [(0, 0), (0, 1), (2, 0), (2, 1), (2, 2)]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["neutral\n4", "happiness\n0", "surprise\n4"]
    assert [line.get_color() for line in ax.lines[::2]] == [COLORS[name] for name in CLASSES]
    assert "62.5% of 8 faces" in ax.get_title(loc="left")
    with pytest.raises(ValueError, match=r"\[2,2\] for 2 classes, got \[3, 3\]"):
        figures.confusion(matrix, CLASSES[:2])


def test_per_class_recall_draws_values_intervals_and_their_mean():
    labels = np.array([0] * 8 + [1] * 4 + [2] * 4)
    probabilities = np.eye(3)[np.where(np.arange(16) % 4 == 0, 2, labels)]
    metrics = evaluate(Predictions(probabilities, labels, CLASSES, "toy", "0"), resamples=200)
    (ax,) = figures.per_class_recall(metrics).axes
    recall = metrics[metrics["metric"] == "recall"]
    bars = [line for line in ax.lines if len(line.get_xdata()) == 2 and line.get_alpha()]
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    for i, row in enumerate(recall.itertuples()):
        assert bars[i].get_xdata() == pytest.approx([100 * row.low, 100 * row.high])
        assert dots[i].get_xydata().tolist() == [[100 * row.value, i]]
        assert dots[i].get_color() == COLORS[CLASSES[i]]
    assert ax.lines[-1].get_xdata()[0] == pytest.approx(100 * np.mean([0.75, 0.75, 1]))
    assert texts(ax) == ["75.0%", "75.0%", "100.0%", "mean 83.3%"]


def test_a_class_without_faces_says_so():
    metrics = pd.DataFrame(
        {"metric": "recall", "class": CLASSES, "value": [0.5, np.nan, 1.0], "low": 0.4, "high": 1.0}
    )
    (ax,) = figures.per_class_recall(metrics).axes
    assert texts(ax) == ["50.0%", "no faces", "100.0%", "mean 75.0%"]


def test_ablation_marks_the_reference_and_a_single_seed():
    summary = pd.DataFrame(
        {
            "label": ["whole", "less", "one seed"],
            "value": [0.86, 0.8, 0.7],
            "low": [0.85, 0.78, np.nan],
            "high": [0.87, 0.82, np.nan],
        }
    )
    (ax,) = figures.ablation(summary, reference="whole").axes
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    assert [dot.get_xdata()[0] for dot in dots] == pytest.approx([86, 80, 70])
    assert [dot.get_color() for dot in dots] == [INK, SERIES[0], SERIES[0]]
    assert [dot.get_markerfacecolor() for dot in dots] == [INK, SERIES[0], "white"]
    bars = [line.get_xdata() for line in ax.lines if line.get_alpha()]
    assert np.allclose(bars, [[85, 87], [78, 82]])
    assert ax.lines[-1].get_xdata()[0] == pytest.approx(86)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["whole", "less", "one seed"]
    with pytest.raises(ValueError, match="no row 'other'; labels are whole, less"):
        figures.ablation(summary, reference="other")
    with pytest.raises(ValueError, match="high missing"):
        figures.ablation(summary.drop(columns="high"))


def test_the_bar_of_a_share_ends_at_the_ends_of_the_scale():
    summary = pd.DataFrame({"label": ["a"], "value": [0.9], "low": [-0.2], "high": [1.3]})
    for percent, ends in ((True, [0, 100]), (False, [-0.2, 1.3])):
        (ax,) = figures.ablation(summary, percent=percent).axes
        assert ax.lines[0].get_xdata() == pytest.approx(ends)


def test_ablation_of_a_number_that_is_no_share():
    summary = pd.DataFrame({"label": ["a"], "value": [0.1234], "low": [0.1], "high": [0.2]})
    (ax,) = figures.ablation(summary, xlabel="overlap", percent=False).axes
    assert texts(ax) == ["0.123"]
    assert ax.get_xlabel() == "overlap"


def test_head_overlap_shows_every_face_and_the_mean():
    values = {"with": [0.1, 0.2, 0.6], "without": np.linspace(0.7, 0.9, 50)}
    (ax,) = figures.head_overlap_figure(values).axes
    for points, (name, expected) in zip(ax.collections, values.items(), strict=True):
        assert points.get_gid() == name
        np.testing.assert_allclose(points.get_offsets()[:, 0], expected)
    assert texts(ax) == ["0.30", "0.80"]
    assert [line.get_xdata()[0] for line in ax.lines] == pytest.approx([0.3, 0.8])
    with pytest.raises(ValueError, match="at least one value"):
        figures.head_overlap_figure({"with": []})


def test_embedding_map_colours_every_point_by_its_class():
    xy = np.random.default_rng(0).normal(size=(40, 2))
    labels = np.arange(40) % 2
    (ax,) = figures.embedding_map(xy, labels, CLASSES).axes
    drawn = dict(
        zip(map(tuple, ax.collections[0].get_offsets()), ax.collections[0].get_facecolors(), strict=True)
    )
    for point, label in zip(xy, labels, strict=True):
        assert mpl.colors.to_hex(drawn[tuple(point)]) == COLORS[CLASSES[label]]
    assert texts(ax) == ["neutral", "happiness"]
    of_class = xy[labels == 1]
    assert ax.texts[1].xy == pytest.approx((np.median(of_class[:, 0]), np.quantile(of_class[:, 1], 0.9)))
    with pytest.raises(ValueError, match=r"points \[3,2\]"):
        figures.embedding_map(xy, [0, 1, 0], CLASSES)


def test_names_of_classes_that_lie_together_do_not_cover_each_other():
    xy = np.random.default_rng(0).normal(size=(40, 2)) * 0.01
    xy[:20] += 5  # room, so that the first two classes share one small spot
    labels = np.repeat([2, 0, 1], [20, 10, 10])
    fig = figures.embedding_map(xy, labels, CLASSES)
    boxes = [text.get_window_extent() for text in fig.axes[0].texts]
    assert len(boxes) == 3
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_umap_is_asked_for_repeatable_points(monkeypatch):
    asked = {}

    class UMAP:
        def __init__(self, **settings):
            asked.update(settings)

        def fit_transform(self, embeddings):
            return embeddings[:, :2].astype(np.float64) * 2

    monkeypatch.setitem(sys.modules, "umap", types.SimpleNamespace(UMAP=UMAP))
    embeddings = np.arange(30.0).reshape(10, 3)
    xy = figures.umap_embedding(embeddings, seed=5)
    assert xy.dtype == np.float32
    np.testing.assert_array_equal(xy, 2 * embeddings[:, :2])
    assert (asked["random_state"], asked["n_jobs"], asked["n_neighbors"]) == (5, 1, 9)
    with pytest.raises(ValueError, match="at least 4 faces"):
        figures.umap_embedding(embeddings[:3])


def test_reliability_bins_confidence_as_the_metric_does():
    confidence = np.array([0.55, 0.6, 0.6, 0.9, 0.95])
    right = np.array([1, 0, 1, 1, 1])
    probabilities = np.stack([confidence, 1 - confidence], 1)
    predictions = Predictions(probabilities, 1 - right, CLASSES[:2], "toy", "0")
    top, low = figures.reliability(predictions, bins=10).axes
    measured = [bar.get_height() for bar in top.patches]
    assert measured == pytest.approx([0, 0, 0, 0, 0, 200 / 3, 0, 0, 100, 100])  # 0.6 and 0.9 close their bins
    assert [bar.get_height() for bar in low.patches] == [0, 0, 0, 0, 0, 3, 0, 0, 1, 1]
    claimed = [segment[0][1] for segment in top.collections[0].get_segments() if len(segment)]
    assert [value for value in claimed if np.isfinite(value)] == pytest.approx([100 * 1.75 / 3, 90, 95])
    ece = evaluate(predictions, interval=False).set_index("metric").loc["ece", "value"]
    assert f"{ece:.1%}" in figures.reliability(predictions).axes[0].get_title(loc="left")


def test_bench_table_figure_compares_the_paths():
    table = pd.DataFrame(
        [
            (model, "tiny", mode, path, rate * (1 if path == "plain" else 2.5))
            for model, rate in (("baseline", 1000.0), ("dan", 7.25))
            for mode in ("train", "inference")
            for path in ("plain", "default")
        ],
        columns=["model", "size", "mode", "path", "images_per_s"],
    )
    fig = figures.bench_table_figure(table)
    assert [ax.get_title(loc="left") for ax in fig.axes] == ["train, tiny size", "inference, tiny size"]
    for ax in fig.axes:
        assert [bar.get_width() for bar in ax.patches] == [1000, 2500, 7.25, 18.125]
        assert texts(ax) == ["1,000", "2,500  (2.5×)", "7.25", "18.1  (2.5×)"]
    assert len(fig.legends[0].get_texts()) == 2
    faster = table[table["path"] == "default"].assign(path="compiled")
    faster["images_per_s"] *= 1.2
    three = figures.bench_table_figure(pd.concat([table, faster]))
    bars = three.axes[0].patches
    assert len(bars) == 6
    places = sorted((bar.get_y(), bar.get_y() + bar.get_height()) for bar in bars)
    assert all(end < begin for (_, end), (begin, _) in itertools.pairwise(places))
    assert texts(three.axes[0])[-1] == "21.8  (3.0×)"
    assert [text.get_text() for text in three.legends[0].get_texts()][-1] == "default, torch.compile"
    with pytest.raises(ValueError, match="images_per_s missing"):
        figures.bench_table_figure(table.drop(columns="images_per_s"))


@pytest.mark.parametrize("draw", ["per_class_recall", "confusion", "training_curves"])
def test_every_letter_is_at_least_eight_points(draw, history):
    metrics = pd.DataFrame({"metric": "recall", "class": CLASSES, "value": 0.5, "low": 0.4, "high": 0.6})
    argument = {
        "per_class_recall": (metrics,),
        "confusion": (np.eye(3, dtype=int), CLASSES),
        "training_curves": (history,),
    }
    fig = getattr(figures, draw)(*argument[draw])
    sizes = [text.get_fontsize() for text in fig.findobj(mpl.text.Text) if text.get_text()]
    assert len(sizes) > 5
    assert min(sizes) >= 8
    assert fig.get_size_inches()[0] <= 9
