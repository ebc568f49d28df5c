"""Normalisation, resizing, and what each augmentation does to pixels."""

import numpy as np
import pytest
import torch
from helpers.numbered import generator, pixels_of
from PIL import Image

from fer_lab.data.augmentation import Augmentation, augment, normalize, prepare, to_grey


def picture(size=32, n=2):
    """A smooth colour picture whose left and right differ."""
    y, x = torch.meshgrid(torch.linspace(0, 1, size), torch.linspace(0, 1, size), indexing="ij")
    image = torch.stack([x, y, (x + y) / 2])
    return (image * 200 + 20).to(torch.uint8).expand(n, 3, size, size).clone()


def test_normalize_uses_imagenets_numbers():
    x = picture()
    z = normalize(x)
    assert z[0, 1, 5, 5].item() == pytest.approx((x[0, 1, 5, 5].item() / 255 - 0.456) / 0.224, abs=1e-5)


def test_bgr_swaps_channels_and_keeps_rgb_statistics():
    x = picture()
    z = normalize(x, "BGR")
    assert z[0, 0, 3, 4].item() == pytest.approx((x[0, 2, 3, 4].item() / 255 - 0.485) / 0.229, abs=1e-5)
    with pytest.raises(ValueError, match="RGB"):
        normalize(x, "RBG")
    with pytest.raises(ValueError, match=r"\[\.\.\.,3,H,W\]"):
        normalize(x[:, :1])


def test_prepare_resizes():
    assert prepare(picture(48), 56).shape == (2, 3, 56, 56)
    torch.testing.assert_close(prepare(picture(56), 56), normalize(picture(56)))


def test_no_augmentation_is_evaluation():
    x = picture()
    torch.testing.assert_close(augment(x, 32, Augmentation(), generator()), prepare(x, 32), atol=1e-4, rtol=0)


def test_flip_always_mirrors():
    x = picture()
    torch.testing.assert_close(
        augment(x, 32, Augmentation(flip=1.0), generator()), prepare(x, 32).flip(3), atol=1e-4, rtol=0
    )


def test_a_mask_moves_with_its_face_and_nothing_else_changes_it():
    everything = Augmentation(
        flip=0.5, rotation=20, scale=(0.8, 1.2), shift=0.1, brightness=0.3, contrast=0.3, saturation=0.3,
        hue=0.2, grey_p=0.5, noise=0.1, erasing_p=1.0,
    )  # fmt: skip
    geometry = Augmentation(flip=0.5, rotation=20, scale=(0.8, 1.2), shift=0.1)
    x = picture(n=8)
    with_mask = torch.cat([x, x[:, :1]], 1)
    for order in ("RGB", "GREY"):
        both = augment(with_mask, 16, everything, generator(), color_order=order)
        assert torch.equal(both[:, :3], augment(x, 16, everything, generator(), color_order=order))
        moved = augment(x, 16, geometry, generator())[:, 0] * 0.229 + 0.485
        torch.testing.assert_close(both[:, 3], moved, atol=1e-5, rtol=0)


def test_every_face_has_its_own_draw():
    x = picture(n=40)
    out = augment(x, 32, Augmentation(flip=0.5), generator())
    mirrored = (out - prepare(x, 32).flip(3)).abs().amax((1, 2, 3)) < 1e-3
    assert 8 < mirrored.sum() < 32


def test_scale_above_one_enlarges_the_face():
    dot = torch.zeros(1, 3, 33, 33, dtype=torch.uint8)
    dot[:, :, 12:21, 12:21] = 255
    area = pixels_of(augment(dot, 33, Augmentation(scale=(2.0, 2.0)), generator())).float().mean() / 255
    assert area.item() == pytest.approx(4 * 81 / 33**2, rel=0.1)


