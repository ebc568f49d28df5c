"""Every option of the command line with every value that it cannot mean.

The cases are made by walking the commands themselves, so a new option is attacked as soon as it exists. A bad
value must end in exit code 2 and one line, before any work begins and with nothing written.
"""

import importlib
import inspect
import os
import re
import resource
import shlex
import shutil
import signal
import sys
import typing
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType

import pytest
import torch
import typer
import typer.main
from PIL import Image

from fer_lab import cli
from fer_lab.runs import results_folder

pytestmark = pytest.mark.fault("option with a bad value")

# Words with which each command would begin its work; a name in capitals is a path in the workplace.
VALID = {
    "reproduce": ["--notebooks", "00", "--out", "NEW"],
    "notebooks": ["--execute"],
    "info": [],
    "models": [],
    "train": ["dan", "--faces", "40", "--out", "NEW"],
    "landmarks": ["--out", "NEW.safetensors"],
    "convert": ["CHECKPOINT", "NEW.safetensors", "--model", "baseline", "--size", "tiny"],
    "trunk": ["faceres", "GRAPH", "NEW.safetensors"],
    "evaluate": ["synthetic/dan", "--faces", "40"],
    "predict": ["PICTURE", "--model", "synthetic/dan", "--out", "NEW"],
    "results": ["--store", "STORE"],
    "data crop": ["PHOTOS", "NEW"],
    "data check": ["folder", "SET"],
    "data cache": ["folder", "SET"],
    "data render": ["NEW"],
    "bench models": ["--models", "dan"],
    "bench onnx": ["--models", "dan"],
    "bench device": ["--device", "cpu", "--models", "dan"],
    "bench losses": [],
    "bench data": [],
    "bench growth": [],
    "export onnx": ["synthetic/dan", "NEW.onnx"],
    "export page": ["NEW.html"],
}
# Options that only mean something for faces on disk, and what goes with them.
REAL = ["--dataset", "folder", "--data-root", "SET"]
ON_DISK = {"--data-root", "--rule", "--faces-order", "--test-share", "--train-share", "--skip-bad", "--classes"}
# What each path is: read as a file, as a folder or as either; written as a file or as a folder.
ROLES = {
    **dict.fromkeys(("data_root", "root", "source"), "read folder"),
    **dict.fromkeys(("weights", "trunk", "run", "images"), "read any"),
    **dict.fromkeys(("checkpoint", "fill", "graph"), "read file"),
    **dict.fromkeys(("csv", "json", "figure", "ship"), "write file"),
    **dict.fromkeys(("out", "folder"), "write folder"),
    "train store": "write folder",
    "results store": "read folder",
    "predict weights": "read any",
    "landmarks out": "write file",
    "convert out": "write file",
    "trunk out": "write file",
    "export onnx out": "write file",
    "export page out": "write file",
    "packages": "write folder",
}
# What is found out during the work: a notebook reads the data set, and a bad picture does not stop the others.
LATER = {
    ("reproduce", "--data-root", "EMPTY"),
    *(("predict", "images", word) for word in ("GARBAGE", "PIPE", "/dev/zero")),
}
# Texts that may be any name.
FREE = {"train --record"}
HOSTILE = "a\x1b[31m\rb"
HUGE = "9" * 40
# Never a device among what is written: a command that does not refuse it would replace the machine's own.
WORDS = {
    "int": ["many", "1.5", "nan", "-1", HUGE],
    "float": ["many", "nan", "inf", "-1", HUGE],
    "read file": ["MISSING", "EMPTY", "GARBAGE", "PIPE", "/dev/zero"],
    "read folder": ["MISSING", "GARBAGE", "EMPTY", "PIPE", "/dev/zero"],
    "read any": ["MISSING", "EMPTY", "GARBAGE", "PIPE", "/dev/zero"],
    "write file": ["EMPTY", "GARBAGE/x.csv", "PIPE"],
    "write folder": ["GARBAGE", "GARBAGE/x", "PIPE"],
    "name": ["no such name", "-1", HUGE],
    "pairs": ["x", "=1", "no_such_name=1", "1x=2", "a b=1"],
    "pair": ["no-such-name SET", "folder MISSING"],
    "flag": [],
}
# A known name of each list of name=value, with values of another type or out of range.
PAIRS = {
    "--knob": [
        "imbalance=many",
        "imbalance=nan",
        "imbalance=-1",
        f"imbalance={HUGE}",
        "imbalance=",
        "occlusion",
    ],
    "--set": ["epochs=many", "epochs=-1", "lr=nan", "lr=-1", "lr=inf", "epochs=1.5", "epochs="],
    "--option": [
        "num_heads=many",
        "num_heads=-1",
        "num_heads=0",
        "trunk=no such",
        "num_heads=1.5",
        "num_heads=",
    ],
    "--also": ["london=", "london=MISSING", "london=GARBAGE", "london=PIPE", "a-b=SET"],
    "--parameter": ["seed=many", "seed=1.5", "seed="],
}


