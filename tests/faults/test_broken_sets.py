"""Every reader against every broken or odd file: a right read, or an error that names the file."""

import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.broken_sets import BROKEN, ESCAPES, FOLDERS, LABELS, PICTURES, READABLE, TEXTS, encoded, gradient
from helpers.small_sets import picture, write_folder
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_lab.data.datasets import check_dataset, load_dataset
from fer_lab.data.images import DataError
from fer_lab.data.layouts import read_layout
from fer_lab.data.photographs import open_upload

pytestmark = pytest.mark.fault("bad data")
GRADIENT = torch.from_numpy(np.asarray(gradient()).transpose(2, 0, 1).copy()).int()


def attempt(name, root, read=load_dataset, **options):
    """(what was read, ""), or (None, the message of a DataError)."""
    try:
        return read(name, root, **options), ""
    except DataError as error:
        return None, str(error)


def first_picture(name, root) -> Path:
    return Path(read_layout(name, root).sources[0].path)


@pytest.mark.parametrize("layout", FOLDERS)
@pytest.mark.parametrize("kind", READABLE)
def test_an_odd_picture_is_read_right(tmp_path, layout, kind):
    name, write = FOLDERS[layout]
    root = write(tmp_path / "set")
    path = first_picture(name, root)
    PICTURES[kind].make(path)
    faces = load_dataset(name, root, size=12)
    assert (faces.images[0].int() - GRADIENT).abs().max() <= 8
    assert not check_dataset(name, root).bad


@pytest.mark.parametrize("layout", FOLDERS)
@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_picture_is_named_and_can_be_left_out(tmp_path, layout, kind):
    name, write = FOLDERS[layout]
    root = write(tmp_path / "set")
    path = first_picture(name, root)
    labels = load_dataset(name, root, size=12).labels
    PICTURES[kind].make(path)
    if kind == "a folder" and layout in ("affectnet", "sfew", "folder"):
        # Where the folders are the list, it is no picture but a folder too many, or a class without a face.
        found, error = attempt(name, root, size=12)
        assert str(root) in error if found is None else torch.equal(found.labels, labels[1:])
        return
    if kind == "two links in a circle" and layout in ("affectnet", "sfew", "folder"):
        # The other link is a picture too many, by its name.
        path.with_name("loop" + path.suffix).unlink()
    with pytest.raises(DataError) as caught:
        load_dataset(name, root, size=12)
    said = str(caught.value)
    assert path.name in said
    assert PICTURES[kind].error in said
    assert "skip_bad=True" in said
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        left = load_dataset(name, root, size=12, skip_bad=True)
    assert torch.equal(left.labels, labels[1:])
    assert any("1 of" in str(one.message) and path.name in str(one.message) for one in warned)
    (bad,) = check_dataset(name, root).bad
    assert path.name in bad


@pytest.mark.parametrize("layout", LABELS)
@pytest.mark.parametrize("kind", [kind for kind, text in TEXTS.items() if text.readable])
def test_an_odd_label_file_is_read_as_it_was_meant(tmp_path, layout, kind):
    name, write, file = LABELS[layout]
    plain, odd = write(tmp_path / "plain"), write(tmp_path / "odd")
    (odd / file).write_bytes(TEXTS[kind].change((odd / file).read_bytes()))
    expected, found = (load_dataset(name, root) for root in (plain, odd))
    assert torch.equal(found.labels, expected.labels)
    assert torch.equal(found.images, expected.images)
    assert list(found.splits) == list(expected.splits)


@pytest.mark.parametrize("layout", LABELS)
@pytest.mark.parametrize("kind", [kind for kind, text in TEXTS.items() if not text.readable])
def test_a_broken_label_file_is_an_error_that_names_it(tmp_path, layout, kind):
    name, write, file = LABELS[layout]
    root = write(tmp_path / "set")
    path = root / file
    before = load_dataset(name, root)
    path.write_bytes(TEXTS[kind].change(path.read_bytes()))
    found, error = attempt(name, root)
    if found is None:
        assert str(root) in error
    else:
        # Kaggle's column of FER2013's own labels is not read, so nothing in it does harm.
        assert layout == "kaggle pixels"
        assert torch.equal(found.labels, before.labels)
        assert torch.equal(found.images, before.images)
    assert not (tmp_path / "cache").exists() or not list((tmp_path / "cache").glob(".*part*"))


@pytest.mark.parametrize("layout", ["ferplus", "rafdb", "affectnet list", "affectnet list, no header"])
@pytest.mark.parametrize("escape", ESCAPES)
def test_a_list_leads_nowhere_outside_its_folder(tmp_path, layout, escape):
    name, write, file = LABELS[layout]
    root = write(tmp_path / "set")
    picture(tmp_path / "outside.png", 200)
    *lines, last = (root / file).read_text().rstrip("\n").split("\n")
    cut = " " if layout == "rafdb" else ","
    # RAF-DB's names begin with their split.
    bad = f"train_{escape}" if layout == "rafdb" and escape.startswith("a/") else escape
    (root / file).write_text("\n".join([*lines, bad + cut + last.partition(cut)[2]]) + "\n")
    with pytest.raises(DataError, match=r"line \d+.*expected a file name below the data set's folder"):
        load_dataset(name, root)


