"""Speeds are never asserted: they belong to the machine. What is counted, and how, is."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from fer_lab.bench import data
from fer_lab.data.faces import FaceSet


def rendered(n, seed=0, size=112):
    return FaceSet(
        torch.zeros(n, 3, size, size, dtype=torch.uint8),
        torch.arange(n) % 2,
        ("neutral", "happiness"),
        np.array(["train"] * n),
        torch.full((n,), -1),
        "synthetic",
        "0",
    )


def test_data_rates(monkeypatch):
    sizes = []

    def renderer(n, seed, size):
        sizes.append((n, size))
        return rendered(n, size=size)

    monkeypatch.setattr("fer_lab.bench.data.SyntheticFaces", renderer)
    real = dataclasses.replace(rendered(12, size=48), name="ferplus")
    monkeypatch.setattr(
        "fer_lab.bench.data.load_dataset", lambda name, root: {("ferplus", "there"): real}[name, root]
    )
    table = data.bench_data(
        n=20, dataset="ferplus", root="there", batch_size=10, seconds=0.01, counts=(30, 60_000)
    )
    assert table[["what", "px", "faces"]].values.tolist() == [
        ["rendered", 56, 20],
        ["rendered", 112, 20],
        ["synthetic, read and augmented", 112, 20],
        ["ferplus, read and augmented", 112, 12],
        ["grey, read and augmented", 56, 30],
        ["grey, read and augmented", 56, 60_000],
    ]
    assert (table["faces_per_s"] > 0).all()
    assert sizes == [(20, 56), (20, 112)]


def test_the_faces_that_are_read_have_the_size_asked_for(monkeypatch):
    monkeypatch.setattr("fer_lab.bench.data.SyntheticFaces", rendered)
    monkeypatch.setattr(
        "fer_lab.bench.data.read_rate", lambda faces, size, batch_size, seconds: float(faces.image_size)
    )
    assert data.bench_data(48, 10, counts=())["faces_per_s"].iloc[-1] == 48
    assert data.bench_data(48, 10, counts=(3,))["faces_per_s"].tolist()[-2:] == [48, 56]


def test_a_large_set_stays_on_the_disk(tmp_path):
    before = data.resident_memory().own
    if math.isnan(before):
        pytest.skip("this system does not tell")
    # 565 MB of pixels, of which not one takes room.
    grey = data._grey_faces(60_000, tmp_path / "grey.npy")
    assert grey.storage.nbytes == 60_000 * 3 * 56 * 56
    assert len(next(iter(data.Loader(grey, batch_size=64, size=56)))) == 64
    assert data.resident_memory().own - before < 100
    assert (tmp_path / "grey.npy").stat().st_blocks * 512 < 10 * 2**20


def test_a_data_set_needs_its_folder():
    with pytest.raises(ValueError, match="'ferplus' needs its folder"):
        data.bench_data(dataset="ferplus")


def test_reading_counts_every_face_of_every_epoch(monkeypatch):
    # A clock that ticks once a reading: begun at 0, then 1 after each batch of 10, until 5 has passed 4.
    clock = iter(range(100))
    monkeypatch.setattr(data.time, "perf_counter", lambda: next(clock))
    epochs = []
    monkeypatch.setattr(data.Loader, "set_epoch", lambda self, epoch: epochs.append(epoch))
    assert data.read_rate(rendered(20, size=56), 56, batch_size=10, seconds=4) == 50 / 5
    assert epochs == [0, 1, 2]


def test_the_memory_map_holds_the_same_pixels(tmp_path):
    faces = rendered(5, size=8)
    faces.storage.random_(0, 256)
    mapped = data._memory_mapped(faces.subset([3, 1]), tmp_path / "faces.npy")
    assert torch.equal(mapped.images, faces.storage[[3, 1]])
    assert mapped.labels.tolist() == [1, 1]
