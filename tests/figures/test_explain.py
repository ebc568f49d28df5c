"""Figures of explanations draw the numbers and regions that they were given."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from fer_lab import figures
from fer_lab.explanation.maps import normalize_for_display
from fer_lab.figures.explain import COLORS
from fer_lab.figures.pictures import heat_over

FACES = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
MAPS = {
    "native": torch.arange(8.0).view(2, 1, 2, 2),
    "occlusion": torch.tensor([[[[-5.0, 1.0], [2.0, 3.0]]], [[[-1.0, -1.0], [-1.0, 0.0]]]]),
}


def shown(fig):
    """(left, top) → pixels of every picture, on the axis whose unit is a picture's side."""
    return {
        (round(image.get_extent()[0], 2), round(image.get_extent()[3], 2)): np.asarray(image.get_array())
        for image in fig.axes[0].images
    }


def texts(fig):
    return [text.get_text() for text in fig.axes[0].texts]


def heat(way, i):
    positive = normalize_for_display(MAPS[way][i : i + 1].clamp(min=0))
    return F.interpolate(positive, size=(8, 8), mode="bicubic").clamp(0, 1)[0, 0].numpy()


ROWS = ["anger", "fear"]


def test_the_grid_has_a_row_a_face_and_a_column_a_way():
    fig = figures.explanation_grid(FACES, MAPS, None, ROWS, title="t")
    tiles = shown(fig)
    tops = sorted({top for left, top in tiles if left == 0})
    for i, top in enumerate(tops[:2]):
        face = FACES[i].permute(1, 2, 0).numpy()
        assert (tiles[0, top] == face).all()
        assert (tiles[1.06, top] == heat_over(face, heat("native", i))).all()
        assert (tiles[2.12, top] == heat_over(face, heat("occlusion", i))).all()
    assert texts(fig)[:5] == ["face", "native", "occlusion", "anger", "fear"]
    # Nothing of the second face's occlusion speaks for the class: a bare grey face.
    grey = heat_over(FACES[1].permute(1, 2, 0).numpy(), np.zeros((8, 8)))
    assert (tiles[2.12, tops[1]] == grey).all()


MASKS = torch.zeros(2, 8, 8, dtype=torch.bool)
MASKS[0, 2:6, 3:5] = True


def outlines(fig):
    """Corners (left, top) and (right, bottom) of every outline."""
    paths = [collection.get_paths() for collection in fig.axes[0].collections]
    points = [np.concatenate([path.vertices for path in some]) for some in paths if some]
    return [(one.min(0), one.max(0)) for one in points]


def test_a_region_is_outlined_on_every_picture_of_its_row():
    fig = figures.explanation_grid(FACES, MAPS, MASKS, ROWS)
    top = min(top for left, top in shown(fig))
    found = outlines(fig)
    assert len(found) == 3  # the first face, bare and under two maps; the second has no region
    for c, (low, high) in enumerate(found):
        # Half a pixel around columns 3, 4 and rows 2 to 5 of 8; tops are rounded.
        np.testing.assert_allclose(low, [c * 1.06 + 3 / 8, top + 2 / 8], atol=0.006)
        np.testing.assert_allclose(high, [c * 1.06 + 5 / 8, top + 6 / 8], atol=0.006)
    assert "moved by the muscles" in texts(fig)
    assert "moved by the muscles" not in texts(figures.explanation_grid(FACES, MAPS, None, ROWS))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"maps": {"native": torch.ones(2, 2, 7, 7)}}, r"map 'native' as \[2,1,h,w\]"),
        ({"masks": torch.zeros(2, 7, 7, dtype=torch.bool)}, r"masks \[2, 8, 8\], got \[2, 7, 7\]"),
        ({"row_titles": ["one"]}, "1 row titles for 2 faces"),
    ],
)
def test_a_grid_that_does_not_fit_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        figures.explanation_grid(FACES, **{"maps": MAPS, "masks": None, "row_titles": ROWS, **options})


