"""What the explorer shows, without widgets: functions from a state to a picture and a text.

Texts are HTML. Every name that came from outside is escaped.
"""

import base64
import html
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeGuard

import numpy as np
import torch
from PIL import Image, ImageDraw

from fer_lab.data.augmentation import prepare
from fer_lab.data.photographs import FaceBox, crop_face
from fer_lab.data.synthetic import GLASSES, Identity, Nuisance, Rendering, render
from fer_lab.explanation.attribution import WAYS, explain
from fer_lab.explanation.maps import GRID, cell_centre, strongest_matches
from fer_lab.explorer.cards import TILE, compose, draw_card, draw_truth, encode, font, to_picture
from fer_lab.figures.pictures import heat_over, heats
from fer_lab.figures.style import HEAT
from fer_lab.models.method import Method
from fer_lab.models.qcs import QCS

# What can be drawn over a face: maps over any face, truths only over rendered ones.
MAPS = {
    "none": "nothing: what the model receives",
    "native": "the model's own attention",
    "grad_cam": "GradCAM",
    "integrated_gradients": "integrated gradients",
    "occlusion": "occlusion",
}
TRUTHS = {"landmarks": "68 landmarks", "moved": "what the acting muscles move"}
SIDES = {"both": "both sides", "left": "own left alone", "right": "own right alone"}
# What can hide a part of the face: how far below the middle of the upright face, and how large (`Nuisance`).
COVERS = {"nothing": (0.0, 0.0), "the eyes": (-0.14, 0.75), "the mouth": (0.48, 0.55)}
SCALES = ("fine", "middle", "coarse")
# Quick enough for a slider: coarser maps than those that notebook 07 measures, in a quarter of the time.
# Over 12 faces they correlate with the full maps at 0.85 to 0.98 and 0.70 to 0.84, depending on the method.
QUICK = {"integrated_gradients": {"steps": 4}, "occlusion": {"window": 20, "stride": 18}}

FACE = 280  # side of a rendered face in pixels: five times what a tiny model takes
PHOTO = 440  # longer side of a photograph
# Room around the frame that fits the data which trained a model; see `photographs.FRAMES`.
MARGIN = 0.0


@dataclass(frozen=True)
class FaceState:
    """One rendered face, as the sliders describe it; None leaves skin, age or glasses as the person's own."""

    units: Mapping[int, float] = field(default_factory=dict)  # FACS number → 0…1; other units are 0
    side: str = "both"  # of `SIDES`: left and right are the face's own
    person: int = 0  # seed of the identity
    skin_tone: float | None = None  # 0…1
    age: float | None = None  # 0…1
    glasses: str | None = None  # of `GLASSES`
    roll: float = 0.0  # degrees
    yaw: float = 0.0  # degrees
    cover: str = "nothing"  # of `COVERS`
    blur: float = 0.0  # standard deviation in hundredths of the picture's side


@dataclass(frozen=True)
class View:
    """What a widget shows: a picture, the same in words, and model → class → probability.

    For two faces, each key of the answers names model and face.
    """

    png: bytes
    text: str  # HTML
    answers: dict[str, dict[str, float]]

    @property
    def words(self) -> str:
        """The text without its HTML, a line each."""
        return html.unescape(re.sub("<[^>]+>", "", self.text.replace("<br>", "\n")))

    def _repr_mimebundle_(self, **_options: Any) -> tuple[dict, dict]:
        """For a notebook: the picture, with the words as alternative text."""
        picture = base64.b64encode(self.png).decode()
        alt = {"alt": self.words.replace("\n", "; ")}
        return {"image/png": picture, "text/plain": self.words}, {"image/png": alt}


def _one_of(what: str, value: str, known: Mapping | Sequence) -> str:
    if value not in known:
        raise ValueError(f"{what} must be one of {', '.join(known)}, got {value!r}")
    return value


def draw_face(state: FaceState, size: int = FACE) -> Rendering:
    """Render the state's face; ValueError for a value that the renderer does not know, or one out of range."""
    _one_of("side", state.side, SIDES)
    left, right = state.side != "right", state.side != "left"
    units: dict[int | str, float | tuple[float, float]] = {
        number: (value * left, value * right) for number, value in state.units.items()
    }
    below, wide = COVERS[_one_of("cover", state.cover, COVERS)]
    turn = math.radians(state.roll)
    place = (-below * math.sin(turn), below * math.cos(turn), turn)
    occluder = torch.tensor([*place, 0.35, 0.45, 0.55])
    turned = Nuisance.none(1).replace(roll=state.roll, yaw=state.yaw, blur=state.blur)
    how = turned.replace(occlusion=wide, occluder=occluder)
    return render(units, person_of(state), how, size)


