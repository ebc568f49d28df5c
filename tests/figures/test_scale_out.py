import pytest

from fer_lab import figures


def test_distances_are_bars_from_the_least_on():
    (ax,) = figures.gradient_distances({"fixed": 0.0, "training": 0.25}, "t").axes
    assert ax.get_xscale() == "log"
    ends = [bar.get_x() + bar.get_width() for bar in ax.patches]
    assert ends == pytest.approx([1e-8, 0.25])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["fixed", "training"]
