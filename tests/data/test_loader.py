"""Batches: which faces are in them, their partners and targets, and their parts for several processes."""

import dataclasses

import pytest
import torch
from helpers.numbered import face_set, generator, pixels_of

from fer_lab.data.augmentation import Augmentation
from fer_lab.data.faces import REGIONS
from fer_lab.data.loader import Loader, draw_partners


@pytest.mark.parametrize("rule", ["by_frequency", "by_class"])
def test_quadruplets_keep_their_promises(rule):
    labels = torch.tensor([0] * 50 + [1] * 30 + [2] * 5 + [4] * 2)[torch.randperm(87, generator=generator())]
    anchors = torch.arange(87).repeat(20)
    q = draw_partners(labels, anchors, "quadruplet", rule, generator(1))
    assert torch.equal(q[:, 0], anchors)
    a, p, n, m = labels[q].unbind(1)
    assert (a == p).all()
    assert (q[:, 0] != q[:, 1]).all()
    assert (a != n).all()
    assert (n == m).all()
    assert (q[:, 2] != q[:, 3]).all()
    assert len(q[:, 1].unique()) == len(q[:, 2].unique()) == 87


def test_negatives_by_frequency_and_by_class():
    labels = torch.tensor([0] * 10 + [1] * 90 + [2] * 10)
    anchors = torch.zeros(4000, dtype=torch.long)

    def share(rule):
        q = draw_partners(labels, anchors, "quadruplet", rule, generator())
        return (labels[q[:, 2]] == 1).float().mean().item()

    assert share("by_frequency") == pytest.approx(0.9, abs=0.02)
    assert share("by_class") == pytest.approx(0.5, abs=0.03)


def test_partners_that_cannot_be_found():
    with pytest.raises(ValueError, match="no positive for class 1, which has a single face"):
        draw_partners(torch.tensor([0, 0, 1]), torch.tensor([0]), "pair", "by_frequency", generator())
    with pytest.raises(ValueError, match="at least two classes"):
        draw_partners(torch.tensor([0, 0]), torch.tensor([0]), "quadruplet", "by_frequency", generator())


def content(loader):
    return torch.cat([b.indices.flatten() for b in loader])


def test_shuffle_visits_every_face_once_in_another_order_each_epoch():
    loader = Loader(face_set([0, 1] * 25), batch_size=8, size=16)
    first = content(loader)
    assert torch.equal(first.sort().values, torch.arange(50))
    assert torch.equal(first, content(loader))
    loader.set_epoch(1)
    assert not torch.equal(first, content(loader))
    assert len(loader) == 7


def test_images_and_labels_belong_together():
    faces = face_set([0, 1, 2] * 10)
    for batch in Loader(faces, batch_size=7, size=16, augmentation=Augmentation(flip=0.5)):
        assert torch.equal(pixels_of(batch.images)[:, 0, 0, 0].long(), batch.indices)
        assert torch.equal(batch.labels, faces.labels[batch.indices])


def test_balanced_sampling_evens_out_the_classes():
    loader = Loader(face_set([0] * 180 + [1] * 20), batch_size=50, size=16, sampler="balanced")
    labels = torch.cat([b.labels for e in range(10) for b in (loader.set_epoch(e), *loader)[1:]])
    assert len(labels) == 2000
    assert labels.float().mean().item() == pytest.approx(0.5, abs=0.05)


def test_quadruplet_batches():
    batch = next(iter(Loader(face_set([0, 1, 2] * 10), batch_size=6, size=16, kind="quadruplet")))
    assert batch.images.shape == (6, 4, 3, 16, 16)
    assert batch.labels.shape == batch.indices.shape == (6, 4)
    assert torch.equal(pixels_of(batch.images.flatten(0, 1))[:, 0, 0, 0].long(), batch.indices.flatten())
    batch = next(iter(Loader(face_set([0, 1, 2] * 10), batch_size=6, size=16, kind="pair")))
    assert batch.images.shape == (6, 2, 3, 16, 16)


@pytest.mark.parametrize("kind", ["single", "quadruplet"])
def test_a_batch_is_augmented_on_the_device_and_nothing_is_read_back(kind):
    # The meta device has shapes and no numbers: what would make a GPU wait raises there.
    everything = Augmentation(
        flip=0.5, rotation=10, scale=(0.8, 1.2), shift=0.1, brightness=0.2, contrast=0.2, saturation=0.2,
        hue=0.1, grey_p=0.5, noise=0.1, erasing_p=0.5,
    )  # fmt: skip
    known = dict.fromkeys(field.name for field in dataclasses.fields(Augmentation))
    assert {name for name in known if getattr(everything, name) == getattr(Augmentation(), name)} <= {
        "warp_p", "noise_p", "erasing_scale"
    }  # fmt: skip
    loader = Loader(
        face_set([0, 1, 2] * 10), batch_size=6, size=24, kind=kind, augmentation=everything, device="meta"
    )
    for batch in loader:
        assert batch.images.device.type == batch.labels.device.type == "meta"
        assert batch.images.shape[-2:] == (24, 24)


