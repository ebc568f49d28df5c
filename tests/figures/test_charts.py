"""Charts hold the numbers that they were given, in the colours of their classes."""

import itertools

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import torch

from fer_lab import figures
from fer_lab.data.expressions import CANONICAL, COLORS
from fer_lab.data.faces import FaceSet
from fer_lab.evaluation.embeddings import Plane
from fer_lab.figures import Frame
from fer_lab.figures.style import INK, METHOD_COLORS, SERIES

CLASSES = CANONICAL[:3]
SHADES = [COLORS[name] for name in CLASSES]
CENTERS = np.array([[0.0, 0.0], [2.0, 3.0], [4.0, 1.0]])


def lines(ax):
    return {line.get_gid(): line.get_ydata().tolist() for line in ax.lines if line.get_gid()}


def texts(ax):
    return [text.get_text() for text in ax.texts if text.get_text()]


def intervals(ax):
    """Rows of dots and bars: (value, low, high, colour), from the top down; no ends where there is no bar."""
    dots = [line for line in ax.lines if line.get_marker() == "o" and line.get_color() != "white"]
    bars = [line for line in ax.lines if line.get_alpha() and np.isfinite(line.get_xdata()).all()]
    ends = {round(bar.get_ydata()[0]): bar.get_xdata() for bar in bars}
    rows = []
    for dot in dots:
        ((x, y),) = [point for point in dot.get_xydata() if np.isfinite(point).all()] or [(np.nan, -1)]
        low, high = ends.get(round(y), (np.nan, np.nan))
        rows.append((x, low, high, mpl.colors.to_hex(dot.get_color())))
    return rows


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
        "held-out faces (last 62.5%)",
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
    np.testing.assert_allclose(np.ravel(ax.collections[0].get_array()), share.ravel())
    cells = {text.get_position(): text.get_text() for text in ax.texts if text.get_text()}
    assert cells == {
        (0.5, 0.5): "75%\n3",
        (1.5, 0.5): "25%\n1",
        (0.5, 2.5): "25%\n1",
        (1.5, 2.5): "25%\n1",
        (2.5, 2.5): "50%\n2",
    }
    assert [label.get_text() for label in ax.get_yticklabels()] == ["neutral\n4", "happiness\n0", "surprise\n4"]
    assert [line.get_color() for line in ax.lines[::2]] == [COLORS[name] for name in CLASSES]
    assert "62.5% of 8 faces" in ax.get_title(loc="left")
    with pytest.raises(ValueError, match=r"\[2,2\] for 2 classes, got \[3, 3\]"):
        figures.confusion(matrix, CLASSES[:2])


def test_a_class_without_faces_says_so():
    summary = pd.DataFrame({"label": CLASSES, "value": [0.5, np.nan, 1.0], "low": 0.4, "high": 1.0})
    (ax,) = figures.ablation(summary).axes
    assert texts(ax) == ["50.0%", "no faces", "100.0%"]


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
    drawn = intervals(ax)
    ends = np.array([row[:3] for row in drawn])
    np.testing.assert_allclose(ends, [[86, 85, 87], [80, 78, 82], [70, np.nan, np.nan]])
    assert [row[3] for row in drawn] == [INK, SERIES[0], SERIES[0]]
    hollow = [line.get_xydata().tolist() for line in ax.lines if line.get_color() == "white"]
    np.testing.assert_allclose(hollow, [[[70, 2]]])
    assert ax.lines[-1].get_xdata()[0] == pytest.approx(86)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["whole", "less", "one seed"]
    (ax,) = figures.ablation(summary.assign(model=["baseline", "dan", "qcs"])).axes
    assert [row[3] for row in intervals(ax)] == [METHOD_COLORS[name] for name in ("baseline", "dan", "qcs")]
    with pytest.raises(ValueError, match="no row 'other'; labels are whole, less"):
        figures.ablation(summary, reference="other")
    with pytest.raises(ValueError, match="high missing"):
        figures.ablation(summary.drop(columns="high"))


