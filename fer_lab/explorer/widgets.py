"""The three explorers (a rendered face, a photograph, two faces that are matched), and how quick they are.

panels.py makes what they show, controls.py what they share. Uploaded files stay in the kernel's memory and are
written nowhere.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ipywidgets as widgets
import pandas as pd
import torch
from PIL import Image

from fer_lab.data.photographs import FaceBox, crop_face, find_faces, open_upload
from fer_lab.data.synthetic import GLASSES, NUMBERS, PROTOTYPES, UNITS
from fer_lab.explorer import panels
from fer_lab.explorer.controls import Explorer, choice, rows, slider, upload
from fer_lab.explorer.panels import FaceState, View
from fer_lab.models.method import Method

PEOPLE = 200
NO_MATCHER = (
    "None of the models can match the places of two faces; that takes a QCS with its cross branch. "
    "Train one (<code>fer-lab train qcs --out runs/qcs</code>) and open <code>runs/qcs</code> below."
)


def _side(expression: str) -> str:
    """Where the units of an expression's prototype act: contempt is one-sided."""
    return "left" if expression == "contempt" else "both"


class FaceExplorer(Explorer):
    """Sliders for action units and identity, and each model's answer to the face that they make.

    Attributes:
        units: FACS number → slider 0…1.
        side, person, skin_tone, age, glasses, roll, yaw, blur, cover, overlay: the other controls.
        presets: expression → button that sets the units to its prototype.
    """

    def __init__(self, models: Mapping[str, Method] | None = None, state: FaceState | None = None):
        super().__init__(models, ticked=lambda name: name.startswith("synthetic/"))
        state = state or FaceState(PROTOTYPES["happiness"])
        self.units = {
            unit.number: slider(
                0.0, 1.0, 0.05, state.units.get(unit.number, 0.0),
                f"AU{unit.number} {unit.name.replace('_', ' ')}", unit.description,
            )
            for unit in UNITS
        }  # fmt: skip
        self.side = choice(panels.SIDES, "muscles act on", state.side)
        who = panels.person_of(state)
        self.person = slider(0, PEOPLE - 1, 1, state.person, "person")
        self.skin_tone = slider(0.0, 1.0, 0.05, float(who.skin_tone), "skin, light to dark")
        self.age = slider(0.0, 1.0, 0.05, float(who.age), "age marks")
        self.glasses = choice(GLASSES, "glasses", GLASSES[int(who.glasses)])
        self.roll = slider(-45.0, 45.0, 5.0, state.roll, "head tilt, degrees")
        self.yaw = slider(-30.0, 30.0, 5.0, state.yaw, "head turn, degrees")
        self.blur = slider(0.0, 5.0, 0.25, state.blur, "blur, % of the side")
        self.cover = choice(list(panels.COVERS), "covered", state.cover)
        self.overlay = choice({**panels.MAPS, **panels.TRUTHS}, "laid over", "native")
        self.presets = {name: widgets.Button(description=name, layout={"width": "7em"}) for name in PROTOTYPES}
        for name, button in self.presets.items():
            button.on_click(lambda _button, name=name: self.show_expression(name))
        traits = [self.skin_tone, self.age, self.glasses]
        how = [self.side, self.roll, self.yaw, self.blur, self.cover]
        self.person.observe(self._meet, "value")
        self.watch(*self.units.values(), *traits, *how, self.overlay)
        self.children = [
            rows(list(self.presets.values())),
            self.picture,
            self.text,
            self.note,
            rows([self.overlay]),
            widgets.HTML("<b>Which muscles act</b>"),
            rows([*self.units.values(), self.side]),
            widgets.HTML("<b>Who it is, and how the picture was taken</b>"),
            rows([self.person, *traits, *how[1:]]),
            *self._foot(),
        ]
        self.update()

    @property
    def state(self) -> FaceState:
        """The face that the controls describe."""
        names = [one.name for one in dataclasses.fields(FaceState) if one.name != "units"]
        units = {number: control.value for number, control in self.units.items()}
        return FaceState(units, **{name: getattr(self, name).value for name in names})

    def view(self) -> View:
        return panels.face_panel(self.state, self.at_hand(), self.overlay.value)

    def show_expression(self, name: str) -> None:
        """Set the units and the side to an expression's prototype."""
        with self.at_once():
            for number in NUMBERS:
                self.units[number].value = PROTOTYPES[name].get(number, 0.0)
            self.side.value = _side(name)

    def _meet(self, _change: Any) -> None:
        """Set skin, age and glasses to those of the new person."""
        who = panels.person_of(FaceState(person=self.person.value))
        with self.at_once():
            self.skin_tone.value, self.age.value = float(who.skin_tone), float(who.age)
            self.glasses.value = GLASSES[int(who.glasses)]


