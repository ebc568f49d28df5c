"""A device against the processor: equal where it is the processor, and a wrong number is seen."""

import pytest
import torch

from fer_lab.bench import bench_device, device
from fer_lab.models import list_models


def test_the_processor_agrees_with_itself():
    table = bench_device(sizes=["tiny"], device="cpu", batch=2)
    assert table["model"].tolist() == list_models()
    assert tuple(table.columns) == device.COLUMNS
    assert not table[["logits", "loss", "gradient"]].any(axis=None)
    # Folded, and in bf16 where the processor has it.
    assert (table["logits_fast"] < 0.03).all()


def test_a_difference_is_measured_as_a_share(monkeypatch):
    """The second network has logits a tenth too large, half of the loss, and the gradient turned round."""
    found = []

    def numbers(*_):
        found.append(None)
        first = (torch.tensor([[2.0, -4.0]]), torch.tensor(1.0), torch.tensor([3.0, 4.0]))
        return first if len(found) == 1 else (first[0] * 1.1, first[1] / 2, -first[2])

    monkeypatch.setattr(device, "_numbers", numbers)
    monkeypatch.setattr(device, "fuse", lambda model: lambda images: torch.tensor([[2.0, -3.0]]))
    row = bench_device(["baseline"], ["tiny"], device="cpu", batch=2).iloc[0]
    assert row["logits"] == pytest.approx(0.1)
    assert row["logits_fast"] == pytest.approx(0.25)
    assert row["loss"] == pytest.approx(0.5)
    assert row["gradient"] == pytest.approx(2)


def test_without_a_gpu_it_says_so(monkeypatch):
    monkeypatch.setattr(device, "best_device", lambda: "cpu")
    with pytest.raises(ValueError, match="no GPU that torch can use"):
        bench_device()
    with pytest.raises(ValueError, match=r"expected some of tiny, paper, .*got 'huge'"):
        bench_device(sizes=["huge"], device="cpu")
