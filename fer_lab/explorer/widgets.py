"""The three explorers: a rendered face, a photograph, two faces that are matched.

panels.py makes what they show, controls.py what they share. Uploaded files stay in the kernel's memory and are
written nowhere.
"""

import html
import random
from collections.abc import Mapping
from dataclasses import fields, replace
from functools import partial
from typing import Any

import ipywidgets as widgets
import torch
from PIL import Image
from skimage.data import astronaut

from fer_lab.data.photographs import FaceBox, crop_face, find_faces, open_upload
from fer_lab.data.synthetic import GLASSES, PROTOTYPES, UNITS
from fer_lab.explorer import panels
from fer_lab.explorer.cards import data_url, encode, to_picture
from fer_lab.explorer.controls import SHOWN, Explorer, button, choice, rows, slider, upload, words
from fer_lab.explorer.panels import FaceState, View
from fer_lab.models.method import Method

PEOPLE = 200
STATE = [one.name for one in fields(FaceState) if one.name != "units"]
_TOLD = ("no_matcher", "sample", "privacy", "choose", "largest")
NO_MATCHER, SAMPLE, PRIVACY, CHOOSE, LARGEST = (panels.TEXTS["sentences"][name] for name in _TOLD)


def _prototype(expression: str) -> dict[str, Any]:
    """Units and side of an expression's prototype, for a `FaceState`: contempt is one-sided."""
    return {"units": PROTOTYPES[expression], "side": "left" if expression == "contempt" else "both"}


class FaceExplorer(Explorer):
    """Sliders for action units and identity, and each model's answer to the face that they make.

    Attributes:
        units: FACS number → slider 0…1.
        side, person, skin_tone, age, glasses, roll, yaw, blur, cover, overlay: the other controls.
        presets: expression → button that sets the units to its prototype.
        reset, undo, stranger, copy: buttons for the first face, the face before, and a random person, and one
            that shows the face as code.
    """

    def __init__(self, models: Mapping[str, Method] | None = None, state: FaceState | None = None):
        super().__init__(models, ticked=lambda name: name.startswith("synthetic/"))
        first = state or FaceState(PROTOTYPES["happiness"])
        self._past: list[FaceState] = []
        self._now: FaceState | None = None
        names = {unit.number: f"AU{unit.number} {unit.name.replace('_', ' ')}" for unit in UNITS}
        self.units = {one.number: slider(0.0, 1.0, 0.05, names[one.number], one.description) for one in UNITS}
        self.side = choice(panels.SIDES, "muscles act on")
        self.person = slider(0, PEOPLE - 1, 1, "person")
        self.skin_tone = slider(0.0, 1.0, 0.05, "skin, light to dark")
        self.age = slider(0.0, 1.0, 0.05, "age marks")
        self.glasses = choice(GLASSES, "glasses")
        self.roll = slider(-45.0, 45.0, 5.0, "head tilt, degrees")
        self.yaw = slider(-30.0, 30.0, 5.0, "head turn, degrees")
        self.blur = slider(0.0, 5.0, 0.25, "blur, % of the side")
        self.cover = choice(list(panels.COVERS), "covered")
        self.overlay = choice({**panels.MAPS, **panels.TRUTHS}, "show", "native", 40)
        self.presets = {name: button(name, partial(self.show_expression, name), "24%") for name in PROTOTYPES}
        self.reset = button("Reset", lambda: self.set_state(first))
        self.undo = button("Undo", self._undo)
        self.stranger = button("Random person", lambda: setattr(self.person, "value", random.randrange(PEOPLE)))
        self.copy = button("Copy as code", self._write_code)
        muscles = [rows(list(self.presets.values())), *self.units.values(), self.side]
        who = [self.person, self.skin_tone, self.age, self.glasses]
        how = [self.roll, self.yaw, self.blur, self.cover]
        self.set_state(first)
        self.person.observe(self._meet, "value")
        self.watch(*self.units.values(), self.side, *who[1:], *how, self.overlay)
        self.arrange(
            [self.overlay, self.text, rows([self.reset, self.undo, self.stranger, self.copy, self.save])],
            {"Muscles": muscles, "Person": who, "Camera": how, "Models": self.page_of_models()},
        )

    @property
    def state(self) -> FaceState:
        """The face that the controls describe."""
        units = {number: control.value for number, control in self.units.items()}
        return FaceState(units, **{name: getattr(self, name).value for name in STATE})

    def set_state(self, state: FaceState) -> None:
        """Set all controls of the face; what a state leaves open is the person's own."""
        with self.at_once():
            for name, value in (vars(state) | state.traits).items():
                if name in STATE:
                    getattr(self, name).value = value
            for number, control in self.units.items():
                control.value = state.units.get(number, 0.0)

    def view(self) -> View:
        state = self.state
        if self._now is not None and self._now != state:
            self._past.append(self._now)
        self._now = state
        return panels.face_panel(state, self.at_hand(), self.overlay.value)

    def _undo(self) -> None:
        """Go back to the face before; what is undone is not remembered."""
        if self._past:
            self._now = None
            self.set_state(self._past.pop())

    def show_expression(self, name: str) -> None:
        """Set the units and the side to an expression's prototype."""
        self.set_state(replace(self.state, **_prototype(name)))

    def _meet(self, _change: Any = None) -> None:
        """Set skin, age and glasses to those of the new person."""
        self.set_state(replace(self.state, skin_tone=None, age=None, glasses=None))

    def _write_code(self) -> None:
        look = "user-select:all;white-space:pre-wrap;line-height:1.3"
        self.note.value = f'<code style="{look}">{html.escape(self.state.code)}</code>'


