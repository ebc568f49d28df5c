"""Landmarks and points lie where they were given."""

import matplotlib as mpl
import numpy as np
import pytest
import torch

from fer_lab import figures
from fer_lab.data.expressions import CANONICAL, COLORS
from fer_lab.figures.pictures import STROKES

FACE = torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_landmarks_are_joined_by_part_and_lie_where_they_are():
    points = np.random.default_rng(0).uniform(0, 8, (68, 2))
    fig = figures.landmarks_on_face(FACE, points)
    drawn = [line.get_xydata() for line in fig.axes[0].lines]
    strokes = [stroke for part in STROKES.values() for stroke in part]
    assert len(drawn) == len(strokes)
    for line, (first, last, closed) in zip(drawn, strokes, strict=True):
        assert (line[: last - first + 1] == points[first : last + 1]).all()
        assert closed == (line[-1] == points[first]).all()
    assert sum(last - first + 1 for first, last, _ in strokes) == 68
    assert fig.axes[0].get_ylim() == (8, 0)  # y downwards, as in the image
    with pytest.raises(ValueError, match=r"68 landmarks \[68,2\], got \[5, 2\]"):
        figures.landmarks_on_face(FACE, points[:5])


def test_the_same_points_are_coloured_twice():
    xy, tones = np.arange(8.0).reshape(4, 2), np.array([0.0, 0.2, 0.7, 1.0])
    left, right, _ = figures.two_colourings(xy, [0, 1, 1, 0], CANONICAL[:2], tones).axes
    for point, color in zip(
        left.collections[0].get_offsets(), left.collections[0].get_facecolors(), strict=True
    ):
        label = [0, 1, 1, 0][int(point[0] // 2)]
        assert mpl.colors.to_hex(color) == COLORS[CANONICAL[label]]
    assert right.collections[0].get_offsets().tolist() == xy.tolist()
    assert right.collections[0].get_array().tolist() == tones.tolist()
