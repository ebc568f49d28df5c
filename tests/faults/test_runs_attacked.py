"""A run's folder and the results store under attack: nothing is taken for another, nothing foreign is lost."""

import dataclasses
import os
import shutil
import subprocess
import threading
import zipfile

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.interrupted import RECIPE, small
from helpers.patterns import patterns
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_lab._files import RunBusyError, locked
from fer_lab.data import FaceRequest
from fer_lab.data.augmentation import Augmentation
from fer_lab.experiments import Training, train
from fer_lab.models import Recipe
from fer_lab.models.weights import save_model
from fer_lab.parallel import launch
from fer_lab.runs import Predictions, ResultsStore, Run, portable_command
from fer_lab.training import TrainingDivergedError, fit
from fer_lab.training.loop import epoch_seed

posix = pytest.mark.skipif(os.name != "posix", reason="needs pipes, links and mounts")
SHORT = {"epochs": 1, "batch_size": 16}


def state(run: Run) -> dict:
    return run.load_model().state_dict()


def same(a: dict, b: dict) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


# ---------------------------------------------------------------------------------------------------------
# One option makes another run

OTHER = {
    "model": "dan",
    "size": "paper",
    "recipe": "scratch",
    "seed": 1,
    "changes": {"lr": 0.5},
    "options": {"num_heads": 2},
    "weights": "synthetic/dan",
    "order": "rafdb",
    "trunk": "synthetic/dan",
    "variant": "another",
    "split": "valid",
    "resolutions": (50,),
    "head_sizes": (75,),
    "balanced": 14,
    "flip": True,
    "also": {"ferplus": FaceRequest(dataset="ferplus")},
}
OTHER_FACES = {
    "dataset": "folder",
    "classes": 8,
    "size": 48,
    "rule": "votes",
    "skip_bad": True,
    "order": "rafdb",
    "test_share": 0.25,
    "train_share": 0.1,
    "count": 81,
    "seed": 1,
    "knobs": {"imbalance": 0},
}


def every_request() -> dict[str, Training]:
    """A request, and each that differs from it in one field of its own or of its faces."""
    plain = Training(model="baseline")
    requests = {"plain": plain}
    requests |= {name: dataclasses.replace(plain, **{name: value}) for name, value in OTHER.items()}
    for name, value in OTHER_FACES.items():
        # The label rule and the bad pictures are those of a data set on disk; folder needs no root to be named.
        real = FaceRequest(dataset="ferplus")
        faces = real if name in ("rule", "skip_bad", "order", "test_share", "train_share") else FaceRequest()
        requests[f"faces.{name}"] = dataclasses.replace(
            plain, faces=dataclasses.replace(faces, **{name: value})
        )
    return requests | {"real": dataclasses.replace(plain, faces=FaceRequest(dataset="ferplus"))}


@pytest.mark.fault("one run for another")
def test_requests_that_differ_in_one_field_are_different_runs():
    fields = {f.name for f in dataclasses.fields(Training)} - {"faces"}
    assert set(OTHER) == fields
    assert set(OTHER_FACES) == {f.name for f in dataclasses.fields(FaceRequest)} - {"root"}
    requests = every_request()
    for key in ("to_json", "command"):
        texts = {name: getattr(one, key)() for name, one in requests.items()}
        assert len(set(texts.values())) == len(requests), key
    assert len({one.name for one in requests.values()}) == len(requests)


@pytest.mark.fault("one run for another")
@pytest.mark.parametrize("field", ["weights", "trunk"])
def test_files_of_one_name_and_other_content_are_different_starts(tmp_path, field):
    starts = []
    for folder, content in (("a", b"first"), ("b", b"second"), ("c", b"first")):
        path = tmp_path / folder / "theirs.pth"
        path.parent.mkdir()
        path.write_bytes(content)
        starts.append(Training(model="dan", **{field: path}))
    first, second, copied = starts
    assert first.to_json() != second.to_json()
    assert first.name != second.name
    assert first.to_json() == copied.to_json()
    assert Training.from_json(first.to_json()).to_json() == first.to_json()
    assert f"--{field} theirs.pth" in first.command()


