"""The weights that ship are small, fit today's code, and still score what their cards say."""

from pathlib import Path

import pytest
import torch

from fer_lab.data.synthetic import SyntheticFaces
from fer_lab.data.synthetic.generator import set_fingerprint
from fer_lab.evaluation.metrics import predict
from fer_lab.models import create_model
from fer_lab.models.bundled import is_shipped_name, shipped_models, shipped_weights
from fer_lab.models.weights import load_model, read_card, save_model
from fer_lab.runs.run import open_model

WEIGHTS = Path(__file__).parents[2] / "fer_lab" / "weights"
FILES = sorted(WEIGHTS.glob("*/*.safetensors"))
MODELS = [path for path in FILES if path.stem != "landmarks"]


@pytest.fixture(scope="module")
def people():
    """Faces of people whom no shipped model has met."""
    return SyntheticFaces(400, seed=99, size=56)


def test_there_are_weights_of_the_first_methods():
    assert {"synthetic/baseline", "synthetic/dan"} <= {f"{path.parent.name}/{path.stem}" for path in MODELS}


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_file_is_small_and_has_a_card_beside_it(path):
    assert path.stat().st_size <= 2_000_000
    text = path.with_suffix(".md").read_text(encoding="utf-8")
    assert "\nfer-lab " in text
    assert "**Limits.**" in text


@pytest.mark.parametrize("path", MODELS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_weights_fit_the_code_and_still_score(path, people):
    model = load_model(path)
    card = read_card(path)
    assert card["score"]["accuracy"] > 0.6
    if path.parent.name != "synthetic":
        return
    words = card["command"].split()
    given = {"n": int(words[words.index("--faces") + 1]), "seed": int(words[words.index("--faces-seed") + 1])}
    # Another fingerprint means that the renderer draws other faces since: `make weights` again.
    assert card["fingerprint"] == set_fingerprint(size=56, num_classes=7, **given)
    # 400 other faces of other people: four standard errors of a share near 0.85 are 0.07.
    assert predict(model, people).correct.mean() > card["score"]["accuracy"] - 0.1


def test_a_shipped_model_is_opened_by_its_name():
    model = open_model("synthetic/dan")
    assert (model.name, model.training) == ("dan", False)
    expected = load_model(WEIGHTS / "synthetic" / "dan.safetensors").state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
    assert shipped_weights("dan", "synthetic") == WEIGHTS / "synthetic" / "dan.safetensors"


def test_shipped_models_stand_in_the_books_order():
    names = shipped_models("synthetic")
    assert names[:2] == ["baseline", "dan"]
    assert set(names) == {path.stem for path in MODELS if path.parent.name == "synthetic"}
    assert shipped_models("nowhere") == []


def test_a_path_is_opened_before_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert is_shipped_name(Path("dan"))
    torch.manual_seed(5)
    own = create_model("baseline")
    save_model(own, tmp_path / "dan")
    assert not is_shipped_name(Path("dan"))
    assert open_model("dan").name == "baseline"


def test_what_does_not_ship_is_refused():
    with pytest.raises(ValueError, match="no weights come with nothing; give --weights FILE, or"):
        shipped_weights("nothing")
    with pytest.raises(ValueError, match="no weights come with dan"):
        shipped_weights("dan", "nowhere")
