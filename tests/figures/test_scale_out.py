import pytest

from fer_lab import figures


def test_distances_are_dots_with_their_values():
    (ax,) = figures.gradient_distances({"fixed": 0.0, "training": 0.25}, "t").axes
    assert ax.get_xscale() == "log"
    assert [dot.get_xdata()[0] for dot in ax.lines] == pytest.approx([1e-8, 0.25])
    assert [text.get_text() for text in ax.texts] == ["0e+00", "25%"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["fixed", "training"]
