"""Label orders: written out again here, from the data sets' own documentation."""

import pytest
import torch

from fer_lab.data import expressions
from fer_lab.data.expressions import (
    CANONICAL,
    canonical_name,
    class_names,
    from_canonical,
    numbers_of,
    order_of,
    to_canonical,
)

ORDERS = {
    "ferplus": "neutral happiness surprise sadness anger disgust fear contempt",
    "rafdb": "surprise fear disgust happiness sadness anger neutral",
    "affectnet": "neutral happiness sadness surprise fear disgust anger contempt",
    "fer2013": "anger disgust fear happiness sadness surprise neutral",
    "sfew": "anger disgust fear happiness neutral sadness surprise",
}


@pytest.mark.parametrize("dataset", ORDERS)
def test_the_order_of_each_data_set(dataset):
    assert " ".join(order_of(dataset)) == ORDERS[dataset]


def test_rafdb_counts_from_one_and_the_others_from_zero():
    assert numbers_of("rafdb") == dict(enumerate(ORDERS["rafdb"].split(), 1))
    for dataset in ORDERS.keys() - {"rafdb"}:
        assert numbers_of(dataset) == dict(enumerate(ORDERS[dataset].split()))


def test_every_order_but_the_canonical_one_is_pinned():
    assert set(expressions.ORDERS) == {"canonical", *ORDERS}


@pytest.mark.parametrize(
    ("dataset", "table"),
    [
        ("ferplus", [0, 1, 2, 3, 4, 5, 6, 7]),
        ("rafdb", [2, 6, 5, 1, 3, 4, 0]),
        ("affectnet", [0, 1, 3, 2, 6, 5, 4, 7]),
        ("fer2013", [4, 5, 6, 1, 3, 2, 0]),
        ("sfew", [4, 5, 6, 1, 0, 3, 2]),
    ],
)
def test_tables_to_the_canonical_order(dataset, table):
    assert to_canonical(dataset).tolist() == table


@pytest.mark.parametrize("dataset", ORDERS)
def test_there_and_back_is_where_one_was(dataset):
    there, back = to_canonical(dataset), from_canonical(dataset)
    assert there[back].tolist() == list(range(len(there)))
    assert back[there].tolist() == list(range(len(there)))


def test_a_head_in_rafdb_order_is_permuted_into_the_canonical_one():
    rows = torch.tensor([[10.0 * i] for i in range(7)])  # row i scores RAF-DB's class i
    canonical = rows[from_canonical("rafdb")]
    # neutral is RAF-DB's 6, happiness 3, surprise 0, sadness 4, anger 5, disgust 2, fear 1
    assert canonical.squeeze(1).tolist() == [60, 30, 0, 40, 50, 20, 10]


def test_seven_classes_leave_contempt_out():
    assert class_names(7) == ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear")
    assert class_names(8) == CANONICAL
    assert "contempt" not in order_of("affectnet", 7)
    assert to_canonical("affectnet", 7).tolist() == [0, 1, 3, 2, 6, 5, 4]


@pytest.mark.parametrize("number", [-1, 0, 1, 9])
def test_other_numbers_of_classes_are_refused(number):
    with pytest.raises(ValueError, match=rf"2 to 8 expression classes, got {number}"):
        class_names(number)


def test_a_class_that_a_data_set_lacks_is_refused():
    with pytest.raises(ValueError, match="expected 7 classes for rafdb, got 8"):
        order_of("rafdb", 8)
    with pytest.raises(ValueError, match="unknown label order 'ck\\+'"):
        order_of("ck+")


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("Happy", "happiness"),
        (" ANGRY\n", "anger"),
        ("Sad", "sadness"),
        ("afraid", "fear"),
        ("Surprise", "surprise"),
        ("joy", "happiness"),
        ("contempt", "contempt"),
    ],
)
def test_words_that_name_an_expression(word, name):
    assert canonical_name(word) == name


def test_every_alias_leads_to_a_canonical_name():
    assert set(expressions.ALIASES.values()) <= set(CANONICAL)
    assert not set(expressions.ALIASES) & set(CANONICAL)


def test_a_word_that_names_none_is_refused():
    with pytest.raises(ValueError, match="'smirk' names no expression; expected one of neutral, happiness"):
        canonical_name("smirk")


def test_each_expression_has_a_colour_of_its_own():
    assert len(set(expressions.colors(CANONICAL))) == 8
    assert expressions.colors(["fear", "smirk"]) == [expressions.COLORS["fear"], "C1"]
