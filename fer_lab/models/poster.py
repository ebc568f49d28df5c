"""POSTER, a pyramid cross-fusion transformer over an image stream and a landmark stream.

Zheng, Mendieta, Chen: POSTER: A Pyramid Cross-Fusion Transformer Network for Facial Expression Recognition.
ICCVW 2023. https://arxiv.org/abs/2204.04083

Three ideas, each of which can be switched off: a second stream of landmark features, which differ less
between people than pixels do (`landmark_stream`); cross attention, in which each stream's queries come from
the other stream (`cross_fusion`); the same at three widths of the tokens (`pyramid`).

Differences from the authors' code:
- The landmark stream is frozen with its BatchNorms in eval mode. Their code leaves those in training mode,
  so that a "frozen" stream drifts with every batch.
- An image token is a place on the face: 2×2 cells of the trunk's 14×14 grid (`tokens="spatial"`). Their code
  reads the memory of [256,14,14] as [49,1024], so that a token is 5.2 channels at all places; their
  checkpoints need that, and `tokens="official"` gives it. Both have the same parameters.
- What never acts is left out: IR-50's output layer and the transformer's own class token, 12.9 M of 71.85 M.
- `tiny` has 4 attention heads, an MLP as wide as its tokens, two steps of 96/48/24 wide tokens, and a
  landmark stream that was trained on rendered faces (fer_lab/experiments/landmarks.py). The authors' landmark
  weights come in with a checkpoint of theirs; a larger model without one has a landmark stream of random
  weights.
- The order of the colours follows the checkpoint: their RAF-DB code feeds BGR, their AffectNet code RGB.
- The last epoch's weights are kept; their script keeps the epoch that scored best on the test faces.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from fer_lab.data.augmentation import Augmentation
from fer_lab.data.faces import FaceBatch
from fer_lab.models.baseline import SCRATCH, SMOKE
from fer_lab.models.layers import Attend, SEGate, watch
from fer_lab.models.method import Method
from fer_lab.models.recipes import ADAM_SAM, check_choice
from fer_lab.models.trunks import MobileFaceNet, make_trunk, mobilefacenet
from fer_lab.models.weights import LANDMARK_WEIGHTS, STUDY_LANDMARKS, load_weights

SMOOTHING = 0.2
DROP_PATH = 0.1
TOKENS = ("spatial", "official")
STREAMS = ("frozen", "joint", "none")
LANDMARKS = {"wide": LANDMARK_WEIGHTS, "study": STUDY_LANDMARKS}


# Token width, attention heads, MLP width over token width, depth.
SIZES = {"tiny": (96, 4, 1, 2), "small": (512, 8, 2, 4), "base": (512, 8, 2, 6), "paper": (512, 8, 2, 8)}


def image_tokens(features: Tensor, layout: str = "spatial") -> Tensor:
    """The trunk's features [B,D,14,14] → 49 tokens [B,49,4D].

    `layout`: "spatial": token 7r + c holds the 2×2 cells at rows 2r, 2r + 1 and columns 2c, 2c + 1 in all
    channels. "official": token i holds the numbers 4D·i … 4D·(i + 1) − 1 of the flat memory, which are a few
    channels at all places. Raises ValueError for another layout, or features that are not a 14×14 grid.
    """
    if tuple(features.shape[2:]) != (14, 14):
        raise ValueError(f"expected features [B,D,14,14], got {list(features.shape)}")
    check_choice("tokens", layout, TOKENS)
    if layout == "official":
        return features.reshape(len(features), 49, -1)
    return F.pixel_unshuffle(features, 2).flatten(2).transpose(1, 2)


def with_class_token(tokens: Tensor) -> Tensor:
    """Tokens [B,N,d] → [B,1 + N,d], their mean first."""
    return torch.cat([tokens.mean(1, keepdim=True), tokens], dim=1)


class FusionAttention(nn.Module):
    """Attention whose queries are given tokens as they are; only keys, values and the output are learned."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.kv = nn.Linear(dim, 2 * dim)
        self.attend = Attend()
        self.proj = nn.Linear(dim, dim)

    def forward(self, query: Tensor, source: Tensor) -> Tensor:
        """Query tokens [B,N,d] that look at source tokens [B,M,d] → [B,N,d]."""
        q = query.unflatten(2, (self.heads, -1)).transpose(1, 2)
        # Half of all tokens, which torch would multiply picture by picture, each with a copy of the weights.
        k, v = self.kv(source.contiguous()).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(self.attend(q, k, v).transpose(1, 2).flatten(2))


