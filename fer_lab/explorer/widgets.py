"""The explorer: a face of one's own making, a photograph, two faces that are matched; `latency` times it.

What is shown is made in panels.py, the frame around it in controls.py. Uploaded files stay in the kernel's
memory and are written nowhere.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import ipywidgets as widgets
import pandas as pd
import torch

from fer_lab.data.photographs import crop_face, find_faces, open_upload
from fer_lab.data.synthetic import GLASSES, NUMBERS, PROTOTYPES, UNITS
from fer_lab.explorer.controls import Explorer, available_models, choice, heading, rows, slider
from fer_lab.explorer.panels import (
    COVERS,
    MAPS,
    MARGIN,
    SCALES,
    SIDES,
    TRUTHS,
    FaceState,
    View,
    can_match,
    draw_face,
    face_panel,
    pair_panel,
    person_of,
    photo_panel,
)
from fer_lab.models.method import Method

__all__ = ["FaceExplorer", "PairExplorer", "PhotoExplorer", "available_models", "latency"]

PEOPLE = 200
NO_MATCHER = (
    "No model at hand knows which places of two faces belong together; that takes a QCS with its cross branch. "
    "Train one (<code>fer-lab train qcs --out runs/qcs</code>) and open <code>runs/qcs</code> below."
)
ACCEPTED = ".png,.jpg,.jpeg,.webp,.gif,.bmp"


class FaceExplorer(Explorer):
    """Sliders for action units and identity, and what each model says of the face that they make.

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
        self.side = choice(SIDES, "muscles act on", state.side)
        who = person_of(state)
        self.person = slider(0, PEOPLE - 1, 1, state.person, "person")
        self.skin_tone = slider(0.0, 1.0, 0.05, float(who.skin_tone), "skin, light to dark")
        self.age = slider(0.0, 1.0, 0.05, float(who.age), "age marks")
        self.glasses = choice(GLASSES, "glasses", GLASSES[int(who.glasses)])
        self.roll = slider(-45.0, 45.0, 5.0, state.roll, "head tilt, degrees")
        self.yaw = slider(-30.0, 30.0, 5.0, state.yaw, "head turn, degrees")
        self.blur = slider(0.0, 5.0, 0.25, state.blur, "blur, % of the side")
        self.cover = choice(list(COVERS), "covered", state.cover)
        self.overlay = choice({**MAPS, **TRUTHS}, "laid over", "native")
        self.presets = {name: widgets.Button(description=name, layout={"width": "7em"}) for name in PROTOTYPES}
        for name, button in self.presets.items():
            button.on_click(lambda _button, name=name: self.show_expression(name))
        who = [self.skin_tone, self.age, self.glasses]
        how = [self.side, self.roll, self.yaw, self.blur, self.cover]
        self.person.observe(self._meet, "value")
        self.watch(*self.units.values(), *who, *how, self.overlay)
        self.children = [
            rows(list(self.presets.values())),
            self.picture,
            self.text,
            self.note,
            rows([self.overlay]),
            heading("Which muscles act"),
            rows([*self.units.values(), self.side]),
            heading("Who it is, and how the picture was taken"),
            rows([self.person, *who, *how[1:]]),
            *self._foot(),
        ]
        self.update()

    @property
    def state(self) -> FaceState:
        """What the sliders say."""
        return FaceState(
            units={number: slider.value for number, slider in self.units.items()},
            side=self.side.value,
            person=self.person.value,
            skin_tone=self.skin_tone.value,
            age=self.age.value,
            glasses=self.glasses.value,
            roll=self.roll.value,
            yaw=self.yaw.value,
            cover=self.cover.value,
            blur=self.blur.value,
        )

    def view(self) -> View:
        return face_panel(self.state, self.at_hand(), self.overlay.value)

    def show_expression(self, name: str) -> None:
        """Set the units to an expression's prototype; contempt is one-sided."""
        with self.at_once():
            for number in NUMBERS:
                self.units[number].value = PROTOTYPES[name].get(number, 0.0)
            self.side.value = "left" if name == "contempt" else "both"

    def _meet(self, _change) -> None:
        """Somebody else comes with a skin, an age and glasses of their own."""
        who = person_of(FaceState(person=self.person.value))
        with self.at_once():
            self.skin_tone.value, self.age.value = float(who.skin_tone), float(who.age)
            self.glasses.value = GLASSES[int(who.glasses)]


def _upload(name: str) -> widgets.FileUpload:
    return widgets.FileUpload(accept=ACCEPTED, multiple=False, description=name, layout={"width": "16em"})


