"""QCS and DCS: cross similarity attention over four or two faces in training, over none at inference.

Wang, Chen, Wang, Li, Lv: QCS: Feature Refining from Quadruplet Cross Similarity for Facial Expression
Recognition. AAAI 2025. https://arxiv.org/abs/2411.01988

Faces of one class share what defines the class; faces of different classes share everything else. In training,
four faces (anchor, positive, and two of another class) refine each other's tokens by maps made from the
distances between their places, a cross branch classifies the refined tokens, and a residual lets its loss
teach the base branch. At inference one face passes through the base branch alone. DCS is the form with two
faces of one class.

Differences from the authors' code:
- The smallest and the largest distance are taken per sample. Their code takes them over the whole batch, so
  that a face's map depends on who else is in the batch; `official=True` does the same.
- Branches are stacked into one pass through trunk and base, and each distance matrix is computed once and
  read by both its branches. The numbers are the same.
- What never acts is left out, 16.06 M of 82.87 M parameters: IR-50's output layer, and in both transformers a
  patch embedding, an ECA block, three projections and a convolution in every block.
- `tiny` has tokens of 96 numbers, 4 heads and MLPs twice as wide, and PyTorch's initial Linears.
- The last epoch's weights are kept; their script keeps the epoch that scored best on the test faces.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import MLP

from fer_lab.data.augmentation import Augmentation
from fer_lab.data.faces import FaceBatch
from fer_lab.models.baseline import SCRATCH, SMOKE
from fer_lab.models.layers import Attend, SEGate, watch
from fer_lab.models.method import GRID, Method, classification_loss
from fer_lab.models.recipes import ADAM_SAM, check_choice
from fer_lab.models.trunks import IRNet, check_images, make_trunk

FORMS = ("sd", "s", "d", "none")
PLACES = GRID * GRID


def pairwise_distance(first: Tensor, second: Tensor) -> Tensor:
    """‖first_i − second_j‖₂ between all places of two faces: tokens [...,N,d] and [...,M,d] → [...,N,M].

    In float32 at least. The gradient at distance zero is zero, where the square root's own would not be a
    number.
    """
    first, second = (x if x.dtype == torch.float64 else x.float() for x in (first, second))
    # The faster way by a matrix product loses the digits of small distances.
    return torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist")


def above_minimum(distance: Tensor, whole_batch: bool = False) -> Tensor:
    """Distances [B,N,M] above the sample's smallest (or the whole batch's), Δ in the paper's terms."""
    return distance - (distance.amin() if whole_batch else distance.amin((-2, -1), keepdim=True))


def similarity(delta: Tensor, whole_batch: bool = False) -> Tensor:
    """Σ = max Δ − Δ, [B,N,M], the maximum per sample (or over the whole batch)."""
    return (delta.amax() if whole_batch else delta.amax((-2, -1), keepdim=True)) - delta


def evidence(table: Tensor) -> tuple[Tensor, Tensor]:
    """How much each place of two faces takes part in a table [B,N,M] between them: [B,N] and [B,M].

    For a place of one face: the entries that it has with every place of the other, each of those rows scaled
    to length 1 over the own places first, then added up over the other's.
    """
    return F.normalize(table, dim=-2).sum(-1), F.normalize(table, dim=-1).sum(-2)


def same_class_evidence(faces: Sequence[Tensor], whole_batch: bool = False) -> list[Tensor]:
    """S: the `evidence` of each face's similarity to its partner of the same class, [B,N] for each face.

    Of two or four faces, tokens [B,N,d], the first two and the last two are partners.
    """
    pairs = zip(faces[::2], faces[1::2], strict=True)
    deltas = [above_minimum(pairwise_distance(first, second), whole_batch) for first, second in pairs]
    return [score for delta in deltas for score in evidence(similarity(delta, whole_batch))]


