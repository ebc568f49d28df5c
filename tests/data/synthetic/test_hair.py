"""Hair styles and beards look different and lie where they should."""

import torch

from fer_lab.data.synthetic.anatomy import BEARDS, HAIR_STYLES, Identity, neutral_face
from fer_lab.data.synthetic.drawing import render
from fer_lab.data.synthetic.hair import HAIR, beard_cover

PLAIN = Identity.sample(1, 0, spread=0.0).replace(skin_tone=0.1, hair=0.05)


def portraits(**fields):
    n = len(next(iter(fields.values())))
    return render({}, PLAIN.take([0] * n).replace(**fields), size=64).images.float().mean(1)


def test_styles_differ_and_keep_off_the_features():
    assert len(HAIR) == len(HAIR_STYLES)
    images = portraits(hair_style=torch.arange(len(HAIR_STYLES)))
    for i in range(len(images)):
        for j in range(i):
            assert (images[i] - images[j]).abs().mean() > 1.0, (HAIR_STYLES[i], HAIR_STYLES[j])
    centre = images[:, 28:48, 25:39]
    assert (centre - centre[:1]).abs().max() < 25


def test_long_hair_reaches_the_shoulders_and_a_crop_does_not():
    beside = portraits(hair_style=torch.tensor([HAIR_STYLES.index("long"), HAIR_STYLES.index("crop")]))
    assert beside[0, 48:54, 10:13].mean() < 60
    assert beside[1, 48:54, 10:13].mean() > 120


def test_beards_darken_their_part_of_the_face():
    images = portraits(beard=torch.arange(len(BEARDS)))
    none, stubble, moustache, goatee, full = images
    chin, lip, cheek = (
        (slice(53, 56), slice(29, 35)),
        (slice(42, 44), slice(28, 36)),
        (slice(46, 50), slice(17, 20)),
    )
    assert none[chin].mean() > 120
    for beard, places in ((full, (chin, lip, cheek)), (goatee, (chin, lip)), (moustache, (lip,))):
        for place in places:
            assert beard[place].mean() < none[place].mean() - 40
    assert none[chin].mean() - 45 < stubble[chin].mean() < none[chin].mean() - 5
    assert (images[:, 20:40, 22:42] - images[:1, 20:40, 22:42]).abs().max() < 12


def test_no_beard_costs_and_covers_nothing():
    x = torch.zeros(2, 3, 3)
    who = PLAIN.take([0, 0])
    alpha, extra, tone = beard_cover(neutral_face(who), who, x, x)
    assert alpha.sum() == 0
    assert extra.sum() == 0
    assert (tone == 1).all()
