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
    fig = figures.accuracy_against_cost(table, "Cost")
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
    ax = figures.accuracy_against_cost(table, "Cost").axes[0]
    assert len([text for text in ax.texts if text.get_text()]) == 5
    assert names_apart(ax)


def test_learning_curves_are_means_over_seeds_and_variants_go_on_from_their_start():
    rows = [("A", "plateau", seed, e, 0.1 * e + 0.02 * seed) for seed in (0, 1) for e in (1, 2, 3)]
    rows += [
        ("A", name, seed, e, 0.5 + 0.02 * seed) for name in ("dan", "K") for seed in (0, 1) for e in (1, 2)
    ]
    rows += [("B", "plateau", 0, e, 0.2 * e) for e in (1, 2)]
    curves = pd.DataFrame(rows, columns=["panel", "variant", "seed", "epoch", "holdout_accuracy"])
    first, second = figures.learning_curves(curves, "t").axes
    plateau, other, dan = first.lines[:3]  # the one without an addition lies over the others
    np.testing.assert_allclose(plateau.get_xydata(), [[1, 0.11], [2, 0.21], [3, 0.31]])
    np.testing.assert_allclose(dan.get_xydata(), [[4, 0.51], [5, 0.51]])
    assert len({line.get_color() for line in (plateau, other, dan)}) == 3
    np.testing.assert_allclose(second.lines[0].get_xydata(), [[1, 0.2], [2, 0.4]])
    assert [ax.get_title("left") for ax in (first, second)] == ["A", "B"]
    with pytest.raises(ValueError, match="epoch missing"):
        figures.learning_curves(curves.drop(columns="epoch"), "t")
