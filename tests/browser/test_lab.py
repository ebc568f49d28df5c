"""What a reader does: open a notebook, run it, move a slider, upload a file. In a browser, in JupyterLab."""

import io
import json
import re
import statistics
import struct
import time
import zlib
from contextlib import contextmanager

import nbformat
import pytest
from PIL import Image

from fer_lab.data.synthetic import PROTOTYPES
from fer_lab.explorer.panels import FaceState, draw_face

PROMPT = ".jp-InputPrompt"
ERROR = '[data-mime-type="application/vnd.jupyter.error"]'
STDERR = '[data-mime-type="application/vnd.jupyter.stderr"]'
# A slider's key against the picture that it makes, on the browser's own clock.
STOPWATCH = """picture => {
    window.moves = [];
    let pressed = 0;
    document.addEventListener("keydown", () => { pressed = performance.now(); }, true);
    picture.addEventListener("load", () => { window.moves.push(performance.now() - pressed); });
}"""


def open_notebook(page, lab, name):
    """Open a notebook and wait for its kernel."""
    page.goto(f"{lab.url}/lab/tree/{name}?reset")
    page.locator(".jp-NotebookPanel:visible .jp-CodeCell").first.wait_for()
    # Before the page has reached the kernel, running a cell clears it and does no more.
    page.locator("#jp-main-statusbar", has_text="| Idle").wait_for()


def run_cell(page, text):
    """Run the one code cell that has this text, as a reader does; wait for its number and return it."""
    source = page.locator(".jp-InputArea-editor", has_text=text)
    cell = page.locator(".jp-NotebookPanel:visible .jp-CodeCell").filter(has=source)
    before = cell.locator(PROMPT).inner_text()
    cell.locator(".cm-content").click()
    page.keyboard.press("Control+Enter")
    until = time.monotonic() + 120
    while not re.fullmatch(r"\[\d+\]:", now := cell.locator(PROMPT).inner_text().strip()) or now == before:
        assert time.monotonic() < until, f"the cell with {text!r} did not end"
        page.wait_for_timeout(50)
    assert cell.locator(ERROR).count() == 0
    return cell


def wiped(path, **parameters):
    """A notebook whose file has no outputs any more, so that what a test sees is its own."""
    book = nbformat.read(path, 4)
    for cell in book.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        if "parameters" in cell.metadata.get("tags", ()):
            cell.source += "".join(f"\n{name} = {value!r}" for name, value in parameters.items())
    nbformat.write(book, path)
    return book


def png(picture):
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def portrait(expression, person):
    """A PNG with one face in it, which has to be found."""
    face = draw_face(FaceState(PROTOTYPES[expression], person=person)).images[0].permute(1, 2, 0).numpy()
    photo = Image.new("RGB", (400, 400), "#b9c4cc")
    photo.paste(Image.fromarray(face), (60, 80))
    return png(photo)


def bomb(side):
    """A PNG of a few thousand bytes that says it is so large."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(1_000_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def upload(cell, button, name, content):
    """Choose a file in the browser's own window, through the widget's button."""
    with cell.page.expect_file_chooser() as chooser:
        cell.get_by_role("button", name=button).click()
    chooser.value.set_files({"name": name, "mimeType": "image/png", "buffer": content})


def slider(cell, name):
    """A slider's handle, and the number beside it."""
    row = cell.locator(".widget-slider", has_text=name)
    return row.locator(".noUi-handle"), row.locator(".widget-readout")


def picture_of(cell):
    """The picture's address in the browser; it changes with every new picture."""
    return cell.locator("img.widget-image").get_attribute("src")


@contextmanager
def new_picture(cell):
    """What is done inside brings another picture."""
    before = picture_of(cell)
    yield
    other = "([cell, src]) => cell.querySelector('img.widget-image').src !== src"
    cell.page.wait_for_function(other, arg=[cell.element_handle(), before])


def said(cell, pattern):
    """Wait until the widget says so, and return the words."""
    words = cell.locator(".widget-html-content", has_text=re.compile(pattern)).first
    words.wait_for()
    return words.inner_text()


def test_the_lab_wants_its_token(lab):
    assert lab.get("/api/contents")[0] == 200
    assert lab.get("/api/contents", token="wrong")[0] == 403


def test_the_first_notebook_runs_to_its_end(page, lab, screenshots):
    path = lab.folder / "00_start_here.ipynb"
    book = wiped(path, num_faces=600, epochs=2)
    cells = [cell for cell in book.cells if cell.cell_type == "code" and cell.source.strip()]
    open_notebook(page, lab, path.name)
    page.screenshot(path=screenshots / "00_opened.png")
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    page.wait_for_function(
        "([prompts, error, n]) => document.querySelector(error) || [...document.querySelectorAll(prompts)]"
        ".filter(one => /^\\[\\d+\\]:$/.test(one.innerText.trim())).length >= n",
        arg=[f".jp-CodeCell {PROMPT}", ERROR, len(cells)],
        timeout=120_000,
    )
    assert page.locator(ERROR).count() == 0
    page.locator(f".jp-NotebookPanel:visible .jp-CodeCell {PROMPT}").last.scroll_into_view_if_needed()
    page.keyboard.press("Control+s")
    until = time.monotonic() + 20
    while not (saved := [c for c in nbformat.read(path, 4).cells if c.cell_type == "code"])[-1].execution_count:
        assert time.monotonic() < until
        page.wait_for_timeout(200)
    shown = [output for cell in saved for output in cell.outputs]
    assert [cell.execution_count for cell in saved] == list(range(1, len(cells) + 1))
    assert not [output for output in shown if output.output_type == "error" or output.get("name") == "stderr"]
    assert len([output for output in shown if "image/png" in output.get("data", {})]) >= 3