def test_verdicts_have_a_panel_a_metric_and_say_what_is_unfinished():
    claims = pd.DataFrame(
        {
            "a": ["DAN", "DAN", "DAN"],
            "b": ["ResNet-18", "no loss", "no loss"],
            "metric": ["accuracy", "accuracy", "head_overlap"],
            "difference": [0.002, np.nan, -0.2],
            "low": [-0.004, np.nan, -0.3],
            "high": [0.008, np.nan, -0.1],
            "seeds": [8, 0, 5],
            "planned": [8, 8, 8],
            "verdict": ["equivalent", "not run", "better"],
        }
    )
    points, ratio = figures.verdicts(claims).axes
    np.testing.assert_allclose(np.array(intervals(points)[0][:3], float), [0.2, -0.4, 0.8])
    np.testing.assert_allclose(np.array(intervals(ratio)[0][:3], float), [-0.2, -0.3, -0.1])
    assert [text for text in texts(points) if text] == ["equivalent", "not run (0 of 8 seeds)"]
    assert [text for text in texts(ratio) if text] == ["better (5 of 8 seeds)"]
    assert "points" in points.get_xlabel()
    assert "lower is better" in ratio.get_xlabel()
    with pytest.raises(ValueError, match="verdict missing"):
        figures.verdicts(claims.drop(columns="verdict"))


def test_the_bar_of_a_share_ends_at_the_ends_of_the_scale():
    summary = pd.DataFrame({"label": ["a"], "value": [0.9], "low": [-0.2], "high": [1.3]})
    for percent, ends in ((True, [0, 100]), (False, [-0.2, 1.3])):
        (ax,) = figures.ablation(summary, percent=percent).axes
        assert list(intervals(ax)[0][1:3]) == pytest.approx(ends)


def test_ablation_of_a_number_that_is_no_share():
    summary = pd.DataFrame({"label": ["a"], "value": [0.1234], "low": [0.1], "high": [0.2]})
    (ax,) = figures.ablation(summary, xlabel="overlap", percent=False).axes
    assert texts(ax) == ["0.123"]
    assert ax.get_xlabel() == "overlap"


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
        assert [label.get_text() for label in ax.get_yticklabels()] == ["ResNet-18", "DAN"]
        assert [bar.get_width() for bar in ax.patches] == [1000, 7.25, 2500, 18.125]
        assert texts(ax) == ["1,000", "7.25", "2,500  (2.5×)", "18.1  (2.5×)"]
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


@pytest.mark.parametrize("draw", ["ablation", "confusion", "training_curves"])
def test_every_letter_is_at_least_eight_points(draw, history):
    argument = {
        "ablation": (pd.DataFrame({"label": CLASSES, "value": 0.5, "low": 0.4, "high": 0.6}),),
        "confusion": (np.eye(3, dtype=int), CLASSES),
        "training_curves": (history,),
    }
    fig = getattr(figures, draw)(*argument[draw])
    sizes = [text.get_fontsize() for text in fig.findobj(mpl.text.Text) if text.get_text()]
    assert len(sizes) > 5
    assert min(sizes) >= 8
    assert fig.get_size_inches()[0] <= 9


def test_class_counts_stacks_the_splits():
    splits = np.array(["train", "train", "test", "train", "test", "valid"])
    images = torch.zeros(6, 3, 8, 8, dtype=torch.uint8)
    faces = FaceSet(images, torch.tensor([0, 0, 0, 1, 1, 0]), CLASSES, splits, torch.full((6,), -1), "toy", "0")
    fig = figures.class_counts(faces)
    bars = [(bar.get_x(), bar.get_width()) for bar in fig.axes[0].patches]
    train, valid, test = bars[:3], bars[3:6], bars[6:]
    assert train == [(0, 2), (0, 1), (0, 0)]
    assert valid == [(2, 1), (1, 0), (0, 0)]
    assert test == [(3, 1), (1, 1), (0, 0)]
    assert mpl.colors.to_hex(fig.axes[0].patches[1].get_facecolor()) == COLORS["happiness"]
    assert [text.strip() for text in texts(fig.axes[0])] == ["4  (67%)", "2  (33%)", "0  (0%)"]


