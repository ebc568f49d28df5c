"""A model's card: bars as long as its probabilities, and room for what is long or many."""

import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageColor

from fer_lab.data.expressions import CANONICAL, COLORS
from fer_lab.explorer.cards import CARD, GAP, TILE, compose, draw_card, encode, font, to_picture


def test_a_cards_bars_are_as_long_as_the_probabilities():
    tile = np.zeros((TILE, TILE, 3), np.uint8)
    card = np.asarray(draw_card("m", {"happiness": 0.75, "fear": 0.25, "anger": 0.0}, tile)).astype(int)
    lengths = [(card[24 + 14 * i + 6, TILE + 88 : TILE + 198] != 239).any(-1)[:109].sum() for i in range(3)]
    assert lengths == [pytest.approx(0.75 * 108, abs=2), pytest.approx(0.25 * 108, abs=2), 0]


def test_a_card_has_room_for_the_eight_largest_and_long_names():
    tile = np.zeros((TILE, TILE, 3), np.uint8)
    many = {f"a name of a class\nin two lines {i}": i / 45 for i in range(10)}
    card = draw_card("a run " * 30, many, tile)
    eight = dict(list(many.items())[:1:-1])
    assert card.size == CARD
    assert card.tobytes() == draw_card("a run " * 30, eight, tile).tobytes()


def test_cards_stand_right_of_the_picture_in_two_columns_where_one_would_be_higher():
    face = Image.new("RGB", (280, 280), "black")
    cards = [Image.new("RGB", CARD, (10 * i, 200, 0)) for i in range(1, 6)]
    one, two = (np.asarray(compose(face, cards[:n])) for n in (2, 5))
    assert one.shape == (2 * CARD[1], 280 + GAP + CARD[0], 3)
    assert two.shape == (3 * CARD[1], 280 + 2 * (GAP + CARD[0]), 3)
    # Down the first column, then down the second.
    corners = [two[5 + (i % 3) * CARD[1], 285 + GAP + (i // 3) * (GAP + CARD[0]), 0] for i in range(5)]
    assert corners == [10, 20, 30, 40, 50]
    assert compose(face, []).size == (280, 280)


def test_a_face_becomes_a_picture_and_a_file():
    image = torch.zeros(3, 8, 8, dtype=torch.uint8)
    image[0, :, 4:] = 200
    back = np.asarray(Image.open(io.BytesIO(encode(to_picture(image)))))
    assert (back[:, :4] == 0).all()
    assert (back[:, 4:] == (200, 0, 0)).all()


def test_the_font_is_the_one_that_comes_with_matplotlib():
    assert font(13, True).getname() == ("DejaVu Sans", "Bold")
    assert font(13) is font(13)


def test_a_small_file_keeps_the_colours_of_all_bars():
    tile = np.random.default_rng(0).integers(0, 256, (TILE, TILE, 3), np.uint8)
    card = draw_card("m", dict.fromkeys(CANONICAL[:7], 1 / 7), tile)
    back = np.asarray(Image.open(io.BytesIO(encode(card, small=True))).convert("RGB"))
    bars = [tuple(back[24 + 14 * i + 6, TILE + 90]) for i in range(7)]
    assert bars == [ImageColor.getrgb(COLORS[name]) for name in CANONICAL[:7]]
