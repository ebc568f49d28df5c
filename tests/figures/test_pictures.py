"""Figures of faces show the pixels, points and heat that they were given, in the right place."""

import numpy as np
import pytest
import torch

from fer_lab import figures
from fer_lab.data.expressions import CANONICAL, COLORS
from fer_lab.data.faces import FaceSet
from fer_lab.figures.pictures import heat_over
from fer_lab.figures.style import HEAT


def face_images(n, size=8):
    return torch.randint(
        0, 256, (n, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


def face_set(labels, splits=None):
    n = len(labels)
    return FaceSet(
        face_images(n),
        torch.tensor(labels),
        CANONICAL[:3],
        np.array(splits or ["train"] * n),
        torch.full((n,), -1),
        "toy",
        "0",
    )


def shown(fig):
    """(left, top) → pixels of every picture, on the axis whose unit is a picture's side."""
    return {
        (round(image.get_extent()[0], 2), round(image.get_extent()[3], 2)): np.asarray(image.get_array())
        for image in fig.axes[0].images
    }


def texts(fig):
    return [text.get_text() for text in fig.axes[0].texts]


def test_face_grid_lays_the_faces_out_in_rows():
    images = face_images(5)
    tiles = shown(figures.face_grid(images, columns=3))
    expected = {(round((i % 3) * 1.06, 2), round((i // 3) * 1.06, 2)): images[i] for i in range(5)}
    assert tiles.keys() == expected.keys()
    for place, image in expected.items():
        assert (tiles[place] == image.permute(1, 2, 0).numpy()).all()


def test_face_grid_puts_each_title_above_its_face():
    fig = figures.face_grid(face_images(4), ["a", "b", "c", "d"], columns=2, title="All four")
    assert [text.get_text() for text in fig.texts] == ["All four"]
    places = list(shown(fig))
    assert texts(fig) == ["a", "b", "c", "d"]
    for text, (left, top) in zip(fig.axes[0].texts, places, strict=True):
        x, y = text.get_position()
        assert x == pytest.approx(left + 0.5)
        assert top - 0.1 < y < top


@pytest.mark.parametrize("columns", [1, 8, 30])
def test_no_grid_is_wider_than_a_page(columns):
    assert figures.face_grid(face_images(30), columns=columns).get_size_inches()[0] <= 9


@pytest.mark.parametrize(
    ("images", "titles", "message"),
    [
        (torch.zeros(2, 3, 8, 8), None, r"uint8 \[N,3,S,S\], got float32"),
        (torch.zeros(2, 8, 8, 3, dtype=torch.uint8), None, r"got uint8 \[2, 8, 8, 3\]"),
        (torch.zeros(0, 3, 8, 8, dtype=torch.uint8), None, "no faces"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), ["a"], "1 titles for 2 faces"),
    ],
)
def test_face_grid_refuses_what_are_no_faces(images, titles, message):
    with pytest.raises(ValueError, match=message):
        figures.face_grid(images, titles)


def test_faces_by_class_spreads_over_each_class():
    faces = face_set([0, 1, 0, 0, 0, 1])  # no face of class 2
    fig = figures.faces_by_class(faces, per_class=2)
    tiles = shown(fig)
    wanted = {(0, 0): 0, (1, 0): 3, (0, 1): 1, (1, 1): 5}  # (column, row) → face
    assert len(tiles) == 4
    for (column, row), face in wanted.items():
        picture = tiles[round(column * 1.06, 2), round(row * 1.06, 2)]
        assert (picture == faces.storage[face].permute(1, 2, 0).numpy()).all()
    assert texts(fig) == ["neutral", "4 faces", "happiness", "2 faces", "surprise", "0 faces"]
    assert [line.get_color() for line in fig.axes[0].lines] == [COLORS[name] for name in CANONICAL[:3]]


def test_heat_over_a_face():
    face = np.full((2, 2, 3), (100, 200, 50), dtype=np.uint8)
    heat = np.array([[0.0, 1.0], [0.0, 0.25]])
    over = heat_over(face, heat).astype(int)
    grey = 0.299 * 100 + 0.587 * 200 + 0.114 * 50
    assert (over[:, 0] == round(grey)).all()
    assert over[0, 1] == pytest.approx(0.25 * grey + 0.75 * 255 * np.array(HEAT(1.0)[:3]), abs=1)
    assert over[1, 1] == pytest.approx(0.8125 * grey + 0.1875 * 255 * np.array(HEAT(0.25)[:3]), abs=1)


def test_attention_overlay_has_the_face_and_then_its_maps():
    images, maps = face_images(2, size=14), torch.zeros(2, 2, 7, 7)
    maps[0, 1, 0, 0] = 5.0
    maps[1, 0] = 3.0  # constant: nothing to show
    fig = figures.attention_overlay(images, maps, ["first", "second"], ["head 1", "head 2"], title="t")
    assert [text.get_text() for text in fig.texts] == ["t"]
    tiles = list(shown(fig).values())[:6]
    bare = [heat_over(image.permute(1, 2, 0).numpy(), np.zeros((14, 14))) for image in images]
    for row, image in enumerate(images):
        assert (tiles[3 * row] == image.permute(1, 2, 0).numpy()).all()
    assert (tiles[1] == bare[0]).all()
    assert (tiles[4] == bare[1]).all()
    changed = (tiles[2] != bare[0]).any(2)
    assert changed[:2, :2].all()
    assert not changed[7:, 7:].any()
    assert texts(fig)[:5] == ["face", "head 1", "head 2", "first", "second"]


def test_attention_overlay_scales_every_map_on_its_own():
    images, maps = face_images(1, size=14), torch.rand(1, 1, 7, 7)
    tiles = [
        list(shown(figures.attention_overlay(images, m, ["a"], ["b"])).values())[1]
        for m in (maps, 1000 * maps - 3)
    ]
    assert np.abs(tiles[0].astype(int) - tiles[1]).max() <= 1


@pytest.mark.parametrize("count", [1, 4, 8])
def test_attention_overlay_keeps_its_words_apart_and_inside(count):
    names = ["happiness → happiness", "a"]
    fig = figures.attention_overlay(face_images(2), torch.rand(2, count, 7, 7), names, list("abcdefgh")[:count])
    fig.draw_without_rendering()
    boxes = {text.get_text(): text.get_window_extent() for text in fig.axes[0].texts}
    bar = fig.axes[0].images[-1].get_window_extent()
    assert boxes[names[0]].x0 >= 0
    assert bar.x1 < boxes["most"].x0
    assert boxes["most"].x1 <= fig.bbox.x1


@pytest.mark.parametrize(
    ("shape", "rows", "columns", "message"),
    [
        ((3, 2, 7, 7), ["a", "b"], ["c", "d"], r"maps \[2,K,h,w\], got \[3, 2, 7, 7\]"),
        ((2, 7, 7), ["a", "b"], ["c", "d"], r"got \[2, 7, 7\]"),
        ((2, 2, 7, 7), ["a"], ["c", "d"], "2 row titles"),
        ((2, 2, 7, 7), None, ["a"], "2 column titles"),
    ],
)
def test_attention_overlay_refuses_what_does_not_fit(shape, rows, columns, message):
    with pytest.raises(ValueError, match=message):
        figures.attention_overlay(face_images(2), torch.rand(shape), rows, columns)


def test_face_rows_put_every_face_in_its_row_and_column_with_its_texts():
    faces = face_images(6).view(2, 3, 3, 8, 8)
    fig = figures.face_rows(faces, ["one", "two\nlines"], columns=["a", "b", "c"], notes=["10 %", "20 %"])
    found = shown(fig)
    tops = sorted({top for _, top in found})
    assert len(found) == 6
    assert len(tops) == 2
    for r, top in enumerate(tops):
        for c in range(3):
            assert np.array_equal(found[round(1.06 * c, 2), top], faces[r, c].permute(1, 2, 0).numpy())
    texts = [text.get_text() for text in fig.axes[0].texts]
    assert texts == ["a", "b", "c", "one", "two\nlines", "10 %", "20 %"]
    left, right = fig.axes[0].get_xlim()
    assert left < -0.4
    assert right > 3.12 + 0.3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": face_images(2)}, r"expected images \[R,K,3,S,S\]"),
        ({"names": ["one"]}, "expected 2 names, got 1"),
        ({"columns": ["a"]}, "expected 3 column titles, got 1"),
        ({"notes": ["a"]}, "expected 2 notes, got 1"),
    ],
)
def test_face_rows_refuse_what_does_not_fit(changes, message):
    given = {"images": face_images(6).view(2, 3, 3, 8, 8), "names": ["one", "two"], **changes}
    with pytest.raises(ValueError, match=message):
        figures.face_rows(**given)


def outlines(fig):
    """Corners (left, top) and (right, bottom) of every outline."""
    paths = [collection.get_paths() for collection in fig.axes[0].collections]
    points = [np.concatenate([path.vertices for path in some]) for some in paths if some]
    return [(one.min(0), one.max(0)) for one in points]


def test_face_grid_outlines_a_region_of_each_face():
    pair, masks = face_images(2), torch.zeros(4, 8, 8, dtype=torch.bool)
    masks[::2, 2:6, 3:5] = True
    faces = torch.cat([pair, pair])
    fig = figures.face_grid(faces, ["a", "b", "c", "d"], columns=2, masks=masks)
    tiles = shown(fig)
    (left, top), (again_left, again_top) = [low for low, _ in outlines(fig)]
    first, second = sorted({top for _, top in tiles})
    assert (tiles[1.06, second] == pair[1].permute(1, 2, 0).numpy()).all()
    np.testing.assert_allclose(
        [left, top, again_left, again_top], [3 / 8, first + 2 / 8, 3 / 8, second + 2 / 8], atol=0.006
    )
    assert texts(fig) == ["a", "b", "c", "d"]
    with pytest.raises(ValueError, match=r"expected masks \[2, 8, 8\]"):
        figures.face_grid(pair, masks=masks[:1])


def test_landmarks_lie_on_the_face():
    maps = torch.rand(4, 3, 7, 7)
    points = torch.rand(4, 68, 2, generator=torch.Generator().manual_seed(1))
    fig = figures.attention_overlay(face_images(4), maps, list("abcd"), list("xyz"), points=points)
    drawn = np.stack([np.asarray(c.get_offsets()) for c in fig.axes[0].collections])
    assert drawn.shape == (4, 68, 2)
    np.testing.assert_allclose(drawn[1, :, 0], points[1, :, 0], atol=1e-6)
    down = (drawn[2] - drawn[1]) - (points[2] - points[1]).numpy()
    np.testing.assert_allclose(down, np.broadcast_to([0, 1.06], (68, 2)), atol=1e-6)
    with pytest.raises(ValueError, match=r"\[4,68,2\], got \[3, 68, 2\]"):
        figures.attention_overlay(face_images(4), maps, list("abcd"), list("xyz"), points=points[:3])
    assert len(fig.axes[0].images) == 17  # and the scale of the heat
    assert {text.get_text() for text in fig.axes[0].texts} >= set("abcdxyz") | {"face", "most"}


def test_rows_are_the_faces_and_then_each_kind_of_map():
    maps, faces = {"S": torch.rand(2, 7, 7), "D": torch.rand(2, 7, 7)}, face_images(2, size=14)
    fig = figures.maps_in_rows(faces, maps, ["one", "two"], "Both")
    assert [text.get_text() for text in fig.texts] == ["Both"]
    pictures = [image for image in fig.axes[0].images if np.asarray(image.get_array()).ndim == 3]
    assert len(pictures) == 6
    assert np.array_equal(pictures[1].get_array(), faces[1].permute(1, 2, 0).numpy())
    assert texts(fig)[:2] == ["one", "two"]
    assert {"S", "D"} <= set(texts(fig))
    with pytest.raises(ValueError, match=r"expected maps 'S' as \[2,h,w\]"):
        figures.maps_in_rows(faces, {"S": torch.rand(3, 7, 7)}, ["one", "two"])
