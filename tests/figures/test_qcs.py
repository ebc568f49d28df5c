"""Figures of what two faces share put lines and heat where the numbers say."""

import numpy as np
import pytest
import torch

from fer_lab import figures


def face(seed, n=None):
    g = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, 14, 14) if n is None else (n, 3, 14, 14), dtype=torch.uint8, generator=g)


def test_lines_join_the_centres_of_matching_places():
    # Row 1, column 1 with row 2, column 6.
    fig = figures.matching_lines([(face(0), face(1))], [[(8, 20, 1.0)]], ["same class"], "Matches")
    assert [text.get_text() for text in fig.texts] == ["Matches"]
    line = next(line for line in fig.axes[0].lines if line.get_marker() == "o")
    (x1, x2), (y1, y2) = line.get_data()
    top = fig.axes[0].images[0].get_extent()[3]
    assert (x1, y1 - top) == pytest.approx((1.5 / 7, 1.5 / 7))
    numbers = [text.get_position() for text in fig.axes[0].texts if text.get_text() == "1"]
    assert numbers == [(x1, y1), (x2, y2)]
    assert (x2, y2 - top) == pytest.approx((1.06 + 6.5 / 7, 2.5 / 7))
    with pytest.raises(ValueError, match="1 pairs, 1 lists of matches and 2 names"):
        figures.matching_lines([(face(0), face(1))], [[(8, 20, 1.0)]], ["a", "b"])
    with pytest.raises(ValueError, match="expected places below 49"):
        figures.matching_lines([(face(0), face(1))], [[(8, 49, 1.0)]], ["a"])


def test_who_votes_is_framed_and_what_it_votes_for_is_hot():
    vote = torch.zeros(7, 7)
    vote[6, 6] = 1.0
    fig = figures.votes_on_a_face(face(0), face(1), {"one": vote, "all": vote}, [10], "Votes")
    one, everybody = fig.axes[0].patches[1::2]
    top = fig.axes[0].images[0].get_extent()[3]
    assert (one.get_x(), one.get_y() - top, one.get_width()) == pytest.approx((3 / 7, 1 / 7, 1 / 7))
    assert (everybody.get_x(), everybody.get_y() - top, everybody.get_width()) == pytest.approx((1.06, 0, 1))
    heat = np.asarray(fig.axes[0].images[2].get_array()).astype(int)
    grey = face(1).permute(1, 2, 0).numpy() @ np.array([0.299, 0.587, 0.114])
    assert abs(heat[-1, -1] - grey[-1, -1]).max() > 40
    assert abs(heat[0, 0] - grey[0, 0]).max() <= 1
    words = [text.get_text() for text in fig.axes[0].texts]
    assert words[:2] == ["one", "all"]
    assert words[2].startswith("who votes")
    asked = figures.votes_on_a_face(face(0), face(0), {"one": vote}, [10], "", ("who asks", "where it looks"))
    assert [text.get_text() for text in asked.axes[0].texts][:3] == ["one", "who asks", "where it looks"]