def test_rotation_and_shift_stay_within_their_limits():
    dot = torch.zeros(200, 3, 65, 65, dtype=torch.uint8)
    dot[:, :, 31:34, 56:59] = 255  # 25 pixels right of the centre
    place = torch.arange(65.0) - 32

    def centre(a):
        mass = pixels_of(augment(dot, 65, a, generator())).float()[:, 0]
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
    out = pixels_of(augment(grey, 32, a, generator(1))).int()
    assert (out[:, 0] - out[:, 1]).abs().max() <= 1
    assert (out[:, 0] - grey[:, 0].int()).abs().max() > 3


def test_brightness_and_contrast_do_what_they_say():
    x = (picture(n=300) * 0.4).to(torch.uint8)  # dark enough that nothing is clipped
    mean = x.float().mean()
    ratio = pixels_of(augment(x, 32, Augmentation(brightness=0.3), generator())).float().mean((1, 2, 3)) / mean
    assert 0.68 < ratio.min() < 0.75
    assert 1.25 < ratio.max() < 1.32
    out = pixels_of(augment(x, 32, Augmentation(contrast=0.5), generator())).float()
    spread = out.std((1, 2, 3)) / x.float().std((1, 2, 3))
    luma = (out * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1).mean((1, 2))
    assert luma.std() < 1.0
    assert spread.min() < 0.7 < 1.3 < spread.max()


def test_hue_keeps_luma():
    x = (picture(n=50).float() * 0.3 + 80).to(torch.uint8)
    out = pixels_of(augment(x, 32, Augmentation(hue=0.1), generator())).float()
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
    out = pixels_of(augment(x, 32, Augmentation(noise=0.1), generator())).float() / 255
    assert out.std().item() == pytest.approx(0.1, rel=0.05)


def test_shrinking_averages_before_it_samples():
    x = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    x[..., ::2] = 200  # stripes one pixel wide must become grey, not vanish
    out = pixels_of(augment(x, 16, Augmentation(), generator())).float()
    assert out.min() > 90
    assert out.max() < 110


@pytest.mark.parametrize(
    ("field", "value"),
    [("flip", 1.5), ("hue", 0.6), ("noise", -1), ("scale", (0.0, 1.0)), ("erasing_scale", (0.3, 0.1))],
)
def test_bad_augmentations(field, value):
    with pytest.raises(ValueError, match=field):
        Augmentation(**{field: value})
    with pytest.raises(ValueError, match=r"unknown augmentation .*zoom"):
        Augmentation.from_dict({"zoom": 1})


def test_grey_is_pillows_luma_and_leaves_grey_pictures_alone():
    x = picture(n=3)
    grey = to_grey(x)
    for face, same in zip(x, grey, strict=True):
        expected = np.asarray(Image.fromarray(face.permute(1, 2, 0).numpy()).convert("L"))
        assert all((channel.numpy() == expected).all() for channel in same)
    assert torch.equal(to_grey(grey), grey)


def test_a_model_of_grey_pictures_sees_no_colour():
    x = picture(n=40)
    twin = to_grey(x)
    assert torch.equal(prepare(x, 16, "GREY"), prepare(twin, 16, "GREY"))
    assert torch.equal(prepare(twin, 16, "GREY"), prepare(twin, 16, "RGB"))
    assert not torch.allclose(prepare(x, 16, "GREY"), prepare(x, 16, "RGB"), atol=0.1)
    a = Augmentation(flip=0.5, rotation=10, contrast=0.2)
    seen = [augment(images, 32, a, generator(2), color_order="GREY") for images in (x, twin)]
    assert torch.equal(*seen)


def test_random_greying_takes_the_colours_of_its_share_of_faces():
    x = picture(n=400)
    out = pixels_of(augment(x, 32, Augmentation(grey_p=0.3), generator())).int()
    grey = (out[:, 0] - out[:, 1]).abs().amax((1, 2)) <= 1
    assert 0.22 < grey.float().mean() < 0.38
    assert (out[grey][:, 0] - to_grey(x)[grey][:, 0].int()).abs().max() <= 1
    assert (out[~grey] - x[~grey].int()).abs().max() <= 1
