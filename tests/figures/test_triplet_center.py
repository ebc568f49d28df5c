"""Centers, margins and regions stand where the numbers say."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import torch

from fer_lab import figures
from fer_lab.data.expressions import CANONICAL, COLORS
from fer_lab.evaluation.embeddings import Plane, separation
from fer_lab.figures import Frame
from fer_lab.figures.style import INK, SERIES
from fer_lab.models import create_model

CLASSES = CANONICAL[:3]
SHADES = [COLORS[name] for name in CLASSES]
CENTERS = np.array([[0.0, 0.0], [2.0, 3.0], [4.0, 1.0]])


def stars(ax):
    """Where the stars of a panel are, and in which colours."""
    # A star's path has ten corners and closes.
    (one,) = [c for c in ax.collections if [len(path.vertices) for path in c.get_paths()] == [11]]
    return np.asarray(one.get_offsets()), [mpl.colors.to_hex(color) for color in one.get_facecolors()]


def model_in_plane(**options):
    torch.manual_seed(0)
    model = create_model("triplet_center", 3, embedding_dim=2, **options)
    if model.centers is not None:
        model.triplet_center.centers.data = torch.tensor(CENTERS, dtype=torch.float32)
    return model


# ---------------------------------------------------------------- regions and margins


def test_the_plane_is_what_the_classifier_answers():
    model = model_in_plane(metric_loss="none")
    with torch.no_grad():
        model.classify.weight.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]]))
        model.classify.bias.copy_(torch.tensor([0.0, 0.0, -9.0]))
    plane = figures.plane_of(model, [[-1.0, -1.0], [1.0, 1.0]], steps=8)
    assert plane.silent is None
    assert plane.decision.shape == (8, 8)
    assert (plane.decision == np.where(plane.x > 0, 0, 1)[None]).all()
    assert plane.x[0] < -1 < 1 < plane.x[-1]


def test_no_loss_means_a_half_plane_for_two_vectors_and_a_box_for_dimensions():
    # Classes 0 and 1 alone count: class 2 is far away.
    far = np.array([[0.0, 0.0], [4.0, 4.0], [90.0, 90.0]])
    xy = [[-4.0, -4.0], [8.0, 8.0]]
    silent = {}
    for hinge in ("vector", "dimension"):
        model = model_in_plane(hinge=hinge, negatives="hardest", margin=8.0)
        model.triplet_center.centers.data = torch.tensor(far, dtype=torch.float32)
        plane = figures.plane_of(model, xy, steps=95)
        silent[hinge] = plane.silent[0]
    x, y = np.meshgrid(plane.x, plane.y)
    # ‖x‖² + 8 ≤ ‖x − c‖² is 8 (x + y) ≤ 32 − 8; in one dimension, 8 x ≤ 16 − 8.
    near = (x < 30) & (y < 30)
    inside = {"vector": x + y <= 3, "dimension": (x <= 1) & (y <= 1)}
    for hinge, expected in inside.items():
        assert (silent[hinge] == expected)[near].all()


def test_a_plane_of_many_dimensions_is_refused():
    with pytest.raises(ValueError, match="can be drawn as they are, got 128"):
        figures.plane_of(create_model("triplet_center"), [[0.0, 0.0]])


def test_regions_are_pale_margins_are_lines_and_centers_are_stars():
    decision = np.array([[0, 1], [2, 2]])
    silent = np.zeros((3, 2, 2), dtype=bool)
    silent[1, 0, 1] = True
    plane = Plane(np.array([0.0, 4.0]), np.array([0.0, 3.0]), decision, silent)
    xy, labels = np.array([[1.0, 1.0], [2.0, 1.0], [3.0, 2.0]]), [0, 1, 1]
    (ax,) = figures.embedding_with_centers(xy, labels, CLASSES, CENTERS, plane).axes
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
    assert texts == [*CLASSES, "center", "no loss inside"]


def test_points_have_the_colours_of_their_classes():
    xy, labels = np.arange(12.0).reshape(6, 2), np.array([0, 1, 2, 2, 1, 0])
    (ax,) = figures.embedding_with_centers(xy, labels, CLASSES, axis="UMAP").axes
    (cloud,) = ax.collections
    for place, color in zip(cloud.get_offsets(), cloud.get_facecolors(), strict=True):
        label = labels[(xy == place).all(1)][0]
        assert mpl.colors.to_hex(color) == SHADES[label]
    assert ax.get_xlabel() == "UMAP 1"
    with pytest.raises(ValueError, match=r"points \[5,2\], got \[6, 2\]"):
        figures.embedding_with_centers(xy, labels[:5], CLASSES)


# ---------------------------------------------------------------- through training


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
        figures.embedding_frames({"a": moments, "b": moments[:1]}, [0, 1, 2, 0], CLASSES)


# ---------------------------------------------------------------- by class, by dimension


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
    written = {text.get_position(): text.get_text() for text in ax.texts}
    assert written == {(1, 0): "75%", (2, 0): "25%", (0, 1): "100%"}
    assert [label.get_text() for label in ax.get_yticklabels()] == list(CLASSES)
    with pytest.raises(ValueError, match=r"shares \[3,3\] for 3 classes"):
        figures.nearest_wrong_center(nearest[:2], CLASSES)


def test_dimensions_are_sorted_by_their_mean_and_classes_shown_above_it():
    weights = np.array([[0.1, 0.9, 0.5], [0.3, 0.7, 0.5]])
    top, low, _ = figures.dimension_weights(weights, [0, 2], CLASSES).axes
    assert top.lines[0].get_ydata().tolist() == pytest.approx([0.8, 0.5, 0.2])
    np.testing.assert_allclose(low.images[0].get_array(), [[0.1, 0, -0.1], [-0.1, 0, 0.1]], atol=1e-12)
    assert [label.get_text() for label in low.get_yticklabels()] == [CLASSES[0], CLASSES[2]]
    with pytest.raises(ValueError, match=r"coefficients \[3,D\]"):
        figures.dimension_weights(weights, [0, 1, 2], CLASSES)


def test_the_negative_in_the_plane_is_made_of_the_chosen_coordinates():
    chosen = {"hardest": np.array([1, 1]), "fully": np.array([1, 2])}
    axes = figures.negatives_in_plane([1.0, 1.0], 0, CENTERS, chosen, CLASSES).axes
    expected = {"hardest": ([2, 3], 5.0), "fully": ([2, 1], 1.0)}
    for ax, (name, (negative, distance)) in zip(axes, expected.items(), strict=True):
        marks = {line.get_marker(): [line.get_xdata()[0], line.get_ydata()[0]] for line in ax.lines}
        assert marks["X"] == negative
        assert marks["o"] == [1, 1]
        assert ax.get_title("center") == f"{name}\nsquared distance {distance:.2f}"
        np.testing.assert_allclose(stars(ax)[0], CENTERS)


def test_the_strip_fills_the_entries_that_were_chosen():
    centers = np.array([[0.0, 0.0, 0.0], [1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    (ax,) = figures.negatives_strip([0.5] * 3, 0, centers, {"fully": np.array([2, 1, 1])}, CLASSES).axes
    full = ax.collections[-1]
    assert full.get_offsets().tolist() == [[0, 4], [1, 2], [2, 3]]
    assert [mpl.colors.to_hex(c) for c in full.get_facecolors()] == [SHADES[2], SHADES[1], SHADES[1]]
    assert ax.get_ylabel() == "fully"


def test_a_panel_a_setting_and_a_row_a_method():
    rows = [("1×", "CE", 0.5), ("1×", "semi", 0.6), ("2×", "semi", 0.3), ("2×", "CE", 0.4)]
    table = pd.DataFrame(rows, columns=["panel", "label", "value"]).assign(low=0.2, high=0.7)
    axes = figures.panels_of_intervals(table, "recall", reference="CE").axes
    assert [ax.get_title("left") for ax in axes] == ["1×", "2×"]
    assert [[text.get_text() for text in ax.texts] for ax in axes] == [["50.0%", "60.0%"], ["40.0%", "30.0%"]]
    assert [label.get_text() for label in axes[0].get_yticklabels()] == ["CE", "semi"]
    marks = [(line.get_xdata()[0], line.get_color()) for line in axes[1].lines if line.get_marker() == "o"]
    assert marks == [(40, INK), (30, SERIES[0])]
    with pytest.raises(ValueError, match="each of CE, semi"):
        figures.panels_of_intervals(table[:3], "recall")
