"""Killed at any moment, and started again: nothing half-written is read, and training ends in the same bits."""

import functools
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
import torch
from helpers.interrupted import RECIPE, small, write_shelf
from helpers.patterns import patterns
from helpers.small_sets import picture

from fer_lab._files import RunBusyError
from fer_lab.book.run import reproduce
from fer_lab.data.cache import Stored, cache_folder, load_pixels, open_cache
from fer_lab.runs import Run
from fer_lab.training.loop import fit

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
TESTS = str(Path(__file__).parent.parent)
# What a child knows: to kill itself when a function is called for the n-th time, and how to train.
CHILD = f"""
import os, pathlib, sys
sys.path.insert(0, {TESTS!r})
import torch
from helpers import patterns
from fer_lab import _files
from fer_lab.training import loop
from fer_lab.data import cache
from fer_lab.models import Recipe, create_model
from fer_lab.runs import Run


def killed_at(n, function, before=lambda *a, **k: None):
    count = iter(range(1, 10**9))
    def wrapped(*arguments, **options):
        if next(count) == n:
            before(*arguments, **options)
            os.kill(os.getpid(), 9)
        return function(*arguments, **options)
    return wrapped


def half(state, file, *_, **__):
    file.write(b"PK" + bytes(20_000))
    file.flush()


def train(folder, seed):
    torch.manual_seed(seed)
    faces, recipe = patterns.patterns(), Recipe.from_dict({RECIPE.to_dict()!r})
    loop.fit(create_model("small", 3), faces, faces, recipe, folder)


def pictures(root):
    root = pathlib.Path(root)
    return "toy", root, [cache.Stored(f"{{i}}.png", str(root / f"{{i}}.png")) for i in range(60)]


"""
# Batches: 4 epochs of 3 steps; validation and checkpoint: once an epoch.
MOMENTS = {
    "in batch 1": "patterns.Small.training_losses = killed_at(1, patterns.Small.training_losses)",
    "in batch 5": "patterns.Small.training_losses = killed_at(5, patterns.Small.training_losses)",
    "in batch 11, in the backward pass": "torch.Tensor.backward = killed_at(11, torch.Tensor.backward)",
    "in the optimiser of batch 8": "torch.optim.SGD.step = killed_at(8, torch.optim.SGD.step)",
    "in the first validation": "loop.count_right = killed_at(1, loop.count_right)",
    "in the third validation": "loop.count_right = killed_at(3, loop.count_right)",
    "half of checkpoint 1 written": "torch.save = killed_at(1, torch.save, half)",
    "half of checkpoint 3 written": "torch.save = killed_at(3, torch.save, half)",
    "checkpoint written and not in place": "_files.os.replace = killed_at(6, _files.os.replace)",
    "while the weights are written": "Run.save_weights = killed_at(1, Run.save_weights)",
}
SHORT = (
    "in batch 5",
    "in the third validation",
    "half of checkpoint 3 written",
    "while the weights are written",
)


