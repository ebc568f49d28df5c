"""Figures of several models draw the numbers they were given."""

import itertools

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.transforms import Bbox

from fer_lab import figures

CLASSES = ("neutral", "happiness")


def test_recalls_are_written_in_their_cells():
    table = pd.DataFrame(
        {"model": ["dan", "dan", "b", "b"], "class": CLASSES * 2, "value": [0.1, 0.2, np.nan, 0.4]}
    ).assign(low=0.05, high=0.5)
    (ax,) = figures.recall_by_class(table, CLASSES).axes
    cells = {t.get_position(): t.get_text() for t in ax.texts if t.get_text()}
    assert cells == {(0.5, 0.5): "10%\n5–50", (1.5, 0.5): "20%\n5–50", (1.5, 1.5): "40%\n5–50"}
    assert [text.get_text() for text in ax.get_yticklabels()] == ["DAN", "b"]


def test_confusions_are_compared_in_points_of_their_rows():
    matrices = {"baseline": np.array([[8, 2], [0, 4]]), "dan": np.array([[9, 1], [2, 2]])}
    fig = figures.confusion_differences(matrices, "baseline", CLASSES)
    np.testing.assert_allclose(np.ravel(fig.axes[0].collections[0].get_array()), [10, -10, 50, -50])
    assert [text.get_text() for text in fig.axes[0].texts] == ["+10", "-10", "+50", "-50"]
    assert fig.get_suptitle() == "Confusion: difference to ResNet-18, in points of each row's faces"
    with pytest.raises(ValueError, match="expected 'qcs' and at least one other"):
        figures.confusion_differences(matrices, "qcs", CLASSES)


def test_marked_faces_carry_their_numbers_in_every_panel():
    points = {"baseline": np.arange(6.0).reshape(3, 2), "dan": -np.arange(6.0).reshape(3, 2)}
    fig = figures.embedding_panels(points, [0, 1, 1], CLASSES, marked=[2, 0])
    numbers = [{t.get_text(): t.xy for t in ax.texts if t.get_text()} for ax in fig.axes]
    assert [{k: tuple(v) for k, v in one.items()} for one in numbers] == [
        {"1": (4, 5), "2": (0, 1)},
        {"1": (-4, -5), "2": (0, -1)},
    ]
    assert [ax.get_title(loc="left") for ax in fig.axes] == ["ResNet-18", "DAN"]
    with pytest.raises(ValueError, match=r"expected points \[3,2\]"):
        figures.embedding_panels({"baseline": points["baseline"][:2]}, [0, 1, 1], CLASSES)


def test_cost_stands_on_the_axis_and_parameters_are_areas():
    table = pd.DataFrame(
        {
            "model": ["baseline", "dan"],
            "value": [0.8, 0.9],
            "low": [0.7, 0.8],
            "high": [0.9, 1.0],
            "images_per_s": [1000.0, 500.0],
            "parameters_m": [0.5, 1.0],
        }
    )
    fig = figures.accuracy_against_cost(table)
    discs = [c for c in fig.axes[0].collections if isinstance(c, PathCollection)]
    assert [tuple(disc.get_offsets()[0]) for disc in discs] == [(500, 0.9), (1000, 0.8)]  # the slowest first
    assert discs[0].get_sizes()[0] == 2 * discs[1].get_sizes()[0]


def names_apart(ax) -> bool:
    """Whether the names in a chart, as drawn, lie inside it and cover neither each other nor a bar."""
    FigureCanvasAgg(ax.figure).draw()
    boxes = [text.get_window_extent() for text in ax.texts if text.get_text()]
    lines = [line for bar in ax.collections if isinstance(bar, LineCollection) for line in bar.get_segments()]
    bars = [Bbox(ax.transData.transform(line)).padded(1) for line in lines]
    among = any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
    on_bars = any(box.overlaps(bar) for box in boxes for bar in bars)
    return not among and not on_bars and all(ax.bbox.y0 < box.y0 and box.y1 < ax.bbox.y1 for box in boxes)


@pytest.mark.parametrize(
    "speeds",
    [
        (390, 900, 930, 1280, 1290),
        (402, 1222, 940, 1318, 456),
        (1000, 1060, 1120, 1180, 400),
        (500, 650, 800, 950, 1100),
        (1100, 1222, 1318, 390, 400),
    ],
)
def test_names_of_models_alike_in_speed_are_apart(speeds):
    table = pd.DataFrame(
        {
            "model": ["poster", "triplet_center", "dan", "baseline", "qcs"],
            "value": [0.91, 0.919, 0.915, 0.905, 0.82],
            "low": [0.89, 0.9, 0.89, 0.88, 0.79],
            "high": [0.93, 0.94, 0.93, 0.92, 0.84],
            "images_per_s": speeds,
            "parameters_m": [0.95, 0.7, 0.97, 0.7, 0.71],
        }
    )
    ax = figures.accuracy_against_cost(table).axes[0]
    assert len(ax.texts) == 5
    assert names_apart(ax)
    both = pd.concat(
        [table.assign(condition="with"), table.assign(condition="without", value=table.value - 0.01)]
    )
    assert names_apart(figures.accuracy_against_cost(both, ("with", "without")).axes[0])


def test_cost_under_two_conditions():
    speeds = {"poster": 390.0, "triplet_center": 900.0, "dan": 930.0, "baseline": 1280.0}
    rows = [
        (name, condition, value, value - 0.1, value + 0.05, speed)
        for name, speed in speeds.items()
        for condition, value in (("with", 0.6), ("without", 0.8))
        if (name, condition) != ("poster", "without")
    ]
    table = pd.DataFrame(rows, columns=["model", "condition", "value", "low", "high", "images_per_s"])
    fig = figures.accuracy_against_cost(table, ("with", "without"))
    ax = fig.axes[0]
    discs = [c for c in ax.collections if isinstance(c, PathCollection) and len(c.get_offsets())]
    expected = [(speed + dx, v) for speed in (390, 900, 930, 1280) for dx, v in ((-7.68, 0.6), (7.68, 0.8))]
    expected.remove((397.68, 0.8))
    np.testing.assert_allclose([disc.get_offsets()[0] for disc in discs], expected)
    hollow = [tuple(disc.get_facecolor()[0][:3]) == (1, 1, 1) for disc in discs]
    assert hollow == [True, True, False, True, False, True, False]
    assert len(ax.texts) == 4
    assert names_apart(ax)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["with", "without"]
    assert ax.get_ylim()[1] <= 1.02
    with pytest.raises(ValueError, match="expected two of with, without"):
        figures.accuracy_against_cost(table, ("with", "never"))
