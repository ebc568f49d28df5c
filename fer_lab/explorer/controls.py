"""Parts of the explorer's widgets: uniform controls, and the base class of the three explorers.

A callback makes one PNG and one text and passes them to `widgets.Image` and `widgets.HTML`. Nothing prints, and
no exception leaves a callback: an error becomes a sentence below the picture.
"""

import html
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ipywidgets as widgets

from fer_lab.explorer.panels import View
from fer_lab.models.inference import fuse
from fer_lab.models.method import Method
from fer_lab.models.weights import LIMITS, SHIPPED, one_line, shipped_models
from fer_lab.runs.run import open_model

AUTO = {"width": "auto", "margin": "2px 1.2em 2px 2px"}
LABEL = 14  # em: room for "AU15 lip corner depressor"
ACCEPTED = ".png,.jpg,.jpeg,.webp,.gif,.bmp,.heic,.heif"


def available_models(run: str | Path = "") -> dict[str, Method]:
    """Every bundled model, by set and name ("synthetic/dan"), and before them the reader's own run.

    `run`: a run's folder, or a file of weights; its name becomes the model's name. "" is none. Raises
    FileNotFoundError if it does not exist, and ValueError if it cannot be read.
    """
    models = dict([_opened(run)] if str(run) else [])
    for kind in sorted(SHIPPED, reverse=True):
        models |= {f"{kind}/{name}": open_model(f"{kind}/{name}") for name in shipped_models(kind)}
    return models


def _opened(run: str | Path) -> tuple[str, Method]:
    """The name of a run's folder or of a file of weights, and its model; errors as `open_model`."""
    path = os.path.expanduser(run)
    return one_line(os.path.basename(os.path.abspath(path))), open_model(path)


def slider(
    low: float, high: float, step: float, value: float, name: str, tip: str = "", *, label: float = LABEL
) -> widgets.FloatSlider:
    """A slider that reports its value on release; of whole numbers if `step` is an int. `label` is in em."""
    kind, shape = widgets.FloatSlider, {"readout_format": ".2f"}
    if isinstance(step, int):
        kind, shape = widgets.IntSlider, {}
    return kind(
        value=value, min=low, max=high, step=step, description=name, tooltip=tip or name,
        continuous_update=False, **_widths(label, 17), **shape,
    )  # fmt: skip


def choice(
    options: Mapping | Sequence, name: str, value: Any = None, *, label: float = LABEL
) -> widgets.Dropdown:
    """A list to choose from: value → text, or values that are their own texts."""
    pairs = [(text, key) for key, text in options.items()] if isinstance(options, Mapping) else list(options)
    chosen = {} if value is None else {"value": value}
    return widgets.Dropdown(options=pairs, description=name, **_widths(label, 17), **chosen)


def _widths(label: float, control: float) -> dict:
    """Widths of a label and of the whole control, in em. Two controls fit side by side in 1280 px."""
    return {"style": {"description_width": f"{label}em"}, "layout": {"width": f"{label + control}em"}}


def upload(name: str, on_file: Callable[[memoryview, str], None]) -> widgets.FileUpload:
    """A button for one picture; `on_file` gets the content and the name, shortened for messages."""
    button = widgets.FileUpload(accept=ACCEPTED, multiple=False, description=name, layout={"width": "16em"})

    def received(change: Any) -> None:
        for file in change.new:
            button.value = ()  # so that the same file can come again
            short = file["name"] if len(file["name"]) <= 60 else file["name"][:59] + "…"
            on_file(file["content"], short)

    button.observe(received, "value")
    return button


def rows(children: Sequence[widgets.Widget]) -> widgets.Box:
    """Widgets side by side, wrapped into rows."""
    return widgets.Box(children, layout={"flex_flow": "row wrap", "align_items": "center"})


