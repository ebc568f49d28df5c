import numpy as np
import pytest

from fer_lab import figures


def test_distances_are_dots_with_their_values():
    (ax,) = figures.gradient_distances({"fixed": 0.0, "training": 0.25}, "t").axes
    assert ax.get_xscale() == "log"
    assert [dot.get_xdata()[0] for dot in ax.lines] == pytest.approx([1e-8, 0.25])
    assert [text.get_text() for text in ax.texts] == ["0e+00", "25%"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["fixed", "training"]


def test_a_panel_a_round_with_the_counts():
    start, end = np.eye(3, dtype=int), np.full((3, 3), 3)
    fig = figures.ring_rounds([start, end])
    assert [ax.get_title(loc="left") for ax in fig.axes] == ["start", "round 1"]
    assert [text.get_text() for text in fig.axes[0].texts] == list("100010001")
    assert {text.get_text() for text in fig.axes[1].texts} == {"3"}
    assert fig.get_suptitle() == "A ring of 3: how many devices' parts a piece holds"
