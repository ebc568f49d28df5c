"""What holds for every data set: unknown names, empty folders, wrong class counts."""

import pytest
from helpers import small_sets

from fer_lab.data.images import DataError
from fer_lab.data.layouts import read_layout


@pytest.mark.parametrize("name", ["ferplus", "rafdb", "affectnet", "sfew", "folder"])
def test_an_empty_and_a_missing_folder_are_named(tmp_path, name):
    with pytest.raises(DataError, match=tmp_path.name):
        read_layout(name, tmp_path)
    with pytest.raises(DataError, match="none is not a folder"):
        read_layout(name, tmp_path / "none")


@pytest.mark.parametrize("name", ["ferplus", "rafdb", "affectnet", "sfew", "folder"])
def test_a_set_that_is_still_packed_is_named(tmp_path, name):
    (tmp_path / "archive.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"archive\.zip there is still packed: unpack it"):
        read_layout(name, tmp_path)
    with pytest.raises(DataError, match=r"archive\.zip is not a folder.*; unpack it first"):
        read_layout(name, tmp_path / "archive.zip")


def test_unknown_names_rules_and_class_counts(tmp_path):
    with pytest.raises(DataError, match="unknown data set 'ckplus'; expected one of ferplus, rafdb"):
        read_layout("ckplus", tmp_path)
    with pytest.raises(DataError, match="unknown label rule 'mean'; expected one of largest, majority, votes"):
        read_layout("ferplus", tmp_path, None, "mean")
    with pytest.raises(ValueError, match="expected 7 classes for rafdb, got 8"):
        read_layout("rafdb", small_sets.write_rafdb(tmp_path / "raf"), 8)
    with pytest.raises(DataError, match="expected 3 classes, got 2"):
        read_layout("folder", small_sets.write_folder(tmp_path / "f", ("a", "b")), 3)
    with pytest.raises(DataError, match="no train face of class neutral, surprise"):
        read_layout("folder", small_sets.write_folder(tmp_path / "g", ("happy", "sad")), 7)