def person_of(state: FaceState) -> Identity:
    """The identity of the state's face."""
    who = Identity.sample(1, state.person)
    own = {"skin_tone": state.skin_tone, "age": state.age}
    if state.glasses is not None:
        own["glasses"] = GLASSES.index(_one_of("glasses", state.glasses, GLASSES))
    return who.replace(**{name: value for name, value in own.items() if value is not None})


def answer(
    model: Method, image: torch.Tensor, overlay: str = "none"
) -> tuple[dict[str, float], np.ndarray, bool]:
    """The answer of one model in eval mode to one face uint8 [3,S,S]; ValueError for an overlay not of `MAPS`.

    Returns class → probability; the face as uint8 [112,112,3], with the map as heat over it; and whether the
    model has such a map.
    """
    _one_of("overlay", overlay, MAPS)
    ready = prepare(image[None], model.image_size, model.color_order)
    with torch.no_grad():
        row = model(ready)[0].softmax(0)
    probabilities = dict(zip(model.classes, row.tolist(), strict=True))
    received = to_picture(image).resize((model.image_size,) * 2, Image.Resampling.BOX)
    has_map = overlay in WAYS and (overlay != "native" or model.has_face_maps)
    sharp = Image.Resampling.BICUBIC if has_map else Image.Resampling.NEAREST
    tile = np.asarray(received.resize((TILE, TILE), sharp))
    if has_map:
        # A class activation map may be negative; what speaks against the class is not shown.
        maps = explain(model, ready, overlay, target=row.argmax(), **QUICK.get(overlay, {})).clamp(min=0)
        tile = heat_over(tile, heats(maps, TILE)[0, 0])
    return probabilities, tile, has_map or overlay == "none"


def sentence(name: str, probabilities: Mapping[str, float]) -> str:
    """A model's answer in words, HTML: the likeliest class and the one after it."""
    (first, p), *rest = sorted(probabilities.items(), key=lambda item: -item[1])
    then = f", then {html.escape(rest[0][0])} {rest[0][1]:.0%}" if rest else ""
    return f"<b>{html.escape(name)}</b>: {html.escape(first)} {p:.0%}{then}"


def _judged(
    left: Image.Image,
    caption: str,
    models: Mapping[str, Method],
    crop: Callable[[str], torch.Tensor],
    overlay: str,
    small: bool,
) -> View:
    """A picture, the card of each model's answer to one face, and the answers in words below a caption.

    `crop` gives the face for a model of this name, uint8 [3,S,S].
    """
    cards, answers = [], {}
    for name, model in models.items():
        face = crop(name)
        try:
            answers[name], tile, has_map = answer(model, face, overlay)
        except Exception as error:
            raise RuntimeError(f"{name} gave no answer: {error!r}") from error
        cards.append(draw_card(name, answers[name], tile, "" if has_map else "no map over the face"))
    lines = [sentence(name, row) for name, row in answers.items()] or ["No model is chosen."]
    return View(encode(compose(left, cards), small=small), "<br>".join([caption, *lines]), answers)


def face_panel(
    state: FaceState, models: Mapping[str, Method], overlay: str = "none", *, small: bool = False
) -> View:
    """The rendered face and each model's answer to it.

    Args:
        models: name → model in eval mode. RuntimeError names one that fails.
        overlay: of `MAPS`, drawn over what each model receives, or of `TRUTHS`, drawn over the face; ValueError
            for another, as for a state out of range.
        small: a smaller file that takes longer to make; see `encode`.
    """
    _one_of("overlay", overlay, {**MAPS, **TRUTHS})
    drawn = draw_face(state)
    left = draw_truth(drawn, overlay) if overlay in TRUTHS else to_picture(drawn.images[0])
    acting = [f"AU{n} {value:.2f}" for n, value in sorted(state.units.items()) if value > 0]
    caption = f"{', '.join(acting) or 'No unit acts'} · person {state.person}"
    overlay = overlay if overlay in MAPS else "none"
    return _judged(left, caption, models, lambda _name: drawn.images[0], overlay, small)


