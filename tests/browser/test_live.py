"""The page without an install, opened from its file in a real browser."""

import io
import os
import shutil

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

from fer_lab import open_model
from fer_lab.book.live import MODELS, build_live
from fer_lab.data.augmentation import prepare
from fer_lab.explanation.maps import strongest_matches

# The page is one file, so that it can be handed on.
LARGEST = 12e6
PIXELS = "ferLab.state.answers.map(a => [Array.from(a.bytes), Array.from(a.logits)])"


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    if not shutil.which("npm"):
        tell = pytest.fail if os.environ.get("FER_LAB_BROWSER") == "required" else pytest.skip
        tell("npm is not installed")
    folder = tmp_path_factory.mktemp("live")
    size = build_live(folder / "live.html", folder / "packages")
    assert size == (folder / "live.html").stat().st_size <= LARGEST
    return folder / "live.html"


@pytest.fixture
def page(browser, page_file, request):
    context = browser.new_context(
        **{"viewport": {"width": 1366, "height": 768}, **getattr(request, "param", {})}
    )
    page = context.new_page()
    page.asked, page.wrong = [], []
    page.on("request", lambda asked: page.asked.append(asked.url))
    page.on("pageerror", lambda error: page.wrong.append(str(error)))
    page.goto(page_file.as_uri())
    page.wait_for_function("window.ferLab", timeout=240_000)
    yield page
    assert not page.wrong
    assert {url.partition(":")[0] for url in page.asked} <= {"file", "data", "blob"}, "asked the network"
    context.close()


def said(page):
    return page.inner_text("#said")


def test_the_answers_are_pythons(page):
    page.select_option("#upper", "AU4")
    page.select_option("#lower", "AU15")
    page.evaluate("ferLab.refresh()")
    for name, (pixels, logits) in zip(MODELS, page.evaluate(PIXELS), strict=True):
        model = open_model(name)
        face = torch.tensor(pixels, dtype=torch.uint8).view(1, 3, model.image_size, model.image_size)
        with torch.no_grad():
            true = model(prepare(face, model.image_size, model.color_order))[0].numpy()
        assert np.abs(np.array(logits) - true).max() <= 1e-3 * np.abs(true).max()


def test_a_muscle_changes_the_answer_and_everything_lies_on_one_screen(page):
    assert "happiness" in said(page)  # a smile is what the page opens with
    page.select_option("#expression", "surprise")
    page.wait_for_function("document.getElementById('said').textContent.includes('surprise')")
    assert page.locator("#upper").is_disabled()
    lowest = page.evaluate(
        "Math.max(...[...document.querySelectorAll('#models tr')].map(r => r.getBoundingClientRect().bottom))"
    )
    assert lowest <= 768
    page.evaluate("document.getElementById('step').value = 0; ferLab.refresh()")
    page.wait_for_function("document.getElementById('said').textContent.includes('neutral')")


def test_a_link_holds_the_drawn_face_and_rubbish_in_it_is_left_out(page):
    page.select_option("#expression", "surprise")
    page.click("#people button:nth-child(2)")
    page.wait_for_function("document.getElementById('said').textContent.includes('surprise')")
    link, face = page.evaluate("[location.href, ferLab.state.face.toDataURL()]")

    def opened(link):
        page.goto("about:blank")
        page.goto(link)
        page.wait_for_function("window.ferLab", timeout=240_000)
        return page.evaluate("ferLab.state.face.toDataURL()")

    assert opened(link) == face
    plain = opened(link.partition("#")[0])
    assert plain != face
    assert page.input_value("#lower") == "AU12"  # the page opens with a smile
    assert opened(link.partition("#")[0] + "#person=99&expression=<img>&upper=AU99&lower=AU12&x=1") == plain
    page.evaluate(f"location.hash = {link.partition('#')[2]!r}")
    page.wait_for_function("document.getElementById('said').textContent.includes('surprise')")


