"""Faces in a picture of the reader's own: find them, classify them, and draw where the model looked."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from fer_lab.data.augmentation import prepare
from fer_lab.data.expressions import COLORS
from fer_lab.data.photographs import FaceBox, Source, crop_face, face_square, find_faces, open_image
from fer_lab.explanation.attribution import native_maps
from fer_lab.explanation.maps import GRID, normalize_for_display
from fer_lab.models.layers import evaluating
from fer_lab.models.method import Method
from fer_lab.models.weights import read_card
from fer_lab.runs.run import Run, weights_file

# matplotlib's inferno at nine places, since `predict` does without matplotlib.
INFERNO = np.frombuffer(
    bytes.fromhex("000004 210c4a 57106e 8a226a bc3754 e35933 f98c0a f9c932 fcffa4"), dtype=np.uint8
).reshape(9, 3)


@dataclass(frozen=True)
class Seen:
    """One face in a picture."""

    box: tuple[int, int, int, int]  # left, top, right, bottom of the square that the model received, in pixels
    probabilities: dict[str, float]  # of each expression
    heat: np.ndarray  # float [h,w], 0…1, where the model looked; zeros for a model without maps over the face
    score: float = 0.0  # how sure the face finder is; see `FaceBox`


def look(
    model: Method,
    image: Image.Image,
    boxes: Sequence[FaceBox | tuple[int, int, int, int] | None],
    trained_on: str = "ferplus",
) -> list[Seen]:
    """Probabilities and attention of the faces in `boxes` of an RGB picture; see `crop_face` for both."""
    images = torch.stack([crop_face(image, box, trained_on=trained_on) for box in boxes])
    ready = prepare(images, model.image_size, model.color_order)
    with evaluating(model), torch.no_grad():
        probabilities = model(ready).softmax(1).tolist()
    maps = torch.zeros(len(ready), 1, GRID, GRID)
    if model.has_face_maps:
        maps = next(iter(native_maps(model, ready).values())).mean(1, keepdim=True)
    heats = normalize_for_display(maps)[:, 0].numpy()
    squares = [face_square(image, box, trained_on=trained_on) for box in boxes]
    answers = [dict(zip(model.classes, row, strict=True)) for row in probabilities]
    scores = [getattr(box, "score", 0.0) for box in boxes]
    return [Seen(*one) for one in zip(squares, answers, heats, scores, strict=True)]


def overlay(image: Image.Image, faces: Sequence[Seen]) -> Image.Image:
    """The picture with each face's attention as heat, a frame, and the likeliest expression above it."""
    drawn = image.copy()
    for face in faces:
        left, top, right, bottom = face.box
        size = (right - left, bottom - top)
        heat = Image.fromarray(np.uint8(face.heat * 255)).resize(size, Image.Resampling.BICUBIC)
        shades = [
            np.interp(np.asarray(heat), np.linspace(0, 255, len(INFERNO)), channel) for channel in INFERNO.T
        ]
        coloured = Image.fromarray(np.uint8(np.stack(shades, -1)))
        drawn.paste(coloured, (left, top), heat.point(lambda value: value * 0.6))
    pen = ImageDraw.Draw(drawn)
    for face in faces:
        name, p = max(face.probabilities.items(), key=lambda item: item[1])
        height = max(12, (face.box[3] - face.box[1]) // 9)
        color = COLORS.get(name, "#ffffff")
        pen.rectangle(face.box, outline=color, width=max(2, height // 8))
        at = (face.box[0], max(0, face.box[1] - height - 4))
        text = f"{name} {p:.0%}"
        pen.rectangle(pen.textbbox(at, text, font_size=height), fill="#000000")
        pen.text(at, text, fill=color, font_size=height)
    return drawn


def trained_on(weights: str | Path) -> str:
    """Name of the data set that trained a run, a file of weights or a bundled model; "" if nothing tells.

    Raises FileNotFoundError and ValueError as `open_model`.
    """
    file = weights_file(weights)
    return str(read_card(file).get("dataset") or Run(file.parent).config.get("dataset", ""))


def predict_picture(
    model: Method, source: Source, *, whole: bool = False, trained_on: str = "ferplus"
) -> tuple[Image.Image, list[Seen]]:
    """A picture and the model's answers to its faces, the largest face first.

    Args:
        model: on the CPU.
        source: a file, or an array uint8 [H,W,3] in RGB order; ValueError for what `open_image` refuses.
        whole: take the picture's middle square as one face crop instead of looking for faces.
        trained_on: data set that the model's weights were trained on, which decides how faces are cropped.

    Example:
        >>> picture, faces = predict_picture(open_model("dan"), "photo.jpg")
        >>> [max(face.probabilities, key=face.probabilities.get) for face in faces]
        ['happiness']
    """
    image = open_image(source)
    boxes: Sequence[FaceBox | None] = [None] if whole else find_faces(image)
    return image, look(model, image, boxes, trained_on) if boxes else []
