import copy

import pytest
import torch
from helpers.reference import book_methods
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from fer_lab.models import Method, create_model
from fer_lab.models.inference import fuse
from fer_lab.models.layers import Chain, fold
from fer_lab.models.method import IMAGE_SIZES
from fer_lab.models.weights import SHIPPED, load_model, shipped_models, shipped_weights

# (method, size) → how many BatchNorms go, how many stay.
FOLDED = {
    ("baseline", "tiny"): (15, 0),
    ("baseline", "paper"): (20, 0),
    ("dan", "tiny"): (36, 0),
    ("dan", "paper"): (41, 0),
    # The last one standardises the embedding and has no layer in front of it.
    ("triplet_center", "tiny"): (18, 1),
    ("triplet_center", "paper"): (23, 1),
    # IR-50's units have one in front of their first convolution, whose zero padding it must not move.
    ("poster", "tiny"): (21, 4),
    ("poster", "paper"): (74, 21),
    ("dcs", "tiny"): (7, 4),
    ("dcs", "paper"): (24, 21),
    ("qcs", "tiny"): (7, 4),
    ("qcs", "paper"): (24, 21),
}
VARIANTS = [
    ("dan", {"num_heads": 1}, 21, 0),
    ("dan", {"trunk": "timm:resnet18"}, 21, 10),
    ("baseline", {"trunk": "timm:repvgg_a0"}, 18, 0),
    ("poster", {"landmark_stream": "none", "cross_fusion": False}, 7, 4),
    ("qcs", {"form": "none"}, 7, 4),
    ("triplet_center", {"trunk": "ir50"}, 10, 5),
    ("triplet_center", {"trunk": "mobilefacenet"}, 15, 1),
    ("triplet_center", {"embedding_dim": 2, "pixel_attention": False}, 18, 0),
    ("triplet_center", {"standardize": False, "metric_loss": "none"}, 16, 0),
]


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


def test_every_method_and_size_is_counted():
    assert set(FOLDED) == {(name, size) for name in book_methods() for size in IMAGE_SIZES}


@pytest.mark.parametrize(("name", "size"), FOLDED)
def test_the_fused_model_gives_the_same_numbers_with_fewer_norms(name, size):
    model, x = lived_in(name, size), faces(3 if size == "tiny" else 1, size)
    fused = fuse(model)
    assert_close(everything(fused, x), everything(model.eval(), x))
    assert (norms(model) - norms(fused), norms(fused)) == FOLDED[name, size]
    assert_close(everything(fuse(fused), x), everything(fused, x))


@pytest.mark.parametrize(("name", "options", "gone", "left"), VARIANTS)
def test_the_same_numbers_with_options(name, options, gone, left):
    model, x = lived_in(name, **options), faces(3)
    fused = fuse(model)
    assert_close(everything(fused, x), everything(model.eval(), x))
    assert (norms(model) - norms(fused), norms(fused)) == (gone, left)


@pytest.mark.parametrize("name", [f"{kind}/{name}" for kind in SHIPPED for name in shipped_models(kind)])
def test_no_norm_of_a_shipped_model_reads_a_layer_directly(name):
    kind, method = name.split("/")
    fused = fuse(load_model(shipped_weights(method, kind)))
    layers, after_a_layer = set(), []

    def gave(module, _, output):
        if isinstance(module, nn.Conv2d | nn.Linear):
            layers.add(id(output))
            kept.append(output)  # alive, so that no other tensor gets its id
        elif not isinstance(module, nn.Identity) and not list(module.children()):
            layers.discard(id(output))  # an activation in place

    def reads(module, inputs):
        after_a_layer.extend([module] if id(inputs[0]) in layers else [])

    kept = []
    for module in fused.modules():
        module.register_forward_hook(gave)
        if isinstance(module, _BatchNorm):
            module.register_forward_pre_hook(reads)
    everything(fused, faces(2))
    assert kept
    assert after_a_layer == []


def test_fold_is_the_two_layers_in_one():
    torch.manual_seed(0)
    for layer, norm, x in (
        (nn.Conv2d(3, 4, 3, 2, bias=False), nn.BatchNorm2d(4), torch.randn(2, 3, 8, 8)),
        (nn.Linear(3, 4), nn.BatchNorm1d(4), torch.randn(5, 3)),
        (nn.Linear(3, 4), nn.BatchNorm1d(4, affine=False), torch.randn(5, 3)),
    ):
        both = shake(nn.Sequential(layer, norm)).eval()
        expected = both(x)
        one, identity = fold(layer, norm)
        torch.testing.assert_close(identity(one(x)), expected, rtol=1e-5, atol=1e-6)
        assert isinstance(identity, nn.Identity)


def test_fold_returns_any_other_two_modules_unchanged():
    for pair in ((nn.Identity(), nn.BatchNorm1d(4)), (nn.Linear(3, 4), nn.Identity()), (nn.ReLU(), nn.ReLU())):
        assert fold(*pair) == pair


def test_a_chain_folds_only_norms_right_behind_a_layer():
    torch.manual_seed(0)
    chain = shake(Chain(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()))
    chain.extend([nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1), nn.BatchNorm2d(2)])
    x = torch.randn(2, 3, 6, 6)
    expected = chain.eval()(x)
    chain.fold_for_inference()
    torch.testing.assert_close(chain(x), expected, rtol=1e-5, atol=1e-6)
    assert [i for i, module in enumerate(chain) if isinstance(module, _BatchNorm)] == [0, 4]


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
    assert isinstance(poster.landmarks.head, nn.Identity)
    triplet = fuse(lived_in("triplet_center"))
    assert triplet.elements is triplet.triplet_center is None
    with pytest.raises(ValueError, match=r"no cross branch.*a copy made for inference"):
        fused.branch_logits(torch.zeros(1, 4, 3, 56, 56))


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


class Own(Method):
    """A reader's method: only what says how is folded, whatever stands in front of its BatchNorms."""

    has_face_maps = False

    def __init__(self):
        super().__init__(3, "tiny")
        self.chain = Chain(nn.Conv2d(3, 4, 8, 8), nn.BatchNorm2d(4))
        self.read_twice, self.norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.plain = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
        self.fc = nn.Linear(4, 3)

    def embed(self, images):
        x = self.read_twice(self.chain(images))
        return self.plain(self.norm(x) + x).mean((2, 3)) + self.plain[0](x).mean((2, 3))

    def forward(self, images):
        return self.fc(self.embed(images))


def test_a_readers_method_is_right_and_folds_what_says_how():
    torch.manual_seed(0)
    model, x = shake(Own()), faces(4)
    fused = fuse(model)
    model.eval()
    with torch.no_grad():
        torch.testing.assert_close(fused(x), model(x), rtol=1e-5, atol=1e-6)
    assert isinstance(fused.chain[1], nn.Identity)
    assert norms(fused) == norms(model) - 1 == 2


def test_bf16_stays_within_its_rounding():
    model, x = lived_in("dan").eval(), faces(8)
    plain = everything(model, x)
    with torch.autocast("cpu", torch.bfloat16):
        found = everything(fuse(model), x)
    # bf16 keeps eight bits, and a score of layers add up their roundings.
    assert_close({name: value.float() for name, value in found.items()}, plain, 0.05)
