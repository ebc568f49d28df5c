"""AffectNet: its own order, pictures without expression, folders and lists."""

import numpy as np
import pytest
from helpers import small_sets
from helpers.small_sets import counts, named

from fer_lab.data.expressions import CANONICAL, numbers_of
from fer_lab.data.images import DataError
from fer_lab.data.layouts import read_layout


def test_affectnet_order_and_what_is_no_expression(tmp_path):
    listing = read_layout("affectnet", small_sets.write_affectnet(tmp_path))
    words = ("neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger", "contempt")
    assert named(listing) == {
        f"{part}/images/{own}.jpg": word for part in ("train_set", "val_set") for own, word in enumerate(words)
    }
    assert counts(listing) == {"train": 8, "valid": 8}
    assert listing.left_out == {"no expression": 2}
    seven = read_layout("affectnet", tmp_path, 7)
    assert len(seven) == 14
    assert seven.classes == CANONICAL[:7]
    assert seven.left_out == {"no expression": 2, "contempt": 2}


def test_affectnet_lists_with_and_without_a_header_line(tmp_path):
    listing = read_layout("affectnet", small_sets.write_affectnet_lists(tmp_path))
    words = ("neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger", "contempt")
    assert named(listing) == {
        f"Manually_Annotated_Images/{part}/{own}.jpg": word
        for part in ("tr", "va")
        for own, word in enumerate(words)
    }
    assert counts(listing) == {"train": 8, "valid": 8}
    assert listing.left_out == {"no expression": 6}


def test_affectnet_lists_may_both_have_a_header_line(tmp_path):
    small_sets.write_affectnet_lists(tmp_path)
    path = tmp_path / "validation.csv"
    path.write_text(small_sets.AFFECTNET_HEADER + "\n" + path.read_text())
    assert counts(read_layout("affectnet", tmp_path)) == {"train": 8, "valid": 8}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("../x.jpg,0,0,1,1,a,3,0,0", "line 13, subDirectory_filePath: expected a file name below"),
        ("x.jpg,0,0,1,1,a,11,0,0", "line 13, expression: expected a whole number from 0 to 10, got '11'"),
        ("x.jpg,0,0,1,1,a,3,0", "line 13: expected 9 columns, got 8"),
    ],
)
def test_what_is_wrong_in_affectnets_lists_is_named(tmp_path, line, message):
    small_sets.write_affectnet_lists(tmp_path)
    with open(tmp_path / "training.csv", "a") as file:
        file.write(line + "\n")
    with pytest.raises(DataError, match=message):
        read_layout("affectnet", tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: (root / "val_set/annotations/3_exp.npy").unlink(), "3_exp.npy is missing"),
        (lambda root: np.save(root / "val_set/annotations/3_exp.npy", 11), "0 to 10, got '11'"),
        (lambda root: np.save(root / "val_set/annotations/3_exp.npy", [1, 2]), "got '2 values'"),
        (lambda root: np.save(root / "val_set/annotations/3_exp.npy", 1.5), "got '1.5'"),
        (
            lambda root: np.save(root / "val_set/annotations/3_exp.npy", np.array([{}]), allow_pickle=True),
            "3_exp.npy is not an array of one number",
        ),
        (
            lambda root: (root / "val_set/annotations/3_exp.npy").write_bytes(
                b"\x93NUMPY\x01\x00\x08\x00(((((((("
            ),
            "3_exp.npy is not an array of one number",
        ),
        (lambda root: (root / "val_set/annotations/3_exp.npy").write_bytes(b""), "not an array"),
        (
            lambda root: (root / "val_set/annotations/3_exp.npy").write_bytes(b"0" * 5000),
            "expected one number, got 5,000 bytes",
        ),
        (lambda root: (root / "val_set/images").rename(root / "x"), "val_set/images cannot be listed"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, change, message):
    small_sets.write_affectnet(tmp_path)
    change(tmp_path)
    with pytest.raises(DataError, match=message):
        read_layout("affectnet", tmp_path)


@pytest.mark.parametrize("splits", [("train_set", "valid_set"), ("train_set", "val_set"), ("train", "val")])
def test_affectnet_in_class_folders_named_by_its_numbers(tmp_path, splits):
    listing = read_layout("affectnet", small_sets.write_numbered(tmp_path, "affectnet", splits))
    assert named(listing) == {
        f"{split}/{number}/{split}_{number}_0.png": name
        for split in splits
        for number, name in numbers_of("affectnet").items()
    }
    assert listing.classes == CANONICAL
    assert counts(listing) == {"train": 8, "valid": 8}
    seven = read_layout("affectnet", tmp_path, 7)
    assert (seven.classes, seven.left_out) == (CANONICAL[:7], {"contempt": 2})


def test_valid_set_may_have_annotations(tmp_path):
    small_sets.write_affectnet(tmp_path)
    (tmp_path / "val_set").rename(tmp_path / "valid_set")
    listing = read_layout("affectnet", tmp_path)
    assert counts(listing) == {"train": 8, "valid": 8}
    assert listing.notes == []