def other_class_evidence(faces: Sequence[Tensor], whole_batch: bool = False) -> list[Tensor]:
    """D: the `evidence` of each face's distance from its partner of another class, [B,N] for each face.

    Of four faces, tokens [B,N,d], the first and third, and the second and fourth, are partners.
    """
    pairs = zip(faces[:2], faces[2:], strict=True)
    scores = [evidence(above_minimum(pairwise_distance(one, other), whole_batch)) for one, other in pairs]
    return [score for half in zip(*scores, strict=True) for score in half]


def csa_maps(tokens: Tensor, form: str = "sd", k: Tensor | float = 1.0, *, whole_batch: bool = False) -> Tensor:
    """Where each of the faces of a quadruplet (or pair) looks at itself, given the others.

    softmax over a face's own places of S + k·D ("sd"), S ("s") or D ("d"), with S of `same_class_evidence`
    and D of `other_class_evidence`. Takes QK, [B,4,N,d], or [B,2,N,d] for a pair, which has S alone; returns
    [B,4,N] or [B,2,N], float32 at least, which add up to 1. `whole_batch`: minimum and maximum over the batch,
    as the authors' code has it. Raises ValueError for another number of faces, or an unknown form.
    """
    branches = tokens.shape[1] if tokens.ndim == 4 else 0
    if branches not in (2, 4) or form not in FORMS[:3] or (branches == 2 and form != "s"):
        raise ValueError(
            "expected tokens [B,4,N,d] with form sd, s or d, or [B,2,N,d] with form s; "
            f"got {list(tokens.shape)} and form {form!r}"
        )
    faces = tokens.unbind(1)
    same = [] if form == "d" else same_class_evidence(faces, whole_batch)
    other = [] if form == "s" else other_class_evidence(faces, whole_batch)
    both = [s + k * d for s, d in zip(same, other, strict=True)] if form == "sd" else same or other
    return torch.stack(both, 1).softmax(-1)


@dataclass(frozen=True)
class Size:
    """What the two sizes differ in: token width, attention heads, MLP width over token width."""

    dim: int
    heads: int
    ratio: int


SIZES = {"tiny": Size(96, 4, 2), "paper": Size(768, 8, 4)}


def _mlp(size: Size, dropout: float = 0.0) -> MLP:
    """Linear, exact GELU, Linear, each Linear followed by dropout."""
    return MLP(size.dim, [size.dim * size.ratio, size.dim], activation_layer=nn.GELU, dropout=dropout)


