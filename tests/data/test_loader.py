import dataclasses

import numpy as np
import pytest
import torch

from fer_lab.data.augmentation import Augmentation, augment, denormalize, normalize, prepare
from fer_lab.data.faces import FaceSet
from fer_lab.data.loader import Loader, draw_partners


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def picture(size=32, n=2):
    """A smooth colour picture whose left and right differ."""
    y, x = torch.meshgrid(torch.linspace(0, 1, size), torch.linspace(0, 1, size), indexing="ij")
    image = torch.stack([x, y, (x + y) / 2])
    return (image * 200 + 20).to(torch.uint8).expand(n, 3, size, size).clone()


def face_set(labels, size=16):
    labels = torch.as_tensor(labels)
    n = len(labels)
    images = torch.arange(n, dtype=torch.uint8)[:, None, None, None].expand(n, 3, size, size).clone()
    return FaceSet(
        storage=images,
        labels=labels,
        classes=tuple("abcdefgh"[: int(labels.max()) + 1]),
        splits=np.array(["train"] * n),
        subjects=torch.full((n,), -1),
        name="numbers",
        fingerprint="numbers",
    )


# ------------------------------------------------------------------ normalising


def test_normalize_uses_imagenets_numbers_and_inverts():
    x = picture()
    z = normalize(x)
    assert z[0, 1, 5, 5].item() == pytest.approx((x[0, 1, 5, 5].item() / 255 - 0.456) / 0.224, abs=1e-5)
    assert torch.equal(denormalize(z), x)


def test_bgr_swaps_channels_and_keeps_rgb_statistics():
    x = picture()
    z = normalize(x, "BGR")
    assert z[0, 0, 3, 4].item() == pytest.approx((x[0, 2, 3, 4].item() / 255 - 0.485) / 0.229, abs=1e-5)
    assert torch.equal(denormalize(z, "BGR"), x)
    with pytest.raises(ValueError, match="RGB"):
        normalize(x, "RBG")
    with pytest.raises(ValueError, match=r"\[\.\.\.,3,H,W\]"):
        normalize(x[:, :1])


def test_prepare_resizes():
    assert prepare(picture(48), 56).shape == (2, 3, 56, 56)
    torch.testing.assert_close(prepare(picture(56), 56), normalize(picture(56)))


# ------------------------------------------------------------------ augmentation


def test_no_augmentation_is_evaluation():
    x = picture()
    torch.testing.assert_close(augment(x, 32, Augmentation(), generator()), prepare(x, 32), atol=1e-4, rtol=0)


def test_flip_always_mirrors():
    x = picture()
    torch.testing.assert_close(
        augment(x, 32, Augmentation(flip=1.0), generator()), prepare(x, 32).flip(3), atol=1e-4, rtol=0
    )


def test_every_face_has_its_own_draw():
    x = picture(n=40)
    out = augment(x, 32, Augmentation(flip=0.5), generator())
    mirrored = (out - prepare(x, 32).flip(3)).abs().amax((1, 2, 3)) < 1e-3
    assert 8 < mirrored.sum() < 32


def test_scale_above_one_enlarges_the_face():
    dot = torch.zeros(1, 3, 33, 33, dtype=torch.uint8)
    dot[:, :, 12:21, 12:21] = 255
    area = denormalize(augment(dot, 33, Augmentation(scale=(2.0, 2.0)), generator())).float().mean() / 255
    assert area.item() == pytest.approx(4 * 81 / 33**2, rel=0.1)


def test_rotation_and_shift_stay_within_their_limits():
    dot = torch.zeros(200, 3, 65, 65, dtype=torch.uint8)
    dot[:, :, 31:34, 56:59] = 255  # 25 pixels right of the centre
    place = torch.arange(65.0) - 32

    def centre(a):
        mass = denormalize(augment(dot, 65, a, generator())).float()[:, 0]
        total = mass.sum((1, 2))
        return (mass * place).sum((1, 2)) / total, (mass * place[:, None]).sum((1, 2)) / total

    x, y = centre(Augmentation(rotation=20))
    angles = torch.rad2deg(torch.atan2(y, x))
    assert 18 < angles.abs().max() < 20.7
    assert angles.min() < -15
    x, _ = centre(Augmentation(shift=0.1))
    assert 5.5 < (x - 25).abs().max() < 7
    x, y = centre(Augmentation(rotation=20, warp_p=0.2))
    assert 20 < (y.abs() > 0.5).sum() < 60


