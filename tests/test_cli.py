"""The command line: what it passes on, what it prints, how it ends; one training from end to end."""

import csv
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from PIL import Image
from skimage.data import astronaut
from typer.testing import CliRunner

from fer_lab import cli
from fer_lab.book.result import NotebookResult
from fer_lab.cli import measure, options
from fer_lab.models import list_models
from fer_lab.models.weights import SHIPPED_FOLDER
from fer_lab.runs import results_folder

RUNNER = CliRunner()


def run(*words, **options):
    return RUNNER.invoke(cli.app, [str(word) for word in words], **options)


def run_main(monkeypatch, *words) -> int:
    """As from a shell: → exit code."""
    monkeypatch.setattr(sys, "argv", ["fer-lab", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return end.value.code


def test_the_version_and_what_to_send_with_a_question(monkeypatch):
    from fer_lab import __version__

    assert run("--version").output == f"fer_lab {__version__}\n"
    monkeypatch.setenv("FER_LAB_CACHE", "/somewhere/else")
    monkeypatch.delenv("FER_DATA", raising=False)
    told = dict(line.split(maxsplit=1) for line in run("info").output.splitlines())
    assert told["fer_lab"] == __version__
    assert told["cache"] == "/somewhere/else"
    assert told["FER_DATA"] == "not set"
    assert told["precision"].partition(" ")[0] in ("fp32", "bf16")
    assert told["weights"].startswith("ferplus: baseline, dan")
    assert "synthetic: baseline, dan" in told["weights"]
    assert {"python", "torch", "device", "cpu", "cores", "threads", "results"} <= set(told)


def test_quiet_prints_errors_alone(monkeypatch, tmp_path):
    monkeypatch.delenv("FER_LAB_QUIET", raising=False)
    assert run("-q", "models").output == ""
    assert "FER_LAB_QUIET" not in os.environ, "quiet beyond its own command"
    assert run("models").output
    refused = run("--quiet", "predict", tmp_path / "none.jpg")
    assert refused.exit_code != 0
    assert "no such file" in str(refused.exception)


def test_the_package_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "fer_lab", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("fer_lab ")


def test_models_are_listed_with_their_weights():
    lines = run("models", "dan").output.splitlines()
    assert lines[0] == "dan"
    weights = [line.split() for line in lines if line.startswith("  weights")]
    assert [words[1] for words in weights] == ["ferplus/dan:", "synthetic/dan:"]
    assert "photographs" in " ".join(weights[0])
    assert 50 < float(weights[1][weights[1].index("%") - 1]) < 100
    (smoke,) = [line for line in lines if line.startswith("  recipe   smoke: ")]
    assert "epochs=6, batch_size=16" in smoke
    assert "augmentation.flip=0.5" in smoke


# ---------------------------------------------------------------------------------------------------------
# reproduce, notebooks


@pytest.fixture
def asked(monkeypatch):
    """What `reproduce` was asked for; its answer is one notebook that works and one that does not."""
    calls = []

    def answer(*args, on_result, **kwargs):
        calls.append((*args, kwargs))
        results = [
            NotebookResult("00_start_here", seconds=3.0, headline={"accuracy": 0.5}, figures=4),
            NotebookResult("02_dan", seconds=1.0, error="cell 3 of 9: ValueError: no", traceback="a trace"),
        ]
        for result in results[: 1 if args[1] == ["00"] else 2]:
            on_result(result)
        return results[: 1 if args[1] == ["00"] else 2]

    monkeypatch.setattr("fer_lab.book.run.reproduce", answer)
    return calls


def test_reproduce_passes_on_what_was_asked(asked, tmp_path):
    choice = ["--profile", "full", "--notebooks", "00", "--seeds", "0,1,2", "-j", "2"]
    given = ["-p", "lr=1e-4", "-p", "text=a=b", "--dataset", "ferplus", "--data-root", tmp_path]
    done = run("reproduce", *choice, *given, "--out", tmp_path / "book")
    assert done.exit_code == 0, done.output
    parameters = {"lr": "1e-4", "text": "a=b"}
    rest = {"grid": {}, "engine": "pool"}
    assert asked == [("full", ["00"], parameters, ["ferplus"], tmp_path, [0, 1, 2], tmp_path / "book", 2, rest)]
    assert "00_start_here      3.0               4  accuracy 0.5" in done.output
    assert str(tmp_path / "book" / "index.html") in done.output
    assert str(tmp_path / "book" / "notebooks") in done.output


def test_reproduce_runs_the_whole_book_in_the_smoke_profile_if_nothing_is_said(asked):
    run("reproduce")
    assert asked[0][:6] == ("smoke", None, {}, ["synthetic"], None, [0])
    assert asked[0][7] == min(2, os.cpu_count()), "what `make` does"


def test_a_name_with_several_values_is_a_grid(asked):
    words = ["-p", "lr=0.1", "-p", "heads=1", "-p", "heads=[1, 2]", "--dataset", "synthetic,ferplus"]
    run("reproduce", *words, "--data-root", "/data", "--engine", "ray")
    assert asked[0][2:5] == ({"lr": "0.1"}, ["synthetic", "ferplus"], Path("/data"))
    assert asked[0][-1] == {"grid": {"heads": ["1", "[1, 2]"]}, "engine": "ray"}


def test_a_failed_notebook_is_named_and_the_exit_code_is_one(asked):
    done = run("reproduce")
    assert done.exit_code == 1
    assert "02_dan: cell 3 of 9: ValueError: no\na trace" in done.output
    assert "1 of 2 failed: 02_dan" in done.output
    assert "accuracy 0.5" in done.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["reproduce", "--seeds", "a"], "expected whole numbers"),
        (["reproduce", "-p", "lr"], "expected name=value, got 'lr'"),
        (["reproduce", "-p", "1x=2"], "expected name=value"),
        (["reproduce", "--jobs", "many"], "jobs"),
        (["notebooks"], "give either a folder or --execute"),
        (["nothing"], "nothing"),
    ],
)
def test_a_wrong_option_exits_with_two(words, said):
    done = run(*words)
    assert done.exit_code == 2
    assert said in " ".join(done.output.replace("│", " ").split())


