"""RAF-DB: labels from 1 in its own order, and errors in its one list."""

import pytest
from helpers import small_sets
from helpers.small_sets import breaking, counts, named

from fer_lab.data.expressions import CANONICAL, numbers_of
from fer_lab.data.images import DataError
from fer_lab.data.layouts import read_layout

RAF_LABELS = "EmoLabel/list_patition_label.txt"


def test_rafdb_labels_count_from_one_in_its_own_order(tmp_path):
    listing = read_layout("rafdb", small_sets.write_rafdb(tmp_path))
    words = ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral")
    expected = {
        f"Image/aligned/{split}_{own:05d}_aligned.jpg": word
        for split in ("train", "test")
        for own, word in enumerate(words, 1)
    }
    assert named(listing) == expected
    assert listing.classes == CANONICAL[:7]
    assert counts(listing) == {"train": 7, "test": 7}


@pytest.mark.parametrize("place", ["basic", "."])
def test_rafdb_may_lie_in_basic(tmp_path, place):
    (tmp_path / "root" / place).mkdir(parents=True, exist_ok=True)
    small_sets.write_rafdb(tmp_path / "root" / place)
    assert len(read_layout("rafdb", tmp_path / "root")) == 14


@pytest.mark.parametrize("place", ["", "DATASET"])
def test_rafdb_in_class_folders_named_by_its_numbers(tmp_path, place):
    base = small_sets.write_numbered(tmp_path / place, "rafdb", ("train", "test"))
    for split in ("train", "test"):
        lines = [f"{split}_{number}_0.png,{number}" for number in numbers_of("rafdb")]
        (base / f"{split}_labels.csv").write_text("\n".join(["image,label", *lines]) + "\n")
    listing = read_layout("rafdb", tmp_path)
    assert named(listing) == {
        f"{split}/{number}/{split}_{number}_0.png": name
        for split in ("train", "test")
        for number, name in numbers_of("rafdb").items()
    }
    assert listing.classes == CANONICAL[:7]
    assert counts(listing) == {"train": 7, "test": 7}
    breaking("test_labels.csv", "test_4_0.png,4", "test_4_0.png,5")(base)
    with pytest.raises(DataError, match=r"line 5: test_4_0\.png has the label 5, but is in the folder 4"):
        read_layout("rafdb", tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (breaking(RAF_LABELS, "00003.jpg 3", "00003.jpg 8"), r"label\.txt, line 3, label: .* 1 to 7, got '8'"),
        (breaking(RAF_LABELS, "00003.jpg 3", "00003.jpg 0"), "line 3, label: .* got '0'"),
        (breaking(RAF_LABELS, "00003.jpg 3", "00003.jpg happy"), "line 3, label: .* got 'happy'"),
        (breaking(RAF_LABELS, "00003.jpg 3", "00003.jpg"), "line 3: expected a file name and a label"),
        (breaking(RAF_LABELS, "train_00003", "../a"), "line 3, file name: expected a file name below"),
        (breaking(RAF_LABELS, "train_00003", "/etc/a"), "line 3, file name: expected a file name below"),
        (breaking(RAF_LABELS, "train_00003", "dev_00003"), "line 3: .* begins with train_ or test_"),
        (breaking(RAF_LABELS, "train_00003", "train_00002"), "line 3: train_00002.jpg .* second time"),
        (lambda root: (root / RAF_LABELS).unlink(), "list_patition_label.txt is missing"),
        (lambda root: (root / "Image").rename(root / "Images"), "Image/aligned is missing"),
        (breaking(RAF_LABELS, "train_00003.jpg 3\n", ""), "no train face of class disgust"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, change, message):
    small_sets.write_rafdb(tmp_path)
    change(tmp_path)
    with pytest.raises(DataError, match=message):
        read_layout("rafdb", tmp_path)
