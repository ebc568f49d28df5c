import pytest
import torch
import torch.nn.functional as F
import torchvision

from fer_lab.data.faces import FaceBatch
from fer_lab.data.loader import KINDS
from fer_lab.models import create_model
from fer_lab.models.authors import start_from_trunk
from fer_lab.models.inference import fuse
from fer_lab.models.trunks import IRUnit, TimmTrunk, ir50, make_trunk, resnet18
from fer_lab.models.weights import load_model, read_card, save_model

# A ResNet, an inverted bottleneck, a network of stages whose first stride is 4.
FAMILIES = ("resnet18", "mobilenetv3_small_050", "convnext_atto")
METHODS = ("baseline", "dan", "triplet_center", "poster", "dcs", "qcs")


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """Nothing here may download, so every look for pre-trained weights fails."""

    def refuse(*_args, **_kwargs):
        raise AssertionError("a download")

    for name in ("load_state_dict_from_hf", "load_state_dict_from_url", "load_pretrained"):
        monkeypatch.setattr(f"timm.models._builder.{name}", refuse)


def test_paper_size_is_torchvisions_resnet18_without_pool_and_classifier():
    ours, theirs = resnet18("paper").eval(), torchvision.models.resnet18().eval()
    state = {k: v for k, v in theirs.state_dict().items() if not k.startswith("fc.")}
    ours.load_state_dict(state, strict=True)
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        pooled = ours(x).mean((2, 3))
        torch.testing.assert_close(theirs.fc(pooled), theirs(x))


@pytest.mark.parametrize(("size", "pixels", "channels"), [("paper", 224, 512), ("tiny", 56, 128)])
def test_both_sizes_end_in_the_grid(size, pixels, channels):
    trunk = resnet18(size)
    assert trunk.out_channels == channels
    assert trunk(torch.zeros(2, 3, pixels, pixels)).shape == (2, channels, 7, 7)


def test_tiny_stays_small():
    assert 600_000 < sum(p.numel() for p in resnet18("tiny").parameters()) < 800_000


@pytest.mark.parametrize("shape", [(1, 3, 64, 64), (1, 1, 56, 56), (3, 56, 56)])
def test_other_image_shapes_are_refused_with_both_shapes(shape):
    with pytest.raises(ValueError, match=r"\[B,3,56,56\], got"):
        resnet18("tiny")(torch.zeros(shape))


def test_unknown_size():
    with pytest.raises(ValueError, match="size must be one of tiny, paper"):
        resnet18("huge")


# ---------------------------------------------------------------- IR-50


