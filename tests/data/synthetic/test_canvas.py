"""Soft edges, windows and blob fields against the slow way of computing them."""

import pytest
import torch

from fer_lab.data.synthetic.anatomy import Nuisance
from fer_lab.data.synthetic.canvas import Canvas, Window, bell, edge, paint, ramp


@pytest.fixture
def canvas():
    how = Nuisance.none(2).replace(
        roll=torch.tensor([0.0, 12.0]),
        scale=torch.tensor([1.0, 0.8]),
        shift=torch.tensor([[0.0, 0.0], [0.1, -0.05]]),
    )
    canvas = Canvas(how, 48)
    canvas.colors.copy_(torch.rand(canvas.colors.shape, generator=torch.Generator().manual_seed(0)))
    return canvas


def test_edge_ramp_and_bell_by_hand():
    assert edge(torch.tensor([-1.0, 0.0, 0.01, 1.0]), 0.04).tolist() == [0.0, 0.5, 0.75, 1.0]
    assert ramp(torch.tensor([0.0, 1.0, 2.0, 3.0]), 1, 3).tolist() == [0.0, 0.0, 0.5, 1.0]
    torch.testing.assert_close(bell(torch.tensor(0.2), 0.2), torch.tensor(0.36787944))


def test_paint_blends_by_coverage():
    picture = torch.zeros(1, 3, 1, 2)
    paint(picture, torch.tensor([1.0, 0.5, 0.0]).view(1, 3, 1, 1), torch.tensor([[[0.0, 0.5]]]))
    assert picture[0, :, 0].T.tolist() == [[0.0, 0.0, 0.0], [0.5, 0.25, 0.0]]


def test_pixel_centres_have_the_right_face_units():
    canvas = Canvas(Nuisance.none(1), 4)
    assert canvas.x[0, 0].tolist() == [-0.75, -0.25, 0.25, 0.75]
    assert canvas.y[0, :, 2].tolist() == [-0.75, -0.25, 0.25, 0.75]


def blobs():
    x = torch.tensor([[0.1, -0.4], [0.0, 0.3]])
    y = torch.tensor([[0.2, 0.0], [-0.3, 0.5]])
    return x, y, torch.tensor([[0.15, 0.2], [0.3, 0.12]]), torch.tensor([[1.0, -0.5], [0.7, 2.0]])


def test_field_is_the_sum_of_gaussians(canvas):
    x, y, radius, weight = blobs()
    got = canvas.field(x, y, radius, torch.stack([weight, weight**2], 1))
    for field, w in enumerate((weight, weight**2)):
        want = torch.zeros(2, 48, 48)
        for k in range(2):
            cx, cy, r, h = (v[:, k].view(2, 1, 1) for v in (x, y, radius, w))
            want += h * torch.exp(-((canvas.x - cx) ** 2 + (canvas.y - cy) ** 2) / (2 * r * r))
        torch.testing.assert_close(got[:, field], want, atol=1e-5, rtol=1e-4)


def test_relief_slopes_are_the_gaussians_derivatives_along_the_pictures_axes(canvas):
    x, y, radius, height = blobs()
    along, (down, field) = canvas.relief(x, y, radius, height, height)
    in_x, in_y = torch.zeros(2, 48, 48), torch.zeros(2, 48, 48)
    for k in range(2):
        cx, cy, r, h = (v[:, k].view(2, 1, 1) for v in (x, y, radius, height))
        dx, dy = canvas.x - cx, canvas.y - cy
        blob = h * torch.exp(-(dx**2 + dy**2) / (2 * r * r))
        in_x, in_y = in_x - dx / r**2 * blob, in_y - dy / r**2 * blob
    roll = torch.deg2rad(canvas.how.roll).view(2, 1, 1)
    torch.testing.assert_close(along, roll.cos() * in_x - roll.sin() * in_y, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(down, roll.sin() * in_x + roll.cos() * in_y, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(field, canvas.field(x, y, radius, height[:, None])[:, 0])


def test_window_sees_the_canvas_and_writes_back_only_itself(canvas):
    before = canvas.colors.clone()
    window = Window(canvas, torch.tensor([0.2, -0.9]), torch.tensor([0.1, 0.9]), 0.2, 0.1)
    flat = window.index[:, 0]
    torch.testing.assert_close(window.x.flatten(1), canvas.x.flatten(1).gather(1, flat))
    torch.testing.assert_close(window.y.flatten(1), canvas.y.flatten(1).gather(1, flat))
    window.close()
    assert torch.equal(canvas.colors, before)
    window.colors[:] = 2.0
    window.close()
    changed = (canvas.colors == 2.0).all(1).flatten(1)
    assert torch.equal(changed.nonzero()[:, 1].view(2, -1), flat.sort(1).values)


def test_mark_sets_one_bit_and_keeps_the_others(canvas):
    canvas.regions |= 1
    window = Window(canvas, torch.zeros(2), torch.zeros(2), 0.2, 0.2)
    inside = (window.x**2 + window.y**2) < 0.02
    window.mark(3, inside)
    assert (canvas.regions >> 3 & 1).sum() == inside.sum() > 20
    assert (canvas.regions & 1).all()
