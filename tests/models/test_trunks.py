import pytest
import torch
import torchvision

from fer_lab.models.trunks import resnet18


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
