import copy

import pytest
import torch
from helpers.reference import book_methods
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from fer_lab.models import Method, create_model
from fer_lab.models.inference import fuse
from fer_lab.models.method import IMAGE_SIZES

OPTIONS = [(name, {}) for name in book_methods()]
OPTIONS += [("dan", {"num_heads": 1}), ("poster", {"landmark_stream": "none", "cross_fusion": False})]
OPTIONS += [("triplet_center", {"embedding_dim": 2})]


def lived_in(name, size="tiny", classes=7, **options):
    """A model whose BatchNorms have seen something: all their numbers act."""
    torch.manual_seed(0)
    return shake(create_model(name, classes, size, **options))


def shake(model):
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                module.running_mean.normal_(std=0.2)
                module.running_var.uniform_(0.5, 1.5)
                if module.affine:
                    module.weight.uniform_(0.5, 1.5)
                    module.bias.normal_(std=0.2)
    return model


def faces(n, size="tiny", seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, 3, IMAGE_SIZES[size], IMAGE_SIZES[size], generator=g)


@torch.no_grad()
def everything(model, x):
    return {"logits": model(x), "embedding": model.embed(x), **model.attention_maps(x)}


def assert_close(found, expected, bound=1e-5):
    """Within a share of the largest number."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert (found[name] - value).abs().max() <= bound * value.abs().max(), name


def norms(model):
    return sum(isinstance(module, _BatchNorm) for module in model.modules())


@pytest.mark.parametrize(("name", "options"), OPTIONS)
def test_the_fused_model_gives_the_same_numbers(name, options):
    model = lived_in(name, **options)
    x = faces(3)
    assert_close(everything(fuse(model), x), everything(model.eval(), x))


@pytest.mark.parametrize(("name", "size"), [("dan", "paper"), ("poster", "small")])
def test_the_same_numbers_in_a_published_size(name, size):
    model, x = lived_in(name, size), faces(1, "paper")
    assert_close(everything(fuse(model), x), everything(model.eval(), x))


@pytest.mark.parametrize("name", book_methods())
def test_every_batchnorm_behind_a_convolution_is_gone(name):
    model = lived_in(name)
    # IR-50's units have one in front of their first convolution, whose zero padding it must not move.
    units = [module for module in model.modules() if hasattr(module, "norm1") and hasattr(module, "conv1")]
    # Triplet-center's last one standardises the embedding and has no convolution in front of it.
    assert norms(fuse(model)) == len(units) + (name == "triplet_center")


def test_dans_three_convolutions_are_one():
    model = lived_in("dan", num_heads=2)
    fused = fuse(model)
    spatial = fused.heads[0].spatial
    assert spatial.row is spatial.column is None
    assert spatial.square[0].weight.shape[2:] == (3, 3)
    assert sum(isinstance(m, nn.Conv2d) for m in fused.modules()) == (
        sum(isinstance(m, nn.Conv2d) for m in model.modules()) - 2 * 2
    )
    # The corner is of the square kernel alone, the middle of all three.
    plain = model.heads[0].spatial.eval()
    folded = [fuse_conv_bn_eval(*part).weight for part in (plain.square, plain.row, plain.column)]
    weight = spatial.square[0].weight
    torch.testing.assert_close(weight[:, :, 0, 0], folded[0][:, :, 0, 0])
    middle = folded[0][:, :, 1, 1] + folded[1][:, :, 0, 1] + folded[2][:, :, 1, 0]
    torch.testing.assert_close(weight[:, :, 1, 1], middle)


def test_what_has_no_part_in_the_answer_is_left_out():
    fused = fuse(lived_in("qcs"))
    assert fused.cross is None
    assert fused.cross_branch is None
    poster = fuse(lived_in("poster"))
    assert poster.landmarks.head is None
    assert poster.landmarks.stem is not None


@pytest.mark.parametrize("name", book_methods())
def test_the_model_itself_stays_as_it_was(name):
    model = lived_in(name)
    before = copy.deepcopy(model.state_dict())
    modes = [module.training for module in model.modules()]
    wanted = [p.requires_grad for p in model.parameters()]
    fused = fuse(model)
    assert [module.training for module in model.modules()] == modes
    assert [p.requires_grad for p in model.parameters()] == wanted
    assert not any(module._forward_hooks for module in [*model.modules(), *fused.modules()])
    after = model.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())
    assert not fused.training
    assert not any(p.requires_grad for p in fused.parameters())
    assert (fused.name, fused.classes, fused.options) == (model.name, model.classes, model.options)


class Awkward(Method):
    """Everything that must not be folded, and one pair that may, under names that say nothing."""

    has_face_maps = False

    def __init__(self):
        super().__init__(3, "tiny")
        self.a, self.n = nn.Conv2d(3, 4, 8, 8), nn.BatchNorm2d(4)
        self.read_twice, self.norm_of_that = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.shared, self.one, self.two = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.first, self.second, self.common = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.bent, self.behind = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.before, self.padded = nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, padding=1)
        self.tokens, self.over_tokens = nn.Linear(49, 49), nn.BatchNorm1d(4)
        self.idle = nn.Conv2d(4, 4, 1)
        self.list = nn.ModuleList([nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)])
        self.fc = nn.Linear(4, 3)

    def embed(self, images):
        x = self.n(self.a(images))
        y = self.read_twice(x)
        x = self.norm_of_that(y) + y
        x = self.one(self.shared(x)) + self.two(self.shared(x))
        x = self.common(self.first(x)) + self.common(self.second(x))
        x = self.behind(self.bent(x).relu_())
        x = self.list[1](self.padded(self.before(x)))
        return self.over_tokens(self.tokens(x.flatten(2))).mean(2)

    def forward(self, images):
        return self.fc(self.embed(images))


def test_only_what_may_be_folded_is():
    torch.manual_seed(0)
    model = shake(Awkward())
    fused, x = fuse(model), faces(4)
    model.eval()
    with torch.no_grad():
        torch.testing.assert_close(fused(x), model(x), rtol=1e-5, atol=1e-6)
    assert isinstance(fused.n, nn.Identity)
    assert norms(fused) == norms(model) - 1
    assert fused.idle is None
    assert len(fused.list) == 2


def test_a_network_that_is_frozen_inside_is_kept():
    class Frozen(Awkward):
        def embed(self, images):
            with torch.no_grad():
                return super().embed(images)

    model = shake(Frozen())
    fused, x = fuse(model), faces(2)
    assert norms(fused) == norms(model)
    assert fused.idle is None
    torch.testing.assert_close(fused(x), model.eval()(x), rtol=1e-5, atol=1e-6)


def test_bf16_stays_within_its_rounding():
    model, x = lived_in("dan").eval(), faces(8)
    plain = everything(model, x)
    with torch.autocast("cpu", torch.bfloat16):
        found = everything(fuse(model), x)
    # bf16 keeps eight bits, and a score of layers add up their roundings.
    assert_close({name: value.float() for name, value in found.items()}, plain, 0.05)
