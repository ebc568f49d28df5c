"""Files, names and values from people who mean harm: refused or taken as text, and nothing of theirs runs."""

import ast
import base64
import io
import json
import os
import pickle
import re
import sys
import zipfile
from pathlib import Path

import nbformat
import numpy as np
import pytest
import safetensors.torch
import torch
from bs4 import BeautifulSoup
from helpers.patterns import Small, patterns
from helpers.small_sets import write_affectnet
from hypothesis import given, settings
from hypothesis import strategies as st
from papermill.translators import PythonTranslator
from PIL import Image

import fer_lab
from fer_lab import cli
from fer_lab._files import write_json
from fer_lab.book.html import write_index, write_page
from fer_lab.book.parameters import native, read_literal
from fer_lab.book.result import NotebookResult
from fer_lab.data.images import DataError
from fer_lab.data.layouts import read_layout
from fer_lab.data.photographs import open_image, open_upload
from fer_lab.explorer import panels
from fer_lab.explorer.controls import available_models
from fer_lab.explorer.widgets import FaceExplorer
from fer_lab.models import Recipe, create_model
from fer_lab.models.authors import load_official
from fer_lab.models.weights import FORMAT, CheckpointError, _digest, load_model, load_weights, save_model
from fer_lab.runs import Predictions, ResultsStore, Run
from fer_lab.runs.environment import environment
from fer_lab.runs.run import open_model
from fer_lab.training.loop import fit

RECIPE = Recipe(epochs=2, batch_size=16, lr=0.05)
EVIL = "<img src=x onerror=alert(1)>\"'<svg/onload=alert(1)></script><script>alert(1)</script>"


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.makedirs, (str(self.target), 0o755, True)


class RecorderPayload(Payload):
    """The same under a name that looks like the recorders in some authors' checkpoints."""


# ---------------------------------------------------------------------------------------------------------
# Files that would run code

FORMATS = {
    "torch, zip": lambda content, path: torch.save(content, path),
    "torch, before zip": lambda content, path: torch.save(content, path, _use_new_zipfile_serialization=False),
    "pickle": lambda content, path: path.write_bytes(pickle.dumps(content)),
    "pickle, protocol 0": lambda content, path: path.write_bytes(pickle.dumps(content, protocol=0)),
}


def put(folder, name):
    folder.mkdir(parents=True, exist_ok=True)
    return folder / name


def resumed(folder):
    torch.manual_seed(0)
    write_json(folder / "environment.json", environment())  # Without it the folder is refused unread.
    fit(create_model("small", 3), patterns(), None, RECIPE, folder)


# What loads a file → (where the file lies in a folder, how it is loaded from that folder).
PATHS = {
    "a run's checkpoint": ("checkpoint.pt", lambda folder: Run(folder).load_checkpoint()),
    "a training that goes on": ("checkpoint.pt", resumed),
    "a run's model": ("weights.safetensors", lambda folder: Run(folder).load_model()),
    "a run's predictions": ("predictions.npz", lambda folder: Run(folder).load_predictions()),
    "load_model": ("x.safetensors", lambda folder: load_model(folder / "x.safetensors")),
    "load_weights": ("x.pt", lambda folder: load_weights(create_model("small", 3), folder / "x.pt")),
    "open_model, a folder": ("weights.safetensors", lambda folder: open_model(folder)),
    "open_model, a file": ("x.pth", lambda folder: open_model(folder / "x.pth")),
    "a run opened in the explorer": ("weights.safetensors", lambda folder: available_models(folder)),
    "an official checkpoint": ("x.pth", lambda folder: load_official(create_model("dan"), folder / "x.pth")),
    "an official safetensors": (
        "x.safetensors",
        lambda folder: load_official(create_model("dan"), folder / "x.safetensors"),
    ),
}


