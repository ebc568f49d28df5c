"""How the reference numbers in tests/golden were made: weights and images from names and seeds; which methods
are the book's.
"""

import json
import zlib
from pathlib import Path

import numpy as np
import torch

from fer_lab.models.method import list_models, method_class

GOLDEN = Path(__file__).parents[1] / "golden"
GAIN = {"dan": 0.35, "poster": 0.7, "qcs": 0.7, "dcs": 0.7}


def book_methods() -> list[str]:
    """The methods of the book: `list_models` also names those that tests have registered before."""
    return [name for name in list_models() if method_class(name).__module__.startswith("fer_lab.")]


def golden(key: str) -> torch.Tensor:
    """One reference array, float64."""
    with np.load(GOLDEN / "golden.npz") as arrays:
        return torch.from_numpy(arrays[key])


def normal(seed: int, *shape: int) -> torch.Tensor:
    """Standard normal numbers from NumPy's legacy generator, float32."""
    return torch.from_numpy(np.random.RandomState(seed).standard_normal(shape).astype(np.float32))


def images(seed: int, n: int) -> torch.Tensor:
    """A reference batch [n,3,224,224]."""
    return normal(seed, n, 3, 224, 224)


def official_state(model: str) -> dict[str, torch.Tensor]:
    """A state dict in the authors' names, every tensor drawn from its own name."""
    shapes = json.loads((GOLDEN / f"{model}_parameters.json").read_text())
    gain = GAIN[model.split("-")[0]]
    state = {}
    for name, shape in shapes.items():
        z = normal(zlib.crc32(name.encode()) & 0x7FFFFFFF, *shape)
        if name.endswith("running_var"):
            z = torch.exp(0.1 * z)
        elif name.endswith("running_mean") or (len(shape) <= 1 and not name.endswith("weight")):
            z = 0.1 * z
        elif len(shape) <= 1:
            z = 1 + 0.1 * z
        else:
            z = gain * z / float(np.sqrt(np.prod(shape[1:])))
        state[name] = z
    return state


def assert_agrees(ours: torch.Tensor, key: str) -> None:
    """max |ours − reference| ≤ 1e-5 · max(1, max |reference|)."""
    reference = golden(key)
    assert ours.shape == reference.shape
    worst = (ours.double() - reference).abs().max().item()
    assert worst <= 1e-5 * max(1.0, reference.abs().max().item()), f"{key}: off by {worst:.2e}"


def face_resnet(dan_state):
    """A face-recognition ResNet-18 in its authors' names, with the trunk of DAN's reference state."""
    stem = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
    state = {}
    for name, value in dan_state.items():
        if name.startswith("features."):
            _, number, rest = name.split(".", 2)
            state[f"{stem[number]}.{rest}"] = value
    state["fc.weight"] = torch.zeros(10, 512)
    state["fc.bias"] = torch.zeros(10)
    return state
