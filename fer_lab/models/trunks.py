"""Trunks: images in, a grid of features out.

ResNet-18 is He et al.'s (arXiv 1512.03385), built from torchvision's block. `paper` is the published
network at 224 px without its pooling and classifier. `tiny` keeps the block and the 7×7 grid at 56 px: a
3×3 stem with stride 2, then three stages of two blocks (32, 64, 128 channels; 0.7 M parameters). It keeps
PyTorch's own initialisation: behind BatchNorm the size of a weight only sets how fast it turns, and from
the larger kaiming weights of the paper size it learns clearly slower in the few steps that it gets
(cross-entropy on FER+ after 120 steps: 1.60, against 1.51).

IR-50 is the face-recognition network of Deng et al. (ArcFace, arXiv 1801.07698) as POSTER and QCS use it,
without its last stage: it ends in a 14×14 grid and can be tapped after each stage. `paper` reads 224 px,
takes every second pixel, and has 3, 4 and 14 units of 64, 128 and 256 channels. `tiny` reads 56 px whole
and does not halve in the first stage, so that the taps have the paper's grids of 56, 28 and 14; it has 1, 1
and 2 units of 16, 32 and 96 channels (0.3 M parameters), and the slope of its PReLU stays at the 0.25 that
it starts from: the gradient of a learned slope takes as long as all convolutions of a 56×56 grid together.

MobileFaceNet (Chen et al., arXiv 1804.07573) with a head for 68 landmarks, as POSTER uses it. `paper` is the
published one: 224 px, every second pixel, inverted bottlenecks of 1×1, depth-wise 3×3 and 1×1. In `tiny` a
plain 3×3 convolution stands for the first two (Fused-MBConv, Tan & Le, arXiv 2104.00298) and ReLU for PReLU:
depth-wise convolutions run at a fraction of their speed on a CPU. It reads 56 px whole.
"""

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.resnet import BasicBlock


def check_images(images: torch.Tensor, size: int) -> None:
    """Raise ValueError, with both shapes, for anything but images [B,3,size,size]."""
    if images.ndim != 4 or tuple(images.shape[1:]) != (3, size, size):
        raise ValueError(f"expected images [B,3,{size},{size}], got {list(images.shape)}")


class ResNet(nn.Module):
    """A stem and stages of residual blocks; parameter names are torchvision's.

    Attributes:
        out_channels: D of the features [B,D,7,7].
        image_size: side of the images it is made for.
    """

    def __init__(self, *, widths: tuple[int, ...], blocks: int, stem: nn.Module, image_size: int):
        super().__init__()
        self.image_size = image_size
        self.out_channels = widths[-1]
        self.conv1 = stem
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1) if image_size == 224 else nn.Identity()
        self.stages = len(widths)
        channels = widths[0]
        for i, width in enumerate(widths):
            setattr(self, f"layer{i + 1}", _stage(channels, width, blocks, stride=1 if i == 0 else 2))
            channels = width
        if image_size == 224:
            for module in self.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """[B,3,S,S] → [B,D,7,7].

        Raises:
            ValueError: images of a size that does not end in the 7×7 grid.
        """
        check_images(images, self.image_size)
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        for i in range(self.stages):
            x = getattr(self, f"layer{i + 1}")(x)
        return x


def _stage(channels: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    shortcut = None
    if stride != 1 or channels != width:
        shortcut = nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width))
    first = BasicBlock(channels, width, stride, shortcut)
    return nn.Sequential(first, *(BasicBlock(width, width) for _ in range(blocks - 1)))


def resnet18(size: str = "paper") -> ResNet:
    """ResNet-18's features at one of its two sizes.

    Raises:
        ValueError: a size other than "tiny" and "paper".
    """
    if size == "paper":
        stem = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        return ResNet(widths=(64, 128, 256, 512), blocks=2, stem=stem, image_size=224)
    if size == "tiny":
        stem = nn.Conv2d(3, 32, 3, 2, 1, bias=False)
        return ResNet(widths=(32, 64, 128), blocks=2, stem=stem, image_size=56)
    raise ValueError(f"size must be 'tiny' or 'paper', got {size!r}")


