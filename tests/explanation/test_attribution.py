"""Maps of tiny nets with hand-set weights, whose every number is known."""

import pytest
import torch
from helpers.reference import book_methods
from torch import nn

from fer_lab.explanation.attribution import (
    WAYS,
    classes_to_explain,
    explain,
    grad_cam,
    integrated_gradients,
    native_maps,
    occlusion,
)
from fer_lab.models import create_model


class Tiny(nn.Module):
    """Features are (image, 1 − image), 2×2; the logits are 2·mean of the first, −3·mean of the second."""

    num_classes = 2

    def __init__(self):
        super().__init__()
        self.trunk = nn.Conv2d(1, 2, 1)
        self.norm = nn.BatchNorm2d(2)
        self.drop = nn.Dropout(0.5)
        self.norm.eval()
        self.modes_seen = []
        with torch.no_grad():
            self.trunk.weight.copy_(torch.tensor([1.0, -1.0]).view(2, 1, 1, 1))
            self.trunk.bias.copy_(torch.tensor([0.0, 1.0]))

    def forward(self, images):
        self.modes_seen.append(self.training)
        return self.drop(self.trunk(images)).mean((2, 3)) * torch.tensor([2.0, -3.0])

    def attention_maps(self, images):
        self.modes_seen.append(self.training)
        return {"heads": self.drop(self.trunk(images))}


@pytest.fixture
def image():
    return torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])


def modes(model):
    return [module.training for module in model.modules()]


def hooks(model):
    return sum(
        len(module._forward_hooks) + len(module._forward_pre_hooks) + len(module._backward_hooks)
        for module in model.modules()
    )


def test_native_maps_are_the_models_own_in_eval_mode(image):
    model = Tiny().train()
    model.norm.eval()
    before = modes(model)
    maps = native_maps(model, image)
    assert list(maps) == ["heads"]
    assert maps["heads"].tolist() == [[[[1, 2], [3, 4]], [[0, -1], [-2, -3]]]]
    assert not maps["heads"].requires_grad
    assert model.modes_seen == [False]
    assert modes(model) == before  # norm stays in eval, the rest in training


@pytest.mark.parametrize(
    ("maps", "message"),
    [({}, "no attention maps"), ({"heads": torch.ones(1, 49)}, r"expected map 'heads' as \[1,K,h,w\]")],
)
def test_native_maps_that_are_no_maps_are_refused(image, maps, message):
    model = Tiny()
    model.attention_maps = lambda images: maps
    with pytest.raises(ValueError, match=message):
        native_maps(model, image)
    assert model.training


def test_a_real_model_gives_a_map_for_every_head():
    torch.manual_seed(0)
    maps = native_maps(create_model("dan", num_heads=3), torch.rand(2, 3, 56, 56))
    assert maps["heads"].shape == (2, 3, 7, 7)
    assert (maps["heads"] >= 0).all()


@pytest.mark.parametrize(
    ("name", "options"),
    [("baseline", {}), ("triplet_center", {"pixel_attention": False, "standardize": False})],
)
def test_a_class_activation_map_is_of_the_class_to_explain(name, options):
    torch.manual_seed(0)
    model, images = create_model(name, **options).eval(), torch.randn(3, 3, 56, 56)
    predicted, target = classes_to_explain(model, images), torch.tensor([4, 0, 6])
    one = {chosen: native_maps(model, images, c)["class activation"] for chosen, c in
           (("none", None), ("predicted", predicted), ("target", target))}  # fmt: skip
    assert torch.equal(one["none"], one["predicted"])
    assert (one["target"] - one["none"]).abs().max() > 0.01
    assert torch.equal(explain(model, images, "native", target=target), one["target"])
    # GradCAM of a linear layer behind an average is the same map, cut at zero, over 49 places.
    torch.testing.assert_close(
        grad_cam(model, images, target, allow_zero=True), one["target"].relu() / 49, rtol=1e-3, atol=1e-6
    )
    with pytest.raises(ValueError, match="a class 0…6"):
        native_maps(model, images, 7)


def test_attention_belongs_to_no_class():
    torch.manual_seed(0)
    model, images = create_model("dan"), torch.randn(2, 3, 56, 56)
    assert torch.equal(explain(model, images, "native", target=3), explain(model, images, "native"))


