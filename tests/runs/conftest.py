import pytest
import torch

from fer_lab.models import create_model, method


@pytest.fixture
def toy(monkeypatch):
    """`toy(num_classes, width=4)`: a fresh toy model, known by name while the test runs."""
    monkeypatch.setitem(method._METHODS, "toy", "toy_method:Toy")
    monkeypatch.setitem(method._METHODS, "other", "toy_method:OtherToy")

    def make(num_classes=3, name="toy", seed=0, **options):
        torch.manual_seed(seed)
        return create_model(name, num_classes, **options)

    return make
