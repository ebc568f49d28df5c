"""Maps of tiny nets with hand-set weights, whose every number is known."""

import pytest
import torch
from torch import nn

from fer_lab.attention import grad_cam, mass_in_regions, native_maps, normalize_for_display, upsample


class Tiny(nn.Module):
    """Features are (image, 1 − image), 2×2; the logits are 2·mean of the first, −3·mean of the second."""

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
    from fer_lab.models.method import create_model

    torch.manual_seed(0)
    maps = native_maps(create_model("dan", num_heads=3), torch.rand(2, 3, 56, 56))
    assert maps["heads"].shape == (2, 3, 7, 7)
    assert (maps["heads"] >= 0).all()


def test_upsample_interpolates_between_cell_centres():
    maps = torch.tensor([[[[0.0, 4.0]]]]).expand(1, 1, 2, 2)
    assert upsample(maps, 4)[0, 0, 0].tolist() == [0, 1, 3, 4]
    torch.testing.assert_close(upsample(torch.full((1, 2, 3, 3), 0.7), 9), torch.full((1, 2, 9, 9), 0.7))
    with pytest.raises(ValueError, match=r"\[B,K,h,w\]"):
        upsample(torch.zeros(7, 7), 14)


def test_display_stretches_every_map_on_its_own():
    maps = torch.tensor([[[[-1.0, 0.0], [1.0, 3.0]], [[5.0, 5.0], [5.0, 5.0]], [[10.0, 20.0], [10.0, 10.0]]]])
    shown = normalize_for_display(maps)
    assert shown[0].flatten(1).tolist() == [[0, 0.25, 0.5, 1], [0, 0, 0, 0], [0, 1, 0, 0]]
    with pytest.raises(ValueError, match="not finite"):
        normalize_for_display(torch.tensor([[[[float("nan"), 1.0]]]]))


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


def test_grad_cam_of_another_layer(image):
    model = Tiny()
    assert torch.equal(grad_cam(model, image, 0, layer=model.drop), grad_cam(model, image, 0))
    del model.trunk
    with pytest.raises(ValueError, match="no trunk"):
        grad_cam(model, image, 0)


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


@pytest.mark.parametrize("target", [2, -1, torch.tensor([0, 1])])
def test_a_target_that_is_no_class_is_refused(image, target):
    with pytest.raises(ValueError, match=r"class 0…1, or one for each of the 1 faces"):
        grad_cam(Tiny(), image, target=target)


def test_hooks_are_gone_and_modes_back_after_an_exception(image):
    model = Tiny().train()
    calls = []

    def fail_at_the_second_pass(images):
        calls.append(hooks(model))
        if len(calls) == 2:
            raise RuntimeError("broken head")
        return Tiny.forward(model, images)

    model.forward = fail_at_the_second_pass
    before = modes(model)
    with pytest.raises(RuntimeError, match="broken head"):
        grad_cam(model, image, target=0)
    assert calls[1] > 0  # captum's hook was there while the model failed
    assert hooks(model) == 0
    assert modes(model) == before


def test_mass_in_regions_against_chance():
    maps = torch.tensor([[[[3.0, 1.0], [0.0, 0.0]], [[1.0, 1.0], [1.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]]]])
    masks = torch.zeros(1, 3, 2, 2, dtype=torch.bool)
    masks[0, 0, 0, 0] = True
    masks[0, 1, 0] = True
    share, chance = mass_in_regions(maps, masks)
    assert share[0, :2].tolist() == [[0.75, 1.0, 0.0], [0.25, 0.5, 0.0]]
    assert share[0, 2].isnan().all()
    assert chance.tolist() == [[0.25, 0.5, 0.0]]


def test_mass_of_an_even_map_is_chance_at_another_resolution():
    masks = torch.rand(2, 6, 20, 20, generator=torch.Generator().manual_seed(0)) > 0.7
    share, chance = mass_in_regions(torch.full((2, 4, 7, 7), 0.3), masks)
    torch.testing.assert_close(share, chance[:, None].expand(2, 4, 6))


@pytest.mark.parametrize(
    ("maps", "masks", "message"),
    [
        (torch.ones(1, 1, 2, 2), torch.ones(2, 1, 4, 4, dtype=torch.bool), r"\[1,R,S,S\]"),
        (torch.ones(1, 1, 2, 2), torch.ones(1, 1, 4, 4), "bool masks"),
        (-torch.ones(1, 1, 2, 2), torch.ones(1, 1, 4, 4, dtype=torch.bool), "negative"),
    ],
)
def test_mass_refuses_what_it_cannot_mean(maps, masks, message):
    with pytest.raises(ValueError, match=message):
        mass_in_regions(maps, masks)