SUMMARY = pd.DataFrame(
    [
        ("dan", "native", "hit", 0.4, 0.3, 0.5),
        ("dan", "chance", "hit", 0.1, 0.1, 0.1),
        ("dan", "native", "mass", 0.2, 0.1, 0.4),
        ("baseline", "native", "hit", 0.6, 0.5, 0.8),
        ("baseline", "occlusion", "hit", 0.7, 0.6, 0.9),
        ("baseline", "chance", "hit", 0.15, 0.1, 0.2),
    ],
    columns=["model", "way", "metric", "value", "low", "high"],
)


def test_scores_stand_in_their_models_row_with_their_interval():
    fig = figures.explanation_scores(SUMMARY, {"hit": "hits", "mass": "share of mass"}, "Scores")
    hits, mass = fig.axes
    assert [label.get_text() for label in hits.get_yticklabels()] == ["DAN", "ResNet-18"]
    assert [ax.get_xlabel() for ax in fig.axes] == ["hits", "share of mass"]
    bars = [line for line in hits.lines if line.get_alpha() and np.isfinite(line.get_xdata()).all()]
    drawn = {
        (round(bar.get_ydata()[0]), mpl.colors.to_hex(bar.get_color())): list(bar.get_xdata()) for bar in bars
    }
    native, occlusion = COLORS["native"], COLORS["occlusion"]
    assert drawn == {(0, native): [0.3, 0.5], (1, native): [0.5, 0.8], (1, occlusion): [0.6, 0.9]}
    dots = np.concatenate([line.get_xydata() for line in hits.lines if line.get_marker() == "o"])
    assert sorted(dots[np.isfinite(dots[:, 0]), 0]) == [0.4, 0.6, 0.7]
    priors = [line for line in hits.lines if line.get_gid() == "prior"]
    assert [line.get_xdata()[0] for line in priors] == [0.1, 0.15]
    assert [np.mean(line.get_ydata()) for line in priors] == [0, 1]
    drawn = [list(line.get_xdata()) for line in mass.lines if line.get_alpha()]
    assert [ends for ends in drawn if np.isfinite(ends).all()] == [[0.1, 0.4]]
    legend = [text.get_text() for text in fig.legends[0].get_texts()]
    assert legend == ["native", "occlusion", "chance"]


def test_scores_that_are_not_there_are_refused():
    with pytest.raises(ValueError, match="no metric rank; there are hit, mass"):
        figures.explanation_scores(SUMMARY, {"rank": "x"}, "Scores")
    with pytest.raises(ValueError, match="way missing"):
        figures.explanation_scores(SUMMARY.drop(columns="way"), {"hit": "x"}, "Scores")


def test_perturbation_curves_are_means_over_faces():
    falls = {
        "native": torch.tensor([[1.0, 0.5, 0.0], [0.6, 0.5, 0.2]]),
        "chance": torch.tensor([[1.0, 1.0, 0.0]]),
    }
    rises = {"native": torch.tensor([[0.0, 0.25, 1.0]])}
    fig = figures.perturbation_figure(falls, rises, "Curves")
    left, right = fig.axes
    np.testing.assert_allclose(left.lines[0].get_ydata(), [80, 50, 10], rtol=1e-6)
    np.testing.assert_allclose(left.lines[0].get_xdata(), [0, 50, 100])
    np.testing.assert_allclose(left.lines[1].get_ydata(), [100, 100, 0])
    np.testing.assert_allclose(right.lines[0].get_ydata(), [0, 25, 100])
    assert left.lines[0].get_linewidth() > 2 * left.lines[1].get_linewidth()  # seen below another map's
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["native", "chance"]
    with pytest.raises(ValueError, match="no curves"):
        figures.perturbation_figure({}, rises, "Curves")


