import hashlib
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from fer_lab.data.expressions import CANONICAL
from fer_lab.data.faces import REGIONS
from fer_lab.data.synthetic import generator
from fer_lab.data.synthetic.action_units import NUMBERS
from fer_lab.data.synthetic.generator import KNOBS, SyntheticFaces, class_counts, write_folder

N = 70  # more than one chunk, and not a whole number of them


@pytest.fixture(scope="module")
def faces():
    return SyntheticFaces(N, seed=3, size=40)


def digest(faces) -> str:
    h = hashlib.sha256()
    for part in (
        faces.storage,
        faces.regions,
        faces.landmarks,
        faces.action_units,
        faces.labels,
        faces.subjects,
    ):
        h.update(part.numpy().tobytes())
    return h.hexdigest()


def neighbours(faces) -> tuple[float, float]:
    """Share of faces whose nearest other face, by action units, is of another class; and how far that is."""
    flat, labels = faces.action_units.flatten(1), faces.true_labels
    distance = torch.cdist(flat, flat) + torch.eye(len(flat)) * 1e6
    error = (labels[distance.argmin(1)] != labels).float().mean().item()
    distance[labels[:, None] == labels] = 1e6
    return error, distance.min(1).values.mean().item()


def spread(features: torch.Tensor, labels: torch.Tensor) -> float:
    """Root mean square distance from the own class's mean."""
    means = torch.stack([features[labels == c].mean(0) for c in range(7)])
    return (features - means[labels]).square().sum(1).mean().sqrt().item()


def mean_difference(a, b) -> float:
    return (a.storage.float() - b.storage.float()).abs().mean().item()


def test_everything_that_is_known_comes_with_the_faces(faces):
    assert faces.name == "synthetic"
    assert faces.classes == CANONICAL[:7]
    assert faces.storage.shape == (N, 3, 40, 40)
    assert faces.regions.shape == (N, 40, 40)
    assert faces.action_units.shape == (N, len(NUMBERS), 2)
    assert 0 <= faces.action_units.min() < 0.01 < 0.8 < faces.action_units.max() <= 1
    assert torch.equal(faces.labels, faces.true_labels)
    assert {"skin_tone", "age_marks", "glasses", "beard", "yaw", "occlusion"} <= set(faces.attributes.columns)
    inside = (faces.landmarks > -4) & (faces.landmarks < 44)
    assert inside.float().mean() > 0.99


def test_region_masks_lie_around_their_landmarks(faces):
    seen = faces.region_masks(range(N)).float()
    rows, columns = torch.meshgrid(torch.arange(40.0), torch.arange(40.0), indexing="ij")
    for name, points in (("eyes", slice(36, 48)), ("mouth", slice(48, 68)), ("brows", slice(17, 27))):
        mask = seen[:, REGIONS.index(name)]
        area = mask.sum((1, 2))
        assert (area > 4).all(), name
        middle = torch.stack([(mask * columns).sum((1, 2)) / area, (mask * rows).sum((1, 2)) / area], 1)
        off = (middle - faces.landmarks[:, points].mean(1)).norm(dim=1)
        assert off.median() < 1.5, name


def test_equal_arguments_give_equal_bytes_and_another_seed_does_not(faces):
    again, other = SyntheticFaces(**faces.knobs), SyntheticFaces(N, seed=4, size=40)
    assert digest(again) == digest(faces)
    assert again.fingerprint == faces.fingerprint != other.fingerprint
    assert mean_difference(faces, other) > 10


def test_four_processes_with_other_threads_draw_the_same_bytes(faces):
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); from test_generator import *; "
        "torch.set_num_threads(int(sys.argv[2])); "
        "print(digest(SyntheticFaces(N, seed=3, size=40)), torch.get_num_threads())"
    )
    here = os.path.dirname(__file__)
    others = [
        subprocess.Popen([sys.executable, "-c", program, here, str(threads)], stdout=subprocess.PIPE, text=True)
        for threads in (1, 2, 3, 1)
    ]
    said = [process.communicate(timeout=120)[0].split() for process in others]
    assert said == [[digest(faces), threads] for threads in "1231"]