def test_grad_cam_by_hand(image):
    # ∂logit0/∂F₀ = 2/4 at every place, ∂logit0/∂F₁ = 0: the map is ReLU(0.5·image).
    assert grad_cam(Tiny(), image, target=0).tolist() == [[[[0.5, 1.0], [1.5, 2.0]]]]
    # ∂logit1/∂F₁ = −3/4 and F₁ = 1 − image: ReLU(0.75·(image − 1)).
    assert grad_cam(Tiny(), image, target=1).tolist() == [[[[0.0, 0.75], [1.5, 2.25]]]]
    # Places that speak against the class count for nothing.
    assert grad_cam(Tiny(), image - 2, target=0).tolist() == [[[[0.0, 0.0], [0.5, 1.0]]]]


def test_grad_cam_explains_the_predicted_class_by_default_and_one_a_face(image):
    both = torch.cat([image, 4 * image])
    predicted = Tiny().eval()(both).argmax(1)
    assert predicted.tolist() == [0, 1]
    assert torch.equal(grad_cam(Tiny(), both), grad_cam(Tiny(), both, target=predicted))
    assert grad_cam(Tiny(), both, target=torch.tensor([1, 0]))[:, 0, 1, 1].tolist() == [2.25, 8.0]


class Steps(nn.Module):
    """Doubles the image in `first`, adds 1 in `second`, and hands both on as `trunk` says."""

    num_classes = 2

    def __init__(self, gives):
        super().__init__()
        self.trunk = nn.Module()
        self.trunk.first, self.trunk.second = nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1)
        self.trunk.pool, self.trunk.unused = nn.AdaptiveAvgPool2d(1), nn.Conv2d(1, 1, 1)
        for module, weight, bias in ((self.trunk.first, 2.0, 0.0), (self.trunk.second, 1.0, 1.0)):
            nn.init.constant_(module.weight, weight)
            nn.init.constant_(module.bias, bias)
        self.trunk.forward = gives

    def forward(self, images):
        grid = self.trunk(images)
        grid = grid[-1] if isinstance(grid, tuple) else grid
        return torch.stack([grid.sum((1, 2, 3)), -grid.sum((1, 2, 3))], 1)


def test_grad_cam_takes_the_last_grid_where_the_trunk_gives_several(image):
    model = Steps(None)
    trunk = model.trunk

    def both(images):
        one = trunk.first(images)
        return one, trunk.second(one)

    trunk.forward = both
    assert grad_cam(model, image, 0).tolist() == [[[[3, 5], [7, 9]]]]  # second's: 2·image + 1


def test_grad_cam_without_a_trunk_takes_the_last_grid_of_the_model(image):
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    nn.init.constant_(model[0].weight, 1.0)
    nn.init.constant_(model[0].bias, 0.0)
    model.num_classes = 2
    assert grad_cam(model, image, 0).tolist() == [[[[0.25, 0.5], [0.75, 1.0]]]]  # the pool is one place only
    with pytest.raises(ValueError, match="Sequential gave no grid"):
        grad_cam(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), image)


def test_grad_cam_passes_over_what_it_cannot_weigh(image):
    model = Steps(None)
    trunk = model.trunk
    trunk.flat, trunk.aside = nn.Flatten(), nn.Conv2d(1, 1, 1)

    def once(images):
        grid = trunk.second(trunk.first(trunk.first(images)))
        trunk.flat(grid)  # no grid
        trunk.aside(images)  # the logits do not depend on it
        return grid, grid + trunk.pool(grid)  # a single place

    trunk.forward = once
    by_hand = 4 * image + 1
    torch.testing.assert_close(grad_cam(model, image, 0), 2 * by_hand)
    trunk.forward = lambda images: (None, trunk.first(trunk.first(images)))  # one module, two grids
    with pytest.raises(ValueError, match="gave no grid"):
        grad_cam(model, image, 0)
    assert hooks(model) == 0


def test_grad_cam_puts_modes_and_gradients_back(image):
    model = Tiny().train()
    model.norm.eval()
    before = modes(model)
    grad_cam(model, image, target=0)
    assert modes(model) == before
    assert set(model.modes_seen) == {False}
    assert all(p.grad is None for p in model.parameters())
    assert image.grad is None
    assert not image.requires_grad
    assert hooks(model) == 0


def test_grad_cam_works_with_frozen_weights_and_where_gradients_are_off(image):
    frozen, free = Tiny().requires_grad_(False), Tiny()
    with torch.no_grad():
        assert grad_cam(frozen, image, target=0).sum() == 5
    with torch.inference_mode():
        assert grad_cam(free, image.clone(), target=0).sum() == 5


