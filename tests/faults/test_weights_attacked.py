"""Files of weights that are damaged, forged, endless, or written over something else."""

import json
import os
import resource
import signal
import tempfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from skimage.data import astronaut
from typer.testing import CliRunner

from fer_lab import cli
from fer_lab.data.faces import FaceSet
from fer_lab.evaluation.metrics import predict
from fer_lab.explorer import photo_overlay
from fer_lab.models import create_model
from fer_lab.models.authors import convert, load_official
from fer_lab.models.weights import CheckpointError, _digest, load_model, model_card, read_card, save_model
from fer_lab.runs import Run, open_model
from fer_lab.training import fit

# ---------------------------------------------------------------------------------------------------------
# Damage

PLACES = 60


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "w.safetensors"
    save_model(create_model("baseline", 7), path, half=True, dataset="ferplus", score={"accuracy": 0.8})
    return path.read_bytes()


@pytest.mark.fault("bits flipped in a card")
@pytest.mark.parametrize("part", range(PLACES))
def test_a_flipped_bit_in_a_card_is_seen_by_everything_that_reads_it(whole, part, tmp_path):
    size = 8 + int.from_bytes(whole[:8], "little")
    # The card is the last thing in the header that JSON has between quotes.
    start = whole.index(b"__metadata__")
    end = whole.index(b"}", whole.index(b"sha256"))
    assert end < size
    place = start + (end - start) * part // PLACES
    path = tmp_path / "w.safetensors"
    for bit in (0, 4):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
        for read in (read_card, load_model):
            with pytest.raises(CheckpointError, match=r"w\.safetensors"):
                read(path)


# ---------------------------------------------------------------------------------------------------------
# Cards that ask for more than the file holds


def forged(path, state=None, **card):
    """A file with nearly nothing in it, or with `state`, whose card has a right digest."""
    state = {"x": torch.zeros(1)} if state is None else state
    card = {**model_card(create_model("baseline")), "format": 1, "aliases": {}, **card}
    card["sha256"] = _digest(card, state)
    safetensors.torch.save_file(state, path, metadata={"fer_lab": json.dumps(card)})
    return path


GREEDY = {
    "256 heads": {"method": "dan", "size": "paper", "options": {"num_heads": 256}},
    "1,024 heads": {"method": "dan", "size": "tiny", "options": {"num_heads": 1024}},
    "the largest POSTER": {"method": "poster", "size": "paper"},
    "a thousand classes": {
        "method": "qcs",
        "size": "paper",
        "num_classes": 1000,
        "classes": [f"class {i}" for i in range(1000)],
    },
    "a large network of timm": {"options": {"trunk": "timm:vit_huge_patch14_224"}},
    "a wide network of timm": {"options": {"trunk": "timm:resnetv2_152x4_bit"}},
    "a small network of timm": {"options": {"trunk": "timm:resnet18"}},
}


