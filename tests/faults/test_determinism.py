"""The same seed on the same machine gives the same bits, another seed others: for every method of the book."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.reference import book_methods

from fer_lab import figures
from fer_lab.data.augmentation import prepare
from fer_lab.data.synthetic import SyntheticFaces
from fer_lab.evaluation.metrics import confusion_matrix, evaluate, predict
from fer_lab.models import create_model
from fer_lab.models.method import method_class
from fer_lab.training.loop import fit

pytestmark = pytest.mark.fault("determinism")


def trained(name: str, folder, seed: int) -> tuple[dict, dict]:
    """(weights, what figures are drawn from, one of them as a file) of a short training, all from one seed."""
    faces = SyntheticFaces(48, seed=seed, size=56, imbalance=0)
    faces = faces.subset(faces.labels < 3)
    recipe = method_class(name).recipes["smoke"].replace(epochs=1, batch_size=4, epoch_fraction=0.4, seed=seed)
    torch.manual_seed(seed)
    model = create_model(name)
    run = fit(model, faces, None, recipe, folder)
    predictions = predict(model, faces, embeddings=True)
    matrix = confusion_matrix(predictions)
    ready = prepare(faces.images[:2], model.image_size, model.color_order)
    with torch.no_grad():
        maps = model.attention_maps(ready)
    drawn = {
        "faces": faces.images.numpy(),
        "history": run.history.drop(columns="seconds").to_numpy(),
        "probabilities": predictions.probabilities,
        "embeddings": predictions.embeddings,
        "metrics": evaluate(predictions, resamples=100)[["value", "low", "high"]].to_numpy(),
        "confusion": matrix,
        **{f"map {kind}": values.numpy() for kind, values in maps.items()},
        "curves": figures.png(figures.training_curves(run.history.drop(columns="seconds"))),
        "confusion, drawn": figures.png(figures.confusion(matrix, model.classes)),
    }
    return model.state_dict(), drawn


@pytest.mark.parametrize("name", book_methods())
def test_the_same_seed_gives_the_same_weights_and_figures_and_another_others(name, tmp_path):
    runs = [trained(name, tmp_path / str(i), seed) for i, seed in enumerate((3, 3, 4))]
    (weights, drawn), (weights_again, drawn_again), (other_weights, other) = runs
    assert [key for key, value in weights.items() if not torch.equal(value, weights_again[key])] == []
    assert drawn.keys() == drawn_again.keys()
    for key, value in drawn.items():
        if isinstance(value, bytes):
            assert value == drawn_again[key], key
        else:
            np.testing.assert_array_equal(value, drawn_again[key], err_msg=key)
    # A fixed buffer or a part that ships trained is the same for every seed.
    numbers = [key for key, value in weights.items() if value.is_floating_point() and value.numel() > 1]
    assert sum(not torch.equal(weights[key], other_weights[key]) for key in numbers) > len(numbers) / 2
    assert not np.array_equal(drawn["probabilities"], other["probabilities"])
    assert not np.array_equal(drawn["embeddings"], other["embeddings"])
    assert drawn["curves"] != other["curves"]


def test_the_readme_says_where_results_are_only_close():
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    assert "With bf16 or a GPU results are close, not equal." in text
