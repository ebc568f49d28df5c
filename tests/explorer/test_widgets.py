"""The three explorers without a browser: what a control does to the picture, the answers and the words."""

import base64
import io
import re
import struct
import zlib
from datetime import UTC, datetime

import ipywidgets as widgets
import numpy as np
import pytest
import torch
from PIL import Image

from fer_lab.data.photographs import UPLOAD_BYTES
from fer_lab.data.synthetic import GLASSES, PROTOTYPES
from fer_lab.explorer.panels import FaceState, draw_face, face_panel, person_of
from fer_lab.explorer.widgets import (
    NO_MATCHER,
    FaceExplorer,
    PairExplorer,
    PhotoExplorer,
)
from fer_lab.models import create_model
from fer_lab.models.weights import save_model
from fer_lab.runs.run import open_model


@pytest.fixture(scope="module")
def models():
    return {"synthetic/dan": open_model("synthetic/dan")}


@pytest.fixture
def face(models):
    return FaceExplorer(models)


def png(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def portrait(expression: str, person: int) -> Image.Image:
    drawn = draw_face(FaceState(PROTOTYPES[expression], person=person)).images[0]
    return Image.fromarray(drawn.permute(1, 2, 0).numpy())


def group(*who: tuple[str, int]) -> bytes:
    photo = Image.new("RGB", (300 * len(who), 360), "#b9c4cc")
    for i, (expression, person) in enumerate(who):
        photo.paste(portrait(expression, person), (10 + 300 * i, 40))
    return png(photo)


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few thousand bytes that says it is so large."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(4_000_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def uploaded(name: str, content: bytes) -> tuple[dict, ...]:
    """As the browser's half of the widget sends it."""
    file = {"name": name, "type": "image/png", "size": len(content), "content": memoryview(content)}
    return ({**file, "last_modified": datetime(2026, 1, 1, tzinfo=UTC)},)


# ---------------------------------------------------------------------------------------------------------
# A face of one's own making


def test_it_opens_on_a_smile_that_is_recognised(face):
    assert face.state.units[12] == 1.0
    answers = face.last.answers["synthetic/dan"]
    assert max(answers, key=answers.get) == "happiness"
    assert face.picture.value == face.last.picture
    assert "1 of 1 says happiness" in face.text.value
    assert face.table.value == face.last.table


@pytest.mark.parametrize(
    ("control", "value"),
    [("side", "right"), ("skin_tone", 0.95), ("age", 1.0), ("glasses", "square"), ("roll", 20.0),
     ("yaw", -20.0), ("cover", "the mouth"), ("blur", 3.0), ("overlay", "landmarks")],
)  # fmt: skip
def test_every_control_changes_the_picture_and_is_in_the_state(face, control, value):
    before = face.picture.value
    getattr(face, control).value = value
    assert face.picture.value != before
    assert face.note.value == ""
    if control != "overlay":
        assert getattr(face.state, control) == pytest.approx(value)


def test_sliders_of_units_change_picture_and_answer(face):
    before, p = face.picture.value, face.last.answers["synthetic/dan"]["happiness"]
    for number in (6, 12, 25):
        face.units[number].value = 0.0
    assert face.picture.value != before
    assert face.last.answers["synthetic/dan"]["happiness"] < p - 0.3
    assert "No unit acts" in face.text.value


def test_the_widget_shows_what_the_panel_makes(face, models):
    with face.at_once():
        face.units[4].value, face.person.value, face.overlay.value = 0.7, 9, "grad_cam"
    assert face.picture.value == face_panel(face.state, models, "grad_cam").picture


@pytest.mark.parametrize("name", PROTOTYPES)
def test_a_button_sets_the_prototype(face, name):
    draws = []
    face.picture.observe(lambda change: draws.append(change.new), "value")
    face.presets[name].click()
    shown = {number: value for number, value in face.state.units.items() if value > 0}
    assert shown == pytest.approx(PROTOTYPES[name])
    assert face.state.side == ("left" if name == "contempt" else "both")
    assert len(draws) == (0 if name == "happiness" else 1)


def test_another_person_brings_skin_age_and_glasses(face):
    face.age.value = 1.0
    face.person.value = 7
    who = person_of(FaceState(person=7))
    assert face.age.value == pytest.approx(float(who.age))
    assert face.skin_tone.value == pytest.approx(float(who.skin_tone))
    assert face.glasses.value == GLASSES[int(who.glasses)]
    assert "person 7" in face.text.value


def test_buttons_bring_a_random_person_and_the_first_state_back(face):
    face.age.value = face.age.value / 2
    first = face.state
    face.show_expression("contempt")
    seen = set()
    for _ in range(5):
        face.stranger.click()
        seen.add(face.person.value)
        assert face.state.traits == pytest.approx(FaceState(person=face.person.value).traits)
    assert len(seen) > 1
    face.reset.click()
    assert face.state.units == first.units
    assert (face.state.person, face.state.side) == (0, "both")
    assert face.age.value == FaceState().traits["age"] != first.age


def test_undo_goes_back_face_by_face(face):
    faces = [face.state]
    face.units[1].value = 1.0
    faces.append(face.state)
    face.person.value = 9  # with skin, age and glasses of that person: one step
    faces.append(face.state)
    face.overlay.value = "landmarks"  # no other face
    face.show_expression("fear")
    assert len({one.code for one in [*faces, face.state]}) == 4
    for expected in reversed(faces):
        face.undo.click()
        assert face.state == expected
        assert f"person {expected.person}" in face.text.value
    face.undo.click()
    assert face.state == faces[0]
    face.units[1].value = 0.5
    face.undo.click()
    assert face.state == faces[0]


def test_the_picture_is_offered_as_a_file(face, models):
    face.save.click()
    offered = re.search(r'download="fer_lab.png" href="data:image/png;base64,([^"]+)"', face.note.value)[1]
    assert base64.b64decode(offered) == face.last.png
    face.units[1].value = 1.0
    assert face.note.value == ""
    photo = PhotoExplorer(models)
    photo.save.click()
    assert "There is no picture yet" in photo.note.value


def test_the_state_as_code_is_shown_until_the_face_changes(face):
    face.side.value = "left"
    face.copy.click()
    assert "FaceState(units={6: 0.85, 12: 1.0, 25: 0.8}, side=&#x27;left&#x27;)</code>" in face.note.value
    face.units[6].value = 0.0
    assert face.note.value == ""


def test_it_opens_on_a_state_that_is_given(models):
    state = FaceState({1: 0.8}, "right", 12, 0.5, 0.9, "round", 10.0, -5.0, "the eyes", 1.0)
    opened = FaceExplorer(models, state)
    for name in ("side", "person", "roll", "yaw", "cover", "blur", "glasses"):
        assert getattr(opened.state, name) == getattr(state, name)
    assert (opened.state.age, opened.state.skin_tone) == pytest.approx((0.9, 0.5))
    assert opened.state.units[1] == 0.8


# ---------------------------------------------------------------------------------------------------------
# A photograph


def test_faces_of_an_upload_are_found_and_judged_one_by_one(models):
    explorer = PhotoExplorer(models)
    assert explorer.picture.value == ""
    assert "No picture yet" in explorer.text.value
    explorer.upload.value = uploaded("us.png", group(("happiness", 3), ("anger", 5)))
    assert explorer.note.value == ""
    assert (len(explorer.boxes), explorer.which.max) == (2, 2)
    assert explorer.boxes[0].left < explorer.boxes[1].left
    seen = []
    for thumbnail in explorer.thumbnails.children:
        thumbnail.click()
        assert [one is thumbnail for one in explorer.thumbnails.children] == [
            "brand" in one.layout.border_top for one in explorer.thumbnails.children
        ]
        answers = explorer.last.answers["synthetic/dan"]
        seen.append(max(answers, key=answers.get))
    assert seen == ["happiness", "anger"]
    assert "Face 2 of 2" in explorer.text.value
    assert explorer.upload.value == ()  # the same file can come again


def test_room_around_the_frame_changes_the_answer(models):
    explorer = PhotoExplorer(models, group(("sadness", 5)))
    roomy = explorer.last.answers["synthetic/dan"]
    explorer.margin.value = -0.2
    tight = explorer.last.answers["synthetic/dan"]
    # Chin and hair are gone: not what the model learned from.
    assert tight["sadness"] < roomy["sadness"] - 0.2


def test_a_picture_without_a_face_is_taken_whole_and_says_so(models):
    explorer = PhotoExplorer(models, png(Image.new("RGB", (90, 60), "gray")))
    assert "No face was found" in explorer.note.value
    assert "The middle square" in explorer.text.value
    assert (explorer.which.value, explorer.which.max) == (1, 1)
    assert explorer.thumbnails.children == ()


def test_the_sample_is_a_photograph_with_one_face(models):
    explorer = PhotoExplorer(models)
    explorer.sample.click()
    assert (explorer.note.value, explorer.image.size) == ("", (512, 512))
    (thumbnail,) = explorer.thumbnails.children
    assert thumbnail.tooltip == "face 1"
    assert max(explorer.last.answers["synthetic/dan"].items(), key=lambda item: item[1])[0] == "happiness"


def test_a_later_picture_with_fewer_faces_starts_at_its_first(models):
    explorer = PhotoExplorer(models, group(("happiness", 3), ("anger", 5)))
    explorer.which.value = 2
    explorer.take(group(("anger", 3)))
    assert (explorer.which.value, explorer.which.max) == (1, 1)
    assert "Face 1 of 1" in explorer.text.value


def test_forgetting_drops_the_picture(models):
    explorer = PhotoExplorer(models, group(("happiness", 3)))
    assert explorer.image is not None
    explorer.forget.click()
    assert (explorer.image, explorer.boxes, explorer.picture.value) == (None, [], "")
    assert (explorer.thumbnails.children, explorer._looks.value) == ((), "<style></style>")


RUBBISH = {
    "empty.png": (b"", "is empty"),
    "setup.png": (b"MZ\x90\0" + bytes(500), "is not a picture"),
    "page.jpg": (b"<svg onload=alert(1)></svg>", "is not a picture"),
    "bomb.png": (bomb(30_000, 30_000), "more than the 40,000,000 pixels"),
    "larger bomb.png": (bomb(2**31 - 8, 2**31 - 8), "pixels accepted"),
    "long.png": (bytes(UPLOAD_BYTES + 1), "more than the 8,388,608 accepted"),
    "scan.tif": (png(Image.new("RGB", (9, 9)), "TIFF"), "is a TIFF picture"),
    "cut.png": (group(("happiness", 3))[:900], "is truncated or damaged"),
    "<script>x</script>.png": (b"no", "&lt;script&gt;x&lt;/script&gt;.png is not a picture"),
    "n" * 300: (b"no", "n" * 59 + "… is not a picture"),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", RUBBISH)
def test_rubbish_gets_a_sentence_and_leaves_what_was_there(models, name, capsys):
    content, said = RUBBISH[name]
    explorer = PhotoExplorer(models, group(("happiness", 3)))
    before = explorer.picture.value
    explorer.upload.value = uploaded(name, content)
    assert said in explorer.note.value
    assert "<script" not in explorer.note.value
    assert "failed inside" not in explorer.note.value
    assert explorer.picture.value == before
    assert explorer.upload.value == ()
    assert capsys.readouterr() == ("", "")


# ---------------------------------------------------------------------------------------------------------
# Two faces


@pytest.fixture
def pair():
    torch.manual_seed(0)
    return PairExplorer({"q": create_model("qcs").eval(), "d": create_model("dcs").eval()})


def test_two_faces_are_matched(pair):
    assert pair.model.options == ("q", "d")
    before = pair.picture.value
    assert set(pair.last.answers) == {"q, first face", "q, second face"}
    for control, value in ((pair.scale, 0), (pair.count, 5), (pair.model, "d"), (pair.first.person, 9),
                           (pair.second.expression, "contempt")):  # fmt: skip
        control.value = value
        assert pair.picture.value != before
        before = pair.picture.value
    assert set(pair.last.answers) == {"d, first face", "d, second face"}
    assert "5 strongest matches at the fine scale" in pair.text.value


def test_an_uploaded_face_takes_the_place_of_a_drawn_one(pair):
    pair.first.upload.value = uploaded("me.png", group(("anger", 3)))
    assert pair.note.value == ""
    assert pair.first.image.shape == (3, 112, 112)
    assert torch.equal(pair.first.face(), pair.first.image)
    assert "from a file · person 5, surprise" in pair.text.value
    before = pair.picture.value
    for forget in (pair.first.forget.click, lambda: setattr(pair.first.person, "value", 11)):
        pair.first.upload.value = uploaded("me.png", group(("anger", 3)))
        forget()
        assert pair.first.image is None
        assert pair.picture.value != before
        assert "from a file" not in pair.text.value


def test_rubbish_for_a_pair_gets_a_sentence(pair):
    before = pair.picture.value
    pair.second.upload.value = uploaded("x.png", bomb(30_000, 30_000))
    assert "more than the 40,000,000 pixels" in pair.note.value
    assert pair.picture.value == before
    assert pair.second.image is None


@pytest.mark.parametrize("kind", [PhotoExplorer, PairExplorer])
def test_beside_an_upload_stands_where_the_picture_goes(models, kind):
    found, waiting = "", [kind(models)]
    while waiting:
        one = waiting.pop()
        waiting += getattr(one, "children", ())
        found += one.value if isinstance(one, widgets.HTML) else ""
    assert "this kernel's memory and nowhere else" in found


def test_without_a_matcher_it_says_so_and_comes_alive_with_a_run(models, tmp_path):
    explorer = PairExplorer(models)
    assert NO_MATCHER in explorer.text.value
    shown = np.asarray(Image.open(io.BytesIO(explorer.last.png)))
    assert shown.shape == (280, 670, 4)
    assert (shown[:, 280:390, 3] == 0).all()
    assert (explorer.note.value, explorer.model.value) == ("", None)
    bare = explorer.picture.value
    torch.manual_seed(0)
    save_model(create_model("baseline"), tmp_path / "plain" / "weights.safetensors")
    save_model(create_model("qcs"), tmp_path / "mine" / "weights.safetensors")
    explorer.run.value = str(tmp_path / "plain")
    explorer.open_run.click()
    assert "plain is a baseline, which does not match faces" in explorer.note.value
    explorer.run.value = str(tmp_path / "mine")
    explorer.open_run.click()
    assert (explorer.note.value, explorer.model.value) == ("", "mine")
    assert explorer.picture.value != bare