FACES = FaceRequest(count=80)
PLAIN = Training(model="baseline", faces=FACES, changes=SHORT)
OTHER_TRAININGS = {
    "trunk": {"trunk": "synthetic/baseline"},
    "weights": {"weights": "synthetic/baseline"},
    "seed": {"seed": 1},
    "recipe": {"changes": {**SHORT, "lr": 0.03}},
    "options": {"model": "dan", "options": {"num_heads": 2}},
    "model": {"model": "triplet_center"},
    "faces": {"faces": FaceRequest(count=80, seed=1)},
    "knobs": {"faces": FaceRequest(count=80, knobs={"imbalance": 0})},
}


@pytest.fixture(scope="module")
def plain_run(tmp_path_factory):
    out = tmp_path_factory.mktemp("plain") / "run"
    return train(PLAIN, out=out).run


@pytest.mark.fault("one run for another")
@pytest.mark.parametrize("name", OTHER_TRAININGS)
def test_a_run_is_not_taken_for_that_of_another_request(plain_run, tmp_path, name):
    shutil.copytree(plain_run.folder, tmp_path / "run")
    before = (tmp_path / "run" / "config.json").read_bytes()
    request = dataclasses.replace(PLAIN, **OTHER_TRAININGS[name])
    with pytest.raises(ValueError, match=r"another|is of"):
        train(request, out=tmp_path / "run", store=tmp_path / "store")
    assert (tmp_path / "run" / "config.json").read_bytes() == before
    assert not (tmp_path / "store" / "runs.csv").exists()


@pytest.mark.fault("one run for another")
def test_a_run_that_began_elsewhere_is_not_one_from_scratch(plain_run, tmp_path):
    started = dataclasses.replace(PLAIN, trunk=plain_run.folder)
    train(started, out=tmp_path / "run")
    with pytest.raises(ValueError, match="another origin"):
        train(PLAIN, out=tmp_path / "run")


# ---------------------------------------------------------------------------------------------------------
# Numbers that are none

NUMBERS = [f.name for f in dataclasses.fields(Recipe) if f.type in (int, float)]
INSIDE = [f.name for f in dataclasses.fields(Augmentation) if f.type is float]


@pytest.mark.fault("numbers that are none")
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), "0.1", None, [1]], ids=str)
@pytest.mark.parametrize("name", NUMBERS)
def test_a_recipe_takes_no_number_that_is_none(name, value):
    with pytest.raises(ValueError, match=name):
        RECIPE.replace(**{name: value})


@pytest.mark.fault("numbers that are none")
@pytest.mark.parametrize("value", [float("nan"), float("inf"), "0.1", None], ids=str)
@pytest.mark.parametrize("name", INSIDE)
def test_an_augmentation_takes_no_number_that_is_none(name, value):
    with pytest.raises(ValueError, match=name):
        Augmentation(**{name: value})


@pytest.mark.fault("numbers that are none")
@pytest.mark.parametrize("changes", [{}, {"ema_decay": 0.9}, {"sam_rho": 0.05}], ids=str)
def test_a_last_step_that_ruins_the_weights_leaves_no_finished_run(tmp_path, changes, monkeypatch):
    recipe, step, steps = RECIPE.replace(**changes), torch.optim.SGD.step, iter(range(1, 100))

    def ruin(self, *arguments, **options):
        step(self, *arguments, **options)
        if next(steps) == recipe.epochs * 3:
            with torch.no_grad():
                self.param_groups[0]["params"][0].mul_(float("inf"))

    monkeypatch.setattr(torch.optim.SGD, "step", ruin)
    with pytest.raises(TrainingDivergedError, match=r"epoch 4: .* not finite"):
        fit(small(), patterns(), None, recipe, tmp_path)
    run = Run(tmp_path)
    assert not run.is_finished
    assert run.load_checkpoint()["epoch"] == 3


# ---------------------------------------------------------------------------------------------------------
# Old weights


