"""The names in trained networks from which a training can start.

ResNet-18 (DAN) and IR-50 (POSTER, QCS) were trained to recognise faces, MobileFaceNet (POSTER) to find 68
landmarks. Checkpoints of the papers contain IR-50 and MobileFaceNet, too. HSE-FaceRes is no paper's trunk, but
it can be had.
"""

from fer_lab.models.authors.naming import NAMES, Naming, State, inside
from fer_lab.models.baseline import Baseline
from fer_lab.models.dan import DAN
from fer_lab.models.method import Method
from fer_lab.models.poster import POSTER
from fer_lab.models.qcs import QCS
from fer_lab.models.trunks import FaceRes

RESNET18, GATED_CLASSIFIER = NAMES["resnet18"], NAMES["gated_classifier"]

IR_UNIT = ("norm1", "conv1", "activation", "conv2", "norm2")
_IR_UNIT = {"shortcut_layer": "shortcut"} | {f"res_layer.{i}": part for i, part in enumerate(IR_UNIT)}
IR50 = dict(NAMES["ir50"])
for _stage, (_first, _count) in enumerate(((0, 3), (3, 4), (7, 14))):
    for _unit in range(_count):
        # QCS's files count the units of each stage apart, all others count them through.
        for _theirs in (f"body.{_first + _unit}.", f"body{_stage + 1}.{_unit}."):
            IR50 |= inside(_theirs, f"stages.{_stage}.{_unit}.", _IR_UNIT)

MOBILEFACENET, _MOBILE_UNIT = dict(NAMES["mobilefacenet"]), NAMES["mobile_unit"]
for _stage, (_down, _count) in enumerate((("conv_23", 4), ("conv_34", 6), ("conv_45", 2))):
    MOBILEFACENET |= inside(f"{_down}.", f"stages.{_stage}.0.", _MOBILE_UNIT)
    for _unit in range(_count):
        _theirs = f"conv_{_stage + 3}.model.{_unit}."
        MOBILEFACENET |= inside(_theirs, f"stages.{_stage}.{_unit + 1}.", _MOBILE_UNIT)


def trunk_naming(model: Method, state: State) -> Naming | None:
    """The names in a file of one of the three; None for another file, ValueError if the model lacks it."""
    if "layer1.0.conv1.weight" in state:
        if not isinstance(model, DAN | Baseline):
            raise ValueError(f"this is a ResNet-18 checkpoint; {model.name} has no ResNet-18 trunk")
        return Naming(inside("", "trunk.", RESNET18), part="trunk.")
    if "input_layer.0.weight" in state:
        if not isinstance(model, POSTER | QCS) or model.size == "tiny":
            raise ValueError(f"this is an IR-50 checkpoint; {model.name} ({model.size}) has no such trunk")
        last = {f"body.{unit}": "#IR-50's last stage, which is not used" for unit in (21, 22, 23)}
        return Naming(inside("", "trunk.", IR50 | last), part="trunk.")
    if "conv_6_sep.conv.weight" in state:
        if not isinstance(model, POSTER) or model.size == "tiny" or model.landmarks is None:
            raise ValueError(
                f"this is a MobileFaceNet checkpoint; {model.name} ({model.size}) has no such landmark stream"
            )
        return Naming(inside("", "landmarks.", MOBILEFACENET), part="landmarks.")
    if "conv_stem.weight" in state:
        trunk = getattr(model, "trunk", None)
        if not isinstance(trunk, FaceRes):
            raise ValueError("this is HSE-FaceRes, for a model that is built with --option trunk=faceres")
        blocks = [f"blocks.{i}" for i in range(len(trunk.net.blocks))]
        names = {part: part for part in ("conv_stem", "bn1", *blocks)}
        names["blocks"] = "#a coarser grid than this model takes"
        return Naming(inside("", "trunk.net.", names), part="trunk.net.")
    return None
