"""Faces a second, rendered, or read from a memory map and augmented; and the cost of a larger set."""

import dataclasses
import math
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from fer_lab.bench.models import resident_memory
from fer_lab.data.datasets import load_dataset
from fer_lab.data.faces import FaceSet
from fer_lab.data.loader import Loader
from fer_lab.data.synthetic import SyntheticFaces
from fer_lab.models.baseline import SCRATCH_AUGMENTATION


def bench_data(
    size: int = 112,
    n: int = 2000,
    *,
    dataset: str | None = None,
    root: str | Path | None = None,
    batch_size: int = 128,
    seconds: float = 2.0,
    counts: Sequence[int] = (1_000, 10_000, 50_000, 200_000),
) -> pd.DataFrame:
    """Faces a second: rendered at 56 px and at `size`; read from a memory map and augmented to `size`.

    The system's page cache holds the memory map, as it does from the second epoch of a training. Sets of
    `counts` grey faces of 56 px, in empty files, show what a larger set costs. Returns columns what, px (of the
    result), faces (in the set), faces_per_s, and for `counts` own_mb: what set and loader add to this process's
    memory, without the file's pages, which the system may take back.

    `n` faces are rendered, and reading is timed for `seconds`. A data set in its folder (see `load_dataset`) is
    measured too, out of its cache; without the folder that is a ValueError.
    """
    real = None
    if dataset is not None:
        if root is None:
            raise ValueError(f"data set {dataset!r} needs its folder: give root")
        real = load_dataset(dataset, root)
    rows = []
    for px in dict.fromkeys((56, size)):
        start = time.perf_counter()
        faces = SyntheticFaces(n, seed=0, size=px)
        rows.append(("rendered", px, n, n / (time.perf_counter() - start), math.nan))
    with tempfile.TemporaryDirectory() as folder:
        mapped = _memory_mapped(faces, Path(folder) / "faces.npy")
        for read in (mapped, real) if real is not None else (mapped,):
            rate = read_rate(read, size, batch_size, seconds)
            rows.append((f"{read.name}, read and augmented", size, len(read), rate, math.nan))
        del mapped, read
        for count in counts:
            before = resident_memory().own
            grey = _grey_faces(count, Path(folder) / "grey.npy")
            rate = read_rate(grey, 56, batch_size, seconds)
            rows.append(("grey, read and augmented", 56, count, rate, resident_memory().own - before))
            del grey
    return pd.DataFrame(rows, columns=["what", "px", "faces", "faces_per_s", "own_mb"])


def _grey_faces(n: int, path: Path) -> FaceSet:
    """Faces of 56 px in a sparse file: all zeros, and not a pixel on the disk."""
    np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(n, 3, 56, 56)).flush()
    labels, subjects, splits = torch.arange(n) % 2, torch.full((n,), -1), np.full(n, "train")
    return FaceSet(_mapped(path), labels, ("neutral", "happiness"), splits, subjects, "grey", f"grey-{n}")


def _memory_mapped(faces: FaceSet, path: Path) -> FaceSet:
    """The same faces, with their pixels in a file."""
    np.save(path, faces.images.numpy())
    return dataclasses.replace(faces, storage=_mapped(path), rows=torch.arange(len(faces)), regions=None)


def _mapped(path: Path) -> torch.Tensor:
    # Copy-on-write, which torch takes without a warning. Nothing is written.
    return torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))


def read_rate(faces: FaceSet, size: int, batch_size: int, seconds: float) -> float:
    """Faces a second out of a shuffling loader with the augmentation of training from scratch."""
    loader = Loader(faces, batch_size=batch_size, size=size, augmentation=SCRATCH_AUGMENTATION)
    for _ in zip(range(2), loader, strict=False):
        pass
    seen, epoch, start = 0, 0, time.perf_counter()
    while True:
        loader.set_epoch(epoch)
        for batch in loader:
            seen += len(batch)
            if (passed := time.perf_counter() - start) > seconds:
                return seen / passed
        epoch += 1
