import numpy as np

from fer_lab import figures
from fer_lab.figures.style import METHOD_COLORS


def test_a_mean_for_each_model_and_a_line_for_each_person():
    happy = {"synthetic/dan": np.array([[0.0, 0.2], [0.6, 1.0]]), "synthetic/qcs": np.zeros((2, 2))}
    left, right = figures.from_relaxed_to_smiling(np.array([0.0, 1.0]), happy, "synthetic/dan").axes
    assert [line.get_label() for line in left.lines[:-1]] == ["DAN · drawings", "QCS · drawings"]
    np.testing.assert_allclose(left.lines[0].get_ydata(), [0.1, 0.8])
    assert [line.get_ydata().tolist() for line in right.lines[:-1]] == [[0.0, 0.6], [0.2, 1.0]]
    assert {line.get_color() for line in right.lines[:-1]} == {METHOD_COLORS["dan"]}
    assert [ax.lines[-1].get_ydata()[0] for ax in (left, right)] == [0.5, 0.5]
    assert left.get_title(loc="left") == "Mean of 2 people"
