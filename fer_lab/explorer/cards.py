"""Parts of what the explorer shows: pictures with their texts, the table of answers, a face with its truth.

All HTML here has inline styles alone: JupyterLab takes style sheets out of notebooks that it does not trust.
"""

import base64
import html
import io
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from jinja2 import Template
from matplotlib.colors import to_hex
from PIL import Image, ImageDraw
from scipy.ndimage import binary_erosion

from fer_lab.data.expressions import COLORS
from fer_lab.data.faces import REGIONS
from fer_lab.data.synthetic import Rendering
from fer_lab.figures.pictures import STROKES
from fer_lab.figures.style import HEAT, LEARNED, SERIES, with_palette
from fer_lab.models.method import TITLES

TILE = 112  # side of the picture of what a model receives
ROWS = 8  # most classes in a table
TRUTH = "#7fe3ff"
# Black would be lost on a dark page.
BARS = {**COLORS, "contempt": "currentcolor"}
LOOK = {"learned": LEARNED, "titles": TITLES, "bars": BARS, "other": SERIES[0]}
SHADES = ",".join(to_hex(HEAT(i / 5)) for i in range(6))
BAR = f"display:inline-block;width:90px;height:9px;margin:0 5px;background:linear-gradient(to right,{SHADES})"
SCALE = f'least<span style="{BAR}"></span>most'
TABLE = Template(Path(__file__).with_name("answers.html.j2").read_text(encoding="utf-8"), autoescape=True)


def encode(picture: Image.Image, *, small: bool = False) -> bytes:
    """A picture as PNG; `small` is a third of the size, with a palette of colours, but slower."""
    buffer = io.BytesIO()
    if small:
        clear = picture.mode == "RGBA"
        picture = picture.quantize() if clear else with_palette(picture.convert("RGB"), soft=True)
    picture.save(buffer, "PNG", optimize=small, **({} if small else {"compress_level": 1}))
    return buffer.getvalue()


def data_url(png: bytes) -> str:
    """A PNG as an address that contains it."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def as_html(png: bytes, alt: str, style: str = "max-width:100%;max-height:100%") -> str:
    """A PNG as HTML, with a text for those who cannot see it."""
    return f'<img alt="{html.escape(alt)}" style="{style}" decoding="sync" src="{data_url(png)}">'


def shrink(page: str) -> str:
    """The same HTML with its pictures made small by `encode`, for a notebook's file."""

    def smaller(found: re.Match) -> str:
        return data_url(encode(Image.open(io.BytesIO(base64.b64decode(found[1]))), small=True))

    return re.sub('(?<=src=")data:image/png;base64,([^"]+)', smaller, page)


def answer_table(answers: Mapping[str, Mapping[str, float]], tiles: Mapping[str, np.ndarray]) -> str:
    """Probabilities as bars, HTML: a column a model, a row a class, and only the 8 likeliest of many classes.

    `answers`: model → class → probability. `tiles`: model → a picture [112,112,3] to stand above its column.
    """
    rows, look = list(answers.values()), "width:76px;display:block"
    pictures = {
        name: as_html(encode(Image.fromarray(tile)), f"the face as {name} receives it", look)
        for name, tile in tiles.items()
    }
    classes = list(dict.fromkeys(label for row in rows for label in row))
    first = sorted(classes, key=lambda label: -max(row.get(label, 0) for row in rows))[:ROWS]
    classes = [label for label in classes if label in first]
    return TABLE.render(pictures=pictures, names=list(answers), classes=classes, rows=rows, **LOOK)


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
        core = binary_erosion(inside, iterations=2)
        pen.bitmap((0, 0), Image.fromarray(np.uint8(inside * 70)), TRUTH)
        pen.bitmap((0, 0), Image.fromarray(np.uint8((inside & ~core) * 255)), TRUTH)
    return picture
