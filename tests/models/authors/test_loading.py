import pickle

import pytest
import torch
from helpers.reference import face_resnet, images, official_state

from fer_lab.data.expressions import ORDERS, from_canonical
from fer_lab.models import create_model
from fer_lab.models.authors import load_official


@pytest.fixture(scope="module")
def dan_state():
    return official_state("dan")


@pytest.fixture(scope="module")
def loaded(dan_state):
    model = create_model("dan", 7, "paper")
    report = load_official(model, dan_state)
    return model.eval(), report


def test_report_names_what_was_used_and_left(loaded, dan_state):
    _, report = loaded
    assert len(report.used) == len(dan_state)
    assert report.ignored == {}
    left = [n for n in report.untouched if not n.endswith("num_batches_tracked")]
    assert left == ["centers"]
    assert f"{len(dan_state)} tensors loaded" in str(report)


@torch.no_grad()
def test_order_permutes_the_head_into_the_canonical_order(loaded, dan_state):
    plain, _ = loaded
    model = create_model("dan", 7, "paper").eval()
    load_official(model, dan_state, order="rafdb")
    x = images(1, 2)
    rafdb_logits = plain(x)
    happiness = ORDERS["rafdb"].index("happiness")
    torch.testing.assert_close(model(x)[:, 1], rafdb_logits[:, happiness])
    torch.testing.assert_close(model(x), rafdb_logits[:, from_canonical("rafdb")])


def test_file_with_container_key_and_module_prefix(dan_state, tmp_path):
    path = tmp_path / "dan.pth"
    wrapped = {f"module.{k}": v for k, v in dan_state.items()}
    torch.save({"iter": 3, "model_state_dict": wrapped, "optimizer_state_dict": {"lr": 0.1}}, path)
    model = create_model("dan", 7, "paper")
    load_official(model, path)
    torch.testing.assert_close(model.fusion.fc.weight, dan_state["fc.weight"], rtol=0, atol=0)


def test_a_refused_checkpoint_changes_nothing(dan_state):
    model = create_model("dan", 7, "paper")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    for state, message in (
        (dan_state | {"surprise.weight": torch.zeros(2)}, r"surprise\.weight"),
        ({k: v for k, v in dan_state.items() if k != "bn.bias"}, r"lacks 1 tensors: fusion\.norm\.bias"),
        (dan_state | {"fc.weight": torch.zeros(8, 512)}, r"\[8, 512\].*\[7, 512\]"),
        ({k: v for k, v in dan_state.items() if "cat_head3" not in k}, "3 attention heads"),
        ({"weird": torch.zeros(1)}, "no known checkpoint"),
        ({"epoch": 3}, "no state dict"),
    ):
        with pytest.raises(ValueError, match=message):
            load_official(model, state)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_wrong_model_order_and_file(dan_state, tmp_path):
    with pytest.raises(ValueError, match="DAN checkpoint"):
        load_official(create_model("baseline", 7, "paper"), dan_state)
    with pytest.raises(ValueError, match="no expression classifier"):
        load_official(create_model("baseline", 7, "paper"), face_resnet(dan_state), order="rafdb")
    with pytest.raises(ValueError, match="unknown label order"):
        load_official(create_model("dan", 7, "paper"), dan_state, order="imagenet")
    with pytest.raises(FileNotFoundError, match=r"absent\.pth"):
        load_official(create_model("dan"), tmp_path / "absent.pth")
    (tmp_path / "text.pth").write_text("not a checkpoint")
    with pytest.raises(ValueError, match=r"text\.pth cannot be read"):
        load_official(create_model("dan"), tmp_path / "text.pth")


class Payload:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (open, (self.target, "w"))


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path):
    target = tmp_path / "written-by-payload"
    with open(tmp_path / "evil.pth", "wb") as file:
        pickle.dump({"model_state_dict": Payload(str(target))}, file)
    torch.save({"model_state_dict": Payload(str(target))}, tmp_path / "evil_zip.pth")
    for name in ("evil.pth", "evil_zip.pth"):
        with pytest.raises(ValueError, match="refused"):
            load_official(create_model("dan"), tmp_path / name)
    assert not target.exists()


@pytest.mark.parametrize(
    ("container", "prefix"),
    [
        (["state_dict"], "model."),
        (["state_dict"], "net._orig_mod."),
        (["model", "state_dict"], "_orig_mod.module.module."),
        (["state_dict"], "model.backbone."),
        (["state_dict_ema"], "module."),
        (["model_ema", "module"], ""),
        ([], "module.model."),
    ],
)
def test_wrappers_and_containers_are_taken_off(dan_state, container, prefix):
    content = {prefix + name: tensor for name, tensor in dan_state.items()}
    content |= {"n_averaged": torch.tensor(3), "criterion.weight": torch.ones(7)}
    for key in reversed(container):
        content = {key: content, "epoch": 3}
    model = create_model("dan", 7, "paper")
    with pytest.warns(UserWarning, match=r"n_averaged, criterion\.weight left out"):
        report = load_official(model, content)
    assert len(report.used) == len(dan_state)
    assert torch.equal(model.fusion.fc.weight, dan_state["fc.weight"])


def test_a_compiled_part_of_a_network_is_unwrapped(dan_state):
    state = {name.replace("features.", "features._orig_mod."): tensor for name, tensor in dan_state.items()}
    assert len(load_official(create_model("dan", 7, "paper"), state).used) == len(dan_state)
    with pytest.raises(ValueError, match="under the same name with and without _orig_mod or module"):
        load_official(create_model("dan", 7, "paper"), state | dan_state)


def test_the_running_average_is_preferred_and_said(dan_state):
    other = dan_state | {"fc.weight": dan_state["fc.weight"] + 1}
    model = create_model("dan", 7, "paper")
    with pytest.warns(UserWarning, match="holds state_dict_ema and state_dict; state_dict_ema, the running"):
        load_official(model, {"state_dict": dan_state, "state_dict_ema": other})
    assert torch.equal(model.fusion.fc.weight, other["fc.weight"])


def test_counters_of_batches_are_not_left(loaded):
    model, report = loaded
    assert any(name.endswith("num_batches_tracked") for name in model.state_dict())
    assert report.untouched == ("centers",)
    assert "1 of ours left as they were, in centers" in str(report)