def test_a_chunk_drawn_alone_has_the_same_bytes(faces):
    knobs = generator.check_knobs({})
    plan = generator._plan(N, 3, faces.classes, knobs)
    rows, units, _, pictures = generator._draw_chunk(1, plan, 3, 40, faces.classes, knobs)
    assert torch.equal(rows, torch.arange(64, N))
    assert torch.equal(pictures.images[: N - 64], faces.storage[64:])
    assert torch.equal(units[: N - 64], faces.action_units[64:])


def test_no_subject_crosses_splits_and_people_keep_their_looks(faces):
    frame = faces.attributes.assign(subject=faces.subjects, split=faces.splits)
    assert (frame.groupby("subject").split.nunique() == 1).all()
    assert (frame.groupby("subject").skin_tone.nunique() == 1).all()
    assert set(frame.split) == {"train", "valid", "test"}
    assert frame.skin_tone.nunique() > 4


def test_splits_take_about_seventy_fifteen_and_fifteen_percent():
    plan = generator._plan(1000, 0, CANONICAL[:7], generator.check_knobs({}))
    shares = pd.Series(plan.splits).value_counts(normalize=True)
    assert shares["train"] == pytest.approx(0.7, abs=0.02)
    assert shares["valid"] == pytest.approx(0.15, abs=0.02)


def test_one_face_is_a_training_face():
    only = SyntheticFaces(1, size=32)
    assert list(only.splits) == ["train"]


def test_inter_class_similarity_brings_classes_nearer_to_each_other():
    errors, distances = zip(
        *[
            neighbours(SyntheticFaces(192, size=32, imbalance=0.0, inter_class_similarity=s))
            for s in (0, 0.5, 1)
        ],
        strict=True,
    )
    assert distances[0] > 1.15 * distances[1] > 1.15**2 * distances[2]
    assert errors[0] <= errors[1] < errors[2] - 0.15


def test_intra_class_variance_spreads_a_class():
    sets = [SyntheticFaces(96, size=32, imbalance=0.0, intra_class_variance=v) for v in (0, 0.5, 1)]
    units = [spread(s.action_units.flatten(1), s.true_labels) for s in sets]
    pixels = [spread(s.storage.flatten(1).float(), s.true_labels) for s in sets]
    assert units[0] < 0.8 * units[1] < 0.8 * units[2]
    assert pixels[0] < 0.95 * pixels[1] < 0.95 * pixels[2]
    assert sets[0].attributes.skin_tone.nunique() == 1


def test_imbalance_is_the_power_of_rafdb_counts():
    classes = CANONICAL[:7]
    assert class_counts(12271, classes, 1.0) == [2524, 4772, 1290, 1982, 705, 717, 281]
    assert class_counts(702, classes, 0.0) == [101, 101, 100, 100, 100, 100, 100]
    ratios = [max(c) / min(c) for c in (class_counts(10000, classes, p) for p in (0.5, 1.0, 1.5))]
    assert ratios == pytest.approx([17**0.5, 17, 17**1.5], rel=0.05)


def test_imbalance_reaches_the_set():
    faces = SyntheticFaces(N, size=32, imbalance=0.0, num_classes=8)
    assert sorted(faces.class_counts().tolist()) == [8, 8, 9, 9, 9, 9, 9, 9]


def test_label_noise_swaps_its_share_of_training_labels_alone(faces):
    noisy = SyntheticFaces(N, seed=3, size=40, label_noise=0.3)
    wrong = (noisy.labels != noisy.true_labels).numpy()
    training = noisy.splits == "train"
    assert wrong[training].mean() == pytest.approx(0.3, abs=0.5 / training.sum())
    assert not wrong[~training].any()
    assert torch.equal(noisy.storage, faces.storage)
    assert torch.equal(noisy.true_labels, faces.true_labels)


def test_scale_range_sets_the_size_of_faces():
    eyes = []
    for pair in ((0.7, 0.7), (1.1, 1.1)):
        points = SyntheticFaces(32, size=32, scale_range=pair).landmarks
        eyes.append((points[:, 36] - points[:, 45]).norm(dim=1).mean())
    assert eyes[1] / eyes[0] == pytest.approx(1.1 / 0.7, rel=0.01)


