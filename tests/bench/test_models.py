"""Speeds are never asserted: they belong to the machine. What is counted, and how, is."""

import dataclasses
import math
import subprocess
import sys
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fer_lab.bench import models as speed
from fer_lab.models import create_model, method
from fer_lab.models.method import Method


class Four(Method):
    """Takes quadruplets, does one product of 12 numbers with 2 an image, and remembers how it was called."""

    batch_kind = "quadruplet"
    calls: ClassVar[list] = []

    def __init__(self, num_classes=7, size="tiny"):
        super().__init__(num_classes, size)
        self.image_size = 2
        self.fc = nn.Linear(12, 2)
        self.conv = nn.Conv2d(3, 3, 2)

    def forward(self, images):
        layout = self.conv.weight.is_contiguous(memory_format=torch.channels_last)
        self.calls.append((len(images), self.training, torch.is_autocast_enabled("cpu"), layout))
        return self.fc(images.flatten(1)) + self.conv.bias.mean()

    def training_losses(self, batch):
        return {"total": self(batch.images.flatten(0, 1)).sum()}


def measured(**changes):
    job = speed.Job("baseline", "tiny", "inference", "plain", batch=2, seconds=0.01, device="cpu")
    return speed.measure(dataclasses.replace(job, **changes))


def test_the_table_has_a_row_for_each_combination():
    table = speed.bench_models(["baseline"], ["tiny"], ["inference"], paths=["default"], batch=2, seconds=0.01)
    assert tuple(table.columns) == speed.COLUMNS
    names = ["model", "size", "mode", "path", "batch"]
    assert table[names].values.tolist() == [["baseline", "tiny", "inference", "default", 2]]
    assert (table.drop(columns=names) > 0).all(axis=None)
    np.testing.assert_allclose(table["images_per_s"], 2 / table["ms_per_step"] * 1000)


def test_share_of_peak_is_against_the_best_peak_of_the_same_path(monkeypatch):
    peaks = {("train", "plain"): 100.0, ("inference", "plain"): 50.0}
    peaks |= {("train", "default"): 300.0, ("inference", "default"): 400.0}
    measured = []

    def one(job):
        measured.append((job.model, job.size, job.batch))
        return {
            "images_per_s": 10.0,
            "ms_per_step": 1.0,
            "peak_mb": 1.0,
            "gflop_per_image": 2.0,
            "parameters_m": 1.0,
            "first_step_s": 1.0,
            "peak_gflops": peaks[job.mode, job.path],
        }

    monkeypatch.setattr("fer_lab.bench.models.in_own_process", one)
    table = speed.bench_models(["dan"], ["paper"], device="cpu")
    assert measured == [("dan", "paper", 16)] * 4
    assert table["share_of_peak"].tolist() == [0.2, 0.05, 0.2, 0.05]

    peaks = dict.fromkeys(peaks, 19.0)
    assert speed.bench_models(["dan"], ["paper"], device="cpu")["share_of_peak"].isna().all()

    measured.clear()
    speed.bench_models(["dan", "poster"], ["tiny", "base"], ["inference"], paths=["plain"], device="cpu")
    assert measured == [("dan", "tiny", 64), ("poster", "tiny", 64), ("poster", "base", 16)]


def test_flops_and_parameters_of_the_tiny_baseline():
    row = measured()
    # 2 × multiply-adds of the convolutions and the classifier, layer by layer: inputs · outputs · k² · side².
    stem = 3 * 32 * 9 * 28**2
    first = 4 * 32 * 32 * 9 * 28**2
    second = (32 * 64 * 9 + 3 * 64 * 64 * 9 + 32 * 64) * 14**2
    third = (64 * 128 * 9 + 3 * 128 * 128 * 9 + 64 * 128) * 7**2
    assert row["gflop_per_image"] == pytest.approx(2 * (stem + first + second + third + 128 * 7) / 1e9)
    assert row["parameters_m"] == sum(p.numel() for p in create_model("baseline").parameters()) / 1e6


