"""What a reader does: open a notebook, run it, move a slider, upload a file. In a browser, in JupyterLab."""

import io
import re
import time

import nbformat
import pytest
from PIL import Image

from fer_lab.data.synthetic import PROTOTYPES
from fer_lab.panels import FaceState, draw_face

PROMPT = ".jp-InputPrompt"


def open_notebook(page, lab, name):
    """Open a notebook and wait for its kernel."""
    page.goto(f"{lab.url}/lab/tree/{name}?reset")
    page.locator(".jp-NotebookPanel:visible .jp-CodeCell").first.wait_for()
    page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]").first.wait_for(state="attached")


def cell_with(page, text):
    """The code cell whose source has this text."""
    return page.locator(".jp-NotebookPanel:visible .jp-CodeCell").filter(
        has=page.locator(".jp-InputArea-editor", has_text=text)
    )


def run_cell(page, text):
    """Run one cell, as a reader does, and wait for its number."""
    cell = cell_with(page, text).first
    cell.locator(".cm-content").click()
    page.keyboard.press("Control+Enter")
    number(cell)
    return cell


def number(cell, timeout=120):
    """Wait until the cell has been run in this session, and then has no output of an error."""
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        if cell.locator(PROMPT).first.inner_text().strip() != "[*]:":
            break
        cell.page.wait_for_timeout(50)
    else:
        pytest.fail(f"a cell did not end within {timeout} s")
    assert cell.locator('[data-mime-type="application/vnd.jupyter.error"]').count() == 0


def portrait(expression, person):
    face = draw_face(FaceState(PROTOTYPES[expression], person=person)).images[0].permute(1, 2, 0).numpy()
    photo = Image.new("RGB", (400, 400), "#b9c4cc")
    photo.paste(Image.fromarray(face), (60, 80))
    buffer = io.BytesIO()
    photo.save(buffer, "PNG")
    return {"name": "me.png", "mimeType": "image/png", "buffer": buffer.getvalue()}


def test_the_lab_wants_its_token(lab):
    assert lab.get("/api/contents")[0] == 200
    assert lab.get("/api/contents", token="wrong")[0] == 403


def test_the_first_notebook_runs_to_its_end(page, lab, screenshots):
    name = "00_start_here.ipynb"
    path = lab.folder / name
    wiped = nbformat.read(path, 4)
    for cell in wiped.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbformat.write(wiped, path)
    open_notebook(page, lab, name)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    cells = page.locator(".jp-NotebookPanel:visible .jp-CodeCell")
    last = cells.nth(cells.count() - 1).locator(PROMPT)
    count = sum(cell.cell_type == "code" and bool(cell.source.strip()) for cell in wiped.cells)
    page.wait_for_function(
        "([prompts, n]) => [...document.querySelectorAll(prompts)]"
        ".filter(one => /^\\[\\d+\\]:$/.test(one.innerText.trim())).length >= n"
        " || document.querySelector('[data-mime-type=\"application/vnd.jupyter.error\"]')",
        arg=[f".jp-CodeCell {PROMPT}", count],
        timeout=90_000,
    )
    page.screenshot(path=screenshots / "00_end.png")
    last.scroll_into_view_if_needed()
    page.screenshot(path=screenshots / "00_last_cell.png")
    assert page.locator('[data-mime-type="application/vnd.jupyter.error"]').count() == 0
    assert re.fullmatch(rf"\[{count}\]:", last.inner_text().strip())
    page.keyboard.press("Control+s")
    until = time.monotonic() + 20
    while not (saved := [c for c in nbformat.read(path, 4).cells if c.cell_type == "code"])[-1].execution_count:
        assert time.monotonic() < until
        page.wait_for_timeout(200)
    shown = [output for cell in saved for output in cell.outputs]
    assert not [output for output in shown if output.output_type == "error"]
    assert len([output for output in shown if "image/png" in output.get("data", {})]) >= 3
