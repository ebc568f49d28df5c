"""ONNX files compute what the models compute, know their classes, and refuse what would lose something."""

import json
import sys

import numpy as np
import pytest
import torch
from torch import nn

from fer_lab import create_model, open_model
from fer_lab.data.augmentation import prepare
from fer_lab.models.export import TOLERANCE, FromBytes, export_onnx, to_onnx

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


def answers(path, images):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_outputs()]
    return dict(zip(names, session.run(None, {"images": images.numpy()}), strict=True)), session


def faces(count, side=56, seed=1):
    return torch.randint(
        256, (count, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )


@pytest.mark.parametrize(
    "name",
    [
        "synthetic/qcs",
        "ferplus/dan",
        *(
            pytest.param(f"synthetic/{one}", marks=pytest.mark.long)
            for one in ("baseline", "triplet_center", "poster")
        ),
    ],
)
def test_onnx_runtime_gives_logits_and_maps_of_any_number_of_faces(name, tmp_path):
    model = open_model(name)
    assert export_onnx(model, tmp_path / "model.onnx") <= TOLERANCE
    for count in (1, 2, 5):
        images = faces(count)
        found, session = answers(tmp_path / "model.onnx", images)
        ready = prepare(images, model.image_size, model.color_order)
        with torch.no_grad():
            expected = {"logits": model(ready)}
            expected |= model.attention_maps(ready) if model.has_face_maps else {}
        assert list(found) == [one.replace(" ", "_") for one in expected]
        for one, true in zip(found.values(), expected.values(), strict=True):
            np.testing.assert_allclose(one, true, rtol=0, atol=1e-4 * float(true.abs().max()))
    card = json.loads(session.get_modelmeta().custom_metadata_map["card"])
    assert (card["classes"], card["color_order"]) == (list(model.classes), model.color_order)
    assert card["method"] == model.name


def test_half_is_smaller_and_near(tmp_path):
    model = create_model("baseline", num_classes=3).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    export_onnx(model, tmp_path / "full.onnx")
    assert model.training  # the model is left as it was
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert export_onnx(model, tmp_path / "half.onnx", half=True) < 1e-3
    assert (tmp_path / "half.onnx").stat().st_size < 0.6 * (tmp_path / "full.onnx").stat().st_size
    images = faces(4)
    (full, _), (half, _) = (answers(tmp_path / f"{one}.onnx", images) for one in ("full", "half"))
    assert 0 < np.abs(full["logits"] - half["logits"]).max() < 1e-2 * np.abs(full["logits"]).max()


class Restless(nn.Module):
    """Its answer changes with each call, as no exported graph can."""

    calls = 0

    def forward(self, images):
        self.calls += 1
        return (images.float().mean((2, 3)) + self.calls,)


def test_a_graph_that_computes_something_else_is_refused():
    with pytest.raises(ValueError, match="differ from PyTorch's by"):
        to_onnx(Restless(), 8, ["logits"], half=False, card={})


def test_names_that_cannot_be_written(tmp_path):
    model = create_model("baseline")
    with pytest.raises(ValueError, match=r"ends in \.onnx, got 'model\.pt'"):
        export_onnx(model, tmp_path / "model.pt")
    (tmp_path / "there.onnx").write_text("mine")
    with pytest.raises(FileExistsError, match="is there already"):
        export_onnx(model, tmp_path / "there.onnx")
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(FileExistsError, match="is there already"):
        export_onnx(model, tmp_path / "folder.onnx")
    assert (tmp_path / "there.onnx").read_text() == "mine"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["folder.onnx", "there.onnx"]


def test_without_the_extra_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"pip install .fer_lab\[onnx\]"):
        export_onnx(create_model("baseline"), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_only_maps_over_the_face_are_exported():
    model = open_model("synthetic/dan")
    assert FromBytes(model).outputs == ["logits", "heads"]
    model.has_face_maps = False
    assert FromBytes(model).outputs == ["logits"]
    assert FromBytes(open_model("synthetic/qcs")).outputs == ["logits", "class_token", "scales"]
