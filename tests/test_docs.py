"""README, docs/ and the other pages: links lead somewhere, lines run, paths and options exist."""

import json
import re
import shlex
import sys
import types
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
import torch
import typer.main
from PIL import Image
from skimage.data import astronaut
from sklearn.model_selection import cross_validate
from typer.testing import CliRunner

from fer_lab import Recipe, load_faces, open_model
from fer_lab.cli import app

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")),
    *(ROOT / name / "README.md" for name in ("figures", "notebooks")),
    *sorted((ROOT / "docs").glob("*.md")),
]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_relative_links_lead_to_files(page):
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    targets = [unquote(link.partition("#")[0]) for link in links if ":" not in link]
    assert [link for link in targets if not (page.parent / link).exists()] == []


def test_every_page_of_docs_is_linked_from_readme():
    assert [page for page in (ROOT / "docs").glob("*.md") if f"(docs/{page.name})" not in README] == []


def test_every_picture_has_its_row():
    text = (ROOT / "figures" / "README.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^\| (\S+\.png) \|", text, re.MULTILINE)) == sorted(
        path.name for path in (ROOT / "figures").glob("*.png")
    )


def test_readme_is_read_in_a_minute():
    assert README.count("\n") <= 130
    assert re.findall("<!-- results: ([a-z_]+) -->", README) == ["verdicts", "ferplus_recipes"]
    assert README.count("![") == 1


def test_readmes_python_lines_look_at_a_picture_and_train_a_model(tmp_path, monkeypatch, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert "count=2000" in code
    monkeypatch.chdir(tmp_path)
    Image.fromarray(astronaut()).save("photo.jpg")
    exec(compile(code.replace("count=2000", "count=150"), "README.md", "exec"), {})
    said = capsys.readouterr().out
    assert re.match(r"\[{'neutral': [\d.e-]+, 'happiness': 0\.9", said)
    assert "mean_class_recall" in said
    assert (tmp_path / "runs" / "first" / "weights.safetensors").exists()


class Writer(dict):
    """TensorBoard's SummaryWriter, as far as the page needs it, into memory."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        return None

    def add_scalar(self, name, value, step):
        self.setdefault(name, {})[step] = value


def test_python_lines_for_other_tools_run(tmp_path, monkeypatch, capsys):
    text = (ROOT / "docs" / "doors.md").read_text(encoding="utf-8")
    watch, again, probe, estimator, names, hub = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", types.SimpleNamespace(SummaryWriter=Writer))
    kept = {"short": Recipe(epochs=2, batch_size=32)}

    def run(code):
        assert "count=2000" in code or "load_faces" not in code
        code = code.replace("count=2000", "count=150").replace('model.recipes["smoke"]', "short")
        exec(compile(code, "doors.md", "exec"), kept)

    run(watch)
    assert list(kept["writer"]["total"]) == list(kept["writer"]["valid_accuracy"]) == [1, 2]

    command = ["train", "baseline", "--faces", "150", "--set", "epochs=1", "--seed", "3", "--out", "runs/mine"]
    assert CliRunner().invoke(app, command).exit_code == 0
    run(again)
    configs = [json.loads(Path(f"runs/{one}/config.json").read_text()) for one in ("mine", "mine-again")]
    assert [config["recipe"]["seed"] for config in configs] == [3, 4]
    assert [config["fingerprint"] for config in configs] == [configs[0]["fingerprint"]] * 2

    run(probe)
    said = capsys.readouterr().out.splitlines()[-1]
    assert float(said.partition(",")[0]) > 1 / 7

    run(estimator)
    faces = load_faces(count=300, size=56, imbalance=0, seed=2)
    named = np.array(faces.classes)[faces.labels]
    known = named != "fear"  # classes are those of y, in scikit-learn's order
    pictures = faces.images.numpy()[known]
    found = cross_validate(kept["FaceClassifier"](), pictures, named[known], cv=2, return_train_score=True)
    assert len(found["test_score"]) == 2
    assert min(found["train_score"]) > 1 / 3

    run(names)
    assert "Freude" in kept["FaceExplorer"]({"DAN": kept["model"]}).view().words

    shelf = {}
    pretended = types.SimpleNamespace(
        upload_file=lambda *, path_or_fileobj, path_in_repo, repo_id: shelf.update(
            {(repo_id, path_in_repo): path_or_fileobj}
        ),
        hf_hub_download=lambda *name: shelf[name],
    )
    monkeypatch.setitem(sys.modules, "huggingface_hub", pretended)
    run(hub)
    weights = kept["model"].state_dict()
    assert all(
        torch.equal(value, weights[name]) for name, value in open_model("runs/mine").state_dict().items()
    )


def commands() -> list[str]:
    """Every line of the pages that starts `fer-lab`, in a block or between backticks."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    spans = re.findall(r"`(fer-lab [^`]+)`", text)
    return sorted({line.partition(" #")[0].strip() for line in re.findall(r"^fer-lab .*$", text, re.M) + spans})


@pytest.mark.parametrize("line", commands())
def test_commands_in_texts_and_their_options_exist(line):
    command, (_, *words) = typer.main.get_command(app), shlex.split(line)
    while hasattr(command, "commands"):
        assert words, line
        assert words[0] in command.commands
        command = command.commands[words.pop(0)]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if re.match(r"--?[a-z]", word)} <= known


def test_paths_in_contributing_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    paths = re.findall(r"`((?:fer_lab|tests|docs|figures)/[\w/.]*)`", text)
    assert len(paths) > 20
    of_the_example = {"fer_lab/models/mymethod.py", "tests/models/test_mymethod.py"}
    assert [path for path in paths if not (ROOT / path).exists() and path not in of_the_example] == []