@pytest.mark.fault("old weights")
@pytest.mark.parametrize("moment", ["save_config", "save_history", "save_checkpoint", "save_weights"])
def test_a_run_that_begins_anew_is_not_finished_by_its_old_weights(tmp_path, moment, monkeypatch):
    fit(small(), patterns(), None, RECIPE, tmp_path)
    old = state(Run(tmp_path))
    (tmp_path / "checkpoint.pt").write_bytes(b"damaged")
    with pytest.raises(ValueError, match="delete it"):
        fit(small(), patterns(), None, RECIPE.replace(seed=1), tmp_path)
    (tmp_path / "checkpoint.pt").unlink()

    def stop(self, *arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Run, moment, stop)
        with pytest.raises(KeyboardInterrupt):
            fit(small(), patterns(), None, RECIPE.replace(seed=1), tmp_path)
    assert not Run(tmp_path).is_finished
    assert not (tmp_path / "weights.safetensors").exists()
    run = fit(small(), patterns(), None, RECIPE.replace(seed=1), tmp_path)
    assert run.is_finished
    assert not same(state(run), old)


@pytest.mark.fault("old weights")
@pytest.mark.parametrize("place", range(len(Run.FILES)))
def test_a_run_whose_clearing_was_killed_is_neither_finished_nor_foreign(tmp_path, place, monkeypatch):
    run = fit(small(), patterns(), None, RECIPE, tmp_path)
    run.save_predictions(predictions())
    unlink, calls = type(tmp_path).unlink, iter(range(100))

    def killed(path, **options):
        if next(calls) == place:
            raise KeyboardInterrupt
        unlink(path, **options)

    with monkeypatch.context() as patched:
        patched.setattr(type(tmp_path), "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            run.clear()
    assert run.is_finished == (place == 0)
    assert fit(small(), patterns(), None, RECIPE, tmp_path, resume=False).is_finished


@pytest.mark.fault("old weights")
def test_weights_without_a_recipe_are_no_finished_run(tmp_path):
    save_model(small(), tmp_path / "weights.safetensors")
    assert not Run(tmp_path).is_finished


# ---------------------------------------------------------------------------------------------------------
# Other bits


@pytest.mark.fault("other bits")
@pytest.mark.parametrize("seed", [-1, 2**32, 2**64, True, 0.5])
def test_a_seed_that_torch_takes_for_another_is_refused(seed):
    with pytest.raises(ValueError, match="seed"):
        RECIPE.replace(seed=seed)


@pytest.mark.fault("other bits")
@settings(max_examples=200, deadline=None)
@given(*[st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 500), st.integers(0, 500))] * 2)
def test_seeds_epochs_and_processes_draw_differently(one, two):
    seed, epoch, rank = one
    draws = []
    for numbers in {one, (seed, epoch, rank + 1), (seed, epoch + 1, rank), ((seed + 1) % 2**32, epoch, rank)}:
        torch.manual_seed(epoch_seed(*numbers))
        draws.append(tuple(torch.rand(4).tolist()))
    assert len(set(draws)) == 4
    assert 0 <= epoch_seed(*two) < 2**32


@pytest.mark.fault("other bits")
def test_a_training_that_goes_on_with_other_threads_says_so(tmp_path):
    def stop(model, epoch):
        raise KeyboardInterrupt

    threads = torch.get_num_threads()
    with pytest.raises(KeyboardInterrupt):
        fit(small(), patterns(), None, RECIPE, tmp_path, on_epoch=stop)
    assert Run(tmp_path).environment["threads"] == threads
    try:
        torch.set_num_threads(threads + 1)
        with pytest.warns(UserWarning, match=rf"threads {threads}, now {threads + 1}.*not bit for bit"):
            fit(small(), patterns(), None, RECIPE, tmp_path)
    finally:
        torch.set_num_threads(threads)


# ---------------------------------------------------------------------------------------------------------
# Foreign files