# ---------------------------------------------------------------------------------------------------------
# The explorer


@pytest.fixture(scope="module")
def explorer(module_page, lab):
    """Notebook 08, its models opened."""
    wiped(lab.folder / "08_explorer.ipynb")
    open_notebook(module_page, lab, "08_explorer.ipynb")
    for text in ("own_run = ", "from fer_lab.explorer import", "models = explorer.available_models("):
        run_cell(module_page, text)
    yield module_page
    assert module_page.locator(f"{ERROR}, {STDERR}").count() == 0


def test_a_key_on_a_slider_changes_label_words_and_picture(explorer, screenshots):
    cell = run_cell(explorer, "FaceExplorer(models)")
    cell.locator("img.widget-image").wait_for()
    assert "AU12 1.00" in said(cell, "AU6 .* person 0")
    handle, label = slider(cell, "AU12 lip corner puller")
    assert label.inner_text() == "1.00"
    cell.locator("img.widget-image").evaluate(STOPWATCH)
    handle.focus()
    for i in range(12):
        before = picture_of(cell)
        explorer.keyboard.press("ArrowLeft")
        explorer.wait_for_function("n => window.moves.length >= n", arg=i + 1)
        assert picture_of(cell) != before
    assert label.inner_text() == "0.40"
    assert "AU12 0.40" in said(cell, "AU12 0.40")
    took = explorer.evaluate("window.moves")[2:]  # the first ones warm up
    found = {"browser_slider_to_picture_ms": round(statistics.median(took), 1), "all": took}
    (screenshots / "latency.json").write_text(json.dumps(found, indent=1))
    print(f"slider to picture in the browser: {statistics.median(took):.0f} ms, median of {len(took)}")
    assert statistics.median(took) < 2_000  # a busy machine; 400 is the aim on a quiet one
    cell.locator("img.widget-image").scroll_into_view_if_needed()
    cell.screenshot(path=screenshots / "08_face.png")


def test_an_expression_by_its_button_and_another_overlay(explorer, screenshots):
    cell = run_cell(explorer, "FaceExplorer(models)")
    cell.get_by_role("button", name="surprise").click()
    words = said(cell, "AU26 .* person 0")
    assert re.search(r"synthetic/dan: surprise \d+%", words)
    with new_picture(cell):
        cell.get_by_label("laid over").select_option("occlusion")
    cell.screenshot(path=screenshots / "08_occlusion.png")


def test_a_face_by_upload_gets_probabilities_and_rubbish_a_sentence(explorer, screenshots):
    cell = run_cell(explorer, "PhotoExplorer(models")
    said(cell, "Face 1 of 3")
    upload(cell, "Upload a picture", "me.png", portrait("happiness", 9))
    words = said(cell, "Face 1 of 1")
    assert re.search(r"synthetic/dan: \w+ \d+%, then \w+ \d+%", words)
    assert re.search(r"ferplus/dan: \w+ \d+%", words)
    before = picture_of(cell)
    for name, content, pattern in (
        ("holiday.png", b"MZ\x90\x00 an .exe once" * 20, r"holiday\.png is not a picture in a known format"),
        ("portrait.png", bomb(30_000), r"portrait\.png has more than the 40,000,000 pixels"),
        ("cat.png", b"<svg onload='alert(1)'></svg>", r"cat\.png is not a picture in a known format"),
        ("large.png", bytes(9 * 2**20), r"large\.png has 9,437,184 bytes, more than"),
    ):
        upload(cell, "Upload a picture", name, content)
        said(cell, pattern)
        cell.screenshot(path=screenshots / f"08_refused_{name}")
        assert picture_of(cell) == before
    assert cell.locator(f"{ERROR}, {STDERR}").count() == 0
    assert "Traceback" not in cell.inner_text()
    cell.get_by_role("button", name="Forget it").click()
    said(cell, "No picture yet")
    assert not cell.locator("img.widget-image").is_visible()


def test_two_faces_are_joined_by_lines(explorer, screenshots):
    cell = run_cell(explorer, "PairExplorer(models)")
    assert "12 strongest matches at the coarse scale" in said(cell, "strongest matches")
    before = picture_of(cell)
    slider(cell, "lines")[0].focus()
    explorer.keyboard.press("ArrowRight")
    said(cell, "13 strongest matches")
    assert picture_of(cell) != before
    with new_picture(cell):
        upload(cell, "second from a file", "me.png", portrait("sadness", 4))
    cell.screenshot(path=screenshots / "08_pair.png")
