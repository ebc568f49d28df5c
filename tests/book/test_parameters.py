"""Choosing notebooks, reading their parameters, turning text into a parameter's type, laying notebooks out."""

import re
from pathlib import Path

import nbformat
import pytest
from helpers.shelf import NASTY, PARAMETERS, write_notebook

from fer_lab.book import parameters
from fer_lab.book.parameters import STANDARD, lay_out, notebooks_folder, read_parameters, select_notebooks


@pytest.mark.parametrize(
    ("wanted", "stems"),
    [
        (None, ["00_start", "02_dan", "03_next"]),
        (["03", "00"], ["00_start", "03_next"]),
        (["02_dan", " 02", "02_dan.ipynb"], ["02_dan"]),
    ],
)
def test_notebooks_come_in_reading_order(shelf, wanted, stems):
    assert [path.stem for path in select_notebooks(wanted, shelf)] == stems


def test_an_unknown_notebook_is_refused_and_the_known_are_listed(shelf):
    with pytest.raises(ValueError, match="no notebook 07, dan; there are 00_start, 02_dan, 03_next"):
        select_notebooks(["07", "02", "dan"], shelf)


def test_parameters_are_read_with_their_defaults(tmp_path):
    path = write_notebook(
        tmp_path, "00_a", parameters=PARAMETERS + "\nlr: float = 1e-3\nheads = [1, 2]  # a list"
    )
    found = read_parameters(path)
    assert found == {
        "profile": "smoke",
        "dataset": "synthetic",
        "data_root": "",
        "seed": 0,
        "run_dir": "",
        "lr": 1e-3,
        "heads": [1, 2],
    }


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ("profile = 'smoke'\nseed = 0", "no parameter dataset, data_root, run_dir"),
        (PARAMETERS + "\nlr = 1 / 3", "line 6: expected `name = literal`, got 'lr = 1 / 3'"),
        (PARAMETERS + "\na = b = 1", "line 6"),
        (PARAMETERS + "\nprint()", "line 6"),
        (PARAMETERS + "\nseed += 1", "line 6"),
        (PARAMETERS + "\nlr: float", "line 6"),
    ],
)
def test_a_cell_of_parameters_that_cannot_be_set_is_refused(tmp_path, parameters, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        read_parameters(write_notebook(tmp_path, "00_a", parameters=parameters))


def test_a_notebook_without_parameters_or_without_cells_is_refused(tmp_path):
    path = tmp_path / "00_a.ipynb"
    nbformat.write(nbformat.v4.new_notebook(), path)
    with pytest.raises(ValueError, match="one cell tagged 'parameters', it has 0"):
        read_parameters(path)
    path.write_text("{ nothing")
    with pytest.raises(ValueError, match=r"00_a\.ipynb is not a readable notebook"):
        read_parameters(path)


@pytest.mark.parametrize(
    ("value", "default", "native"),
    [
        ("1e-4", 0.1, 1e-4),
        ("3", 0.1, 3.0),
        (3, 0.1, 3.0),
        ("7", 0, 7),
        ("true", False, True),
        ("False", True, False),
        ("[1, 2]", [0], [1, 2]),
        ((1, 2), (0,), [1, 2]),
        (NASTY, "", NASTY),
        ("5", "text", "5"),
        (Path("a b"), "", "a b"),
        ("anything", None, "anything"),
    ],
)
def test_values_arrive_in_the_type_of_the_default(value, default, native):
    found = parameters.native("x", value, default)
    assert found == native
    assert type(found) is type(native)


@pytest.mark.parametrize(("value", "default"), [("1.5", 0), ("x", 0.1), (1, True), ("1", False), (3, "text")])
def test_values_of_another_type_are_refused(value, default):
    with pytest.raises(ValueError, match=f"parameter x takes {type(default).__name__}"):
        parameters.native("x", value, default)


def test_lay_out_copies_notebooks_and_overwrites_nothing(shelf, tmp_path, monkeypatch):
    monkeypatch.setattr("fer_lab.book.parameters.notebooks_folder", lambda: shelf)
    (shelf / "README.md").write_text("for teachers; [numbers](../docs/numbers.md)")
    (shelf.parent / "docs").mkdir()
    document = "[DAN](../notebooks/02_dan.ipynb), größer\n![a chart](../figures/a.png)"
    (shelf.parent / "docs" / "numbers.md").write_text(document)
    assert [path.relative_to(tmp_path / "mine").as_posix() for path in lay_out(tmp_path / "mine")] == [
        "00_start.ipynb",
        "02_dan.ipynb",
        "03_next.ipynb",
        "README.md",
        "docs/numbers.md",
    ]
    assert (tmp_path / "mine" / "README.md").read_text() == "for teachers; [numbers](docs/numbers.md)"
    assert (tmp_path / "mine" / "docs" / "numbers.md").read_text() == "[DAN](../02_dan.ipynb), größer\na chart"
    (tmp_path / "mine" / "00_start.ipynb").write_text("my own")
    (tmp_path / "mine" / "02_dan.ipynb").unlink()
    with pytest.raises(FileExistsError, match=r"already has 00_start.ipynb, 03_next.ipynb, README.md, docs"):
        lay_out(tmp_path / "mine")
    assert (tmp_path / "mine" / "00_start.ipynb").read_text() == "my own"
    assert not (tmp_path / "mine" / "02_dan.ipynb").exists()


def test_every_notebook_of_the_book_has_the_standard_parameters():
    paths = select_notebooks(folder=notebooks_folder())
    assert paths[0].name == "00_start_here.ipynb"
    for path in paths:
        defaults = read_parameters(path)
        assert [defaults[name] for name in STANDARD] == ["smoke", "synthetic", "", 0, ""], path.name
