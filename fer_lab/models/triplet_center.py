"""Triplet-center loss with synthesised negatives, and selective attention.

Rajoli, Lotfi, Atyabi, Afghah: Triplet Loss-less Center Loss Sampling Strategies in Facial Expression
Recognition Scenarios, CISS 2023. https://arxiv.org/abs/2302.04108

It adds to cross-entropy a triplet-center loss on all dimensions of the embedding: a face is pulled to the
center of its class and pushed from a negative, which is a wrong center or is put together, dimension by
dimension, from several wrong centers. A selective attention module says which places of the face and which
dimensions of the embedding count.

Differences from the authors' code: their code is not public. The paper is on arXiv; open to us were its
abstract and introduction. These give the loss on all dimensions, the names of the three negatives, an
attention that combines pixel-wise and element-wise coefficients, and an imbalanced RAF-DB. All equations below
are therefore OUR READING:
- the hinge acts in every dimension, with the same margin in each; the loss sums over dimensions, so a good
  loss weight depends on the size of the embedding;
- "prediction based" is the center of the most probable wrong class; "fully synthesised" takes in every
  dimension the nearest wrong center; "semi-synthesised" the same among the k wrong centers nearest as a whole;
- pixel-wise coefficients are a sigmoid map that weighs the features before they are averaged over the grid;
  element-wise ones a two-way softmax for every dimension, as in DACL (Farzaneh & Qi, WACV 2021), from a
  bottleneck that is smaller than theirs: pooled features → half as many → 64, where they flatten the grid
  and use layers of 3584 and 512.

For comparison there are also the triplet-center loss of He et al. (CVPR 2018,
https://arxiv.org/abs/1803.06189), which is negatives="hardest" with hinge="vector"; the center loss of Wen et
al. (ECCV 2016, https://doi.org/10.1007/978-3-319-46478-7_31), which with element-wise coefficients is DACL's
sparse center loss; and cross-entropy alone.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fer_lab.data.augmentation import Augmentation
from fer_lab.data.faces import FaceBatch
from fer_lab.models.baseline import SCRATCH, SMOKE
from fer_lab.models.layers import fold
from fer_lab.models.method import Method, classification_loss
from fer_lab.models.recipes import Recipe, check_choice
from fer_lab.models.trunks import TRUNKS, MobileFaceNet, make_trunk

NEGATIVES = ("hardest", "predicted", "semi", "fully")
HINGES = ("dimension", "vector")
METRIC_LOSSES = ("triplet_center", "center", "none")
# Centers start a little apart: if all were equal, every wrong center would be the same negative.
CENTER_SPREAD = 0.1
# A larger table of differences is made in pieces.
LARGEST_TABLE = 2**30


class PixelAttention(nn.Module):
    """Where on the face: p = sigmoid(conv1×1(ReLU(BN(conv1×1 F)))), one coefficient a place (our reading)."""

    def __init__(self, dim: int):
        super().__init__()
        self.reduce = nn.Conv2d(dim, dim // 4, 1, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(dim // 4)
        self.score = nn.Conv2d(dim // 4, 1, 1)

    def fold_for_inference(self) -> None:
        self.reduce, self.norm = fold(self.reduce, self.norm)

    def attention_map(self, features: Tensor) -> Tensor:
        """[B,D,h,w] → [B,1,h,w], float32, 0…1."""
        return self.score(F.relu(self.norm(self.reduce(features)))).float().sigmoid()

    def forward(self, features: Tensor) -> Tensor:
        """[B,D,h,w] → the mean over the grid weighted by the map, Σ p F / Σ p, [B,D]."""
        p = self.attention_map(features)
        share = p / p.sum((2, 3), keepdim=True).clamp_min(torch.finfo(p.dtype).tiny)
        return (share * features).sum((2, 3))


class ElementAttention(nn.Module):
    """Which dimensions: a two-way softmax for each, its second half kept, from pooled features (our reading).

    D_features → D_features/2 (BN, ReLU) → 64 (BN, tanh) → 2·D. Every coefficient multiplies something that is
    not negative, so the loss falls when all of them fall. `balanced` prevents this: it divides them by their
    mean over the dimensions, so that a face can only prefer some dimensions to others.
    """

    def __init__(self, features: int, dim: int, balanced: bool = True):
        super().__init__()
        self.balanced = balanced
        half = features // 2
        self.bottleneck = nn.Sequential(
            nn.Linear(features, half, bias=False),
            nn.BatchNorm1d(half),
            nn.ReLU(inplace=True),
            nn.Linear(half, 64, bias=False),
            nn.BatchNorm1d(64),
            nn.Tanh(),
        )
        self.score = nn.Linear(64, 2 * dim)

    def forward(self, pooled: Tensor) -> Tensor:
        """Pooled features [B,D_features] → coefficients [B,D], float32: 0…1, or of mean 1 where balanced."""
        kept = self.score(self.bottleneck(pooled)).float().unflatten(1, (-1, 2)).softmax(2)[..., 1]
        return kept / kept.mean(1, keepdim=True) if self.balanced else kept


def _check(embedding: Tensor, labels: Tensor, centers: Tensor) -> None:
    c, d = centers.shape
    if embedding.shape[1:] != (d,) or not len(embedding):
        raise ValueError(f"expected an embedding [B,{d}] of at least one face, got {list(embedding.shape)}")
    if labels.shape != embedding.shape[:1]:
        raise ValueError(f"expected labels [{len(embedding)}], got {list(labels.shape)}")
    # On a GPU this test would wait for the device, which itself stops at an index out of range.
    if labels.is_cpu and not torch.compiler.is_compiling():
        low, high = int(labels.min()), int(labels.max())
        if not 0 <= low <= high < c:
            raise ValueError(f"labels must be 0…{c - 1}, got {low}…{high}")


def center_loss(embedding: Tensor, labels: Tensor, centers: Tensor, weights: Tensor | None = None) -> Tensor:
    """Pull every face to the center of its class: (1/2B) Σ_i Σ_d a_id (x_id − c_{y_i,d})².

    Wen et al., ECCV 2016, eq. 2, as a mean over the batch; with weights a, DACL's sparse center loss. Takes x,
    float [B,D], labels y, int64 [B], centers c, float [C,D], and weights a, float [B,D], where None is 1;
    returns a scalar, float32. Raises ValueError for shapes that do not fit, or labels outside the classes.
    """
    _check(embedding, labels, centers)
    squares = (embedding.float() - centers.float()[labels]).square()
    if weights is not None:
        squares = squares * weights.float()
    return squares.sum(1).mean() / 2


class TripletCenterLoss(nn.Module):
    """Nearer to the own center than to a negative, by a margin.

    With x the embedding, c the centers, n the negative, a the weights and m the margin:
    per dimension, (1/B) Σ_i Σ_d a_id max(0, (x_id − c_{y_i,d})² + m − (x_id − n_id)²);
    per vector, (1/B) Σ_i max(0, Σ_d a_id (x_id − c_{y_i,d})² + m − Σ_d a_id (x_id − n_id)²).
    The first is our reading of arXiv 2302.04108; the second with "hardest" is He et al. (CVPR 2018, eq. 5).

    The negative is made of entries of c, so gradients flow into the entries that were chosen, not into the
    choice. Σ_d (x_id − n_id)² never grows along fully, semi with k = C−1 (the same), …, k = 1, hardest (the
    same), and the hardest's is at most that of predicted. `centers`, c [C,D], are learned. Raises ValueError
    for an argument out of its range.

    Args:
        margin: m, at least 0, in squared units of the embedding: of one dimension, or of the vector.
        negatives: "hardest": the wrong center nearest to x. "predicted": the center of the most probable
            wrong class. "fully": in every dimension the nearest wrong center's entry. "semi": the same among
            the k wrong centers nearest to x.
        k: of "semi", at least 1; capped at C−1.
    """

    def __init__(
        self,
        num_classes: int,
        dim: int,
        margin: float,
        negatives: str = "semi",
        k: int = 2,
        hinge: str = "dimension",
    ):
        super().__init__()
        if num_classes < 2 or dim < 1:
            raise ValueError(f"expected at least 2 classes and 1 dimension, got {num_classes} and {dim}")
        if not (margin >= 0 and math.isfinite(margin)):
            raise ValueError(f"margin must be a finite number of at least 0, got {margin}")
        check_choice("negatives", negatives, NEGATIVES)
        check_choice("hinge", hinge, HINGES)
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        self.margin = margin
        self.strategy = negatives
        self.k = min(k, num_classes - 1)
        self.hinge = hinge
        self.centers = nn.Parameter(CENTER_SPREAD * torch.randn(num_classes, dim))

    @torch.no_grad()
    def choose(self, embedding: Tensor, labels: Tensor, logits: Tensor | None = None) -> Tensor:
        """Which class's center the negative takes each entry from, int64 [B,D]; never the own class."""
        _check(embedding, labels, self.centers)
        c, d = self.centers.shape
        if self.strategy == "predicted":
            if logits is None or logits.shape != (len(labels), c):
                given = None if logits is None else list(logits.shape)
                raise ValueError(f"negatives='predicted' needs logits [{len(labels)},{c}], got {given}")
            wrong = logits.float().scatter(1, labels[:, None], -math.inf)
            return wrong.argmax(1, keepdim=True).expand(-1, d)
        rows = max(1, LARGEST_TABLE // (self.centers.element_size() * c * d))
        parts = zip(embedding.float().split(rows), labels.split(rows), strict=True)
        return torch.cat([self._nearest(x, y) for x, y in parts])

    def _nearest(self, x: Tensor, labels: Tensor) -> Tensor:
        gaps = (x[:, None] - self.centers.float()).square_()
        allowed = torch.ones(gaps.shape[:2], dtype=torch.bool, device=x.device)
        allowed.scatter_(1, labels[:, None], False)
        if self.strategy != "fully":
            whole = gaps.sum(2).masked_fill_(~allowed, math.inf)
            near = whole.topk(self.k if self.strategy == "semi" else 1, dim=1, largest=False).indices
            if near.shape[1] == 1:
                return near.expand(-1, x.shape[1])
            allowed = torch.zeros_like(allowed).scatter_(1, near, True)
        return gaps.masked_fill_(~allowed[:, :, None], math.inf).argmin(1)

    def negatives(self, embedding: Tensor, labels: Tensor, logits: Tensor | None = None) -> Tensor:
        """The negative n that is built for every face, float32 [B,D], with gradients into the centers."""
        return self.centers.float().gather(0, self.choose(embedding, labels, logits))

    def per_face(
        self, embedding: Tensor, labels: Tensor, logits: Tensor | None = None, weights: Tensor | None = None
    ) -> Tensor:
        """Every face's own loss, float32 [B], ≥ 0."""
        x, a = embedding.float(), 1.0 if weights is None else weights.float()
        chosen = self.negatives(embedding, labels, logits)
        gaps = (x - self.centers.float()[labels]).square() - (x - chosen).square()
        if self.hinge == "vector":
            return F.relu((a * gaps).sum(1) + self.margin)
        return (a * F.relu(gaps + self.margin)).sum(1)

    def forward(
        self, embedding: Tensor, labels: Tensor, logits: Tensor | None = None, weights: Tensor | None = None
    ) -> Tensor:
        """The mean over the faces, a scalar in float32. The methods above take the same arguments.

        Takes x, float [B,D], labels y, int64 [B], logits, float [B,C], for "predicted" alone and without a
        gradient, and weights a, float [B,D], where None is 1. Raises ValueError for shapes that do not fit,
        labels outside the classes, or "predicted" without logits.
        """
        return self.per_face(embedding, labels, logits, weights).mean()


class TripletCenter(Method):
    """Triplet-center loss and selective attention on any trunk: L = CE + λ L_TCL.

    Args:
        metric_loss: "triplet_center", "center" (Wen et al.) or "none" (cross-entropy alone).
        negatives, k, hinge, margin: of `TripletCenterLoss`.
        loss_weight: λ, above 0. The loss sums over dimensions: halve it for twice as many. The
            trials in figures/results/search.csv, without attention, compare 0.001 to 0.03.
        embedding_dim: D; None is the trunk's channels, another number adds a linear layer. 2 can be drawn.
        standardize: scale every dimension of the embedding to mean 0 and variance 1 over the faces, so that the
            margin is in variances. Without it a margin has no unit: an embedding that grows meets it with
            centers that differ less and less.
        pixel_attention: weigh the places before averaging over them; off is the plain mean.
        element_attention: weigh the dimensions in the metric loss.
        balanced_elements: keep those weights at a mean of 1; without it they learn to switch the loss off.
        center_lr: the centers' learning rate as a multiple of the recipe's; DACL's centers learn at 0.5, its
            network at 0.01. Runs of a few hundred steps need a larger value, or the centers do not converge.
        trunk: "resnet18", "ir50" or "mobilefacenet".
    """

    paper = "Rajoli et al., CISS 2023, https://arxiv.org/abs/2302.04108"
    class_maps = True

    def __init__(
        self,
        num_classes: int = 7,
        size: str = "tiny",
        *,
        metric_loss: str = "triplet_center",
        negatives: str = "semi",
        k: int = 2,
        hinge: str = "dimension",
        margin: float = 1.0,
        loss_weight: float = 0.001,
        embedding_dim: int | None = None,
        standardize: bool = True,
        pixel_attention: bool = True,
        element_attention: bool = True,
        balanced_elements: bool = True,
        center_lr: float = 50.0,
        trunk: str = "resnet18",
        pretrained: bool = False,
    ):
        super().__init__(num_classes, size)
        check_choice("metric_loss", metric_loss, METRIC_LOSSES)
        if embedding_dim is not None and embedding_dim < 1:
            raise ValueError(f"embedding_dim must be at least 1, got {embedding_dim}")
        for name, value in (("loss_weight", loss_weight), ("center_lr", center_lr)):
            if not 0 < value < math.inf:
                raise ValueError(f"{name} must be a finite number above 0, got {value}")
        self.metric_loss = metric_loss
        self.loss_weight = loss_weight
        self.center_lr = center_lr
        self.trunk = make_trunk(trunk, size, tuple(TRUNKS), pretrained=pretrained)
        if isinstance(self.trunk, MobileFaceNet):
            # Nothing here reads the landmarks.
            self.trunk.head = nn.Identity()
        channels = self.trunk.out_channels
        dim = channels if embedding_dim is None else embedding_dim
        self.pixels = PixelAttention(channels) if pixel_attention else None
        self.project: nn.Module = nn.Identity() if embedding_dim is None else nn.Linear(channels, dim)
        self.norm: nn.Module = nn.BatchNorm1d(dim, affine=False) if standardize else nn.Identity()
        self.classify = nn.Linear(dim, num_classes)
        # The logits of a few dimensions of variance 1 would need many steps to become large.
        self.gain = math.sqrt(channels / dim) if standardize else 1.0
        # Parts of some variants alone come last, so that one seed gives all variants the same network.
        loss = TripletCenterLoss(num_classes, dim, margin, negatives, k, hinge)
        with_loss = metric_loss != "none"
        self.triplet_center = loss if with_loss else None
        weighs = with_loss and element_attention
        self.elements = ElementAttention(channels, dim, balanced_elements) if weighs else None

    def fold_for_inference(self) -> None:
        """Fold the embedding's BatchNorm into its linear layer, and leave out what only the loss needs."""
        self.project, self.norm = fold(self.project, self.norm)
        self.triplet_center = self.elements = None

    @property
    def centers(self) -> Tensor | None:
        """The learned class centers [C,D]; None without a metric loss."""
        return None if self.triplet_center is None else self.triplet_center.centers

    def features(self, images: Tensor) -> Tensor:
        """[B,3,S,S] → [B,D_features,7,7]; a trunk with a 14×14 grid is averaged two by two."""
        grid = self.trunk(images)
        return grid if grid.shape[-1] == 7 else F.adaptive_avg_pool2d(grid, 7)

    def embed_features(self, features: Tensor) -> Tensor:
        """[B,D_features,7,7] → [B,D]."""
        pooled = features.mean((2, 3)) if self.pixels is None else self.pixels(features)
        return self.norm(self.project(pooled))

    def embed(self, images: Tensor) -> Tensor:
        """[B,3,S,S] → features averaged by the pixel-wise coefficients, [B,D]."""
        return self.embed_features(self.features(images))

    def forward(self, images: Tensor) -> Tensor:
        """[B,3,S,S] → logits [B,C]."""
        return self.logits(self.embed(images))

    def logits(self, embedding: Tensor) -> Tensor:
        """[B,D] → [B,C]."""
        return self.classify(self.gain * embedding)

    def training_losses(self, batch: FaceBatch) -> dict[str, Tensor]:
        """Cross-entropy, the metric loss under its name, and CE + λ times that."""
        features = self.features(batch.images)
        embedding = self.embed_features(features)
        logits = self.logits(embedding)
        cross_entropy = classification_loss(logits, batch.labels, batch.targets)
        if self.triplet_center is None:
            return {"cross_entropy": cross_entropy, "total": cross_entropy}
        weights = None if self.elements is None else self.elements(features.mean((2, 3)))
        if self.metric_loss == "center":
            metric = center_loss(embedding, batch.labels, self.triplet_center.centers, weights)
        else:
            metric = self.triplet_center(embedding, batch.labels, logits, weights)
        total = cross_entropy + self.loss_weight * metric
        return {"cross_entropy": cross_entropy, self.metric_loss: metric, "total": total}

    def attention_maps(self, images: Tensor, target: Tensor | None = None) -> dict[str, Tensor]:
        """The pixel-wise coefficients [B,1,7,7], 0…1; without them a class activation map.

        `target`: a class for each face, int64 [B], for the activation map; None is the predicted class.
        """
        features = self.features(images)
        if self.pixels is not None:
            return {"pixel-wise": self.pixels.attention_map(features)}
        rows = self.gain * self.classify.weight
        if isinstance(self.norm, nn.BatchNorm1d) and self.norm.running_var is not None:
            rows = rows * (self.norm.running_var + self.norm.eps).rsqrt()
        if isinstance(self.project, nn.Linear):
            rows = rows @ self.project.weight
        if target is None:
            target = self.logits(self.embed_features(features)).argmax(1)
        return {"class activation": (features * rows[target][:, :, None, None]).sum(1, keepdim=True)}

    def parameter_groups(self, recipe: Recipe) -> list[dict[str, Any]]:
        """The centers apart: their own learning rate, and no decay, which would pull them to the origin."""
        centers = self.centers
        rest = [p for p in self.parameters() if p.requires_grad and p is not centers]
        groups: list[dict[str, Any]] = [{"params": rest}]
        if centers is not None and centers.requires_grad:
            groups.append({"params": [centers], "lr": self.center_lr * recipe.lr, "weight_decay": 0.0})
        return groups


# DACL's script for RAF-DB, whose paper is the nearest one with public code; its centers learn at 0.5.
TURNED = Augmentation(flip=0.5, rotation=10, shift=0.06)
RAFDB = Recipe(
    epochs=60, batch_size=64, lr=0.01, weight_decay=5e-4, schedule="step", step_epochs=20, augmentation=TURNED
)
TripletCenter.recipes = {"smoke": SMOKE, "scratch": SCRATCH, "rafdb": RAFDB}
