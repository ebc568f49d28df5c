"""Parts of the explorer's widgets: uniform controls, and the base class of the three explorers.

A callback makes HTML and passes it to `widgets.HTML`, because `widgets.Image` has no alternative text. Nothing
prints, and no exception leaves a callback: an error becomes a sentence below the answers. ipywidgets gives
sliders no name that a screen reader could say, and has nothing to drop or paste a file into.
"""

import html
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ipywidgets as widgets

from fer_lab.explorer.cards import data_url
from fer_lab.explorer.panels import View
from fer_lab.models.inference import fuse
from fer_lab.models.method import Method
from fer_lab.models.weights import LIMITS, SHIPPED, one_line, shipped_models
from fer_lab.runs.run import open_model

# Both columns, and their height, fit a page of JupyterLab on a screen of 1366×768. Sizes are in pixels.
SHOWN, CONTROLS, PAGE = 535, 385, 538
FRAME = 280  # height of the picture
LABEL = 170  # room for "AU15 lip corner depressor"
ERROR = '<span role="alert" style="color:var(--jp-error-color1,#a40000);line-height:1.3">⚠ '
# The button for a file writes "(0)" behind its name. With this it is a line of its own, which is hidden.
UPLOAD = ".fer-lab-upload{white-space:pre-line!important}"
STYLE = f"<style>{UPLOAD}.fer-lab .lm-TabBar-tab{{color:var(--jp-ui-font-color1)!important}}</style>"
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
    low: float, high: float, step: float, name: str, tip: str = "", value: float = 0
) -> widgets.FloatSlider:
    """A slider that reports its value on release; of whole numbers if `step` is an int."""
    kind = widgets.IntSlider if isinstance(step, int) else widgets.FloatSlider
    look = {**_row(LABEL), "tooltip": tip or name, "continuous_update": False}
    return kind(value, min=low, max=high, step=step, description=name, **look)


def choice(options: Mapping | Sequence, name: str, value: Any = None, label: int = LABEL) -> widgets.Dropdown:
    """A list to choose from: value → text, or values that are their own texts."""
    pairs = [(text, key) for key, text in options.items()] if isinstance(options, Mapping) else list(options)
    chosen = {} if value is None else {"value": value}
    return widgets.Dropdown(options=pairs, description=name, **_row(label), **chosen)


def _row(label: int) -> dict:
    """The look of a control as wide as its column, with so many pixels for its name."""
    look = {"width": "98%", "margin": "0 2px", "flex": "none"}
    return {"style": {"description_width": f"{label}px"}, "layout": look}


def button(name: str, on_click: Callable[[], Any], width: str = "auto", tip: str = "") -> widgets.Button:
    """A button that calls a function without arguments."""
    look = {"width": width, "margin": "1px", "padding": "0 8px" if width == "auto" else "0"}
    made = widgets.Button(description=name, tooltip=tip or name, layout=look)
    made.on_click(lambda _button: on_click())
    return made


def upload(name: str, on_file: Callable[[memoryview, str], None]) -> widgets.FileUpload:
    """A button for one picture; `on_file` gets the content and the name, shortened for messages."""
    look = {"width": "auto", "margin": "1px", "padding": "0 8px"}
    button = widgets.FileUpload(accept=ACCEPTED, description=f"{name}\n", layout=look)
    button.add_class("fer-lab-upload")

    def received(change: Any) -> None:
        for file in change.new:
            button.value = ()  # so that the same file can come again
            short = file["name"] if len(file["name"]) <= 60 else file["name"][:59] + "…"
            on_file(file["content"], short)

    button.observe(received, "value")
    return button


def rows(children: Sequence[widgets.Widget]) -> widgets.Box:
    """Widgets side by side, wrapped into rows."""
    return widgets.Box(children, layout={"flex_flow": "row wrap", "align_items": "flex-start", "flex": "none"})


def words(text: str) -> widgets.HTML:
    """HTML in lines that are close to each other."""
    return widgets.HTML(f'<div style="line-height:1.35">{text}</div>')


