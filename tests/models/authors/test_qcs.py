"""The authors' QCS and DCS files: old and new names, eight classes, recorder objects, hostile objects."""

import contextlib
import os
import sys
import types

import numpy as np
import pytest
import torch
from helpers.reference import official_state

from fer_lab.models import create_model
from fer_lab.models.authors import load_official
from fer_lab.models.authors.loading import read_state_dict
from fer_lab.models.authors.naming import Naming
from fer_lab.models.authors.qcs import qcs_names


@pytest.fixture(scope="module")
def state():
    return official_state("qcs-7")


@pytest.fixture(scope="module")
def model():
    return create_model("qcs", 7, "paper", official=True)


def test_newer_names_of_the_embeddings_load_alike(state):
    rename = Naming(qcs_names(depth=8)).rename
    for old, new in (("embed_q", "embed_1"), ("embed_k", "embed_2"), ("embed_v", "embed_3")):
        for name in [name for name in state if name.startswith(old)]:
            assert rename(name) == rename(name.replace(old, new)) is not None
    assert rename("embed_q.1.weight") == "embed_taps.0.1.weight"
    assert rename("embed_2.0.bias") == "embed_taps.1.bias"
    assert rename("embed_v.proj.weight") == "embed_taps.2.weight"
    assert rename("VIT_cross.blocks.7.mlp.fc2.bias") == "cross_branch.blocks.7.mlp.3.bias"
    assert rename("VIT_cross.blocks.7.conv.weight").startswith("#")
    assert rename("decoder.weight") is None


def test_eight_classes_and_their_extra_classifier(state):
    eight = {}
    for name, value in state.items():
        grown = name in ("VIT_base.head.linear.weight", "VIT_cross.head.linear.weight")
        grown |= name in ("VIT_base.head.linear.bias", "VIT_cross.head.linear.bias")
        eight["module." + name] = torch.cat([value, value[:1] + 1]) if grown else value
    eight["module.fusion.classifier.weight"] = torch.zeros(8, 4)
    model = create_model("qcs", 8, "paper")
    report = load_official(model, {"state_dict": eight}, order="affectnet")
    assert "fusion.classifier.weight" in report.ignored
    # AffectNet's second label is happiness, its fourth surprise, which is ours of index 2.
    theirs = eight["module.VIT_cross.head.linear.bias"]
    assert model.cross_branch.classify.bias.tolist() == theirs[[0, 1, 3, 2, 6, 5, 4, 7]].tolist()
    with pytest.raises(ValueError, match=r"is \[8, 768\] in the checkpoint.*\[7, 768\]"):
        load_official(create_model("qcs", 7, "paper"), eight)


def test_another_form_is_refused_with_the_way_out(state):
    with pytest.raises(ValueError, match=r"QCS checkpoint and the model is dcs; use create_model\('qcs'"):
        load_official(create_model("dcs", 7, "paper"), state)
    with pytest.raises(ValueError, match="create the model with form='sd'"):
        load_official(create_model("qcs", 7, "paper", form="none"), state)
    with pytest.raises(ValueError, match="this is a QCS or DCS checkpoint; dan cannot take it"):
        load_official(create_model("dan", 7, "paper"), state)


def test_a_file_with_recorder_objects_is_read_without_their_code(state, model, tmp_path, monkeypatch):
    # A class of the script that was run, which pickle finds under __main__.
    kind = type("RecorderMeter1", (), {"__module__": "__main__"})
    recorder = kind()
    recorder.epoch_losses, recorder.current_epoch = np.zeros((3, 2), dtype=np.float32), 2
    path = tmp_path / "qcs.pth"
    with monkeypatch.context() as script:
        script.setattr(sys.modules["__main__"], "RecorderMeter1", kind, raising=False)
        content = {"epoch": 3, "state_dict": {"module." + k: v for k, v in state.items()}}
        torch.save({**content, "recorder": recorder}, path)
    loaded = read_state_dict(path)
    assert set(loaded) == set(state)
    report = load_official(model, path)
    assert len(report.ignored) == 32
    torch.testing.assert_close(model.cross[1].theta, state["cross_attention_2.theta"])


class Recorder:
    """Named like one, but with code."""

    def __reduce__(self):
        return os.system, ("echo > hostile",)

    def __setstate__(self, given):
        raise AssertionError("code of the file's class ran")


def test_a_recorder_that_would_run_code_is_refused(state, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "hostile.pth"
    torch.save({"state_dict": {"a": torch.zeros(1)}, "recorder": Recorder()}, path)
    with pytest.raises(ValueError, match="would have to run code to load is refused"):
        read_state_dict(path)
    assert not (tmp_path / "hostile").exists()


def test_a_function_named_like_a_recorder_never_runs(tmp_path, monkeypatch):
    module = types.ModuleType("theirs")
    calls = []
    module.Recorder = lambda *given: calls.append(given)
    module.Recorder.__module__, module.Recorder.__qualname__ = "theirs", "Recorder"
    monkeypatch.setitem(sys.modules, "theirs", module)

    class Calling:
        def __reduce__(self):
            return module.Recorder, (1,)

    path = tmp_path / "calling.pth"
    torch.save({"state_dict": {"a": torch.zeros(1)}, "recorder": Calling()}, path)
    with contextlib.suppress(ValueError):
        read_state_dict(path)
    assert calls == []