def test_notebooks_are_copied(monkeypatch, tmp_path):
    monkeypatch.setattr("fer_lab.book.parameters.notebooks_folder", lambda: tmp_path / "book")
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "00_start_here.ipynb").write_text("{}")
    done = run("notebooks", tmp_path / "mine")
    assert done.exit_code == 0
    assert (tmp_path / "mine" / "00_start_here.ipynb").read_text() == "{}"
    assert str(tmp_path / "mine" / "00_start_here.ipynb") in done.output


# ---------------------------------------------------------------------------------------------------------
# How it ends


def test_a_users_error_is_one_line(monkeypatch, capsys):
    assert run_main(monkeypatch, "reproduce", "--profile", "quick") == 2
    said = capsys.readouterr().err
    assert said == "fer-lab: unknown profile 'quick'; expected one of smoke, full, paper\n"


def test_a_missing_folder_is_one_line(monkeypatch, capsys, tmp_path):
    words = ["--dataset", "ferplus", "--data-root", tmp_path / "gone"]
    assert run_main(monkeypatch, "reproduce", *words) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"fer-lab: no folder {tmp_path / 'gone'}")
    assert said.count("\n") == 1


def test_the_traceback_shows_when_asked_for(monkeypatch):
    monkeypatch.setenv("FER_LAB_DEBUG", "1")
    monkeypatch.setattr(sys, "argv", ["fer-lab", "reproduce", "--profile", "quick"])
    with pytest.raises(ValueError, match="unknown profile"):
        cli.main()


