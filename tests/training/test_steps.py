import dataclasses
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from helpers.reference import assert_agrees, book_methods

from fer_lab.bench import random_batch
from fer_lab.data.faces import FaceBatch
from fer_lab.models import Recipe, create_model, list_models
from fer_lab.training.steps import make_optimizer, make_schedule, mixed, take_step


def test_sam_agrees_with_the_reference():
    w = torch.nn.Parameter(torch.tensor([1.0, -2.0, 3.0]))
    module = torch.nn.Module()
    module.w = w
    module.parameter_groups = lambda recipe: [{"params": [w]}]
    optimizer = make_optimizer(module, Recipe(epochs=1, batch_size=1, lr=0.1, momentum=0.9, sam_rho=0.05))
    scale = torch.tensor([1.0, 10.0, 0.1])
    for _ in range(3):
        (scale * w**2).sum().backward()
        optimizer.first_step(zero_grad=True)
        (scale * w**2).sum().backward()
        optimizer.second_step(zero_grad=True)
    assert_agrees(w.detach(), "sam.sgd.w")


def test_sam_leaves_batchnorm_statistics_to_the_first_pass():
    model = torch.nn.BatchNorm1d(1)
    model.parameter_groups = lambda recipe: list(model.parameters())
    model.training_losses = lambda batch: {"total": model(batch).square().mean()}
    recipe = Recipe(epochs=1, batch_size=2, lr=0.1, sam_rho=0.05)
    fabric = SimpleNamespace(autocast=nullcontext, backward=torch.Tensor.backward)
    take_step(fabric, model, make_optimizer(model, recipe), torch.tensor([[4.0], [6.0]]), recipe)
    assert model.running_mean.item() == pytest.approx(0.1 * 5)
    assert model.momentum == 0.1


def test_schedules():
    def rates(steps, **changes):
        recipe = Recipe(epochs=4, batch_size=1, lr=1.0, **changes)
        w = torch.nn.Parameter(torch.zeros(1))
        optimizer = torch.optim.SGD([w], lr=1.0)
        schedule = make_schedule(optimizer, recipe, steps_per_epoch=5)
        seen = []
        for _ in range(steps):
            seen.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        return seen

    assert rates(4) == [1.0] * 4
    assert rates(4, schedule="step", step_epochs=2, gamma=0.1) == pytest.approx([1, 1, 0.1, 0.1])
    assert rates(3, schedule="exponential", gamma=0.6) == pytest.approx([1, 0.6, 0.36])
    cycle = rates(20, schedule="one_cycle", warmup=0.25)
    assert cycle.index(max(cycle)) in (4, 5)
    assert max(cycle) == pytest.approx(1.0, abs=0.05)
    assert cycle[-1] < 0.02


