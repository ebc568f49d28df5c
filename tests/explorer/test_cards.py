"""The parts of what the explorer shows: bars as long as the probabilities, and pictures that have words."""

import base64
import html
import io
import re

import numpy as np
import torch
from bs4 import BeautifulSoup
from PIL import Image, ImageColor

from fer_lab.data.expressions import CANONICAL, COLORS
from fer_lab.explorer.cards import TILE, answer_table, as_html, encode, shrink, to_picture

NASTY = "<img src=x onerror=alert(1)>"


def parsed(page: str) -> BeautifulSoup:
    return BeautifulSoup(page, "html.parser")


def bars(table: BeautifulSoup) -> dict[str, list[str]]:
    """Class → width of each model's bar, "" for none."""
    cells = {row.th.get_text(): row.find_all("td") for row in table.find_all("tr")[1:]}
    looks = {name: [str(cell.select_one("div > div")) for cell in row] for name, row in cells.items()}
    return {
        name: [(re.findall(r"\swidth:([\d.]+%)", look) or [""])[0] for look in row]
        for name, row in looks.items()
    }


def test_bars_are_as_long_as_the_probabilities_and_the_likeliest_is_bold():
    answers = {"synthetic/dan": {"happiness": 0.75, "fear": 0.25}, "mine": {"happiness": 0.125, "fear": 0.875}}
    table = parsed(answer_table(answers, {}))
    assert bars(table) == {"happiness": ["75.0%", "12.5%"], "fear": ["25.0%", "87.5%"]}
    assert [one.get_text() for one in table.select("td b")] == ["75%", "88%"]
    heads = [" ".join(one.get_text().split()) for one in table.find_all("th", scope="col")]
    assert heads == ["DAN drawings", "mine your own"]
    assert not table.find_all("img")


def test_a_class_that_a_model_does_not_have_is_said_to_be_none():
    answers = {"a": {"fear": 0.4, "anger": 0.6}, "b": {"fear": 0.1, "anger": 0.1, "contempt": 0.8}}
    table = parsed(answer_table(answers, {}))
    assert bars(table) == {"fear": ["40.0%", "10.0%"], "anger": ["60.0%", "10.0%"], "contempt": ["", "80.0%"]}
    assert table.find_all("tr")[3].td.get_text(strip=True) == "no such class"
    # Its own colour is black.
    assert "background:currentcolor" in table.find_all("td")[-1].div.div["style"].replace("\n", "")


def test_of_many_classes_the_eight_likeliest_are_shown_in_their_order():
    many = {f"class {i}": (i * 7 % 45) / 990 for i in range(45)}
    shown = list(bars(parsed(answer_table({"m": many}, {}))))
    assert sorted(shown, key=lambda name: -many[name]) == sorted(many, key=lambda name: -many[name])[:8]
    assert shown == [name for name in many if name in shown]


def test_names_are_text():
    page = answer_table({NASTY: {NASTY + "2": 1.0}}, {NASTY: np.zeros((TILE, TILE, 3), np.uint8)})
    table = parsed(page)
    assert [image["src"][:10] for image in table.find_all("img")] == ["data:image"]
    assert html.escape(NASTY + "2") in page


def test_a_tile_stands_above_its_models_column_and_has_words():
    tile = np.zeros((TILE, TILE, 3), np.uint8)
    tile[:, 60:] = (10, 200, 30)
    image = parsed(answer_table({"synthetic/qcs": {"fear": 1.0}}, {"synthetic/qcs": tile})).th.img
    assert image["alt"] == "the face as synthetic/qcs receives it"
    data = base64.b64decode(image["src"].partition(",")[2])
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), tile)


def test_a_face_becomes_a_picture_and_a_file():
    image = torch.zeros(3, 8, 8, dtype=torch.uint8)
    image[0, :, 4:] = 200
    back = np.asarray(Image.open(io.BytesIO(encode(to_picture(image)))))
    assert (back[:, :4] == 0).all()
    assert (back[:, 4:] == (200, 0, 0)).all()


def test_a_small_file_keeps_the_colours_of_flat_areas():
    tile = np.random.default_rng(0).integers(0, 256, (TILE, TILE, 3), np.uint8)
    card = Image.fromarray(tile)
    named = [ImageColor.getrgb(COLORS[name]) for name in CANONICAL[:7]]
    for i, color in enumerate(named):
        card.paste(color, (0, 14 * i, 90, 14 * i + 12))
    back = np.asarray(Image.open(io.BytesIO(encode(card, small=True))).convert("RGB"))
    assert [tuple(back[14 * i + 6, 20]) for i in range(7)] == named


def test_a_page_with_small_pictures_has_the_same_words_and_clear_places():
    clear = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 90, 4), np.uint8))
    clear.paste((0, 0, 0, 0), (30, 0, 60, 90))
    first, second = as_html(encode(clear), 'a "face"'), as_html(encode(clear.convert("RGB")), "b")
    page = f"<b>before</b>{first}{second}after"
    small = shrink(page)
    assert len(small) < 0.6 * len(page)
    before, after = parsed(page), parsed(small)
    assert [one["alt"] for one in after.find_all("img")] == ['a "face"', "b"]
    assert after.get_text() == before.get_text() == "beforeafter"
    pictures = [base64.b64decode(one["src"].partition(",")[2]) for one in after.find_all("img")]
    first, second = (Image.open(io.BytesIO(data)) for data in pictures)
    assert (np.asarray(first.convert("RGBA"))[:, 30:60, 3] == 0).all()
    assert np.asarray(second.convert("RGBA"))[..., 3].min() == 255