class IRUnit(nn.Module):
    """BN, conv 3×3, PReLU, conv 3×3 with the stride, BN, plus the shortcut; nothing after the sum.

    The shortcut picks every stride-th place where the channels stay, else it is a 1×1 convolution and BN.
    """

    def __init__(self, channels: int, width: int, stride: int, activation: nn.Module):
        super().__init__()
        self.stride = stride
        self.shortcut = None
        if channels != width:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, width, 3, 1, 1, bias=False)
        self.activation = activation
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B,C,h,w] → [B,D,h/s,w/s]."""
        passed = x[:, :, :: self.stride, :: self.stride] if self.shortcut is None else self.shortcut(x)
        return self.norm2(self.conv2(self.activation(self.conv1(self.norm1(x))))) + passed


class IRNet(nn.Module):
    """A stem and three stages of `IRUnit`.

    Attributes:
        widths: channels of the three taps, C₁, C₂, C₃.
        out_channels: C₃, channels of the features.
        image_size: side of the images it is made for.
    """

    def __init__(self, *, widths: tuple[int, int, int], units: tuple[int, int, int], image_size: int):
        super().__init__()
        self.image_size = image_size
        self.widths = widths
        self.out_channels = widths[-1]
        large = image_size == 224

        def activation(channels: int) -> nn.Module:
            return nn.PReLU(channels) if large else nn.LeakyReLU(0.25, inplace=True)

        self.stem = nn.Sequential(
            nn.Conv2d(3, widths[0], 3, 1, 1, bias=False), nn.BatchNorm2d(widths[0]), activation(widths[0])
        )
        self.stages = nn.ModuleList()
        before = widths[0]
        for i, (width, count) in enumerate(zip(widths, units, strict=True)):
            channels = [before] + [width] * (count - 1)
            strides = [1 if i == 0 and not large else 2] + [1] * (count - 1)
            row = zip(channels, strides, strict=True)
            self.stages.append(nn.Sequential(*(IRUnit(c, width, s, activation(width)) for c, s in row)))
            before = width

    def taps(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """[B,3,S,S] → features after each stage: [B,C₁,56,56], [B,C₂,28,28], [B,C₃,14,14].

        Raises:
            ValueError: images of a size that does not end in the 14×14 grid.
        """
        check_images(images, self.image_size)
        x = images
        if self.image_size == 224:
            x = F.interpolate(x, size=(112, 112), mode="nearest")
        x1 = self.stages[0](self.stem(x))
        x2 = self.stages[1](x1)
        return x1, x2, self.stages[2](x2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """[B,3,S,S] → [B,C₃,14,14]."""
        return self.taps(images)[-1]


def ir50(size: str = "paper") -> IRNet:
    """IR-50 up to its 14×14 grid, at one of its two sizes.

    Raises:
        ValueError: a size other than "tiny" and "paper".
    """
    if size == "paper":
        return IRNet(widths=(64, 128, 256), units=(3, 4, 14), image_size=224)
    if size == "tiny":
        return IRNet(widths=(16, 32, 96), units=(1, 1, 2), image_size=56)
    raise ValueError(f"size must be 'tiny' or 'paper', got {size!r}")


class ConvNorm(nn.Module):
    """Convolution without bias that keeps the grid but for its stride, BN, and an activation where wanted."""

    def __init__(
        self,
        channels: int,
        width: int,
        kernel: int,
        stride: int = 1,
        *,
        groups: int = 1,
        activation: nn.Module | None = None,
        padding: int | None = None,
    ):
        super().__init__()
        padding = kernel // 2 if padding is None else padding
        self.conv = nn.Conv2d(channels, width, kernel, stride, padding, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.activation = nn.Identity() if activation is None else activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B,C,h,w] → [B,D,h',w']."""
        return self.activation(self.norm(self.conv(x)))