@pytest.mark.parametrize(
    ("name", "idle"),
    [
        ("qcs", ("cross.", "cross_branch.")),
        ("dcs", ("cross.", "cross_branch.")),
        ("dan", ("centers",)),
        ("poster", ()),
    ],
)
def test_only_parameters_that_act_are_counted(name, idle):
    model = create_model(name)
    sizes = {key: p.numel() for key, p in model.named_parameters()}
    acting = sum(n for key, n in sizes.items() if not key.startswith(idle)) if idle else None
    assert speed.count_parameters(model, "train") == sum(sizes.values())
    found = speed.count_parameters(model, "inference")
    assert found == acting if idle else found <= sum(sizes.values())


def test_qcs_at_inference_is_its_base_network():
    base = create_model("qcs", form="none")
    assert speed.count_parameters(create_model("qcs"), "inference") == sum(p.numel() for p in base.parameters())
    assert measured(model="qcs")["parameters_m"] == pytest.approx(
        sum(p.numel() for p in base.parameters()) / 1e6
    )


def test_training_counts_the_backward_pass():
    # The gradient of weights and of inputs cost as much as the forward pass each, but for the first layer's
    # inputs, which need none.
    forward = measured()["gflop_per_image"]
    stem = 2 * 3 * 32 * 9 * 28**2 / 1e9
    assert measured(mode="train")["gflop_per_image"] == pytest.approx(3 * forward - stem)


@pytest.mark.parametrize("path", speed.PATHS)
@pytest.mark.parametrize("mode", speed.MODES)
def test_a_method_of_quadruplets_is_counted_by_the_image(path, mode, monkeypatch):
    monkeypatch.setitem(method._METHODS, "four", f"{__name__}:Four")
    monkeypatch.setattr(Four, "calls", [])
    monkeypatch.setattr(
        "fer_lab.bench.models.resolve_precision", lambda precision, device: precision.replace("auto", "bf16")
    )
    # Without units for bf16 its large products take minutes.
    monkeypatch.setattr("fer_lab.bench.models.dense_peak", lambda *_, **__: 1.0)
    monkeypatch.setattr("fer_lab.bench.models.times_of", lambda step, device, seconds: [step(), 4.0][1:] * 3)
    row = measured(model="four", mode=mode, path=path, batch=6)
    training = mode == "train"
    # The data need no gradient, so the backward pass costs one product more, that of the weights.
    assert row["gflop_per_image"] == pytest.approx((1 + training) * 2 * 12 * 2 / 1e9)
    assert row["images_per_s"] == (4 if training else 1) * 6 / 4.0
    assert row["ms_per_step"] == 4000
    # At inference one picture more, at the end, shows which parameters act.
    assert len(Four.calls) == 3 + (not training)
    images, *how = zip(*Four.calls[:3], strict=True)
    assert images == (((8,) + (24,) * 2) if training else ((2,) + (6,) * 2))
    assert how[0] == (training,) * 3
    assert how[1] == (False,) + (path == "default",) * 2
    assert how[2] == (path == "default",) * 3


