"""Pictures, names and models that mean harm in the explorers: one plain line each, and all goes on."""

import io
import sys
from datetime import UTC, datetime

import numpy as np
import pytest
import torch
from jupyter_client.session import json_packer
from PIL import Image, PngImagePlugin

from fer_lab.data.synthetic import PROTOTYPES
from fer_lab.explorer.controls import ERROR, available_models
from fer_lab.explorer.panels import FaceState, draw_face
from fer_lab.explorer.widgets import FaceExplorer, PairExplorer, PhotoExplorer
from fer_lab.models import create_model
from fer_lab.models.weights import save_model
from fer_lab.runs import open_model

NO_FACE = "No face was found"


@pytest.fixture(scope="module")
def models():
    return {"synthetic/dan": open_model("synthetic/dan")}


def portrait(person: int = 3) -> Image.Image:
    drawn = draw_face(FaceState(PROTOTYPES["happiness"], person=person)).images[0]
    return Image.fromarray(drawn.permute(1, 2, 0).numpy())


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def flat(*size: int, mode: str = "RGB") -> bytes:
    return encoded(Image.new(mode, size))


def files(*those: tuple[str, bytes]) -> tuple[dict, ...]:
    """As the browser's half of the widget sends them."""
    when = datetime(2026, 1, 1, tzinfo=UTC)
    return tuple(
        {"name": name, "type": "", "size": len(data), "content": memoryview(data), "last_modified": when}
        for name, data in those
    )


def said(explorer) -> str:
    """The note, after a look at its form: nothing, or one short line of text that the browser can be sent."""
    note = explorer.note.value
    json_packer({"value": note, "text": explorer.text.value, "table": explorer.table.value}).decode()
    if note:
        assert note.startswith(ERROR)
        assert note.endswith("</span>")
        note = note.removeprefix(ERROR).removesuffix("</span>")
        assert note.isprintable()
        assert 5 < len(note) < 1000
        assert "<" not in note
    return note


def assert_usable(explorer) -> None:
    """Every control still works on a good picture that comes next."""
    explorer.upload.value = files(("good.png", encoded(portrait())))
    assert (said(explorer), explorer.upload.value) == ("", ())
    assert "Face 1 of 1" in explorer.text.value
    before = explorer.table.value
    explorer.margin.value = 0.2
    assert (said(explorer), explorer.table.value != before) == ("", True)
    explorer.forget.click()
    assert "No picture yet" in explorer.text.value


# ---------------------------------------------------------------------------------------------------------
# Pictures


def turned() -> bytes:
    exif = Image.Exif()
    exif[274] = 6
    return encoded(portrait().rotate(90), "JPEG", exif=exif)


def packed_text() -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_text("a", "x" * 5_000_000, zip=True)
    return encoded(portrait(), pnginfo=info)


