"""Training, measuring and looking at pictures, as the command line does it."""

import contextlib
import dataclasses
import re
import shlex
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from fer_lab import cli
from fer_lab._files import RunBusyError
from fer_lab.data import FaceRequest
from fer_lab.data.synthetic import write_folder
from fer_lab.experiments import Training, train, train_missing
from fer_lab.experiments.training import train_worker
from fer_lab.explorer import photo_overlay
from fer_lab.models import create_model
from fer_lab.models.weights import load_model, model_card, read_card
from fer_lab.parallel import count_devices
from fer_lab.runs import ResultsStore, Run

COUNT = 80
CHANGES = ["--set", "epochs=1", "--set", "batch_size=16", "--set", "augmentation.flip=0.25"]
# The same as `trained` has on its command line.
ASKED = Training(
    model="baseline",
    faces=FaceRequest(count=COUNT),
    seed=3,
    changes={"epochs": 1, "batch_size": 16, "augmentation.flip": 0.25},
    resolutions=(50,),
    variant="quick",
)


def run(*words):
    return CliRunner().invoke(cli.app, [str(word) for word in words], catch_exceptions=False)


@pytest.fixture(scope="module")
def faces():
    """The faces that the trainings below render for themselves."""
    return FaceRequest(count=COUNT, size=56).load()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(folder, what was printed) of a training of one epoch, recorded and shipped."""
    folder = tmp_path_factory.mktemp("trained")
    places = ["--out", folder / "run", "--store", folder / "store", "--ship", folder / "small.safetensors"]
    words = [
        "train",
        "baseline",
        "--faces",
        COUNT,
        *CHANGES,
        "--seed",
        "3",
        "--resolutions",
        "50",
        "--record",
        "quick",
        *places,
    ]
    done = run(*words)
    assert done.exit_code == 0, done.output
    return folder, done.output


def test_train_writes_the_run_that_was_asked_for(trained):
    folder, _ = trained
    made = Run(folder / "run")
    assert made.is_finished
    assert made.config["recipe"]["epochs"] == 1
    assert made.config["recipe"]["seed"] == 3
    assert made.config["recipe"]["augmentation"]["flip"] == 0.25
    assert made.config["variant"] == "quick"


def test_training_never_sees_the_faces_reported_on(trained, faces):
    folder, output = trained
    split = faces.reported_split()
    reported = faces.split(split)
    assert f"baseline on {len(reported)} {split} faces of synthetic" in output
    predictions = Run(folder / "run").load_predictions()
    assert predictions.fingerprint == reported.fingerprint
    assert Run(folder / "run").config["fingerprint"] == faces.split("train").holdout()[0].fingerprint


def test_train_records_what_it_prints(trained):
    folder, output = trained
    store = ResultsStore(folder / "store")
    row = store.runs().iloc[0]
    assert (row["method"], row["variant"], row["split"], row["seed"]) == (
        "baseline",
        "quick",
        FaceRequest(count=COUNT).load().reported_split(),
        3,
    )
    numbers = store.metrics().query("metric == 'accuracy'").iloc[0]
    shown = f"{numbers['value']:.3f}  [{numbers['low']:.3f}, {numbers['high']:.3f}]"
    assert " ".join(f"accuracy {shown}".split()) in " ".join(output.split())
    assert numbers["value"] == store.answers(row["id"]).correct.mean()
    assert 0 <= store.metrics().query("metric == 'accuracy_at_resolution_50'")["value"].item() <= 1
    assert row["request"] == ASKED.to_json()
    assert row["command"] == ASKED.command()


def test_the_recorded_command_repeats_the_training(trained, tmp_path):
    folder, _ = trained
    command = ResultsStore(folder / "store").runs().iloc[0]["command"]
    program, *words = shlex.split(command)
    assert program == "fer-lab"
    places = ["--out", str(tmp_path / "run"), "--store", str(tmp_path / "store")]
    done = run(*words, *places)
    assert done.exit_code == 0, done.output
    assert ResultsStore(tmp_path / "store").runs().iloc[0]["command"] == command
    first, second = Run(folder / "run").load_model(), Run(tmp_path / "run").load_model()
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def test_shipped_weights_are_half_precision_with_a_card(trained):
    folder, _ = trained
    card = read_card(folder / "small.safetensors")
    assert card["dataset"] == "synthetic"
    assert card["seed"] == 3
    assert card["command"].startswith("fer-lab train baseline --dataset synthetic")
    assert card["score"]["accuracy"] == round(Run(folder / "run").load_predictions().correct.mean(), 4)
    whole = (folder / "run" / "weights.safetensors").stat().st_size
    assert (folder / "small.safetensors").stat().st_size < 0.6 * whole
    text = (folder / "small.md").read_text()
    assert f"```\n{card['command']}\n```" in text
    assert f"| accuracy | {card['score']['accuracy']:.3f} |" in text
    assert "Learned from drawings alone" in text


def test_evaluate_gives_the_numbers_of_the_training(trained):
    folder, output = trained
    done = run("evaluate", str(folder / "run"), "--faces", COUNT)
    assert done.exit_code == 0
    first = output[output.index("\nbaseline on") :].strip().splitlines()
    assert done.output.splitlines()[1:] == first[1 : len(done.output.splitlines())]


def test_a_training_also_reports_on_a_folder_of_some_classes(trained, tmp_path):
    """What is reported is what `evaluate` says of the run, and the command repeats it."""
    others = FaceRequest(count=90, size=56, seed=5, knobs={"imbalance": 0}).load()
    kept = [i for i, label in enumerate(others.labels.tolist()) if label < 2]
    test = dataclasses.replace(others.subset(kept), splits=np.array(["test"] * len(kept)))
    write_folder(test, tmp_path / "portraits")
    for label, name in enumerate(test.classes):
        assert (tmp_path / "portraits" / "test" / name).exists() == (label < 2)
    words = ["train", "baseline", "--faces", COUNT, *CHANGES, "--record", "more", "--classes", "7"]
    words += ["--also", f"portraits={tmp_path / 'portraits'}", "--store", tmp_path / "store", "--flip"]
    done = run(*words, "--out", tmp_path / "run")
    assert done.exit_code == 0, done.output
    row = ResultsStore(tmp_path / "store").runs().iloc[0]
    asked = Training.from_json(row["request"])
    assert asked.to_json() == row["request"]
    assert asked.also == {"portraits": FaceRequest(dataset="folder", classes=7)}
    assert row["command"].endswith("--also portraits=$FER_DATA/portraits")
    told = run("evaluate", tmp_path / "run", "--dataset", "folder", "--data-root", tmp_path / "portraits")
    assert told.exit_code == 0, told.output
    recorded = ResultsStore(tmp_path / "store").metrics().set_index("metric")["value"]
    for metric in ("accuracy", "mean_class_recall"):
        line = rf"^{metric.replace('_', ' ')} +{recorded[metric + '_on_portraits']:.3f}"
        assert re.search(line, told.output, re.MULTILINE)
    drawn = ["evaluate", tmp_path / "run", "--faces", COUNT, "--flip"]
    line = rf"^accuracy +{recorded['accuracy_with_mirror_image']:.3f}"
    assert re.search(line, run(*drawn).output, re.MULTILINE)
    told = run("evaluate", "ferplus/dan", "--dataset", "folder", "--data-root", tmp_path / "portraits")
    assert told.exit_code == 0, told.output  # of eight classes
    assert re.search(r"^recall fear +no face of this class", told.output, re.MULTILINE)
    for also in ("portraits", "a-b=.", f"portraits={tmp_path / 'none'}"):
        with pytest.raises(ValueError, match="--also takes NAME=FOLDER, each name once"):
            run(*words, "--also", also)


def test_results_prints_a_table_and_latex(trained):
    folder, _ = trained
    plain = run("results", "--store", str(folder / "store"), "--metrics", "accuracy")
    value = ResultsStore(folder / "store").table("accuracy")["mean"].iloc[0]
    assert plain.output.splitlines()[0] == "accuracy"
    assert f"{value:.3f}" in plain.output
    latex = run("results", "--store", str(folder / "store"), "--latex")
    assert r"\begin{tabular}" in latex.output
    assert r"\caption{mean class recall}" in latex.output


def test_predict_takes_a_whole_crop_and_writes_an_overlay(trained, faces, tmp_path):
    folder, _ = trained
    face = faces.images[0]
    path = tmp_path / "my face.png"
    Image.fromarray(face.permute(1, 2, 0).numpy()).save(path)
    words = ["predict", path, "--whole", "--weights", folder / "small.safetensors", "--out", tmp_path / "out"]
    done = run(*words)
    assert done.exit_code == 0, done.output
    shown = done.output.splitlines()[0].partition("]")[2].split()
    names, numbers = shown[::2], [float(number) for number in shown[1::2]]
    assert sum(numbers) == pytest.approx(1, abs=0.004)
    assert numbers == sorted(numbers, reverse=True)
    network = load_model(folder / "small.safetensors")
    expected = photo_overlay.predict_picture(network, path, whole=True)[1][0].probabilities
    assert names[0] == max(expected, key=expected.get)
    assert Image.open(tmp_path / "out" / "000-my face.png").size == (56, 56)


def test_predict_says_where_there_is_no_face(trained, tmp_path):
    folder, _ = trained
    path = tmp_path / "wall.png"
    Image.new("RGB", (200, 160), (120, 130, 140)).save(path)
    words = ["predict", path, "--weights", folder / "run", "--out", tmp_path / "out"]
    done = run(*words)
    assert done.exit_code == 1
    assert "wall.png: no face found; --whole takes the picture as one face" in done.output
    assert not (tmp_path / "out").exists()


def test_render_and_check_and_cache_agree(tmp_path):
    words = ["data", "render", tmp_path / "faces", "--faces", "60", "--size", "56", "--knob", "imbalance=0"]
    done = run(*words)
    assert done.exit_code == 0, done.output
    assert len(list((tmp_path / "faces").rglob("*.png"))) == 60
    checked = run("data", "check", "folder", tmp_path / "faces")
    assert checked.exit_code == 0
    assert "60" in checked.output
    cached = run("data", "cache", "folder", tmp_path / "faces")
    assert "60 faces of 56×56 px" in cached.output


def test_a_balanced_report_is_recorded_as_such_and_can_be_repeated(tmp_path):
    words = ["train", "triplet_center", "--faces", COUNT, *CHANGES, "--option", "negatives=fully"]
    words += ["--knob", "imbalance=1.5", "--balanced", 14, "--record", "fully"]
    done = run(*words, "--out", tmp_path / "run", "--store", tmp_path / "store")
    assert done.exit_code == 0, done.output
    assert "triplet_center on 14 balanced faces of synthetic" in done.output
    assert "spread of a class" in done.output
    assert "class scatter fear" not in done.output
    row = ResultsStore(tmp_path / "store").runs().iloc[0]
    assert row["split"] == "balanced"
    again = "--knob imbalance=1.5 --size tiny --recipe smoke --seed 0 --set augmentation.flip=0.25"
    assert f"{again} --set batch_size=16 --set epochs=1 --option" in row["command"]
    assert row["command"].endswith("--option negatives=fully --balanced 14 --record fully")


def test_what_the_store_has_need_not_be_trained_again(trained):
    folder, _ = trained
    assert ASKED.recorded(folder / "store")
    assert not dataclasses.replace(ASKED, seed=4).recorded(folder / "store")
    assert not ASKED.recorded(folder / "another")


@pytest.fixture
def quick(monkeypatch):
    """Trainings that take no time: names of the folders of those fitted, in order."""
    fitted = []

    def fit(request, run, faces, fresh, device):
        for start in (request.weights, request.trunk):
            assert start is None or Run(start).is_finished
        fitted.append(run.folder.name)
        model = create_model(request.model, size=request.size)
        run.save_config({**model_card(model), "recipe": {"epochs": 1}, "request": request.to_data()})
        run.save_history(pd.DataFrame({"epoch": [0], "seconds": [1.0]}))
        run.save_weights(model)

    monkeypatch.setattr("fer_lab.experiments.training._fit", fit)
    return fitted


def test_missing_rows_are_trained_after_the_trainings_they_start_from(tmp_path, quick):
    """What a table lacks is trained, each once; of what it has, only what the rest starts from."""
    store, folder = ResultsStore(tmp_path / "store"), tmp_path / "runs"
    first = dataclasses.replace(ASKED, variant="first", resolutions=())
    second = dataclasses.replace(first, weights=first, variant="second")
    last = dataclasses.replace(first, trunk=second, variant="last")
    rows = {"last": last, "second": second, "first": first, "other": dataclasses.replace(first, seed=9)}
    assert train_missing(rows, folder, store) == ["last", "other"]
    order = [first.name, second.name, last.name, rows["other"].name]
    assert quick == order
    assert set(store.runs()["request"]) == {one.to_json() for one in rows.values()}
    assert train_missing(rows, folder, store) == []
    # A lost run is trained again where another training needs it, and there alone.
    (folder / second.name / "weights.safetensors").unlink()
    new = dataclasses.replace(last, variant="new")
    assert train_missing({**rows, "new": new}, folder, store) == ["new"]
    assert quick[4:] == [second.name, new.name]


def test_a_training_is_known_by_the_run_it_started_from_and_not_by_the_folder(tmp_path, quick):
    first = dataclasses.replace(ASKED, variant="first", resolutions=())
    train(first, out=tmp_path / "elsewhere")
    second = dataclasses.replace(first, trunk=tmp_path / "elsewhere", variant="second")
    train(second, out=tmp_path / "second", store=tmp_path / "store")
    assert dataclasses.replace(second, trunk=first).recorded(tmp_path / "store")
    assert not dataclasses.replace(second, trunk=None).recorded(tmp_path / "store")


def test_rendered_faces_of_another_kind_are_trained_on_again(trained, monkeypatch):
    folder, _ = trained
    monkeypatch.setattr("fer_lab.data.synthetic.generator.VERSION", 99)
    assert not ASKED.recorded(folder / "store")


# ---------------------------------------------------------------- several processes


def test_more_devices_than_there_are_is_refused_before_anything_is_read(monkeypatch):
    monkeypatch.setattr("fer_lab.parallel.processes.count_devices", lambda device: (2, "GPUs"))
    monkeypatch.setattr(FaceRequest, "load", lambda self: pytest.fail("faces were read"))
    with pytest.raises(ValueError, match="there are 2 GPUs here, not 4"):
        run("train", "baseline", "--devices", "4")


@pytest.mark.skipif(count_devices("cpu")[0] < 2, reason="two processes want two cores")
def test_two_processes_that_were_killed_go_on_where_they_were(tmp_path):
    words = [
        "train",
        "baseline",
        "--faces",
        COUNT,
        "--device",
        "cpu",
        "--devices",
        "2",
        "--out",
        tmp_path / "run",
    ]
    words += ["--set", "epochs=4", "--set", "batch_size=16", "--record", "two", "--store", tmp_path / "store"]
    command = [sys.executable, "-m", "fer_lab", *map(str, words)]
    made = Run(tmp_path / "run")
    launcher = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    deadline = time.time() + 100
    while not len(made.history) and time.time() < deadline:
        time.sleep(0.02)
    launcher.kill()
    launcher.wait()
    before = made.history
    assert 1 <= len(before) < 4
    while time.time() < deadline:
        with contextlib.suppress(RunBusyError), made.lock():
            break
        time.sleep(0.1)
    before = made.history
    done = run(*words)
    assert done.exit_code == 0, done.output
    assert made.is_finished
    assert len(made.history) == 4
    # An epoch whose row was written but not its checkpoint is trained again: the same numbers, other seconds.
    assert made.history.head(len(before)).drop(columns="seconds").equals(before.drop(columns="seconds"))
    assert ResultsStore(tmp_path / "store").runs().iloc[0]["device"].startswith("2 × ")


def test_a_process_that_reads_other_faces_than_the_first_one_refuses(tmp_path, monkeypatch):
    monkeypatch.setattr("fer_lab.experiments.training.stop_with_launcher", lambda: None)
    with pytest.raises(ValueError, match="synthetic changed while several processes began to read it"):
        train_worker(ASKED, tmp_path / "run", "another fingerprint", fresh=False, device="cpu")
    assert not (tmp_path / "run").exists()


def test_a_wrong_option_lists_the_options_and_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["fer-lab", "train", "dan", "--option", "heads=2"])
    with pytest.raises(SystemExit, match="2"):
        cli.main()
    message = capsys.readouterr().err
    assert message.startswith("fer-lab: dan has no option heads; its options and their defaults: num_heads=4")
    assert message.count("\n") == 1