def test_a_panel_a_setting_and_a_row_a_method():
    rows = [("1×", "CE", 0.5), ("1×", "semi", 0.6), ("2×", "semi", 0.3), ("2×", "CE", 0.4)]
    table = pd.DataFrame(rows, columns=["panel", "label", "value"]).assign(low=0.2, high=0.7)
    axes = figures.panels_of_intervals(table, "recall", reference="CE").axes
    assert [ax.get_title("left") for ax in axes] == ["1×", "2×"]
    assert [texts(ax) for ax in axes] == [["50.0%", "60.0%"], ["40.0%", "30.0%"]]
    assert [label.get_text() for label in axes[0].get_yticklabels()] == ["CE", "semi"]
    assert [axes[0].xaxis.get_major_formatter()(x, 0) for x in (40, 42.5)] == ["40%", "42.5%"]
    assert [(row[0], row[3]) for row in intervals(axes[1])] == [(40, INK), (30, SERIES[0])]
    methods = table.replace({"label": {"CE": "baseline", "semi": "dan"}})
    first, _ = figures.panels_of_intervals(methods, reference=0.0, percent=False, number="{:+.1f}").axes
    assert [label.get_text() for label in first.get_yticklabels()] == ["ResNet-18", "DAN"]
    assert [row[3] for row in intervals(first)] == [METHOD_COLORS["baseline"], METHOD_COLORS["dan"]]
    assert texts(first) == ["+0.5", "+0.6"]
    assert 0.0 in [line.get_xdata()[0] for line in first.lines]
    with pytest.raises(ValueError, match="each of CE, semi"):
        figures.panels_of_intervals(table[:3], "recall")


def test_curves_have_the_colours_of_their_models_and_a_panel_a_knob():
    rows = [
        {"knob": knob, "level": level, "model": name, "value": value, "low": value - 0.1, "high": value + 0.1}
        for knob in ("blur", "grey")
        for level, value in ((1, 0.9), (2, 0.4))
        for name in ("dan", "qcs")
    ]
    fig = figures.curves_with_intervals(
        pd.DataFrame(rows), {"blur": "largest blur"}, chance=0.25, spans={"blur": (1, 2), "grey": (0, 1)}
    )
    assert [ax.get_xlabel() for ax in fig.axes] == ["largest blur", "grey"]
    _, qcs, chance = fig.axes[1].lines
    assert mpl.colors.to_hex(qcs.get_color()) == METHOD_COLORS["qcs"]
    assert qcs.get_xydata().tolist() == [[1, 0.9], [2, 0.4]]
    assert chance.get_ydata()[0] == 0.25
    bands = [np.vstack([path.vertices for path in band.get_paths()]) for band in fig.axes[1].collections]
    np.testing.assert_allclose([(band[:, 1].min(), band[:, 1].max()) for band in bands], [(0.3, 1.0)] * 2)
    assert [(bar.get_x(), bar.get_width()) for bar in fig.axes[1].patches] == [(0, 1)]
    assert fig.axes[1].patches[0].get_height() < 0.1  # along the axis, under no interval
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["DAN", "QCS", "learned from"]
    assert fig.axes[0].get_ylim()[0] == 0


def test_groups_say_how_many_faces_they_have():
    rows = [
        {"property": "glasses", "group": g, "model": m, "faces": n, "value": v, "low": v, "high": v}
        for g, n, v in (("no", 30, 0.9), ("yes", 5, 0.6))
        for m in ("baseline", "dan")
    ]
    fig = figures.group_accuracy(pd.DataFrame(rows))
    assert [text.get_text() for text in fig.axes[0].get_xticklabels()] == ["no\n30", "yes\n5"]
    assert list(fig.axes[0].lines[0].get_ydata()) == [0.9, 0.6]