class Bottleneck(nn.Module):
    """Wide inside, narrow outside: 1×1, depth-wise 3×3 with the stride, 1×1 without activation.

    Args:
        hidden: channels inside.
        residual: add the input.
        fused: one plain 3×3 convolution in place of the first two.
    """

    def __init__(self, channels: int, width: int, hidden: int, stride: int = 1, *, residual: bool, fused: bool):
        super().__init__()
        self.residual = residual
        if fused:
            self.spread = ConvNorm(channels, hidden, 3, stride, activation=nn.ReLU(inplace=True))
            self.depthwise = nn.Identity()
        else:
            self.spread = ConvNorm(channels, hidden, 1, activation=nn.PReLU(hidden))
            self.depthwise = ConvNorm(hidden, hidden, 3, stride, groups=hidden, activation=nn.PReLU(hidden))
        self.project = ConvNorm(hidden, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B,C,h,w] → [B,D,h/s,w/s]."""
        inside = self.project(self.depthwise(self.spread(x)))
        return x + inside if self.residual else inside


class LandmarkHead(nn.Module):
    """A weight for every channel and place (7×7, depth-wise), BN, linear, BN: 68 points."""

    def __init__(self, channels: int):
        super().__init__()
        self.depthwise = ConvNorm(channels, channels, 7, groups=channels, padding=0)
        self.linear = nn.Linear(channels, 136, bias=False)
        self.norm = nn.BatchNorm1d(136)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """[B,D,7,7] → points [B,68,2]."""
        return self.norm(self.linear(self.depthwise(features).flatten(1))).unflatten(1, (68, 2))


class MobileFaceNet(nn.Module):
    """Features for POSTER's landmark tokens, and the 68 landmarks that they were learned for.

    Args:
        stem: channels behind the first convolution.
        stages: (width, channels inside the unit that halves the grid, the same of its residual units, how
            many of those) for each of the three.
        out_channels: D.

    Attributes:
        out_channels: D of the features [B,D,7,7].
        image_size: side of the images it is made for.
        head: features → points.
    """

    def __init__(
        self,
        *,
        stem: int,
        stages: tuple[tuple[int, int, int, int], ...],
        out_channels: int,
        image_size: int,
    ):
        super().__init__()
        self.image_size = image_size
        self.out_channels = out_channels
        fused = image_size != 224

        def activation(channels: int) -> nn.Module:
            return nn.ReLU(inplace=True) if fused else nn.PReLU(channels)

        self.stem = nn.Sequential(ConvNorm(3, stem, 3, 2, activation=activation(stem)))
        if not fused:
            self.stem.append(ConvNorm(stem, stem, 3, groups=stem, activation=activation(stem)))
        self.stages = nn.ModuleList()
        before = stem
        # After a stem with stride 2, 112 px need three halvings to the 7×7 grid and 56 px two.
        strides = (1, 2, 2) if fused else (2, 2, 2)
        for stride, (width, down, inside, count) in zip(strides, stages, strict=True):
            units = [Bottleneck(before, width, down, stride, residual=False, fused=fused)]
            units += [Bottleneck(width, width, inside, residual=True, fused=fused) for _ in range(count)]
            self.stages.append(nn.Sequential(*units))
            before = width
        self.last = ConvNorm(before, out_channels, 1, activation=activation(out_channels))
        self.head = LandmarkHead(out_channels)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """[B,3,S,S] → [B,D,7,7].

        Raises:
            ValueError: images of a size that does not end in the 7×7 grid.
        """
        check_images(images, self.image_size)
        x = images
        if self.image_size == 224:
            x = F.interpolate(x, size=(112, 112), mode="nearest")
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        return self.last(x)

    def points(self, images: torch.Tensor) -> torch.Tensor:
        """[B,3,S,S] → 68 landmarks [B,68,2] in the iBUG order, x and y as shares 0…1 of the image's side."""
        return self.head(self(images))


def mobilefacenet(size: str = "paper") -> MobileFaceNet:
    """MobileFaceNet for 68 landmarks at one of its two sizes.

    Raises:
        ValueError: a size other than "tiny" and "paper".
    """
    if size == "paper":
        stages = ((64, 128, 128, 4), (128, 256, 256, 6), (128, 512, 256, 2))
        return MobileFaceNet(stem=64, stages=stages, out_channels=512, image_size=224)
    if size == "tiny":
        stages = ((16, 32, 32, 0), (32, 64, 64, 1), (64, 96, 96, 1))
        return MobileFaceNet(stem=16, stages=stages, out_channels=96, image_size=56)
    raise ValueError(f"size must be 'tiny' or 'paper', got {size!r}")