@pytest.mark.fault("card that asks for too much")
@pytest.mark.parametrize("name", GREEDY)
def test_a_card_that_asks_for_more_than_the_file_holds_takes_no_memory(name, tmp_path):
    import timm  # noqa: F401  # its import takes memory, too

    path = forged(tmp_path / "w.safetensors", **GREEDY[name])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match=r"it asks for more than 4,000,\d+ numbers"):
        load_model(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


@pytest.mark.fault("card that asks for too much")
def test_a_tensor_under_a_thousand_names_counts_once(tmp_path):
    names = {f"name {i}": "x" for i in range(3000)}
    state = {"x": torch.zeros(1_000_000, dtype=torch.uint8)}
    path = forged(tmp_path / "w.safetensors", state, aliases=names, method="poster", size="paper")
    with pytest.raises(CheckpointError, match=r"it asks for more than 6,000,000 numbers"):
        open_model(path)


@pytest.mark.fault("card that asks for too much")
@pytest.mark.parametrize("what", ["tensors", "card"])
def test_a_header_of_megabytes_is_refused_unread(what, tmp_path):
    entry = {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}
    header = {"__metadata__": {"fer_lab": "[" + "0," * 20_000_000 + "0]" if what == "card" else "{}"}}
    header |= {f"t{i}": entry for i in range(300_000 if what == "tensors" else 0)}
    text = json.dumps(header).encode()
    path = tmp_path / "weights.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    del header, text
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(
        CheckpointError, match=r"its header has \d+,\d+,\d+ bytes, at most 8,388,608 are expected"
    ):
        open_model(tmp_path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 10_000  # kB


@pytest.mark.fault("card that asks for too much")
def test_a_file_with_a_hole_of_gigabytes_is_refused_unread(tmp_path):
    card = {**model_card(create_model("baseline")), "format": 1, "aliases": {}, "sha256": ""}
    tensor = {"dtype": "U8", "shape": [2**40], "data_offsets": [0, 2**40]}
    text = json.dumps({"__metadata__": {"fer_lab": json.dumps(card)}, "w": tensor}).encode()
    path = tmp_path / "weights.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    os.truncate(path, 8 + len(text) + 2**40)
    with pytest.raises(
        CheckpointError, match=r"it has 1,099,\d+,\d+,\d+ bytes, at most 8,589,934,592 are expected"
    ):
        open_model(tmp_path)


@pytest.mark.fault("card that asks for too much")
def test_a_whole_file_is_opened_however_much_of_a_network_of_timm_it_leaves_out(tmp_path):
    model = create_model("baseline", trunk="timm:efficientnet_b0").eval()
    save_model(model, tmp_path / "w.safetensors")
    images = torch.zeros(1, 3, 56, 56)
    torch.testing.assert_close(load_model(tmp_path / "w.safetensors")(images), model(images), rtol=0, atol=0)


# ---------------------------------------------------------------------------------------------------------
# Cards and tensors of something else

EVIL = "a\x1b]0;owned\x07\x1b[2J\r\n\x9b31m\u202eb"
TINY = create_model("baseline").state_dict()
FIRST = next(iter(TINY))
LONG = "c" * 300_000


def named(*classes: str) -> dict:
    return {"classes": [*classes, *"abcdefg"[len(classes) :]]}


# What → (tensors, card, what the message says).
FOREIGN = {
    "NaN": ({**TINY, FIRST: TINY[FIRST] * float("nan")}, {}, r"not finite"),
    "infinity": ({**TINY, FIRST: TINY[FIRST] + float("inf")}, {}, r"not finite"),
    "too large": ({**TINY, FIRST: TINY[FIRST].double() + 1e300}, {}, r"not finite"),
    "complex numbers": (
        {**TINY, FIRST: TINY[FIRST].to(torch.complex64)},
        {},
        r"is complex64, expected float32",
    ),
    "yes and no": ({**TINY, FIRST: TINY[FIRST].bool()}, {}, r"is bool, expected float32"),
    "one is missing": ({name: TINY[name] for name in list(TINY)[1:]}, {}, r"conv1\.weight is missing$"),
    "one too many": ({**TINY, EVIL: torch.zeros(1)}, {}, r"is unknown$"),
    "one with a long name": ({**TINY, LONG: torch.zeros(1)}, {}, r"is unknown$"),
    "of another shape": ({**TINY, FIRST: torch.zeros(())}, {}, r"is \[\], expected \[32, 3, 3, 3\]"),
    "another model's": (create_model("dan").state_dict(), {}, r"does not fit baseline"),
    "a long class": (TINY, named(LONG), r"7 different classes are named "),
    "seven long classes": (
        TINY,
        {"classes": [LONG + str(i) for i in range(7)]},
        r"a name has at most 255 bytes$",
    ),
    "a class of half a character": (TINY, named("\ud800"), r"unusable card"),
    "a long size": (TINY, {"size": LONG}, r"size must be one of tiny, paper"),
    "an evil size": (TINY, {"size": EVIL}, r"size must be one of tiny, paper"),
    "an evil option": (TINY, {"options": {EVIL: 1}}, r"has no option"),
    "an option that is none": (TINY, {"options": {"trunk": None}}, r"cannot be built"),
    "a long option": (TINY, {"options": {"trunk": LONG}}, r"trunk must be one of resnet18"),
    "a trunk from a folder": (TINY, {"options": {"trunk": "timm:local-dir:/tmp"}}, r"timm has no network"),
    "a trunk from afar": (TINY, {"options": {"trunk": "timm:hf-hub:a/b"}}, r"timm has no network"),
    "heads in words": (TINY, {"method": "dan", "options": {"num_heads": "four"}}, r"dan cannot be built"),
    "heads below zero": (
        TINY,
        {"method": "dan", "options": {"num_heads": -9}},
        r"num_heads must be at least 1",
    ),
    "one class": (TINY, {"num_classes": True, "classes": ["a"]}, r"at least 2 classes"),
    "colours in a table": (TINY, {"color_order": {}}, r"color_order should be one of"),
}


@pytest.mark.fault("weights of something else")
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("what", FOREIGN)
def test_tensors_and_cards_of_something_else_are_refused_in_one_line(what, tmp_path):
    state, card, expected = FOREIGN[what]
    forged(tmp_path / "weights.safetensors", state, **card)
    with pytest.raises(CheckpointError, match=expected) as refused:
        open_model(tmp_path)
    message = str(refused.value)
    assert message.startswith(str(tmp_path / "weights.safetensors"))
    assert (message.isprintable(), len(message) < 1000) == (True, True)


@pytest.mark.fault("weights of something else")
@pytest.mark.parametrize("half", [True, False])
def test_numbers_that_are_none_are_not_written(half, tmp_path):
    model = create_model("baseline")
    with torch.no_grad():
        next(model.parameters()).mul_(float("nan"))
    with pytest.raises(ValueError, match=r"conv1\.weight has numbers that are not finite"):
        save_model(model, tmp_path / "w.safetensors", half=half)
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------------------------------------------
# Names and places

ABSENT = {
    "a folder with nothing": "empty",
    "the folder one is in": ".",
    "up from a name": "synthetic/../x",
    "up and up": "synthetic/dan/../../x",
    "above": "../synthetic/dan",
    "half a name": "synthetic/",
    "no method": "synthetic/nothing",
    "NUL": "a\0b",
    "control characters": EVIL,
    "half a character": "\ud800",
    "too long a name": "x" * 5000,
    "too long a path": "a/" * 3000,
    "a link to itself": "loop",
    "a link to nothing": "dangling",
    "a run whose weights are a link to themselves": "run",
    "a folder like a file": "folder.safetensors",
    "no name": "",
}


@pytest.mark.fault("weights without a file")
@pytest.mark.parametrize("what", ABSENT)
def test_a_name_without_weights_is_refused_in_one_line(what, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("empty", "folder.safetensors", "run", "synthetic"):
        os.mkdir(name)
    for link, target in (
        ("loop", "loop"),
        ("dangling", "nothing"),
        ("run/weights.safetensors", "weights.safetensors"),
    ):
        os.symlink(target, link)
    with pytest.raises((ValueError, FileNotFoundError), match=r"expected|give a folder") as refused:
        open_model(ABSENT[what])
    message = str(refused.value)
    assert (message.isprintable(), len(message) < 1000) == (True, True)
    assert sorted(os.listdir()) == ["dangling", "empty", "folder.safetensors", "loop", "run", "synthetic"]


@pytest.mark.fault("weights without a file")
def test_no_name_is_not_the_folder_that_one_is_in(tmp_path, monkeypatch):
    save_model(create_model("baseline"), tmp_path / "weights.safetensors")
    monkeypatch.chdir(tmp_path)
    assert open_model(".").name == "baseline"
    with pytest.raises(ValueError, match="the name of the run's folder is empty"):
        open_model("")


@pytest.fixture
def not_root():
    """Root may read everything."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    yield
    if root:
        os.seteuid(0)


@pytest.mark.fault("weights without a file")
@pytest.mark.skipif(os.name != "posix", reason="has other permissions")
@pytest.mark.parametrize("place", ["run", "run/weights.safetensors"])
@pytest.mark.parametrize("closed", ["run", "run/weights.safetensors"])
def test_weights_without_permission_are_refused_in_one_line(place, closed, not_root):
    with tempfile.TemporaryDirectory() as folder:
        save_model(create_model("baseline"), Path(folder, "run", "weights.safetensors"))
        Path(folder, closed).chmod(0)
        with pytest.raises((ValueError, PermissionError), match="Permission denied") as refused:
            open_model(Path(folder, place))
        Path(folder, closed).chmod(0o755)
    assert str(refused.value).isprintable()


# ---------------------------------------------------------------------------------------------------------
# Configs that are damaged

CONFIGS = {
    "no JSON": "{nothing",
    "a list": "[1]",
    "nested deep": "[" * 100_000,
    "no UTF-8": b"\xff\xfe{}",
}
RECIPES = {
    "a text": '"scratch"',
    "epochs in words": '{"epochs": "many"}',
    "epochs in a list": '{"epochs": [1]}',
}


@pytest.mark.fault("config of something else")
@pytest.mark.parametrize("what", CONFIGS)
def test_a_run_with_a_damaged_config_opens_and_the_config_is_named(what, tmp_path):
    save_model(create_model("baseline"), tmp_path / "weights.safetensors")
    text = CONFIGS[what]
    (tmp_path / "config.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    assert open_model(tmp_path).name == "baseline"
    for read in (lambda: photo_overlay.trained_on(tmp_path), lambda: Run(tmp_path).is_finished):
        with pytest.raises(
            ValueError, match=r"config\.json (is damaged|holds a list, expected an object)"
        ) as refused:
            read()
        assert str(refused.value).isprintable()


@pytest.mark.fault("config of something else")
@pytest.mark.parametrize("name", ["config.json", "environment.json"])
def test_a_config_of_megabytes_is_refused_unread(name, tmp_path):
    (tmp_path / name).write_text('{"a": [' + "[]," * 2_000_000 + "[]]}")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=rf"{name} has 6,000,011 bytes, at most 4,194,304 are expected"):
        getattr(Run(tmp_path), name.partition(".")[0])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 10_000  # kB


@pytest.mark.fault("config of something else")
@pytest.mark.parametrize("what", RECIPES)
def test_a_run_whose_config_says_nothing_of_epochs_is_not_finished(what, tmp_path):
    save_model(create_model("baseline"), tmp_path / "weights.safetensors")
    (tmp_path / "config.json").write_text(f'{{"recipe": {RECIPES[what]}, "dataset": [1]}}')
    assert not Run(tmp_path).is_finished
    assert photo_overlay.trained_on(tmp_path) == "[1]"


# ---------------------------------------------------------------------------------------------------------
# No file, and no end

READERS = {
    "read_card": read_card,
    "load_model": load_model,
    "open_model": open_model,
    "load_official": lambda path: load_official(create_model("dan"), path),
    "convert": lambda path: convert(create_model("dan"), path, path.parent / "new.safetensors"),
    "trained_on": photo_overlay.trained_on,
}


@pytest.mark.fault("weights without an end")
@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_file_is_refused_at_once(reader, kind, tmp_path):
    path = tmp_path / "w.safetensors"
    {"pipe": os.mkfifo, "device": lambda path: path.symlink_to("/dev/zero"), "folder": os.mkdir}[kind](path)

    def stuck(*_args):
        pytest.fail("waited, or read on and on")

    signal.signal(signal.SIGALRM, stuck)
    signal.alarm(5)
    try:
        with pytest.raises((ValueError, FileNotFoundError), match="safetensors"):
            READERS[reader](path)
    finally:
        signal.alarm(0)
    assert not (tmp_path / "new.safetensors").exists()


# ---------------------------------------------------------------------------------------------------------
# Other classes than the model's


def faces_of(classes) -> FaceSet:
    n = 4 * len(classes)
    return FaceSet(
        storage=torch.randint(0, 255, (n, 3, 56, 56), dtype=torch.uint8),
        labels=torch.arange(n) % len(classes),
        classes=tuple(classes),
        splits=np.array(["train"] * n),
        subjects=torch.full((n,), -1),
        name="mine",
        fingerprint="mine",
    )


OWN = create_model("baseline").classes
OTHER = {
    "other names": tuple("abcdefg"),
    "another order": OWN[::-1],
    "two exchanged": (OWN[1], OWN[0], *OWN[2:]),
    "one other name": (*OWN[:-1], "fury"),
    "one missing": OWN[:-1],
}


@pytest.mark.fault("other classes than the model's")
@pytest.mark.parametrize("what", OTHER)
def test_other_classes_than_the_models_are_neither_measured_nor_trained_on(what, tmp_path):
    model, right, wrong = create_model("baseline"), faces_of(OWN), faces_of(OTHER[what])
    recipe = model.recipes["smoke"].replace(epochs=1, batch_size=8)
    with pytest.raises(ValueError, match="class"):
        predict(model, wrong)
    with pytest.raises(ValueError, match="class"):
        fit(model, right, wrong, recipe, tmp_path / "run")
    assert not (tmp_path / "run" / "weights.safetensors").exists()


# ---------------------------------------------------------------------------------------------------------
# Written over something else


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.md").write_text("my notes")
    Image.fromarray(astronaut()).save(tmp_path / "her.png")
    return tmp_path


def run(*words):
    return CliRunner().invoke(cli.app, [str(word) for word in words])


@pytest.mark.fault("written over something else")
@pytest.mark.parametrize(
    "words",
    [
        ("train", "baseline", "--faces", "40", "--out", "new", "--ship", "mine.md"),
        ("train", "baseline", "--faces", "40", "--out", "new", "--ship", "mine.safetensors"),
        ("landmarks", "--faces", "64", "--epochs", "1", "--out", "mine.md"),
        ("landmarks", "--faces", "64", "--epochs", "1", "--out", "mine.safetensors"),
        ("landmarks", "--faces", "64", "--epochs", "1"),
        ("convert", "her.png", "mine.md", "--model", "dan"),
        ("predict", "her.png", "--csv", "her.png"),
        ("predict", "her.png", "--csv", "same", "--json", "same"),
        ("data", "render", ".", "--faces", "40"),
    ],
    ids=" ".join,
)
def test_a_name_that_would_take_something_elses_place_is_refused(words, here):
    before = {path.name: path.read_bytes() for path in here.iterdir()}
    assert run(*words).exit_code != 0
    assert {path.name: path.read_bytes() for path in here.iterdir()} == before


@pytest.mark.fault("written over something else")
@pytest.mark.parametrize("kind", ["link to a file", "link to nothing", "file", "folder"])
def test_an_overlay_takes_nothing_elses_place(kind, here):
    taken = here / "out" / "000-her.png"
    taken.parent.mkdir()
    if kind == "file":
        taken.write_text("mine")
    elif kind == "folder":
        taken.mkdir()
    else:
        taken.symlink_to(here / ("mine.md" if kind == "link to a file" else "nothing"))
    done = run("predict", "her.png", "--model", "synthetic/dan", "--out", "out", "--whole")
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in taken.parent.iterdir()) == ["000-her-2.png", "000-her.png"]
    assert (here / "mine.md").read_text() == "my notes"
    assert not (here / "nothing").exists()


@pytest.mark.fault("control characters")
@pytest.mark.skipif(os.name != "posix", reason="names are text elsewhere")
def test_a_name_that_is_no_utf_8_is_written_as_an_escape(here):
    (here / os.fsdecode(b"bad\xff.png")).write_bytes((here / "her.png").read_bytes())
    picture = os.fsdecode(b"bad\xff.png")
    words = ["predict", picture, "--model", "synthetic/dan", "--whole", "--out", "out"]
    done = run(*words, "--csv", "t.csv", "--json", "t.json")
    assert done.exit_code == 0, done.output
    assert "bad\\udcff.png" in (here / "t.csv").read_text()
    assert json.loads((here / "t.json").read_text())["pictures"][0]["file"] == picture


@pytest.mark.fault("written over something else")
@pytest.mark.parametrize("what", ["overlay", "faces"])
def test_what_cannot_be_finished_leaves_nothing(what, here, monkeypatch):
    def full(self, path, *_args, **_kwargs):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("PIL.Image.Image.save", full)
    before = sorted(here.rglob("*"))
    if what == "overlay":
        done = run("predict", "her.png", "--model", "synthetic/dan", "--out", ".", "--whole")
    else:
        done = run("data", "render", "new", "--faces", "20", "--size", "56")
    assert isinstance(done.exception, OSError)
    assert sorted(here.rglob("*")) == before
    assert not list(here.rglob(".*"))


# ---------------------------------------------------------------------------------------------------------
# What a terminal would obey


@pytest.mark.fault("control characters")
def test_no_name_reaches_the_terminal_with_a_character_that_it_obeys(here, monkeypatch, capsys):
    model = create_model("baseline", 2)
    model.classes = (EVIL, "calm")
    folder = here / EVIL.replace("/", "")
    save_model(model, folder / "weights.safetensors", dataset=EVIL)
    picture = here / f"{EVIL}.png"
    Image.fromarray(astronaut()).save(picture)
    (here / "set" / "test" / EVIL).mkdir(parents=True)
    (here / "set" / "train" / EVIL).mkdir(parents=True)
    for split in ("train", "test"):
        Image.new("RGB", (56, 56), "gray").save(here / "set" / split / EVIL / "a.png")
    for words, code in {
        ("predict", picture, "--weights", folder, "--whole"): 0,
        ("evaluate", folder, "--faces", 40): 2,
        ("predict", folder): 2,
        ("data", "check", "folder", here / "set"): 2,
    }.items():
        monkeypatch.setattr("sys.argv", ["fer-lab", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        said = "".join(capsys.readouterr())
        assert (end.value.code, "owned" in said) == (code, True), said
        # Its own lines are the only ones: no name begins another.
        assert said.replace("\n", "").isprintable(), ascii(said)
        assert not any(line.startswith(("\x9b", "31m")) for line in said.split("\n"))
