"""Centers and negatives stand where the numbers say."""

import matplotlib as mpl
import numpy as np

from fer_lab import figures
from fer_lab.data.expressions import CANONICAL, COLORS

CLASSES = CANONICAL[:3]
SHADES = [COLORS[name] for name in CLASSES]
CENTERS = np.array([[0.0, 0.0], [2.0, 3.0], [4.0, 1.0]])


def stars(ax):
    """Where the stars of a panel are, and in which colours."""
    # A star's path has ten corners and closes.
    (one,) = [c for c in ax.collections if [len(path.vertices) for path in c.get_paths()] == [11]]
    return np.asarray(one.get_offsets()), [mpl.colors.to_hex(color) for color in one.get_facecolors()]


def test_the_negative_in_the_plane_is_made_of_the_chosen_coordinates():
    chosen = {"hardest": np.array([1, 1]), "fully": np.array([1, 2])}
    fig = figures.negatives_in_plane([1.0, 1.0], 0, CENTERS, chosen, CLASSES)
    named = [text.get_text() for text in fig.legends[0].get_texts()]
    assert named == ["the face", "its negative", *(f"center of {name}" for name in CLASSES)]
    axes = fig.axes
    expected = {"hardest": ([2, 3], 5.0), "fully": ([2, 1], 1.0)}
    for ax, (name, (negative, distance)) in zip(axes, expected.items(), strict=True):
        dots = [line for line in ax.lines if line.get_marker() == "o"]
        ring = [line for line in dots if line.get_markerfacecolor() == "none"]
        face = [line for line in dots if line not in ring]
        assert [line.get_xydata().tolist() for line in ring] == [[negative]]
        assert [line.get_xydata().tolist() for line in face] == [[[1, 1]]]
        assert ax.get_title("center") == f"{name}\nsquared distance {distance:.2f}"
        np.testing.assert_allclose(stars(ax)[0], CENTERS)


def test_the_strip_fills_the_entries_that_were_chosen():
    centers = np.array([[0.0, 0.0, 0.0], [1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    fig = figures.negatives_strip([0.5] * 3, 0, centers, {"fully": np.array([2, 1, 1])}, CLASSES)
    # No dot has the own class's colour: its dash does.
    assert [text.get_text() for text in fig.legends[0].get_texts()] == [*CLASSES[1:], "the face", "its center"]
    (ax,) = fig.axes
    full = ax.collections[-1]
    assert full.get_offsets().tolist() == [[0, 4], [1, 2], [2, 3]]
    assert [mpl.colors.to_hex(c) for c in full.get_facecolors()] == [SHADES[2], SHADES[1], SHADES[1]]
    assert ax.get_ylabel() == "fully"