def test_curves_are_named_after_models_or_series():
    x, values = np.array([1, 2]), {"synthetic/dan": np.array([0.5, 0.6]), "ferplus/dan": np.array([0.1, 0.2])}
    fig = figures.curves(x, values, "margin", "accuracy", "t", ("chance", 0.14), dashed=["ferplus/dan"])
    (ax,) = fig.axes
    assert [line.get_label() for line in ax.lines] == ["DAN · drawings", "DAN · photographs", "chance"]
    assert [mpl.colors.to_hex(line.get_color()) for line in ax.lines[:2]] == [METHOD_COLORS["dan"]] * 2
    assert [line.get_linestyle() for line in ax.lines] == ["-", "--", "--"]
    assert ax.lines[1].get_ydata().tolist() == [0.1, 0.2]
    assert ax.lines[2].get_ydata().tolist() == [0.14, 0.14]
    (ax,) = figures.curves(x, {"K = 2": x, "K = 4": x}, "σ²", "loss", "t", xscale="log").axes
    assert [mpl.colors.to_hex(line.get_color()) for line in ax.lines] == list(SERIES[:2])
    assert ax.get_xscale() == "log"


def test_charts_open_no_pyplot_figure(history):
    import matplotlib.pyplot as plt

    figures.confusion(np.eye(3, dtype=int), CLASSES)
    figures.training_curves(history)
    assert plt.get_fignums() == []


def stars(ax):
    """Where the stars of a panel are, and in which colours."""
    # A star's path has ten corners and closes.
    (one,) = [c for c in ax.collections if [len(path.vertices) for path in c.get_paths()] == [11]]
    return np.asarray(one.get_offsets()), [mpl.colors.to_hex(color) for color in one.get_facecolors()]


def test_regions_are_pale_margins_are_lines_and_centers_are_stars():
    decision = np.array([[0, 1], [2, 2]])
    silent = np.zeros((3, 2, 2), dtype=bool)
    silent[1, 0, 1] = True
    plane = Plane(np.array([0.0, 4.0]), np.array([0.0, 3.0]), decision, silent)
    xy, labels = np.array([[1.0, 1.0], [2.0, 1.0], [3.0, 2.0]]), [0, 1, 1]
    frames = {"a": [Frame(xy, CENTERS, plane)]}
    (ax,) = figures.embedding_frames(frames, labels, CLASSES, ["now"]).axes
    pale = np.asarray(ax.images[0].get_array())
    assert pale.shape == (2, 2, 3)
    for (i, j), c in np.ndenumerate(decision):
        np.testing.assert_allclose(pale[i, j], 0.8 + 0.2 * np.array(mpl.colors.to_rgb(SHADES[c])))
    lines = [c for c in ax.collections if isinstance(c, mpl.contour.QuadContourSet)]
    assert [mpl.colors.to_hex(c.get_edgecolor()[0]) for c in lines] == [SHADES[1]]
    places, shades = stars(ax)
    np.testing.assert_allclose(places, CENTERS)
    assert shades == SHADES
    assert ax.get_xlim() == (0.0, 4.0)
    texts = [t.get_text() for t in ax.figure.legends[0].get_texts()]
    assert texts == [*CLASSES, "center"]


def test_frames_are_a_row_a_method_and_a_column_a_moment():
    xy = np.arange(8.0).reshape(4, 2)
    moments = [Frame(xy + i, CENTERS + i) for i in range(2)]
    fig = figures.embedding_frames({"a": moments, "b": [Frame(xy)] * 2}, [0, 1, 2, 0], CLASSES, ["1", "2"])
    assert len(fig.axes) == 4
    assert [ax.get_ylabel() for ax in fig.axes[::2]] == ["a", "b"]
    assert [ax.get_title() for ax in fig.axes[:2]] == ["1", "2"]
    np.testing.assert_allclose(stars(fig.axes[1])[0], CENTERS + 1)
    assert sorted(fig.axes[1].collections[0].get_offsets().tolist()) == sorted((xy + 1).tolist())
    with pytest.raises(ValueError, match=r"expected 2 frames in every row, got \[2, 1\]"):
        figures.embedding_frames({"a": moments, "b": moments[:1]}, [0, 1, 2, 0], CLASSES, ["1", "2"])
