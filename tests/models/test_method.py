"""What every method must do, asked of every method that `list_models` names, at both sizes."""

import pytest
import torch
from helpers.reference import book_methods

from fer_lab.data.faces import FaceBatch
from fer_lab.data.loader import KINDS
from fer_lab.models import Method, create_model, list_models, register_method
from fer_lab.models.method import IMAGE_SIZES, classification_loss, map_loss, method_class
from fer_lab.models.weights import load_model, save_model

SIZES = ("tiny", "paper")
NAMES = ("baseline", "dan", "triplet_center", "poster", "dcs", "qcs")
EVERY = [(name, size) for name in NAMES for size in SIZES]


def build(name, size, classes=7, seed=0):
    torch.manual_seed(seed)
    return create_model(name, classes, size)


def faces(n, size, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, 3, IMAGE_SIZES[size], IMAGE_SIZES[size], generator=g)


def batch_for(model, n, classes=7):
    group = KINDS[model.batch_kind]
    images = faces(n * group, model.size)
    labels = torch.arange(n) % classes
    if group > 1:
        other = (labels + 1) % classes
        labels = torch.stack([labels, labels, other, other][:group], 1)
        images = images.view(n, group, *images.shape[1:])
    return FaceBatch(images=images, labels=labels, indices=labels)


def test_the_list_is_the_books():
    assert tuple(book_methods()) == NAMES == tuple(list_models()[: len(NAMES)])


@pytest.mark.parametrize(("name", "size"), EVERY)
def test_shapes_and_finite_values(name, size):
    model = build(name, size).eval()
    x = faces(2, size)
    with torch.no_grad():
        logits, embedding, maps = model(x), model.embed(x), model.attention_maps(x)
    assert logits.shape == (2, 7)
    assert embedding.ndim == 2
    assert len(embedding) == 2
    assert torch.isfinite(logits).all()
    assert torch.isfinite(embedding).all()
    for kind, values in maps.items():
        assert values.ndim == 4, kind
        assert values.shape[0] == 2
        assert values.shape[2:] == (7, 7)
        assert torch.isfinite(values).all()


@pytest.mark.parametrize(("name", "size"), EVERY)
def test_a_gradient_on_every_trainable_parameter(name, size):
    model = build(name, size)
    losses = model.training_losses(batch_for(model, 4))
    losses["total"].backward()
    without = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []
    still = [n for n, p in model.named_parameters() if p.requires_grad and not p.grad.abs().sum() > 0]
    # A bias in front of a BatchNorm is taken out again by its mean: its gradient is rounding, or zero.
    assert [n for n in still if not n.endswith("bias")] == []
    assert all(value.ndim == 0 and torch.isfinite(value) for value in losses.values())


@pytest.mark.parametrize(("name", "size"), EVERY)
def test_a_face_alone_or_in_a_batch(name, size):
    model = build(name, size).eval()
    x = faces(3, size)
    with torch.no_grad():
        torch.testing.assert_close(model(x)[1:2], model(x[1:2]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", book_methods())
def test_one_tiny_batch_is_overfitted(name):
    model = build(name, "tiny")
    batch = batch_for(model, 8)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    first = model.training_losses(batch)["total"].item()
    for _ in range(30):
        optimizer.zero_grad()
        losses = model.training_losses(batch)
        losses["total"].backward()
        optimizer.step()
    assert losses["total"].item() < first / 2
    images, labels = batch.images.flatten(0, -4), batch.labels.flatten()
    assert (model(images).argmax(1) == labels).float().mean() > 0.9


@pytest.mark.parametrize("name", book_methods())
def test_save_and_load(name, tmp_path):
    model = build(name, "tiny", classes=8).eval()
    save_model(model, tmp_path / "weights.safetensors")
    again = load_model(tmp_path / "weights.safetensors")
    x = faces(2, "tiny")
    assert type(again) is type(model)
    with torch.no_grad():
        torch.testing.assert_close(again(x), model(x), rtol=0, atol=0)


@pytest.mark.parametrize("name", book_methods())
def test_the_same_seed_gives_the_same_weights(name):
    a, b, c = build(name, "tiny"), build(name, "tiny"), build(name, "tiny", seed=1)
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
    assert not all(torch.equal(x, y) for x, y in zip(a.parameters(), c.parameters(), strict=True))


@pytest.mark.parametrize("name", book_methods())
def test_two_to_a_hundred_classes_and_the_declarations(name):
    cls = method_class(name)
    assert build(name, "tiny").recipe_for("synthetic") == cls.recipes["smoke"]
    assert build(name, "tiny").recipe_for("ferplus") == cls.recipes["scratch"]
    assert "http" in cls.paper
    for classes in (2, 100):
        model = build(name, "tiny", classes=classes).eval()
        assert model(faces(1, "tiny")).shape == (1, classes)
        assert len(model.classes) == classes


@pytest.mark.parametrize("name", book_methods())
@pytest.mark.parametrize("value", [-2.1, 0.0, 2.6, 100.0])
def test_constant_images_give_finite_gradients(name, value):
    model = build(name, "tiny")
    batch = batch_for(model, 4)
    flat = FaceBatch(images=torch.full_like(batch.images, value), labels=batch.labels, indices=batch.indices)
    model.training_losses(flat)["total"].backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_the_loss_of_a_map_is_one_minus_its_cosine_to_what_moved():
    moved = torch.zeros(3, 1, 4, 4)
    moved[0, :, :2, :2] = moved[1, :, :2] = 1  # a quarter, a half, and a face at rest
    right = torch.tensor([[[[2.0, 0.0], [0.0, 0.0]]]])
    # By hand: 1 − 1, 1 − 1/√2, and nothing.
    expected = (1 - 0.5**0.5) / 3
    assert map_loss(right.expand(3, 1, 2, 2), moved).item() == pytest.approx(expected, abs=1e-6)
    # Of two maps each counts as much, however large it is.
    wrong = torch.tensor([[[[0.0, 0.0], [0.0, 300.0]]]])
    both = torch.cat([right, wrong], 1)
    assert map_loss(both, moved[:1]).item() == pytest.approx(1 - 0.5**0.5, abs=1e-6)
    assert map_loss(right, moved[2:]).item() == 0


def test_soft_targets_are_used():
    logits = torch.tensor([[2.0, 0.0, 0.0]])
    soft = torch.tensor([[0.5, 0.5, 0.0]])
    hard = classification_loss(logits, torch.tensor([0]))
    mixed = classification_loss(logits, torch.tensor([0]), soft)
    assert mixed.item() == pytest.approx(hard.item() + 1.0)
    assert classification_loss(logits.bfloat16(), torch.tensor([0])).dtype == torch.float32


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("resnet",), "baseline, dan"),
        (("baseline", 7, "huge"), "size must be one of tiny, paper"),
        (("baseline", 1), "at least 2 classes"),
    ],
)
def test_bad_requests(arguments, message):
    with pytest.raises(ValueError, match=message):
        create_model(*arguments)


def test_unknown_option_and_taken_name():
    with pytest.raises(ValueError, match="num_head"):
        create_model("dan", num_head=3)
    with pytest.raises(ValueError, match="already"):
        register_method("dan", "elsewhere:DAN")
    with pytest.raises(ValueError, match=r"package\.module:Class"):
        register_method("toy", "elsewhere")


def test_the_base_class_asks_for_everything():
    bare = Method(7, "tiny")
    x = faces(1, "tiny")
    for call in (bare.forward, bare.embed, bare.attention_maps, bare.training_losses):
        with pytest.raises(NotImplementedError):
            call(x)