class PhotoExplorer(Explorer):
    """An uploaded picture: the faces in it, and each model's answer to one of them.

    Attributes:
        upload, sample, forget: buttons that take a file, take a photograph of NASA, and drop it again.
        which, overlay, margin: number of the face to classify, from 1, what is drawn over it, and the room
            around the square that fits each model. `thumbnails` are buttons for the faces.
        image, boxes: the picture, and the faces found in it.
    """

    def __init__(self, models: Mapping[str, Method] | None = None, content: bytes | None = None):
        """Args: content: the bytes of a first picture's file."""
        # One method twice: trained on rendered faces, and on photographs.
        super().__init__(models, ticked=lambda name: name.endswith("/dan"), wide=320)
        self.upload = upload("Upload a picture", self.take)
        self.sample = button("Sample", lambda: self._show(Image.fromarray(astronaut())), tip=SAMPLE)
        self.forget = button("Forget it", partial(self._show, None))
        self.which = widgets.BoundedIntText(1, min=1, max=1)
        self.thumbnails, self._looks = rows([]), widgets.HTML(layout={"display": "none"})
        self.margin = slider(-0.2, 0.4, 0.05, "room around the face", value=panels.ROOM)
        self.overlay = choice(panels.MAPS, "show", "native", 40)
        self.image: Image.Image | None = None
        self.boxes: list[FaceBox] = []
        self.watch(self.which, self.margin, self.overlay)
        taking = rows([self.upload, self.sample, self.forget])
        photograph = [taking, words(f"{PRIVACY} {CHOOSE}"), self.thumbnails, self.margin, self._looks]
        beside = [self.overlay, self.text, rows([self.save])]
        self.arrange(beside, {"Photograph": photograph, "Models": self.page_of_models()})
        if content is not None:
            self.take(content)

    def view(self) -> View:
        if self.image is None:
            return View(b"", "No picture yet.", {})
        chosen, overlay, margin = self.which.value - 1, self.overlay.value, self.margin.value
        for i, thumbnail in enumerate(self.thumbnails.children):
            thumbnail.layout.border = f"3px solid {'var(--jp-brand-color1)' if i == chosen else 'transparent'}"
        return panels.photo_panel(self.image, self.boxes, chosen, self.at_hand(), overlay, margin=margin)

    def take(self, content: bytes | memoryview, name: str = "the upload") -> None:
        """Find the faces in a picture and show it; after an error the previous picture remains."""
        with self._complaining():
            self._show(open_upload(content, name))

    def _show(self, image: Image.Image | None) -> None:
        """Show a picture, and a button with the picture of each face; None forgets what was there."""
        # Numbered from left to right, not by size.
        found = sorted(find_faces(image), key=lambda face: face.left) if image else []
        crops = [crop_face(image, box, 64) for box in found] if image else []
        looks, buttons = "", []
        for i, crop in enumerate(crops):
            name, url = f"fer-lab-{id(self)}-{i}", data_url(encode(to_picture(crop)))
            look = f"height:64px;font-size:0;background:url({url}) center/cover!important"
            looks += f".jupyter-button.{name}{{{look}}}"
            buttons.append(button(f"face {i + 1}", partial(setattr, self.which, "value", i + 1), "64px"))
            buttons[i].add_class(name)
        with self.at_once():
            self.image, self.boxes, self.thumbnails.children = image, found, buttons
            self._looks.value = f"<style>{looks}</style>"
            self.which.max = max(1, len(found))
            self.which.value = 1
        if image and not (found or self.note.value):  # a model that failed says more
            self._complain(
                "No face was found, so the middle square is taken as one face. The search misses faces in "
                "profile, faces tilted by more than 40°, and small ones."
            )