def cases(names, short):
    return [pytest.param(n, marks=() if n in short else pytest.mark.long, id=str(n)) for n in names]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The weights of a training that nobody disturbed."""
    return (
        fit(small(), patterns(), patterns(), RECIPE, tmp_path_factory.mktemp("whole")).load_model().state_dict()
    )


def train_into(folder: Path, seed: int = 0) -> str:
    return f"\ntrain({str(folder)!r}, {seed})"


def child(script: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", CHILD + script]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)


@pytest.mark.fault("training killed")
@pytest.mark.parametrize("moment", cases(MOMENTS, SHORT))
def test_a_training_killed_at_any_moment_ends_in_the_same_bits(tmp_path, whole, moment):
    folder = tmp_path / "run"
    done = child(MOMENTS[moment] + train_into(folder))
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    run = Run(folder)
    assert not run.is_finished
    # Whatever lies there is whole: the table, and the state if there is one.
    epochs = len(run.history)
    state = run.load_checkpoint()
    assert (0 if state is None else state["epoch"]) in (epochs, epochs - 1)
    again = fit(small(), patterns(), patterns(), RECIPE, folder)
    assert list(again.history["epoch"]) == [1, 2, 3, 4]
    found = again.load_model().state_dict()
    assert all(torch.equal(value, whole[name]) for name, value in found.items())
    assert not list(folder.glob(".*part*"))


@pytest.mark.fault("training killed")
def test_a_training_killed_again_and_again_arrives(tmp_path, whole):
    """Every start is killed after one more checkpoint."""
    for start in range(4):
        kill = "patterns.Small.training_losses = killed_at(5, patterns.Small.training_losses)"
        done = child(kill + train_into(tmp_path, start))
        if not done.returncode:
            break
        # The initial weights are the first start's.
        assert len(Run(tmp_path).history) == start + 1
    found = Run(tmp_path).load_model().state_dict()
    assert all(torch.equal(value, whole[name]) for name, value in found.items())


@pytest.mark.fault("two at once")
def test_a_second_process_on_a_run_is_refused_and_the_first_undisturbed(tmp_path, whole):
    seen = []

    def second(model, epoch):
        seen.append(child(train_into(tmp_path)))

    run = fit(
        small(),
        patterns(),
        patterns(),
        RECIPE,
        tmp_path,
        on_epoch=lambda m, e: second(m, e) if e == 2 else None,
    )
    (done,) = seen
    assert done.returncode == 1
    assert (
        f"RunBusyError: {tmp_path} is in use by another process (number {os.getpid()})"
        in done.stderr.replace("fer_lab.runs.environment.", "")
    )
    assert all(torch.equal(value, whole[name]) for name, value in run.load_model().state_dict().items())
    with run.lock(), pytest.raises(RunBusyError):
        fit(small(), patterns(), patterns(), RECIPE, tmp_path)


# ---------------------------------------------------------------------------------------------------------
# Caches

CACHE_MOMENTS = {
    "at picture 1": "cache.Stored.decode = killed_at(1, cache.Stored.decode)",
    "at picture 40": "cache.Stored.decode = killed_at(40, cache.Stored.decode)",
    "with the pixels written and not in place": "_files.os.replace = killed_at(1, _files.os.replace)",
    "between the pixels and their card": "cache.write_json = killed_at(1, cache.write_json)",
    "with the card written and not in place": "_files.os.replace = killed_at(2, _files.os.replace)",
}


@pytest.mark.fault("cache build killed")
@pytest.mark.parametrize("moment", cases(CACHE_MOMENTS, ("at picture 40", "between the pixels and their card")))
def test_a_cache_whose_build_is_killed_is_built_anew(tmp_path, moment):
    root = tmp_path / "set"
    for i in range(60):
        picture(root / f"{i}.png", 4 * i)
    sources = [Stored(f"{i}.png", str(root / f"{i}.png")) for i in range(60)]
    done = child(f"{CACHE_MOMENTS[moment]}\ncache.build_cache(*pictures({str(root)!r}))")
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    assert open_cache("toy", root, sources) is None
    for part in cache_folder().glob(".*.part.*"):
        os.utime(part, (0, 0))  # younger ones may belong to a process that lives
    pixels = load_pixels("toy", root, sources)
    assert pixels.storage[:, 0, 0, 0].tolist() == [4 * i for i in range(60)]
    assert sorted(path.suffix for path in cache_folder().iterdir()) == [".json", ".npy"]


# ---------------------------------------------------------------------------------------------------------
# The book


@pytest.mark.fault("reproduce killed")
@pytest.mark.parametrize("seconds", cases((1.0, 2.5, 4.0, 5.5, 7.0), (4.0,)))
def test_a_book_whose_run_is_killed_is_run_again(tmp_path, seconds):
    shelf, out = write_shelf(tmp_path / "shelf"), tmp_path / "book"
    code = f"from fer_lab.book.run import reproduce; reproduce(folder={str(shelf)!r}, out={str(out)!r})"
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL, start_new_session=True)
    # Somewhere about the given moment, never twice at the same.
    time.sleep(seconds + random.random() / 2)
    process.kill()
    process.wait()
    for path in [*out.rglob("result.json"), *out.rglob("request.json")]:
        json.loads(path.read_text())
    results = reproduce(folder=shelf, out=out)
    assert [(one.notebook, one.error) for one in results] == [("00_a", ""), ("01_b", "")]
    for one in results:
        outputs = [o for cell in nbformat.read(one.path, 4).cells for o in cell.get("outputs", ())]
        assert [o["text"] for o in outputs] == ["done 0\n"]
    assert (out / "index.html").read_text(encoding="utf-8").count("<li>") == 2


# ---------------------------------------------------------------------------------------------------------
# Ctrl-C


@pytest.mark.fault("Ctrl-C")
def test_an_interrupted_training_says_one_line_and_goes_on(tmp_path):
    words = [
        "train",
        "baseline",
        "--faces",
        "80",
        "--set",
        "epochs=40",
        "--set",
        "batch_size=16",
        "--seed",
        "1",
    ]
    command = [sys.executable, "-m", "fer_lab", *words, "--out", str(tmp_path / "run")]
    # A shell starts what runs in its background deaf to Ctrl-C, and children inherit that.
    hear = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, preexec_fn=hear, **pipes)
    until = time.monotonic() + 120
    while len(Run(tmp_path / "run").history) < 2 and process.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said[-3000:]
    assert "Traceback" not in said
    last = "interrupted; run the same command again to resume where that is possible"
    assert said.strip().splitlines()[-1] == last
    run = Run(tmp_path / "run")
    epochs = len(run.history)
    assert 2 <= epochs < 40
    assert run.load_checkpoint()["epoch"] in (epochs, epochs - 1)