def test_a_mistake_of_ours_keeps_its_traceback(monkeypatch):
    def broken(*args, **kwargs):
        raise TypeError("ours")

    monkeypatch.setattr("fer_lab.book.run.reproduce", broken)
    monkeypatch.setattr(sys, "argv", ["fer-lab", "reproduce"])
    with pytest.raises(TypeError, match="ours"):
        cli.main()


def test_an_interrupt_is_one_line_and_130(monkeypatch, capsys):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("fer_lab.book.run.reproduce", interrupted)
    assert run_main(monkeypatch, "reproduce") == 130
    assert (
        capsys.readouterr().err == "interrupted; run the same command again to resume where that is possible\n"
    )


def test_help_names_every_data_set():
    from fer_lab.data.layouts import LAYOUTS

    assert options.DATASETS.replace(" or ", ", ").split(", ") == list(LAYOUTS)


def test_help_does_not_wait_for_torch():
    code = (
        "import sys, fer_lab.cli\n"
        "print([name for name in ('torch', 'papermill', 'pandas', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# ---------------------------------------------------------------------------------------------------------
# models


def test_predict_does_not_wait_for_what_it_does_not_use():
    heavy = ("captum", "ipywidgets", "matplotlib", "pandas", "scipy", "seaborn", "sympy", "torchvision", "umap")
    code = (
        "import sys\nfrom fer_lab.explorer import predict_picture\nfrom fer_lab.models.inference import fuse\n"
        f"from fer_lab.runs import open_model\nfuse(open_model('dan'))\nprint({{*{heavy}}} & {{*sys.modules}})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize("name", ["explanation", "explorer", "runs"])
def test_a_package_shows_the_names_that_it_imports_when_they_are_asked_for(name):
    package = importlib.import_module(f"fer_lab.{name}")
    some = {"explanation": "explain", "explorer": "FaceExplorer", "runs": "ResultsStore"}[name]
    assert some in dir(package)
    assert getattr(package, some).__name__ == some
    with pytest.raises(AttributeError, match=f"module 'fer_lab.{name}' has no attribute 'nothing'"):
        package.nothing  # noqa: B018


def test_models_lists_sizes_recipes_and_options():
    lines = run("models", "dan").output.splitlines()
    assert lines[:3] == ["dan", "  sizes    tiny, paper", "  recipes  smoke, scratch, rafdb, affectnet"]
    assert lines[3].startswith("  options  num_heads=4, affinity_weight=1.0, partition_weight=1.0")
    every = run("models").output.splitlines()
    assert [line for line in every if not line.startswith(" ")] == list_models()


# ---------------------------------------------------------------------------------------------------------
# landmarks


def test_landmarks_are_shipped_where_asked_and_measured_on_photographs_if_there_are_any(monkeypatch, tmp_path):
    asked = []

    def ship(path, **options):
        asked.append((path, options))
        return {"score": {"mean_shape_error": 16.171}}

    monkeypatch.setattr("fer_lab.experiments.landmarks.ship_landmarks", ship)
    monkeypatch.delenv("FER_DATA", raising=False)
    words = ["--faces", 100, "--epochs", 2, "--seed", 3, "--knob", "imbalance=0"]
    done = run("landmarks", *words, "--out", tmp_path / "l.safetensors")
    assert done.exit_code == 0, done.output
    options = {"count": 100, "epochs": 2, "seed": 3, "photographs": None, "knobs": {"imbalance": 0}}
    assert asked == [(tmp_path / "l.safetensors", options)]
    assert "mean shape error                 16.17 %" in done.output
    assert run("landmarks").exit_code == 2
    assert len(asked) == 1
    monkeypatch.undo()
    monkeypatch.delenv("FER_DATA", raising=False)
    assert run_main(monkeypatch, "landmarks", "--out", tmp_path / "l.md") == 2


# ---------------------------------------------------------------------------------------------------------
# bench


@pytest.fixture
def benched(monkeypatch):
    """What was asked of fer_lab.bench.models; every answer is the same small table."""
    import pandas as pd

    calls = []

    def answer(name):
        return lambda *args, **kwargs: calls.append((name, args, kwargs)) or pd.DataFrame({"ms": [0.123456]})

    for module in ("models", "losses", "data"):
        monkeypatch.setattr(f"fer_lab.bench.{module}.bench_{module}", answer(f"bench_{module}"))
    return calls


def test_bench_passes_on_what_was_asked(benched, monkeypatch, tmp_path):
    monkeypatch.delenv("FER_DATA", raising=False)
    run("bench", "models", "--models", "dan, qcs", "--sizes", "tiny", "--modes", "inference")
    run("bench", "models", "--paths", "default,compiled")
    run("bench", "models")
    run("bench", "losses", "--batch", 64, "--classes", 7, "--dim", 128)
    run("bench", "losses")
    run("bench", "data", "--dataset", "ferplus", "--data-root", tmp_path)
    run("bench", "data")
    assert benched == [
        ("bench_models", (["dan", "qcs"], ["tiny"], ["inference"]), {"paths": ["plain", "default"]}),
        ("bench_models", (None, ["tiny", "paper"], ["train", "inference"]), {"paths": ["default", "compiled"]}),
        ("bench_models", (None, ["tiny", "paper"], ["train", "inference"]), {"paths": ["plain", "default"]}),
        ("bench_losses", (64, 7, 128), {}),
        ("bench_losses", (512, 8, 512), {}),
        ("bench_data", (), {"dataset": "ferplus", "root": tmp_path}),
        ("bench_data", (), {}),
    ]


def test_bench_draws_its_table(monkeypatch, tmp_path):
    import pandas as pd

    what = {"model": "dan", "size": "tiny", "mode": "train"}
    rates = {**what, "path": ["plain", "default"], "images_per_s": [1.0, 2.0]}
    monkeypatch.setattr("fer_lab.bench.models.bench_models", lambda *_, **__: pd.DataFrame(rates))
    done = run("bench", "models", "--figure", tmp_path / "speed.png")
    assert "drawn in" in done.output
    with Image.open(tmp_path / "speed.png") as picture:
        assert picture.width > 400


@pytest.mark.parametrize("what", ["models", "losses", "data"])
def test_bench_prints_its_table_and_writes_it_where_asked(what, benched, tmp_path):
    done = run("bench", what, "--csv", tmp_path / "new" / "table.csv")
    assert done.exit_code == 0, done.output
    assert "0.1235" in done.output
    assert (tmp_path / "new" / "table.csv").read_text() == "ms\n0.123456\n"


# ---------------------------------------------------------------------------------------------------------
# Photographs


@pytest.fixture
def photographs(tmp_path, monkeypatch):
    """A folder with a face, a wall and a broken file; the working folder is beside it."""
    folder = tmp_path / "mine"
    (folder / "happiness").mkdir(parents=True)
    Image.fromarray(astronaut()).save(folder / "happiness" / "her.png")
    Image.new("RGB", (90, 90), "gray").save(folder / "happiness" / "wall.png")
    (folder / "happiness" / "broken.jpg").write_bytes(b"no picture")
    monkeypatch.chdir(tmp_path)
    return folder


def test_predict_takes_folders_and_continues_after_a_bad_file(photographs, tmp_path):
    done = run("predict", photographs, "--csv", "faces.csv", "--json", "faces.json")
    assert done.exit_code == 1
    assert "broken.jpg is not a picture in a known format" in done.output
    assert "1 of 3 pictures could not be read" in done.output
    assert "wall.png: no face found" in done.output
    assert "answered by ferplus/dan, trained on ferplus" in done.output
    (row,) = csv.DictReader((tmp_path / "faces.csv").open())
    assert (row["file"], row["face"]) == (str(photographs / "happiness" / "her.png"), "1")
    data = json.loads((tmp_path / "faces.json").read_text())
    assert (data["weights"], data["trained_on"]) == ("ferplus/dan", "ferplus")
    broken, her, wall = data["pictures"]
    assert "is not a picture" in broken["error"]
    assert (wall["faces"], her["error"]) == ([], "")
    assert her["faces"][0]["expression"] == row["expression"] == "happiness"
    assert float(row["happiness"]) == her["faces"][0]["happiness"]


def test_predict_never_replaces_an_overlay(photographs, tmp_path):
    picture = photographs / "happiness" / "her.png"
    for _ in range(2):
        done = run("predict", picture, "--model", "synthetic/dan", "--out", "out")
        assert done.exit_code == 0, done.output
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["000-her-2.png", "000-her.png"]
    assert "answered by synthetic/dan, trained on synthetic" in done.output


def test_predict_looks_at_the_paths_before_it_loads_a_model(photographs, monkeypatch, capsys):
    picture = photographs / "happiness" / "her.png"
    monkeypatch.setattr("fer_lab.runs.open_model", lambda path: pytest.fail("loaded a model"))
    assert run_main(monkeypatch, "predict", picture, "none.png", "gone") == 2
    assert capsys.readouterr().err == "fer-lab: none.png, gone: no such file or folder\n"
    before = picture.read_bytes()
    assert run_main(monkeypatch, "predict", picture, "--csv", picture) == 2
    assert "is one of the pictures" in capsys.readouterr().err
    assert picture.read_bytes() == before


def test_crop_keeps_the_folders_of_classes_and_counts_the_rest(photographs, monkeypatch, capsys):
    assert run_main(monkeypatch, "data", "crop", photographs, "faces", "--size", "64") == 0
    printed, complaints = capsys.readouterr()
    assert "1 cropped" in printed
    assert "1 no face" in printed
    assert "1 unreadable" in printed
    assert "wall.png: no face" in complaints
    assert [path.name for path in Path("faces/happiness").iterdir()] == ["her.png"]
    assert Image.open("faces/happiness/her.png").size == (64, 64)
    assert run_main(monkeypatch, "data", "crop", photographs, "faces") == 2
    assert "faces is not empty; expected a folder to make" in capsys.readouterr().err


def test_crop_fails_where_nothing_was_cropped(tmp_path, monkeypatch, capsys):
    (tmp_path / "walls").mkdir()
    Image.new("RGB", (90, 90), "gray").save(tmp_path / "walls" / "wall.png")
    assert run_main(monkeypatch, "data", "crop", tmp_path / "walls", tmp_path / "faces") == 1
    assert "no face was cropped" in capsys.readouterr().err
    assert not (tmp_path / "faces").exists()


@pytest.mark.parametrize("name", ["synthetic/dan", "file", "run"])
@pytest.mark.parametrize("option", ["--weights", "--model"])
def test_weights_have_one_form_of_name_everywhere(name, option, photographs):
    run_folder = photographs / "run"
    shutil.copytree(SHIPPED_FOLDER / "synthetic", photographs / "files")
    run_folder.mkdir()
    shutil.copy(photographs / "files" / "dan.safetensors", run_folder / "weights.safetensors")
    weights = {"file": photographs / "files" / "dan.safetensors", "run": run_folder}.get(name, name)
    done = run("predict", photographs / "happiness" / "her.png", option, weights, "--json", "her.json")
    assert done.exit_code == 0, done.output
    answer = json.loads(Path("her.json").read_text())
    assert (answer["weights"], answer["trained_on"]) == (str(weights), "synthetic")


def test_unknown_weights_are_told_the_bundled_names(monkeypatch, capsys):
    for words in (["evaluate", "dam"], ["predict", __file__, "--weights", "dam"]):
        assert run_main(monkeypatch, *words) == 2
        said = capsys.readouterr().err
        assert said.startswith(
            "fer-lab: dam does not exist, and is no bundled model; those are ferplus/baseline, "
        )


def test_predict_expands_a_pattern_that_no_shell_has_expanded(photographs):
    done = run("predict", photographs / "happiness" / "h*.png")
    assert done.exit_code == 0, done.output
    assert done.output.startswith(str(photographs / "happiness" / "her.png"))


# ---------------------------------------------------------------------------------------------------------
# Tables and stores


def test_evaluate_writes_its_numbers_and_says_what_answered(tmp_path):
    files = ["--csv", tmp_path / "a.csv", "--json", tmp_path / "a.json"]
    with pytest.warns(
        UserWarning, match="ferplus/baseline learned from photographs and is measured on drawings"
    ):
        done = run("evaluate", "baseline", "--faces", 40, "--faces-seed", 2, *files)
    assert done.exit_code == 0, done.output
    assert done.output.startswith(
        "baseline on 6 test faces of synthetic (ferplus/baseline, trained on ferplus)\n"
    )
    rows = list(csv.DictReader((tmp_path / "a.csv").open()))
    data = json.loads((tmp_path / "a.json").read_text())
    assert (data["weights"], data["split"], data["faces"]) == ("ferplus/baseline", "test", 6)
    assert [row["metric"] for row in rows] == [row["metric"] for row in data["rows"]]
    assert float(rows[0]["value"]) == data["rows"][0]["value"]
    absent = [row for row in data["rows"] if row["value"] is None]
    assert absent
    assert f"recall {absent[0]['class']:<28} no face of this class" in done.output


def test_check_writes_counts_and_facts(tmp_path):
    for split in ("train", "test"):
        for name in ("happiness", "sadness"):
            (tmp_path / "set" / split / name).mkdir(parents=True)
            color = {"train happiness": "blue", "test happiness": "red"}.get(f"{split} {name}", "gray")
            Image.new("RGB", (20, 20), color).save(tmp_path / "set" / split / name / "a.png")
    done = run(
        "data", "check", "folder", tmp_path / "set", "--csv", tmp_path / "a.csv", "--json", tmp_path / "a.json"
    )
    assert done.exit_code == 1
    assert (tmp_path / "a.csv").read_text().splitlines()[:2] == ["split,class,faces", "train,happiness,1"]
    data = json.loads((tmp_path / "a.json").read_text())
    assert (data["ok"], data["leaked"], data["sizes"]) == (False, 1, {"20×20": 4})


def test_one_file_is_not_written_twice(tmp_path, monkeypatch, capsys):
    for words in (["evaluate", "dan"], ["results"], ["data", "check", "folder", tmp_path]):
        assert run_main(monkeypatch, *words, "--csv", tmp_path / "a", "--json", tmp_path / "a") == 2
        assert "name two files" in capsys.readouterr().err
        assert not (tmp_path / "a").exists()


def test_own_results_are_apart_from_the_books(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert f"these are the results in {results_folder()}\n" in run("results").output
    before = {path: path.stat().st_mtime_ns for path in results_folder().rglob("*")}
    words = ["--faces", 40, "--set", "epochs=1", "--out", "runs/a run", "--record", "mine"]
    done = run("train", "baseline", *words)
    assert done.exit_code == 0, done.output
    assert "recorded in runs/results\n" in done.output
    assert re.search(
        r"^baseline: epoch 1 of 1, \d+ s, loss \d\.\d{3}, valid accuracy \d\.\d{3}$", done.output, re.M
    )
    assert done.output.endswith("next: fer-lab predict photo.jpg --weights 'runs/a run'\n")
    shown = run("results", "--csv", "a.csv", "--json", "a.json")
    assert "these are the results in runs/results; --store book has the book's\n" in shown.output
    rows = list(csv.DictReader(Path("a.csv").read_text().splitlines()))
    assert [(row["metric"], row["variant"]) for row in rows] == [
        ("accuracy", "mine"),
        ("mean_class_recall", "mine"),
    ]
    data = json.loads(Path("a.json").read_text())
    assert [row["mean"] for row in data["rows"]] == [float(row["mean"]) for row in rows]
    assert f"these are the results in {results_folder()}\n" in run("results", "--store", "book").output
    assert {path: path.stat().st_mtime_ns for path in results_folder().rglob("*")} == before


def test_the_board_is_of_photographs_and_writes_no_file(monkeypatch, tmp_path):
    shown = run("results", "--board", "--store", "book")
    assert shown.exit_code == 0
    assert "ferplus, valid" in shown.output
    assert "synthetic, " not in shown.output.partition("|")[0]
    assert "the best seed adds" in shown.output
    refused = run("results", "--board", "--store", "book", "--csv", tmp_path / "a.csv")
    assert "writes no file" in str(refused.exception)
    assert not (tmp_path / "a.csv").exists()


def test_intervals_of_shares_end_at_one(monkeypatch, tmp_path):
    table = run("results", "--store", "book", "--csv", tmp_path / "a.csv")
    assert table.exit_code == 0
    highs = [float(row["high"]) for row in csv.DictReader((tmp_path / "a.csv").open()) if row["high"]]
    assert len(highs) > 50
    assert max(highs) <= 1


def test_nothing_is_written_into_an_installed_package(tmp_path):
    package = tmp_path / "site" / "fer_lab"
    ignored = shutil.ignore_patterns("__pycache__")
    root = Path(cli.__file__).parents[2]
    shutil.copytree(root / "fer_lab", package, ignore=ignored)
    shutil.copytree(root / "notebooks", package / "notebooks", ignore=ignored)
    shutil.copytree(root / "docs", package / "docs", ignore=ignored)
    shutil.copytree(root / "figures" / "results", package / "results", ignore=ignored)
    for path in [package, *package.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = {path: path.stat().st_mtime_ns for path in package.rglob("*")}
    Image.fromarray(astronaut()).save(tmp_path / "photo.jpg")
    train = ["train", "baseline", "--faces", "40", "--set", "epochs=1"]
    lines = [
        ["predict", "photo.jpg"],
        ["results"],
        ["notebooks", "mine"],
        [*train, "--record", "mine"],
        ["notebooks", "--execute"],
        [*train, "--record", "mine", "--store", "book"],
    ]
    code = (
        "import sys\nfrom fer_lab import cli\n"
        f"for words in {lines}:\n    sys.argv = ['fer-lab', *words]\n"
        "    try:\n        cli.main()\n    except SystemExit as end:\n        print('ended', end.code)\n"
    )
    environment = {"PYTHONPATH": str(tmp_path / "site"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=os.environ | environment, capture_output=True, text=True
    )
    assert re.findall(r"^ended (\d)", done.stdout, re.M) == ["0", "0", "0", "0", "2", "2"], done.stderr
    assert f"these are the results in {package / 'results'}\n" in done.stderr
    assert "--execute is for a checkout" in done.stderr
    assert "results is a part of the installed package; record elsewhere" in done.stderr
    assert (tmp_path / "runs" / "results" / "runs.csv").exists()
    assert {path: path.stat().st_mtime_ns for path in package.rglob("*")} == before
    for path in [package, *package.rglob("*")]:  # so that pytest can remove it
        path.chmod(0o755)


def test_work_on_files_comes_in_order_and_two_at_a_time():
    lock, running, most = threading.Lock(), [], []

    def work(path):
        with lock:
            running.append(path)
            most.append(len(running))
        time.sleep(0.02 * (3 - int(path.name) % 3))
        with lock:
            running.remove(path)
        if path.name == "4":
            raise ValueError("a bad file")
        return path

    files = [Path(str(number)) for number in range(7)]
    for path, answer in zip(files, measure.ahead(work, files), strict=True):
        if path.name == "4":
            with pytest.raises(ValueError, match="a bad file"):
                answer.result()
        else:
            assert answer.result() == path
    assert max(most) == 2
    assert [answer.result() for answer in measure.ahead(work, files[:1])] == files[:1]
