"""Diagrams of the methods and of their hard steps, with the shapes that a model really has."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from fer_lab.figures import style
from fer_lab.figures.style import Names

# What a box is → its fill and edge. Dashed boxes act in training alone.
KINDS = {
    "tensor": ("#ffffff", "#9a9a9a"),
    "layer": ("#e7e8f4", "#332288"),
    "learned": ("#fbf0d9", "#c08a20"),
    "loss": ("#f8e3e6", "#aa3355"),
    "answer": ("#dff1e4", "#117733"),
}
HEIGHT = 0.62  # of a box, in rows
Shapes = Mapping[str, Sequence[int]]


class Box(NamedTuple):
    """A box: its middle in columns and rows, text, kind, whether it acts in training alone, width in columns.

    In the text {module} stands for the shape of a module's output, {module:1} for the size of its axis 1.
    """

    x: float
    y: float
    text: str
    kind: str = "layer"
    training: bool = False
    width: float = 0.8


@style.styled
def diagram(boxes: Mapping[str, Box], arrows: Names, shapes: Shapes, title: str, note: str = "") -> Figure:
    """Boxes on a grid and arrows between them; ValueError where a text or an arrow names what is not there.

    Args:
        boxes: name → box; rows count from the top.
        arrows: chains, "a > b > c"; with "a > b: text" a text stands beside each arrow. One that changes row
            and column goes along the row first, with "a ^ b" along the column, with "a / b" straight. "a - b"
            has no direction.
        shapes: module → shape of its output for one face, with the batch first, as `output_shapes` gives them.
    """
    texts = {name: _with_shapes(box.text, shapes) for name, box in boxes.items()}
    left = min(box.x - box.width / 2 for box in boxes.values()) - 0.05
    right = max(box.x + box.width / 2 for box in boxes.values()) + 0.05
    low = max(box.y for box in boxes.values()) + HEIGHT / 2
    fig, ax = style.chart(1.42 * (right - left), 0.95 * (low + HEIGHT / 2) + 0.7)
    ax.set(xlim=(left, right), ylim=(low + 0.05, -HEIGHT / 2 - 0.05))
    ax.axis("off")
    for name, box in boxes.items():
        fill, edge = KINDS[box.kind]
        corner = (box.x - box.width / 2, box.y - HEIGHT / 2)
        look: dict[str, Any] = {"facecolor": fill, "edgecolor": edge, "linewidth": 1.2, "zorder": 2}
        dash = (0, (3, 2)) if box.training else "solid"
        shape = "round,pad=0,rounding_size=0.06"
        ax.add_patch(FancyBboxPatch(corner, box.width, HEIGHT, boxstyle=shape, linestyle=dash, **look))
        ax.text(box.x, box.y, texts[name], ha="center", va="center", fontsize=8.5, linespacing=1.25, zorder=3)
    for chain in arrows:
        path, _, label = chain.partition(": ")
        first, *rest = re.split(r" ([>^/-]) ", path)
        if missing := {first, *rest[1::2]} - set(boxes):
            raise ValueError(f"no box {', '.join(sorted(missing))}; there are {', '.join(boxes)}")
        for turn, last in zip(rest[::2], rest[1::2], strict=True):
            _draw_arrow(ax, boxes[first], boxes[last], turn, label)
            first = last
    dashed = "Dashed: in training alone. " if any(box.training for box in boxes.values()) else ""
    if dashed or note:
        fig.supxlabel(f"{dashed}{note}".strip(), fontsize=8.5, color=style.SOFT)
    return style.heading(fig, title)


def _with_shapes(text: str, shapes: Shapes) -> str:
    def shape(match: re.Match[str]) -> str:
        name, axis = match[1], match[2]
        if name not in shapes:
            raise ValueError(f"a box names {name!r}, but the model has no such module")
        return str(shapes[name][int(axis)]) if axis else " × ".join(map(str, shapes[name][1:]))

    return re.sub(r"{([\w.]+):?(\d)?}", shape, text)


def _draw_arrow(ax: Axes, a: Box, b: Box, turn: str, label: str) -> None:
    """From the edge of a box to the edge of another; straight, or with one corner."""
    along = abs(a.y - b.y) < 1e-9
    down = abs(a.x - b.x) < 1e-9
    side, sign = (1 if b.x > a.x else -1), (1 if b.y > a.y else -1)
    # Whether it leaves and enters at the side of a box, and not above or below it.
    leaves, enters = (along or (not down and turn in turns) for turns in (">-/", "^/"))
    start = (a.x + side * a.width / 2, a.y) if leaves else (a.x, a.y + sign * HEIGHT / 2)
    end = (b.x - side * b.width / 2, b.y) if enters else (b.x, b.y - sign * HEIGHT / 2)
    angles = "angleA=0,angleB=90" if leaves else "angleA=90,angleB=0"
    bend = "arc3" if leaves == enters else f"angle,{angles},rad=4"
    dash = (0, (3, 2)) if a.training or b.training else "solid"
    head = "<|-|>" if turn == "-" else "-|>"
    look: dict[str, Any] = {"mutation_scale": 9, "color": style.SOFT, "linewidth": 1.1, "linestyle": dash}
    where: dict[str, Any] = {"connectionstyle": bend, "shrinkA": 1, "shrinkB": 1, "zorder": 1}
    ax.add_patch(FancyArrowPatch(start, end, arrowstyle=head, **where, **look))
    if label:
        part = 0.25 if turn == "/" else 0.5
        middle = tuple(np.average((start, end), axis=0, weights=(1 - part, part)))
        above = (0, 4) if along else (4, 0)
        ax.annotate(
            label, middle, above, textcoords="offset points", fontsize=8, color=style.SOFT,
            ha="center" if along else "left", va="bottom" if along else "center",
        )  # fmt: skip


def dan_diagram(shapes: Shapes) -> Figure:
    """DAN: trunk, K heads, fusion, and where its two losses act."""
    heads = sum(re.fullmatch(r"heads\.\d+", name) is not None for name in shapes)
    more = f"heads 2 … {heads}\n{{heads.0}} each" if heads > 1 else "no more heads"
    boxes = {
        "image": Box(0, 1, "face\n{image}", "tensor"),
        "trunk": Box(1, 1, "ResNet-18\n{trunk}"),
        "first": Box(2.2, 0, "head 1: where,\nwhich channels\n{heads.0}", width=1.1),
        "more": Box(2.2, 1, more, width=1.1),
        "fuse": Box(3.5, 1, f"log-softmax\nover the heads\n{heads} × {{heads.0}}", width=1.1),
        "sum": Box(4.65, 1, "sum\n{heads.0}", "tensor"),
        "logits": Box(5.7, 1, "linear,\nBatchNorm\n{fusion.fc} logits", "answer"),
        "mean": Box(1, 2, "mean of places\n{trunk:1}", "tensor", True, 0.98),
        "affinity": Box(2.2, 2, "affinity loss", "loss", True, 1.1),
        "centers": Box(2.2, 3, "class centers\n{centers}", "learned", True, 1.1),
        "partition": Box(3.5, 2, "partition loss", "loss", True, 1.1),
        "ce": Box(5.7, 2, "cross-\nentropy", "loss", True),
    }
    arrows = (
        *("image > trunk > more > fuse > sum > logits > ce", "trunk ^ first > fuse", "fuse > partition"),
        *("trunk > mean > affinity", "centers > affinity"),
    )
    return diagram(boxes, arrows, shapes, "DAN: several heads look, compete and are added up")


def dan_head_diagram(shapes: Shapes) -> Figure:
    """One head of DAN: a map over the places, then a gate over the channels."""
    gate = "linear {heads.0.channel.squeeze}, linear {heads.0.channel.excite}\nsigmoid: gate"
    boxes = {
        "features": Box(0, 1, "features F\n{trunk}", "tensor"),
        "reduce": Box(1.05, 1, "conv 1×1\n{heads.0.spatial.reduce}"),
        "row": Box(2.1, 0, "conv 1×3\n{heads.0.spatial.row}"),
        "square": Box(2.1, 1, "conv 3×3\n{heads.0.spatial.square}"),
        "column": Box(2.1, 2, "conv 3×1\n{heads.0.spatial.column}"),
        "map": Box(3.3, 1, "add, ReLU, sum\nof channels: map\n1 × 7 × 7", width=1.1),
        "where": Box(4.5, 1, "F × map\n{heads.0.spatial}", "tensor"),
        "mean": Box(5.5, 1, "mean of\nplaces: {heads.0:1}", "tensor", width=0.9),
        "gate": Box(5.5, 2, gate, width=1.15),
        "head": Box(6.6, 1, "mean × gate\n{heads.0}", "tensor", width=0.9),
    }
    arrows = (
        *("features > reduce > square > map > where > mean > head", "mean > gate > head"),
        *("reduce ^ row > map", "reduce ^ column > map"),
    )
    return diagram(boxes, arrows, shapes, "One head: where on the face, then which channels")


def triplet_center_diagram(shapes: Shapes) -> Figure:
    """The triplet-center loss on a trunk, with its negative and both attentions."""
    boxes = {
        "image": Box(0, 1, "face\n{image}", "tensor"),
        "trunk": Box(1, 1, "ResNet-18\n{trunk}"),
        "pixels": Box(1, 0, "pixel-wise map\n{pixels.score}", "learned", width=0.98),
        "mean": Box(2.15, 1, "weighted mean\n{pixels}", "tensor", width=0.98),
        "x": Box(3.5, 1, "standardised\nembedding {norm}", "tensor", width=1.05),
        "logits": Box(4.95, 1, "linear\n{classify} logits", "answer"),
        "ce": Box(6.05, 1, "cross-\nentropy", "loss", True),
        "elements": Box(2.15, 2, "element-wise\nweights {norm}", "learned", True, 0.98),
        "hinge": Box(3.5, 2, "a hinge in every\ndimension, added up", "loss", True, 1.25),
        "negative": Box(4.95, 2, "negative\n{norm}", "tensor", True),
        "own": Box(3.5, 3, "own center\n{norm}", "tensor", True),
        "centers": Box(4.95, 3, "class centers\n{triplet_center.centers}", "learned", True, 0.95),
    }
    arrows = (
        *("image > trunk > mean > x > logits > ce", "trunk > pixels > mean", "trunk ^ elements > hinge"),
        *("x > hinge", "centers > negative > hinge", "centers > own > hinge"),
    )
    note = "The negative is put together from wrong centers; the face, or its logits, decide from which."
    return diagram(boxes, arrows, shapes, "Triplet center: nearer to the own center than to a negative", note)


def poster_diagram(shapes: Shapes) -> Figure:
    """POSTER: two streams, three widths of the tokens, and one class token that answers."""
    steps = sum(re.fullmatch(r"steps\.\d+", name) is not None for name in shapes)
    boxes = {
        "image": Box(0, 0.5, "face\n{image}", "tensor", width=0.86),
        "trunk": Box(1.05, 0, "IR-50\n{trunk}", width=0.98),
        "tokens": Box(2.31, 0, "image tokens\n{image_embedding}", "tensor", width=1.08),
        "marks": Box(1.05, 1, "MobileFaceNet\n{landmarks}", width=1.04),
        "marktokens": Box(2.31, 1, "landmark tokens\n{image_embedding}", "tensor", width=1.18),
        "join": Box(3.45, 0.5, "+ class tokens\n{steps.0}", "tensor", width=1.0),
        "half": Box(4.85, 1.5, "half as wide\n{narrow.0}", width=0.95),
        "quarter": Box(4.15, 2.5, "a quarter\n{narrow.1}", width=0.95),
        "wide": Box(6.05, 0.5, f"cross attention\n{steps} steps", width=1.05),
        "mid": Box(6.05, 1.5, f"cross attention\n{steps} steps", width=1.05),
        "thin": Box(6.05, 2.5, f"cross attention\n{steps} steps", width=1.05),
        "token": Box(7.28, 0.5, "image\nclass token\n{gate}", "tensor", width=1.0),
        "logits": Box(7.28, 1.5, "gate, linear\n{classify} logits", "answer"),
    }
    arrows = (
        *("image ^ trunk > tokens > join > wide > token > logits", "image ^ marks > marktokens > join"),
        *("join > half > mid", "join > quarter > thin", "thin > mid > wide: add"),
    )
    note = "The landmark stream is frozen. After every step each width is added to the next wider one."
    return diagram(boxes, arrows, shapes, "POSTER: two streams ask each other, at three widths", note)


def cross_block_diagram(shapes: Shapes) -> Figure:
    """One cross-fusion block of POSTER: whose queries meet whose keys and values."""
    boxes = {
        "image": Box(0, 0, "image tokens\n50 × {steps.0:2}", "tensor", width=0.95),
        "marks": Box(0, 2, "landmark tokens\n50 × {steps.0:2}", "tensor", width=1.05),
        "onimage": Box(1.9, 0, "attention over\nthe image", width=1.1),
        "onmarks": Box(1.9, 2, "attention over\nthe landmarks", width=1.1),
        "imagemlp": Box(3.3, 0, "+ image tokens,\nMLP", width=1.1),
        "marksmlp": Box(3.3, 2, "+ landmark\ntokens, MLP", width=1.1),
        "mix": Box(4.6, 1, "linear map over\nall {steps.0:1} tokens", width=1.1),
        "out": Box(5.9, 1, "{steps.0}\nto the next step", "tensor", width=1.1),
    }
    arrows = (
        *("image > onimage: keys, values", "marks > onmarks: keys, values", "image / onmarks: queries"),
        *("marks / onimage: queries", "onimage > imagemlp > mix > out", "onmarks > marksmlp > mix"),
    )
    return diagram(boxes, arrows, shapes, "One block: the queries come from the other stream")


def qcs_diagram(shapes: Shapes) -> Figure:
    """QCS: the base branch that answers, and the cross branch that training alone has."""
    boxes = {
        "image": Box(0, 1, "four faces\n{image}", "tensor", width=1.05),
        "trunk": Box(1.1, 1, "IR-50\nthree grids"),
        "fine": Box(2.1, 0, "fine\n{embed_taps.0}"),
        "mid": Box(2.1, 1, "middle\n{embed_taps.1}"),
        "coarse": Box(2.1, 2, "coarse\n{embed_taps.2}"),
        "tokens": Box(3.15, 1, "tokens\n3 × 49 × {embed_taps.2:1}", "tensor", width=0.95),
        "base": Box(4.3, 1, "base branch\ntwo blocks", width=0.95),
        "logits": Box(5.6, 1, "{base.classify} logits\nof each face", "answer", width=1.0),
        "cross": Box(5.6, 2, "cross similarity\nof the four faces", training=True, width=1.15),
        "add": Box(5.6, 3, "refined tokens\n+ base's tokens", "tensor", True, 1.15),
        "branch": Box(6.9, 3, "cross branch\none block", training=True, width=1.0),
        "cl": Box(6.9, 2, "{cross_branch.classify} cross logits\nof each face", "tensor", True, 1.0),
    }
    arrows = (
        *("image > trunk > mid > tokens > base > logits", "trunk ^ fine > tokens", "trunk ^ coarse > tokens"),
        *("base ^ cross > add > branch > cl", "base ^ add"),
    )
    note = "In training both logits have a cross-entropy. At inference one face goes along the solid boxes."
    return diagram(boxes, arrows, shapes, "QCS: four faces teach the branch that one face uses", note)


def quadruplet_diagram(shapes: Shapes) -> Figure:
    """Which face is compared with which, and what its map is made of."""
    boxes = {
        "anchor": Box(0, 0, "anchor\n49 × {embed_taps.2:1}", "tensor"),
        "positive": Box(2.9, 0, "positive\nsame class", "tensor"),
        "negative": Box(0, 2, "negative\nother class", "tensor"),
        "second": Box(2.9, 2, "second negative\nthe same other class", "tensor", width=1.2),
        "map": Box(1.5, 1, "a face's map = softmax(S + k · D)\n49 places, one map for each scale", width=1.9),
    }
    arrows = (
        *("anchor - positive: S: how alike", "negative - second: S: how alike"),
        *("anchor - negative: D: how far", "positive - second: D: how far"),
    )
    note = "S keeps what faces of a class share; D drops what faces of different classes share."
    return diagram(boxes, arrows, shapes, "Four faces, two kinds of pairs", note)