@pytest.mark.fault("foreign files")
@pytest.mark.parametrize("resume", [True, False])
@pytest.mark.parametrize("name", Run.FILES)
def test_a_folder_of_something_else_is_refused_and_untouched(tmp_path, name, resume):
    for file in (name, "paper.tex"):
        (tmp_path / file).write_text('{"mine": 1}')
    with pytest.raises(ValueError, match=f"{name}.*not of a run.*another folder"):
        fit(small(), patterns(), None, RECIPE, tmp_path, resume=resume)
    assert (tmp_path / name).read_text() == '{"mine": 1}'
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted({name, "paper.tex"})


@pytest.mark.fault("foreign files")
def test_an_empty_name_is_no_folder():
    with pytest.raises(ValueError, match="empty"):
        Run("")


@pytest.mark.fault("foreign files")
def test_a_lock_deletes_no_files_of_others_and_none_below(tmp_path):
    own = tmp_path / ".weights.0123abcd.part.safetensors"
    others = [
        ".my.part",
        ".my.partial.txt",
        ".part",
        ".notes.part.md",
        "inner/.weights.0123abcd.part.safetensors",
    ]
    (tmp_path / "inner").mkdir()
    for name in [own.name, *others]:
        (tmp_path / name).write_text("x")
    with locked(tmp_path / ".lock"):
        assert not own.exists()
        assert [name for name in others if not (tmp_path / name).exists()] == []


@pytest.mark.fault("foreign files")
def test_a_training_in_a_folder_below_is_undisturbed(tmp_path, monkeypatch):
    replace = os.replace

    def busy(source, target):
        # Another training takes the lock of the folder above while this one is about to rename its file.
        with locked(tmp_path / ".lock"):
            replace(source, target)

    monkeypatch.setattr("fer_lab._files.os.replace", busy)
    assert fit(small(), patterns(), None, RECIPE, tmp_path / "inner").is_finished


@posix
@pytest.mark.fault("foreign files")
@pytest.mark.parametrize("kind", ["link", "dangling link", "text", "pipe"])
def test_a_lock_empties_nothing_of_others(tmp_path, kind):
    lock, target = tmp_path / "run" / ".lock", tmp_path / "diary.txt"
    lock.parent.mkdir()
    if kind != "dangling link":
        target.write_text("dear diary")
    if kind == "text":
        shutil.copy(target, lock)
    elif kind == "pipe":
        os.mkfifo(lock)
    else:
        lock.symlink_to(target)
    with pytest.raises(ValueError, match=r"\.lock is no lock of fer_lab"), locked(lock):
        pass
    assert target.exists() == (kind != "dangling link")
    assert kind == "dangling link" or target.read_text() == "dear diary"
    assert kind != "text" or lock.read_text() == "dear diary"


@pytest.mark.fault("foreign files")
@pytest.mark.parametrize("name", ["w.md", "w", "w.txt", "notes.safetensors"])
def test_weights_are_shipped_over_no_other_file(tmp_path, name, monkeypatch):
    monkeypatch.setattr(FaceRequest, "load", lambda self: pytest.fail("faces were read"))
    (tmp_path / "notes.md").write_text("mine")
    with pytest.raises((ValueError, FileExistsError), match=r"\.safetensors|notes\.md"):
        train(PLAIN, out=tmp_path / "run", ship=tmp_path / name)
    assert (tmp_path / "notes.md").read_text() == "mine"


