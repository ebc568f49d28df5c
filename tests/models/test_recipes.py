import json

import pytest

from fer_lab.data.augmentation import Augmentation
from fer_lab.models import Recipe


def test_recipe_survives_json():
    recipe = Recipe(
        epochs=3,
        batch_size=8,
        optimizer="adamw",
        sam_rho=0.05,
        augmentation=Augmentation(flip=0.5, scale=(0.8, 1.2), erasing_p=0.1),
    )
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


def test_replace_changes_only_what_is_named():
    recipe = Recipe(epochs=3, batch_size=8)
    changed = recipe.replace(lr=0.5)
    assert changed.lr == 0.5
    assert changed.replace(lr=recipe.lr) == recipe
    with pytest.raises(ValueError, match="no recipe field learning_rate"):
        recipe.replace(learning_rate=0.5)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("epochs", 1.5),
        ("batch_size", -1),
        ("lr", 0.0),
        ("lr", float("nan")),
        ("optimizer", "lion"),
        ("schedule", "cosine"),
        ("sampler", "sequential"),
        ("negatives", "hard"),
        ("precision", "fp8"),
        ("label_smoothing", 1.0),
        ("epoch_fraction", 0.0),
        ("sam_rho", -0.1),
    ],
)
def test_values_out_of_range_are_refused_by_name(field, value):
    with pytest.raises(ValueError, match=field):
        Recipe(**{"epochs": 1, "batch_size": 1, field: value})