@pytest.mark.parametrize(
    ("knob", "low", "high"),
    [
        ("rotation", 0.0, 40.0),
        ("head_turn", 0.0, 30.0),
        ("shift", 0.0, 0.3),
        ("lighting", 0.0, 1.0),
        ("background", 0.0, 1.0),
        ("occlusion", 0.0, 1.0),
        ("blur", 0.0, 5.0),
        ("noise", 0.0, 0.3),
        ("grey", 0.0, 1.0),
    ],
)
def test_a_nuisance_knob_changes_pictures_and_nothing_else(knob, low, high):
    calm, strong = (SyntheticFaces(32, size=32, **{knob: value}) for value in (low, high))
    assert mean_difference(calm, strong) > 2
    assert torch.equal(calm.action_units, strong.action_units)
    assert torch.equal(calm.labels, strong.labels)


def test_nuisance_knobs_move_what_they_name():
    def roughness(faces):
        images = faces.storage.float()
        return (images[..., 1:] - images[..., :-1]).abs().mean().item()

    still = dict.fromkeys(("noise", "blur", "grey", "occlusion", "rotation"), 0.0)
    calm = SyntheticFaces(32, size=32, **still)
    assert calm.attributes.roll.abs().max() == 0
    assert SyntheticFaces(32, size=32, **(still | {"rotation": 40.0})).attributes.roll.abs().max() > 25
    assert roughness(SyntheticFaces(32, size=32, **(still | {"noise": 0.2}))) > 2 * roughness(calm)
    assert roughness(SyntheticFaces(32, size=32, **(still | {"blur": 5.0}))) < 0.9 * roughness(calm)
    grey = SyntheticFaces(32, size=32, **(still | {"grey": 1.0})).storage.int()
    assert (grey[:, 0] - grey[:, 2]).abs().max() <= 1
    assert (SyntheticFaces(32, size=32, **(still | {"occlusion": 1.0})).attributes.occlusion > 0).all()


def test_faces_per_subject_counts_people():
    assert SyntheticFaces(64, size=32, faces_per_subject=4).subjects.unique().numel() == 16


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, "n must be a whole number of at least 1, got 0"),
        ({"size": 31}, "size must be a whole number of at least 32"),
        ({"seed": -1}, "seed must be"),
        ({"num_classes": 9}, "2 to 8"),
        ({"colour": 1}, "unknown knob colour; expected some of inter_class_similarity"),
        ({"label_noise": 1.5}, "label_noise must be a number in 0…1"),
        ({"noise": "much"}, "noise must be a number"),
        ({"noise": float("nan")}, "noise must be a number"),
        ({"scale_range": (1.2, 0.8)}, "scale_range must be .smallest, largest"),
        ({"scale_range": 1.0}, "scale_range must be .smallest, largest"),
        ({"imbalance": True}, "imbalance must be a number"),
    ],
)
def test_bad_arguments_are_named_with_what_is_allowed(arguments, message):
    with pytest.raises(ValueError, match=message):
        SyntheticFaces(**({"n": 8, "size": 32} | arguments))


def test_every_knob_has_a_default_in_range_and_a_meaning():
    for name, knob in KNOBS.items():
        low, high = knob.default if isinstance(knob.default, tuple) else (knob.default, knob.default)
        assert knob.low <= low <= high <= knob.high, name
        assert len(knob.meaning) > 10, name


def test_a_folder_of_pictures_and_its_table(faces, tmp_path):
    few = faces.subset(range(9))
    table = pd.read_csv(write_folder(few, tmp_path / "out"))
    assert list(table.columns[:5]) == ["file", "label", "true_label", "subject", "split"]
    assert len(table) == 9
    assert table.subject.tolist() == few.subjects.tolist()
    column = table[f"AU{NUMBERS[3]}_right"].to_numpy()
    np.testing.assert_allclose(column, few.action_units[:, 3, 1], atol=1e-4)
    for i, row in table.iterrows():
        assert row.file.startswith(f"{row.split}/{row.label}/")
        picture = np.array(Image.open(tmp_path / "out" / row.file))
        assert np.array_equal(picture, few.take([i])[0].permute(1, 2, 0).numpy())


def test_a_folder_with_something_in_it_is_left_alone(faces, tmp_path):
    (tmp_path / "mine.txt").write_text("kept")
    with pytest.raises(ValueError, match="not an empty folder"):
        write_folder(faces, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]