def test_a_map_of_zeros_is_an_error_that_names_the_faces(image):
    with pytest.raises(ValueError, match=r"zero everywhere for face 1, 2\b"):
        grad_cam(Tiny(), torch.cat([image, -image, -2 * image]), target=0)
    kept = grad_cam(Tiny(), torch.cat([image, -image]), target=0, allow_zero=True)
    assert kept[1].tolist() == [[[0, 0], [0, 0]]]
    assert kept[0].sum() == 5


@pytest.mark.parametrize("target", [2, -1, torch.tensor([0, 1])])
def test_a_target_that_is_no_class_is_refused(image, target):
    with pytest.raises(ValueError, match=r"class 0…1, or one for each of the 1 faces"):
        grad_cam(Tiny(), image, target=target)


# How often each way runs the model of the test below.
PASSES = {"native": 2, "grad_cam": 2, "integrated_gradients": 1, "occlusion": 2}


@pytest.mark.parametrize(("way", "failing"), [(way, n + 1) for way in WAYS for n in range(PASSES[way])])
def test_hooks_are_gone_and_modes_back_after_an_exception(image, way, failing):
    model = Tiny().train()
    model.norm.eval()
    calls = []

    def fail_some_time(images):
        calls.append(hooks(model))
        if len(calls) == failing:
            raise RuntimeError("broken head")
        return Tiny.forward(model, images)

    model.forward = fail_some_time
    model.attention_maps = lambda images: {"heads": model(images)[:, :1, None, None] + model(images).mean()}
    before = modes(model)
    with pytest.raises(RuntimeError, match="broken head"):
        explain(model, image, way, target=0, grid=2)
    assert len(calls) == failing
    if way == "grad_cam":
        assert calls[-1] > 0  # a hook was there while the model failed
    assert hooks(model) == 0
    assert modes(model) == before


def test_integrated_gradients_of_a_linear_model_are_weight_times_input(image):
    # logit 0 is Σ x / 2, logit 1 is 0.75 Σ x − 3.
    assert integrated_gradients(Tiny(), image, 0).flatten().tolist() == pytest.approx([0.5, 1, 1.5, 2])
    assert integrated_gradients(Tiny(), image, 1).flatten().tolist() == pytest.approx([0.75, 1.5, 2.25, 3])
    against_two = integrated_gradients(Tiny(), image, 0, baseline=2.0)
    assert against_two.flatten().tolist() == pytest.approx([-0.5, 0, 0.5, 1])


class Squares(nn.Module):
    """Logit 0 is Σ c·x² over pixels and colours c = 1, 2, 3; logit 1 is Σ x³."""

    num_classes = 2

    def forward(self, images):
        weight = torch.tensor([1.0, 2.0, 3.0])[:, None, None]
        return torch.stack([(weight * images**2).sum((1, 2, 3)), (images**3).sum((1, 2, 3))], 1)


def test_integrated_gradients_sum_over_colours_and_add_up_to_the_difference():
    images = torch.arange(1.0, 13.0).view(1, 3, 2, 2) / 12
    maps = integrated_gradients(Squares(), images, 0, steps=1)  # the gradient is linear: one node is exact
    by_hand = images[:, :1] ** 2 + 2 * images[:, 1:2] ** 2 + 3 * images[:, 2:] ** 2
    torch.testing.assert_close(maps, by_hand)
    start = torch.full_like(images, 0.25)
    whole = integrated_gradients(Squares(), images, 1, baseline=start, steps=2).sum()
    assert whole.item() == pytest.approx((images**3 - start**3).sum().item(), rel=1e-5)
    with pytest.raises(ValueError, match="at least 1"):
        integrated_gradients(Squares(), images, steps=0)


def test_occlusion_is_the_fall_of_the_logit(image):
    assert occlusion(Tiny(), image, 0, window=1, stride=1).tolist() == [[[[0.5, 1.0], [1.5, 2.0]]]]
    assert occlusion(Tiny(), image, 0, window=2).tolist() == [[[[5, 5], [5, 5]]]]
    # Covering with something brighter than the face raises the logit.
    assert occlusion(Tiny(), image - 3, 0, window=1).tolist() == [[[[-1, -0.5], [0, 0.5]]]]