class PhotoExplorer(Explorer):
    """A picture by upload: the faces in it, and what each model says of one of them.

    Attributes:
        upload: where the file comes in; forget: drops it again.
        which: number of the face that is judged, from 1.
        margin: room around its frame.
        overlay: the map that is drawn.
        image, boxes: the picture, and the faces found in it.
    """

    def __init__(self, models: Mapping[str, Method] | None = None, content: bytes | None = None):
        """Args: content: a picture to begin with, as its file's bytes."""
        # One method twice: learned from drawings, and from photographs.
        super().__init__(models, ticked=lambda name: name.endswith("/dan"))
        self.upload = _upload("Upload a picture")
        self.forget = widgets.Button(description="Forget it")
        self.which = widgets.BoundedIntText(1, min=1, max=1, description="face", layout={"width": "11em"})
        self.margin = slider(0.0, 0.6, 0.05, MARGIN, "room around the frame")
        self.overlay = choice(MAPS, "laid over", "native")
        self.image, self.boxes = None, []
        self.upload.observe(self._received, "value")
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
        chosen, margin = self.which.value - 1, self.margin.value
        return photo_panel(self.image, self.boxes, chosen, self.at_hand(), self.overlay.value, margin=margin)

    def take(self, content: bytes | memoryview, name: str = "the upload") -> None:
        """Look for faces in a picture and show it; what cannot be taken leaves the one before."""
        with self._complaining():
            image = open_upload(content, name)
            # Numbered as one reads them, not by size.
            self.image, self.boxes = image, sorted(find_faces(image), key=lambda face: face.left)
            with self.at_once():
                self.which.max = max(1, len(self.boxes))
                self.which.value = 1
            if not self.boxes:
                self._complain(
                    "No upright frontal face was found, so the middle square is taken as one face. The search "
                    "misses faces that are turned, tilted or small."
                )

    def _received(self, change) -> None:
        for file in change.new:
            self.take(file["content"], _short(file["name"]))
            self.upload.value = ()

    def _drop(self) -> None:
        self.image, self.boxes = None, []
        self.update()


def _short(name: str) -> str:
    """A file's name as messages call it."""
    return name if len(name) <= 60 else name[:59] + "…"


class Pick:
    """One of the two faces: drawn from a person and an expression, or cut out of an upload.

    Attributes:
        person, expression, upload: its controls; row: all of them.
        image: the face that was uploaded, uint8 [3,S,S]; None as long as the drawn one counts.
    """

    def __init__(
        self,
        title: str,
        person: int,
        expression: str,
        on_change: Callable[[], None],
        on_file: Callable[["Pick", bytes, str], None],
    ):
        self.person = slider(0, PEOPLE - 1, 1, person, f"{title} person", label=8)
        self.expression = choice(list(PROTOTYPES), "expression", expression, label=6)
        self.upload = _upload(f"{title} from a file")
        self.image: torch.Tensor | None = None
        self.row = rows([self.person, self.expression, self.upload])

        def drawn(_change):
            self.image = None
            on_change()

        def received(change):
            for file in change.new:
                on_file(self, file["content"], _short(file["name"]))
                self.upload.value = ()

        self.person.observe(drawn, "value")
        self.expression.observe(drawn, "value")
        self.upload.observe(received, "value")

    def face(self) -> torch.Tensor:
        """uint8 [3,S,S]."""
        if self.image is not None:
            return self.image
        side = "left" if self.expression.value == "contempt" else "both"
        return draw_face(FaceState(PROTOTYPES[self.expression.value], side, self.person.value)).images[0]


class PairExplorer(Explorer):
    """Two faces and the places of them that a QCS matches.

    Attributes:
        first, second: the faces' controls.
        model: which model matches.
        scale, count: at which of its scales, and how many lines.
    """

    def __init__(self, models: Mapping[str, Method] | None = None):
        super().__init__(models, ticked=lambda name: name.startswith("synthetic/"))
        self.first = Pick("first", 3, "surprise", self.update, self.take)
        self.second = Pick("second", 5, "surprise", self.update, self.take)
        self.model = choice(self._matchers(), "matched by")
        self.scale = choice(dict(enumerate(SCALES)), "scale", 2)
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
        return [name for name, model in self.models.items() if can_match(model)]

    def opened(self, name: str) -> None:
        if not can_match(self.models[name]):
            raise ValueError(f"{name} holds a {self.models[name].name}, which does not match faces; a qcs does")
        with self.at_once():
            self.model.options = self._matchers()
            self.model.value = name

    def view(self) -> View:
        faces = self.first.face(), self.second.face()
        name = self.model.value
        if name is None:
            return View(pair_panel(faces, "", None).png, NO_MATCHER, {})
        return pair_panel(faces, name, self.models[name], scale=self.scale.value, count=self.count.value)

    def take(self, pick: Pick, content: bytes | memoryview, name: str = "the upload") -> None:
        """Put the largest face of a picture in place of a drawn one; without any, its middle square."""
        with self._complaining():
            image = open_upload(content, name)
            found = find_faces(image, largest_first=1)
            pick.image = crop_face(image, found[0], margin=MARGIN) if found else crop_face(image)
            self.update()


def latency(explorer: FaceExplorer, *, overlays: Sequence[str] | None = None, moves: int = 15) -> pd.DataFrame:
    """How long a slider takes to become a new picture and text, in the kernel; the browser's part comes on top.

    Args:
        explorer: its lip corner puller is moved, and put back.
        overlays: of `MAPS` and `TRUTHS`; None is all.
        moves: of the slider, a row; one before them is not counted.

    Returns:
        overlay, models (how many answer), median_ms, slowest_ms.
    """
    mouth, before = explorer.units[12], (explorer.units[12].value, explorer.overlay.value)
    table = []
    try:
        for overlay in overlays or (*MAPS, *TRUTHS):
            with explorer.at_once():
                explorer.overlay.value, mouth.value = overlay, 0.0
            took = []
            for i in range(moves):
                start = time.perf_counter()
                mouth.value = 1.0 if i % 2 == 0 else 0.05 * (1 + i % 19)
                took.append(1000 * (time.perf_counter() - start))
            count = len(explorer.at_hand())
            table.append((overlay, count, statistics.median(took), max(took)))
    finally:
        with explorer.at_once():
            mouth.value, explorer.overlay.value = before
    return pd.DataFrame(table, columns=["overlay", "models", "median_ms", "slowest_ms"])
