"""What notebook 09 draws, distances between gradients and the rounds of a ring, and how a cost grows."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from fer_lab.figures import style

LEAST = 1e-8


@style.styled
def gradient_distances(distances: Mapping[str, float], title: str) -> Figure:
    """Name → relative distance from the gradient of the whole batch: dots with values on a logarithmic scale.

    A distance of less than 1e-8 stands at 1e-8.
    """
    fig, ax = style.chart(7.5, 0.45 * len(distances) + 0.85)
    ax.set_xscale("log")
    note: dict[str, Any] = {"textcoords": "offset points", "va": "center", "color": style.SOFT}
    for row, value in enumerate(distances.values()):
        ax.plot(max(value, LEAST), row, "o", color=style.SERIES[0], markersize=9, clip_on=False)
        text = f"{value:.0%}" if value >= 0.01 else f"{value:.0e}"
        ax.annotate(text, (max(value, LEAST), row), (9, 0), **note)
    ax.set(xlim=(LEAST, 10), ylim=(len(distances) - 0.5, -0.5), title=title)
    ax.set_yticks(range(len(distances)), list(distances))
    ax.set_xlabel("distance from the gradient of the whole batch, relative to its length")
    style.plain_rows(ax)
    return fig


@style.styled
def ring_rounds(rounds: Sequence[np.ndarray]) -> Figure:
    """How many devices' parts each piece holds, [devices,pieces], at the start and after each round."""
    fig = style.new_figure(9.0, 1.9)
    names = [str(i + 1) for i in range(len(rounds[0]))]
    for i, (ax, held) in enumerate(zip(fig.subplots(1, len(rounds)), rounds, strict=True)):
        style.heat_table(ax, held, names, names, held, slant=0, vmin=0, vmax=len(held), square=True)
        ax.tick_params(labelleft=i == 0)
        ax.set_title(f"round {i}" if i else "start", fontsize=9)
    title = f"A ring of {len(names)}: how many devices' parts a piece holds"
    return style.heading(fig, title, "piece", "device")


@style.styled
def growth(table: pd.DataFrame) -> Figure:
    """A panel for each thing that grows, by `bench_growth`: measured dots and the line, on logarithmic axes."""
    fig = style.new_figure(9.0, 3.0)
    panels = table.groupby("grows", sort=False)
    for ax, (grows, part) in zip(fig.subplots(1, len(panels)), panels, strict=True):
        for color, (name, curve) in zip(style.SERIES, part.groupby("name", sort=False), strict=False):
            ax.plot(curve["size"], curve["line"], **style.DASHED | {"color": color})
            ax.plot(curve["size"], curve["ms"], "o", color=color, label=style.method_title(name))
        low = 10 ** np.floor(np.log10(part["ms"].min()))
        ax.set(xscale="log", yscale="log", xlabel=grows, ylim=(low, 20 * part["ms"].max()))
        ax.set_xticks(curve["size"], [f"{size:,}" for size in curve["size"]], minor=False)
        ax.minorticks_off()
        ax.grid()
        ax.legend(loc="best")
    title = "How the time grows: measured, and a + b·size (of pixels: of the side's square)"
    return style.heading(fig, title, ylabel="ms")