class Explorer(widgets.Box):
    """What the three explorers share: two columns of fixed size, what is shown and the controls on pages.

    Attributes:
        models, chosen: name → model, with the runs that the reader opened, and name → the box that shows it.
        picture, text, table: HTML of what is shown; `last` is the view of it, None before the first.
        note: the error of the reader's last action, in one sentence, or empty.
        run, open_run: a field for the folder of the reader's own run, and its button.
        save: a button that offers the picture as a file.
    """

    def __init__(self, models: Mapping[str, Method] | None, ticked: Callable[[str], bool], wide: int = FRAME):
        """Args: ticked: which bundled models answer at first; the reader's own runs always do. wide: pixels."""
        self.models = dict(available_models() if models is None else models)
        self._quick: dict[str, Method] = {}
        size = {"width": f"{wide}px", "height": f"{FRAME}px", "margin": "0 8px 0 0"}
        self.picture = widgets.HTML(layout=size)
        self.text = widgets.HTML(layout={"height": "180px", "margin": "2px", "overflow": "hidden auto"})
        self.table = widgets.HTML(layout={"height": "286px", "margin": "4px 0 0 0", "overflow": "auto"})
        self.note = widgets.HTML(layout={"min_height": "24px", "margin": "0"})
        self.chosen: dict[str, widgets.Checkbox] = {}
        self.shelf = widgets.VBox([], layout={"flex": "none"})
        self.run = widgets.Text(placeholder="folder of a run of your own", layout={"width": "70%"})
        self.open_run = button("Open", self._open_run, "25%")
        self.save = button("Save picture", self._offer)
        self.last: View | None = None
        self._held = True  # until there is all
        self._shelve([name for name in self.models if ticked(name) or name.partition("/")[0] not in SHIPPED])
        super().__init__(layout={"flex_flow": "row wrap", "align_items": "flex-start"})

    def arrange(self, beside: Sequence[widgets.Widget], pages: Mapping[str, Sequence[widgets.Widget]]) -> None:
        """Two columns: the picture, what stands `beside` it and the answers; the controls on named pages."""
        top = rows([self.picture, widgets.VBox(beside, layout={"flex": "1 1 180px", "width": "auto"})])
        shown = [top, self.table, self.note, widgets.HTML(STYLE, layout={"display": "none"})]
        high = {"height": f"{PAGE}px", "overflow": "hidden auto"}
        tab = widgets.Tab([widgets.VBox(page, layout=high) for page in pages.values()], titles=tuple(pages))
        tab.add_class("fer-lab").layout = {"width": f"{CONTROLS}px", "margin": "0 0 0 8px"}
        self.children = [widgets.VBox(shown, layout={"width": f"{SHOWN}px"}), tab]
        self._held = False
        self.update()

    def view(self) -> View:
        """What to show for the present values of the controls; ValueError if they cannot be drawn."""
        raise NotImplementedError

    def at_hand(self) -> dict[str, Method]:
        """The models whose boxes are ticked, in the form for inference: the same answers in less time."""
        names = [name for name, box in self.chosen.items() if box.value]
        self._quick |= {name: fuse(self.models[name]) for name in names if name not in self._quick}
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
            self.last = view = self.view()
            self.picture.value, self.table.value = view.picture, view.table
            self.text.value = f'<div style="line-height:1.3">{view.text}<br>{view.legend}</div>'

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
        self.note.value = f"{ERROR}{html.escape(one_line(message))}</span>"

    def _offer(self) -> None:
        """A link to the picture, which the browser keeps as a file; the kernel writes none."""
        with self._complaining():
            if self.last is None or not self.last.png:
                raise ValueError("There is no picture yet.")
            link = f'<a download="fer_lab.png" href="{data_url(self.last.png)}">Save as fer_lab.png</a>'
            self.note.value = link

    def _shelve(self, ticked: Sequence[str]) -> None:
        for name in self.models:
            if name not in self.chosen:
                tight = {"width": "auto", "margin": "0 2px"}
                box = widgets.Checkbox(name in ticked, description=name, indent=False, layout=tight)
                self.watch(box)
                self.chosen[name] = box
        self.shelf.children = tuple(self.chosen.values())

    def _open_run(self) -> None:
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

    def page_of_models(self) -> list[widgets.Widget]:
        """Which models answer, what they learned from, and a field for the reader's own."""
        kinds = sorted({name.partition("/")[0] for name in self.models} & set(SHIPPED), reverse=True)
        limits = "<br>".join(f"<b>{kind}</b>: {LIMITS.get(kind, LIMITS[''])}" for kind in kinds)
        return [self.shelf, words(limits), rows([self.run, self.open_run])]
