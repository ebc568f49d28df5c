"""Centers, margins and regions stand where the numbers say."""

import matplotlib as mpl
import numpy as np
import pytest

from fer_lab import figures
from fer_lab.data.expressions import CANONICAL, COLORS
from fer_lab.evaluation.embeddings import separation

CLASSES = CANONICAL[:3]
SHADES = [COLORS[name] for name in CLASSES]
CENTERS = np.array([[0.0, 0.0], [2.0, 3.0], [4.0, 1.0]])


def stars(ax):
    """Where the stars of a panel are, and in which colours."""
    # A star's path has ten corners and closes.
    (one,) = [c for c in ax.collections if [len(path.vertices) for path in c.get_paths()] == [11]]
    return np.asarray(one.get_offsets()), [mpl.colors.to_hex(color) for color in one.get_facecolors()]


def test_a_class_is_a_mark_at_its_margin_and_scatter():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 3)), np.arange(30) % 3
    found = {name: separation(x * scale, y, 3) for name, scale in (("a", [1, 1, 1]), ("b", [9, 1, 1]))}
    axes = figures.scatter_against_margin(found, CLASSES).axes
    assert [ax.get_title("left") for ax in axes] == ["a", "b"]
    for ax, one in zip(axes, found.values(), strict=True):
        np.testing.assert_allclose(ax.collections[0].get_offsets(), np.column_stack([one.margin, one.scatter]))
        assert [mpl.colors.to_hex(c) for c in ax.collections[0].get_facecolors()] == SHADES


def test_the_nearest_wrong_center_is_written_as_a_share():
    nearest = np.array([[0, 0.75, 0.25], [1, 0, 0.001], [np.nan] * 3])
    (ax,) = figures.nearest_wrong_center(nearest, CLASSES).axes
    assert ax.get_title("left") == "Whose class mean is the nearest wrong one"
    written = {text.get_position(): text.get_text() for text in ax.texts if text.get_text()}
    assert written == {(1.5, 0.5): "75%", (2.5, 0.5): "25%", (0.5, 1.5): "100%"}
    assert [label.get_text() for label in ax.get_yticklabels()] == list(CLASSES)
    with pytest.raises(ValueError, match=r"shares \[3,3\] for 3 classes"):
        figures.nearest_wrong_center(nearest[:2], CLASSES)


def test_dimensions_are_sorted_by_their_mean_and_classes_shown_above_it():
    weights = np.array([[0.1, 0.9, 0.5], [0.3, 0.7, 0.5]])
    top, low, _ = figures.dimension_weights(weights, [0, 2], CLASSES).axes
    assert top.lines[0].get_ydata().tolist() == pytest.approx([0.8, 0.5, 0.2])
    shades = np.reshape(low.collections[0].get_array(), (2, 3))
    np.testing.assert_allclose(shades, [[0.1, 0, -0.1], [-0.1, 0, 0.1]], atol=1e-12)
    assert [label.get_text() for label in low.get_yticklabels()] == [CLASSES[0], CLASSES[2]]
    with pytest.raises(ValueError, match=r"coefficients \[3,D\]"):
        figures.dimension_weights(weights, [0, 1, 2], CLASSES)


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
