"""What notebook 08 draws: how a probability follows a muscle."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from fer_lab.figures.style import DASHED, method_color, method_title, new_figure, styled


@styled
def from_relaxed_to_smiling(strengths: np.ndarray, happy: Mapping[str, np.ndarray], one: str) -> Figure:
    """P(happiness) against the strength [N] of AU12: the mean of each model, and `one` person by person.

    `happy`: model → probabilities [N,people].
    """
    fig = new_figure(9.0, 3.2)
    left, right = fig.subplots(1, 2, sharey=True)
    for name, p in happy.items():
        left.plot(strengths, np.asarray(p).mean(1), color=method_color(name), label=method_title(name))
    right.plot(strengths, happy[one], color=method_color(one), linewidth=0.8, alpha=0.6)
    people = np.shape(happy[one])[1]
    left.set(ylabel="P(happiness)", ylim=(0, 1.02), title=f"Mean of {people} people")
    right.set_title(f"The same {people}, one by one: {method_title(one)}")
    for ax in (left, right):
        ax.set_xlabel("AU12, lip corner puller")
        ax.axhline(0.5, **DASHED)
        ax.grid()
    left.legend(loc="lower right")
    return fig