@pytest.mark.fault("code in a file")
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("path", PATHS)
def test_a_file_that_would_run_code_is_refused_wherever_one_is_loaded(tmp_path, path, kind):
    name, load = PATHS[path]
    target, folder = tmp_path / "made by the payload", tmp_path / "run"
    content = {"fer_lab": FORMAT, "identity": {}, "state": Payload(target)}
    content |= {"state_dict": {"features.0.weight": torch.ones(2), "x": Payload(target)}}
    FORMATS[kind](content, put(folder, name))
    with pytest.raises(ValueError, match=re.escape(str(folder / name))):
        load(folder)
    assert not target.exists()
    # It is a live one.
    with open(folder / name, "rb") as file:
        pickle.load(file) if kind.startswith("pickle") else torch.load(file, weights_only=False)
    assert target.exists()


@pytest.mark.fault("code in a file")
@pytest.mark.parametrize("zipped", [True, False])
def test_a_class_called_like_a_recorder_runs_nothing(tmp_path, zipped):
    target, path = tmp_path / "made", tmp_path / "x.pth"
    state = {"state_dict": {"features.0.weight": torch.ones(2)}, "recorder": RecorderPayload(target)}
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"x\.pth cannot be read as a weights-only checkpoint"):
        load_official(create_model("dan"), path)
    assert not target.exists()