@pytest.mark.fault("foreign files")
def test_modules_in_the_current_folder_are_not_imported(tmp_path, monkeypatch):
    for name in ("torch", "fer_lab", "json", "random", "numpy"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fer_lab.parallel.processes.count_devices", lambda device="auto": (2, "cores"))
    launch(2, ["fer_lab", "models", "dan"])
    assert not (tmp_path / "ran").exists()


# ---------------------------------------------------------------------------------------------------------
# Two at once


@pytest.mark.fault("two at once")
def test_a_run_is_locked_until_it_is_measured(plain_run, tmp_path, monkeypatch):
    from fer_lab.experiments import training

    shutil.copytree(plain_run.folder, tmp_path / "run")
    predict, refused = training.predict, []

    def busy(*arguments, **options):
        with pytest.raises(RunBusyError) as error:
            train(PLAIN, out=tmp_path / "run", fresh=True)
        refused.append(error.value)
        return predict(*arguments, **options)

    monkeypatch.setattr(training, "predict", busy)
    train(PLAIN, out=tmp_path / "run")
    assert len(refused) == 1


@pytest.mark.fault("two at once")
@pytest.mark.parametrize("what", ["lock", "folder"])
def test_a_training_whose_lock_was_deleted_stops_before_it_writes(tmp_path, what):
    folder = tmp_path / "run"

    def delete(model, epoch):
        if epoch == 2:
            shutil.rmtree(folder) if what == "folder" else (folder / ".lock").unlink()
            fit(small(), patterns(), None, RECIPE.replace(seed=0), folder)

    with pytest.raises(RunBusyError, match=r"deleted.*start again"):
        fit(small(), patterns(), None, RECIPE, folder, on_epoch=delete)
    assert Run(folder).is_finished
    assert Run(folder).load_checkpoint()["epoch"] == 4


@posix
@pytest.mark.fault("two at once")
def test_a_disk_without_locks_is_written_to_with_a_warning(tmp_path, monkeypatch):
    def refuse(file, operation):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.warns(UserWarning, match="no locks.*second process"):
        assert fit(small(), patterns(), None, RECIPE, tmp_path).is_finished


@posix
@pytest.mark.fault("two at once")
def test_a_finished_run_on_a_disk_for_reading_is_opened(plain_run, tmp_path):
    disk = tmp_path / "disk"
    shutil.copytree(plain_run.folder, disk / "run")
    words = ["mount", "--bind", str(disk), str(disk)]
    if not shutil.which("mount") or subprocess.run(words, check=False, capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(disk)], check=True)
        done = train(PLAIN, out=disk / "run")
        assert same(state(done.run), state(plain_run))
        with pytest.raises(OSError, match="Read-only"):
            train(PLAIN, out=disk / "run", fresh=True)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


# ---------------------------------------------------------------------------------------------------------
# Pipes, devices, giants


