"""Trunks: images in, a grid of features out.

ResNet-18 is He et al.'s (arXiv 1512.03385), with torchvision's parameter names. `paper` is the published
network at 224 px without its pooling and classifier. `tiny` keeps the block and the 7×7 grid at 56 px: a
3×3 stem with stride 2, then three stages of two blocks (32, 64, 128 channels; 0.7 M parameters). It keeps
PyTorch's own initialisation: behind BatchNorm the size of a weight only sets how fast its direction changes,
and from the larger kaiming weights of the paper size `tiny` learns clearly slower in its few steps
(cross-entropy on FER+ after 120 steps: 1.60, against 1.51).

IR-50 is the face-recognition network of Deng et al. (ArcFace, arXiv 1801.07698) as POSTER and QCS use it,
without its last stage: it ends in a 14×14 grid and can be tapped after each stage. `paper` reads 224 px,
takes every second pixel, and has 3, 4 and 14 units of 64, 128 and 256 channels. `tiny` reads all pixels of
56 px and does not halve in the first stage, so that the taps have the paper's grids of 56, 28 and 14; it has
1, 1 and 2 units of 16, 32 and 96 channels (0.3 M parameters). The slope of its PReLU stays at the initial
0.25: the gradient of a learned slope takes as long as all convolutions of a 56×56 grid together.

MobileFaceNet (Chen et al., arXiv 1804.07573) with a head for 68 landmarks, as POSTER uses it. `paper` is the
published one: 224 px, every second pixel, inverted bottlenecks of 1×1, depth-wise 3×3 and 1×1. In `tiny` a
plain 3×3 convolution replaces the first two (Fused-MBConv, Tan & Le, arXiv 2104.00298) and ReLU replaces
PReLU: depth-wise convolutions run at a fraction of their speed on a CPU. It reads all pixels of 56 px.

Any network of timm can take the place of these (`TimmTrunk`).
"""

import difflib
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fer_lab.data.augmentation import MEAN, STD
from fer_lab.models.layers import Chain, evaluating, fold
from fer_lab.models.method import IMAGE_SIZES, SIZES
from fer_lab.models.recipes import check_choice

TIMM = "timm:"
# What HSE-FaceRes' images are less of, BGR.
VGG_MEAN = (103.939, 116.779, 123.68)


def check_images(images: Tensor, *shape: int, what: str = "images") -> None:
    """Raise ValueError, with both shapes, for anything but images [B,*shape]."""
    if tuple(images.shape[1:]) != shape:
        raise ValueError(f"expected {what} [B,{','.join(map(str, shape))}], got {list(images.shape)}")


def _shortcut(channels: int, width: int, stride: int) -> Chain:
    return Chain(nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width))


class Trunk(nn.Module):
    """What all trunks have in common: `forward` gives a grid of features, and `taps` earlier grids as well.

    Images of another size than the trunk's raise ValueError.
    """

    def __init__(self, image_size: int, widths: tuple[int, ...]):
        super().__init__()
        self.image_size = image_size  # side of the images that it takes, S
        self.widths = widths  # channels of each tap
        self.out_channels = widths[-1]  # channels of the features, D

    def taps(self, images: Tensor) -> tuple[Tensor, ...]:
        """[B,3,S,S] → the grids that the trunk offers, the features last."""
        return (self(images),)


class Residual(nn.Module):
    """ResNet-18's block: two 3×3 convolutions with BatchNorm, plus the shortcut.

    It is torchvision's, whose import takes longer than all else that a prediction needs.
    """

    def __init__(self, channels: int, width: int, stride: int = 1, shortcut: nn.Module | None = None):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.bn1: nn.Module = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2: nn.Module = nn.BatchNorm2d(width)
        self.downsample = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """[B,C,h,w] → [B,D,h/s,w/s]."""
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        y += x if self.downsample is None else self.downsample(x)
        return self.relu(y)

    def fold_for_inference(self) -> None:
        """Fold both BatchNorms; the shortcut folds its own."""
        self.conv1, self.bn1 = fold(self.conv1, self.bn1)
        self.conv2, self.bn2 = fold(self.conv2, self.bn2)


class ResNet(Trunk):
    """A stem and stages of residual blocks; parameter names are torchvision's."""

    def __init__(self, *, widths: tuple[int, ...], blocks: int, stem: nn.Conv2d, image_size: int):
        super().__init__(image_size, widths[-1:])
        self.conv1 = stem
        self.bn1: nn.Module = nn.BatchNorm2d(widths[0])
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

    def fold_for_inference(self) -> None:
        self.conv1, self.bn1 = fold(self.conv1, self.bn1)

    def forward(self, images: Tensor) -> Tensor:
        """[B,3,S,S] → [B,D,7,7]."""
        check_images(images, 3, self.image_size, self.image_size)
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        for i in range(self.stages):
            x = getattr(self, f"layer{i + 1}")(x)
        return x