def test_two_faces_are_matched_as_python_matches_them(page):
    page.click("#keep")
    first = page.evaluate("Array.from(ferLab.state.kept.places.data)")
    page.click("#people button:nth-child(3)")
    page.evaluate("ferLab.refresh()")
    second = page.evaluate("Array.from(ferLab.state.answers[1].places.data)")
    a, b = (torch.tensor(one).view(3, 49, -1) for one in (first, second))
    assert page.locator("#pair").is_visible()
    for scale in range(3):
        found = page.evaluate(
            f"ferLab.alike(ferLab.state.kept.places, ferLab.state.answers[1].places, {scale}, 8)"
        )
        true = strongest_matches(-torch.cdist(a[scale], b[scale]), 8)
        assert [tuple(one[:2]) for one in found] == [one[:2] for one in true]
    page.click("#forget")
    assert page.locator("#pair").is_hidden()


def test_a_photograph_is_searched_for_faces(page):
    file = io.BytesIO()
    Image.fromarray(skimage.data.astronaut()).save(file, "JPEG")
    page.set_input_files(
        "#file", {"name": "astronaut.jpg", "mimeType": "image/jpeg", "buffer": file.getvalue()}
    )
    page.wait_for_function("document.getElementById('said').textContent.includes('DAN: happiness')")
    box = page.evaluate("ferLab.state.boxes[0]")
    assert 190 < box["x"] < 250
    assert 80 < box["y"] < 150


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("notes.png", b"no picture at all", "is no picture that this browser can read"),
        ("empty.jpg", b"", "is no picture that this browser can read"),
        ("coffee.png", None, "No face found in coffee.png; this is its middle"),
    ],
)
def test_what_is_no_face_gets_a_sentence(page, name, content, words):
    if content is None:
        file = io.BytesIO()
        Image.fromarray(skimage.data.brick()).save(file, "PNG")
        content = file.getvalue()
    page.set_input_files("#file", {"name": name, "mimeType": "image/png", "buffer": content})
    page.wait_for_function(f"document.getElementById('said').textContent.includes({words!r})")


def test_a_picture_that_is_too_large_is_refused_before_it_is_read(page):
    page.evaluate("ferLab.show(new File([new Uint8Array(41e6)], 'huge.png'))")
    assert "huge.png is too large: 41 MB, at most 40" in said(page)
    assert page.evaluate("ferLab.state.picture") is None


@pytest.mark.parametrize("page", [{"permissions": ["camera"]}], indirect=True)
def test_the_camera_answers_and_stops(page):
    page.click("[data-source=camera]")
    page.wait_for_function("ferLab.state.stream && ferLab.state.answers", timeout=30_000)
    page.wait_for_function(
        "document.getElementById('said').textContent.includes('No face found')", timeout=60_000
    )
    page.click("#stop")
    assert page.evaluate("ferLab.state.stream") is None


@pytest.mark.parametrize(
    ("error", "words"), [("NotAllowedError", "The camera was refused"), ("NotFoundError", "There is no camera")]
)
def test_a_refused_camera_gets_a_sentence(page, error, words):
    rejected = "() => Promise.reject(new DOMException('no', error))"
    refuse = f"(error) => {{ navigator.mediaDevices.getUserMedia = {rejected}; }}"
    page.evaluate(refuse, error)
    page.click("[data-source=camera]")
    page.wait_for_function(f"document.getElementById('said').textContent.includes({words!r})")


@pytest.mark.parametrize("page", [{"viewport": {"width": 390, "height": 844}}], indirect=True)
def test_a_telephone_scrolls_in_one_direction(page):
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_pictures_and_controls_have_names(page):
    assert page.locator("canvas[role=img]:not([aria-label])").count() == 0
    controls = "[...document.querySelectorAll('select, input, button')]"
    named = "(one) => one.labels?.length || one.textContent.trim() || one.ariaLabel"
    assert page.evaluate(f"{controls}.filter({named}).length === {controls}.length")
