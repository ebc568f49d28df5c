"""Speeds are never asserted: they belong to the machine. What is counted, and how, is."""

import pytest
import torch

from fer_lab.bench import losses


def test_every_loss_is_timed_beside_a_step_of_its_batch(monkeypatch):
    jobs = []

    def one(job):
        jobs.append(job)
        return {"ms_per_step": 80.0}

    monkeypatch.setattr("fer_lab.bench.losses.in_own_process", one)
    monkeypatch.setattr("fer_lab.bench.losses.times_of", lambda step, device, seconds: [step(), 0.002][1:] * 3)
    table = losses.bench_losses(32, 4, 6, device="cpu")
    assert [(job.model, job.size, job.mode, job.path, job.batch) for job in jobs] == [
        ("triplet_center", "paper", "train", "default", 16)
    ]
    negatives = ("hardest", "predicted", "semi", "fully")
    named = [f"{name}, {hinge}" for hinge in ("dimension", "vector") for name in negatives]
    assert table["loss"].tolist() == ["cross_entropy", "center", *named]
    assert table[["batch", "classes", "dim"]].drop_duplicates().values.tolist() == [[32, 4, 6]]
    assert table["ms"].unique().tolist() == [2.0]
    # A step of 16 takes 80 ms, one of 32 twice that.
    assert table["share_of_step"].unique().tolist() == [2.0 / 160]


def test_a_loss_is_stepped_forward_and_backward(monkeypatch):
    reached = []
    backward = torch.Tensor.backward
    monkeypatch.setattr(torch.Tensor, "backward", lambda loss: (backward(loss), reached.append(loss.item()))[0])
    steps = losses.loss_steps(8, 3, 5)
    for step in steps.values():
        step()
        step()
    assert len(reached) == 2 * len(steps)
    assert all(value > 0 for value in reached)
    # The same faces each time, and gradients that do not pile up.
    assert reached[::2] == reached[1::2]


def test_a_loss_of_no_classes_is_refused_before_anything_runs(monkeypatch):
    monkeypatch.setattr("fer_lab.bench.losses.in_own_process", lambda job: pytest.fail("a measurement ran"))
    with pytest.raises(ValueError, match="at least 2 classes"):
        losses.bench_losses(8, 1, 5, device="cpu")