def _stage(channels: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    shortcut = None if stride == 1 and channels == width else _shortcut(channels, width, stride)
    first = Residual(channels, width, stride, shortcut)
    return nn.Sequential(first, *(Residual(width, width) for _ in range(blocks - 1)))


def resnet18(size: str = "paper") -> ResNet:
    """ResNet-18's features at size "tiny" or "paper"; ValueError for another."""
    check_choice("size", size, SIZES)
    if size == "paper":
        stem = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        return ResNet(widths=(64, 128, 256, 512), blocks=2, stem=stem, image_size=224)
    stem = nn.Conv2d(3, 32, 3, 2, 1, bias=False)
    return ResNet(widths=(32, 64, 128), blocks=2, stem=stem, image_size=56)


class IRUnit(nn.Module):
    """BN, conv 3×3, PReLU, conv 3×3 with the stride, BN, plus the shortcut; nothing after the sum.

    The shortcut takes every stride-th place if the number of channels stays, else it is a 1×1 convolution
    and BN.
    """

    def __init__(self, channels: int, width: int, stride: int, activation: nn.Module):
        super().__init__()
        self.stride = stride
        self.shortcut = None if channels == width else _shortcut(channels, width, stride)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, width, 3, 1, 1, bias=False)
        self.activation = activation
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.norm2: nn.Module = nn.BatchNorm2d(width)

    def fold_for_inference(self) -> None:
        """Fold the last BatchNorm. The first one stays: conv1 pads with zeros, which it must not shift."""
        self.conv2, self.norm2 = fold(self.conv2, self.norm2)

    def forward(self, x: Tensor) -> Tensor:
        """[B,C,h,w] → [B,D,h/s,w/s]."""
        passed = x[:, :, :: self.stride, :: self.stride] if self.shortcut is None else self.shortcut(x)
        return self.norm2(self.conv2(self.activation(self.conv1(self.norm1(x))))) + passed


class IRNet(Trunk):
    """A stem and three stages of `IRUnit`, with a tap after each."""

    def __init__(self, *, widths: tuple[int, int, int], units: tuple[int, int, int], image_size: int):
        super().__init__(image_size, widths)
        large = image_size == 224

        def activation(channels: int) -> nn.Module:
            return nn.PReLU(channels) if large else nn.LeakyReLU(0.25, inplace=True)

        self.stem = Chain(
            nn.Conv2d(3, widths[0], 3, 1, 1, bias=False), nn.BatchNorm2d(widths[0]), activation(widths[0])
        )
        self.stages = nn.ModuleList()
        strides = (2 if large else 1, 2, 2)
        for before, width, count, stride in zip((widths[0], *widths[:-1]), widths, units, strides, strict=True):
            first = IRUnit(before, width, stride, activation(width))
            others = (IRUnit(width, width, 1, activation(width)) for _ in range(count - 1))
            self.stages.append(nn.Sequential(first, *others))

    def taps(self, images: Tensor) -> tuple[Tensor, ...]:
        """[B,3,S,S] → features after each stage: [B,C₁,56,56], [B,C₂,28,28], [B,C₃,14,14]."""
        x1 = self.stages[0](self.stem(_pixels(images, self.image_size)))
        x2 = self.stages[1](x1)
        return x1, x2, self.stages[2](x2)

    def forward(self, images: Tensor) -> Tensor:
        """[B,3,S,S] → [B,C₃,14,14]."""
        return self.taps(images)[-1]


def _pixels(images: Tensor, size: int) -> Tensor:
    """Checked images; of 224 px every second pixel, [B,3,112,112]."""
    check_images(images, 3, size, size)
    return F.interpolate(images, size=(112, 112), mode="nearest") if size == 224 else images


def ir50(size: str = "paper") -> IRNet:
    """IR-50 up to its 14×14 grid, at size "tiny" or "paper"; ValueError for another."""
    check_choice("size", size, SIZES)
    if size == "paper":
        return IRNet(widths=(64, 128, 256), units=(3, 4, 14), image_size=224)
    return IRNet(widths=(16, 32, 96), units=(1, 1, 2), image_size=56)


class ConvNorm(nn.Module):
    """Convolution without bias, padded to keep the grid (up to its stride), BN, and an optional activation."""

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
        self.norm: nn.Module = nn.BatchNorm2d(width)
        self.activation = nn.Identity() if activation is None else activation

    def fold_for_inference(self) -> None:
        self.conv, self.norm = fold(self.conv, self.norm)

    def forward(self, x: Tensor) -> Tensor:
        """[B,C,h,w] → [B,D,h',w']."""
        return self.activation(self.norm(self.conv(x)))