@pytest.mark.parametrize(
    ("epochs", "steps", "warmup"), [(4, 1, 0.2), (1, 4, 0.2), (1, 1, 0.5), (1, 1, 0), (1, 9, 0.1)]
)
def test_a_training_of_a_few_steps_has_a_schedule(epochs, steps, warmup):
    recipe = Recipe(epochs=epochs, batch_size=2, lr=0.1, schedule="one_cycle", warmup=warmup)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    schedule = make_schedule(optimizer, recipe, steps)
    rates = []
    for _ in range(epochs * steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert all(0 < rate <= 0.1 for rate in rates)
    assert rates == sorted(rates, reverse=True)
    assert optimizer.param_groups[0]["lr"] < 1e-5


@pytest.mark.parametrize("sam_rho", [0.0, 0.05])
@pytest.mark.parametrize("name", list_models())
def test_a_step_never_reads_a_number_from_the_device(name, sam_rho):
    # The meta device has shapes and no numbers: what would make a GPU wait raises there.
    model = create_model(name).to("meta").train()
    taught = float(name in book_methods())  # a method of another test may have no maps
    recipe = Recipe(epochs=1, batch_size=4, lr=0.1, sam_rho=sam_rho, clip_norm=1.0, map_weight=taught)
    fabric = SimpleNamespace(autocast=nullcontext, backward=torch.Tensor.backward)
    batch = random_batch(model, 4, "meta")
    batch = dataclasses.replace(batch, moved=batch.images[..., :1, :, :])
    terms = take_step(fabric, model, make_optimizer(model, recipe), batch, recipe)
    assert {value.device.type for value in terms.values()} == {"meta"}
    with pytest.raises(RuntimeError, match="meta"):
        terms["total"].item()


@pytest.mark.parametrize("name", book_methods())
def test_every_methods_maps_can_be_taught(name):
    torch.manual_seed(0)
    model = create_model(name).train()
    batch = random_batch(model, 4)
    moved = torch.zeros(*batch.images.shape[:-3], 1, 56, 56)
    moved[..., :16, :24] = 1
    recipe = Recipe(epochs=1, batch_size=4, lr=0.002, optimizer="adamw", map_weight=10.0)
    fabric = SimpleNamespace(autocast=nullcontext, backward=torch.Tensor.backward)
    optimizer = make_optimizer(model, recipe)
    taught = dataclasses.replace(batch, moved=moved)
    steps = [take_step(fabric, model, optimizer, taught, recipe) for _ in range(10)]
    assert steps[-1]["map"] < 0.8 * steps[0]["map"]
    assert "map" not in take_step(fabric, model, optimizer, taught, recipe.replace(map_weight=0.0))


def numbered(targets=None):
    """Five faces whose pixels are all their own number, of three classes."""
    images = torch.arange(1.0, 6.0)[:, None, None, None].expand(5, 3, 20, 20)
    return FaceBatch(images, torch.tensor([0, 1, 2, 0, 1]), torch.arange(5), targets)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_mixed_faces_have_the_targets_of_their_pixels(kind, soft):
    targets = (
        torch.tensor([[0.5, 0.5, 0], [0, 1, 0], [0.2, 0, 0.8], [1, 0, 0], [0, 0.9, 0.1]]) if soft else None
    )
    batch = numbered(targets)
    own = torch.eye(3)[batch.labels] if targets is None else targets
    before = torch.tensor([4, 0, 1, 2, 3])
    shares = []
    for seed in range(30):
        torch.manual_seed(seed)
        found = mixed(batch, Recipe(epochs=1, batch_size=5, **{kind: 1.0}), 3)
        if kind == "mixup":
            assert found.images.flatten(1).std(1).max() < 1e-5
        else:
            pairs = zip(found.images, range(5), before.tolist(), strict=True)
            assert all(set(image.unique().tolist()) <= {mine + 1, other + 1} for image, mine, other in pairs)
        # The mean pixel says how much of a face is its own: (mean − other) / (own − other).
        mine, other = batch.images[:, 0, 0, 0], batch.images[before, 0, 0, 0]
        share = ((found.images.mean((1, 2, 3)) - other) / (mine - other))[:, None]
        torch.testing.assert_close(found.targets, share * own + (1 - share) * own[before], atol=1e-5, rtol=0)
        assert torch.equal(found.labels, torch.where(share[:, 0] > 0.5, batch.labels, batch.labels[before]))
        shares.append(float(share[0]))
    assert min(shares) < 0.4
    assert max(shares) > 0.6
    assert batch.images[0].unique().item() == 1  # the batch itself is as it was


def test_with_both_ways_of_mixing_each_batch_takes_one():
    recipe, found = Recipe(epochs=1, batch_size=5, mixup=1.0, cutmix=1.0), []
    for seed in range(40):
        torch.manual_seed(seed)
        image = mixed(numbered(), recipe, 3).images[0, 0]
        found.append(len(image.unique()))
    # One value: a mean of both faces, or a rectangle over everything; two: a rectangle inside.
    assert 8 <= found.count(2) <= 32
    assert set(found) == {1, 2}


def test_what_cannot_be_mixed_is_refused():
    batch, recipe = numbered(), Recipe(epochs=1, batch_size=5)
    assert mixed(batch, recipe, 3) is batch
    quadruplets = random_batch(create_model("qcs"), 2)
    with pytest.raises(ValueError, match="those of a pair or a quadruplet keep their class"):
        mixed(quadruplets, recipe.replace(cutmix=0.5), 7)
    with pytest.raises(ValueError, match="a mixed face has no map to teach"):
        recipe.replace(mixup=0.2, map_weight=1.0)
    with pytest.raises(ValueError, match="mixup must not be negative"):
        recipe.replace(mixup=-0.1)