def crowd() -> bytes:
    canvas = Image.new("RGB", (280 * 8, 280 * 5), "gray")
    for i in range(40):
        canvas.paste(portrait(i), (280 * (i % 8), 280 * (i // 8)))
    return encoded(canvas, "JPEG")


def several(kind: str) -> bytes:
    return encoded(portrait(), kind, save_all=True, append_images=[portrait(4), portrait(5)])


# What → (its bytes, the note). Those with a face say nothing.
PICTURES = {
    "no byte": (lambda: b"", "is empty"),
    "zeros": (lambda: bytes(1000), "is not a picture"),
    "a program": (lambda: b"\x7fELF" + bytes(500), "is not a picture"),
    "SVG": (lambda: b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", "is not a picture"),
    "HTML": (lambda: b"<html><script>alert(1)</script></html>", "is not a picture"),
    "PostScript": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is not a picture"),
    "half a JPEG": (lambda: encoded(portrait(), "JPEG")[:2000], "is truncated or damaged"),
    "half a PNG": (lambda: encoded(portrait())[:2000], "is truncated or damaged"),
    "half a BMP": (lambda: encoded(portrait(), "BMP")[:2000], "is truncated or damaged"),
    "text that unpacks": (packed_text, "is truncated or damaged"),
    "a GIF of 65535×65535": (
        lambda: b"GIF89a" + b"\xff" * 4 + b"\0\0\0,\0\0\0\0" + b"\xff" * 4 + b"\0\x02\x02\x4c\x01\0;",
        "more than the 40,000,000 pixels",
    ),
    "1×1": (lambda: flat(1, 1), NO_FACE),
    "20000×1": (lambda: flat(20_000, 1), NO_FACE),
    "1×20000": (lambda: flat(1, 20_000), NO_FACE),
    "all transparent": (lambda: flat(200, 200, mode="RGBA"), NO_FACE),
    "palette": (lambda: encoded(portrait().quantize(16), transparency=0), ""),
    "one bit": (lambda: encoded(portrait().convert("1")), ""),
    "CMYK": (lambda: encoded(portrait().convert("CMYK"), "JPEG"), ""),
    "16 bits": (
        lambda: encoded(Image.fromarray(np.asarray(portrait().convert("L")).astype(np.uint16) * 257)),
        "",
    ),
    "grey and alpha": (lambda: encoded(portrait().convert("LA")), ""),
    "turned by Exif": (turned, ""),
    "animated GIF": (lambda: several("GIF"), ""),
    "animated WebP": (lambda: several("WEBP"), ""),
    "animated PNG": (lambda: several("PNG"), ""),
    "forty faces": (crowd, ""),
}


@pytest.mark.fault("picture in the explorer")
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("what", PICTURES)
def test_any_upload_ends_in_one_line_and_a_usable_explorer(what, models, capfd):
    content, expected = PICTURES[what][0](), PICTURES[what][1]
    explorer = PhotoExplorer(models)
    explorer.upload.value = files((f"{what}.png", content))
    note = said(explorer)
    assert expected in note
    assert bool(expected) == bool(note)
    assert (explorer.image is None) == (expected not in ("", NO_FACE))
    for control, value in (("margin", 0.4), ("margin", -0.2), ("overlay", "grad_cam"), ("which", 99)):
        getattr(explorer, control).value = value
        assert said(explorer) == ""
    assert_usable(explorer)
    assert capfd.readouterr() == ("", "")


@pytest.mark.fault("picture in the explorer")
def test_fifty_files_at_once_leave_the_last_that_is_a_picture(models):
    explorer = PhotoExplorer(models)
    good = encoded(portrait())
    explorer.upload.value = files(*((f"{i}.png", b"no" if i % 3 else good) for i in range(50)))
    assert "49.png is not a picture" in said(explorer)
    assert "Face 1 of 1" in explorer.text.value
    assert_usable(explorer)


@pytest.mark.fault("picture in the explorer")
def test_an_upload_is_written_nowhere_and_sent_nowhere(models, tmp_path):
    explorer, heard, listening = PhotoExplorer(models), [], [True]

    def hear(event, arguments):
        to_write = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
        if listening and (to_write or event in ("socket.connect", "subprocess.Popen")):
            heard.append(arguments[0])

    sys.addaudithook(hear)  # none can be taken away
    try:
        (tmp_path / "a file").write_text("")
        assert_usable(explorer)
    finally:
        listening.clear()
    assert heard == [str(tmp_path / "a file")]


# ---------------------------------------------------------------------------------------------------------
# Names

NAMES = {
    "HTML": ("<img src=x onerror=alert(1)>.png", "&lt;img src=x onerror=alert(1)&gt;.png is not"),
    "escaped HTML": ("&lt;script&gt;", "&amp;lt;script&amp;gt; is not"),
    "control characters": ("a\x1b[2J\x07\r\nb.png", r"a\x1b[2J\x07\r\nb.png is not"),
    "no UTF-8": ("\ud800\udcff.png", r"\ud800\udcff.png is not"),
    "right to left": ("\u202egnp.exe", r"\u202egnp.exe is not"),
    "nothing": ("", "is not a picture"),
    "endless": ("x" * 100_000, "x… is not a picture"),
    "sixty escapes": ("\U000e0001" * 60, "is not a picture in a known format"),
}


@pytest.mark.fault("name in the explorer")
@pytest.mark.parametrize("kind", NAMES)
def test_a_files_name_is_text_and_does_not_hide_what_is_wrong(kind, models):
    explorer = PhotoExplorer(models)
    name, expected = NAMES[kind]
    explorer.upload.value = files((name, b"rubbish"))
    assert expected in said(explorer)


@pytest.mark.fault("name in the explorer")
@pytest.mark.parametrize(
    "path",
    ["\0", "\ud800", "a\nb\x1b[2J", "x" * 5000, "~nobody of this name/run", "/", "<b>x</b>", " ", "$x$"],
    ids=lambda path: ascii(path)[:20],
)
def test_a_folder_that_cannot_be_is_refused_in_one_line(path, models, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    explorer = FaceExplorer(models)
    before = explorer.picture.value
    explorer.run.value = path
    explorer.open_run.click()
    assert "failed inside" not in said(explorer)
    assert said(explorer)
    assert (list(explorer.models), explorer.picture.value) == (list(models), before)
    with pytest.raises((ValueError, FileNotFoundError)):
        available_models(path if path.strip() else "nothing")


@pytest.mark.fault("name in the explorer")
def test_the_folder_that_one_is_in_has_a_name(models, tmp_path, monkeypatch):
    save_model(create_model("baseline"), tmp_path / "mine" / "weights.safetensors")
    monkeypatch.chdir(tmp_path / "mine")
    explorer = FaceExplorer(models)
    explorer.run.value = "."
    explorer.open_run.click()
    assert (said(explorer), list(explorer.models)) == ("", ["synthetic/dan", "mine"])
    assert next(iter(available_models("."))) == "mine"


# ---------------------------------------------------------------------------------------------------------
# Models


class Broken(torch.nn.Module):
    """A model's answer that never comes."""

    def __init__(self, error: BaseException):
        super().__init__()
        self.error = error

    def forward(self, _images):
        raise self.error


def broken(error: BaseException):
    model = create_model("baseline").eval()
    model.trunk = Broken(error)
    return model


@pytest.mark.fault("model that fails in the explorer")
@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and\nmat2 <b>cannot"),
        ValueError(),
        MemoryError(),
        KeyError("\ud800"),
        OSError(5, "I/O"),
    ],
    ids=repr,
)
def test_a_model_that_raises_is_named_and_the_others_can_go_on(error, models):
    explorer = PhotoExplorer({**models, "mine": broken(error)})
    for content in (encoded(portrait()), flat(50, 50)):  # with a face and without one
        explorer.upload.value = files(("a.png", content))
        note = said(explorer)
        assert "mine" in note
        assert type(error).__name__ in note
    explorer.chosen["mine"].value = False
    assert said(explorer) == ""
    assert list(explorer.last.answers) == ["synthetic/dan"]
    assert_usable(explorer)


@pytest.mark.fault("model that fails in the explorer")
def test_an_interrupted_answer_leaves_a_button_that_takes_the_same_file_again(models):
    explorer = PhotoExplorer({**models, "mine": broken(KeyboardInterrupt())})
    with pytest.raises(KeyboardInterrupt):
        explorer.upload.value = files(("a.png", encoded(portrait())))
    assert explorer.upload.value == ()
    explorer.chosen["mine"].value = False
    assert_usable(explorer)


@pytest.mark.fault("model that fails in the explorer")
def test_a_run_that_cannot_match_takes_no_matchers_place(models, tmp_path):
    save_model(create_model("qcs"), tmp_path / "a" / "mine" / "weights.safetensors")
    save_model(create_model("baseline"), tmp_path / "b" / "mine" / "weights.safetensors")
    explorer = PairExplorer(models)
    for folder, note in (("a", ""), ("b", "mine is a baseline, which does not match faces; use a qcs")):
        explorer.run.value = str(tmp_path / folder / "mine")
        explorer.open_run.click()
        assert said(explorer) == note
    before = explorer.picture.value
    explorer.count.value = 5
    assert said(explorer) == ""
    assert explorer.picture.value != before
