"""How the cost grows with the number of faces, of classes, and of pixels: measured points, and a line."""

import statistics
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.optimize import nnls

from fer_lab.bench.data import read_rate
from fer_lab.bench.losses import loss_steps
from fer_lab.bench.models import times_of
from fer_lab.data.faces import FaceSet
from fer_lab.models.method import create_model

# What grows, and the power of it that the line grows with: a picture's pixels grow as its side's square.
POWERS = {"faces": 1, "classes": 1, "side, pixels": 2}
LOSSES = {"cross_entropy": "cross-entropy", "predicted, dimension": "predicted", "fully, dimension": "fully"}


def bench_growth(
    faces: Sequence[int] = (1_000, 10_000, 100_000, 1_000_000),
    classes: Sequence[int] = (7, 30, 100, 300, 1000),
    sides: Sequence[int] = (56, 112, 224, 448),
    *,
    batch: int = 128,
    seconds: float = 1.0,
) -> pd.DataFrame:
    """Milliseconds as one thing grows and all else stays, on the processor and one thread.

    "faces": a batch of faces of 56 px, shuffled, read and augmented, out of a set of so many, which are 1,000
    pictures over and over. "classes": forward and backward of the losses of `LOSSES`, for a batch of embeddings
    with 512 dimensions. "side, pixels": one picture through a network of paper size. ResNet-18 and DAN take any
    side; POSTER's and QCS's position embeddings are of 224 px.

    Returns columns grows, name, size, ms (median over `seconds`; the mean for faces), and line, the ms of
    a + b·sizeᵖ, with p of `POWERS` and a, b ≥ 0 of the least squares of relative errors.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    rows: list[tuple[str, str, int, float]] = []
    try:
        for count in faces:
            ms = 1000 * batch / read_rate(_repeated(count), 56, batch, seconds)
            rows.append(("faces", "a batch", count, ms))
        for count in classes:
            steps = loss_steps(batch, count, 512)
            rows += [("classes", title, count, _ms(steps[key], seconds)) for key, title in LOSSES.items()]
        for name in ("baseline", "dan"):
            model = create_model(name, size="paper").eval()
            trunk: Any = model.trunk
            for side in sides:
                # Convolutions and means take any side; the time does not depend on what is answered.
                trunk.image_size = side
                picture = torch.zeros(1, 3, side, side)
                with torch.inference_mode():
                    rows.append(("side, pixels", name, side, _ms(partial(model, picture), seconds)))
    finally:
        torch.set_num_threads(threads)
    table = pd.DataFrame(rows, columns=["grows", "name", "size", "ms"])
    parts = [part.assign(line=_line(part)) for _, part in table.groupby(["grows", "name"], sort=False)]
    return pd.concat(parts, ignore_index=True)


def _repeated(count: int) -> FaceSet:
    """A set of so many faces whose pixels are 1,000 grey pictures."""
    pixels, rows = torch.full((1000, 3, 56, 56), 128, dtype=torch.uint8), torch.arange(count)
    about: dict[str, Any] = {"splits": np.full(count, "train"), "subjects": torch.full((count,), -1)}
    about |= {"name": "grey", "fingerprint": f"grey-{count}", "rows": rows % 1000}
    return FaceSet(pixels, rows % 2, ("neutral", "happiness"), **about)


def _ms(step: Callable[[], object], seconds: float) -> float:
    step()
    return 1000 * statistics.median(times_of(step, "cpu", seconds))


def _line(part: pd.DataFrame) -> np.ndarray:
    """a + b·sizeᵖ at each size of one curve [N]."""
    terms = np.stack([np.ones(len(part)), part["size"].to_numpy(float) ** POWERS[part["grows"].iloc[0]]], 1)
    return terms @ nnls(terms / part[["ms"]].to_numpy(), np.ones(len(part)))[0]