class SelfAttention(nn.Module):
    """Multi-head self-attention with bias on queries, keys and values."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.attend = Attend()
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """[B,N,d] → [B,N,d]."""
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(self.attend(q, k, v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, size: Size, dropout: float):
        super().__init__()
        self.norm1 = nn.LayerNorm(size.dim, eps=1e-6)
        self.attention = SelfAttention(size.dim, size.heads)
        self.norm2 = nn.LayerNorm(size.dim, eps=1e-6)
        self.mlp = _mlp(size, dropout)

    def forward(self, x: Tensor) -> Tensor:
        """[B,N,d] → [B,N,d]."""
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class TokenClassifier(nn.Module):
    """A class token and the places; blocks; LayerNorm; a gated linear classifier on the class token."""

    def __init__(self, size: Size, depth: int, num_classes: int, dropout: float):
        super().__init__()
        self.class_token = nn.Parameter(torch.zeros(1, 1, size.dim))
        self.positions = nn.Parameter(torch.zeros(1, 1 + 3 * PLACES, size.dim))
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.Sequential(*(Block(size, dropout) for _ in range(depth)))
        self.norm = nn.LayerNorm(size.dim, eps=1e-6)
        self.gate = SEGate(size.dim)
        self.classify = nn.Linear(size.dim, num_classes)
        nn.init.trunc_normal_(self.class_token, std=0.02)
        nn.init.trunc_normal_(self.positions, std=0.02)

    def encode(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens [B,147,d] → what the classifier sees [B,d], and the normalised tokens [B,147,d]."""
        x = torch.cat([self.class_token.expand(tokens.shape[0], -1, -1), tokens], dim=1) + self.positions
        x = self.norm(self.blocks(self.dropout(x)))
        return self.gate(x[:, 0]), x[:, 1:]

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens [B,147,d] → logits [B,C], and the normalised tokens."""
        embedding, places = self.encode(tokens)
        return self.classify(embedding), places


class CrossSimilarity(nn.Module):
    """Refine the tokens of one scale by a map over their own places that the other faces decide.

    x ← LN(x); (QK, V) = Linear x; x ← x + map·V; x ← LN₂(x); x ← x + MLP(x). In the form "sd", k = 1 + tanh θ,
    with a learned θ that starts at 0.
    """

    def __init__(self, size: Size, form: str, official: bool):
        super().__init__()
        self.form = form
        self.official = official
        self.norm1 = nn.LayerNorm(size.dim)
        self.proj = nn.Linear(size.dim, 2 * size.dim)
        self.norm2 = nn.LayerNorm(size.dim)
        self.mlp = _mlp(size)
        self.theta = nn.Parameter(torch.zeros(())) if form == "sd" else None

    @property
    def k(self) -> Tensor:
        """Weight of the distances, a scalar between 0 and 2."""
        return 1 + torch.tanh(self.theta) if self.theta is not None else torch.ones(())

    def maps(self, tokens: Tensor) -> Tensor:
        """Tokens [B,n,49,d] → maps [B,n,49]."""
        return csa_maps(self.qk(tokens), self.form, self.k, whole_batch=self.official)

    def qk(self, tokens: Tensor) -> Tensor:
        """Tokens → QK, between which the distances are taken; the same shape."""
        return self.proj(self.norm1(tokens)).chunk(2, dim=-1)[0]

    def forward(self, tokens: Tensor) -> Tensor:
        """[B,n,49,d] → [B,n,49,d]."""
        x = self.norm1(tokens)
        qk, v = self.proj(x).chunk(2, dim=-1)
        maps = csa_maps(qk, self.form, self.k, whole_batch=self.official)
        x = self.norm2(x + maps.to(v.dtype).unsqueeze(-1) * v)
        return x + self.mlp(x)


class QCS(Method):
    """Quadruplet cross similarity: four faces in training, one at inference.

    Args:
        form: "sd" (the method), "s" or "d" (its parts), or "none": the base branch alone, for comparison.
        official: minimum and maximum distance over the whole batch, as the authors' code has it.
        dropout, base_dropout: in the cross and in the base branch.
        trunk: "ir50"; a network of timm is tapped at its grids of 28, 14 and 7.
    """

    batch_kind = "quadruplet"
    backbone = ("trunk", "reduce", "embed_taps", "base")
    branches = 4
    attention_path = ("base.blocks.0.attention", "base.blocks.1.attention")
    attention_grids = 3
    paper = "Wang et al., AAAI 2025, https://arxiv.org/abs/2411.01988"

    def __init__(
        self,
        num_classes: int = 7,
        size: str = "tiny",
        *,
        form: str = "sd",
        official: bool = False,
        dropout: float = 0.0,
        base_dropout: float = 0.0,
        trunk: str = "ir50",
        pretrained: bool = False,
    ):
        check_choice("form", form, FORMS)
        for name, value in (("dropout", dropout), ("base_dropout", base_dropout)):
            if not 0 <= value < 1:
                raise ValueError(f"{name} must lie in [0, 1), got {value}")
        super().__init__(num_classes, size)
        self.form = form
        self.trunk = make_trunk(trunk, size, ("ir50",), grids=(28, 14, 7), pretrained=pretrained)
        settings = SIZES[size]
        widths, dim = self.trunk.widths, settings.dim
        # IR-50's taps have sides of 56, 28 and 14, which are halved; a network of timm is tapped at the halves.
        halving = (3, 2, 1) if isinstance(self.trunk, IRNet) else (1, 1, 0)
        self.reduce = nn.ModuleList(nn.Conv2d(w, w, *halving) for w in widths)
        finest = nn.Sequential(nn.Conv2d(widths[0], dim, 3, 2, 1), nn.Conv2d(dim, dim, 3, 2, 1))
        coarser = nn.Conv2d(widths[1], dim, 3, 2, 1), nn.Conv2d(widths[2], dim, 1)
        self.embed_taps = nn.ModuleList([finest, *coarser])
        self.base = TokenClassifier(settings, 2, num_classes, base_dropout)
        self.cross = self.cross_branch = None
        if form != "none":
            self.cross = nn.ModuleList(CrossSimilarity(settings, form, official) for _ in range(3))
            self.cross_branch = TokenClassifier(settings, 1, num_classes, dropout)
        if size == "paper":
            for branch in (self.base, self.cross_branch):
                for module in branch.modules() if branch is not None else ():
                    if isinstance(module, nn.Linear):
                        nn.init.trunc_normal_(module.weight, std=0.01)
                        nn.init.zeros_(module.bias)

    def fold_for_inference(self) -> None:
        """Leave out the cross branch, which takes part in training alone."""
        self.cross = self.cross_branch = None

    def _cross_parts(self) -> tuple[Iterable[CrossSimilarity], TokenClassifier]:
        if self.cross is None or self.cross_branch is None:
            raise ValueError("this model has no cross branch: form='none', or a copy made for inference")
        return cast(Iterable[CrossSimilarity], self.cross), self.cross_branch

    def tokens(self, images: Tensor) -> Tensor:
        """[B,3,S,S] → 49 tokens of each of three scales, the finest first, [B,147,d]."""
        steps = zip(self.trunk.taps(images), self.reduce, self.embed_taps, strict=True)
        return torch.cat([embed(reduce(tap)).flatten(2) for tap, reduce, embed in steps], 2).transpose(1, 2)

    def embed(self, images: Tensor) -> Tensor:
        """[B,3,S,S] → the base branch's class token behind its gate [B,d]."""
        return self.base.encode(self.tokens(images))[0]

    def forward(self, images: Tensor) -> Tensor:
        """[B,3,S,S] → base logits [B,C]; nothing of the cross branch runs."""
        return self.base(self.tokens(images))[0]

    def _base_of_all(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """[B,n,3,S,S] → base logits [B,n,C] and normalised tokens [B,n,147,d], in one pass."""
        check_images(images, self.branches, 3, self.image_size, self.image_size, what=f"{self.batch_kind}s")
        logits, places = self.base(self.tokens(images.flatten(0, 1)))
        return logits.unflatten(0, images.shape[:2]), places.unflatten(0, images.shape[:2])

    def branch_logits(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Quadruplets [B,4,3,S,S] (DCS: pairs [B,2,3,S,S]) → base and cross logits, each [B,4,C] ([B,2,C]).

        Raises ValueError for images of another shape, or a model without a cross branch.
        """
        modules, classify = self._cross_parts()
        base, places = self._base_of_all(images)
        scales = places.split(PLACES, dim=2)
        refined = torch.cat([cross(x) for cross, x in zip(modules, scales, strict=True)], 2)
        # The residual through which the cross loss reaches the base.
        logits, _ = classify((places + refined).flatten(0, 1))
        return base, logits.unflatten(0, images.shape[:2])

    def similarity_maps(self, images: Tensor) -> Tensor:
        """Cross similarity maps over each face of quadruplets [B,4,3,S,S] (pairs) → [B,4,3,7,7]: one a scale.

        Raises ValueError as `branch_logits` does.
        """
        modules, _ = self._cross_parts()
        scales = self._base_of_all(images)[1].split(PLACES, dim=2)
        maps = [cross.maps(x) for cross, x in zip(modules, scales, strict=True)]
        return torch.stack(maps, 2).unflatten(3, (GRID, GRID))

    def matches(self, first: Tensor, second: Tensor) -> Tensor:
        """Similarity Σ of every place of one face with every place of another: images [B,3,S,S] → [B,3,49,49].

        One table a scale. Raises ValueError for a model without a cross branch.
        """
        modules, _ = self._cross_parts()
        places = (self.base(self.tokens(images))[1].split(PLACES, dim=1) for images in (first, second))
        pairs = [(cross.qk(a), cross.qk(b)) for cross, a, b in zip(modules, *places, strict=True)]
        return torch.stack([similarity(above_minimum(pairwise_distance(*pair))) for pair in pairs], 1)

    def training_losses(self, batch: FaceBatch) -> dict[str, Tensor]:
        """Mean cross-entropy of the base and of the cross branches, their mean, and k of each scale."""
        labels = batch.labels.flatten()
        targets = None if batch.targets is None else batch.targets.flatten(0, 1)
        if self.cross is None:
            loss = classification_loss(self._base_of_all(batch.images)[0].flatten(0, 1), labels, targets)
            return {"base": loss, "total": loss}
        modules, _ = self._cross_parts()
        both = self.branch_logits(batch.images)
        base, cross = (classification_loss(logits.flatten(0, 1), labels, targets) for logits in both)
        weights = {f"k{i}": one.k.detach() for i, one in enumerate(modules, 1) if one.theta is not None}
        return {"base": base, "cross": cross, **weights, "total": (base + cross) / 2}

    def attention_maps(self, images: Tensor) -> dict[str, Tensor]:
        """What the class token of the base branch looks at in the last block.

        Returns "class token" [B,heads,7,7], the three scales of a place added up, and "scales" [B,3,7,7], the
        mean over the heads of each scale.
        """
        with watch(self.base) as seen:
            self.base(self.tokens(images))
        weights = list(seen.values())[-1][:, :, 0, 1:].unflatten(2, (3, GRID, GRID))
        return {"class token": weights.sum(2), "scales": weights.mean(1)}


class DCS(QCS):
    """Dual cross similarity: pairs of one class, and similarity alone."""

    batch_kind = "pair"
    branches = 2

    def __init__(
        self,
        num_classes: int = 7,
        size: str = "tiny",
        *,
        official: bool = False,
        dropout: float = 0.0,
        base_dropout: float = 0.0,
        trunk: str = "ir50",
        pretrained: bool = False,
    ):
        same: dict[str, Any] = {"official": official, "trunk": trunk, "pretrained": pretrained}
        super().__init__(num_classes, size, form="s", dropout=dropout, base_dropout=base_dropout, **same)


# The authors' scripts; all start from trunks pre-trained on faces. Dropout, an option of the model, is 0 / 0.2
# / 0.4 / 0 in QCS's cross branch on RAF-DB / FERPlus / AffectNet-7 / -8; 0.2 / 0.2 / 0.4 / 0.5 in DCS's, with
# 0.2 in its base on AffectNet-8.
JITTER = Augmentation(flip=0.5, brightness=0.2, contrast=0.2, saturation=0.2, hue=0.1, erasing_p=0.5)
RAFDB = ADAM_SAM.replace(epochs=200, batch_size=24, lr=3e-6, augmentation=JITTER)
TURNED = replace(JITTER, rotation=10, scale=(232 / 224,) * 2, shift=4 / 224)
FERPLUS = RAFDB.replace(epochs=150, lr=3.5e-6, augmentation=TURNED)
TILTED = replace(JITTER, rotation=12, scale=(236 / 224,) * 2, shift=6 / 224, erasing_scale=(0.03, 0.1))
AFFECTNET = RAFDB.replace(
    epochs=150, lr=4e-6, sampler="balanced", negatives="by_class", epoch_fraction=1 / 12, augmentation=TILTED
)
QCS.recipes = {
    "smoke": SMOKE,
    "scratch": SCRATCH,
    "rafdb": RAFDB,
    "ferplus": FERPLUS,
    "affectnet7": AFFECTNET,
    "affectnet8": AFFECTNET.replace(epochs=100),
}
DCS.recipes = {
    "smoke": SMOKE,
    "scratch": SCRATCH,
    "rafdb": RAFDB.replace(lr=9e-6, batch_size=48),
    "ferplus": FERPLUS.replace(lr=8e-6),
    "affectnet7": AFFECTNET.replace(lr=9e-6, batch_size=48, epochs=100, epoch_fraction=1 / 8),
    "affectnet8": AFFECTNET.replace(lr=8e-6, batch_size=48, epochs=50, epoch_fraction=1 / 8),
}