def test_occlusion_averages_over_the_windows_that_cover_a_pixel():
    images = torch.arange(1.0, 10.0).view(1, 1, 3, 3).repeat(2, 1, 1, 1)
    images[1] *= 2
    total, count = torch.zeros(3, 3), torch.zeros(3, 3)
    for top in range(2):
        for left in range(2):
            window = images[0, 0, top : top + 2, left : left + 2]
            total[top : top + 2, left : left + 2] += 2 * window.sum() / 9
            count[top : top + 2, left : left + 2] += 1
    maps = occlusion(Tiny(), images, 0, window=2, stride=1)
    torch.testing.assert_close(maps, torch.stack([total / count, 2 * total / count])[:, None])


@pytest.mark.parametrize("options", [{"window": 3}, {"window": 1, "stride": 2}, {"window": 0}])
def test_windows_that_do_not_fit_are_refused(image, options):
    with pytest.raises(ValueError, match="1 ≤ stride ≤ window ≤ 2"):
        occlusion(Tiny(), image, 0, **options)


def test_explain_brings_every_way_to_one_grid():
    images = torch.arange(16.0).view(1, 1, 4, 4)
    cells = torch.tensor([[[[2.5, 4.5], [10.5, 12.5]]]])  # means of the 2×2 blocks
    torch.testing.assert_close(explain(Tiny(), images, "grad_cam", target=0, grid=2), cells * 2 / 16)
    torch.testing.assert_close(
        explain(Tiny(), images, "integrated_gradients", target=0, grid=2), cells * 2 / 16
    )
    alone = explain(Tiny(), images, "occlusion", target=0, grid=2, window=2, stride=2)
    torch.testing.assert_close(alone, cells * 4 * 2 / 16)
    with pytest.raises(ValueError, match="unknown way 'magic'; there are native, grad_cam"):
        explain(Tiny(), images, "magic")


def test_explain_averages_native_heads_whatever_their_scale(image):
    model = Tiny()
    model.attention_maps = lambda images: {
        "heads": torch.cat([images, torch.tensor([[[[600.0, 0.0], [0.0, 200.0]]]]), -images], 1),
        "others": torch.zeros(1, 1, 2, 2),
    }
    # (1, 2, 3, 4)/10, then (6, 0, 0, 2)/8, and a head without anything above zero.
    by_hand = (torch.tensor([0.1, 0.2, 0.3, 0.4]) + torch.tensor([0.75, 0, 0, 0.25])) / 3
    torch.testing.assert_close(explain(model, image, "native", grid=2).flatten(), by_hand)
    model.attention_maps = lambda images: {"activation": images - 2}
    assert explain(model, image, "native", grid=2).flatten().tolist() == [-1, 0, 1, 2]


def test_explain_keeps_a_map_of_zeros(image):
    maps = explain(Tiny(), torch.cat([image, -image]), "grad_cam", target=0, grid=2)
    assert maps.flatten(1).sum(1).tolist() == [5, 0]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", book_methods())
def test_every_method_is_explained_every_way(name, way):
    torch.manual_seed(0)
    model = create_model(name).requires_grad_(False)
    options = {"occlusion": {"window": 28}, "integrated_gradients": {"steps": 1}}.get(way, {})
    before = modes(model)
    with torch.inference_mode():
        maps = explain(model, torch.randn(2, 3, 56, 56), way, **options)
    assert maps.shape == (2, 1, 7, 7)
    assert maps.isfinite().all()
    assert not maps.requires_grad
    # GradCAM of random weights may rightly find nothing that speaks for the class.
    assert maps.min() >= 0 if way == "grad_cam" else maps.flatten(1).std(1).min() > 0
    assert modes(model) == before
    assert hooks(model) == 0


def test_the_class_to_explain_is_the_predicted_one_or_the_one_asked_for(image):
    both = torch.cat([image, 4 * image])
    assert classes_to_explain(Tiny(), both).tolist() == [0, 1]
    assert classes_to_explain(Tiny(), both, 1).tolist() == [1, 1]
    assert classes_to_explain(Tiny(), both, torch.tensor([1, 0])).tolist() == [1, 0]
    assert occlusion(Tiny(), both, window=2)[:, 0, 0, 0].tolist() == [5, 30]


def test_a_class_that_is_given_costs_no_pass_where_the_model_says_how_many_there_are():
    model = create_model("baseline", num_classes=7)
    model.forward = None  # a pass would fail
    images = torch.zeros(2, 3, 56, 56)
    assert classes_to_explain(model, images, 6).tolist() == [6, 6]
    with pytest.raises(ValueError, match="a class 0…6"):
        classes_to_explain(model, images, 7)