@pytest.mark.parametrize("name", ["baseline", "dan"])
def test_a_training_step_moves_the_weights_and_inference_does_not(name):
    torch.manual_seed(0)
    model = create_model(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.eval()
    speed.make_step(model, "inference", 2)()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    model.train()
    speed.make_step(model, "train", 4)()
    assert [key for key, value in model.named_parameters() if value.grad is None] == []
    assert not torch.equal(model.trunk.conv1.weight, before["trunk.conv1.weight"])


@pytest.mark.parametrize(
    ("kind", "shape", "labels"),
    [
        ("single", (3, 3, 56, 56), [0, 1, 2]),
        ("pair", (3, 2, 3, 56, 56), [[0, 0], [1, 1], [2, 2]]),
        ("quadruplet", (3, 4, 3, 56, 56), [[0, 0, 1, 1], [1, 1, 2, 2], [2, 2, 3, 3]]),
    ],
)
def test_a_random_batch_has_the_shape_that_the_method_trains_on(kind, shape, labels):
    model = create_model("baseline")
    model.batch_kind = kind
    batch = speed.random_batch(model, 3)
    assert batch.images.shape == shape
    assert batch.labels.tolist() == labels
    assert batch.indices.shape == batch.labels.shape


def test_memory_grows_by_what_is_allocated():
    # In a process of its own, as every measurement is: an old one has room of its own to give away again.
    program = """
import torch
from fer_lab.bench import models as speed
before = speed.resident_memory()
kept = torch.ones(16 * 2**20)
after = speed.resident_memory()
print(before.now, after.now, after.peak, kept.nbytes)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    before, after, peak, size = map(float, done.stdout.split())
    if math.isnan(peak):
        pytest.skip("this system does not tell")
    assert size == 64 * 2**20
    assert peak >= after
    assert peak - before > 60


@pytest.mark.parametrize("faster", [0, 1])
def test_the_peak_is_that_of_the_faster_product(faster, monkeypatch):
    times = [[4.0, 2.0, 8.0], [4.0, 2.0, 8.0]]
    times[1 - faster] = [4000.0]
    shapes = []

    def timed(product, device, seconds):
        shapes.append(tuple(product().shape))
        assert seconds == 0.5
        return times[len(shapes) - 1]

    monkeypatch.setattr("fer_lab.bench.models.times_of", timed)
    flop = (2 * 2048**3, 2 * (8 * 128 * 26 * 26) * (128 * 9))[faster]
    assert speed.dense_peak() == pytest.approx(flop / 2.0 / 1e9)
    assert shapes == [(2048, 2048), (8, 128, 26, 26)]


def test_no_layer_beats_the_peak():
    # The slack is for other programs on the same cores; the matrix product alone was beaten more than twofold.
    torch.manual_seed(0)
    block = nn.Conv2d(128, 128, 3, padding=1).to(memory_format=torch.channels_last)
    x = torch.rand(8, 128, 28, 28).to(memory_format=torch.channels_last)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        block(x)
    rates = []
    for _ in range(3):
        with torch.inference_mode():
            layer = counter.get_total_flops() / min(speed.times_of(lambda: block(x), "cpu", 0.1)) / 1e9
        rates.append(layer / speed.dense_peak(seconds=0.2))
    assert min(rates) < 1.25


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"models": ["resnet"]}, "unknown model 'resnet'"),
        ({"sizes": ["huge"]}, "expected some of tiny, paper, .*got 'huge'"),
        ({"modes": ["sleep"]}, "expected some of train, inference, got 'sleep'"),
        ({"batch": 1}, "at least 2 examples"),
        ({"device": "abacus"}, "got 'abacus'"),
    ],
)
def test_a_wrong_request_is_refused_before_anything_runs(arguments, message, monkeypatch):
    monkeypatch.setattr("fer_lab.bench.models.in_own_process", lambda job: pytest.fail("a measurement ran"))
    with pytest.raises(ValueError, match=message):
        speed.bench_models(**arguments)


@pytest.mark.parametrize(
    ("code", "stderr", "message"),
    [
        (1, "Traceback …\nMemoryError: no more", "measuring dan tiny train plain failed: MemoryError: no more"),
        (-9, "", "failed: killed, code -9; too little memory"),
    ],
)
def test_a_measurement_that_fails_is_named(code, stderr, message, monkeypatch):
    done = subprocess.CompletedProcess([], code, stdout="", stderr=stderr)
    monkeypatch.setattr(speed.subprocess, "run", lambda *_, **__: done)
    with pytest.raises(RuntimeError, match=message):
        speed.in_own_process(speed.Job("dan", "tiny", "train", "plain", 2, 0.01, "cpu"))
