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
STOPWATCH = """place => {
    window.moves = [];
    let pressed = 0;
    document.addEventListener("keydown", () => { pressed = performance.now(); }, true);
    const seen = () => place.querySelector("img").decode().then(() => {
        window.moves.push(performance.now() - pressed);
    });
    new MutationObserver(seen).observe(place, {childList: true});
}"""
# What a reader sees written: text, contrast with the nearest opaque ground, by the formulas of WCAG 2.1.
CONTRASTS = """root => {
    const numbers = css => (css.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number);
    const light = rgb => {
        const part = rgb.map(v => v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4);
        return 0.2126 * part[0] + 0.7152 * part[1] + 0.0722 * part[2];
    };
    const found = [];
    const walk = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
    while (walk.nextNode()) {
        const text = walk.currentNode.textContent.trim(), own = walk.currentNode.parentElement;
        if (!text || !own.checkVisibility() || own.tagName === "STYLE" || own.tagName === "OPTION") continue;
        let ground = own;
        while ((numbers(getComputedStyle(ground).backgroundColor)[3] ?? 1) < 1) ground = ground.parentElement;
        const back = numbers(getComputedStyle(ground).backgroundColor).slice(0, 3);
        let ink = numbers(getComputedStyle(own).color);
        const alpha = ink[3] ?? 1;
        ink = ink.slice(0, 3).map((v, i) => alpha * v + (1 - alpha) * back[i]);
        const [low, high] = [light(ink), light(back)].sort((a, b) => a - b);
        found.push([text.slice(0, 40), (high + 0.05) / (low + 0.05)]);
    }
    return found;
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
    return cell.locator(".widget-html-content").first.locator("img").get_attribute("src")


@contextmanager
def new_picture(cell):
    """What is done inside brings another picture."""
    before = picture_of(cell)
    yield
    other = "([cell, src]) => cell.querySelector('.widget-html-content img').src !== src"
    cell.page.wait_for_function(other, arg=[cell.element_handle(), before])


def named(cell):
    """Model → the class that it names, as the table of answers has it."""
    table = cell.locator("table")
    heads = [head.get_attribute("title") for head in table.locator("th[scope=col]").all()]
    rows = {row.locator("th").inner_text(): row.locator("td") for row in table.locator("tr").all()[1:]}
    bold = {
        name: [cells.nth(i).locator("b").count() for i in range(len(heads))] for name, cells in rows.items()
    }
    return {head: [name for name, marks in bold.items() if marks[i]] for i, head in enumerate(heads)}


def to_top(cell):
    """Scroll the cell's output to the top of the window, and wait until it is still."""
    cell.page.evaluate("cell => cell.scrollIntoView({block: 'start'})", cell.element_handle())
    cell.page.wait_for_timeout(300)


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
    cell.locator("table img").first.wait_for()
    assert "AU12 1.00" in said(cell, "AU6 .* person 0")
    handle, label = slider(cell, "AU12 lip corner puller")
    assert label.inner_text() == "1.00"
    cell.locator(".widget-html-content").first.evaluate(STOPWATCH)
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
    to_top(cell)
    explorer.screenshot(path=screenshots / "08_face.png")


def test_an_expression_by_its_button_and_another_overlay(explorer, screenshots):
    cell = run_cell(explorer, "FaceExplorer(models)")
    cell.get_by_role("button", name="surprise").click()
    assert "say surprise" in said(cell, "AU26 .* person 0")
    assert named(cell)["synthetic/dan"] == ["surprise"]
    with new_picture(cell):
        cell.get_by_label("show").select_option("68 landmarks")
    assert "The points of the face" in said(cell, "AU26")
    cell.get_by_label("show").select_option("occlusion")
    assert "least" in said(cell, "a grey patch hides")