@dataclass(frozen=True)
class Given:
    """An option, or an argument, which has no dashes."""

    name: str
    option: str
    kind: str


def walk(app=cli.app, path=()):
    """(name, what it takes) of every command."""
    for one in app.registered_commands:
        name = " ".join((*path, one.name or one.callback.__name__))
        yield name, list(given(name, one.callback))
    for group in app.registered_groups:
        yield from walk(group.typer_instance, (*path, group.name))


def given(command, callback):
    for name, parameter in inspect.signature(callback).parameters.items():
        kind, info = typing.get_args(parameter.annotation)
        if info.hidden:
            continue
        # Within Annotated, typer keeps the first name where an option's default stands.
        names = [word for word in (info.default, *(info.param_decls or ())) if isinstance(word, str)]
        names = names or [f"--{name.replace('_', '-')}"]
        option = name if isinstance(info, typer.models.ArgumentInfo) else max(names, key=len)
        if isinstance(kind, UnionType):
            kind = next(one for one in typing.get_args(kind) if one is not NoneType)
        what = {int: "int", float: "float", bool: "flag", str: "name", list[str]: "pairs"}.get(kind)
        if kind == tuple[str, Path]:
            what = "pair"
        elif what is None:
            what = ROLES.get(f"{command} {name}") or ROLES[name]
        yield Given(name, option, what)


def cases():
    """(command, option or argument, word); no word where the option stands alone."""
    for name, taken in walk():
        yield name, "--no-such-option", None
        for one in taken:
            if one.kind == "flag":
                yield name, f"{one.option}=1", None
                continue
            words = ["", HOSTILE, *WORDS[one.kind]]
            if one.kind == "pairs":
                words += PAIRS[one.option]
            for word in ["", HOSTILE] if f"{name} {one.option}" in FREE else words:
                yield name, one.option, word


CASES = [case for case in dict.fromkeys(cases()) if case not in LATER]


class Began(BaseException):
    """A command has begun its work."""


class Stuck(BaseException):
    """A command waits, or reads for ever."""


# What a command calls once it has nothing more to complain about.
WORK = (
    "fer_lab.book.run.run_in_pool",
    "fer_lab.data.synthetic.generator._plan",
    "fer_lab.data.datasets.load_pixels",
    "fer_lab.data.datasets.for_each",
    "fer_lab.data.photographs.open_image",
    "fer_lab.bench.models.in_own_process",
    "fer_lab.bench.losses.in_own_process",
    "fer_lab.bench.onnx._measure",
    "fer_lab.bench.device._differences",
    "fer_lab.bench.growth.bench_growth",
    "fer_lab.models.authors.loading._naming_of",
    "fer_lab.models.authors.faceres._layers",
    "fer_lab.models.export.to_onnx",
    "fer_lab.book.live.fetch",
    "fer_lab.explorer.photo_overlay.open_image",
    "fer_lab.experiments.tables.tables",
    "fer_lab.experiments.claims.judge",
)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("workplace")
    (folder / "EMPTY").mkdir()
    (folder / "GARBAGE").write_bytes(b"\x93nothing\0")
    os.mkfifo(folder / "PIPE")
    for split in ("train", "test"):
        for name in ("happiness", "sadness"):
            (folder / "SET" / split / name).mkdir(parents=True)
            Image.new("RGB", (56, 56), "gray").save(folder / "SET" / split / name / "a.png")
    (folder / "PHOTOS").mkdir()
    shutil.copy(folder / "SET/train/sadness/a.png", folder / "PHOTOS" / "b.png")
    for name in ("PICTURE", "photo.jpg"):
        shutil.copy(folder / "SET/train/sadness/a.png", folder / name)
    torch.save({"x": torch.ones(2)}, folder / "CHECKPOINT")
    (folder / "GRAPH").write_text('{"modelTopology": {"node": []}, "weightsManifest": []}')
    shutil.copytree(results_folder(), folder / "STORE")
    return folder