def run_cli(monkeypatch, *words) -> int:
    monkeypatch.setattr(sys, "argv", ["fer-lab", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return end.value.code


@pytest.mark.fault("code in a file")
@pytest.mark.parametrize(
    "words",
    [
        ("train", "baseline", "--faces", "40", "--out", "OUT", "--weights", "FILE"),
        ("train", "dan", "--faces", "40", "--out", "OUT", "--trunk", "FILE"),
        ("predict", "PICTURE", "--whole", "--out", "OUT", "--weights", "FILE"),
        ("evaluate", "FILE", "--faces", "40"),
        ("evaluate", "RUN", "--faces", "40"),
    ],
    ids=" ".join,
)
def test_no_option_of_the_command_line_runs_what_a_file_says(tmp_path, monkeypatch, capsys, words):
    target, run = tmp_path / "made by the payload", tmp_path / "run"
    Image.new("RGB", (60, 60), "gray").save(tmp_path / "face.png")
    torch.save({"state_dict": Payload(target)}, put(run, "weights.safetensors"))
    places = {"RUN": run, "FILE": run / "weights.safetensors", "OUT": tmp_path / "out"}
    places["PICTURE"] = tmp_path / "face.png"
    assert run_cli(monkeypatch, *(places.get(word, word) for word in words)) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"fer-lab: {run / 'weights.safetensors'} is not a readable safetensors file")
    assert said.count("\n") == 1
    assert not target.exists()


@pytest.mark.fault("code in a file")
def test_annotations_and_predictions_with_objects_are_refused(tmp_path):
    root = write_affectnet(tmp_path / "set")
    target = tmp_path / "made"
    np.save(
        root / "val_set/annotations/3_exp.npy", np.array([Payload(target)], dtype=object), allow_pickle=True
    )
    with pytest.raises(DataError, match=r"3_exp\.npy is not an array of one number"):
        read_layout("affectnet", root)
    (root / "val_set/annotations/3_exp.npy").write_bytes(pickle.dumps(Payload(target)))
    with pytest.raises(DataError, match=r"3_exp\.npy is not an array of one number"):
        read_layout("affectnet", root)
    path = tmp_path / "p.npz"
    np.savez(path, probabilities=np.array([Payload(target)], dtype=object), labels=[0], classes=["a"])
    with pytest.raises(ValueError, match=r"p\.npz is no readable file of predictions"):
        Predictions.load(path)
    assert not target.exists()


@pytest.mark.fault("code in a file")
def test_a_results_store_with_objects_is_refused(tmp_path):
    store = ResultsStore(tmp_path)
    row = dict.fromkeys(store.RUNS, "x") | {"seed": 0, "minutes": 1.0}
    (tmp_path / "runs.csv").write_text(",".join(row) + "\n" + ",".join(map(str, row.values())) + "\n")
    np.savez(
        put(tmp_path / "predictions", "x-x.npz"),
        **{"x/classes": np.array([Payload(tmp_path / "made")], dtype=object)},
    )
    with pytest.raises(ValueError, match=r"x-x\.npz is no readable file of predictions"):
        store.answers("x")
    assert not (tmp_path / "made").exists()


# Calls that run what they are given, unless told not to: call → the option, its value, what it is if absent.
RUNNING = {
    "torch.load": ("weights_only", "True", "absent"),
    "np.load": ("allow_pickle", "False", "False"),
    "pickle.load": None,
    "pickle.loads": None,
    "pickle.Unpickler": None,
    "joblib.load": None,
    "yaml.load": None,
    "pd.read_pickle": None,
    "eval": None,
    "exec": None,
    "os.system": None,
}


@pytest.mark.fault("code in a file")
def test_the_package_calls_nothing_that_runs_a_file():
    found, seen = [], set()
    for path in Path(fer_lab.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or (name := ast.unparse(node.func)) not in RUNNING:
                continue
            seen.add(name)
            options = {one.arg: ast.unparse(one.value) for one in node.keywords}
            option, wanted, default = RUNNING[name] or ("", "none is safe", "")
            if options.get(option, default) != wanted:
                found.append(f"{path.name}, line {node.lineno}: {ast.unparse(node)}")
    assert found == []
    assert seen == {"torch.load", "np.load"}


# ---------------------------------------------------------------------------------------------------------
# Files that lie


def safetensors_of(header: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    return (len(header) if length is None else length).to_bytes(8, "little") + header + data


def entry(shape, offsets, dtype="F32") -> bytes:
    return json.dumps({"w": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}).encode()


LIES = {
    "no byte": b"",
    "half a length": b"\x10\0\0",
    "a header of 2^63 bytes": safetensors_of(b"{}", length=2**63),
    "a header of 2^64 - 1 bytes": safetensors_of(b"{}", length=2**64 - 1),
    "a header longer than the file": safetensors_of(b"{}", length=5000),
    "a header that is no JSON": safetensors_of(b"{nothing"),
    "a header that is a list": safetensors_of(b"[1]"),
    "a header nested 100,000 deep": safetensors_of(b'{"a":' * 100_000),
    "data beyond the file": safetensors_of(entry([1000], [0, 4000])),
    "an end before its start": safetensors_of(entry([1], [4, 0]), bytes(8)),
    "offsets below zero": safetensors_of(entry([1], [-4, 0]), bytes(8)),
    "a shape that is not the data's": safetensors_of(entry([10**6], [0, 4]), bytes(4)),
    "a shape that overflows": safetensors_of(entry([2**62, 2**62], [0, 4]), bytes(4)),
    "a type that does not exist": safetensors_of(entry([1], [0, 4], "F31"), bytes(4)),
    "bytes that nobody owns": safetensors_of(entry([1], [0, 4]), bytes(400)),
}


@pytest.mark.fault("lying file")
@pytest.mark.parametrize("lie", LIES)
def test_a_safetensors_header_that_lies_is_refused(tmp_path, lie):
    path = tmp_path / "w.safetensors"
    path.write_bytes(LIES[lie])
    with pytest.raises(CheckpointError, match=r"w\.safetensors is not a readable safetensors file"):
        load_model(path)
    with pytest.raises(ValueError, match=r"w\.safetensors cannot be read as a weights-only checkpoint"):
        load_official(create_model("dan"), path)


def card_of(path, **changes):
    """Rewrite the card in a file of weights, and sign it as whoever forges it would."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    card = json.loads(header["__metadata__"]["fer_lab"]) | changes
    card["sha256"] = _digest(card, safetensors.torch.load(data))
    header["__metadata__"]["fer_lab"] = json.dumps(card)
    path.write_bytes(safetensors_of(json.dumps(header).encode(), data[8 + size :]))


CARDS = {
    "a billion classes": {"num_classes": 10**9},
    "a billion heads": {"options": {"num_heads": 10**9}},
    "heads inside a list": {"options": {"num_heads": [10**9]}},
    "infinitely many heads": {"options": {"num_heads": float("inf")}},
    "a method from elsewhere": {"method": "os:system"},
    "a method by a path": {"method": "../../evil"},
    "another class count": {"num_classes": 3, "classes": ["a", "b", "c"]},
    "a list for a card": {"format": [1]},
    "a size that is none": {"size": "gigantic"},
    "options that are a text": {"options": "num_heads=4"},
}


@pytest.mark.fault("lying file")
@pytest.mark.parametrize("lie", CARDS)
def test_a_card_that_lies_is_refused_before_anything_large_is_built(tmp_path, lie):
    path = tmp_path / "w.safetensors"
    save_model(create_model("dan"), path)
    card_of(path, **CARDS[lie])
    with pytest.raises(CheckpointError, match=r"w\.safetensors"):
        load_model(path)


def state_of(folder) -> dict:
    torch.manual_seed(0)
    fit(create_model("small", 3), patterns(), None, RECIPE.replace(epochs=1), folder)
    return Run(folder).load_checkpoint()


WRONG_STATES = {
    "nothing in it": lambda state: {},
    "no identity": lambda state: {key: value for key, value in state.items() if key != "identity"},
    "an identity that is a number": lambda state: state | {"identity": 3},
    "no weights": lambda state: {key: value for key, value in state.items() if key != "model"},
    "weights of another shape": lambda state: (
        state | {"model": {key: torch.zeros(2, 2) for key in state["model"]}}
    ),
    "weights that are a text": lambda state: state | {"model": "weights"},
    "an optimiser of another model": lambda state: state | {"optimizer": {"state": {}, "param_groups": []}},
    "no schedule": lambda state: state | {"schedule": None},
    "an epoch that was not": lambda state: state | {"epoch": 7},
    "a history of numbers": lambda state: state | {"history": [1]},
}


@pytest.mark.fault("lying file")
@pytest.mark.parametrize("lie", WRONG_STATES)
def test_a_whole_checkpoint_of_something_else_is_named(tmp_path, lie):
    state = state_of(tmp_path)
    Run(tmp_path).save_checkpoint(WRONG_STATES[lie](state))
    torch.manual_seed(0)
    with pytest.raises(
        CheckpointError, match=r"checkpoint\.pt does not fit .*delete it to train from the start"
    ):
        fit(create_model("small", 3), patterns(), None, RECIPE.replace(epochs=1), tmp_path)


@pytest.mark.fault("lying file")
def test_any_bytes_are_a_checkpoint_or_the_one_error(tmp_path_factory):
    folder = tmp_path_factory.mktemp("any")
    whole = (Run(folder), state_of(folder))[0].folder.joinpath("checkpoint.pt").read_bytes()
    weights = folder.joinpath("weights.safetensors").read_bytes()

    @settings(max_examples=60, deadline=None)
    @given(st.integers(0, len(whole) - 1), st.binary(max_size=8), st.integers(0, 400))
    def change(place, added, cut):
        for name, data in (("checkpoint.pt", whole), ("weights.safetensors", weights)):
            at = place % len(data)
            (folder / name).write_bytes(data[:at] + added + data[at + cut :])
        for load in (Run(folder).load_checkpoint, Run(folder).load_model):
            try:
                found = load()
            except CheckpointError as error:
                assert str(folder) in str(error)  # noqa: PT017 both ends are right
            else:
                # What passes is unharmed: the change was none, or in what zip keeps twice.
                assert isinstance(found, Small) or found["epoch"] == 1

    change()


# ---------------------------------------------------------------------------------------------------------
# Small files that unpack to large ones


def zeros(path, name: str, size: int, header: bytes = b"") -> None:
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open(name, "w", force_zip64=True) as f,
    ):
        f.write(header)
        for _ in range(size // 2**20):
            f.write(bytes(2**20))


@pytest.mark.fault("bomb")
def test_a_checkpoint_that_unpacks_to_far_more_is_refused_unopened(tmp_path):
    zeros(tmp_path / "x.pth", "archive/data/0", 200 * 2**20)
    with pytest.raises(ValueError, match="compressed, which torch does not do"):
        load_official(create_model("dan"), tmp_path / "x.pth")
    zeros(tmp_path / "checkpoint.pt", "archive/data/0", 200 * 2**20)
    with pytest.raises(CheckpointError, match="compressed, so not written here"):
        Run(tmp_path).load_checkpoint()


def npy_header(shape: str) -> bytes:
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({shape},), }}".encode()
    return b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + text.ljust(117) + b"\n"


@pytest.mark.fault("bomb")
@pytest.mark.parametrize(
    "header", [npy_header(str(10**15)), b"\x93NUMPY\x01\x00\x08\x00((((((((", npy_header("-1")]
)
def test_predictions_whose_header_lies_are_refused(tmp_path, header):
    path = tmp_path / "p.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("probabilities", "labels", "classes", "name", "fingerprint", "rows"):
            archive.writestr(f"{name}.npy", header)
    with pytest.raises(ValueError, match=r"p\.npz is no readable file of predictions"):
        Predictions.load(path)


@pytest.mark.fault("bomb")
def test_predictions_that_unpack_to_far_more_are_refused(tmp_path, monkeypatch):
    zeros(tmp_path / "p.npz", "probabilities.npy", 8 * 2**20)
    monkeypatch.setattr("fer_lab.runs.predictions.MAX_BYTES", 2**20)
    with pytest.raises(ValueError, match=r"8,388,608 bytes when unpacked, at most 1,048,576 are expected"):
        Predictions.load(tmp_path / "p.npz")


@pytest.mark.fault("bomb")
@pytest.mark.parametrize("kind", ["PNG", "GIF", "WEBP", "TIFF"])
def test_an_upload_that_unpacks_to_far_more_is_refused(kind):
    buffer = io.BytesIO()
    side = (16_000, 5_000)
    options = {"TIFF": {"compression": "tiff_adobe_deflate"}, "WEBP": {"lossless": True, "method": 0}}
    Image.new("L" if kind != "WEBP" else "RGB", side).save(buffer, kind, **options.get(kind, {}))
    assert buffer.tell() < 2**20
    with pytest.raises(DataError, match=r"more than the 40,000,000 pixels|is a TIFF picture"):
        open_upload(buffer.getvalue(), "face")
    with pytest.raises(DataError, match="more than the 50,000,000 pixels"):
        open_image(buffer.getvalue())


# ---------------------------------------------------------------------------------------------------------
# Values that would be code


@pytest.mark.fault("code in a value")
@settings(max_examples=200, deadline=None)
@given(st.text())
def test_any_text_arrives_in_a_notebook_as_that_text(text):
    source = PythonTranslator.codify({"name": native("name", text, "")})
    (assignment,) = ast.parse(source).body
    assert isinstance(assignment, ast.Assign)
    assert [target.id for target in assignment.targets] == ["name"]
    assert ast.literal_eval(assignment.value) == text


VALUES = (
    "\"'''\n\\ {x} \"; import os; os.abort()",
    '"""\nimport os\nos.abort()\n"""',
    "\\",
    "\\'",
    "a\r\nb\u2028c\x00d",
    "${HOME} $(id) `id` %s",
)


@pytest.mark.fault("code in a value")
@pytest.mark.parametrize("value", [[v] for v in VALUES] + [{v: v} for v in VALUES[:3]], ids=ascii)
def test_texts_in_lists_and_tables_arrive_as_they_are(value):
    (assignment,) = ast.parse(PythonTranslator.codify({"name": native("name", value, type(value)())})).body
    assert ast.literal_eval(assignment.value) == value


@pytest.mark.fault("code in a value")
@pytest.mark.parametrize(
    "text",
    [
        "-" * 100_000 + "1",
        "(" * 100_000,
        "[" * 5000 + "]" * 5000,
        "{[]: 1}",
        "9" * 5000,
        "__import__('os').abort()",
    ],
    ids=lambda text: text[:8],
)
def test_a_value_that_no_parser_stands_is_text_or_refused(text):
    assert read_literal(text) == text
    for default in (0.1, 0, True, [0]):
        with pytest.raises(ValueError, match="parameter x takes"):
            native("x", text, default)


@pytest.mark.fault("code in a value")
def test_a_number_too_large_for_a_float_is_refused():
    with pytest.raises(ValueError, match="parameter x takes float"):
        native("x", "1" + "0" * 400, 0.1)


@pytest.mark.fault("code in a value")
@pytest.mark.parametrize(
    "word", ["x\nimport os=1", "x;import os=1", "x =1", "=1", "os.system('id')=1", "a b=1"]
)
def test_a_name_on_the_command_line_is_a_name(monkeypatch, capsys, word):
    assert run_cli(monkeypatch, "reproduce", "-p", word) == 2
    assert "name=value" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------------------
# Names that would be HTML


def assert_harmless(page: str) -> None:
    """No element that a name brought, none of its handlers; what it says is there as text."""
    soup = BeautifulSoup(page, "html.parser")
    assert not soup.find_all(["script", "svg", "iframe"])
    for tag in soup.find_all(True):
        assert not [name for name in tag.attrs if name.startswith("on")], tag
    assert not soup.find_all("img", src="x")
    assert "alert(1)" in page


@pytest.mark.fault("HTML in a name")
def test_names_of_models_and_classes_are_text_in_the_explorer():
    model = create_model("baseline", 3).eval()
    model.classes = (EVIL, EVIL + "2", EVIL + "3")
    view = panels.face_panel(panels.FaceState(), {EVIL: model})
    assert_harmless(view.text)
    assert EVIL in view.words
    explorer = FaceExplorer({EVIL: model})
    assert_harmless(explorer.text.value)
    # A checkbox shows its description as text unless it is told to allow HTML.
    assert not any(box.description_allow_html for box in explorer.chosen.values())


@pytest.mark.fault("HTML in a name")
def test_what_a_widget_complains_of_is_text(tmp_path):
    explorer = FaceExplorer({"a": create_model("baseline", 3).eval()})
    explorer.run.value = str(tmp_path / EVIL.replace("/", ""))
    explorer.open_run.click()
    assert "does not exist" in explorer.note.value
    assert_harmless(explorer.note.value)
    explorer._complain(f"face {EVIL} is empty")
    assert_harmless(explorer.note.value)


@pytest.mark.fault("HTML in a name")
def test_titles_numbers_and_errors_are_text_on_the_first_page(tmp_path):
    result = NotebookResult(
        "00_a", title=EVIL, error=EVIL, headline={EVIL: EVIL}, page=str(tmp_path / "a'\"<b>.html")
    )
    write_index(tmp_path / "index.html", [result], EVIL)
    assert_harmless((tmp_path / "index.html").read_text(encoding="utf-8"))


@pytest.mark.fault("HTML in a name")
def test_what_a_cell_prints_is_text_on_its_page(tmp_path):
    png = io.BytesIO()
    Image.new("RGB", (8, 8)).save(png, "PNG")
    picture = {"image/png": base64.b64encode(png.getvalue()).decode()}
    new = nbformat.v4.new_output
    outputs = [
        new("stream", name="stdout", text=EVIL),
        new("execute_result", {"text/plain": EVIL}),
        new("error", ename=EVIL, evalue=EVIL, traceback=[EVIL]),
        new("display_data", picture, metadata={"image/png": {"alt": EVIL}}),
    ]
    cell = nbformat.v4.new_code_cell(f"x = {EVIL!r}", outputs=outputs)
    write_page(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "page.html", tmp_path)
    assert_harmless((tmp_path / "page.html").read_text(encoding="utf-8"))