def hostile(path, kind):
    """Put something in a file's place that is waited for, or read until memory ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        with open(path, "wb") as file:
            file.truncate(2**40)


def in_time(function, *arguments):
    """What a function raises, within ten seconds."""
    caught = []

    def call():
        try:
            function(*arguments)
        except Exception as error:
            caught.append(error)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive(), "it waits"
    return caught[0] if caught else None


KINDS = ["pipe", "device", "giant", "folder"]
READERS = {
    "config.json": lambda run: run.config,
    "environment.json": lambda run: run.environment,
    "history.csv": lambda run: run.history,
    "checkpoint.pt": lambda run: run.load_checkpoint(),
    "weights.safetensors": lambda run: run.load_model(),
    "predictions.npz": lambda run: run.load_predictions(),
}


@posix
@pytest.mark.fault("pipes and devices")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", READERS)
def test_no_part_of_a_run_is_waited_for_or_read_for_ever(tmp_path, name, kind):
    assert set(READERS) == set(Run.FILES)
    hostile(tmp_path / name, kind)
    error = in_time(READERS[name], Run(tmp_path))
    assert isinstance(error, ValueError | FileNotFoundError)
    assert name in str(error)
    assert isinstance(in_time(fit, small(), patterns(), None, RECIPE, tmp_path), ValueError)


@posix
@pytest.mark.fault("pipes and devices")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["runs.csv", "metrics.csv", "predictions/faces-test.npz", ".lock"])
def test_no_part_of_a_store_is_waited_for_or_read_for_ever(tmp_path, name, kind):
    store = ResultsStore(tmp_path)
    recorded(store)
    hostile(tmp_path / name, kind)
    error = in_time(recorded, store)
    assert isinstance(error, ValueError)
    assert name.rpartition("/")[2] in str(error)


# ---------------------------------------------------------------------------------------------------------
# Predictions


def predictions(n: int = 20, seed: int = 0, embeddings: bool = True) -> Predictions:
    rng = np.random.default_rng(seed)
    more = {"embeddings": rng.normal(size=(n, 4))} if embeddings else {}
    labels = rng.integers(3, size=n)
    return Predictions(rng.dirichlet(np.ones(3), n), labels, ("a", "b", "c"), "faces", "f", **more)


def equal(a: Predictions, b: Predictions) -> bool:
    arrays = all(
        np.array_equal(getattr(a, key), getattr(b, key))
        for key in ("probabilities", "labels", "rows", "embeddings")
    )
    return arrays and (a.classes, a.name, a.fingerprint) == (b.classes, b.name, b.fingerprint)


@pytest.mark.fault("predictions damaged")
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_no_changed_bit_of_predictions_is_read_as_good(tmp_path_factory, data):
    path, saved = tmp_path_factory.getbasetemp() / "mutated.npz", predictions()
    saved.save(path)
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    try:
        back = Predictions.load(path)
    except ValueError:
        return
    assert equal(back, saved)


PARTS = ("classes", "name", "fingerprint", "labels", "rows", "probabilities", "embeddings")


@pytest.mark.fault("predictions damaged")
@pytest.mark.parametrize("how", ["lost", "renamed", "shortened"])
@pytest.mark.parametrize("part", PARTS)
def test_every_part_of_predictions_is_needed(tmp_path, part, how):
    path = tmp_path / "p.npz"
    predictions().save(path)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    content = entries.pop(f"{part}.npy")
    if how == "renamed":
        entries[f"{part[:-1]}_.npy"] = content
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
        if how == "shortened":
            archive.writestr(f"{part}.npy", content[:-1])
    with pytest.raises(ValueError, match=r"p\.npz is no readable file of predictions"):
        Predictions.load(path)


# ---------------------------------------------------------------------------------------------------------
# The store

ROW = {"method": "dan", "size": "tiny", "variant": "v", "dataset": "faces", "fingerprint": "f", "split": "test"}
ROW |= {"seed": 0, "minutes": 1.0, "device": "cpu", "command": "fer-lab train dan", "request": "{}"}
TEXTS = [name for name, value in ROW.items() if isinstance(value, str)]


def recorded(store: ResultsStore, value: float = 0.5, seed: int = 0, **changes) -> str:
    numbers = pd.DataFrame({"metric": ["accuracy", "ece"], "value": [value, value / 2]})
    return store.record(**{**ROW, **changes}, metrics=numbers, predictions=predictions(seed=seed))


@pytest.mark.fault("rows of a store")
@settings(max_examples=60, deadline=None)
@given(
    field=st.sampled_from(TEXTS),
    text=st.text(max_size=8) | st.sampled_from(["NA", "a\rb", "\r", "\0", "\ud800"]),
)
def test_a_recorded_name_comes_back_as_it_was_or_is_refused_before(tmp_path_factory, field, text):
    store = ResultsStore(tmp_path_factory.mktemp("store"))
    recorded(store, variant="first")
    try:
        run_id = (
            recorded(store, variant="second")
            if field == "variant" and not text
            else recorded(store, **{field: text})
        )
    except ValueError:
        assert store.runs()["variant"].tolist() == ["first"]
        return
    row = store.runs().set_index("id").loc[run_id]
    assert row[field] == (text or row[field])
    assert len(store.runs()) == 2
    assert len(store.metrics()) == 4


@pytest.mark.fault("rows of a store")
@pytest.mark.parametrize("text", ["a\rb", "a\nb", "a\0b", "a\x1b[2Jb", "x" * 300])
def test_a_name_that_cannot_be_recorded_is_refused_before_the_training(tmp_path, text, monkeypatch):
    monkeypatch.setattr(FaceRequest, "load", lambda self: pytest.fail("faces were read"))
    with pytest.raises(ValueError, match="variant"):
        train(dataclasses.replace(PLAIN, variant=text), out=tmp_path / "run", store=tmp_path / "store")


@pytest.mark.fault("rows of a store")
@pytest.mark.parametrize("name", ["runs.csv", "metrics.csv", "predictions/synthetic-test.npz"])
def test_a_damaged_store_is_noticed_before_the_training(tmp_path, name, monkeypatch):
    monkeypatch.setattr("fer_lab.experiments.training._fit", lambda *_: pytest.fail("it was trained"))
    store = tmp_path / "store"
    recorded(ResultsStore(store), dataset="synthetic", split="test")
    (store / name).write_bytes(b"damaged\r,\n1,2,3\n")
    with pytest.raises(ValueError, match=name.rpartition("/")[2]):
        train(dataclasses.replace(PLAIN, variant="quick"), out=tmp_path / "run", store=store)


@pytest.mark.fault("rows of a store")
def test_a_name_that_clashes_with_anothers_is_noticed_before_the_training(tmp_path, monkeypatch):
    monkeypatch.setattr("fer_lab.experiments.training._fit", lambda *_: pytest.fail("it was trained"))
    store = ResultsStore(tmp_path / "store")
    recorded(store, method="baseline", dataset="synthetic", variant="a b")
    with pytest.raises(ValueError, match="already a run of variant 'a b', not 'a_b'"):
        train(dataclasses.replace(PLAIN, variant="a_b"), out=tmp_path / "run", store=store)


@pytest.mark.fault("rows of a store")
@pytest.mark.parametrize("write", range(1, 6))
def test_a_row_recorded_anew_is_never_of_two_runs(tmp_path, write, monkeypatch):
    store = ResultsStore(tmp_path)
    recorded(store, 0.5, seed=0, command="old")
    other = recorded(store, 0.7, seed=7, variant="w")
    replace, calls = os.replace, iter(range(1, 100))

    def killed(source, target):
        if next(calls) == write:
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patched:
        patched.setattr("fer_lab._files.os.replace", killed)
        try:
            recorded(store, 0.9, seed=1, command="new")
        except KeyboardInterrupt:
            assert write < 5
    for row in store.runs().itertuples():
        values = store.metrics().set_index("id").loc[row.id, "value"].tolist()
        value, seed = {"old": (0.5, 0), "new": (0.9, 1)}.get(row.command, (0.7, 7))
        assert values == [value, value / 2]
        assert store.answers(row.id).labels.tolist() == predictions(seed=seed).labels.tolist()
    assert other in set(store.runs()["id"])
    recorded(store, 0.9, seed=1, command="new")
    assert sorted(store.runs()["command"]) == ["fer-lab train dan", "new"]


@pytest.mark.fault("rows of a store")
@pytest.mark.parametrize("file", ["runs.csv", "metrics.csv"])
def test_a_row_that_a_merge_has_doubled_counts_once(tmp_path, file):
    store = ResultsStore(tmp_path)
    for seed, value in enumerate((0.5, 0.6)):
        store.record(**{**ROW, "seed": seed}, metrics=pd.DataFrame({"metric": ["accuracy"], "value": [value]}))
    before = store.table().values.tolist()
    lines = (tmp_path / file).read_text().splitlines(keepends=True)
    (tmp_path / file).write_text("".join([*lines, lines[1]]))
    assert store.table().values.tolist() == before
    other = lines[1].replace("cpu", "gpu").replace("0.5", "0.55")
    (tmp_path / file).write_text("".join([*lines, other]))
    with pytest.raises(ValueError, match=rf"{file} has two rows of .*delete one"):
        store.table()


@pytest.mark.fault("rows of a store")
@pytest.mark.parametrize(
    ("folder", "line", "expected"),
    [
        ("ferplus", "fer-lab train dan --dataset ferplus", None),
        ("train", "fer-lab train dan", None),
        (".", "fer-lab train ./a.b", None),
        ("/data", "x --out /home/data/x --data-root /data", "x --out /home/data/x --data-root $FER_DATA"),
        ("/data", "x --data-root=/data/a '/data/b c'", "x --data-root=$FER_DATA/a '$FER_DATA/b c'"),
    ],
)
def test_only_the_folder_of_the_data_is_left_out_of_a_command(monkeypatch, folder, line, expected):
    monkeypatch.setenv("FER_DATA", folder)
    assert portable_command(line) == (expected or line)