NAMES = ("with space", "Ünïcode 表情", "a'b\"c;$(x)", "emoji 🙂", "<b>bold<b>", "-rf", "%s {x}", "New\nline")


@pytest.mark.parametrize("word", NAMES)
def test_names_of_every_kind_are_names(tmp_path, word):
    root = write_folder(tmp_path / word, ("anger", "fear"))
    for split in ("train", "val"):
        (root / split / "anger" / "a.png").rename(root / split / "anger" / f"{word}.png")
    faces = load_dataset("folder", root)
    assert faces.files[0] == f"train/anger/{word}.png"
    assert check_dataset("folder", root).counts["train"] == {"anger": 1, "fear": 1}


def test_a_folder_that_contains_itself_ends(tmp_path):
    root = write_folder(tmp_path / "set", ("anger", "fear"))
    (root / "train" / "anger" / "again").symlink_to(root, target_is_directory=True)
    (root / "test").symlink_to(root, target_is_directory=True)
    with pytest.raises(DataError, match=r"test/(train|test) holds no picture"):
        load_dataset("folder", root)


@pytest.mark.parametrize("cached", [True, False])
def test_the_same_face_in_two_splits_is_a_warning_with_its_count(tmp_path, cached):
    root = write_folder(tmp_path / "set", ("anger", "fear"))
    for i, split in enumerate(("train", "val")):
        for j, name in enumerate(("anger", "fear")):
            picture(root / split / name / "a.png", 40 * i + 90 * j)
    load_dataset("folder", root, cache=cached)
    for name in ("copy.png", "other.png"):
        shutil.copy(root / "train" / "anger" / "a.png", root / "val" / "anger" / name)
    # Within a split a copy leaks nothing.
    shutil.copy(root / "train" / "fear" / "a.png", root / "train" / "fear" / "b.png")
    for _ in range(2):
        with pytest.warns(UserWarning, match=r"^pictures of folder .* more than one split, byte for byte: 1;"):
            load_dataset("folder", root, cache=cached)
    assert check_dataset("folder", root).leaked == 1


@pytest.mark.parametrize("layout", ["ferplus", "kaggle votes", "rafdb"])
def test_a_pipe_in_a_label_files_place_is_not_waited_for(tmp_path, layout):
    name, write, file = LABELS[layout]
    root = write(tmp_path / "set")
    (root / file).unlink()
    os.mkfifo(root / file)
    with pytest.raises(DataError):
        read_layout(name, root)


def test_a_pipe_in_an_annotations_place_is_not_waited_for(tmp_path):
    name, write = FOLDERS["affectnet"]
    root = write(tmp_path / "set")
    path = next((root / "train_set" / "annotations").iterdir())
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(DataError, match="is not a regular file"):
        read_layout(name, root)


@pytest.mark.parametrize("word", ["\x1b[31mred", "$a$", "bell\x07"])
def test_a_class_that_no_figure_and_no_terminal_should_show_is_refused(tmp_path, word):
    root = write_folder(tmp_path / "set", ("one", word))
    with pytest.raises(DataError, match="rename them") as caught:
        read_layout("folder", root)
    assert str(caught.value).isprintable()


def test_a_name_cannot_colour_the_terminal(tmp_path):
    root = write_folder(tmp_path / "set", ("anger", "fear"))
    (root / "train" / "anger" / "\x1b[2J.png").write_text("no picture")
    with pytest.raises(DataError) as caught:
        load_dataset("folder", root)
    assert "\\x1b[2J.png is not a picture" in str(caught.value)


def test_a_telephones_picture_with_a_second_one_behind_it_is_read():
    second = gradient((20, 20))
    data = encoded(gradient((64, 64)), "MPO", save_all=True, append_images=[second], quality=95)
    assert open_upload(data).size == (64, 64)


@pytest.mark.parametrize("layout", LABELS)
def test_whatever_stands_in_a_label_file_is_faces_or_the_one_error(tmp_path_factory, layout):
    name, write, file = LABELS[layout]
    root = write(tmp_path_factory.mktemp("any") / "set")
    whole = (root / file).read_bytes()

    @settings(max_examples=60, deadline=None)
    @given(st.integers(0, len(whole) - 1), st.binary(max_size=6), st.integers(0, 4))
    def change(place, put, cut):
        (root / file).write_bytes(whole[:place] + put + whole[place + cut :])
        listing, error = attempt(name, root, read_layout)
        if listing is None:
            assert str(root) in error
        else:
            assert 0 <= listing.labels.min() <= listing.labels.max() < len(listing.classes)
            assert set(listing.splits) <= {"train", "valid", "test"}
            assert all(Path(one.path).resolve().is_relative_to(root.resolve()) for one in listing.sources)

    change()