def test_randomization_has_a_panel_a_model():
    rows = [
        (model, "native", share, 6, value, value - 0.05, value + 0.05)
        for model, share, value in (
            ("dan", 0.0, 1.0),
            ("dan", 1.0, 0.2),
            ("baseline", 0.0, 0.9),
            ("baseline", 1.0, 0.1),
        )
    ]
    means = pd.DataFrame(rows, columns=["model", "way", "share", "faces", "value", "low", "high"])
    between = {"dan": {"native": 0.77}, "baseline": {"native": -0.25}}
    fig = figures.randomization_figure(means, between)
    assert [ax.get_title(loc="left") for ax in fig.axes] == ["DAN", "ResNet-18"]
    for ax, values, dotted in zip(fig.axes, ([1.0, 0.2], [0.9, 0.1]), (0.77, -0.25), strict=True):
        line = next(line for line in ax.lines if line.get_marker() == "o")
        np.testing.assert_allclose(line.get_xdata(), [0, 100])
        np.testing.assert_allclose(line.get_ydata(), values)
        (bars,) = [c for c in ax.collections if isinstance(c, mpl.collections.LineCollection)]
        np.testing.assert_allclose(
            [bar[:, 1] for bar in bars.get_segments()], [[v - 0.05, v + 0.05] for v in values]
        )
        assert dotted in [line.get_ydata()[0] for line in ax.lines]
        assert ax.get_ylim()[0] == pytest.approx(-0.3)  # below everything that is drawn
    legend = [text.get_text() for text in fig.legends[0].get_texts()]
    assert legend == ["native", "maps of two faces, by colour"]
    assert fig.get_suptitle().endswith("mean over 6 faces")
    with pytest.raises(ValueError, match="model missing"):
        figures.randomization_figure(means.drop(columns="model"), between)


def test_causes_stand_in_their_true_order_with_every_map_s_claims():
    face, maps = torch.randint(0, 255, (3, 32, 32), dtype=torch.uint8), torch.rand(1, 1, 7, 7)
    importance, claims = torch.tensor([0.5, 3.0, -0.2]), torch.tensor([0.1, 0.3, 0.2])
    fig = figures.causes_figure(
        face, ["a", "b", "c"], importance, {"grad_cam": maps}, {"grad_cam": claims}, "title"
    )
    pictures, bars = fig.axes[:2], fig.axes[2:]
    assert [text.get_text() for text in bars[0].get_yticklabels()] == ["b", "a", "c"]
    widths = [[round(bar.get_width(), 3) for bar in ax.patches] for ax in bars]
    assert widths == [[3.0, 0.5, -0.2], [0.3, 0.1, 0.2]]
    assert bars[0].get_ylim()[0] > bars[0].get_ylim()[1]  # the first is above
    assert [ax.get_title(loc="center") for ax in pictures] == ["the face", "GradCAM"]
    with pytest.raises(ValueError, match="each of 3 causes"):
        figures.causes_figure(face, ["a", "b", "c"], importance, {"x": maps}, {"x": claims[:2]}, "title")


def test_mean_maps_have_a_block_a_set_and_a_row_a_model():
    maps = {"one": {"dan": np.random.rand(2, 7, 7)}, "two": {"dan": np.random.rand(3, 7, 7)}}
    fig = figures.mean_maps_figure(maps, {"one": "drawn", "two": "real"}, ["a", "b", "c"])
    drawn = [ax.images[0] for ax in fig.axes]
    assert len(drawn) == 5
    np.testing.assert_allclose(drawn[4].get_array(), maps["two"]["dan"][2])
    assert drawn[0].get_clim() == (0, maps["one"]["dan"].max())
    assert [ax.get_title(loc="center") for ax in fig.axes] == ["a", "b", "a", "b", "c"]
    assert {ax.get_xlabel() for ax in fig.axes} == {"drawn", "real", ""}
    reach = [f"0 to {49 * block['dan'].max():.1f}×" for block in maps.values()]
    assert [ax.get_ylabel() for ax in fig.axes] == [f"DAN\n{reach[0]}", "", reach[1], "", ""]
