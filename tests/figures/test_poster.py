import numpy as np
import pandas as pd
import pytest
import torch

from fer_lab.figures.poster import accuracy_against_scale, attention_and_landmarks, landmark_predictions

FACES = torch.randint(0, 255, (4, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
POINTS = torch.rand(4, 68, 2, generator=torch.Generator().manual_seed(1))


def dots(fig):
    """Offsets of every scatter, [number,68,2]."""
    return np.stack([np.asarray(c.get_offsets()) for c in fig.axes[0].collections])


def test_found_points_lie_on_their_faces_with_lines_to_the_truth():
    truth = POINTS + 0.01
    fig = landmark_predictions(FACES, POINTS, truth, titles=list("abcd"), columns=3)
    drawn = dots(fig)
    assert drawn.shape == (4, 68, 2)
    moved = drawn[1] - drawn[0] - (POINTS[1] - POINTS[0]).numpy()
    np.testing.assert_allclose(moved, np.broadcast_to([1.06, 0], (68, 2)), atol=1e-6)
    # The fourth face begins the second row.
    np.testing.assert_allclose((drawn[3] - POINTS[3].numpy())[:, 0], 0, atol=1e-6)
    lines = fig.axes[0].lines
    assert len(lines) == 4 * 68
    np.testing.assert_allclose(np.diff(lines[0].get_xdata()), 0.01, atol=1e-6)
    assert {text.get_text() for text in fig.axes[0].texts} >= set("abcd")
    without = landmark_predictions(FACES, POINTS)
    assert not without.axes[0].lines
    assert not any("true" in text.get_text() for text in without.axes[0].texts)


def test_landmarks_lie_on_the_face_and_on_every_map():
    maps = torch.rand(4, 3, 7, 7)
    fig = attention_and_landmarks(FACES, maps, POINTS, row_titles=list("abcd"), column_titles=list("xyz"))
    drawn = dots(fig)
    assert drawn.shape == (16, 68, 2)
    np.testing.assert_allclose(drawn[2] - drawn[0], np.broadcast_to([2.12, 0], (68, 2)), atol=1e-6)
    assert len(fig.axes[0].images) == 17  # and the scale of the heat
    assert {text.get_text() for text in fig.axes[0].texts} >= set("abcdxyz") | {"face", "most"}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: landmark_predictions(FACES, POINTS[:3]), r"\[4,68,2\], got \[3, 68, 2\]"),
        (lambda: landmark_predictions(FACES, POINTS, titles=["a"]), "1 titles for 4 faces"),
        (lambda: attention_and_landmarks(FACES, torch.rand(4, 7, 7), POINTS), r"\[4,K,h,w\]"),
        (
            lambda: attention_and_landmarks(FACES, torch.rand(4, 2, 7, 7), POINTS, column_titles=["a"]),
            "2 column",
        ),
        (lambda: accuracy_against_scale(pd.DataFrame({"label": []})), "percent"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_line_a_model_from_whole_to_small_faces():
    rows = [("a", p, v, v - 0.1, v + 0.1) for p, v in ((100, 0.9), (50, 0.5))]
    rows += [("b", p, v, np.nan, np.nan) for p, v in ((100, 0.8), (50, 0.7))]
    fig = accuracy_against_scale(pd.DataFrame(rows, columns=["label", "percent", "value", "low", "high"]))
    ax = fig.axes[0]
    assert [line.get_label() for line in ax.lines] == ["a", "b"]
    assert ax.lines[0].get_ydata().tolist() == [0.5, 0.9]
    left, right = ax.get_xlim()
    assert left > 100 > 50 > right
