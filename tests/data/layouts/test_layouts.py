import numpy as np
import pytest
from helpers import small_sets

from fer_lab.data.expressions import CANONICAL
from fer_lab.data.images import DataError
from fer_lab.data.layouts import read_layout
from fer_lab.data.layouts.ferplus import ferplus_labels


def named(listing) -> dict[str, str]:
    """File → class name."""
    files = [listing.sources[row].name for row in listing.rows]
    return {file: listing.classes[label] for file, label in zip(files, listing.labels, strict=True)}


def counts(listing) -> dict[str, int]:
    return {split: int((listing.splits == split).sum()) for split in np.unique(listing.splits)}


# ---------------------------------------------------------------------------------------------------------
# The label order of every data set


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


@pytest.mark.parametrize("place", ["", "data"])
def test_ferplus_order_is_the_canonical_one(tmp_path, place):
    small_sets.write_ferplus(tmp_path / place)
    listing = read_layout("ferplus", tmp_path)
    assert named(listing) == {
        f"{folder}/fer{offset}{label}.png": word
        for folder, offset in (("FER2013Train", 0), ("FER2013Valid", 5))
        for label, word in enumerate(CANONICAL)
    }
    assert counts(listing) == {"train": 8, "valid": 8}
    assert listing.notes == ["FER2013Test is not there: no test faces"]


@pytest.mark.parametrize("quoted", [False, True])
def test_ferplus_from_kaggles_tables(tmp_path, quoted):
    listing = read_layout("ferplus", small_sets.write_kaggle(tmp_path, quoted))
    assert [listing.classes[label] for label in listing.labels] == [*CANONICAL, *CANONICAL]
    assert counts(listing) == {"train": 8, "valid": 8}
    assert listing.left_out == {"not a face": 1, "without a name": 1}
    face = listing.sources[listing.rows[9]]
    assert face.name == "fer0000011.png"
    image = np.asarray(face.decode(face.read()))
    assert image.shape == (48, 48, 3)
    assert image[0, 0].tolist() == [11, 11, 11]
    assert image[47, 47].tolist() == [255, 255, 255]


def test_kaggles_table_is_used_where_the_folders_hold_labels_alone(tmp_path):
    small_sets.write_kaggle(tmp_path / "data")
    (tmp_path / "data" / "fer2013new.csv").rename(tmp_path / "fer2013new.csv")
    (tmp_path / "data" / "FER2013Train").mkdir()
    (tmp_path / "data" / "FER2013Train" / "label.csv").write_text("x")
    assert len(read_layout("ferplus", tmp_path)) == 16


# ---------------------------------------------------------------------------------------------------------
# FER+'s label rules


@pytest.mark.parametrize(
    ("votes", "largest", "majority"),
    [
        ([4, 0, 0, 1, 3, 2, 0, 0, 0, 0], 0, None),  # 4 of the 9 that count: not more than half
        ([5, 0, 0, 1, 4, 0, 0, 0, 0, 0], 0, 0),  # 5 of 9; the single vote does not count
        ([5, 0, 0, 0, 5, 0, 0, 0, 0, 0], 0, None),  # first on ties; exactly half
        ([0, 0, 0, 3, 0, 0, 0, 0, 3, 0], 3, None),  # a class before unknown on ties
        ([0, 0, 2, 0, 0, 0, 0, 0, 6, 0], None, None),  # unknown
        ([0, 0, 2, 0, 0, 0, 0, 0, 0, 6], None, None),  # not a face
        ([1, 1, 1, 1, 1, 1, 1, 1, 1, 1], None, None),  # nothing counts
        ([0, 0, 0, 0, 0, 0, 0, 6, 4, 0], 7, 7),
    ],
)
def test_label_rules(votes, largest, majority):
    for rule, expected in (("largest", largest), ("votes", largest), ("majority", majority)):
        labels, keep, shares = ferplus_labels(np.array([votes]), rule)
        assert keep.tolist() == [expected is not None], rule
        if expected is not None:
            assert labels.tolist() == [expected]
            assert shares.sum() == pytest.approx(1)


def test_vote_shares_by_hand():
    _, _, shares = ferplus_labels(np.array([[4, 0, 0, 1, 3, 2, 0, 0, 2, 0]]), "votes")
    np.testing.assert_allclose(shares, [[4 / 9, 0, 0, 0, 3 / 9, 2 / 9, 0, 0]], atol=1e-7)
    _, keep, shares = ferplus_labels(np.array([[4, 0, 0, 0, 0, 0, 0, 3, 0, 0]]), "largest", 7)
    assert keep.all()
    np.testing.assert_allclose(shares, [[1, 0, 0, 0, 0, 0, 0]], atol=1e-7)


