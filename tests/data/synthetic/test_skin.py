"""The outline, the skin's colour and its folds."""

import torch

from fer_lab.data.synthetic.action_units import action_units, move
from fer_lab.data.synthetic.anatomy import Identity, Nuisance, head_halfwidth, neutral_face
from fer_lab.data.synthetic.canvas import Canvas
from fer_lab.data.synthetic.drawing import render
from fer_lab.data.synthetic.skin import face_relief, head_distance, skin_base

WHO = Identity.sample(1, 0, spread=0.0)


def test_drawn_outline_is_the_outline_that_the_jaw_landmarks_follow():
    who = Identity.sample(8, 1)
    face = neutral_face(who)
    y = torch.linspace(-0.6, 0.7, 9).expand(8, 9)
    half = head_halfwidth(face, y)
    on = head_distance(face, half[:, None], y[:, None])
    assert on.abs().max() < 1e-3
    assert (head_distance(face, 0.9 * half[:, None], y[:, None]) > 0.005).all()
    assert (head_distance(face, 1.1 * half[:, None], y[:, None]) < -0.005).all()


def test_skin_tone_darkens():
    tones = torch.linspace(0, 1, 9)
    who = WHO.take([0] * 9).replace(skin_tone=tones)
    base = skin_base(who).mean(1)
    assert (base.diff() < -0.02).all()
    cheeks = render({}, who, size=64).images[:, :, 36:40, 18:22].float().mean((1, 2, 3))
    assert (cheeks.diff() < -3).all()


def fold_shade(units, x, y):
    """Shade of the folds at a place on the plain face."""
    face = move(neutral_face(WHO), action_units(units))
    how = Nuisance.none(1)
    canvas = Canvas(how, 96)
    shade = face_relief(face, WHO, how).sums(canvas)[2][0]
    column, row = (round((v + 1) * 48 - 0.5) for v in (x, y))
    return shade[row - 2 : row + 3, column - 2 : column + 3].max().item()


def test_units_put_wrinkles_where_they_belong():
    for unit, x, y in ((1, 0.0, -0.41), (2, 0.32, -0.42), (4, 0.06, -0.24), (9, 0.02, -0.05), (6, 0.47, -0.08)):
        assert fold_shade({unit: 1.0}, x, y) > fold_shade({}, x, y) + 0.08, unit


def test_age_deepens_folds():
    old, young = (render({}, WHO.replace(age=a, hair_style=0), size=96).images.float() for a in (1.0, 0.0))
    detail = [(im[..., 1:, :] - im[..., :-1, :])[:, :, 22:30, 34:62].abs().mean() for im in (old, young)]
    assert detail[0] > 1.3 * detail[1]


def test_light_from_the_left_brightens_the_left_cheek():
    how = Nuisance.none(2).replace(light=torch.tensor([[-1.0, 0.0], [1.0, 0.0]]), ambient=0.2)
    left = render(torch.zeros(2, 16, 2), WHO, how, size=64).images.float().mean(1)[:, 34:42, 17:23].mean((1, 2))
    right = (
        render(torch.zeros(2, 16, 2), WHO, how, size=64).images.float().mean(1)[:, 34:42, 41:47].mean((1, 2))
    )
    assert left[0] > right[0] + 15
    assert right[1] > left[1] + 15