class Bottleneck(nn.Module):
    """Wide inside, narrow outside: 1×1, depth-wise 3×3 with the stride, 1×1 without activation.

    `hidden`: channels inside. `residual`: add the input. `fused`: one plain 3×3 convolution in place of the
    first two.
    """

    def __init__(self, channels: int, width: int, hidden: int, stride: int = 1, *, residual: bool, fused: bool):
        super().__init__()
        self.residual = residual
        self.depthwise: nn.Module
        if fused:
            self.spread = ConvNorm(channels, hidden, 3, stride, activation=nn.ReLU(inplace=True))
            self.depthwise = nn.Identity()
        else:
            self.spread = ConvNorm(channels, hidden, 1, activation=nn.PReLU(hidden))
            self.depthwise = ConvNorm(hidden, hidden, 3, stride, groups=hidden, activation=nn.PReLU(hidden))
        self.project = ConvNorm(hidden, width, 1)

    def forward(self, x: Tensor) -> Tensor:
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

    def forward(self, features: Tensor) -> Tensor:
        """[B,D,7,7] → points [B,68,2]."""
        return self.norm(self.linear(self.depthwise(features).flatten(1))).unflatten(1, (68, 2))


class MobileFaceNet(Trunk):
    """Features for POSTER's landmark tokens, and the 68 landmarks that they were learned for.

    `stem`: channels behind the first convolution. `stages`: the width of each, the channels inside the unit
    that halves the grid, those inside its residual units, and their number. The head, features → points, is
    the identity in a method that needs only the features.
    """

    def __init__(
        self, *, stem: int, stages: tuple[tuple[int, int, int, int], ...], out_channels: int, image_size: int
    ):
        super().__init__(image_size, (out_channels,))
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
        self.head: nn.Module = LandmarkHead(out_channels)

    def forward(self, images: Tensor) -> Tensor:
        """[B,3,S,S] → [B,D,7,7]."""
        x = self.stem(_pixels(images, self.image_size))
        for stage in self.stages:
            x = stage(x)
        return self.last(x)

    def points(self, images: Tensor) -> Tensor:
        """[B,3,S,S] → 68 landmarks [B,68,2] in the iBUG order, x and y as shares 0…1 of the image's side."""
        return self.head(self(images))


def mobilefacenet(size: str = "paper") -> MobileFaceNet:
    """MobileFaceNet for 68 landmarks at size "tiny" or "paper"; ValueError for another."""
    check_choice("size", size, SIZES)
    if size == "paper":
        stages = ((64, 128, 128, 4), (128, 256, 256, 6), (128, 512, 256, 2))
        return MobileFaceNet(stem=64, stages=stages, out_channels=512, image_size=224)
    stages = ((16, 32, 32, 0), (32, 64, 64, 1), (64, 96, 96, 1))
    return MobileFaceNet(stem=16, stages=stages, out_channels=96, image_size=56)


class TimmTrunk(Trunk):
    """Features of a network of timm (https://github.com/huggingface/pytorch-image-models).

    For each wanted grid of side g it taps the stage whose stride is nearest to S/g, and averages (or repeats)
    a grid of another side to g×g. Deeper stages are left out. At 56 px and g = 7 the stride is 8, an early
    stage; at 224 px it is 32, usually the whole network. Images keep the package's own normalisation, also
    with pre-trained weights that were learned with another one. Raises ValueError if timm has no network of
    this name (close names are listed), or if it cannot give grids of images of this size.

    `grids`: sides of the taps, the features' last. `pretrained`: load the weights that timm downloads for this
    network; without it nothing is downloaded.
    """

    def __init__(
        self, name: str, image_size: int, grids: tuple[int, ...] = (7,), pretrained: bool = False, **more: Any
    ):
        # timm takes a second to import, and most models do not need it.
        import timm

        if not timm.is_model(name):
            close = difflib.get_close_matches(name, timm.list_models(), n=5, cutoff=0.4)
            hint = f"close names: {', '.join(close)}" if close else "timm.list_models() lists all"
            raise ValueError(f"timm has no network {name!r}; {hint}")
        settings = timm.get_pretrained_cfg(name)
        # Networks with position embeddings are built for one size of images.
        if settings is not None and settings.fixed_input_size:
            more["img_size"] = image_size
        try:
            net: Any = timm.create_model(name, pretrained=pretrained, num_classes=0, **more)
            strides = [stage["reduction"] for stage in net.feature_info]
            stages = [_nearest(strides, image_size / g) for g in grids]
            net.prune_intermediate_layers(sorted(set(stages)), prune_norm=True)
            with evaluating(net), torch.no_grad():
                taps = _intermediates(net, stages, torch.zeros(1, 3, image_size, image_size))
        except (AttributeError, TypeError, AssertionError, RuntimeError) as error:
            raise ValueError(f"timm's {name} cannot be a trunk at {image_size} px: {error}") from error
        super().__init__(image_size, tuple(tap.shape[1] for tap in taps))
        self.net = net
        self.stages = stages
        self.grids = grids

    def fold_for_inference(self) -> None:
        """Let timm fold what it can (networks such as RepVGG); BatchNorms of other networks stay."""
        from timm.utils import reparameterize_model

        self.net = reparameterize_model(self.net, inplace=True)

    def taps(self, images: Tensor) -> tuple[Tensor, ...]:
        """[B,3,S,S] → one grid [B,C,g,g] for each g of `grids`."""
        check_images(images, 3, self.image_size, self.image_size)
        return self._grids(images)

    def _grids(self, images: Tensor) -> tuple[Tensor, ...]:
        taps = zip(_intermediates(self.net, self.stages, images), self.grids, strict=True)
        return tuple(tap if tap.shape[-1] == g else F.adaptive_avg_pool2d(tap, g) for tap, g in taps)

    def forward(self, images: Tensor) -> Tensor:
        """[B,3,S,S] → [B,D,g,g], g the last of `grids`."""
        return self.taps(images)[-1]


