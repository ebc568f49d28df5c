"""Speeds are never asserted: they belong to the machine. What is compared, and how, is."""

import itertools

import pytest
import torch
from typer.testing import CliRunner

from fer_lab.bench import onnx as against
from fer_lab.cli import app
from fer_lab.models import list_models

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


def test_ways_take_turns_on_one_thread_and_agree(monkeypatch):
    threads, seen = torch.get_num_threads(), []
    # Each way takes twice as long as the one before it, and the first round a thousand times as long.
    taken = [1000.0] * 3 + [1.0, 2.0, 4.0] * 3
    clock = iter([point for one in taken for point in (0.0, one)])

    def tick():
        seen.append(torch.get_num_threads())
        return next(clock)

    monkeypatch.setattr(against.time, "process_time", tick)
    table = against.bench_onnx(["baseline"], ["tiny"], batch=2, rounds=3)
    assert next(clock, None) is None
    assert set(seen) == {1}
    assert torch.get_num_threads() == threads
    assert tuple(table.columns) == against.COLUMNS
    (row,) = table.to_dict("records")
    assert (row["model"], row["size"]) == ("baseline", "tiny")
    assert (row["plain"], row["folded"], row["onnx"]) == (2.0, 1.0, 0.5)
    assert 0 < row["difference"] < 1e-5


def test_all_models_and_sizes_are_measured_by_default(monkeypatch):
    monkeypatch.setattr(against, "_measure", lambda name, size, batch, rounds: [0.0, 1.0, 2.0, 3.0])
    table = against.bench_onnx()
    every = itertools.product(("baseline", "dan", "triplet_center", "poster", "dcs", "qcs"), ("tiny", "paper"))
    # Other tests may have registered models of their own.
    assert set(zip(table["model"], table["size"], strict=True)) >= set(every)


def test_threads_are_given_back_where_a_model_is_unknown():
    threads = torch.get_num_threads()
    with pytest.raises(ValueError, match="unknown model 'resnet'"):
        against.bench_onnx(["resnet"])
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(
    ("words", "work", "row"),
    [
        (["onnx"], "onnx._measure", [0.0, 1.0, 1.0, 1.0]),
        (["device", "--device", "cpu"], "device._differences", [0.0, 0.0, 0.0, 0.0]),
    ],
)
def test_the_commands_take_all_models_where_none_is_named(words, work, row, monkeypatch):
    monkeypatch.setattr(f"fer_lab.bench.{work}", lambda *_: row)
    done = CliRunner().invoke(app, ["bench", *words, "--sizes", "tiny"])
    assert done.exit_code == 0, done.exception
    assert [line.split()[0] for line in done.output.splitlines()[1:]] == list_models()
