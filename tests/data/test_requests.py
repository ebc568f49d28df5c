"""Descriptions of faces, and load_faces."""

import dataclasses
from pathlib import Path

import pytest
import torch

from fer_lab.data import FaceRequest, load_faces


def test_rendered_faces_come_in_the_models_size():
    assert FaceRequest().sized(56).size == 56
    assert FaceRequest(size=112).sized(56).size == 112
    assert FaceRequest(dataset="ferplus").sized(56).size is None


def test_the_fingerprint_is_known_before_a_face_is_drawn():
    request = FaceRequest(count=20, size=56, knobs={"imbalance": 1.5})
    assert request.fingerprint() == request.load().fingerprint
    assert FaceRequest(dataset="ferplus").fingerprint() == ""


def test_data_has_what_chooses_the_faces_and_no_folder():
    rendered = FaceRequest(count=20, seed=1, rule="votes", skip_bad=True, knobs={"grey": 0.0})
    assert rendered.to_data() == {"dataset": "synthetic", "count": 20, "seed": 1, "knobs": {"grey": 0.0}}
    real = FaceRequest(dataset="ferplus", root=Path("/mine"), seed=1, classes=8)
    assert real.to_data() == {"dataset": "ferplus", "classes": 8, "rule": "majority"}
    part = dataclasses.replace(real, count=20)
    assert part.to_data() == {**real.to_data(), "count": 20, "seed": 1}
    assert FaceRequest().to_data() == {"dataset": "synthetic", "count": 4000}
    for request in (rendered, real, part):
        assert FaceRequest.from_data(request.to_data(), root=request.root).to_data() == request.to_data()


def test_load_faces_renders_and_reads(tmp_path):
    faces = load_faces(count=20, size=32, seed=3, imbalance=0)
    again = FaceRequest(count=20, size=32, seed=3, knobs={"imbalance": 0.0}).load()
    assert torch.equal(faces.images, again.images)
    assert faces.knobs["imbalance"] == 0
    from fer_lab.data.synthetic import write_folder

    write_folder(faces, tmp_path / "faces")
    assert len(load_faces("folder", str(tmp_path / "faces"), seed=9)) == 20
    with pytest.warns(UserWarning, match="18 of the 20 faces of folder are used, chosen by seed 9"):
        assert len(load_faces("folder", str(tmp_path / "faces"), count=18, seed=9)) == 18


def test_a_numbered_folder_keeps_its_order_and_test_share():
    request = FaceRequest(dataset="folder", root=Path("/mine"), order="rafdb", test_share=0.2)
    assert request.to_data() == {"dataset": "folder", "rule": "majority", "order": "rafdb", "test_share": 0.2}
    assert FaceRequest.from_data(request.to_data(), root=request.root) == request
    with pytest.raises(ValueError, match="rendered faces have their own order and splits"):
        load_faces(order="rafdb")


def test_a_share_of_the_training_faces_is_part_of_what_chooses_them(tmp_path):
    from fer_lab.data.synthetic import write_folder

    write_folder(load_faces(count=80, size=32, imbalance=0), tmp_path / "faces")
    whole = FaceRequest(dataset="folder", root=tmp_path / "faces", seed=4)
    part = dataclasses.replace(whole, train_share=0.5)
    assert part.to_data() == {"dataset": "folder", "rule": "majority", "train_share": 0.5, "seed": 4}
    assert FaceRequest.from_data(part.to_data(), root=part.root) == part
    few, every = part.load(), whole.load()
    assert len(few.split("test")) == len(every.split("test"))
    assert len(few.split("train")) == pytest.approx(len(every.split("train")) / 2, abs=4)
    assert few.fingerprint != every.fingerprint != dataclasses.replace(part, seed=5).load().fingerprint
    with pytest.raises(ValueError, match="rendered faces have their own order and splits"):
        load_faces(train_share=0.5)


def test_what_does_not_go_together_is_refused():
    with pytest.raises(ValueError, match="ferplus needs its folder: --data-root, or FER_DATA"):
        load_faces("ferplus")
    with pytest.raises(ValueError, match="unknown data set 'foo'; expected one of synthetic, ferplus, rafdb"):
        load_faces("foo")
    with pytest.raises(ValueError, match=r"only rendered faces have knobs; ferplus does not know \['grey'\]"):
        load_faces("ferplus", "somewhere", grey=0.5)
    with pytest.raises(ValueError, match="unknown knob gray; expected some of inter_class_similarity"):
        load_faces(gray=0.5)
    with pytest.raises(ValueError, match="size of the rendered faces are given by name"):
        FaceRequest(knobs={"size": 64}).load()