class Explorer(widgets.VBox):
    """What the three explorers share: models to choose from, a picture, a text, and a line for errors.

    Attributes:
        models, chosen: name → model, with the runs that the reader opened, and name → the box that shows it.
        picture, text, last: the picture, the same in words, and the view of both; None before the first.
        note: the error of the reader's last action, in one sentence, or empty.
        run, open_run: a field for the folder of the reader's own run, and its button.
    """

    def __init__(self, models: Mapping[str, Method] | None, ticked: Callable[[str], bool]):
        """Args: ticked: which bundled models answer at first; the reader's own runs always do."""
        self.models = dict(available_models() if models is None else models)
        self._quick: dict[str, Method] = {}
        self.picture = widgets.Image(format="png", layout={"max_width": "100%", "object_fit": "contain"})
        self.text, self.note = widgets.HTML(), widgets.HTML()
        self.chosen: dict[str, widgets.Checkbox] = {}
        self.shelf = rows([])
        self.run = widgets.Text(placeholder="folder of a run of your own", layout={"width": "24em"})
        self.open_run = widgets.Button(description="Open")
        self.open_run.on_click(self._open_run)
        self.last: View | None = None
        self._held = False
        shipped = tuple(f"{kind}/" for kind in SHIPPED)
        self._shelve([name for name in self.models if ticked(name) or not name.startswith(shipped)])
        super().__init__()

    def view(self) -> View:
        """What to show for the present values of the controls; ValueError if they cannot be drawn."""
        raise NotImplementedError

    def at_hand(self) -> dict[str, Method]:
        """The models whose boxes are ticked, in the form for inference: the same answers in less time."""
        names = [name for name, box in self.chosen.items() if box.value]
        for name in names:
            if name not in self._quick:
                self._quick[name] = fuse(self.models[name])
        return {name: self._quick[name] for name in names}

    def watch(self, *controls: widgets.Widget) -> None:
        """Redraw when one of these controls changes."""
        for control in controls:
            control.observe(self.update, "value")

    def update(self, _change: Any = None) -> None:
        """Draw `view`."""
        if self._held:
            return
        with self._complaining():
            self.last = self.view()
            self.picture.layout.display = None if self.last.png else "none"  # no broken picture
            self.picture.value, self.text.value = self.last.png, self.last.text

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Change several controls inside, and draw once at the end."""
        held, self._held = self._held, True
        try:
            yield
        finally:
            self._held = held
        self.update()

    @contextmanager
    def _complaining(self) -> Iterator[None]:
        """Turn an exception into a sentence, because nobody would see a callback's traceback."""
        self.note.value = ""
        try:
            yield
        except (ValueError, OSError) as error:
            self._complain(str(error) or type(error).__name__)
        except Exception as error:
            if os.environ.get("FER_LAB_DEBUG") == "1":
                raise
            self._complain(f"That failed inside: {type(error).__name__}: {error}")

    def _complain(self, message: str) -> None:
        self.note.value = f'<span style="color:#a40000">{html.escape(one_line(message))}</span>'

    def _shelve(self, ticked: Sequence[str]) -> None:
        for name in self.models:
            if name not in self.chosen:
                box = widgets.Checkbox(name in ticked, description=name, indent=False, layout=AUTO)
                box.observe(self.update, "value")
                self.chosen[name] = box
        self.shelf.children = tuple(self.chosen.values())

    def _open_run(self, _button: widgets.Button) -> None:
        with self._complaining():
            if not self.run.value.strip():
                raise ValueError("Name the folder of a run, such as runs/mine, before opening it.")
            self.admit(*_opened(self.run.value.strip()))

    def admit(self, name: str, model: Method) -> None:
        """Add the model of the reader's own run; ValueError for one that the explorer has no use for."""
        self.models[name] = model
        self._quick.pop(name, None)
        self._shelve([name])
        self.update()

    def _foot(self) -> list[widgets.Widget]:
        kinds = sorted({name.partition("/")[0] for name in self.models} & set(SHIPPED), reverse=True)
        limits = "<br>".join(f"<b>{kind}</b>: {LIMITS.get(kind, LIMITS[''])}" for kind in kinds)
        small = widgets.HTML(f'<div style="line-height:1.35;opacity:.75">{limits}</div>')
        return [rows([widgets.HTML("<b>Models</b>"), self.shelf]), rows([self.run, self.open_run]), small]
