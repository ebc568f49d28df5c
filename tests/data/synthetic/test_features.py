"""Eyes, brows, nose and mouth are drawn where the 68 landmarks say."""

import pytest
import torch

from fer_lab.data.expressions import CANONICAL
from fer_lab.data.faces import REGIONS
from fer_lab.data.synthetic.action_units import expression_units
from fer_lab.data.synthetic.anatomy import GLASSES, Identity, Nuisance
from fer_lab.data.synthetic.drawing import render

SIZE = 96
PLAIN = Identity.sample(1, 0, spread=0.0)


@pytest.fixture(scope="module")
def crowd():
    """Every expression on other people, turned and rolled."""
    n = 16
    g = torch.Generator().manual_seed(3)
    how = Nuisance.none(n).replace(
        roll=12 * torch.randn(n, generator=g).clamp(-1, 1),
        yaw=12 * torch.randn(n, generator=g).clamp(-1, 1),
        scale=0.9 + 0.2 * torch.rand(n, generator=g),
    )
    units = torch.stack([expression_units(name) for name in CANONICAL]).repeat(2, 1, 1)
    return render(units, Identity.sample(n, 4), how, SIZE)


def bits(rendering, name):
    return (rendering.regions >> REGIONS.index(name) & 1).bool()


def at(mask, points):
    """Values of mask [B,S,S] at points [B,K,2]."""
    p = points.round().long().clamp(0, mask.shape[-1] - 1)
    return mask[torch.arange(len(mask))[:, None], p[..., 1], p[..., 0]]


def test_landmarks_lie_in_their_regions(crowd):
    for name, which in (
        ("brows", range(18, 26)),
        ("eyes", range(36, 48)),
        ("mouth", range(49, 68)),
        ("nose", range(28, 34)),
    ):
        inside = at(bits(crowd, name), crowd.landmarks[:, list(which)])
        assert inside.float().mean() > 0.93, name


def test_regions_are_small_and_apart(crowd):
    for name, low, high in (
        ("brows", 0.006, 0.06),
        ("eyes", 0.01, 0.07),
        ("nose", 0.01, 0.06),
        ("mouth", 0.005, 0.09),
    ):
        share = bits(crowd, name).float().mean((1, 2))
        assert (share > low).all(), name
        assert (share < high).all(), name
    assert not (bits(crowd, "mouth") & bits(crowd, "eyes")).any()


def test_ibug_order_on_an_upright_face():
    p = render({}, PLAIN, size=SIZE).landmarks[0]
    assert (p[:17, 0].diff() > 0).all()
    assert p[8, 1] == p[:17, 1].max()
    assert (p[17:27, 0].diff() > 0).all()
    assert (p[27:31, 1].diff() > 0).all()
    assert (p[31:36, 0].diff() > 0).all()
    assert p[36, 0] < p[37, 0] < p[38, 0] < p[39, 0] < p[42, 0] < p[45, 0]
    assert (p[[37, 38, 43, 44], 1] < p[[41, 40, 47, 46], 1]).all()
    assert (p[48:55, 0].diff() > 0).all()
    assert p[51, 1] < p[62, 1] <= p[66, 1] < p[57, 1]
    # a symmetric person: mirrored points agree
    for a, b in ((0, 16), (17, 26), (36, 45), (39, 42), (48, 54), (31, 35)):
        torch.testing.assert_close(p[a, 0] + p[b, 0], torch.tensor(SIZE - 1.0), atol=1e-3, rtol=0)
        torch.testing.assert_close(p[a, 1], p[b, 1], atol=1e-3, rtol=0)


def brightness(image, point, radius=1):
    x, y = point.round().long().tolist()
    return image[:, y - radius : y + radius + 1, x - radius : x + radius + 1].float().mean().item()


def test_an_eye_has_a_dark_iris_between_bright_whites():
    r = render({5: 1.0}, PLAIN, size=192)
    p = r.landmarks[0]
    middle = (p[36] + p[39]) / 2
    iris = brightness(r.images[0], middle + torch.tensor([0.0, 2.0]), 2)
    whites = [brightness(r.images[0], middle + (p[k] - middle) * 0.68) for k in (36, 39)]
    assert min(whites) > iris + 60


def test_gaze_moves_the_iris():
    how = Nuisance.none(2).replace(gaze=torch.tensor([[-0.8, 0.0], [0.8, 0.0]]))
    r = render({5: 0.5}, PLAIN, how, size=192)
    for k in (36, 42):
        left, right = (r.landmarks[0, k] * (1 - t) + r.landmarks[0, k + 3] * t for t in (0.28, 0.72))
        assert brightness(r.images[0], left) < brightness(r.images[1], left) - 40
        assert brightness(r.images[1], right) < brightness(r.images[0], right) - 40


def test_brows_are_darker_than_the_forehead():
    r = render({}, PLAIN.replace(skin_tone=0.1), size=192)
    for k in (19, 24):
        point = r.landmarks[0, k]
        assert brightness(r.images[0], point) < brightness(r.images[0], point - torch.tensor([0.0, 10.0])) - 50


def test_an_open_mouth_shows_teeth_above_a_dark_throat():
    r = render(expression_units("surprise"), PLAIN, size=192)
    top, bottom = r.landmarks[0, 62], r.landmarks[0, 66]
    assert (bottom - top)[1] > 12
    teeth = brightness(r.images[0], top + 0.18 * (bottom - top))
    throat = brightness(r.images[0], top + 0.55 * (bottom - top), 0)
    assert teeth > 170
    assert throat < 90


def test_glasses_change_the_eye_region_alone():
    who = PLAIN.take([0] * len(GLASSES)).replace(glasses=torch.arange(len(GLASSES)))
    images = render({}, who, size=64).images.float()
    change = (images - images[:1]).abs().amax(1)
    assert change[1:, 20:38].amax((1, 2)).min() > 60
    assert change[:, 42:].max() == 0
    assert change[:, :16].max() == 0