def test_seven_classes_leave_contempt_out_of_ferplus(tmp_path):
    listing = read_layout("ferplus", small_sets.write_ferplus(tmp_path), 7)
    assert len(listing) == 14
    assert listing.left_out == {"contempt": 2}
    assert listing.votes.shape == (14, 7)
    np.testing.assert_allclose(listing.votes.sum(1), 1)


def test_the_sources_are_the_same_for_every_rule(tmp_path):
    small_sets.write_ferplus(tmp_path, {"split.png": [5, 5, 0, 0, 0, 0, 0, 0, 0, 0]})
    largest, majority = (read_layout("ferplus", tmp_path, None, rule) for rule in ("largest", "majority"))
    assert largest.sources == majority.sources
    assert (len(largest), len(majority)) == (17, 16)
    assert majority.left_out == {"no agreement": 1}


# ---------------------------------------------------------------------------------------------------------
# Folders


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
    assert read_layout("folder", tmp_path).notes == ["1 other files are no pictures by their names"]


# ---------------------------------------------------------------------------------------------------------
# Wrong folders and files

RAF_LABELS = "EmoLabel/list_patition_label.txt"
FERPLUS_LABELS = "FER2013Valid/label.csv"
GOOD = small_sets.ferplus_row("x.png", small_sets.votes_for(0))


def breaking(path, old, new):
    def change(root):
        text = (root / path).read_text()
        assert old in text
        (root / path).write_text(text.replace(old, new, 1))

    return change


def emptied(folder):
    def change(root):
        for file in (root / folder).iterdir():
            file.unlink()

    return change


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "rafdb",
            breaking(RAF_LABELS, "00003.jpg 3", "00003.jpg 8"),
            r"label\.txt, line 3, label: .* 1 to 7, got '8'",
        ),
        ("rafdb", breaking(RAF_LABELS, "00003.jpg 3", "00003.jpg 0"), "line 3, label: .* got '0'"),
        ("rafdb", breaking(RAF_LABELS, "00003.jpg 3", "00003.jpg happy"), "line 3, label: .* got 'happy'"),
        ("rafdb", breaking(RAF_LABELS, "00003.jpg 3", "00003.jpg"), "line 3: expected a file name and a label"),
        ("rafdb", breaking(RAF_LABELS, "train_00003", "../a"), "line 3, file name: expected a file name below"),
        (
            "rafdb",
            breaking(RAF_LABELS, "train_00003", "/etc/a"),
            "line 3, file name: expected a file name below",
        ),
        ("rafdb", breaking(RAF_LABELS, "train_00003", "dev_00003"), "line 3: .* begins with train_ or test_"),
        ("rafdb", breaking(RAF_LABELS, "train_00003", "train_00002"), "line 3: train_00002.jpg .* second time"),
        ("rafdb", lambda root: (root / RAF_LABELS).unlink(), "list_patition_label.txt is missing"),
        ("rafdb", lambda root: (root / "Image").rename(root / "Images"), "Image/aligned is missing"),
        ("rafdb", breaking(RAF_LABELS, "train_00003.jpg 3\n", ""), "no train face of class disgust"),
        (
            "ferplus",
            breaking(FERPLUS_LABELS, ",0\n", ",0,0\n"),
            r"label\.csv, line 1: expected 12 columns, got 13",
        ),
        ("ferplus", breaking(FERPLUS_LABELS, ",0\n", "\n"), "line 1: expected 12 columns, got 11"),
        ("ferplus", breaking(FERPLUS_LABELS, ",10,", ",ten,"), "line 1, votes: expected a whole number"),
        ("ferplus", breaking(FERPLUS_LABELS, ",10,", ",-1,"), "line 1, votes: expected a whole number"),
        (
            "ferplus",
            breaking(FERPLUS_LABELS, "fer50", "../fer50"),
            "line 1, file name: expected a file name below",
        ),
        ("ferplus", breaking(FERPLUS_LABELS, "fer51", "fer50"), "line 2: fer50.png stands here a second time"),
        ("ferplus", lambda root: (root / FERPLUS_LABELS).unlink(), "FER2013Valid/label.csv cannot be read"),
        ("ferplus", breaking("FER2013Train/label.csv", "fer05", "nothing"), None),
        ("affectnet", lambda root: (root / "val_set/annotations/3_exp.npy").unlink(), "3_exp.npy is missing"),
        ("affectnet", lambda root: np.save(root / "val_set/annotations/3_exp.npy", 11), "0 to 10, got '11'"),
        ("affectnet", lambda root: np.save(root / "val_set/annotations/3_exp.npy", [1, 2]), "got '2 values'"),
        ("affectnet", lambda root: np.save(root / "val_set/annotations/3_exp.npy", 1.5), "got '1.5'"),
        (
            "affectnet",
            lambda root: np.save(root / "val_set/annotations/3_exp.npy", np.array([{}]), allow_pickle=True),
            "3_exp.npy is no array of one number",
        ),
        (
            "affectnet",
            lambda root: (root / "val_set/annotations/3_exp.npy").write_bytes(
                b"\x93NUMPY\x01\x00\x08\x00(((((((("
            ),
            "3_exp.npy is no array of one number",
        ),
        ("affectnet", lambda root: (root / "val_set/annotations/3_exp.npy").write_bytes(b""), "no array"),
        (
            "affectnet",
            lambda root: (root / "val_set/annotations/3_exp.npy").write_bytes(b"0" * 5000),
            "expected one number, got 5,000 bytes",
        ),
        (
            "affectnet",
            lambda root: (root / "val_set/images").rename(root / "x"),
            "val_set/images cannot be listed",
        ),
        ("sfew", lambda root: (root / "Val/Angry").rename(root / "Val/Bored"), "name no expression: Bored"),
        ("sfew", emptied("Train/Fear"), "Train/Fear holds no picture"),
        (
            "sfew",
            lambda root: (root / "Train").rename(root / "Images") and (root / "Val").rename(root / "b"),
            "named train",
        ),
    ],
)
def test_what_is_wrong_is_named(tmp_path, name, change, message):
    getattr(small_sets, f"write_{name}")(tmp_path)
    change(tmp_path)
    if message is None:
        assert len(read_layout(name, tmp_path)) == 16
        return
    with pytest.raises(DataError, match=message):
        read_layout(name, tmp_path)


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        (
            "fer2013.csv",
            "emotion,pixels,Usage",
            "emotion,Usage",
            "line 1: expected the columns emotion, pixels",
        ),
        ("fer2013.csv", ",Training", ",Training,1", "line 2: expected 3 columns, got 4"),
        (
            "fer2013.csv",
            ",Training",
            ",PublicTest",
            r"fer2013new\.csv, line 2: usage 'Training', and 'PublicTest'",
        ),
        ("fer2013new.csv", "Training,fer", "Testing,fer", "line 2: usage 'Testing'"),
        ("fer2013new.csv", ",10,", ",10,0,", "line 2: expected 12 columns, got 13"),
        ("fer2013new.csv", "fer0000001", "fer0000000", "line 3: fer0000000.png stands here a second time"),
        (
            "fer2013new.csv",
            "PublicTest,fer0000017.png,0,0,0,0,0,0,0,10,0,0\n",
            "",
            "ends before fer2013.csv does",
        ),
    ],
)
def test_what_is_wrong_in_kaggles_tables_is_named(tmp_path, file, old, new, message):
    small_sets.write_kaggle(tmp_path)
    breaking(file, old, new)(tmp_path)
    with pytest.raises(DataError, match=message):
        read_layout("ferplus", tmp_path)


