"""Parts of the explorer's pictures: a model's card, a face with its truth, and both side by side.

PIL composes them in about 20 ms; a matplotlib figure takes several hundred.
"""

import functools
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from fer_lab.data.expressions import COLORS
from fer_lab.data.faces import REGIONS
from fer_lab.data.synthetic import Rendering
from fer_lab.figures.pictures import STROKES
from fer_lab.figures.style import INK, SERIES, SOFT, with_palette

TILE = 112  # side of the small picture on a card
CARD = (356, 150)
GAP = 14
ROWS = 8  # most classes on a card
TRUTH = "#7fe3ff"


@functools.cache
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """The font that comes with matplotlib, so that no system font is needed."""
    import matplotlib as mpl

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(mpl.get_data_path()) / "fonts" / "ttf" / name), size)


def _fit(text: str, face: ImageFont.FreeTypeFont, width: float) -> str:
    """The text in one line, cut to `width` pixels."""
    text = " ".join(text.split())
    if face.getlength(text) > width:
        while text and face.getlength(text + "…") > width:
            text = text[:-1]
        text += "…"
    return text


def encode(picture: Image.Image, *, small: bool = False) -> bytes:
    """A picture as PNG; `small` is a third of the size, with a palette of colours, but slower."""
    buffer = io.BytesIO()
    if small:
        picture = with_palette(picture.convert("RGB"), soft=True)
    picture.save(buffer, "PNG", optimize=small, **({} if small else {"compress_level": 1}))
    return buffer.getvalue()


def draw_card(name: str, probabilities: Mapping[str, float], tile: np.ndarray, note: str = "") -> Image.Image:
    """A model's name, its small picture [112,112,3], and its probabilities as bars, at most the 8 largest."""
    card = Image.new("RGB", CARD, "white")
    pen = ImageDraw.Draw(card)
    pen.text((0, 2), _fit(name, font(13, True), CARD[0]), INK, font(13, True))
    card.paste(Image.fromarray(tile), (0, 24))
    pen.text((0, 24 + TILE + 1), note, SOFT, font(10))
    shown = probabilities
    if len(shown) > ROWS:
        shown = dict(sorted(shown.items(), key=lambda item: -item[1])[:ROWS])
    best, left, full = max(shown, key=lambda label: shown[label]), TILE + 88, 108
    for i, (label, p) in enumerate(shown.items()):
        y = 24 + i * 14
        face = font(11, label == best)
        pen.text((left - 6, y), _fit(label, face, 76), INK, face, anchor="ra")
        pen.rectangle((left, y + 1, left + full, y + 11), "#efefef")
        if p >= 0.005:
            pen.rectangle((left, y + 1, left + max(1, round(p * full)), y + 11), COLORS.get(label, SERIES[0]))
        pen.text((left + full + 5, y), f"{p:.0%}", INK, face)
    return card


def compose(left: Image.Image, cards: Sequence[Image.Image]) -> Image.Image:
    """A picture, and right of it the cards, in two columns if one would be much higher than the picture."""
    columns = 1 if len(cards) * CARD[1] <= left.height + CARD[1] // 2 else 2
    rows = -(-len(cards) // columns)
    width = left.width + (columns * (CARD[0] + GAP) if cards else 0)
    canvas = Image.new("RGB", (width, max(left.height, rows * CARD[1])), "white")
    canvas.paste(left, (0, 0))
    for i, card in enumerate(cards):
        canvas.paste(card, (left.width + GAP + (i // rows) * (CARD[0] + GAP), (i % rows) * CARD[1]))
    return canvas


def to_picture(image: torch.Tensor) -> Image.Image:
    """uint8 [3,S,S] → an RGB picture."""
    return Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())


def draw_truth(drawn: Rendering, truth: str) -> Image.Image:
    """The first rendered face with its "landmarks", or with the places that its active units "moved"."""
    picture = to_picture(drawn.images[0])
    pen = ImageDraw.Draw(picture)
    if truth == "landmarks":
        points = [tuple(point) for point in drawn.landmarks[0].tolist()]
        for strokes, color in zip(STROKES.values(), SERIES, strict=False):
            for first, last, closed in strokes:
                chosen = points[first : last + 1] + ([points[first]] if closed else [])
                pen.line(chosen, color, 2)
                for x, y in chosen:
                    pen.ellipse((x - 2, y - 2, x + 2, y + 2), "white", color)
    else:
        inside = (drawn.regions[0] >> REGIONS.index("moved") & 1).bool().numpy()
        core = inside.copy()
        for axis in (0, 1):
            for step in (-2, 2):
                core &= np.roll(inside, step, axis)
        pen.bitmap((0, 0), Image.fromarray(np.uint8(inside * 70)), TRUTH)
        pen.bitmap((0, 0), Image.fromarray(np.uint8((inside & ~core) * 255)), TRUTH)
    return picture