@pytest.mark.parametrize(
    ("size", "pixels", "widths"), [("paper", 224, (64, 128, 256)), ("tiny", 56, (16, 32, 96))]
)
def test_ir50_taps_have_the_same_grids_at_both_sizes(size, pixels, widths):
    trunk = ir50(size).eval()
    assert trunk.widths == widths
    x = torch.randn(1, 3, pixels, pixels, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        taps = trunk.taps(x)
        torch.testing.assert_close(trunk(x), taps[2], rtol=0, atol=0)
    assert [tuple(t.shape[1:]) for t in taps] == [(widths[0], 56, 56), (widths[1], 28, 28), (widths[2], 14, 14)]


def test_ir50_paper_size_looks_at_every_second_pixel():
    trunk = ir50("paper").eval()
    x = torch.zeros(1, 3, 224, 224)
    unseen = x.clone()
    unseen[:, :, 1::2, :] = 1.0
    seen = x.clone()
    seen[:, :, 100, 100] = 1.0
    with torch.no_grad():
        assert torch.equal(trunk(x), trunk(unseen))
        assert not torch.equal(trunk(x), trunk(seen))


@pytest.mark.parametrize(("channels", "width", "stride"), [(4, 4, 1), (4, 4, 2), (4, 6, 2)])
def test_ir_unit_against_its_formula(channels, width, stride):
    unit = IRUnit(channels, width, stride, torch.nn.PReLU(width)).eval()
    x = torch.randn(2, channels, 8, 8, generator=torch.Generator().manual_seed(0))
    scale = 1 / (1 + 1e-5) ** 0.5  # a fresh BatchNorm in eval mode
    inner = F.conv2d(x * scale, unit.conv1.weight, padding=1)
    inner = torch.where(inner > 0, inner, 0.25 * inner)
    inner = F.conv2d(inner, unit.conv2.weight, stride=stride, padding=1) * scale
    if channels == width:
        passed = x[:, :, ::stride, ::stride]
    else:
        passed = F.conv2d(x, unit.shortcut[0].weight, stride=stride) * scale
    torch.testing.assert_close(unit(x), inner + passed)


def test_ir50_tiny_stays_small_and_refuses_other_images():
    trunk = ir50("tiny")
    assert 250_000 < sum(p.numel() for p in trunk.parameters()) < 350_000
    with pytest.raises(ValueError, match=r"\[B,3,56,56\], got \[1, 1, 56, 56\]"):
        trunk(torch.zeros(1, 1, 56, 56))
    with pytest.raises(ValueError, match="size must be one of tiny, paper"):
        ir50("huge")


# ---------------------------------------------------------------- networks of timm


def batch_for(model, n=4):
    group = KINDS[model.batch_kind]
    images = torch.randn(n, group, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(n) % 7
    other = (labels + 1) % 7
    if group == 1:
        return FaceBatch(images[:, 0], labels, labels)
    return FaceBatch(images, torch.stack([labels, labels, other, other][:group], 1), labels)


@pytest.mark.parametrize("network", FAMILIES)
@pytest.mark.parametrize("method", METHODS)
def test_any_network_of_timm_backs_any_method(method, network, tmp_path):
    torch.manual_seed(0)
    model = create_model(method, trunk=f"timm:{network}")
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            # timm starts some at zero, and until the first step no gradient passes them.
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    batch = batch_for(model)
    losses = model.training_losses(batch)
    losses["total"].backward()
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
    # The mean in a BatchNorm removes a bias in front of it.
    still = [n for n, p in model.named_parameters() if p.requires_grad and not p.grad.abs().sum() > 0]
    assert [n for n in still if not n.endswith("bias")] == []

    model.eval()
    x = batch.images.flatten(0, -4)[:2]
    width = {"poster": 96, "dcs": 96, "qcs": 96}.get(method, model.trunk.out_channels)
    with torch.no_grad():
        logits, embedding, maps = model(x), model.embed(x), model.attention_maps(x)
        assert logits.shape == (2, 7)
        assert embedding.shape == (2, width)
        assert maps
        assert all(values.shape[::2] == (2, 7) and values.shape[3] == 7 for values in maps.values())
        torch.testing.assert_close(model(x[:1]), logits[:1], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(fuse(model)(x), logits, rtol=1e-4, atol=1e-5)

        save_model(model, tmp_path / "weights.safetensors")
        assert read_card(tmp_path / "weights.safetensors")["options"] == {"trunk": f"timm:{network}"}
        torch.testing.assert_close(load_model(tmp_path / "weights.safetensors")(x), logits, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("network", "side", "grids", "widths"),
    [
        ("resnet18", 56, (7,), (128,)),
        ("resnet18", 56, (28, 14, 7), (64, 64, 128)),
        ("resnet18", 224, (7,), (512,)),
        ("resnet18", 224, (28, 14, 7), (128, 256, 512)),
        # It has no stride of 2 and no stride of 16 alone: the nearest stage, averaged or repeated.
        ("convnext_atto", 56, (28, 14, 7), (40, 40, 80)),
        ("vit_tiny_patch16_224", 224, (14, 7), (192, 192)),
        ("swin_tiny_patch4_window7_224", 56, (14, 7), (96, 192)),
    ],
)
def test_the_stage_whose_stride_is_nearest_is_tapped(network, side, grids, widths):
    trunk = TimmTrunk(network, side, grids).eval()
    assert trunk.widths == widths
    assert trunk.out_channels == widths[-1]
    x = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        taps = trunk.taps(x)
        torch.testing.assert_close(trunk(x), taps[-1], rtol=0, atol=0)
    assert [tuple(tap.shape[1:]) for tap in taps] == [(w, g, g) for w, g in zip(widths, grids, strict=True)]


def test_timms_resnet18_is_torchvisions_up_to_the_tapped_stage():
    torch.manual_seed(0)
    ours, theirs = TimmTrunk("resnet18", 56).eval(), torchvision.models.resnet18().eval()
    state = {name.removeprefix("net."): value for name, value in ours.state_dict().items()}
    assert not any(name.startswith(("layer3", "layer4", "fc")) for name in state)
    _, unknown = theirs.load_state_dict(state, strict=False)
    assert unknown == []
    x = torch.randn(2, 3, 56, 56)
    with torch.no_grad():
        expected = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x))))
        torch.testing.assert_close(ours(x), theirs.layer2(theirs.layer1(expected)))


