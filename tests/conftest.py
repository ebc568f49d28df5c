"""Settings that must stand before torch and matplotlib are imported: one thread a process, no window."""

import os

import pytest

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = "1"
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
os.environ["MPLBACKEND"] = "Agg"


@pytest.fixture
def toy(monkeypatch):
    """`toy(num_classes, width=4)`: a fresh toy model, known by name while the test runs."""
    import torch

    from fer_lab.models import create_model, method

    monkeypatch.setitem(method._METHODS, "toy", "helpers.toy_method:Toy")
    monkeypatch.setitem(method._METHODS, "other", "helpers.toy_method:OtherToy")

    def make(num_classes=3, name="toy", seed=0, **options):
        torch.manual_seed(seed)
        return create_model(name, num_classes, **options)

    return make
