"""States become pictures, probabilities and words; nothing of a widget is needed."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from fer_lab.data.photographs import FaceBox, crop_face
from fer_lab.data.synthetic import PROTOTYPES, UNITS
from fer_lab.explorer.cards import SCALE, TILE
from fer_lab.explorer.panels import (
    FACE,
    MAPS,
    MEANINGS,
    TRUTHS,
    FaceState,
    agreement,
    answer,
    can_match,
    draw_face,
    face_panel,
    pair_panel,
    person_of,
    photo_panel,
    sentence,
)
from fer_lab.models import create_model


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return create_model("baseline").eval()


@pytest.fixture(scope="module")
def matcher():
    torch.manual_seed(0)
    return create_model("qcs").eval()


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def drawn(**state) -> np.ndarray:
    return draw_face(FaceState(**state), 112).images[0].numpy().astype(int)


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_every_unit_moves_the_face(unit):
    moved = np.abs(drawn(units={unit.number: 1.0}) - drawn()).max(0)
    rendering = draw_face(FaceState({unit.number: 1.0}), 112)
    inside = (rendering.regions[0] >> 5 & 1).bool().numpy()
    assert moved[inside].mean() > 2 * moved.mean()
    assert moved.max() > 40


def test_a_side_moves_one_half_of_the_picture():
    both, left, right = (drawn(units={12: 1.0}, side=side) for side in ("both", "left", "right"))
    relaxed = drawn()
    # The face's own left is the picture's right.
    for one, moved, still in (
        (left, np.s_[..., 64:], np.s_[..., :48]),
        (right, np.s_[..., :48], np.s_[..., 64:]),
    ):
        # The lips are one muscle ring: a little of it reaches the other half.
        assert np.abs(one - relaxed)[moved].mean() > 2.5 * np.abs(one - relaxed)[still].mean()
    assert np.abs(left - right).max() > 60
    assert np.abs(both - relaxed)[..., 64:].max() > 60


def test_a_person_is_changed_in_what_is_said_and_in_nothing_else():
    own = person_of(FaceState(person=3))
    other = person_of(FaceState(person=3, skin_tone=0.9, age=1.0, glasses="none"))
    assert (float(other.skin_tone), float(other.age), int(other.glasses)) == (pytest.approx(0.9), 1.0, 0)
    assert torch.equal(own.width, other.width)
    assert torch.equal(own.hair, other.hair)
    assert drawn(person=3, skin_tone=0.0).mean() > drawn(person=3, skin_tone=1.0).mean() + 10


def test_a_cover_hides_its_part_also_of_a_tilted_head():
    eyes, mouth = (drawn(cover=cover) for cover in ("the eyes", "the mouth"))
    bare = drawn()
    points = draw_face(FaceState(), 112).landmarks[0].round().long()
    for covered, hidden, seen in ((eyes, points[36:48], points[48:60]), (mouth, points[48:60], points[36:48])):
        assert all(np.abs(covered - bare)[:, y, x].max() > 15 for x, y in hidden.tolist())
        assert all(np.abs(covered - bare)[:, y, x].max() == 0 for x, y in seen.tolist())
    tilted = draw_face(FaceState(roll=30, cover="the mouth"), 112)
    x, y = tilted.landmarks[0, 48:60].mean(0).round().long().tolist()
    open_face = draw_face(FaceState(roll=30), 112)
    assert (tilted.images[0, :, y, x].int() - open_face.images[0, :, y, x].int()).abs().max() > 15


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"side": "top"}, "side must be one of both, left, right"),
        ({"cover": "it all"}, "cover must be one of nothing, the eyes, the mouth"),
        ({"glasses": "monocle"}, "glasses must be one of none, round, square"),
        ({"units": {12: 1.5}}, "intensities must be in 0…1"),
        ({"units": {3: 0.5}}, "unknown action unit"),
    ],
)
def test_a_state_that_cannot_be_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        draw_face(FaceState(**wrong))


def test_an_answer_is_the_models_softmax_whatever_is_laid_over(model):
    image = draw_face(FaceState(PROTOTYPES["surprise"])).images[0]
    plain, tile, _ = answer(model, image)
    assert list(plain) == list(model.classes)
    assert sum(plain.values()) == pytest.approx(1, abs=1e-5)
    assert tile.shape == (TILE, TILE, 3)
    for overlay in list(MAPS)[1:]:
        probabilities, heated, has_map = answer(model, image, overlay)
        assert probabilities == plain
        assert has_map
        assert np.abs(heated.astype(int) - tile.astype(int)).mean() > 5


def test_a_tile_is_what_the_model_receives(model):
    image = torch.zeros(3, 280, 280, dtype=torch.uint8)
    image[0, :, 140:] = 200
    _, tile, _ = answer(model, image)
    assert (tile[:, :56] == 0).all()
    assert (tile[:, 56:] == (200, 0, 0)).all()


def test_a_model_without_maps_says_so(model):
    image = draw_face(FaceState()).images[0]
    model.has_face_maps = False
    try:
        _, tile, has_map = answer(model, image, "native")
        view = face_panel(FaceState(), {"<m>": model}, "native")
    finally:
        del model.has_face_maps
    assert not has_map
    assert np.array_equal(tile, answer(model, image)[1])
    assert f"{MEANINGS['native']} &lt;m&gt; has no such map." in view.legend
    assert "no such map" not in face_panel(FaceState(), {"<m>": model}, "native").legend


@pytest.mark.parametrize("overlay", [*MAPS, *TRUTHS])
def test_what_is_laid_over_the_face_is_explained(overlay):
    legend = face_panel(FaceState(), {}, overlay).legend
    assert legend.startswith(MEANINGS[overlay])
    assert legend.endswith(SCALE) == (overlay in MAPS and overlay != "none")


def test_agreement_counts_the_models():
    happy, afraid = {"happiness": 0.6, "<b>": 0.4}, {"happiness": 0.2, "<b>": 0.8}
    assert agreement({}) == "No model is chosen."
    assert agreement({"a": happy}) == "1 of 1 says happiness"
    assert agreement({"a": happy, "b": afraid, "c": happy}) == "2 of 3 say happiness, 1 &lt;b&gt;"


def test_a_sentence_names_the_two_likeliest_and_escapes():
    said = sentence("<script>", {"fear": 0.25, "a&b": 0.7, "anger": 0.05})
    assert said == "<b>&lt;script&gt;</b>: a&amp;b 70%, then fear 25%"
    assert sentence("x", {"fear": 1.0}) == "<b>x</b>: fear 100%"


def test_a_face_panel_holds_face_cards_and_words(model):
    view = face_panel(FaceState({6: 0.5, 12: 1.0}, person=4), {"one": model, "two": model})
    picture = pixels(view.png)
    face = draw_face(FaceState({6: 0.5, 12: 1.0}, person=4)).images[0].permute(1, 2, 0).numpy()
    assert np.array_equal(picture, face)
    assert view.text.startswith("AU6 0.50, AU12 1.00 · person 4<br><b>2 of 2 say ")
    assert set(view.answers) == {"one", "two"}
    assert view.table.count("<img") == 2
    assert all(f"{100 * p:.1f}%" in view.table for p in view.answers["one"].values())
    assert face_panel(FaceState(), {}).words == "No unit acts · person 0\nNo model is chosen."


@pytest.mark.parametrize("truth", TRUTHS)
def test_truths_are_drawn_where_they_are(truth):
    state = FaceState({12: 1.0})
    changed = np.abs(pixels(face_panel(state, {}, truth).png) - pixels(face_panel(state, {}).png)).max(-1) > 12
    rendering = draw_face(state)
    if truth == "moved":
        inside = (rendering.regions[0] >> 5 & 1).bool().numpy()
        assert (changed & ~inside).sum() == 0
        assert changed[inside].mean() > 0.9
    else:
        x, y = rendering.landmarks[0].round().long().T
        assert changed[y.numpy(), x.numpy()].mean() > 0.9
        assert changed.mean() < 0.1


def test_an_unknown_overlay_is_refused(model):
    for panel in (
        lambda: face_panel(FaceState(), {}, "x-ray"),
        lambda: photo_panel(Image.new("RGB", (50, 50)), [], 0, {}, "landmarks"),
    ):
        with pytest.raises(ValueError, match="overlay must be one of none, native"):
            panel()


def test_the_chosen_face_of_a_photograph_is_judged(model):
    photo = Image.new("RGB", (900, 300), "gray")
    faces = [draw_face(FaceState(PROTOTYPES[name])).images[0] for name in ("happiness", "anger")]
    boxes = [FaceBox(60 + 400 * i, 70, 240 + 400 * i, 250) for i in range(2)]
    for face, box in zip(faces, boxes, strict=True):
        photo.paste(Image.fromarray(face.permute(1, 2, 0).numpy()), (box.left - 50, box.top - 60))
    for i in range(2):
        view = photo_panel(photo, boxes, i, {"m": model, "synthetic/m": model})
        for name, trained_on in (("m", "ferplus"), ("synthetic/m", "synthetic")):
            expected = answer(model, crop_face(photo, boxes[i], trained_on=trained_on))[0]
            assert list(view.answers[name].values()) == pytest.approx(list(expected.values()), abs=1e-5)
        assert view.answers["m"] != view.answers["synthetic/m"]
        assert view.text.startswith(f"Face {i + 1} of 2<br><b>")
    assert photo_panel(photo, boxes, 0, {"m": model}, margin=0.3).answers != view.answers
    with pytest.raises(ValueError, match="there are 2 faces"):
        photo_panel(photo, boxes, 2, {})


def test_without_a_face_the_middle_square_is_judged(model):
    face = draw_face(FaceState(), 112).images[0]
    photo = Image.new("RGB", (312, 112))
    photo.paste(Image.fromarray(face.permute(1, 2, 0).numpy()), (100, 0))
    view = photo_panel(photo, [], 0, {"m": model})
    assert view.text.startswith("The middle square, taken as one face<br>")
    assert view.answers["m"] == pytest.approx(answer(model, face)[0], abs=1e-4)


def test_only_a_cross_branch_can_match(model, matcher):
    assert (can_match(model), can_match(matcher), can_match(create_model("qcs", form="none"))) == (
        False,
        True,
        False,
    )


def test_lines_join_the_places_that_match(matcher, monkeypatch):
    table = torch.zeros(1, 3, 49, 49)
    table[0, 1, 0, 48], table[0, 1, 24, 24] = 2.0, 1.0  # corner to corner, middle to middle
    monkeypatch.setattr(matcher, "matches", lambda first, second: table)
    faces = (draw_face(FaceState()).images[0], draw_face(FaceState(person=1)).images[0])
    bare = pixels(pair_panel(faces, "", None).png)
    view = pair_panel(faces, "q", matcher, scale=1, count=2)
    changed = np.abs(pixels(view.png) - bare).max(-1) > 20
    cell, right = FACE / 7, FACE + 110
    for x, y in ((0.5, 0.5), (3.5, 3.5)):
        assert changed[round(y * cell), round(x * cell)]
    for x, y in ((6.5, 6.5), (3.5, 3.5)):
        assert changed[round(y * cell), round(right + x * cell)]
    assert not changed[round(0.5 * cell), round(6.5 * cell)]
    # 6·√2 cells and none: 4.2 on average.
    assert "2 strongest matches at the middle scale. Their ends lie 4.2 cells" in view.text
    assert set(view.answers) == {"q, first face", "q, second face"}


def test_a_face_matches_itself_place_by_place(matcher):
    face = draw_face(FaceState(PROTOTYPES["fear"])).images[0]
    assert "Their ends lie 0.0 cells" in pair_panel((face, face), "q", matcher, count=20).text


def test_a_notebook_shows_the_picture_and_the_answers_and_has_the_words(model):
    view = face_panel(FaceState({12: 1.0}), {"<m>": model}, "native")
    data = view._repr_mimebundle_()
    first, second, third = data["text/plain"].split("\n")
    assert first == "AU12 1.00 · person 0"
    assert second.startswith("1 of 1 says ")
    assert third.startswith("<m>: ")
    page = data["text/html"]
    assert 'alt="AU12 1.00 · person 0"' in page
    assert page.count("<img") == 2
    assert "<m>" not in page
    assert MEANINGS["native"] in page
    assert len(page) < 0.6 * len(view.picture + view.table)


@pytest.mark.parametrize(
    "state",
    [
        FaceState(),
        FaceState({12: 1.0, 4: 0.0}, "left", 7),
        FaceState({1: 0.35}, "both", 3, 0.9, 0.25, "square", 20.0, -5.0, "the eyes", 1.5),
    ],
)
def test_a_states_code_makes_the_same_face(state):
    again = eval(state.code, {"FaceState": FaceState})
    assert torch.equal(draw_face(again, 112).images, draw_face(state, 112).images)
    assert again.code == state.code


def test_a_states_code_leaves_out_what_is_as_usual():
    own = FaceState(person=5).traits
    assert FaceState({12: 1.0, 4: 0.0}, person=5, **own).code == "FaceState(units={12: 1.0}, person=5)"