def _mlp(dim: int, ratio: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, dim * ratio), nn.GELU(), nn.Linear(dim * ratio, dim))


def _norm(dim: int) -> nn.LayerNorm:
    return nn.LayerNorm(dim, eps=1e-6)


class CrossBlock(nn.Module):
    """Each stream is updated by attention over itself with the other stream's tokens as the queries.

    img ← img + proj(attention(q = LN₁ lm, kv = LN₁ img)), img ← img + MLP(LN₂ img); lm in the same way by
    LN₃ and LN₄, from the block's input and not from the updated image tokens. Then a linear map over the
    tokens, [img | lm] → [img | lm], without a residual (`mix`; the authors' AffectNet model has none).
    """

    def __init__(self, dim: int, heads: int, ratio: int, tokens: int, drop: float, mix: bool):
        super().__init__()
        self.norm1, self.norm2, self.norm3, self.norm4 = (_norm(dim) for _ in range(4))
        self.image_attention = FusionAttention(dim, heads)
        self.landmark_attention = FusionAttention(dim, heads)
        self.image_mlp = _mlp(dim, ratio)
        self.landmark_mlp = _mlp(dim, ratio)
        self.drop = StochasticDepth(drop, mode="row")
        self.mix = nn.Conv1d(tokens, tokens, 1) if mix else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """[B,100,d], the image's 50 tokens first → [B,100,d]."""
        image, marks = x.chunk(2, dim=1)
        normed_image, normed_marks = self.norm1(x).chunk(2, dim=1)
        image = image + self.drop(self.image_attention(normed_marks, normed_image))
        image = image + self.drop(self.image_mlp(self.norm2(image)))
        normed_image, normed_marks = self.norm3(x).chunk(2, dim=1)
        marks = marks + self.drop(self.landmark_attention(normed_image, normed_marks))
        marks = marks + self.drop(self.landmark_mlp(self.norm4(marks)))
        return self.mix(torch.cat([image, marks], dim=1))


class SelfBlock(nn.Module):
    """What is left of a `CrossBlock` without cross fusion: all tokens look at all tokens."""

    def __init__(self, dim: int, heads: int, ratio: int, tokens: int, drop: float, mix: bool):
        super().__init__()
        self.norm1, self.norm2 = _norm(dim), _norm(dim)
        self.attention = FusionAttention(dim, heads)
        self.mlp = _mlp(dim, ratio)
        self.drop = StochasticDepth(drop, mode="row")
        self.mix = nn.Conv1d(tokens, tokens, 1) if mix else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """[B,N,d] → [B,N,d]."""
        normed = self.norm1(x)
        x = x + self.drop(self.attention(normed, normed))
        x = x + self.drop(self.mlp(self.norm2(x)))
        return self.mix(x)


class PyramidStep(nn.Module):
    """One block for each level; then, from the narrowest on, each level is widened and added to the next."""

    def __init__(self, blocks: list[nn.Module], tokens: int):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.widen = nn.ModuleList(nn.ConvTranspose1d(tokens, tokens, 2, 2) for _ in blocks[1:])

    def forward(self, levels: list[Tensor]) -> list[Tensor]:
        """Tokens [B,N,d], [B,N,d/2], [B,N,d/4] → the same shapes."""
        levels = [block(x) for block, x in zip(self.blocks, levels, strict=True)]
        for i in reversed(range(len(self.widen))):
            levels[i] = levels[i] + self.widen[i](levels[i + 1])
        return levels


