"""FER+: canonical order, label rules, the authors' folders and Kaggle's tables."""

import numpy as np
import pytest
from helpers import small_sets
from helpers.small_sets import breaking, counts, named

from fer_lab.data.expressions import CANONICAL
from fer_lab.data.images import DataError
from fer_lab.data.layouts import read_layout
from fer_lab.data.layouts.ferplus import ferplus_labels

FERPLUS_LABELS = "FER2013Valid/label.csv"


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
        ("fer2013new.csv", "fer0000001", "fer0000000", "line 3: fer0000000.png is listed a second time"),
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


@pytest.mark.parametrize("place", ["", "data"])
def test_pixels_without_votes_are_fer2013_with_its_own_labels(tmp_path, place):
    small_sets.write_fer2013(tmp_path / place)
    listing = read_layout("ferplus", tmp_path)
    words = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")
    assert [listing.classes[label] for label in listing.labels] == [*words, *words]
    assert (listing.name, listing.classes, listing.votes) == ("fer2013", CANONICAL[:7], None)
    assert counts(listing) == {"train": 7, "valid": 7}
    assert "these are FER2013's own labels, seven classes" in listing.notes[0]
    face = listing.sources[listing.rows[3]]
    assert np.asarray(face.decode(face.read()))[0, 0].tolist() == [27, 27, 27]
    with pytest.raises(ValueError, match="expected 7 classes for fer2013, got 8"):
        read_layout("ferplus", tmp_path, 8)
    breaking("icml_face_data.csv", "\n3,Training", "\n7,Training")(tmp_path / place)
    with pytest.raises(DataError, match="line 5, emotion: expected a whole number from 0 to 6, got '7'"):
        read_layout("ferplus", tmp_path)


def test_ferplus_from_the_other_competitions_table(tmp_path):
    small_sets.write_kaggle(tmp_path)
    (tmp_path / "fer2013.csv").rename(tmp_path / "icml_face_data.csv")
    breaking("icml_face_data.csv", "emotion,pixels,Usage", "emotion, pixels, Usage")(tmp_path)
    listing = read_layout("ferplus", tmp_path)
    assert (listing.name, len(listing), len(listing.classes)) == ("ferplus", 16, 8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (breaking(FERPLUS_LABELS, ",0\n", ",0,0\n"), r"label\.csv, line 1: expected 12 columns, got 13"),
        (breaking(FERPLUS_LABELS, ",0\n", "\n"), "line 1: expected 12 columns, got 11"),
        (breaking(FERPLUS_LABELS, ",10,", ",ten,"), "line 1, votes: expected a whole number"),
        (breaking(FERPLUS_LABELS, ",10,", ",-1,"), "line 1, votes: expected a whole number"),
        (breaking(FERPLUS_LABELS, "fer50", "../fer50"), "line 1, file name: expected a file name below"),
        (breaking(FERPLUS_LABELS, "fer51", "fer50"), "line 2: fer50.png is listed a second time"),
        (lambda root: (root / FERPLUS_LABELS).unlink(), "FER2013Valid/label.csv cannot be read"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, change, message):
    small_sets.write_ferplus(tmp_path)
    change(tmp_path)
    with pytest.raises(DataError, match=message):
        read_layout("ferplus", tmp_path)


def test_a_picture_that_is_not_there_is_left_to_the_decoder(tmp_path):
    small_sets.write_ferplus(tmp_path)
    breaking("FER2013Train/label.csv", "fer05", "nothing")(tmp_path)
    assert len(read_layout("ferplus", tmp_path)) == 16
