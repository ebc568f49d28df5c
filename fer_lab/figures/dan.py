"""TODO."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from fer_lab.figures.style import INK, SERIES, new_figure, styled


@styled
def head_overlap_figure(values_by_variant: Mapping[str, Sequence[float]], title: str | None = None) -> Figure:
    """How much the heads overlap on each face, a row of dots a variant, with the mean as a bar.

    Args:
        values_by_variant: name → values of `structure.mean_pairwise_cosine`, one a face (or a seed).

    Raises:
        ValueError: no variant, or one without values.
    """
    if not values_by_variant or not all(len(values) for values in values_by_variant.values()):
        raise ValueError("every variant needs at least one value of overlap")
    fig = new_figure(7.2, 0.75 * len(values_by_variant) + 1.1)
    ax = fig.subplots()
    spread = np.random.default_rng(0)
    label = {"textcoords": "offset points", "ha": "center", "va": "bottom", "weight": "bold", "fontsize": 8.5}
    for i, (name, values) in enumerate(values_by_variant.items()):
        values, color = np.asarray(values, dtype=float), SERIES[i % len(SERIES)]
        size, alpha = (9, 0.35) if len(values) > 30 else (26, 0.7)
        jitter = spread.uniform(-0.2, 0.2, len(values)) if len(values) > 1 else 0.0
        ax.scatter(values, i + jitter, s=size, color=color, alpha=alpha, linewidths=0, gid=name)
        mean = values.mean()
        ax.plot([mean, mean], [i - 0.32, i + 0.32], color=INK, linewidth=2.2)
        ax.annotate(f"{mean:.2f}", (mean, i - 0.32), (0, 2), **label)
    ax.set_yticks(range(len(values_by_variant)), list(values_by_variant))
    ax.set(xlim=(-0.02, 1.02), ylim=(len(values_by_variant) - 0.45, -0.65))
    ax.set_xlabel("mean pairwise cosine of the heads' maps (0: disjoint places, 1: the same)")
    ax.tick_params(axis="y", length=0, labelcolor=INK)
    ax.spines["left"].set_visible(False)
    ax.grid(axis="x")
    ax.set_title(title or "How much the heads look at the same places")
    return fig
