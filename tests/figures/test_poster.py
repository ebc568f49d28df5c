import numpy as np
import pytest
import torch

from fer_lab.figures.poster import landmark_predictions, token_layouts

FACES = torch.randint(0, 255, (4, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
POINTS = torch.rand(4, 68, 2, generator=torch.Generator().manual_seed(1))


def dots(fig):
    """Offsets of every scatter, [number,68,2]."""
    return np.stack([np.asarray(c.get_offsets()) for c in fig.axes[0].collections])


def test_found_points_lie_on_their_faces_with_lines_to_the_truth():
    truth = POINTS + 0.01
    fig = landmark_predictions(FACES, POINTS, truth, titles=list("abcd"))
    drawn = dots(fig)
    assert drawn.shape == (4, 68, 2)
    moved = drawn[1] - drawn[0] - (POINTS[1] - POINTS[0]).numpy()
    np.testing.assert_allclose(moved, np.broadcast_to([1.06, 0], (68, 2)), atol=1e-6)
    np.testing.assert_allclose((drawn[3] - POINTS[3].numpy())[:, 0], 3.18, atol=1e-6)
    lines = fig.axes[0].lines
    assert len(lines) == 4 * 68
    np.testing.assert_allclose(np.diff(lines[0].get_xdata()), 0.01, atol=1e-6)
    assert {text.get_text() for text in fig.axes[0].texts} >= set("abcd")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: landmark_predictions(FACES, POINTS[:3], POINTS, list("abcd")),
            r"\[4,68,2\], got \[3, 68, 2\]",
        ),
        (lambda: landmark_predictions(FACES, POINTS, POINTS, ["a"]), "1 titles for 4 faces"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_panel_a_layout():
    cells = {"spatial": np.eye(2), "official": np.ones((2, 2))}
    left, right, *bars = token_layouts(cells).axes
    assert [ax.get_title(loc="left") for ax in (left, right)] == ["spatial", "official"]
    assert np.ravel(left.collections[0].get_array()).tolist() == [1, 0, 0, 1]
    assert [label.get_text() for label in left.get_yticklabels()] == ["0", "1"]
    assert len(bars) == 2
