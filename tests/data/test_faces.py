"""FaceSet and FaceBatch: what is shared, what is copied, what is refused."""

import numpy as np
import pandas as pd
import pytest
import torch

from fer_lab.data.faces import REGIONS, FaceBatch, FaceSet


def make_faces(n=12, size=4, people=None, **more):
    """`n` faces in three classes; every pixel of face i is i."""
    storage = torch.arange(n, dtype=torch.uint8)[:, None, None, None].expand(n, 3, size, size).contiguous()
    given = {
        "storage": storage,
        "labels": torch.arange(n) % 3,
        "classes": ("neutral", "happiness", "surprise"),
        "splits": np.array(["train"] * (n - n // 3) + ["test"] * (n // 3)),
        "subjects": torch.full((n,), -1) if people is None else torch.as_tensor(people),
        "name": "toy",
        "fingerprint": "f00d",
    }
    return FaceSet(**given | more)


def first_pixels(images):
    return images[..., 0, 0, 0].tolist()


def test_what_it_knows_of_itself():
    faces = make_faces()
    assert len(faces) == 12
    assert faces.num_classes == 3
    assert faces.image_size == 4
    assert faces.class_counts().tolist() == [4, 4, 4]
    assert repr(faces) == "FaceSet('toy', 12 faces of 4×4 px: neutral 4, happiness 4, surprise 4)"


def test_a_single_coloured_face_makes_a_set_coloured():
    faces = make_faces(n=2000, size=2)
    assert faces.is_grey()
    faces.storage[1999, 2, 0, 0] += 1
    assert not faces.is_grey()
    assert faces.subset(range(1999)).is_grey()
    assert not faces.subset([]).is_grey()


def test_one_of_each_class_that_is_there():
    labels = torch.tensor([2, 0, 2, 0])
    assert make_faces(4, labels=labels).one_of_each_class().tolist() == [1, 0]
    assert make_faces().one_of_each_class().tolist() == [0, 1, 2]
    assert make_faces().subset([]).one_of_each_class().tolist() == []


def test_a_whole_set_shows_its_storage_and_a_part_copies():
    faces = make_faces()
    assert faces.images.data_ptr() == faces.storage.data_ptr()
    part = faces.subset([5, 2])
    assert part.storage.data_ptr() == faces.storage.data_ptr()
    assert first_pixels(part.images) == [5, 2]


def test_take_keeps_the_shape_of_the_indices():
    taken = make_faces().subset([7, 1, 3, 9]).take(torch.tensor([[0, 1], [3, 3]]))
    assert taken.shape == (2, 2, 3, 4, 4)
    assert first_pixels(taken) == [[7, 1], [9, 9]]


def test_subsets_carry_everything_that_is_known_of_a_face():
    n = 12
    faces = make_faces(
        files=np.array([f"{i}.png" for i in range(n)]),
        votes=torch.eye(3)[torch.arange(n) % 3],
        true_labels=torch.arange(n) % 3,
        action_units=torch.rand(n, 2, 2),
        landmarks=torch.rand(n, 68, 2),
        attributes=pd.DataFrame({"tone": range(n)}),
    )
    part = faces.subset([4, 0]).subset([0])
    assert part.files.tolist() == ["4.png"]
    assert part.votes.tolist() == [[0, 1, 0]]
    assert part.labels.tolist() == part.true_labels.tolist() == [1]
    assert torch.equal(part.action_units, faces.action_units[4:5])
    assert torch.equal(part.landmarks, faces.landmarks[4:5])
    assert part.attributes["tone"].tolist() == [4]
    assert part.attributes.index.tolist() == [0]


def test_a_mask_chooses_as_indices_do():
    faces = make_faces()
    assert first_pixels(faces.subset(faces.labels == 2).images) == [2, 5, 8, 11]
    assert len(faces.subset(torch.zeros(12, dtype=torch.bool))) == 0


def test_the_fingerprint_names_the_chosen_faces():
    faces = make_faces()
    assert faces.subset([1, 2]).fingerprint == faces.subset([1, 2]).fingerprint
    prints = {f.fingerprint for f in (faces, faces.subset([1, 2]), faces.subset([2, 1]), faces.subset([1]))}
    assert len(prints) == 4


def test_splits():
    faces = make_faces()
    assert first_pixels(faces.split("test").images) == [8, 9, 10, 11]
    with pytest.raises(ValueError, match=r"toy has no 'valid' faces; it has .*test.*train"):
        faces.split("valid")


@pytest.mark.parametrize(
    ("name", "splits", "reported"),
    [
        ("synthetic", ["train", "valid", "test"], "test"),
        ("affectnet", ["train", "train", "valid"], "valid"),
        ("ferplus", ["train", "valid", "test"], "valid"),
        ("rafdb", ["train", "train", "test"], "test"),
    ],
)
def test_the_reported_split(name, splits, reported):
    assert make_faces(3, name=name, splits=np.array(splits)).reported_split() == reported


def test_holdout_without_subjects_is_stratified():
    faces = make_faces(n=120)
    rest, held = faces.holdout(0.1, seed=3)
    assert held.class_counts().tolist() == [4, 4, 4]
    assert sorted(first_pixels(rest.images) + first_pixels(held.images)) == list(range(120))
    assert first_pixels(faces.holdout(0.1, seed=3)[1].images) == first_pixels(held.images)
    assert first_pixels(faces.holdout(0.1, seed=4)[1].images) != first_pixels(held.images)


def test_a_set_too_small_for_shares_still_gives_up_one_face():
    rest, held = make_faces(8).holdout(0.1)
    assert (len(rest), len(held)) == (7, 1)
    with pytest.raises(ValueError, match=r"1 training faces of .* cannot be cut in two"):
        make_faces(1).holdout(0.1)


def test_holdout_with_subjects_parts_no_person():
    faces = make_faces(n=60, people=[i // 6 for i in range(60)])
    rest, held = faces.holdout(0.2)
    assert len(set(held.subjects.tolist())) == 2
    assert not set(held.subjects.tolist()) & set(rest.subjects.tolist())
    assert len(held) + len(rest) == 60


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5])
def test_holdout_wants_a_part(fraction):
    with pytest.raises(ValueError, match="between 0 and 1"):
        make_faces().holdout(fraction)


def test_region_masks_unpack_the_bits():
    regions = torch.zeros(12, 4, 4, dtype=torch.uint8)
    regions[3, 1, 2] = 1 << REGIONS.index("eyes") | 1 << REGIONS.index("moved")
    masks = make_faces(regions=regions).subset([0, 3]).region_masks([1])
    assert masks.shape == (1, len(REGIONS), 4, 4)
    assert masks.dtype == torch.bool
    assert masks.nonzero().tolist() == [[0, 1, 1, 2], [0, 5, 1, 2]]
    with pytest.raises(ValueError, match="toy has no region masks; only rendered faces do"):
        make_faces().region_masks([0])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"storage": torch.zeros(12, 3, 4, 4)}, r"uint8 \[N,3,S,S\], got torch.float32 \[12, 3, 4, 4\]"),
        ({"storage": torch.zeros(12, 1, 4, 4, dtype=torch.uint8)}, r"got torch.uint8 \[12, 1, 4, 4\]"),
        ({"labels": torch.full((12,), 3)}, r"labels run from 3 to 3, but there are 3 classes \(0 to 2\)"),
        ({"labels": torch.full((12,), -1)}, "labels run from -1"),
        ({"subjects": torch.zeros(11)}, "subjects has 11 entries for 12 faces"),
        ({"votes": torch.zeros(5, 3)}, "votes has 5 entries for 12 faces"),
        ({"splits": np.array(["dev"] * 12)}, r"unknown splits \[.*'dev'.*\]; expected"),
    ],
)
def test_what_does_not_fit_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        make_faces(**wrong)


def test_a_batch_counts_its_items():
    images = torch.zeros(5, 4, 3, 2, 2)
    labels = torch.zeros(5, 4, dtype=torch.long)
    assert len(FaceBatch(images=images, labels=labels, indices=labels)) == 5


def test_a_share_of_the_training_faces_of_every_class():
    labels = torch.arange(120) % 3
    labels[3:60:3] = 1  # class 0 has few faces
    faces = make_faces(120, labels=labels)
    small, large = faces.thin_train(0.05, seed=1), faces.thin_train(0.5, seed=1)
    training = faces.split("train").class_counts()
    assert large.split("train").class_counts().tolist() == (0.5 * training).round().long().tolist()
    assert small.split("train").class_counts().tolist() == [max(1, round(0.05 * n)) for n in training.tolist()]
    assert set(small.rows.tolist()) < set(large.rows.tolist())
    for part in (small, large):
        assert part.split("test").rows.tolist() == faces.split("test").rows.tolist()
    assert faces.thin_train(0.5, seed=2).rows.tolist() != large.rows.tolist()
    assert len(faces.thin_train(1)) == len(faces)
    for share in (0, 1.01, -0.5):
        with pytest.raises(ValueError, match="train_share must be above 0"):
            faces.thin_train(share)
