import pytest
import torch
import torch.nn.functional as F
import torchvision

from fer_lab.models.trunks import IRUnit, ir50, resnet18


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
    with pytest.raises(ValueError, match="'tiny' or 'paper'"):
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
    with pytest.raises(ValueError, match="'tiny' or 'paper'"):
        ir50("huge")
