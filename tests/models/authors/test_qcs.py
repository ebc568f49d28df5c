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
from fer_lab.models.authors.loading import load_official, read_state_dict
from fer_lab.models.authors.poster import IR_UNIT
from fer_lab.models.authors.qcs import qcs_name


@pytest.fixture(scope="module")
def state():
    return official_state("qcs-7")


@pytest.fixture(scope="module")
def model():
    return create_model("qcs", 7, "paper", official=True)


def test_newer_names_of_the_embeddings_load_alike(state):
    for old, new in (("embed_q", "embed_1"), ("embed_k", "embed_2"), ("embed_v", "embed_3")):
        for name in [name for name in state if name.startswith(old)]:
            assert qcs_name(name) == qcs_name(name.replace(old, new))
    assert qcs_name("embed_q.1.weight") == "embed_taps.0.1.weight"
    assert qcs_name("embed_2.0.bias") == "embed_taps.1.bias"
    assert qcs_name("embed_v.proj.weight") == "embed_taps.2.weight"
    assert qcs_name("embed_q.7") is not None
    assert qcs_name("decoder.weight") is None


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


def test_a_face_recognition_trunk_loads_and_leaves_the_rest(model):
    units = (3, 4, 14)
    state = {}
    for name, value in model.trunk.state_dict().items():
        place, _, rest = name.partition(".")
        if place == "stem":
            state[f"input_layer.{rest}"] = value + 1
            continue
        stage, unit, inner = rest.split(".", 2)
        part, _, kind = inner.rpartition(".")
        their = part.replace("shortcut", "shortcut_layer")
        if part in IR_UNIT:
            their = f"res_layer.{IR_UNIT.index(part)}"
        state[f"body.{sum(units[: int(stage)]) + int(unit)}.{their}.{kind}"] = value + 1
    before = model.base.classify.weight.clone()
    report = load_official(model, state)
    assert len(report.used) == len(model.trunk.state_dict())
    torch.testing.assert_close(model.trunk.stages[2][5].conv2.weight, state["body.12.res_layer.3.weight"])
    torch.testing.assert_close(model.base.classify.weight, before)
    with pytest.raises(ValueError, match=r"qcs \(tiny\) has no such trunk"):
        load_official(create_model("qcs"), state)


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