def test_colour_changes_keep_grey_pictures_grey():
    grey = picture()[:, :1].expand(-1, 3, -1, -1).contiguous()
    a = Augmentation(saturation=0.9, hue=0.5, contrast=0.5, brightness=0.3)
    out = denormalize(augment(grey, 32, a, generator(1))).int()
    assert (out[:, 0] - out[:, 1]).abs().max() <= 1
    assert (out[:, 0] - grey[:, 0].int()).abs().max() > 3


def test_brightness_and_contrast_do_what_they_say():
    x = (picture(n=300) * 0.4).to(torch.uint8)  # dark enough that nothing is clipped
    mean = x.float().mean()
    ratio = (
        denormalize(augment(x, 32, Augmentation(brightness=0.3), generator())).float().mean((1, 2, 3)) / mean
    )
    assert 0.68 < ratio.min() < 0.75
    assert 1.25 < ratio.max() < 1.32
    out = denormalize(augment(x, 32, Augmentation(contrast=0.5), generator())).float()
    spread = out.std((1, 2, 3)) / x.float().std((1, 2, 3))
    luma = (out * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1).mean((1, 2))
    assert luma.std() < 1.0
    assert spread.min() < 0.7 < 1.3 < spread.max()


def test_hue_keeps_luma():
    x = (picture(n=50).float() * 0.3 + 80).to(torch.uint8)
    out = denormalize(augment(x, 32, Augmentation(hue=0.1), generator())).float()
    weights = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    assert ((out - x) * weights).sum(1).abs().max() < 2
    assert (out - x).abs().max() > 5


def test_erasing_blanks_a_rectangle_of_the_asked_size():
    x = picture(size=64, n=200)
    a = Augmentation(erasing_p=0.5, erasing_scale=(0.1, 0.2))
    blank = (augment(x, 64, a, generator()) == 0).all(1).float().mean((1, 2))
    erased = blank > 0.05
    assert 70 < erased.sum() < 130
    assert blank[erased].min() > 0.08
    assert blank[erased].max() < 0.23


def test_noise_has_the_asked_strength():
    x = torch.full((20, 3, 32, 32), 128, dtype=torch.uint8)
    out = denormalize(augment(x, 32, Augmentation(noise=0.1), generator())).float() / 255
    assert out.std().item() == pytest.approx(0.1, rel=0.05)


def test_shrinking_averages_before_it_samples():
    x = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    x[..., ::2] = 200  # stripes one pixel wide must become grey, not vanish
    out = denormalize(augment(x, 16, Augmentation(), generator())).float()
    assert out.min() > 90
    assert out.max() < 110


@pytest.mark.parametrize(
    ("field", "value"),
    [("flip", 1.5), ("hue", 0.6), ("noise", -1), ("scale", (0.0, 1.0)), ("erasing_scale", (0.3, 0.1))],
)
def test_bad_augmentations(field, value):
    with pytest.raises(ValueError, match=field):
        Augmentation(**{field: value})
    with pytest.raises(ValueError, match="zoom"):
        Augmentation.from_dict({"zoom": 1})


# ------------------------------------------------------------------ pairs and quadruplets


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


# ------------------------------------------------------------------ loader


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
        assert torch.equal(denormalize(batch.images)[:, 0, 0, 0].long(), batch.indices)
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
    assert torch.equal(denormalize(batch.images.flatten(0, 1))[:, 0, 0, 0].long(), batch.indices.flatten())
    batch = next(iter(Loader(face_set([0, 1, 2] * 10), batch_size=6, size=16, kind="pair")))
    assert batch.images.shape == (6, 2, 3, 16, 16)


@pytest.mark.parametrize("kind", ["single", "quadruplet"])
def test_a_batch_is_augmented_on_the_device_and_nothing_is_read_back(kind):
    # The meta device has shapes and no numbers: what would make a GPU wait raises there.
    everything = Augmentation(
        flip=0.5, rotation=10, scale=(0.8, 1.2), shift=0.1, brightness=0.2, contrast=0.2, saturation=0.2,
        hue=0.1, noise=0.1, erasing_p=0.5,
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