def test_picture_answers_and_muscles_share_a_small_screen(explorer, screenshots):
    cell = run_cell(explorer, "FaceExplorer(models)")
    cell.locator("table img").first.wait_for()
    to_top(cell)
    window = explorer.locator(".jp-WindowedPanel-outer:visible").bounding_box()
    right, bottom = window["x"] + window["width"], window["y"] + window["height"]
    sliders = [cell.locator(".widget-slider:visible").nth(i) for i in range(16)]
    assert "AU26" in sliders[-1].inner_text()
    for part in (cell.locator("img").first, cell.locator("table"), *sliders):
        box = part.bounding_box()
        assert (box["x"] >= window["x"], box["y"] >= window["y"]) == (True, True)
        assert box["x"] + box["width"] <= right
        assert box["y"] + box["height"] <= bottom
    for name in ("Reset", "Random person", "Copy as code"):
        assert cell.get_by_role("button", name=name).bounding_box()["y"] < bottom
    for name, other in (("Random person", "person (?!0)"), ("Reset", "person 0")):
        with new_picture(cell):
            cell.get_by_role("button", name=name).click()
        said(cell, other)
    cell.get_by_role("button", name="Copy as code").click()
    assert said(cell, "FaceState") == "FaceState(units={6: 0.85, 12: 1.0, 25: 0.8})"


def test_nothing_moves_when_a_model_is_added(explorer, screenshots):
    cell = run_cell(explorer, "FaceExplorer(models)")
    cell.locator("table img").first.wait_for()
    cell.get_by_role("tab", name="Models").click()
    to_top(cell)
    parts = [cell.locator("img").first, cell.locator("table"), cell.get_by_role("button", name="Reset")]
    parts += [cell.get_by_label("show"), cell.locator(".widget-tab"), cell.get_by_label("ferplus/dan")]
    places = [(box["x"], box["y"]) for box in (part.bounding_box() for part in parts)]
    height = cell.bounding_box()["height"]
    for name, count in (("ferplus/dan", 6), ("ferplus/qcs", 7), ("synthetic/dan", 6)):
        cell.get_by_label(name).click()
        explorer.wait_for_function(
            "([cell, n]) => cell.querySelectorAll('th[scope=col]').length === n",
            arg=[cell.element_handle(), count],
        )
        assert [(box["x"], box["y"]) for box in (part.bounding_box() for part in parts)] == places
        assert cell.bounding_box()["height"] == height
    assert "of 6 say" in said(cell, "person 0")


@pytest.mark.parametrize("theme", ["Dark", "Light"])
def test_words_stand_out_in_both_themes_and_pictures_have_words(explorer, screenshots, theme):
    cell = run_cell(explorer, "PhotoExplorer(models")
    said(cell, "Face 1 of 3")
    upload(cell, "Upload a picture", "cat.png", b"no picture")
    said(cell, r"cat\.png is not a picture")
    change = "theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})"
    explorer.evaluate(change, f"JupyterLab {theme}")
    light = str(theme == "Light").lower()
    explorer.locator(f"body[data-jp-theme-light='{light}']").wait_for(state="attached")
    explorer.wait_for_timeout(500)
    to_top(cell)
    explorer.screenshot(path=screenshots / f"08_{theme}.png")
    found = cell.locator(".jp-OutputArea-output").evaluate(CONTRASTS)
    assert len(found) > 40
    assert [one for one in found if one[1] < 4.5] == []
    alts = [image.get_attribute("alt") for image in cell.locator("img").all()]
    assert alts == [
        "Face 1 of 3",
        *(f"the face as {kind}/dan receives it" for kind in ("synthetic", "ferplus")),
    ]


def test_a_face_by_upload_gets_probabilities_and_rubbish_a_sentence(explorer, screenshots):
    cell = run_cell(explorer, "PhotoExplorer(models")
    said(cell, "Face 1 of 3")
    with new_picture(cell):
        cell.get_by_role("button", name="face 2").click()
    said(cell, "Face 2 of 3")
    upload(cell, "Upload a picture", "me.png", portrait("happiness", 9))
    assert "of 2 say" in said(cell, "Face 1 of 1")
    assert set(named(cell)) == {"synthetic/dan", "ferplus/dan"}
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
    assert cell.locator("img").count() == 0
    assert cell.get_by_role("button", name="face 1").count() == 0
    cell.get_by_role("button", name="Sample").click()
    said(cell, "Face 1 of 1")
    assert named(cell)["ferplus/dan"] == ["happiness"]


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
    said(cell, "person 3, surprise · from a file")
    cell.screenshot(path=screenshots / "08_pair.png")
