"""The trained networks from which the papers start: ResNet-18, IR-50, MobileFaceNet."""

import pytest
import torch
from helpers.reference import face_resnet, normal, official_state

from fer_lab.models import create_model
from fer_lab.models.authors import load_official
from fer_lab.models.authors.naming import Naming
from fer_lab.models.authors.trunks import IR50, IR_UNIT, MOBILEFACENET, RESNET18


@pytest.fixture(scope="module")
def dan_state():
    return official_state("dan")


@pytest.fixture(scope="module")
def poster_state():
    return official_state("poster-small")


def test_face_resnet_fills_the_trunk_and_ignores_its_classifier(dan_state):
    model = create_model("baseline", 8, "paper")
    head = model.fc.weight.clone()
    report = load_official(model, {"state_dict": face_resnet(dan_state)})
    torch.testing.assert_close(
        model.trunk.layer4[1].conv2.weight, dan_state["features.7.1.conv2.weight"], rtol=0, atol=0
    )
    torch.testing.assert_close(model.fc.weight, head, rtol=0, atol=0)
    assert set(report.ignored) == {"fc.weight", "fc.bias"}
    assert "identities" in str(report)


def test_the_two_networks_that_it_starts_from(poster_state):
    ir50 = {k.removeprefix("ir_back."): v for k, v in poster_state.items() if k.startswith("ir_back.")}
    ir50["body.21.res_layer.1.weight"] = normal(0, 4, 4)
    mobile = {
        k.removeprefix("face_landback."): v for k, v in poster_state.items() if k.startswith("face_landback.")
    }
    model = create_model("poster", 8, "small")
    head = model.classify.weight.clone()
    first = load_official(model, ir50)
    assert "body.21.res_layer.1.weight" in first.ignored
    assert {name.split(".")[0] for name in first.used} == {"trunk"}
    second = load_official(model, {"state_dict": mobile})
    assert {name.split(".")[0] for name in second.used} == {"landmarks"}
    torch.testing.assert_close(
        model.trunk.stages[2][13].conv2.weight,
        poster_state["ir_back.body.20.res_layer.3.weight"],
        rtol=0,
        atol=0,
    )
    torch.testing.assert_close(
        model.landmarks.head.linear.weight,
        poster_state["face_landback.output_layer.linear.weight"],
        rtol=0,
        atol=0,
    )
    torch.testing.assert_close(model.classify.weight, head, rtol=0, atol=0)
    assert model.color_order == "RGB"


def test_a_face_recognition_trunk_fills_that_of_qcs_and_leaves_the_rest():
    model = create_model("qcs", 7, "paper", official=True)
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


def test_a_model_without_that_part_is_refused():
    tiny = create_model("poster")
    with pytest.raises(ValueError, match=r"IR-50 checkpoint; poster \(tiny\) has no such trunk"):
        load_official(tiny, {"input_layer.0.weight": normal(0, 64, 3, 3, 3)})
    with pytest.raises(ValueError, match=r"MobileFaceNet checkpoint; poster \(tiny\) has no such"):
        load_official(tiny, {"conv_6_sep.conv.weight": normal(0, 512, 128, 1, 1)})
    with pytest.raises(ValueError, match=r"ResNet-18 checkpoint; poster has no ResNet-18 trunk"):
        load_official(tiny, {"layer1.0.conv1.weight": normal(0, 64, 64, 3, 3)})


@pytest.mark.parametrize(
    ("names", "name", "ours"),
    [
        (RESNET18, "layer3.1.bn2.running_var", "layer3.1.bn2.running_var"),
        (RESNET18, "layer5.0.weight", None),
        (IR50, "body.0.res_layer.2.weight", "stages.0.0.activation.weight"),
        (IR50, "body.3.res_layer.0.bias", "stages.1.0.norm1.bias"),
        (IR50, "body2.0.res_layer.0.bias", "stages.1.0.norm1.bias"),
        (IR50, "body.7.shortcut_layer.1.bias", "stages.2.0.shortcut.1.bias"),
        (IR50, "body3.13.shortcut_layer.1.bias", "stages.2.13.shortcut.1.bias"),
        (IR50, "body.7.res_layer.5.bias", None),
        (IR50, "body.21.res_layer.0.bias", None),
        (IR50, "body4.0.res_layer.0.bias", None),
        (IR50, "elsewhere", None),
        (MOBILEFACENET, "conv_4.model.5.conv_dw.prelu.weight", "stages.1.6.depthwise.activation.weight"),
        (MOBILEFACENET, "conv_45.project.bn.bias", "stages.2.0.project.norm.bias"),
        (MOBILEFACENET, "conv_7.project.bn.bias", None),
    ],
)
def test_names(names, name, ours):
    assert Naming(names).rename(name) == ours