class FaceRes(TimmTrunk):
    """HSE-FaceRes: a MobileNet-v1 for faces, at random until its weights are loaded (`fer-lab trunk faceres`).

    A. Savchenko trained it on VGGFace2, with faces in BGR, 0…255, less their mean; the package's images are
    turned into that. Images of 56 px are enlarged to 112, so that 7×7 is its stride of 16.
    """

    def __init__(self, image_size: int, grids: tuple[int, ...] = (7,)):
        super().__init__("mobilenetv1_100", max(image_size, 112), grids, pad_type="same")
        self.side, self.image_size = self.image_size, image_size
        std, mean = (torch.tensor(one).flip(0).view(3, 1, 1) for one in (STD, MEAN))
        self.scale: Tensor
        self.register_buffer("scale", 255 * std, persistent=False)
        self.shift: Tensor
        self.register_buffer("shift", 255 * mean - torch.tensor(VGG_MEAN).view(3, 1, 1), persistent=False)

    def taps(self, images: Tensor) -> tuple[Tensor, ...]:
        """[B,3,S,S] → one grid [B,C,g,g] for each g of `grids`."""
        check_images(images, 3, self.image_size, self.image_size)
        large = F.interpolate(images, size=(self.side, self.side), mode="bilinear", antialias=True)
        return self._grids(large.flip(1) * self.scale + self.shift)


def _nearest(strides: list[int], wanted: float) -> int:
    """The index of the nearest stride; of several that are equally near, the deepest."""
    return min(range(len(strides)), key=lambda i: (abs(strides[i] - wanted), -i))


def _intermediates(net: Any, stages: list[int], images: Tensor) -> list[Tensor]:
    """What a network of timm gives after each of some stages, which may repeat, [B,C,h,w]."""
    once = sorted(set(stages))
    grids = net.forward_intermediates(images, indices=once, intermediates_only=True)
    return [grids[once.index(stage)] for stage in stages]


TRUNKS: dict[str, Callable[[str], Trunk]] = {"resnet18": resnet18, "ir50": ir50, "mobilefacenet": mobilefacenet}


def make_trunk(
    name: str, size: str, own: Sequence[str], *, grids: tuple[int, ...] = (7,), pretrained: bool = False
) -> Trunk:
    """A trunk by its name: one of `own`, which the method takes of `TRUNKS`, or "timm:NAME" for a `TimmTrunk`.

    Grids and `pretrained` are of `TimmTrunk`; the package's own trunks have fixed grids and start at random.
    Raises ValueError for an unknown name or size, or pre-trained weights for a trunk of the package's own.
    """
    check_choice("size", size, SIZES)
    if name.startswith(TIMM):
        return TimmTrunk(name.removeprefix(TIMM), IMAGE_SIZES[size], grids, pretrained)
    if name == "faceres" and not pretrained:
        return FaceRes(IMAGE_SIZES[size], grids)
    if name not in (*own, "faceres"):
        raise ValueError(f"trunk must be one of {', '.join(own)}, faceres, or timm:NAME, got {name!r}")
    if pretrained:
        raise ValueError(f"pretrained=True is for timm's networks alone, and {name} is not one of them")
    return TRUNKS[name](size)