def test_a_paper_sized_method_on_a_network_of_timm():
    model = create_model("dan", size="paper", trunk="timm:resnet18").eval()
    x = torch.zeros(1, 3, 224, 224)
    with torch.no_grad():
        assert model.embed(x).shape == (1, 512)
        assert model.attention_maps(x)["heads"].shape == (1, 4, 7, 7)


def test_a_trunk_goes_to_another_method_with_the_same_network():
    torch.manual_seed(0)
    trained, model = (create_model(name, trunk="timm:mobilenetv3_small_050") for name in ("baseline", "dan"))
    start_from_trunk(model, trained)
    assert torch.equal(model.trunk.net.conv_stem.weight, trained.trunk.net.conv_stem.weight)
    with pytest.raises(ValueError, match="differ"):
        start_from_trunk(create_model("dan"), trained)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trunk": "timm:resnet81"}, r"timm has no network 'resnet81'; close names: .*resnet18"),
        ({"trunk": "timm:"}, r"timm has no network ''; timm.list_models\(\) lists all"),
        ({"trunk": "timm:hf-hub:timm/resnet18"}, "timm has no network 'hf-hub:timm/resnet18'"),
        ({"trunk": "timm:test_vit"}, "timm's test_vit cannot be a trunk at 56 px: .*divisible by patch size"),
        ({"trunk": "vgg"}, "trunk must be one of resnet18, faceres, or timm:NAME, got 'vgg'"),
        ({"pretrained": True}, "pretrained=True is for timm's networks alone, and resnet18 is not one"),
        ({"trunk": "timm:resnet18", "size": "huge"}, "size must be one of tiny, paper"),
    ],
)
def test_trunks_that_cannot_be_built(options, message):
    with pytest.raises(ValueError, match=message):
        create_model("dan", **options)


def test_weights_are_downloaded_only_on_request_and_never_to_open_a_file(monkeypatch, tmp_path):
    requests = []
    monkeypatch.setattr("timm.models._builder.load_pretrained", lambda net, **_: requests.append(net))
    create_model("baseline", trunk="timm:mobilenetv3_small_050")
    assert requests == []
    model = create_model("baseline", trunk="timm:mobilenetv3_small_050", pretrained=True)
    assert len(requests) == 1
    path = tmp_path / "weights.safetensors"
    save_model(model, path)
    load_model(path)
    assert len(requests) == 1
    model.options["pretrained"] = True
    with pytest.raises(ValueError, match="options must not have"):
        save_model(model, path)


def test_make_trunk_gives_the_packages_own_by_name():
    assert make_trunk("ir50", "tiny", ("ir50",)).widths == (16, 32, 96)
    with pytest.raises(ValueError, match="one of ir50, faceres, or timm:NAME"):
        make_trunk("resnet18", "tiny", ("ir50",))