def test_kaggles_pixels_without_votes_are_refused(tmp_path):
    small_sets.write_kaggle(tmp_path)
    (tmp_path / "fer2013new.csv").unlink()
    with pytest.raises(DataError, match=r"fer2013new\.csv, with FER\+'s votes"):
        read_layout("ferplus", tmp_path)


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


@pytest.mark.parametrize("name", ["ferplus", "rafdb", "affectnet", "sfew", "folder"])
def test_an_empty_and_a_missing_folder_are_named(tmp_path, name):
    with pytest.raises(DataError, match=tmp_path.name):
        read_layout(name, tmp_path)
    with pytest.raises(DataError, match="none is no folder"):
        read_layout(name, tmp_path / "none")


def test_unknown_names_rules_and_class_counts(tmp_path):
    with pytest.raises(DataError, match="unknown data set 'ckplus'; expected one of ferplus, rafdb"):
        read_layout("ckplus", tmp_path)
    with pytest.raises(DataError, match="unknown label rule 'mean'; expected one of largest, majority, votes"):
        read_layout("ferplus", tmp_path, None, "mean")
    with pytest.raises(ValueError, match="rafdb has 7 classes, 8 were asked for"):
        read_layout("rafdb", small_sets.write_rafdb(tmp_path / "raf"), 8)
    with pytest.raises(DataError, match=r"2 classes .* but 3 were asked for"):
        read_layout("folder", small_sets.write_folder(tmp_path / "f", ("a", "b")), 3)
    with pytest.raises(DataError, match="no train face of class neutral, surprise"):
        read_layout("folder", small_sets.write_folder(tmp_path / "g", ("happy", "sad")), 7)