class Pick:
    """One of two faces: rendered, or cut out of an upload (`image`, uint8 [3,S,S]). `page`: all controls."""

    def __init__(self, pair: "PairExplorer", title: str, person: int):
        self.person = slider(0, PEOPLE - 1, 1, f"{title} person", value=person)
        self.expression = choice(list(PROTOTYPES), f"{title} expression", "surprise")
        self.upload = upload(f"{title} from a file", partial(pair.take, self))
        self.image: torch.Tensor | None = None

        def rendered(_change: Any = None) -> None:
            self.image = None
            pair.update()

        self.person.observe(rendered, "value")
        self.expression.observe(rendered, "value")
        self.forget = button("Forget it", rendered)
        self.page = [self.person, self.expression, rows([self.upload, self.forget])]

    @property
    def name(self) -> str:
        """Whose face it is, in words."""
        return f"person {self.person.value}, {self.expression.value}" if self.image is None else "from a file"

    def face(self) -> torch.Tensor:
        """uint8 [3,S,S]."""
        if self.image is not None:
            return self.image
        state = FaceState(**_prototype(self.expression.value), person=self.person.value)
        return panels.draw_face(state).images[0]


class PairExplorer(Explorer):
    """Two faces, and the places in them that a QCS matches.

    Attributes:
        first, second: the faces' controls.
        model, scale, count: the model that matches, at which of its scales, and the number of lines.
    """

    def __init__(self, models: Mapping[str, Method] | None = None):
        super().__init__(models, ticked=lambda name: name.startswith("synthetic/"), wide=SHOWN - 10)
        self.picture.layout.height, self.text.layout.height = "222px", "90px"
        self.first, self.second = Pick(self, "first", 3), Pick(self, "second", 5)
        self.model = choice(self._matchers(), "matched by")
        self.scale = choice(dict(enumerate(panels.SCALES)), "scale", 2)
        self.count = slider(1, 49, 1, "lines", value=12)
        self.watch(self.model, self.scale, self.count)
        told = words(f"{PRIVACY} {LARGEST}")
        faces = [*self.first.page, *self.second.page, told, self.model, self.scale, self.count]
        self.arrange([self.text, rows([self.save])], {"Faces": faces, "Models": self.page_of_models()[1:]})

    def _matchers(self) -> list[str]:
        return [name for name, model in self.models.items() if panels.can_match(model)]

    def admit(self, name: str, model: Method) -> None:
        if not panels.can_match(model):
            raise ValueError(f"{name} is a {model.name}, which does not match faces; use a qcs")
        with self.at_once():
            super().admit(name, model)
            self.model.options = self._matchers()
            self.model.value = name

    def view(self) -> View:
        faces = self.first.face(), self.second.face()
        name = self.model.value
        if name is None:
            return replace(panels.pair_panel(faces, "", None), text=NO_MATCHER)
        view = panels.pair_panel(faces, name, self.models[name], scale=self.scale.value, count=self.count.value)
        return replace(view, text=f"{view.text}<br>{self.first.name} · {self.second.name}")

    def take(self, pick: Pick, content: bytes | memoryview, name: str = "the upload") -> None:
        """Use the largest face of a picture, or without any its middle square, instead of a rendered face."""
        with self._complaining():
            image = open_upload(content, name)
            boxes = find_faces(image, largest_first=1)
            kind = (self.model.value or "").partition("/")[0]
            pick.image = crop_face(image, boxes[0] if boxes else None, trained_on=kind)
            self.update()
