"""render: same input, same bytes; every nuisance does what its name says; bad input is refused."""

import pytest
import torch

from fer_lab.data.expressions import CANONICAL
from fer_lab.data.faces import REGIONS
from fer_lab.data.synthetic import drawing
from fer_lab.data.synthetic.action_units import expression_units
from fer_lab.data.synthetic.anatomy import Identity, Nuisance
from fer_lab.data.synthetic.drawing import render

WHO = Identity.sample(1, 0, spread=0.0)
PLAIN = Nuisance.none(1)


def picture(**nuisance):
    return render({}, WHO, PLAIN.replace(**nuisance), 64).images[0].float()


def test_shapes_types_and_equal_bytes():
    units = torch.stack([expression_units(name) for name in CANONICAL])
    who = Identity.sample(8, 1)
    first, second = render(units, who, None, 56), render(units, who, None, 56)
    assert first.images.shape == (8, 3, 56, 56)
    assert first.images.dtype == torch.uint8
    assert first.landmarks.shape == (8, 68, 2)
    assert first.regions.shape == (8, 56, 56)
    assert first.regions.dtype == torch.uint8
    assert torch.equal(first.images, second.images)
    assert torch.equal(first.regions, second.regions)


def test_a_face_looks_the_same_alone_and_in_a_batch():
    units = torch.stack([expression_units(name) for name in CANONICAL])
    who = Identity.sample(8, 1)
    how = Nuisance.none(8).replace(
        roll=torch.linspace(-10, 10, 8), scale=torch.linspace(0.9, 1.1, 8), noise=0.02
    )
    batch = render(units, who, how, 64)
    for i in (0, 5):
        alone = render(units[i], who.take([i]), how.take([i]), 64)
        difference = (batch.images[i].int() - alone.images[0].int()).abs()
        assert difference.max() <= 3
        assert difference.float().mean() < 0.02
        torch.testing.assert_close(batch.landmarks[i], alone.landmarks[0], atol=1e-3, rtol=0)


def test_expressions_are_far_apart_on_one_person():
    images = render(torch.stack([expression_units(name) for name in CANONICAL]), WHO, size=64).images.float()
    distance = torch.cdist(images.flatten(1)[None], images.flatten(1)[None])[0] / (3 * 64 * 64) ** 0.5
    assert distance[~torch.eye(8, dtype=bool)].min() > 3


def test_a_number_draws_a_person_and_one_person_serves_many_units():
    assert torch.equal(
        render({12: 1}, 7, size=48).images, render({12: 1}, Identity.sample(1, 7), size=48).images
    )
    assert render(torch.zeros(3, 16, 2), 7, size=48).images.shape[0] == 3


def test_roll_turns_the_landmarks_about_the_middle():
    upright, rolled = (render({}, WHO, PLAIN.replace(roll=r), 64).landmarks[0] - 31.5 for r in (0.0, 90.0))
    torch.testing.assert_close(rolled, torch.stack([-upright[:, 1], upright[:, 0]], 1), atol=1e-3, rtol=0)


def test_scale_and_shift_move_the_landmarks():
    rest = render({}, WHO, PLAIN, 64).landmarks[0] - 31.5
    moved = render({}, WHO, PLAIN.replace(scale=0.5, shift=torch.tensor([0.25, -0.5])), 64).landmarks[0] - 31.5
    torch.testing.assert_close(moved, 0.5 * rest + torch.tensor([8.0, -16.0]), atol=1e-3, rtol=0)


def test_yaw_moves_the_nose_further_than_the_eyes():
    rest, turned = (render({}, WHO, PLAIN.replace(yaw=a), 64).landmarks[0] for a in (0.0, 15.0))
    moved = (turned - rest)[:, 0]
    assert moved[30] > moved[[39, 42]].max() > 1


def test_grey_has_no_colour_and_noise_and_blur_do_their_work():
    plain = picture()
    grey = picture(grey=1.0, noise=0.05, seed=3)
    assert torch.equal(grey[0], grey[1])
    assert torch.equal(grey[0], grey[2])
    assert (plain[0] - plain[2]).abs().mean() > 10
    noisy = picture(noise=0.05, seed=3) - picture(seed=3)
    assert 0.045 < noisy.std() / 255 < 0.052
    assert not torch.equal(picture(noise=0.05, seed=4) - picture(seed=4), noisy)

    def detail(image):
        return image.diff(dim=2).abs().mean()

    assert detail(picture(blur=2.0)) < 0.7 * detail(plain)


def test_contrast_and_brightness():
    plain = picture()
    assert 0.4 < picture(contrast=0.5).std() / plain.std() < 0.6
    assert 15 < (picture(brightness=0.1) - plain).mean() < 26


def test_an_occluder_hides_its_place_and_the_truth_stays():
    object_ = torch.tensor([0.0, 0.45, 0.0, 0.1, 0.8, 0.1])
    free, hidden = (render({12: 1}, WHO, PLAIN.replace(occlusion=o, occluder=object_), 64) for o in (0.0, 0.4))
    mouth = hidden.images[0, :, 44:48, 28:36].float().mean((1, 2))
    assert mouth[1] > 2.5 * mouth[0]
    assert torch.equal(free.landmarks, hidden.landmarks)
    assert torch.equal(free.regions, hidden.regions)
    assert torch.equal(free.images[..., :20, :], hidden.images[..., :20, :])


def test_background_fills_the_corners():
    colors = torch.tensor([[0.9, 0.1, 0.1], [0.1, 0.1, 0.9]])
    image = picture(background=colors, scale=0.6)
    assert image[0, 2, 2] > 200 > 60 > image[2, 2, 2]
    assert image[2, 50, 2] > image[0, 50, 2] + 80


def test_moved_places_answer_to_the_expression():
    moved = render(expression_units("happiness"), WHO, size=64).regions[0] >> REGIONS.index("moved") & 1
    assert moved[44:50].any()
    assert not moved[:22].any()
    one_sided = render(expression_units("contempt"), WHO, size=64).regions[0] >> REGIONS.index("moved") & 1
    assert one_sided[:, 32:].sum() > 4 * one_sided[:, :32].sum()


@pytest.mark.parametrize("size", [31, 0, 64.0])
def test_small_sizes_are_refused(size):
    with pytest.raises(ValueError, match="size must be a whole number of pixels, at least 32"):
        render({}, WHO, size=size)


def test_batches_that_do_not_match_are_refused():
    with pytest.raises(ValueError, match="3 rows of units, 2 identities, 1 nuisances"):
        render(torch.zeros(3, 16, 2), Identity.sample(2, 0), size=48)


def test_many_large_faces_are_drawn_a_few_at_a_time(monkeypatch):
    units, people = expression_units("happiness")[None], Identity.sample(5, 3)
    whole = render(units, people, size=64)
    sizes = []

    def counted(units, *rest):
        sizes.append(len(units))
        return drawn(units, *rest)

    drawn = drawing._render
    monkeypatch.setattr(drawing, "_render", counted)
    monkeypatch.setattr(drawing, "PIXELS_AT_ONCE", 2 * 64**2)
    pieces = render(units, people, size=64)
    assert sizes == [2, 2, 1]
    # The last bit of an exponential depends on a value's place in its tensor.
    assert (pieces.images.int() - whole.images.int()).abs().max() <= 3
    assert torch.equal(pieces.landmarks, whole.landmarks)
    assert (pieces.regions != whole.regions).float().mean() < 1e-3