def test_a_class_with_a_single_face_is_named_and_can_be_left_out():
    faces = face_set([0, 0, 1, 2, 2, 3])
    options = {"batch_size": 4, "size": 16, "kind": "quadruplet"}
    with pytest.raises(ValueError, match=r"class 1 \(b\), 3 \(d\), which") as refused:
        next(iter(Loader(faces, **options)))
    offer = str(refused.value).split("leave it out by ")[1].removesuffix(", or add faces")
    two = eval(offer)
    assert two.labels.tolist() == [0, 0, 2, 2]
    assert next(iter(Loader(two, **options))).labels.shape == (4, 4)
    with pytest.raises(ValueError, match="at least two classes"):
        next(iter(Loader(two.subset(two.labels == 0), **options)))


def test_drop_last_and_epoch_fraction():
    faces = face_set([0, 1] * 10)
    assert [len(b) for b in Loader(faces, batch_size=8, size=16)] == [8, 8, 4]
    assert [len(b) for b in Loader(faces, batch_size=8, size=16, drop_last=True)] == [8, 8]
    assert [len(b) for b in Loader(faces, batch_size=32, size=16, drop_last=True)] == [20]
    assert [len(b) for b in Loader(faces, batch_size=8, size=16, epoch_fraction=0.5)] == [8, 2]


def test_two_processes_share_the_global_batch():
    faces = face_set([0, 1] * 20, size=24)
    a = Augmentation(flip=0.5, rotation=20, noise=0.1, erasing_p=0.5)
    for kind in ("single", "quadruplet"):
        options = {"batch_size": 8, "size": 24, "kind": kind, "augmentation": a}
        whole = list(Loader(faces, **options))
        halves = [list(Loader(faces, rank=r, world_size=2, **options)) for r in range(2)]
        for one, left, right in zip(whole, *halves, strict=True):
            assert torch.equal(one.indices, torch.cat([left.indices, right.indices]))
            torch.testing.assert_close(one.images, torch.cat([left.images, right.images]))


def test_the_places_that_moved_come_along():
    n = 12
    regions = torch.zeros(n, 16, 16, dtype=torch.uint8)
    regions[:, :, :4] = 1 << REGIONS.index("moved")
    regions[:, 8:] |= 1 << REGIONS.index("mouth")
    faces = dataclasses.replace(face_set([0, 1] * 6), regions=regions)
    for kind, group in (("single", ()), ("quadruplet", (4,))):
        options = {"batch_size": 6, "size": 8, "kind": kind, "moved": True}
        batch = next(iter(Loader(faces, augmentation=Augmentation(flip=1.0), **options)))
        assert batch.moved.shape == (6, *group, 1, 8, 8)
        expected = torch.tensor([0.0] * 6 + [1.0] * 2).expand_as(batch.moved)
        torch.testing.assert_close(batch.moved, expected, atol=1e-5, rtol=0)
        assert torch.equal(pixels_of(batch.images)[..., 0, 0, 0].long(), batch.indices)
        torch.testing.assert_close(next(iter(Loader(faces, **options))).moved, expected.flip(-1))
    assert next(iter(Loader(faces, batch_size=6, size=8))).moved is None
    with pytest.raises(ValueError, match="only rendered faces can teach"):
        Loader(face_set([0, 1]), batch_size=2, size=16, moved=True)


def test_soft_targets_and_smoothing():
    faces = face_set([0, 1, 2, 0])
    votes = torch.tensor([[0.7, 0.3, 0.0], [0.0, 1.0, 0.0], [0.2, 0.2, 0.6], [1.0, 0.0, 0.0]])
    voted = dataclasses.replace(faces, votes=votes)
    batch = next(iter(Loader(voted, batch_size=4, size=16, sampler="sequential", soft_targets=True)))
    torch.testing.assert_close(batch.targets, votes)
    batch = next(iter(Loader(faces, batch_size=4, size=16, sampler="sequential", label_smoothing=0.3)))
    torch.testing.assert_close(batch.targets[0], torch.tensor([0.8, 0.1, 0.1]))
    assert next(iter(Loader(faces, batch_size=4, size=16))).targets is None
    with pytest.raises(ValueError, match="votes"):
        Loader(faces, batch_size=4, size=16, soft_targets=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"kind": "triple"}, "kind"), ({"sampler": "random"}, "sampler"), ({"world_size": 3}, "3 processes")],
)
def test_bad_loaders(options, message):
    with pytest.raises(ValueError, match=message):
        Loader(face_set([0, 1]), **{"batch_size": 8, "size": 16, **options})
