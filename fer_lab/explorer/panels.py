"""What the explorer shows, without widgets: functions from a state to a picture and a text.

Texts are HTML. Every name that came from outside is escaped.
"""

import html
import math
import re
import tomllib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import torch
from PIL import Image, ImageDraw

from fer_lab.data.augmentation import prepare
from fer_lab.data.photographs import FaceBox, crop_face
from fer_lab.data.synthetic import GLASSES, Identity, Nuisance, Rendering, render
from fer_lab.explanation.attribution import WAYS, explain
from fer_lab.explanation.maps import GRID, cell_centre, strongest_matches
from fer_lab.explorer.cards import SCALE, TILE, answer_table, as_html, draw_truth, encode, shrink, to_picture
from fer_lab.figures.pictures import heat_over, heats
from fer_lab.figures.style import HEAT
from fer_lab.models.method import Method
from fer_lab.models.qcs import QCS
from fer_lab.models.recipes import check_choice

TEXTS = tomllib.loads(Path(__file__).with_name("texts.toml").read_text(encoding="utf-8"))
MAPS, TRUTHS, MEANINGS, SIDES = (TEXTS[name] for name in ("maps", "truths", "meanings", "sides"))
# What can hide a part of the face: how far below the middle of the upright face, and how large (`Nuisance`).
COVERS = {"nothing": (0.0, 0.0), "the eyes": (-0.14, 0.75), "the mouth": (0.48, 0.55)}
SCALES = ("fine", "middle", "coarse")
# Quick enough for a slider: coarser maps than those that notebook 07 measures, in a quarter of the time.
# Over 12 faces they correlate with the full maps at 0.85 to 0.98 and 0.70 to 0.84, depending on the method.
QUICK = {"integrated_gradients": {"steps": 4}, "occlusion": {"window": 20, "stride": 18}}

FACE = 280  # side of a rendered face in pixels: five times what a tiny model takes
PHOTO = 440  # longer side of a photograph
Models = Mapping[str, Method]
# Room around the frame that fits the data which trained a model; see `photographs.FRAMES`.
ROOM = 0.0


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

    @property
    def traits(self) -> dict[str, Any]:
        """Skin, age and glasses, those of the person where this state leaves them open."""
        who = person_of(self)
        return {"skin_tone": float(who.skin_tone), "age": float(who.age), "glasses": GLASSES[int(who.glasses)]}

    @property
    def code(self) -> str:
        """Python that makes this state; what is as usual for this person is left out."""
        usual = vars(FaceState()) | FaceState(person=self.person).traits
        said = vars(self) | self.traits | {"units": {n: value for n, value in self.units.items() if value}}
        given = [f"{name}={value!r}" for name, value in said.items() if value != usual[name]]
        return f"FaceState({', '.join(given)})"


@dataclass(frozen=True)
class View:
    """What a widget shows. For two faces, each key of the answers names model and face."""

    png: bytes  # b"" for none
    text: str  # HTML; its first line says what the picture shows
    answers: dict[str, dict[str, float]]
    table: str = ""  # HTML
    legend: str = ""  # HTML: what is drawn over the faces, and the scale of its colours

    @property
    def words(self) -> str:
        """The text and the answers without HTML, a line each."""
        lines = [self.text, *(sentence(name, row) for name, row in self.answers.items())]
        return html.unescape(re.sub("<[^>]+>", "", "\n".join(lines).replace("<br>", "\n")))

    @property
    def picture(self) -> str:
        """The picture as HTML, with the first line as alternative text."""
        return as_html(self.png, self.words.partition("\n")[0]) if self.png else ""

    def _repr_mimebundle_(self, **_options: Any) -> dict[str, str]:
        """For a notebook, where there is room for the maps in their full size."""
        table = self.table.replace("76px", f"{TILE}px")
        right = f'<div style="margin-left:14px">{self.text}<br>{self.legend}{table}</div>'
        page = f'<div style="display:flex;flex-wrap:wrap;line-height:1.3">{self.picture}{right}</div>'
        return {"text/html": shrink(page), "text/plain": self.words}


def draw_face(state: FaceState, size: int = FACE) -> Rendering:
    """Render the state's face; ValueError for a value that the renderer does not know, or one out of range."""
    check_choice("side", state.side, SIDES)
    left, right = state.side != "right", state.side != "left"
    units: Any = {number: (value * left, value * right) for number, value in state.units.items()}
    check_choice("cover", state.cover, COVERS)
    below, wide = COVERS[state.cover]
    turn = math.radians(state.roll)
    occluder = torch.tensor([-below * math.sin(turn), below * math.cos(turn), turn, 0.35, 0.45, 0.55])
    seen = {"roll": state.roll, "yaw": state.yaw, "blur": state.blur, "occlusion": wide, "occluder": occluder}
    return render(units, person_of(state), Nuisance.none(1).replace(**seen), size)


def person_of(state: FaceState) -> Identity:
    """The identity of the state's face."""
    who = Identity.sample(1, state.person)
    own = {"skin_tone": state.skin_tone, "age": state.age}
    if state.glasses is not None:
        check_choice("glasses", state.glasses, GLASSES)
        own["glasses"] = GLASSES.index(state.glasses)
    return who.replace(**{name: value for name, value in own.items() if value is not None})


def answer(model: Method, image: torch.Tensor, overlay: str = "none") -> tuple[dict, np.ndarray, bool]:
    """The answer of one model in eval mode to one face uint8 [3,S,S]; ValueError for an overlay not of `MAPS`.

    Returns class → probability; the face as uint8 [112,112,3], with the map as heat over it; and whether the
    model has such a map.
    """
    check_choice("overlay", overlay, MAPS)
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


