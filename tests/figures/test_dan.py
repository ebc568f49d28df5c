"""Feature maps and the overlap of heads show the values that they were given."""

import numpy as np
import pytest
import torch

from fer_lab import figures
from fer_lab.figures.style import HEAT


def test_feature_maps_show_the_first_channels():
    features = torch.arange(5 * 2 * 2.0).view(5, 2, 2)
    fig = figures.feature_maps(features, "Three maps", limit=3)
    tiles = [np.asarray(image.get_array()) for image in fig.axes[0].images]
    assert len(tiles) == 3
    # Every channel runs from its least to its most: 0, 1/3, 2/3, 1.
    for tile in tiles:
        np.testing.assert_allclose(tile, HEAT(np.array([[0, 1 / 3], [2 / 3, 1]]))[..., :3], atol=0.02)
    assert [text.get_text() for text in fig.axes[0].texts] == ["0", "1", "2"]
    with pytest.raises(ValueError, match=r"\[C,h,w\]"):
        figures.feature_maps(features[None], "No maps")


def test_head_overlap_shows_every_face_and_the_mean():
    values = {"with": [0.1, 0.2, 0.6], "without": np.linspace(0.7, 0.9, 50)}
    (ax,) = figures.head_overlap_figure(values).axes
    dots = [np.asarray(c.get_offsets()) for c in ax.collections if len(c.get_offsets()) > 1]
    for points, (i, expected) in zip(dots, enumerate(values.values()), strict=True):
        np.testing.assert_allclose(np.sort(points[:, 0]), expected)
        assert set(points[:, 1]) == {i}
    assert [text.get_text() for text in ax.texts] == ["0.30", "0.80"]
    assert [line.get_xdata()[0] for line in ax.lines] == pytest.approx([0.3, 0.8])
    with pytest.raises(ValueError, match="at least one value"):
        figures.head_overlap_figure({"with": []})
