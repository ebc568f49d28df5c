"""The explorers' frame: which models there are, one drawing for many changes, complaints in a sentence."""

import html
import shutil

import pytest
import torch

from fer_lab.explorer.controls import ERROR, Explorer, available_models, choice, slider
from fer_lab.explorer.panels import View
from fer_lab.models import create_model
from fer_lab.models.weights import save_model, shipped_models, shipped_weights

NASTY = "<img src=x onerror=alert(1)>"


class Counter(Explorer):
    """Shows how often it was drawn; `fault` is raised instead if there is one."""

    fault: BaseException | None = None
    drawn = 0

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.arrange([self.text], {"All": self.page_of_models()})

    def view(self):
        if self.fault is not None:
            raise self.fault
        self.drawn += 1
        return View(b"png", said(self.drawn, len(self.at_hand())), {}, "table", "legend")


def said(drawing: int, models: int) -> str:
    return f"drawing {drawing}, {models} models"


@pytest.fixture
def explorer():
    torch.manual_seed(0)
    models = {f"{kind}/baseline": create_model("baseline").eval() for kind in ("synthetic", "ferplus")}
    return Counter(models, lambda name: name.startswith("synthetic/"))


def test_every_model_that_ships_is_there_and_a_run_stands_first(tmp_path):
    torch.manual_seed(0)
    own = create_model("baseline")
    save_model(own, tmp_path / "weights.safetensors")
    models = available_models(tmp_path)
    shipped = [f"{kind}/{name}" for kind in ("synthetic", "ferplus") for name in shipped_models(kind)]
    assert {"synthetic/baseline", "synthetic/dan"} <= set(shipped)
    assert list(models) == [tmp_path.name, *shipped]
    assert not any(model.training for model in models.values())
    assert all(
        torch.equal(a, b) for a, b in zip(models[tmp_path.name].parameters(), own.parameters(), strict=True)
    )
    assert list(available_models()) == shipped


def test_a_run_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        available_models(tmp_path / "nothing")


def test_ticked_models_answer_and_boxes_are_heard(explorer):
    assert list(explorer.at_hand()) == ["synthetic/baseline"]
    assert said(1, 1) in explorer.text.value
    explorer.chosen["ferplus/baseline"].value = True
    assert said(2, 2) in explorer.text.value
    explorer.chosen["synthetic/baseline"].value = False
    assert list(explorer.at_hand()) == ["ferplus/baseline"]


def test_models_at_hand_are_fused_once_and_answer_alike(explorer):
    own, quick = explorer.models["synthetic/baseline"], explorer.at_hand()["synthetic/baseline"]
    norms = [sum(isinstance(m, torch.nn.BatchNorm2d) for m in model.modules()) for model in (own, quick)]
    assert norms[0] > norms[1] == 0
    faces = torch.rand(2, 3, 56, 56)
    torch.testing.assert_close(quick(faces), own(faces), atol=1e-4, rtol=1e-4)
    assert explorer.at_hand()["synthetic/baseline"] is quick


def test_many_changes_are_drawn_once(explorer):
    knob, before = slider(0, 9, 1, "knob"), explorer.drawn
    explorer.watch(knob)
    with explorer.at_once():
        for value in (1, 2, 3):
            knob.value = value
        with explorer.at_once():
            knob.value = 4
    assert explorer.drawn == before + 1
    knob.value = 5
    assert explorer.drawn == before + 2


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (ValueError(f"no {NASTY}\nhere"), f"no {html.escape(NASTY)} here"),
        (FileNotFoundError("gone"), "gone"),
        (TypeError("odd"), "That failed inside: TypeError: odd"),
        (ValueError("x" * 900), f"{'x' * 300} … {'x' * 300}"),
    ],
)
def test_what_goes_wrong_is_one_escaped_sentence(explorer, fault, sentence, capsys):
    explorer.fault = fault
    explorer.update()
    assert explorer.note.value == f"{ERROR}{sentence}</span>"
    assert said(1, 1) in explorer.text.value  # what was there stays
    explorer.fault = None
    explorer.update()
    assert explorer.note.value == ""
    assert capsys.readouterr() == ("", "")


def test_a_developer_sees_the_traceback(explorer, monkeypatch):
    explorer.fault = TypeError("odd")
    monkeypatch.setenv("FER_LAB_DEBUG", "1")
    with pytest.raises(TypeError, match="odd"):
        explorer.update()


def test_what_is_seen_has_words_and_nothing_is_no_broken_picture(explorer):
    assert 'alt="drawing 1, 1 models"' in explorer.picture.value
    assert explorer.table.value == "table"
    assert "legend" in explorer.text.value
    explorer.view = lambda: View(b"", "nothing", {})
    explorer.update()
    assert (explorer.picture.value, explorer.table.value) == ("", "")


def test_what_is_shown_keeps_its_size_and_the_pages_are_named(explorer):
    shown, pages = explorer.children
    sizes = [one.layout.height for one in (explorer.picture, explorer.text, explorer.table)]
    assert all(size.endswith("px") for size in sizes)
    assert (pages.titles, [page.layout.height for page in pages.children]) == (("All",), ["538px"])
    widths = [int(one.layout.width.removesuffix("px")) for one in (shown, pages)]
    assert sum(widths) + 8 <= 934  # JupyterLab's room for outputs on a screen of 1366×768


def test_a_run_of_ones_own_is_opened_and_answers(explorer, tmp_path):
    folder = tmp_path / "<b>mine"
    folder.mkdir()
    shutil.copy(shipped_weights("baseline", "synthetic"), folder / "weights.safetensors")
    explorer.run.value = f"  {folder} "
    explorer.open_run.click()
    assert explorer.note.value == ""
    assert list(explorer.at_hand()) == ["synthetic/baseline", "<b>mine"]
    assert explorer.shelf.children[-1].description == "<b>mine"
    assert not explorer.shelf.children[-1].description_allow_html
    assert said(2, 2) in explorer.text.value


@pytest.mark.parametrize("name", ["", "   ", f"runs/{NASTY}", "/dev/null", "\0"])
def test_a_run_that_cannot_be_opened_is_a_sentence(explorer, name):
    explorer.run.value = name
    explorer.open_run.click()
    assert explorer.note.value.startswith(ERROR)
    assert "<img" not in explorer.note.value
    assert "failed inside" not in explorer.note.value
    assert len(explorer.models) == 2


def test_controls_speak_when_let_go():
    knob = slider(0.0, 1.0, 0.05, "knob", "a tip", 0.5)
    assert (knob.continuous_update, knob.value, knob.max, knob.tooltip) == (False, 0.5, 1.0, "a tip")
    assert (knob.readout_format, slider(-1.0, 1.0, 0.5, "zero").value) == (".2f", 0.0)
    whole = slider(0, 5, 1, "whole", value=2)
    assert (whole.value, whole.readout_format, whole.tooltip) == (2, "d", "whole")
    listed = choice({"a": "first", "b": "second"}, "which", "b")
    assert (listed.value, listed.options) == ("b", (("first", "a"), ("second", "b")))
    assert choice(["x", "y"], "which").value == "x"
