"""SFEW 2.0 and folders of any classes."""

import pytest
from helpers import small_sets
from helpers.small_sets import counts, named

from fer_lab.data.expressions import CANONICAL
from fer_lab.data.images import DataError
from fer_lab.data.layouts import read_layout


def test_sfew_folders(tmp_path):
    listing = read_layout("sfew", small_sets.write_sfew(tmp_path))
    words = ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")
    assert named(listing) == {
        f"{split}/{folder}/scene 1.png": word
        for split in ("Train", "Val")
        for folder, word in zip(small_sets.SFEW_FOLDERS, words, strict=True)
    }
    assert listing.classes == CANONICAL[:7]
    assert counts(listing) == {"train": 7, "valid": 7}


def test_folder_names_become_expressions_in_canonical_order(tmp_path):
    listing = read_layout("folder", small_sets.write_folder(tmp_path, ("Happy", "ANGER", "sad")))
    assert listing.classes == ("happiness", "sadness", "anger")
    assert named(listing)["train/ANGER/a.png"] == "anger"
    assert counts(listing) == {"train": 3, "valid": 3}


def test_other_folder_names_are_classes_of_their_own(tmp_path):
    listing = read_layout("folder", small_sets.write_folder(tmp_path, ("10", "2", "happy", "ü x")))
    assert listing.classes == ("2", "10", "happy", "ü x")
    assert named(listing)["val/10/a.png"] == "10"


def test_seven_classes_leave_contempt_out_of_a_folder(tmp_path):
    listing = read_layout("folder", small_sets.write_folder(tmp_path, CANONICAL), 7)
    assert listing.classes == CANONICAL[:7]
    assert listing.left_out == {"contempt": 2}
    assert len(listing) == 14


def test_files_that_are_no_pictures_are_noted(tmp_path):
    small_sets.write_folder(tmp_path, ("happy", "sad"))
    (tmp_path / "train" / "sad" / "Thumbs.db").write_bytes(b"x")
    assert read_layout("folder", tmp_path).notes == ["1 other files are not pictures, judged by their names"]


def emptied(folder):
    def change(root):
        for file in (root / folder).iterdir():
            file.unlink()

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: (root / "Val/Angry").rename(root / "Val/Bored"), "name no expression: Bored"),
        (emptied("Train/Fear"), "Train/Fear holds no picture"),
        (
            lambda root: (root / "Train").rename(root / "Images") and (root / "Val").rename(root / "b"),
            "named train",
        ),
    ],
)
def test_what_is_wrong_is_named(tmp_path, change, message):
    small_sets.write_sfew(tmp_path)
    change(tmp_path)
    with pytest.raises(DataError, match=message):
        read_layout("sfew", tmp_path)
