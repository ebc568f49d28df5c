"""DAN, Distract your Attention Network.

Wen, Lin, Wang, Xu: Distract Your Attention: Multi-head Cross Attention Network for Facial Expression
Recognition. Biomimetics 8(2), 2023. https://arxiv.org/abs/2109.07270

Three ideas on top of a ResNet-18 trunk: a feature clustering network that pulls the faces of a class
together (affinity loss), several attention heads that look at the face independently, and an attention
fusion network that pushes the heads apart (partition loss).

Differences from the authors' code:
- The clamp of every masked distance to [1e-12, 1e12] in the affinity loss is left out: it adds at most
  C·1e-12 to the loss.
- There are as many centers as classes. Their RAF-DB script keeps an eighth, never targeted center, which
  enters the variance that the loss is divided by.
- The last epoch's weights are kept; their script keeps the epoch that scored best on the test faces.
"""

import math
from collections.abc import Iterable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fer_lab.data.augmentation import Augmentation
from fer_lab.data.faces import FaceBatch
from fer_lab.models.baseline import SCRATCH, SMOKE
from fer_lab.models.layers import Chain, fold
from fer_lab.models.method import Method, classification_loss
from fer_lab.models.recipes import Recipe
from fer_lab.models.trunks import make_trunk
from fer_lab.parallel.collectives import mean_over_processes


