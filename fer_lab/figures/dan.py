"""What notebook 02 draws: feature maps, and how much the heads overlap."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.figure import Figure

from fer_lab.explanation.maps import normalize_for_display
from fer_lab.figures.pictures import mosaic
from fer_lab.figures.style import HEAT, INK, SERIES, chart, plain_rows, styled


@styled
def feature_maps(features: torch.Tensor, title: str, limit: int = 32) -> Figure:
    """The first `limit` channels of [C,h,w], each scaled on its own, its number above it."""
    if features.ndim != 3:
        raise ValueError(f"expected features [C,h,w], got {list(features.shape)}")
    shown = features[:limit]
    scaled = normalize_for_display(shown[None])[0].cpu().numpy()
    starts = range(0, len(shown), 8)
    names = [[str(j) for j in range(i, min(i + 8, len(shown)))] for i in starts]
    tiles = [[HEAT(one)[..., :3] for one in scaled[i : i + 8]] for i in starts]
    return mosaic(tiles, captions=names, cell=0.95, title=title, interpolation="nearest")[0]


@styled
def head_overlap_figure(values_by_variant: Mapping[str, Sequence[float]]) -> Figure:
    """How much the heads overlap on each face: a dot a face, in a row a variant, with the mean as a bar.

    `values_by_variant`: name → values of `mean_pairwise_cosine`, one a face (or a seed).
    """
    if not values_by_variant or not all(len(values) for values in values_by_variant.values()):
        raise ValueError("every variant needs at least one value of overlap")
    fig, ax = chart(7.2, 0.75 * len(values_by_variant) + 1.1)
    parts = [pd.DataFrame({"variant": name, "overlap": v}) for name, v in values_by_variant.items()]
    rows: dict[str, Any] = {"data": pd.concat(parts), "x": "overlap", "y": "variant", "hue": "variant"}
    rows |= {"palette": list(SERIES[: len(parts)]), "ax": ax}
    # A kernel estimate reaches beyond the data, and a cosine of maps does not: `cut=0`.
    sns.violinplot(**rows, inner=None, cut=0, density_norm="width", alpha=0.3, linewidth=0)
    sns.stripplot(**rows, size=3, alpha=0.5, jitter=False)
    for i, values in enumerate(values_by_variant.values()):
        mean = float(np.mean(values))
        ax.plot([mean, mean], [i - 0.32, i + 0.32], color=INK, linewidth=2.2)
        note: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "va": "bottom", "weight": "bold"}
        ax.annotate(f"{mean:.2f}", (mean, i - 0.32), (0, 2), fontsize=8.5, **note)
    xlabel = "mean pairwise cosine of the heads' maps (0: disjoint places, 1: the same)"
    ax.set(xlim=(-0.02, 1.02), ylim=(len(parts) - 0.45, -0.65), xlabel=xlabel, ylabel="")
    ax.set(title="How much the heads look at the same places")
    plain_rows(ax)
    return fig