class PhotoExplorer(Explorer):
    """An uploaded picture: the faces in it, and each model's answer to one of them.

    Attributes:
        upload, forget: buttons that take a file and drop it again.
        which, overlay: number of the face to classify, from 1, and the map that is drawn over it.
        margin: room around the square that fits each model.
        image, boxes: the picture, and the faces found in it.
    """

    def __init__(self, models: Mapping[str, Method] | None = None, content: bytes | None = None):
        """Args: content: the bytes of a first picture's file."""
        # One method twice: trained on rendered faces, and on photographs.
        super().__init__(models, ticked=lambda name: name.endswith("/dan"))
        self.upload = upload("Upload a picture", self.take)
        self.forget = widgets.Button(description="Forget it")
        self.which = widgets.BoundedIntText(1, min=1, max=1, description="face", layout={"width": "11em"})
        self.margin = slider(-0.2, 0.4, 0.05, panels.MARGIN, "room around the face")
        self.overlay = choice(panels.MAPS, "laid over", "native")
        self.image: Image.Image | None = None
        self.boxes: list[FaceBox] = []
        self.forget.on_click(lambda _button: self._drop())
        self.watch(self.which, self.margin, self.overlay)
        self.children = [
            rows([self.upload, self.forget, self.which]),
            self.note,
            self.picture,
            self.text,
            rows([self.overlay, self.margin]),
            *self._foot(),
        ]
        self._drop()
        if content is not None:
            self.take(content)

    def view(self) -> View:
        if self.image is None:
            return View(b"", "No picture yet. PNG, JPEG, WebP, GIF or BMP, at most 8 MB.", {})
        chosen, overlay, margin = self.which.value - 1, self.overlay.value, self.margin.value
        return panels.photo_panel(self.image, self.boxes, chosen, self.at_hand(), overlay, margin=margin)

    def take(self, content: bytes | memoryview, name: str = "the upload") -> None:
        """Find the faces in a picture and show it; after an error the previous picture remains."""
        with self._complaining():
            image = open_upload(content, name)
            # Numbered from left to right, not by size.
            self.image, self.boxes = image, sorted(find_faces(image), key=lambda face: face.left)
            with self.at_once():
                self.which.max = max(1, len(self.boxes))
                self.which.value = 1
            if not (self.boxes or self.note.value):  # a model that failed says more
                self._complain(
                    "No face was found, so the middle square is taken as one face. The search misses faces in "
                    "profile, faces tilted by more than 40°, and small ones."
                )

    def _drop(self) -> None:
        self.image, self.boxes = None, []
        self.update()


class Pick:
    """One of the two faces: rendered from a person and an expression, or cut out of an upload.

    `image`: the uploaded face, uint8 [3,S,S]; None for the rendered one. `row`: all controls.
    """

    def __init__(
        self,
        title: str,
        person: int,
        expression: str,
        on_change: Callable[[], None],
        on_file: Callable[["Pick", memoryview, str], None],
    ):
        self.person = slider(0, PEOPLE - 1, 1, person, f"{title} person", label=8)
        self.expression = choice(list(PROTOTYPES), "expression", expression, label=6)
        self.upload = upload(f"{title} from a file", lambda content, name: on_file(self, content, name))
        self.image: torch.Tensor | None = None
        self.row = rows([self.person, self.expression, self.upload])

        def rendered(_change: Any) -> None:
            self.image = None
            on_change()

        self.person.observe(rendered, "value")
        self.expression.observe(rendered, "value")

    def face(self) -> torch.Tensor:
        """uint8 [3,S,S]."""
        if self.image is not None:
            return self.image
        name = self.expression.value
        return panels.draw_face(FaceState(PROTOTYPES[name], _side(name), self.person.value)).images[0]


class PairExplorer(Explorer):
    """Two faces, and the places in them that a QCS matches.

    Attributes:
        first, second: the faces' controls.
        model, scale, count: the model that matches, at which of its scales, and the number of lines.
    """

    def __init__(self, models: Mapping[str, Method] | None = None):
        super().__init__(models, ticked=lambda name: name.startswith("synthetic/"))
        self.first = Pick("first", 3, "surprise", self.update, self.take)
        self.second = Pick("second", 5, "surprise", self.update, self.take)
        self.model = choice(self._matchers(), "matched by")
        self.scale = choice(dict(enumerate(panels.SCALES)), "scale", 2)
        self.count = slider(1, 49, 1, 12, "lines")
        self.watch(self.model, self.scale, self.count)
        self.children = [
            self.picture,
            self.text,
            self.note,
            self.first.row,
            self.second.row,
            rows([self.model, self.scale, self.count]),
            rows([self.run, self.open_run]),
        ]
        self.update()

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
            return View(panels.pair_panel(faces, "", None).png, NO_MATCHER, {})
        return panels.pair_panel(faces, name, self.models[name], scale=self.scale.value, count=self.count.value)

    def take(self, pick: Pick, content: bytes | memoryview, name: str = "the upload") -> None:
        """Use the largest face of a picture, or without any its middle square, instead of a rendered face."""
        with self._complaining():
            image = open_upload(content, name)
            boxes = find_faces(image, largest_first=1)
            kind = (self.model.value or "").partition("/")[0]
            pick.image = crop_face(image, boxes[0] if boxes else None, trained_on=kind)
            self.update()


def latency(explorer: FaceExplorer, *, overlays: Sequence[str] | None = None, moves: int = 15) -> pd.DataFrame:
    """Milliseconds in the kernel from a slider's move to a new picture and text; the browser adds its part.

    A row an overlay of `MAPS` and `TRUTHS`, all if None: overlay, models (how many answer), median_ms,
    slowest_ms. The lip corner puller is moved `moves` times, after one that is not counted, and put back.
    """
    mouth, before = explorer.units[12], (explorer.units[12].value, explorer.overlay.value)
    table: list[tuple[str, int, float, float]] = []
    try:
        for overlay in overlays or (*panels.MAPS, *panels.TRUTHS):
            with explorer.at_once():
                explorer.overlay.value, mouth.value = overlay, 0.0
            durations = []
            for i in range(moves):
                start = time.perf_counter()
                mouth.value = 1.0 if i % 2 == 0 else 0.05 * (1 + i % 19)
                durations.append(1000 * (time.perf_counter() - start))
            table.append((overlay, len(explorer.at_hand()), statistics.median(durations), max(durations)))
    finally:
        with explorer.at_once():
            mouth.value, explorer.overlay.value = before
    return pd.DataFrame(table, columns=["overlay", "models", "median_ms", "slowest_ms"])