def _conv_bn(inputs: int, outputs: int, kernel: tuple[int, int]) -> Chain:
    padding = (kernel[0] // 2, kernel[1] // 2)
    return Chain(nn.Conv2d(inputs, outputs, kernel, padding=padding), nn.BatchNorm2d(outputs))


class SpatialAttention(nn.Module):
    """One map over the grid from a local, a horizontal and a vertical look at the features.

    u = BN(conv1×1 F), D → hidden; s = ReLU(BN(conv3×3 u) + BN(conv1×3 u) + BN(conv3×1 u)), hidden → D; the
    map is Σ_channels s. It is not normalised: only products with the features follow, and their scale is
    free. The published network has hidden = D/2, the tiny one D/4.
    """

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.reduce = _conv_bn(dim, hidden, (1, 1))
        self.square = _conv_bn(hidden, dim, (3, 3))
        self.row: Chain | None = _conv_bn(hidden, dim, (1, 3))
        self.column: Chain | None = _conv_bn(hidden, dim, (3, 1))

    def attention_map(self, features: Tensor) -> Tensor:
        """[B,D,h,w] → [B,1,h,w], values ≥ 0."""
        u = self.reduce(features)
        s = self.square(u)
        if self.row is not None and self.column is not None:
            s = s + self.row(u) + self.column(u)
        return F.relu(s).sum(1, keepdim=True)

    def forward(self, features: Tensor) -> Tensor:
        """[B,D,h,w] → the features weighted by the map, [B,D,h,w]."""
        return features * self.attention_map(features)

    def fold_for_inference(self) -> None:
        """Make one 3×3 convolution of the three, after their BatchNorms have been folded."""
        if self.row is None or self.column is None:
            return
        for chain in (self.square, self.row, self.column):
            chain.fold_for_inference()
        square, row, column = (cast(Any, chain)[0] for chain in (self.square, self.row, self.column))
        weight = square.weight + F.pad(row.weight, (0, 0, 1, 1)) + F.pad(column.weight, (1, 1, 0, 0))
        square.weight, square.bias = nn.Parameter(weight), nn.Parameter(square.bias + row.bias + column.bias)
        self.row = self.column = None


class ChannelAttention(nn.Module):
    """Average the weighted features over the grid and gate their channels.

    v = GAP(F'); head = v · sigmoid(Linear(ReLU(BN(Linear v)))), D → D/16 → D.
    """

    def __init__(self, dim: int):
        super().__init__()
        hidden = max(1, dim // 16)
        self.squeeze = nn.Linear(dim, hidden)
        self.norm: nn.Module = nn.BatchNorm1d(hidden)
        self.excite = nn.Linear(hidden, dim)

    def fold_for_inference(self) -> None:
        self.squeeze, self.norm = fold(self.squeeze, self.norm)

    def forward(self, features: Tensor) -> Tensor:
        """[B,D,h,w] → [B,D]."""
        pooled = features.mean((2, 3))
        gate = torch.sigmoid(self.excite(F.relu(self.norm(self.squeeze(pooled)))))
        return pooled * gate


class CrossAttentionHead(nn.Module):
    """One head: where on the face, then which channels."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.spatial = SpatialAttention(dim, hidden)
        self.channel = ChannelAttention(dim)
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.bias is not None:
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=1e-3)
                nn.init.zeros_(module.bias)

    def forward(self, features: Tensor) -> Tensor:
        """[B,D,h,w] → [B,D]."""
        return self.channel(self.spatial(features))


class AttentionFusion(nn.Module):
    """Let the heads compete for every channel, add them up, classify.

    For K > 1, log-softmax over the heads; logits = BN(Linear(Σ_heads)).
    """

    def __init__(self, dim: int, num_classes: int):
        super().__init__()
        self.fc = nn.Linear(dim, num_classes)
        self.norm: nn.Module = nn.BatchNorm1d(num_classes)

    def fold_for_inference(self) -> None:
        self.fc, self.norm = fold(self.fc, self.norm)

    def compete(self, heads: Tensor) -> Tensor:
        """[B,K,D] → [B,K,D], in float32; a single head passes unchanged."""
        heads = heads.float()
        return heads if heads.shape[1] == 1 else F.log_softmax(heads, dim=1)

    def forward(self, heads: Tensor) -> Tensor:
        """Competing heads [B,K,D] → logits [B,C]."""
        return self.norm(self.fc(heads.sum(1)))


def affinity_loss(embeddings: Tensor, labels: Tensor, centers: Tensor) -> Tensor:
    """How far the faces are from their class centers, relative to how far the centers are apart.

    (1/B) Σ_i ‖x_i − c_{y_i}‖² / σ_c², with σ_c² = Σ_d Var(c_·d), the unbiased variance over classes (Eq. 2 of
    the paper). Takes embeddings x, float [B,D], labels y, int64 [B], and centers c, float [C,D]; returns a
    scalar, float32. Raises ValueError for shapes that do not fit, or fewer than two centers.
    """
    if centers.ndim != 2 or embeddings.shape[1:] != centers.shape[1:]:
        shapes = f"got {list(embeddings.shape)} and {list(centers.shape)}"
        raise ValueError(f"expected embeddings [B,D] and centers [C,D], {shapes}")
    if len(centers) < 2:
        raise ValueError("affinity loss needs at least two class centers")
    embeddings, centers = embeddings.float(), centers.float()
    spread = centers.var(dim=0, unbiased=True).sum()
    return (embeddings - centers[labels]).square().sum(1).mean() / spread


def partition_loss(heads: Tensor) -> Tensor:
    """Small where the heads disagree: log(1 + K / (σ² + ε)).

    σ² is the unbiased variance over the heads, averaged over batch and channels; ε is float64's machine
    epsilon, so that heads which agree exactly give a large finite loss. The paper writes the mean outside
    the logarithm (Eq. 9); the authors' code, followed here, has it inside. Takes heads, float [B,K,D]; returns
    a scalar, float32, 0 for a single head, which has nothing to differ from.
    """
    if heads.ndim != 3:
        raise ValueError(f"expected heads [B,K,D], got {list(heads.shape)}")
    k = heads.shape[1]
    if k == 1:
        return heads.float().sum() * 0.0
    variance = mean_over_processes(heads.float().var(dim=1, unbiased=True).mean())
    return torch.log(1 + k / (variance + torch.finfo(torch.float64).eps))


class DAN(Method):
    """Distract your Attention Network, on the trunk "resnet18" with K = `num_heads` attention heads.

    `affinity_weight` and `partition_weight` are λ₁ and λ₂ of L = CE + λ₁ L_af + λ₂ L_pt; 0 switches a term off.
    """

    paper = "Wen et al., Biomimetics 2023, https://arxiv.org/abs/2109.07270"

    def __init__(
        self,
        num_classes: int = 7,
        size: str = "tiny",
        *,
        num_heads: int = 4,
        affinity_weight: float = 1.0,
        partition_weight: float = 1.0,
        trunk: str = "resnet18",
        pretrained: bool = False,
    ):
        super().__init__(num_classes, size)
        if num_heads < 1:
            raise ValueError(f"num_heads must be at least 1, got {num_heads}")
        for name, weight in (("affinity_weight", affinity_weight), ("partition_weight", partition_weight)):
            if not (weight >= 0 and math.isfinite(weight)):
                raise ValueError(f"{name} must be a finite number of at least 0, got {weight}")
        self.affinity_weight = affinity_weight
        self.partition_weight = partition_weight
        self.trunk = make_trunk(trunk, size, ("resnet18",), pretrained=pretrained)
        dim = self.trunk.out_channels
        self.centers = nn.Parameter(torch.randn(num_classes, dim), requires_grad=affinity_weight > 0)
        hidden = dim // 4 if size == "tiny" else dim // 2
        self.heads = nn.ModuleList(CrossAttentionHead(dim, hidden) for _ in range(num_heads))
        self.fusion = AttentionFusion(dim, num_classes)

    def head_outputs(self, features: Tensor) -> Tensor:
        """Features [B,D,7,7] → competing heads [B,K,D]."""
        return self.fusion.compete(torch.stack([head(features) for head in self.heads], dim=1))

    def embed(self, images: Tensor) -> Tensor:
        """[B,3,S,S] → sum of the competing heads [B,D]."""
        return self.head_outputs(self.trunk(images)).sum(1)

    def forward(self, images: Tensor) -> Tensor:
        """[B,3,S,S] → logits [B,C]."""
        return self.fusion(self.head_outputs(self.trunk(images)))

    def training_losses(self, batch: FaceBatch) -> dict[str, Tensor]:
        """Cross-entropy, affinity and partition loss, and their weighted sum.

        A term that is switched off is still reported, without a gradient.
        """
        features = self.trunk(batch.images)
        heads = self.head_outputs(features)
        cross_entropy = classification_loss(self.fusion(heads), batch.labels, batch.targets)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.affinity_weight > 0):
            affinity = affinity_loss(features.mean((2, 3)), batch.labels, self.centers)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.partition_weight > 0):
            partition = partition_loss(heads)
        total = cross_entropy + self.affinity_weight * affinity + self.partition_weight * partition
        return {"cross_entropy": cross_entropy, "affinity": affinity, "partition": partition, "total": total}

    def attention_maps(self, images: Tensor) -> dict[str, Tensor]:
        """The heads' spatial maps, {"heads": [B,K,7,7]}; their scale is arbitrary."""
        features = self.trunk(images)
        heads = cast(Iterable[CrossAttentionHead], self.heads)
        return {"heads": torch.cat([head.spatial.attention_map(features) for head in heads], dim=1)}


# The authors' two scripts. Both assume a trunk pre-trained on MS-Celeb-1M.
PADDED = Augmentation(
    flip=0.5, rotation=20, shift=32 / 224, warp_p=0.2, erasing_p=0.5, erasing_scale=(0.02, 0.25)
)
CROPPED = Augmentation(
    flip=0.5, rotation=20, scale=(0.8, 1.0), shift=0.2, warp_p=0.7, erasing_p=0.5, erasing_scale=(0.02, 0.33)
)
RAFDB = Recipe(
    epochs=40, batch_size=256, lr=0.1, weight_decay=1e-4, schedule="step", step_epochs=10, augmentation=PADDED
)
ADAM = RAFDB.replace(optimizer="adam", lr=1e-4, weight_decay=0.0, schedule="exponential", gamma=0.6)
AFFECTNET = ADAM.replace(epochs=10, sampler="balanced", augmentation=CROPPED)
DAN.recipes = {"smoke": SMOKE, "scratch": SCRATCH, "rafdb": RAFDB, "affectnet": AFFECTNET}
