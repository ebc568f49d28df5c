import copy
import shutil
import warnings

import pytest
import torch
from helpers.patterns import patterns
from torch import nn
from torchvision.ops import StochasticDepth

from fer_lab import _device
from fer_lab.bench import random_batch
from fer_lab.data.augmentation import Augmentation
from fer_lab.models import Recipe, create_model, list_models
from fer_lab.training import fit


def test_precision():
    assert _device.resolve_precision("fp32") == "fp32"
    assert _device.resolve_precision("bf16", "mps") == "bf16"
    assert _device.resolve_precision("auto") in ("fp32", "bf16")
    assert _device.resolve_precision("auto", "mps") == "fp32"


@pytest.mark.parametrize("native", [False, True])
def test_bf16_on_a_processor_without_units_for_it_is_warned_of(native, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        assert _device.resolve_precision("auto") == ("bf16" if native else "fp32")
        assert not seen
        assert _device.resolve_precision("bf16") == "bf16"
        assert _device.resolve_precision("fp32") == "fp32"
    assert ["no units for bf16" in str(one.message) for one in seen] == [True] * (not native)


@pytest.mark.parametrize(
    ("capability", "precision"), [((7, 5), "fp32"), ((8, 0), "bf16"), ((9, 0), "bf16"), ((12, 0), "bf16")]
)
def test_bf16_is_for_gpus_that_multiply_it(capability, precision, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
    assert _device.resolve_precision("auto", "cuda:0") == precision


@pytest.mark.parametrize(
    ("cuda", "mps", "best"),
    [(True, False, "cuda"), (False, True, "mps"), (False, False, "cpu"), (True, True, "cuda")],
)
def test_the_best_device(cuda, mps, best, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA H200")
    assert _device.best_device() == best
    assert _device.device_name() == {"cuda": "NVIDIA H200"}.get(best, best)


def test_a_clock_waits_for_the_device(monkeypatch):
    waited = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: waited.append("cuda"))
    monkeypatch.setattr(torch.mps, "synchronize", lambda: waited.append("mps"))
    for device in ("cpu", "cuda", "mps"):
        _device.synchronize(device)
    assert waited == ["cuda", "mps"]


def float32_flags():
    return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize(("allowed", "inside"), [(True, ("high", True)), (False, ("highest", False))])
def test_tensor_float_32_while_the_block_runs(allowed, inside):
    before = float32_flags()
    with _device.tensor_float_32("cuda:0", allowed):
        assert float32_flags() == inside
    assert float32_flags() == before
    with _device.tensor_float_32("cpu", allowed):
        assert float32_flags() == before


def without_chance(model):
    """Dropout and stochastic depth draw other numbers where they are compiled."""
    for module in model.modules():
        if isinstance(module, (nn.Dropout, StochasticDepth)):
            module.p = 0.0
    return model


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", list_models())
def test_every_method_becomes_one_graph_that_computes_the_same(name):
    torch.manual_seed(0)
    model = without_chance(create_model(name)).train()
    batch = random_batch(model, 3)
    found = []
    for losses in (
        model.training_losses,
        torch.compile(model.training_losses, backend="aot_eager", fullgraph=True),
    ):
        state = copy.deepcopy(model.state_dict())
        model.zero_grad()
        terms = losses(batch)
        terms["total"].backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        found.append((terms, [g.clone() for g in gradients]))
        model.load_state_dict(state)
    (plain, expected), (terms, gradients) = found
    assert terms.keys() == plain.keys()
    for key in plain:
        torch.testing.assert_close(terms[key], plain[key], rtol=1e-5, atol=1e-6)
    assert len(gradients) == len(expected)
    largest = max(g.abs().max() for g in expected)
    for gradient, other in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-5, atol=1e-5 * largest.item())


RECIPE = Recipe(epochs=2, batch_size=32, lr=0.05, momentum=0.9, augmentation=Augmentation(flip=0.5))


@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++"))), reason="there is no C++ compiler")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("changes", [{}, {"ema_decay": 0.9}, {"sam_rho": 0.05}])
def test_a_compiled_training_ends_with_the_same_weights(changes, tmp_path):
    ends = []
    for compile in (False, True):
        torch.manual_seed(0)
        model = without_chance(create_model("small", 3))
        run = fit(
            model, patterns(), patterns(), RECIPE.replace(compile=compile, **changes), tmp_path / str(compile)
        )
        assert run.config["recipe"]["compile"] is compile
        assert "training_losses" not in vars(model)
        ends.append((torch.cat([p.flatten() for p in model.parameters()]), run.history["total"]))
    (plain, losses), (weights, others) = ends
    torch.testing.assert_close(weights, plain, rtol=1e-4, atol=1e-5)
    assert others.tolist() == pytest.approx(losses.tolist(), rel=1e-4)


def test_what_is_compiled_is_the_method_and_only_for_the_block(monkeypatch):
    asked = []
    monkeypatch.setattr(_device.shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(
        torch, "compile", lambda f, **options: asked.append((f, options)) or (lambda *_: "fast")
    )
    model = create_model("small", 3)
    with _device.compiled(model, "training_losses", False):
        assert asked == []
    with _device.compiled(model, "training_losses"):
        assert model.training_losses(None) == "fast"
    assert asked == [(type(model).training_losses, {"dynamic": False})]
    assert model.training_losses.__func__ is type(model).training_losses


def test_without_a_compiler_it_says_so(monkeypatch):
    monkeypatch.setattr(_device.shutil, "which", lambda name: None)
    model = create_model("small", 3)
    with (
        pytest.raises(ValueError, match=r"needs a C\+\+ compiler"),
        _device.compiled(model, "training_losses"),
    ):
        pytest.fail("the block ran")
