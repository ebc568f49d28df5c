import errno
import os
import zipfile

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_lab._files import DiskFullError, RunBusyError
from fer_lab.models.weights import FORMAT, CheckpointError, model_card, read_card
from fer_lab.runs import Predictions, Run


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path / "run")


def state():
    return {
        "epoch": 3,
        "model": {"weight": torch.arange(1000.0).view(10, 100), "steps": torch.tensor(7)},
        "optimizer": {
            "state": {0: {"momentum_buffer": torch.ones(4)}},
            "param_groups": [{"lr": 0.1, "betas": (0.9, 1)}],
        },
        "rng": torch.get_rng_state(),
        "best": None,
        "done": False,
    }


def test_nothing_is_made_before_something_is_saved(run):
    assert (run.config, run.environment, len(run.history)) == ({}, {}, 0)
    assert run.load_checkpoint() is None
    assert not run.is_finished
    assert not run.folder.exists()


def test_a_file_is_no_run(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="is a file, expected the folder of a run"):
        Run(tmp_path / "file")


def test_config_and_environment(run, toy):
    config = {**model_card(toy()), "recipe": {"epochs": 2}, "dataset": "synthetic", "command": "fer-lab train"}
    run.save_config(config)
    assert run.config == config
    assert run.environment["torch"] == torch.__version__


def test_history_is_read_back_to_the_last_bit(run):
    history = pd.DataFrame({"epoch": [0, 1], "total": [0.1 + 0.2, 1 / 3], "accuracy": [float("nan"), 2 / 3]})
    run.save_history(history)
    pd.testing.assert_frame_equal(run.history, history, check_exact=True)


def test_a_checkpoint_comes_back_bit_for_bit(run):
    saved = state()
    run.save_checkpoint(saved)
    back = run.load_checkpoint()
    assert torch.equal(back["model"]["weight"], saved["model"]["weight"])
    assert torch.equal(back["rng"], saved["rng"])
    assert back["optimizer"]["param_groups"] == saved["optimizer"]["param_groups"]
    assert (back["epoch"], back["best"], back["done"]) == (3, None, False)


@pytest.mark.parametrize("value", [np.ones(3), np.float64(1), torch.nn.Linear(1, 1), {1, 2}, object])
def test_what_could_not_be_read_back_is_refused_on_saving(run, value):
    with pytest.raises(ValueError, match=r"state\['a'\]\[1\] is a "):
        run.save_checkpoint({"a": [1, value]})
    assert not run.folder.exists()


def test_a_damaged_checkpoint_is_named(run):
    run.save_checkpoint(state())
    path = run.folder / "checkpoint.pt"
    good = path.read_bytes()
    flipped = bytearray(good)
    flipped[good.find(torch.tensor([500.0]).numpy().tobytes())] ^= 1
    for content in (b"", b"text", good[:-100], bytes(flipped)):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"checkpoint\.pt cannot be used as a checkpoint.*delete it"):
            run.load_checkpoint()


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_no_changed_byte_is_read_as_good(tmp_path_factory, data):
    run = Run(tmp_path_factory.getbasetemp() / "mutated")
    saved = state()
    run.save_checkpoint(saved)
    path = run.folder / "checkpoint.pt"
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        back = run.load_checkpoint()
    except CheckpointError:
        return
    # Zip has bytes that mean nothing here: dates, padding.
    assert torch.equal(back["model"]["weight"], saved["model"]["weight"])
    assert torch.equal(back["rng"], saved["rng"])
    assert {k: back[k] for k in ("epoch", "best", "done")} == {k: saved[k] for k in ("epoch", "best", "done")}


def test_a_foreign_checkpoint_is_named(run):
    run.folder.mkdir()
    for content in ({"model": {}}, [1], torch.ones(3)):
        torch.save(content, run.folder / "checkpoint.pt")
        with pytest.raises(CheckpointError, match="not written by this version of fer_lab"):
            run.load_checkpoint()