def photo_panel(
    image: Image.Image,
    boxes: Sequence[FaceBox],
    chosen: int,
    models: Mapping[str, Method],
    overlay: str = "none",
    *,
    margin: float = MARGIN,
    small: bool = False,
) -> View:
    """A photograph with its faces framed and numbered, and each model's answer to one of them.

    Args:
        image: RGB.
        boxes: the faces; without any, the middle square counts as a face crop.
        chosen: index of the face to classify; ValueError if there is none.
        models, small: as in `face_panel`.
        overlay: of `MAPS`; ValueError for another.
        margin: room around the square that fits a model, on every side, as a share of its side. A model that is
            named "synthetic/…" gets the wider square of rendered faces, any other the square of FER+.
            ValueError if it is out of the range of `crop_face`.
    """
    _one_of("overlay", overlay, MAPS)
    if not 0 <= chosen < max(1, len(boxes)):
        raise ValueError(f"there are {len(boxes)} faces, numbered from 0, got {chosen}")
    left = image.copy()
    left.thumbnail((PHOTO, PHOTO))
    scale, pen = left.width / image.width, ImageDraw.Draw(left)
    for i, face in enumerate(boxes):
        color = "#ffffff" if i == chosen else "#bbbbbb"
        frame = [edge * scale for edge in face.box]
        pen.rectangle(frame, outline="#000000", width=4)
        pen.rectangle(frame, outline=color, width=3 if i == chosen else 1)
        pen.rectangle((frame[0], frame[1], frame[0] + 9 + 8 * len(str(i + 1)), frame[1] + 18), "#000000")
        pen.text((frame[0] + 5, frame[1] + 2), str(i + 1), color, font(13, True))
    box = boxes[chosen] if boxes else None
    caption = f"Face {chosen + 1} of {len(boxes)}" if boxes else "The middle square, taken as one face"

    def crop(name: str) -> torch.Tensor:
        return crop_face(image, box, margin=margin if box else 0.0, trained_on=name.partition("/")[0])

    return _judged(left, caption, models, crop, overlay, small)


def can_match(model: Method) -> TypeGuard[QCS]:
    """Whether a model can compare the places of two faces (QCS and DCS with a cross branch)."""
    return isinstance(model, QCS) and model.cross is not None


def pair_panel(
    faces: tuple[torch.Tensor, torch.Tensor],
    name: str,
    model: Method | None,
    *,
    scale: int = 2,
    count: int = 12,
    small: bool = False,
) -> View:
    """Two faces side by side, and lines between the places that are most alike for the model.

    Args:
        faces: two of uint8 [3,S,S].
        name: the model's name in the text.
        model: one that `can_match`, or ValueError; None shows only the faces.
        scale: index into `SCALES`.
        count: number of lines; ValueError for more than there are places.
        small: as in `face_panel`.
    """
    squares = [to_picture(face).resize((FACE, FACE), Image.Resampling.BICUBIC) for face in faces]
    gap = 110
    canvas = Image.new("RGB", (2 * FACE + gap, FACE), "white")
    for i, square in enumerate(squares):
        canvas.paste(square, (i * (FACE + gap), 0))
    if model is None:
        return View(encode(canvas, small=small), "", {})
    if not can_match(model):
        raise ValueError(f"{name} is a {model.name}, which does not match faces; use a qcs")
    ready = [prepare(face[None], model.image_size, model.color_order) for face in faces]
    with torch.no_grad():
        rows = model(torch.cat(ready)).softmax(1).tolist()
        pairs = strongest_matches(model.matches(*ready)[0, scale], count)
    weakest = pairs[-1][2]
    pen = ImageDraw.Draw(canvas)
    for row, column, strength in reversed(pairs):  # the strongest last, on top
        share = (strength - weakest) / max(1 - weakest, 1e-9)
        color = tuple(int(255 * part) for part in HEAT(0.35 + 0.5 * share)[:3])
        (x, y), (to_x, to_y) = cell_centre(row), cell_centre(column)
        start, end = (x * FACE, y * FACE), (FACE + gap + to_x * FACE, to_y * FACE)
        for shade, width in (("#000000", 4), (color, 2)):
            pen.line(_arc(start, end), shade, width, joint="curve")
        for x, y in (start, end):
            pen.ellipse((x - 4, y - 4, x + 4, y + 4), color, "#000000")
    answers = {
        f"{name}, {which} face": dict(zip(model.classes, row, strict=True))
        for which, row in zip(("first", "second"), rows, strict=True)
    }
    moved = np.mean([math.dist(divmod(row, GRID), divmod(column, GRID)) for row, column, _ in pairs])
    lines = [sentence(key, row) for key, row in answers.items()]
    lines.append(
        f"{len(pairs)} strongest matches at the {SCALES[scale]} scale; their ends lie {moved:.1f} cells "
        f"of the {GRID}×{GRID} grid apart, on average"
    )
    return View(encode(canvas, small=small), "<br>".join(lines), answers)


def _arc(start: tuple[float, float], end: tuple[float, float]) -> list[tuple[float, float]]:
    """A line bent towards the middle of the picture, so that lines at one height do not hide each other."""
    sag = 0.1 * (end[0] - start[0]) - 25
    sag = sag if start[1] + end[1] < FACE else -sag
    share = np.linspace(0, 1, 25)
    x, y = (a + (b - a) * share for a, b in zip(start, end, strict=True))
    return list(zip(x.tolist(), (y + 4 * sag * share * (1 - share)).tolist(), strict=True))
