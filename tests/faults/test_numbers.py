"""Numbers under stress: faces, batches and classes at their limits give finite losses and gradients."""

import pytest
import torch
from helpers.patterns import patterns
from helpers.reference import book_methods

from fer_lab.data.augmentation import normalize
from fer_lab.data.faces import FaceBatch
from fer_lab.data.loader import KINDS
from fer_lab.models import Recipe, create_model
from fer_lab.training.loop import fit

pytestmark = pytest.mark.fault("numbers under stress")
SIDE = 56


def noise(n: int) -> torch.Tensor:
    """Floats [n,3,56,56] between 0 and 1."""
    return torch.rand(n, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def one_pixel(n: int) -> torch.Tensor:
    images = torch.zeros(n, 3, SIDE, SIDE)
    images[:, :, SIDE // 2, SIDE // 2] = 1
    return images


# What a network receives: pictures between 0 and 1 as the loader normalises them, and numbers no picture gives.
IMAGES = {
    "black": lambda n: normalize(torch.zeros(n, 3, SIDE, SIDE)),
    "white": lambda n: normalize(torch.ones(n, 3, SIDE, SIDE)),
    "grey": lambda n: normalize(torch.full((n, 3, SIDE, SIDE), 0.5)),
    "one colour each": lambda n: normalize(noise(n)[:, :, :1, :1].expand(-1, -1, SIDE, SIDE).clone()),
    "black and white pixels": lambda n: normalize((noise(n) > 0.5).float()),
    "one bright pixel": lambda n: normalize(one_pixel(n)),
    "the same face": lambda n: normalize(noise(1).expand(n, -1, -1, -1).clone()),
    "zeros": lambda n: torch.zeros(n, 3, SIDE, SIDE),
    "± 10,000": lambda n: 2e4 * (noise(n) - 0.5),
    "± 0.000001": lambda n: 2e-6 * (noise(n) - 0.5),
}
SHORT = ("black", "one colour each", "± 10,000")
LABELS = {
    "every class": lambda n, classes: torch.arange(n) % classes,
    "one class": lambda n, classes: torch.zeros(n, dtype=torch.long),
    "the last class": lambda n, classes: torch.full((n,), classes - 1),
}


def build(name: str, classes: int = 7):
    torch.manual_seed(0)
    return create_model(name, classes)


def batch_of(model, images, labels) -> FaceBatch:
    """A batch of the method's kind; where the kind wants two classes, the negative is of the next one."""
    n, group = len(labels), KINDS[model.batch_kind]
    if group > 1:
        other = (labels + 1) % model.num_classes
        labels = torch.stack([labels, labels, other, other][:group], 1)
    whole = images(n * group)
    return FaceBatch(whole if group == 1 else whole.view(n, group, *whole.shape[1:]), labels, labels)


def assert_finite_step(model, batch) -> None:
    losses = model.training_losses(batch)
    for name, value in losses.items():
        assert torch.isfinite(value), name
    losses["total"].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all(), name
    assert any(p.grad is not None and p.grad.any() for p in model.parameters())


@pytest.mark.parametrize("name", book_methods())
@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=() if k in SHORT else pytest.mark.long) for k in IMAGES]
)
def test_any_picture_gives_finite_losses_gradients_and_answers(name, kind):
    model = build(name)
    assert_finite_step(model, batch_of(model, IMAGES[kind], LABELS["every class"](4, 7)))
    model.eval()
    with torch.no_grad():
        images = IMAGES[kind](2)
        probabilities, maps = model(images).softmax(1), model.attention_maps(images)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(2))
    assert all(torch.isfinite(values).all() for values in maps.values())


@pytest.mark.parametrize("name", book_methods())
@pytest.mark.parametrize("kind", ["one class", "the last class"])
def test_a_batch_of_one_class(name, kind):
    model = build(name)
    assert_finite_step(model, batch_of(model, lambda n: normalize(noise(n)), LABELS[kind](4, 7)))


@pytest.mark.parametrize("name", book_methods())
@pytest.mark.parametrize("classes", [2, 3, 8, 100])
def test_two_to_a_hundred_classes(name, classes):
    model = build(name, classes)
    assert_finite_step(model, batch_of(model, lambda n: normalize(noise(n)), LABELS["every class"](4, classes)))


@pytest.mark.parametrize("name", book_methods())
def test_a_batch_of_one_face_is_a_step_or_an_error_that_says_what_to_do(name, tmp_path):
    one_step = Recipe(epochs=1, batch_size=1, lr=1e-3, epoch_fraction=0.25)
    if name in ("dan", "triplet_center"):  # a BatchNorm over the batch alone
        with pytest.raises(ValueError, match="in a batch of 1; set batch_size to 2 or more"):
            fit(build(name, 3), patterns(12), None, one_step, tmp_path)
        return
    run = fit(build(name, 3), patterns(12), None, one_step, tmp_path)
    assert run.history["total"].notna().all()
    assert all(torch.isfinite(value).all() for value in run.load_model().state_dict().values())