class Payload:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_checkpoint_that_would_run_code_is_refused(run, tmp_path, zipped):
    run.folder.mkdir()
    target, path = tmp_path / "made by the payload", run.folder / "checkpoint.pt"
    whole = {"fer_lab": FORMAT, "identity": {}, "state": Payload(target)}
    torch.save(whole, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt cannot be used"):
        run.load_checkpoint()
    assert not target.exists()
    torch.load(path, weights_only=False)
    assert target.exists()


def test_a_compressed_checkpoint_is_refused_unopened(run):
    run.save_checkpoint(state())
    path = run.folder / "checkpoint.pt"
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    with pytest.raises(CheckpointError, match="compressed, so not written here"):
        run.load_checkpoint()


def test_a_checkpoint_of_another_model_is_refused_with_both_named(run, tmp_path, toy):
    run.save_config(model_card(toy(3)))
    run.save_checkpoint(state())
    for model, message in (
        (toy(3, name="other"), "of method 'toy', but .* of method 'other'"),
        (toy(4), "of num classes 3, but .* of num classes 4"),
        (toy(3, width=6), r"of options {}, but .* of options {'width': 6}"),
    ):
        other = Run(tmp_path / f"{model.name} {model.num_classes} {model.options}")
        other.save_config(model_card(model))
        (other.folder / "checkpoint.pt").write_bytes((run.folder / "checkpoint.pt").read_bytes())
        with pytest.raises(CheckpointError, match=rf"checkpoint\.pt is {message}"):
            other.load_checkpoint()
        with pytest.raises(CheckpointError, match=message):
            run.save_config(model_card(model))
    assert run.config["method"] == "toy"
    run.save_config({**model_card(toy(3)), "recipe": {"epochs": 9}})
    assert run.config["recipe"] == {"epochs": 9}


def test_options_that_json_changes_are_the_same_options(run, toy):
    config = {**model_card(toy(3)), "options": {"widths": (1, 2)}}
    run.save_config(config)
    run.save_checkpoint(state())
    run.save_config(config)
    assert run.load_checkpoint()["epoch"] == 3


def test_a_full_disk_keeps_the_last_checkpoint(run, monkeypatch):
    run.save_checkpoint({"epoch": 1})

    def full(whole, file):
        file.write(b"half")
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(DiskFullError, match=r"checkpoint\.pt: 4,000 bytes needed"):
        run.save_checkpoint({"epoch": 2, "weight": torch.ones(1000)})
    monkeypatch.undo()
    assert run.load_checkpoint() == {"epoch": 1}
    assert [path.name for path in run.folder.iterdir()] == ["checkpoint.pt"]


def test_an_interrupt_while_a_checkpoint_is_written_stays_an_interrupt(run, monkeypatch):
    """torch.save, broken off, raises an error of its own over the KeyboardInterrupt."""
    run.save_checkpoint({"epoch": 1})

    def interrupted(state, file):
        file.write(b"PK")
        try:
            raise KeyboardInterrupt
        finally:
            raise RuntimeError("unexpected pos 2 vs 0")

    monkeypatch.setattr(torch, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run.save_checkpoint({"epoch": 2})
    monkeypatch.undo()
    assert run.load_checkpoint() == {"epoch": 1}


def test_weights_and_predictions(run, toy):
    model = toy(3)
    run.save_weights(model, metrics={"accuracy": 0.5})
    back = run.load_model()
    assert torch.equal(back.head.weight, model.head.weight)
    assert read_card(run.folder / "weights.safetensors")["metrics"] == {"accuracy": 0.5}
    predictions = Predictions(np.eye(3), [0, 1, 1], "abc", "faces", "f", embeddings=np.ones((3, 2)))
    run.save_predictions(predictions)
    assert run.load_predictions().correct.tolist() == [True, True, False]
    assert run.load_predictions().embeddings.shape == (3, 2)


def test_finished_means_weights_and_all_epochs(run, toy):
    run.save_config({**model_card(toy(3)), "recipe": {"epochs": 2}})
    run.save_history(pd.DataFrame({"epoch": [0]}))
    run.save_weights(toy(3))
    assert not run.is_finished
    run.save_history(pd.DataFrame({"epoch": [0, 1]}))
    assert run.is_finished
    (run.folder / "weights.safetensors").unlink()
    assert not run.is_finished


def test_clear_starts_again_and_keeps_pictures(run, toy):
    run.save_config(model_card(toy(3)))
    run.save_checkpoint(state())
    (run.folder / "figures").mkdir()
    run.clear()
    assert [path.name for path in run.folder.iterdir()] == ["figures"]
    run.save_config(model_card(toy(4)))
    assert run.config["num_classes"] == 4


def test_two_processes_on_one_folder(run):
    with run.lock():
        with pytest.raises(RunBusyError, match=r"run is in use by another process"), Run(run.folder).lock():
            pass
        run.save_history(pd.DataFrame({"epoch": [0]}))
    assert len(run.history) == 1