def agreement(answers: Mapping[str, Mapping[str, float]]) -> str:
    """How many models name which class, HTML: "4 of 5 say happiness, 1 fear"."""
    if not answers:
        return "No model is chosen."
    votes = Counter(max(row, key=lambda label: row[label]) for row in answers.values())
    (label, count), *rest = [(html.escape(label), count) for label, count in votes.most_common()]
    others = "".join(f", {count} {label}" for label, count in rest)
    return f"{count} of {len(answers)} say{'s' * (count == 1)} {label}{others}"


def _judged(
    left: Image.Image, caption: str, models: Models, crop: Callable[[str], torch.Tensor], overlay: str
) -> View:
    """A picture, each model's answer to one face, and a caption that says what the picture shows.

    `crop` gives the face for a model of this name, uint8 [3,S,S].
    """
    answers, tiles, without = {}, {}, []
    for name, model in models.items():
        face = crop(name)
        try:
            answers[name], tiles[name], has_map = answer(model, face, overlay if overlay in MAPS else "none")
        except Exception as error:
            raise RuntimeError(f"{name} gave no answer: {error!r}") from error
        without += [] if has_map else [html.escape(name)]
    legend = " ".join([MEANINGS[overlay], *(f"{name} has no such map." for name in without)])
    legend += f"<br>{SCALE}" if overlay in WAYS else ""
    text = f"{caption}<br><b>{agreement(answers)}</b>"
    return View(encode(left), text, answers, answer_table(answers, tiles), legend)


def face_panel(state: FaceState, models: Models, overlay: str = "none") -> View:
    """The rendered face and each model's answer to it.

    `models`: name → model in eval mode; RuntimeError names one that fails. `overlay`: of `MAPS`, drawn over
    what each model receives, or of `TRUTHS`, drawn over the face; ValueError for another, as for a state out of
    range.
    """
    check_choice("overlay", overlay, {**MAPS, **TRUTHS})
    drawn = draw_face(state)
    left = draw_truth(drawn, overlay) if overlay in TRUTHS else to_picture(drawn.images[0])
    acting = [f"AU{n} {value:.2f}" for n, value in sorted(state.units.items()) if value > 0]
    caption = f"{', '.join(acting) or 'No unit acts'} · person {state.person}"
    return _judged(left, caption, models, lambda _name: drawn.images[0], overlay)


def photo_panel(
    image: Image.Image,
    boxes: Sequence[FaceBox],
    chosen: int,
    models: Models,
    overlay: str = "none",
    *,
    margin: float = ROOM,
) -> View:
    """A photograph with its faces framed, and each model's answer to one of them.

    Args:
        image: RGB.
        boxes, chosen: the faces, without any the middle square, and which is classified; ValueError if none.
        models, overlay: as in `face_panel`, but of `MAPS` alone; ValueError for another.
        margin: of `crop_face`, with its ValueError. A model whose name begins with "synthetic/" gets the wider
            square of rendered faces, any other the square of FER+.
    """
    check_choice("overlay", overlay, MAPS)
    if not 0 <= chosen < max(1, len(boxes)):
        raise ValueError(f"there are {len(boxes)} faces, numbered from 0, got {chosen}")
    left = image.copy()
    left.thumbnail((PHOTO, PHOTO))
    scale, pen = left.width / image.width, ImageDraw.Draw(left)
    for i, face in enumerate(boxes):
        frame = [edge * scale for edge in face.box]
        pen.rectangle(frame, outline="#000000", width=4)
        pen.rectangle(frame, outline="#ffffff" if i == chosen else "#bbbbbb", width=3 if i == chosen else 1)
    box = boxes[chosen] if boxes else None
    caption = f"Face {chosen + 1} of {len(boxes)}" if boxes else "The middle square, taken as one face"

    def crop(name: str) -> torch.Tensor:
        return crop_face(image, box, margin=margin if box else 0.0, trained_on=name.partition("/")[0])

    return _judged(left, caption, models, crop, overlay)


def can_match(model: Method) -> TypeGuard[QCS]:
    """Whether a model can compare the places of two faces (QCS and DCS with a cross branch)."""
    return isinstance(model, QCS) and model.cross is not None


def pair_panel(
    faces: Sequence[torch.Tensor], name: str, model: Method | None, *, scale: int = 2, count: int = 12
) -> View:
    """Two faces side by side, and lines between the places that are most alike for the model.

    Args:
        faces: two of uint8 [3,S,S].
        name, model: name in the text, and a model that `can_match`, or ValueError; None shows only the faces.
        scale, count: index into `SCALES`, and number of lines; ValueError for more than there are places.
    """
    gap = 110
    canvas = Image.new("RGBA", (2 * FACE + gap, FACE))
    for i, face in enumerate(faces):
        canvas.paste(to_picture(face).resize((FACE, FACE), Image.Resampling.BICUBIC), (i * (FACE + gap), 0))
    if model is None:
        return View(encode(canvas), "Two faces", {})
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
    text = (
        f"Two faces, and the {len(pairs)} strongest matches at the {SCALES[scale]} scale. Their ends lie "
        f"{moved:.1f} cells of the {GRID}×{GRID} grid apart, on average."
    )
    return View(encode(canvas), text, answers, answer_table(answers, {}), MEANINGS["matches"])


def _arc(start: tuple[float, float], end: tuple[float, float]) -> list[tuple[float, float]]:
    """A line bent towards the middle of the picture, so that lines at one height do not hide each other."""
    sag = 0.1 * (end[0] - start[0]) - 25
    sag = sag if start[1] + end[1] < FACE else -sag
    share = np.linspace(0, 1, 25)
    x, y = (a + (b - a) * share for a, b in zip(start, end, strict=True))
    return list(zip(x.tolist(), (y + 4 * sag * share * (1 - share)).tolist(), strict=True))
