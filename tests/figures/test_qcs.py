"""Figures of what two faces share put lines and heat where the numbers say."""

import numpy as np
import pandas as pd
import pytest
import torch

from fer_lab import figures
from fer_lab.explanation.maps import strongest_matches


def face(seed, n=None):
    g = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, 14, 14) if n is None else (n, 3, 14, 14), dtype=torch.uint8, generator=g)


def test_matches_are_one_to_one_and_the_strongest_first():
    table = np.array([[5.0, 9.0, 1.0], [8.0, 10.0, 0.0], [2.0, 3.0, 4.0]])
    # (1, 1) takes row and column 1; then 5 at (0, 0) beats 4 at (2, 2).
    assert strongest_matches(table, 3) == [(1, 1, 1.0), (0, 0, 0.5), (2, 2, 0.4)]
    with pytest.raises(ValueError, match=r"expected a table \[N,M\] and 1…3 matches"):
        strongest_matches(table, 4)


def test_lines_join_the_centres_of_matching_places():
    table = torch.zeros(49, 49)
    table[8, 20] = 1.0  # row 1, column 1 with row 2, column 6
    fig = figures.matching_lines([(face(0), face(1))], [table], ["same class"], count=1)
    line = next(line for line in fig.axes[0].lines if line.get_marker() == "o")
    (x1, x2), (y1, y2) = line.get_data()
    top = fig.axes[0].images[0].get_extent()[3]
    assert (x1, y1 - top) == pytest.approx((1.5 / 7, 1.5 / 7))
    assert (x2, y2 - top) == pytest.approx((1.06 + 6.5 / 7, 2.5 / 7))
    with pytest.raises(ValueError, match="1 pairs, 1 tables and 2 names"):
        figures.matching_lines([(face(0), face(1))], [table], ["a", "b"])
    with pytest.raises(ValueError, match=r"expected tables \[G·G,G·G\]"):
        figures.matching_lines([(face(0), face(1))], [torch.zeros(5, 5)], ["a"], count=1)


def test_the_chosen_place_is_framed_and_its_likes_are_hot():
    table = torch.zeros(49, 49)
    table[10, 48] = 1.0
    fig = figures.similarity_over_both(face(0), face(1), table, [10])
    frame = fig.axes[0].patches[-1]
    top = fig.axes[0].images[0].get_extent()[3]
    assert (frame.get_x(), frame.get_y() - top) == pytest.approx((3 / 7, 1 / 7))
    heat = np.asarray(fig.axes[0].images[1].get_array()).astype(int)
    grey = face(1).permute(1, 2, 0).numpy() @ np.array([0.299, 0.587, 0.114])
    assert abs(heat[-1, -1] - grey[-1, -1]).max() > 40
    assert abs(heat[0, 0] - grey[0, 0]).max() <= 1


def test_rows_are_the_faces_and_then_each_kind_of_map():
    maps = {"S": torch.rand(2, 7, 7), "D": torch.rand(2, 7, 7)}
    fig = figures.maps_in_rows(face(0, 2), maps, captions=["one", "two"])
    pictures = [image for image in fig.axes[0].images if np.asarray(image.get_array()).ndim == 3]
    assert len(pictures) == 6
    assert np.array_equal(pictures[1].get_array(), face(0, 2)[1].permute(1, 2, 0).numpy())
    texts = [text.get_text() for text in fig.axes[0].texts]
    assert texts[:2] == ["one", "two"]
    assert {"S", "D"} <= set(texts)
    with pytest.raises(ValueError, match=r"expected maps 'S' as \[2,h,w\]"):
        figures.maps_in_rows(face(0, 2), {"S": torch.rand(3, 7, 7)})


def test_a_curve_a_weight():
    history = pd.DataFrame({"epoch": [1, 2], "k1": [1.0, 1.2], "k2": [1.0, 0.9]})
    fig = figures.weights_through_training(history, {"k1": "fine", "k2": "coarse"})
    curves = {line.get_label(): list(line.get_ydata()) for line in fig.axes[0].lines[:2]}
    assert curves == {"fine": [1.0, 1.2], "coarse": [1.0, 0.9]}
    with pytest.raises(ValueError, match="k3 missing"):
        figures.weights_through_training(history, {"k3": "none"})
