"""Diagrams of the methods and of their hard steps, with the shapes that a model really has."""

import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from fer_lab.figures import style
from fer_lab.figures.style import Names
from fer_lab.models.recipes import check_choice

# What a box is → its fill and edge. Dashed boxes act in training alone.
KINDS = {
    "tensor": ("#ffffff", "#9a9a9a"),
    "layer": ("#e7e8f4", "#332288"),
    "learned": ("#fbf0d9", "#c08a20"),
    "loss": ("#f8e3e6", "#aa3355"),
    "answer": ("#dff1e4", "#117733"),
}
HEIGHT = 0.62  # of a box, in rows
TABLES = tomllib.loads(Path(__file__).with_name("diagrams.toml").read_text(encoding="utf-8"))
Shapes = Mapping[str, Sequence[int]]


class Box(NamedTuple):
    """A box: its middle in columns and rows, text, kind, whether it acts in training alone, width in columns.

    In the text {module} stands for the shape of a module's output, {module:1} for the size of its axis 1, and
    {modules.*} for the number of modules in a list.
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
        if name.endswith(".*"):
            return str(sum(other.rpartition(".")[0] == name[:-2] for other in shapes))
        if name not in shapes:
            raise ValueError(f"a box names {name!r}, but the model has no such module")
        return str(shapes[name][int(axis)]) if axis else " × ".join(map(str, shapes[name][1:]))

    return re.sub(r"{([\w.*]+):?(\d)?}", shape, text)


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


def method_diagram(name: str, shapes: Shapes) -> Figure:
    """A diagram of `TABLES`: a method's, "dan_head", "cross_block" of POSTER or "quadruplet" of QCS."""
    check_choice("diagram", name, TABLES)
    boxes = {key: Box(*row) for key, row in TABLES[name]["boxes"].items()}
    if name == "dan" and "heads.1" not in shapes:
        boxes["more"] = boxes["more"]._replace(text="no more heads")
    return diagram(boxes, TABLES[name]["arrows"], shapes, TABLES[name]["title"], TABLES[name].get("note", ""))