@pytest.fixture
def attack(workplace, monkeypatch, capsys):
    """Run a command line in the workplace: → its exit code, stdout and stderr, and whether it began to work."""

    def began(*_args, **_kwargs):
        raise Began

    def stuck(*_args):
        raise Stuck

    def run(words):
        monkeypatch.setattr(sys, "argv", ["fer-lab", *words])
        signal.signal(signal.SIGALRM, stuck)
        signal.alarm(20)
        # A device without end must not take the machine's memory.
        limits = resource.getrlimit(resource.RLIMIT_AS)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 4 * 2**30, limits[1]))
        try:
            cli.main()
        except SystemExit as end:
            return end.code, *capsys.readouterr(), False
        except Began:
            return None, *capsys.readouterr(), True
        finally:
            signal.alarm(0)
            resource.setrlimit(resource.RLIMIT_AS, limits)
        return 0, *capsys.readouterr(), False

    # A module that was first imported below would keep what stands in for another's function.
    for target in WORK:
        importlib.import_module(target.rpartition(".")[0])
    for target in WORK:
        monkeypatch.setattr(target, began)
    monkeypatch.setattr("fer_lab.book.run.ENGINES", {"pool": began, "ray": began})
    monkeypatch.delenv("FER_DATA", raising=False)
    monkeypatch.chdir(workplace)
    yield run
    shutil.rmtree(workplace / "NEW", ignore_errors=True)


def listing(folder) -> dict:
    return {path: path.lstat().st_mtime_ns for path in sorted(folder.rglob("*"))}


def words_of(name, option, word) -> list[str]:
    """A command line that is right but for one option."""
    words, taken = list(VALID[name]), dict(walk())[name]
    arguments = [one.option for one in taken if not one.option.startswith("-")]
    if option in arguments:
        place = arguments.index(option)
        words[place : place + 1] = [word]
        return [*name.split(), *words]
    if option in ON_DISK and {"--data-root"} & {one.option for one in taken}:
        words += REAL
    if option in words:
        place = words.index(option)
        del words[place : place + 2]
    pair = {one.option for one in taken if one.kind == "pair"}
    values = [] if word is None else word.rsplit(" ", 1) if option in pair else [word]
    return [*name.split(), *words, option, *values]


@pytest.mark.parametrize("name", VALID)
def test_the_words_that_the_cases_start_from_begin_the_work(name, attack):
    code, _, said, began = attack([*name.split(), *VALID[name]])
    assert began or code == 0, said


@pytest.mark.parametrize(("name", "option", "word"), CASES, ids=lambda value: repr(value)[:60])
def test_a_bad_value_is_refused_in_one_line_before_any_work(name, option, word, attack, workplace):
    before = listing(workplace)
    code, printed, said, began = attack(words_of(name, option, word))
    assert not began, "the command began its work"
    assert (code, printed) == (2, ""), said
    assert said.startswith("fer-lab: ")
    assert said.count("\n") == 1
    assert said.rstrip("\n").isprintable()
    assert listing(workplace) == before


@pytest.mark.parametrize("option", ["--knob imbalance", "--set epochs", "--option num_heads"])
def test_a_name_with_two_values_is_refused(option, attack):
    option, name = option.split()
    words = ["train", *VALID["train"], option, f"{name}=1", option, f"{name}=2"]
    code, printed, said, began = attack(words)
    assert (code, printed, began) == (2, "", False)
    assert f"{name} has several values" in said


# What an example in a help text needs beside it.
BESIDE = {
    "--head-sizes": ["--balanced", "40"],
    "--dataset": REAL[2:],
}
# A data set of the reader's own that is not here.
ABSENT = {"--faces-order", "--test-share", "root", "source"}


def examples():
    """(command, option or argument, value) of every "such as …" in a help text."""
    for name, command in commands(typer.main.get_command(cli.app)):
        for parameter in command.params:
            if found := re.search(r"[Ss]uch as ([\w/.,=]*[\w])", getattr(parameter, "help", None) or ""):
                option = max(parameter.opts, key=len)
                if option not in ABSENT:
                    yield name, option, found[1]


def commands(group, path=()):
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


@pytest.mark.parametrize(("name", "option", "value"), list(examples()))
def test_the_examples_of_the_help_texts_begin_the_work(name, option, value, attack):
    words = words_of(name, option, value) + BESIDE.get(option, [])
    code, _, said, began = attack(words)
    assert began or code == 0, said


README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
LINES = re.findall(r"^fer-lab [^#\n]*", README, re.M) + re.findall(r"`(fer-lab [^`]+)`", README)


@pytest.mark.parametrize("line", sorted({" ".join(line.split()) for line in LINES}))
def test_the_commands_of_readme_begin_their_work(line, attack):
    code, _, said, began = attack(shlex.split(line)[1:])
    assert began or code == 0, said


def test_there_are_examples():
    assert len(list(examples())) > 8
    assert len(LINES) > 3