def poster_loss(logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> dict[str, Tensor]:
    """2 · cross-entropy with label smoothing 0.2 + plain cross-entropy, as in the authors' code.

    Soft targets [B,C] take the place of the labels [B], and are smoothed in the same way. Returns the two
    terms, unweighted, under "smoothed" and "cross_entropy", and their sum under "total"; float32.
    """
    truth = labels if targets is None else targets
    smoothed = F.cross_entropy(logits.float(), truth, label_smoothing=SMOOTHING)
    plain = F.cross_entropy(logits.float(), truth)
    return {"smoothed": smoothed, "cross_entropy": plain, "total": 2 * smoothed + plain}


class POSTER(Method):
    """Pyramid cross-fusion transformer.

    Args:
        size: "tiny" (56 px), "small", "base" or "large" (224 px); "paper" is the same as "large".
        tokens: layout of the image tokens, see `image_tokens`.
        landmark_stream: "frozen", "joint" (trained along with the rest) or "none". At tiny size the first two
            start from the weights that ship when made by `create_model`.
        landmark_weights: which of those: "wide" learned from faces as different as the renderer can make them,
            "study" from the faces of the book's study.
        cross_fusion: cross attention between the streams; without, their tokens are concatenated and all
            look at all.
        pyramid: three widths of the tokens; without, one.
        token_mix: the linear map over the tokens at the end of every block.
        trunk: "ir50"; a network of timm is tapped at its 14×14 grid.
    """

    paper = "Zheng et al., ICCVW 2023, https://arxiv.org/abs/2204.04083"
    sizes = tuple(SIZES)

    def __init__(
        self,
        num_classes: int = 7,
        size: str = "tiny",
        *,
        tokens: str = "spatial",
        landmark_stream: str = "frozen",
        landmark_weights: str = "wide",
        cross_fusion: bool = True,
        pyramid: bool = True,
        token_mix: bool = True,
        trunk: str = "ir50",
        pretrained: bool = False,
    ):
        size = "paper" if size == "large" else size
        check_choice("size", size, (*SIZES, "large"))
        check_choice("tokens", tokens, TOKENS)
        check_choice("landmark_stream", landmark_stream, STREAMS)
        check_choice("landmark_weights", landmark_weights, LANDMARKS)
        if cross_fusion and landmark_stream == "none":
            raise ValueError("cross fusion needs a landmark stream; set cross_fusion=False to do without both")
        super().__init__(num_classes, size)
        self.tokens = tokens
        self.landmark_stream = landmark_stream
        self.landmark_weights = landmark_weights
        self.cross_fusion = cross_fusion
        self.token_mix = token_mix
        self.has_face_maps = tokens == "spatial"
        if self.has_face_maps:  # behind the first block, linear maps over the tokens mix the places
            self.attention_path = (f"steps.0.blocks.0.{'image_' if cross_fusion else ''}attention",)
        dim, heads, ratio, depth = SIZES[size]
        count = 50 if landmark_stream == "none" else 100
        side = "tiny" if size == "tiny" else "paper"
        self.trunk = make_trunk(trunk, side, ("ir50",), grids=(14,), pretrained=pretrained)
        self.image_embedding = nn.Linear(4 * self.trunk.out_channels, dim)
        self.positions = nn.Parameter(torch.zeros(1, 50, dim))
        self.landmarks: MobileFaceNet | None = None
        if landmark_stream != "none":
            self.landmarks = mobilefacenet(side)
            # No loss here reads the points, so their head never learns.
            idle = self.landmarks if landmark_stream == "frozen" else self.landmarks.head
            idle.requires_grad_(False)
        widths = (dim, dim // 2, dim // 4) if pyramid else (dim,)
        self.narrow = nn.ModuleList(nn.Conv1d(count, count, dim // w, dim // w) for w in widths[1:])
        block = CrossBlock if cross_fusion else SelfBlock
        drops = torch.linspace(0, DROP_PATH, depth).tolist()
        self.steps = nn.ModuleList(
            PyramidStep([block(w, heads, ratio, count, p, token_mix) for w in widths], count) for p in drops
        )
        self.norm = _norm(dim)
        self.gate = SEGate(dim)
        self.classify = nn.Linear(dim, num_classes)
        self.train()

    def fold_for_inference(self) -> None:
        """Leave out the landmark stream's head for points, which the answer does not need."""
        if self.landmarks is not None:
            self.landmarks.head = nn.Identity()

    def load_shipped(self) -> None:
        """Fill the landmark stream of the tiny size with the weights that ship."""
        if self.size == "tiny" and self.landmarks is not None:
            load_weights(self.landmarks, LANDMARKS[self.landmark_weights])

    def train(self, mode: bool = True) -> "POSTER":
        """Set the mode of all modules but a frozen landmark stream's, whose statistics must never move."""
        super().train(mode)
        if self.landmark_stream == "frozen" and self.landmarks is not None:
            self.landmarks.eval()
        return self

    def embed(self, images: Tensor) -> Tensor:
        """[B,3,S,S] → image class token behind its gate [B,d]."""
        image = with_class_token(self.image_embedding(image_tokens(self.trunk(images), self.tokens)))
        x = image + self.positions
        if self.landmarks is not None:
            marks = self.landmarks(images).flatten(2).transpose(1, 2)
            x = torch.cat([x, with_class_token(marks)], dim=1)
        levels = [x, *(narrow(x) for narrow in self.narrow)]
        for step in self.steps:
            levels = step(levels)
        return self.gate(self.norm(levels[0])[:, 0])

    def forward(self, images: Tensor) -> Tensor:
        """[B,3,S,S] → logits [B,C]."""
        return self.classify(self.embed(images))

    def training_losses(self, batch: FaceBatch) -> dict[str, Tensor]:
        """Smoothed and plain cross-entropy, and twice the first plus the second."""
        return poster_loss(self(batch.images), batch.labels, batch.targets)

    def attention_weights(self, images: Tensor, step: int = -1) -> dict[str, Tensor]:
        """All attention of one step, the last by default: "KEYS, level i" → [B,heads,N,M], rows sum to 1.

        KEYS is the stream whose tokens are attended to: "image" or "landmarks", with the other stream's tokens
        as queries; "all" without cross fusion. Level 1 is the widest. The first of the N and of the M tokens is
        a class token.
        """
        with watch(self) as weights:
            self(images)
        blocks = f"steps.{range(len(self.steps))[step]}.blocks"
        parts = {"image": "image_attention", "landmarks": "landmark_attention", "all": "attention"}
        return {
            f"{keys}, level {i + 1}": weights[name]
            for keys, part in parts.items()
            for i in range(1 + len(self.narrow))
            if (name := f"{blocks}.{i}.{part}.attend") in weights
        }

    def attention_maps(self, images: Tensor) -> dict[str, Tensor]:
        """What the class tokens look at where tokens are still places: one map a head, [B,heads,7,7].

        That is the widest level of the first step. `narrow`, `widen` and the end of every block are linear maps
        over the tokens, behind which a token is a mixture of all places of both streams.

        "image": the landmark class token over the places of the image, which updates the image class token
        and so the answer. "landmarks": the image class token over the landmark tokens. Without cross fusion
        the image class token over both. Raises ValueError for tokens="official", whose image tokens are not
        places on the face.
        """
        if self.tokens == "official":
            raise ValueError(
                "with tokens='official' an image token is a few channels at all places, not a place on the "
                "face, so its attention cannot be drawn over one; use tokens='spatial', or attention_weights"
            )
        weights = self.attention_weights(images, step=0)
        if self.cross_fusion:
            rows = {keys: weights[f"{keys}, level 1"][:, :, 0, 1:] for keys in ("image", "landmarks")}
        else:
            row = weights["all, level 1"][:, :, 0]
            rows = {"image": row[..., 1:50]} | ({} if self.landmarks is None else {"landmarks": row[..., 51:]})
        return {keys: row.unflatten(2, (7, 7)) for keys, row in rows.items()}


# The authors' scripts. Both assume a trunk pre-trained on MS-Celeb-1M and a trained landmark stream. The noise
# has variance 30 on the 0…255 scale; it is as frequent as a second flip.
NOISY = Augmentation(flip=0.5, noise=30**0.5 / 255, noise_p=0.25, erasing_p=0.5, erasing_scale=(0.02, 0.1))
RAFDB = ADAM_SAM.replace(epochs=300, batch_size=200, lr=4e-5, augmentation=NOISY)
AFFECTNET = RAFDB.replace(lr=2e-6, sampler="balanced")
# The other methods' recipe from scratch uses SGD at 0.1, for a ResNet and a loss a third as large.
SCRATCH_ADAMW = SCRATCH.replace(optimizer="adamw", lr=1e-3, weight_decay=0.02)
POSTER.recipes = {"smoke": SMOKE, "scratch": SCRATCH_ADAMW, "rafdb": RAFDB, "affectnet": AFFECTNET}
