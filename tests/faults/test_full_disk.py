"""A disk that fills up: the last good state stays, the message has the bytes, and with room it goes on."""

import contextlib
import os
import re
import shutil
import subprocess
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import torch
from helpers.interrupted import RECIPE, small, write_shelf
from helpers.patterns import patterns
from helpers.small_sets import picture

from fer_lab._files import DiskFullError
from fer_lab.book.run import reproduce
from fer_lab.data.cache import Stored, load_pixels, open_cache
from fer_lab.models.weights import save_model
from fer_lab.runs import ResultsStore, Run
from fer_lab.training.loop import fit

pytestmark = pytest.mark.fault("disk full")
MEGABYTES = 2


@pytest.fixture
def disk(tmp_path):
    """A disk of two megabytes of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m", "tmpfs", str(folder)]
    mounted = shutil.which("mount") and subprocess.run(words, check=False, capture_output=True).returncode == 0
    if not mounted:
        pytest.skip("mounting a small disk is not allowed here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=False)


def fill(disk, leave: int = 0):
    """Fill the disk up but for some bytes; returns the file to delete."""
    ballast = disk / "ballast"
    with contextlib.suppress(OSError), open(ballast, "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    if leave:
        os.truncate(ballast, max(0, ballast.stat().st_size - leave))
    return ballast


@pytest.mark.parametrize("leave", [0, 8192, 16384], ids=lambda n: f"{n} bytes left")
def test_a_checkpoint_that_does_not_fit_leaves_the_last_one(disk, leave, tmp_path):
    ballast = []

    def full(model, epoch):
        if epoch == 2:
            ballast.append(fill(disk, leave))

    with pytest.raises(
        DiskFullError, match=r"no space to write .*: (more than )?[\d,]+ bytes needed, [\d,]+ free"
    ):
        fit(small(), patterns(), patterns(), RECIPE, disk / "run", on_epoch=full)
    run = Run(disk / "run")
    assert run.load_checkpoint()["epoch"] == 2
    assert len(run.history) in (2, 3)
    assert not list((disk / "run").glob(".*part*"))
    ballast[0].unlink()
    again = fit(small(), patterns(), patterns(), RECIPE, disk / "run").load_model().state_dict()
    whole = fit(small(), patterns(), patterns(), RECIPE, tmp_path / "whole").load_model().state_dict()
    assert all(torch.equal(value, whole[name]) for name, value in again.items())


def test_weights_that_do_not_fit_leave_the_last_ones(disk):
    first, second = small(), small()
    with torch.no_grad():
        second.fc.bias += 1
    save_model(first, disk / "w.safetensors")
    before = (disk / "w.safetensors").read_bytes()
    fill(disk)
    with pytest.raises(DiskFullError, match="what was there before is untouched"):
        save_model(second, disk / "w.safetensors")
    assert (disk / "w.safetensors").read_bytes() == before


def test_results_that_do_not_fit_leave_the_last_ones(disk):
    store, names = (
        ResultsStore(disk / "store"),
        ("size", "dataset", "fingerprint", "split", "device", "command", "request"),
    )
    told = dict.fromkeys(names, "x") | {"minutes": 1.0}
    told["metrics"] = pd.DataFrame({"metric": ["accuracy"], "value": [0.5], "low": [0.4], "high": [0.6]})
    store.record(method="a", variant="v", seed=0, **told)
    fill(disk)
    with pytest.raises(DiskFullError):
        store.record(method="b", variant="w" * 60, seed=0, **told)
    assert list(ResultsStore(disk / "store").runs()["method"]) == ["a"]
    assert list(ResultsStore(disk / "store").metrics()["value"]) == [0.5]


@pytest.mark.parametrize("known", [True, False], ids=["said before the work begins", "in the middle"])
def test_a_cache_that_does_not_fit_leaves_the_last_one(disk, tmp_path, monkeypatch, known):
    monkeypatch.setenv("FER_LAB_CACHE", str(disk / "cache"))
    root = tmp_path / "set"
    for i in range(40):
        picture(root / f"{i}.png", 5 * i, (64, 64))
    sources = [Stored(f"{i}.png", str(root / f"{i}.png")) for i in range(40)]
    good = load_pixels("toy", root, sources[:10], 64)
    del good
    fill(disk, leave=100_000)
    if not known:
        monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 0, 10**9))
    with pytest.raises(OSError, match=r"no space to write .*npy: 491,648 bytes needed"):
        load_pixels("other", root, sources, 64)
    kept = open_cache("toy", root, sources[:10], 64)
    assert kept.storage[:, 0, 0, 0].tolist() == [5 * i for i in range(10)]
    assert not list((disk / "cache").glob(".*part*"))
    (disk / "ballast").unlink()
    assert load_pixels("other", root, sources, 64).storage[:, 0, 0, 0].tolist() == [5 * i for i in range(40)]


@pytest.mark.long
def test_a_book_that_does_not_fit_says_so_and_is_run_again(disk, tmp_path):
    shelf = write_shelf(tmp_path / "shelf")
    ballast = fill(disk, leave=8192)
    try:
        said = " ".join(one.error for one in reproduce(folder=shelf, out=disk / "book"))
    except OSError as error:
        said = str(error)
    assert "no space" in said.lower()
    ballast.unlink()
    assert [one.error for one in reproduce(folder=shelf, out=disk / "book")] == ["", ""]


LEAVE = [pytest.param(0, marks=pytest.mark.long), 16_384, pytest.param(131_072, marks=pytest.mark.long)]


@pytest.mark.parametrize("leave", LEAVE, ids=lambda n: f"{n} bytes left")
def test_a_notebook_that_does_not_fit_leaves_the_one_before(disk, tmp_path, leave):
    shelf = write_shelf(tmp_path / "shelf")
    (good,) = reproduce(folder=shelf, notebooks=["00"], out=disk / "book")
    page = Path(good.page).read_bytes()
    notebook = nbformat.read(shelf / "00_a.ipynb", 4)
    first, notebook.cells[-1].source = notebook.cells[-1].source, "print('x' * 100_000)"
    nbformat.write(notebook, shelf / "00_a.ipynb")
    fill(disk, leave)
    try:
        said = " ".join(one.error for one in reproduce(folder=shelf, notebooks=["00"], out=disk / "book"))
    except OSError as error:
        said = str(error)
    assert re.search(r"no space (to write|in) .*[\d,]+( bytes)? free", said), said
    # Whole, and of the one run or the other: with some room the notebook still fits and its page does not.
    assert nbformat.read(good.path, 4).cells[-1].source in (first, "print('x' * 100_000)")
    assert Path(good.page).read_bytes() == page
    assert not list((disk / "book").rglob("*.part*"))
    (disk / "ballast").unlink()
    (again,) = reproduce(folder=shelf, notebooks=["00"], out=disk / "book")
    assert again.error == ""
    assert Path(good.page).read_bytes() != page
