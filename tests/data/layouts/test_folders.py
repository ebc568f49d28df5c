"""SFEW 2.0 and folders of any classes."""

import pytest
from helpers import small_sets
from helpers.small_sets import counts, named

from fer_lab.data.expressions import CANONICAL, numbers_of
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
    listing = read_layout("folder", small_sets.write_folder(tmp_path, ("a10", "a2", "happy", "ü x")))
    assert listing.classes == ("a2", "a10", "happy", "ü x")
    assert named(listing)["val/a10/a.png"] == "a10"


@pytest.mark.parametrize("names", [("1", "2", "3"), ("10", "happy")])
def test_numbers_are_no_class_names(tmp_path, names):
    small_sets.write_folder(tmp_path, names)
    with pytest.raises(DataError, match=r"named by numbers: 1.*order='rafdb' \(--faces-order rafdb; one of"):
        read_layout("folder", tmp_path)


@pytest.mark.parametrize(("order", "count"), [("rafdb", 7), ("affectnet", 8), ("fer2013", 7)])
def test_numbers_are_read_in_the_order_of_a_data_set(tmp_path, order, count):
    listing = read_layout("folder", small_sets.write_numbered(tmp_path, order, ("train", "val")), order=order)
    assert listing.classes == CANONICAL[:count]
    expected = {
        f"{split}/{number}/{split}_{number}_0.png": name
        for split in ("train", "val")
        for number, name in numbers_of(order).items()
    }
    assert named(listing) == expected


def test_numbers_of_another_data_set_are_refused(tmp_path):
    small_sets.write_numbered(tmp_path / "raf", "rafdb", ("train",))
    with pytest.raises(DataError, match="class folders 7; the numbers of fer2013 run from 0 to 6"):
        read_layout("folder", tmp_path / "raf", order="fer2013")
    (tmp_path / "raf" / "train" / "1").rename(tmp_path / "raf" / "train" / "happy")
    with pytest.raises(DataError, match="class folders happy; the numbers of rafdb run from 1 to 7"):
        read_layout("folder", tmp_path / "raf", order="rafdb")
    with pytest.raises(DataError, match="unknown label order 'ck'; expected one of"):
        read_layout("folder", tmp_path / "raf", order="ck")
    with pytest.raises(DataError, match="rafdb has its own label order and splits"):
        read_layout("rafdb", tmp_path / "raf", order="rafdb")


def flat(root, faces):
    for i, (name, count) in enumerate(faces.items()):
        for number in range(count):
            small_sets.picture(root / name / f"{number:02d}.png", 20 * i + number)
    return root


def test_class_folders_without_splits_are_cut_by_class(tmp_path):
    flat(tmp_path, {"happy": 10, "sad": 5, "fear": 1})
    with pytest.raises(DataError, match=r"test_share=0\.2 \(--test-share 0\.2\)"):
        read_layout("folder", tmp_path)
    listing = read_layout("folder", tmp_path, test_share=0.2)
    assert listing.classes == ("happiness", "sadness", "fear")
    held = [listing.sources[row].name for row in listing.rows[listing.splits == "test"]]
    assert [name.split("/")[0] for name in held] == ["happy", "happy", "sad"]
    again = read_layout("folder", tmp_path, test_share=0.2)
    assert again.splits.tolist() == listing.splits.tolist()
    assert counts(read_layout("folder", tmp_path, test_share=0.5)) == {"train": 9, "test": 7}


def test_a_test_share_needs_folders_without_splits(tmp_path):
    small_sets.write_folder(tmp_path, ("happy", "sad"))
    with pytest.raises(DataError, match="but there are the splits train, val"):
        read_layout("folder", tmp_path, test_share=0.2)
    with pytest.raises(DataError, match=r"a test share of 1\.5 was given; expected a number between 0 and 1"):
        read_layout("folder", flat(tmp_path / "flat", {"happy": 2, "sad": 2}), test_share=1.5)


def test_hidden_files_are_ignored_and_noted(tmp_path):
    small_sets.write_folder(tmp_path, ("happy", "sad"))
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "train" / "__MACOSX").mkdir()
    (tmp_path / "train" / "sad" / "._a.png").write_bytes(b"x")
    listing = read_layout("folder", tmp_path)
    assert listing.classes == ("happiness", "sadness")
    assert len(listing) == 4
    assert listing.notes == ["2 hidden files and folders ignored: __MACOSX, ._a.png"]


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
