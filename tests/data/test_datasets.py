import errno
import shutil
import warnings

import numpy as np
import pytest
import torch
from helpers import small_sets
from PIL import Image

from fer_lab.data import cache, load_faces
from fer_lab.data.datasets import DataError, check_dataset, load_dataset
from fer_lab.data.expressions import CANONICAL, numbers_of
from fer_lab.data.layouts import LAYOUTS


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("FER_LAB_CACHE", str(folder))
    return folder


@pytest.fixture
def root(tmp_path):
    return tmp_path / "set"


def truncate(path):
    path.write_bytes(path.read_bytes()[:40])


# ---------------------------------------------------------------------------------------------------------
# Pixels, labels and splits together: the grey value of each picture tells its class in the set's own order


@pytest.mark.parametrize(
    ("name", "order"),
    [
        ("rafdb", ("", "surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral")),
        (
            "affectnet",
            ("neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger", "contempt"),
        ),
        ("sfew", ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")),
    ],
)
@pytest.mark.parametrize("cache", [True, False])
def test_every_face_has_its_own_label(root, name, order, cache):
    getattr(small_sets, f"write_{name}")(root)
    faces = load_dataset(name, root, cache=cache)
    for index, label in enumerate(faces.labels):
        pixels = faces.take([index]).float()
        assert order[round(float(pixels.mean()) / 20)] == faces.classes[label]
        assert pixels.std() < 1
    assert faces.classes == CANONICAL[: faces.num_classes]
    assert faces.subjects.tolist() == [-1] * len(faces)
    assert faces.images.shape == (len(faces), 3, 12, 12)
    assert faces.votes is None


def test_ferplus_has_votes_under_every_rule(root):
    small_sets.write_ferplus(root, {"two.png": [6, 4, 0, 0, 0, 0, 0, 0, 0, 0], "tie.png": [0, 5, 5] + [0] * 7})
    loaded = {rule: load_dataset("ferplus", root, label_rule=rule) for rule in ("largest", "majority", "votes")}
    assert {rule: len(faces) for rule, faces in loaded.items()} == {"largest": 18, "majority": 17, "votes": 18}
    for faces in loaded.values():
        assert faces.votes.dtype == torch.float32
        torch.testing.assert_close(faces.votes.sum(1), torch.ones(len(faces)))
        two = faces.files.tolist().index("FER2013Train/two.png")
        torch.testing.assert_close(faces.votes[two], torch.tensor([0.6, 0.4] + [0.0] * 6))
        assert faces.take([two]).unique().tolist() == [200]
    tie = loaded["largest"].files.tolist().index("FER2013Train/tie.png")
    assert loaded["largest"].classes[loaded["largest"].labels[tie]] == "happiness"
    torch.testing.assert_close(loaded["votes"].labels, loaded["largest"].labels)
    assert len({faces.fingerprint for faces in loaded.values()}) == 3


def test_label_rules_and_class_counts_share_one_cache(root, cache_folder):
    small_sets.write_ferplus(root, {"two.png": [5, 5, 0, 0, 0, 0, 0, 0, 0, 0]})
    eight, seven = (
        load_dataset("ferplus", root, label_rule="largest"),
        load_dataset("ferplus", root, num_classes=7),
    )
    assert (len(eight), len(seven)) == (17, 14)
    assert sorted(path.suffix for path in cache_folder.iterdir()) == [".json", ".npy"]
    contempt = eight.files.tolist().index("FER2013Train/fer07.png")
    assert eight.take([contempt]).unique().tolist() == [70]
    assert "FER2013Train/fer07.png" not in seven.files


def test_kaggles_tables_and_the_png_folders_give_the_same_pixels(tmp_path):
    small_sets.write_kaggle(tmp_path / "tables")
    faces = load_dataset("ferplus", tmp_path / "tables")
    assert faces.images.shape[1:] == (3, 48, 48)
    own = [int(file[3:-4]) for file in faces.files]
    assert faces.take(range(len(faces)))[:, 1, 3, 5].tolist() == own
    assert faces.splits.tolist() == ["train"] * 8 + ["valid"] * 8


# ---------------------------------------------------------------------------------------------------------
# Sizes


def test_pictures_of_different_sizes_become_112_unless_a_size_is_given(root):
    small_sets.write_folder(root, ("happy", "sad"))
    assert load_dataset("folder", root).image_size == 12
    small_sets.picture(root / "train" / "happy" / "b.png", 77, (20, 30))
    assert load_dataset("folder", root).image_size == 112
    faces = load_dataset("folder", root, size=16)
    assert faces.image_size == 16
    assert faces.take([faces.files.tolist().index("train/happy/b.png")]).unique().tolist() == [77]


def test_shrinking_antialiases(root):
    small_sets.write_folder(root, ("happy", "sad"))
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 200
    Image.fromarray(stripes).save(root / "train" / "happy" / "a.png")
    faces = load_dataset("folder", root, size=16)
    pixels = faces.take([faces.files.tolist().index("train/happy/a.png")]).float()
    assert abs(pixels - 100).max() < 15


@pytest.mark.parametrize("size", [0, 7, 5000])
def test_a_size_out_of_range_is_refused(root, size):
    with pytest.raises(DataError, match=f"8 to 1024 pixels, got {size}"):
        load_dataset("folder", small_sets.write_folder(root, ("happy", "sad")), size=size)


# ---------------------------------------------------------------------------------------------------------
# The cache


def test_the_second_load_decodes_nothing(root, monkeypatch):
    small_sets.write_rafdb(root)
    first = load_dataset("rafdb", root)

    def refuse(self, data):
        raise AssertionError("decoded again")

    monkeypatch.setattr("fer_lab.data.cache.Stored.decode", refuse)
    second = load_dataset("rafdb", root)
    assert torch.equal(first.images, second.images)
    assert first.fingerprint == second.fingerprint
    assert second.storage.dtype == torch.uint8


def test_a_changed_picture_is_decoded_anew(root):
    small_sets.write_rafdb(root)
    before = load_dataset("rafdb", root)
    small_sets.picture(root / "Image" / "aligned" / "train_00001_aligned.jpg", 250)
    after = load_dataset("rafdb", root)
    assert after.take([0]).float().mean() > 245
    assert torch.equal(before.images[1:], after.images[1:])
    assert before.fingerprint != after.fingerprint


def test_the_fingerprint_tells_what_was_read_and_not_where_or_how(root, tmp_path):
    small_sets.write_ferplus(root)
    faces = load_dataset("ferplus", root)
    shutil.copytree(root, tmp_path / "copy" / "data", copy_function=shutil.copyfile)
    assert load_dataset("ferplus", tmp_path / "copy").fingerprint == faces.fingerprint
    assert load_dataset("ferplus", root, cache=False).fingerprint == faces.fingerprint
    assert load_dataset("ferplus", root, size=12).fingerprint == faces.fingerprint
    others = [
        load_dataset("ferplus", root, size=16),
        load_dataset("ferplus", root, num_classes=7),
        load_dataset("ferplus", root, label_rule="votes"),
    ]
    assert len({faces.fingerprint, *(other.fingerprint for other in others)}) == 4


def test_no_cache_writes_nothing(root, cache_folder):
    load_dataset("rafdb", small_sets.write_rafdb(root), cache=False)
    assert not cache_folder.exists()


def test_a_full_disk_is_said_before_anything_is_written(root, cache_folder, monkeypatch):
    small_sets.write_rafdb(root)
    usage = shutil.disk_usage(root.parent)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(OSError, match=r"bytes needed, 1,000 free") as caught:
        load_dataset("rafdb", root)
    assert caught.value.errno == errno.ENOSPC
    assert list(cache_folder.iterdir()) == []


def test_a_mapped_set_is_read_without_a_warning_and_never_changed(root):
    small_sets.write_rafdb(root)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_dataset("rafdb", root)
        faces = load_dataset("rafdb", root)
        faces.images[:] = 0
        again = load_dataset("rafdb", root)
    assert again.images.float().mean() > 75


# ---------------------------------------------------------------------------------------------------------
# Bad pictures


def break_picture(path, how):
    if how == "truncated":
        truncate(path)
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "text":
        path.write_text("<svg/>")
    elif how == "missing":
        path.unlink()
    elif how == "loop":
        path.unlink()
        path.symlink_to(path)
    elif how == "folder":
        path.unlink()
        path.mkdir()


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("how", ["truncated", "empty", "text", "missing", "loop", "folder"])
def test_a_bad_picture_is_named_or_left_out(root, how, cache):
    small_sets.write_ferplus(root)
    small_sets.picture(root / "FER2013Train" / "fer00.png", 0, (12, 12))
    with open(root / "FER2013Train" / "label.csv", "a") as file:
        file.write(small_sets.ferplus_row("bad.png", small_sets.votes_for(0)))
    small_sets.picture(root / "FER2013Train" / "bad.png", 9)
    break_picture(root / "FER2013Train" / "bad.png", how)
    with pytest.raises(DataError, match=r"1 of 17 pictures cannot be read: .*bad\.png .*--skip-bad"):
        load_dataset("ferplus", root, cache=cache)
    with pytest.warns(UserWarning, match=r"1 of 17 unreadable pictures left out: .*bad\.png"):
        faces = load_dataset("ferplus", root, skip_bad=True, cache=cache)
    assert len(faces) == 16
    assert "FER2013Train/bad.png" not in faces.files
    assert [int(faces.take([i])[0, 0, 0, 0]) for i in range(8)] == [0, 10, 20, 30, 40, 50, 60, 70]


def test_a_bad_picture_that_the_rule_leaves_out_harms_nobody(root):
    small_sets.write_ferplus(root, {"bad.png": small_sets.votes_for(9)})
    truncate(root / "FER2013Train" / "bad.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(load_dataset("ferplus", root)) == 16


def test_bad_pixels_in_kaggles_table_are_named_with_their_line(root):
    small_sets.write_kaggle(root)
    path = root / "fer2013.csv"
    path.write_text(path.read_text().replace("0,2 2 2", "0,2 2 300", 1))
    with pytest.raises(DataError, match=r"fer2013\.csv, line 4: pixels run from 2 to 300"):
        load_dataset("ferplus", root)


def test_a_set_without_one_readable_picture_is_refused(root):
    small_sets.write_folder(root, ("happy", "sad"), ("train",))
    for path in root.rglob("*.png"):
        truncate(path)
    with pytest.raises(DataError, match="2 of 2 pictures cannot be read"):
        load_dataset("folder", root, skip_bad=True)


# ---------------------------------------------------------------------------------------------------------
# The report


def test_the_report_counts_faces_and_says_what_is_wrong(root):
    small_sets.write_ferplus(root, {"bad.png": small_sets.votes_for(1), "no.png": small_sets.votes_for(8)})
    truncate(root / "FER2013Train" / "bad.png")
    small_sets.picture(root / "FER2013Valid" / "stray.png", 1)
    shutil.copy(root / "FER2013Train" / "fer03.png", root / "FER2013Valid" / "fer53.png")
    shutil.copy(root / "FER2013Train" / "fer01.png", root / "FER2013Train" / "fer02.png")
    report = check_dataset("ferplus", root)
    assert report.counts == {split: dict.fromkeys(CANONICAL, 1) for split in ("train", "valid")}
    assert report.left_out == {"unknown": 1}
    assert (report.leaked, report.repeated, report.relabelled) == (1, 1, 1)
    assert report.sizes == {(12, 12): 16}
    assert len(report.bad) == 1
    assert not report.ok
    text = report.text()
    assert "LEAKAGE: pictures in more than one split, byte for byte: 1" in text
    assert "UNREADABLE pictures: 1" in text
    assert "bad.png" in text
    assert "1 pictures in FER2013Valid are not in label.csv: stray.png" in text
    assert "FER2013Test is not there" in text
    assert "left out by the rules: unknown 1" in text
    assert "label rule majority" in text


def test_the_report_of_a_good_set(root):
    report = check_dataset("rafdb", small_sets.write_rafdb(root))
    assert report.ok
    assert report.counts["test"] == dict.fromkeys(CANONICAL[:7], 1)
    lines = report.text().splitlines()
    assert lines[0] == f"rafdb in {root}"
    assert lines[2].split() == ["class", "train", "test"]
    assert lines[3].split() == ["neutral", "1", "1"]
    assert lines[10].split() == ["all", "7", "7"]
    assert lines[-1] == "every picture can be read"


def test_whole_photographs_are_said_to_be_no_face_crops(root):
    """The note must come on every load, also from the cache, and must not come for face crops."""
    faces = load_faces(count=12, size=96, seed=4, background=0, imbalance=0)
    for name, side in (("photographs", 260), ("crops", 96)):
        for i, face in enumerate(faces.images):
            picture = Image.new("RGB", (side, side), "#7d8a96")
            picture.paste(Image.fromarray(face.permute(1, 2, 0).numpy()), ((side - 96) // 2, (side - 96) // 2))
            path = root / name / "train" / faces.classes[faces.labels[i]] / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path)
    for _ in range(2):
        with pytest.warns(UserWarning, match="pictures of folder: a face fills 2. % of"):
            load_dataset("folder", root / "photographs")
    assert "note: a face fills 2" in check_dataset("folder", root / "photographs").text()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_dataset("folder", root / "crops")
    assert "a face fills" not in check_dataset("folder", root / "crops").text()


def test_the_report_names_classes_that_a_split_lacks(root):
    small_sets.write_folder(root, ("happy", "sad"))
    shutil.rmtree(root / "val" / "sad")
    assert "note: no valid face of sadness" in check_dataset("folder", root).text()


def test_the_report_fits_one_screen(root):
    classes = tuple(f"class {i}" for i in range(60))
    small_sets.write_folder(root, classes)
    for path in list(root.rglob("*.png"))[:40]:
        truncate(path)
    report = check_dataset("folder", root)
    assert len(report.bad) == 40
    lines = report.text().splitlines()
    assert len(lines) <= 48
    assert "  … and 30 more" in lines
    assert "… and 36 more classes" in lines


def test_every_data_set_has_a_reader():
    assert list(LAYOUTS) == ["ferplus", "rafdb", "affectnet", "sfew", "folder"]


def test_numbered_folders_without_splits_give_labels_and_a_test_split(root):
    for number in numbers_of("rafdb"):
        for i in range(5):
            small_sets.picture(root / str(number) / f"{i}.png", 20 * number + i)
    faces = load_dataset("folder", root, order="rafdb", test_share=0.2)
    assert [faces.classes[label] for label in faces.labels] == [
        numbers_of("rafdb")[int(grey) // 20] for grey in faces.images[:, 0, 0, 0]
    ]
    assert faces.split("test").class_counts().tolist() == [1] * 7
    assert faces.reported_split() == "test"
    report = check_dataset("folder", root, order="rafdb", test_share=0.2)
    assert report.counts["test"] == dict.fromkeys(CANONICAL[:7], 1)


def test_fer2013_is_not_called_ferplus(root):
    small_sets.write_fer2013(root)
    with pytest.warns(UserWarning, match="these are FER2013's own labels"):
        faces = load_dataset("ferplus", root)
    assert (faces.name, faces.classes) == ("fer2013", CANONICAL[:7])
    assert check_dataset("ferplus", root).name == "fer2013"


def test_faces_of_contempt_that_are_left_out_are_counted(root):
    small_sets.write_affectnet(root)
    with pytest.warns(UserWarning, match="2 faces of contempt in affectnet left out"):
        load_dataset("affectnet", root, num_classes=7)


# ---------------------------------------------------------------------------------------------------------
# Some of the faces


COUNTED = {
    "rafdb": lambda root: small_sets.write_rafdb(root, each=9),
    "affectnet": lambda root: small_sets.write_affectnet(root, each=9),
    "sfew": lambda root: small_sets.write_sfew(root, each=9),
    "ferplus": small_sets.write_kaggle,
}


@pytest.mark.parametrize("name", COUNTED)
def test_a_count_keeps_every_class_in_every_split(root, name, monkeypatch):
    COUNTED[name](root)
    whole = load_dataset(name, root, size=12)
    groups = {(split, int(label)) for split, label in zip(whole.splits, whole.labels, strict=True)}
    decoded = []
    real = cache.to_square
    monkeypatch.setattr(cache, "to_square", lambda *args: decoded.append(1) or real(*args))
    prints = {whole.fingerprint}
    for count in range(len(groups), len(whole)):
        decoded.clear()
        with pytest.warns(UserWarning, match=f"{count} of the {len(whole)} faces of {name} are used"):
            part = load_dataset(name, root, size=12, count=count)
        assert len(part) == count == len(decoded)
        assert {(split, int(label)) for split, label in zip(part.splits, part.labels, strict=True)} == groups
        place = [whole.files.tolist().index(file) for file in part.files]
        assert place == sorted(place)
        assert torch.equal(part.images, whole.take(place))
        assert torch.equal(part.labels, whole.labels[place])
        assert (part.splits == whole.splits[place]).all()
        assert whole.votes is None or torch.equal(part.votes, whole.votes[place])
        prints.add(part.fingerprint)
        decoded.clear()
        with pytest.warns(UserWarning, match="are used"):
            again = load_dataset(name, root, size=12, count=count)
        assert again.fingerprint == part.fingerprint
        assert not decoded
    assert len(prints) == len(whole) - len(groups) + 1
    for count in (len(whole), len(whole) + 1):
        assert load_dataset(name, root, size=12, count=count).fingerprint == whole.fingerprint
    for count in (len(groups) - 1, 0, -1):
        with pytest.raises(DataError, match=f"{count} faces of {name} .*at least {len(groups)}, one for each"):
            load_dataset(name, root, size=12, count=count)


def test_a_class_keeps_its_share_and_the_seed_chooses(root):
    for split, sizes in (("train", (40, 20, 4)), ("test", (12, 3, 1))):
        for word, size in zip(("happy", "sad", "fear"), sizes, strict=True):
            for i in range(size):
                small_sets.picture(root / split / word / f"{i}.png", i)
    chosen = []
    for seed in (0, 1):
        with pytest.warns(UserWarning, match="21 of the 80 faces of folder are used"):
            chosen.append(load_dataset("folder", root, count=21, seed=seed))
    for faces in chosen:
        counts = [faces.split(split).class_counts().tolist() for split in ("train", "test")]
        assert counts == [[10, 5, 1], [3, 1, 1]]
    assert chosen[0].fingerprint != chosen[1].fingerprint
    assert set(chosen[0].files) != set(chosen[1].files)
