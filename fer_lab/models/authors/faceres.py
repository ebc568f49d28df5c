"""HSE-FaceRes: the weights of a MobileNet-v1 that learned from VGGFace2, out of its TensorFlow.js graph.

The graph is the reader's own download (docs/data.md has the line, the licence and the terms). It is a chain of
27 convolutions with their BatchNorms folded in, each cut to 0…6; only the pooled features' part of it is read.
"""

import base64
import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from fer_lab._files import atomic_path
from fer_lab.data.augmentation import prepare
from fer_lab.data.synthetic import SyntheticFaces
from fer_lab.models.trunks import FaceRes
from fer_lab.models.weights import check_target

# Where the features end, and the ages and genders begin.
END = "global_pooling/Mean"
CONVOLUTIONS = {"Conv2D": False, "_FusedConv2D": False}
CONVOLUTIONS |= {"DepthwiseConv2dNative": True, "FusedDepthwiseConv2dNative": True}
SUMS = {"Add": 1, "AddV2": 1, "BiasAdd": 1, "Sub": -1}
# The graph has 60 kB and its numbers 14 MB.
MAX_GRAPH, MAX_NUMBERS = 2**23, 2**26
KEY = "fer_lab_trunk"
CARD = {
    "trunk": "faceres",
    "network": "HSE-FaceRes (A. Savchenko): MobileNet-v1, 3.2 million parameters",
    "learned": "ages and genders of faces of VGGFace2 (Cao et al. 2018)",
    "terms": "VGGFace2 is for research; the npm package that carries the graph is under the MIT licence",
    "limits": "Its faces are celebrities' from the web. Not for decisions about people.",
}
# BatchNorms get the statistics of this many rendered faces.
FACES = 256


def read_graph(path: str | Path) -> dict[str, Tensor]:
    """The weights in a graph and the files beside it, under `FaceRes`' names, with BatchNorms for training.

    In eval mode the network computes what the graph does. The graph no longer has the statistics that its
    BatchNorms divided by; they are measured on rendered faces and put back, so that the network can also go on
    learning. Raises FileNotFoundError, or ValueError for a file that is no such graph, holds an operation that
    is unknown here, or whose numbers are fewer than it says.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no graph at {path}")
    try:
        if path.stat().st_size > MAX_GRAPH:
            raise ValueError("it is too large")
        graph = json.loads(path.read_bytes())
        nodes = {node["name"]: node for node in graph["modelTopology"]["node"]}
        layers = _layers(nodes, _numbers(graph["weightsManifest"], path.parent))
    except (KeyError, TypeError, AttributeError, IndexError, RecursionError, ValueError, OSError) as error:
        said = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{path} is no graph of HSE-FaceRes: {said}") from error
    return _filled(layers, path)


def write_trunk(graph: str | Path, out: str | Path, *, force: bool = False) -> None:
    """Write the weights in a graph as safetensors, from which `trunk="faceres"` starts (`train --weights`).

    Raises as `read_graph`, ValueError for an `out` that is not .safetensors, and FileExistsError where it is
    there and not to be written over (`force`).
    """
    out = Path(out)
    check_target(out, force=force)
    tensors = {name: tensor.contiguous() for name, tensor in read_graph(graph).items()}
    numbers = hashlib.sha256()
    for group in json.loads(Path(graph).read_bytes())["weightsManifest"]:
        for name in group["paths"]:
            numbers.update((Path(graph).parent / name).read_bytes())
    card = {**CARD, "numbers": numbers.hexdigest()[:16]}
    with atomic_path(out, needed=sum(tensor.nbytes for tensor in tensors.values())) as temporary:
        safetensors.torch.save_file(tensors, temporary, metadata={KEY: json.dumps(card)})


def trunk_digest(path: Path) -> str:
    """Of the download that `write_trunk` made a file from; "" for a file that it did not write.

    The file's own digest differs between machines, in the last bits of the BatchNorms' statistics.
    """
    try:
        with safetensors.safe_open(path, "pt") as file:
            return json.loads((file.metadata() or {}).get(KEY, "{}")).get("numbers", "")
    except (safetensors.SafetensorError, OSError, ValueError, AttributeError):
        return ""


def _numbers(manifest: list[dict[str, Any]], folder: Path) -> dict[str, np.ndarray]:
    """Name → array: blobs back to back, quantised ones as scale · q + min."""
    numbers = {}
    for group in manifest:
        files = [folder / name for name in group["paths"]]
        if any(file.parent != folder for file in files):
            raise ValueError("its numbers lie outside its folder")
        if sum(file.stat().st_size for file in files) > MAX_NUMBERS:
            raise ValueError("its numbers are too large")
        data, start = b"".join(file.read_bytes() for file in files), 0
        for entry in group["weights"]:
            stored = entry.get("quantization", {})
            kind = np.dtype(stored.get("dtype", entry["dtype"])).newbyteorder("<")
            end = start + kind.itemsize * math.prod(entry["shape"])
            if not start <= end <= len(data):
                raise ValueError(f"{entry['name']} ends at byte {end:,}, but there are {len(data):,}")
            array = np.frombuffer(data[start:end], kind).astype(np.float32)
            array = array * stored.get("scale", 1) + stored.get("min", 0)
            numbers[entry["name"]] = array.reshape(entry["shape"]).astype(np.float32)
            start = end
        if start != len(data):
            raise ValueError(f"its numbers need {start:,} bytes, but there are {len(data):,}")
    return numbers


Layer = tuple[np.ndarray, np.ndarray, int]


def _layers(nodes: dict[str, Any], numbers: dict[str, np.ndarray]) -> list[Layer]:
    """Kernel [out,in,kh,kw], bias [out] and stride of each convolution, from the images on."""
    chain: list[dict[str, Any]] = []
    name = END
    while (node := nodes[name])["op"] != "Placeholder":
        if len(chain) > len(nodes):
            raise ValueError("it goes round in a circle")
        chain.append(node)
        name = node["input"][0].partition(":")[0]
    layers: list[Layer] = []
    clipped = 0
    for node in reversed(chain[1:]):
        op, others = node["op"], [numbers[name] for name in node["input"][1:]]
        if op in CONVOLUTIONS:
            axes = (2, 3, 0, 1) if CONVOLUTIONS[op] else (3, 2, 0, 1)
            kernel, stride = others[0].transpose(axes), int(node["attr"]["strides"]["list"]["i"][1])
            fused = node["attr"].get("fused_ops", {}).get("list", {}).get("s", [])
            steps = [base64.b64decode(step).decode() for step in fused]
            if unknown := set(steps) - {"BiasAdd", "Relu", "Relu6"}:
                raise ValueError(f"{node['name']} ends in {unknown.pop()}, which is unknown here")
            if node["attr"]["padding"]["s"] != base64.b64encode(b"SAME").decode():
                raise ValueError(f"{node['name']} has another padding than SAME")
            bias = others[1] if "BiasAdd" in steps else np.zeros(len(kernel), np.float32)
            layers.append((kernel, bias, stride))
            op = "Relu6" if "Relu6" in steps else op
        elif op == "Mul":
            kernel, bias, stride = layers.pop()
            layers.append((kernel * others[0].reshape(-1, 1, 1, 1), bias * others[0], stride))
        elif op in SUMS:
            kernel, bias, stride = layers.pop()
            layers.append((kernel, bias + SUMS[op] * others[0], stride))
        elif op not in ("Relu", "Relu6", "Minimum", "Maximum") or (op == "Maximum" and others[0].any()):
            raise ValueError(f"{node['name']} is a {op}, which is unknown here")
        clipped += op == "Relu6" or (op == "Minimum" and bool(others[0] == 6))
    if clipped != len(layers):
        raise ValueError(f"of its {len(layers)} convolutions {clipped} are cut to 0…6")
    return layers


def _filled(layers: list[Layer], path: Path) -> dict[str, Tensor]:
    trunk = FaceRes(56, grids=(4,)).eval()
    net: Any = trunk.net
    convolutions = [module for module in net.modules() if isinstance(module, nn.Conv2d)]
    shapes = [(list(module.weight.shape), module.stride[0]) for module in convolutions]
    if (found := [(list(kernel.shape), stride) for kernel, _, stride in layers]) != shapes:
        first = next((i for i, (a, b) in enumerate(zip(found, shapes, strict=False)) if a != b), len(found))
        raise ValueError(
            f"{path} is no graph of HSE-FaceRes: it has {len(found)} convolutions, MobileNet-v1 {len(shapes)}; "
            f"they differ from convolution {first + 1} on"
        )
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    for convolution, norm, (kernel, bias, _) in zip(convolutions, norms, layers, strict=True):
        convolution.weight.data = torch.from_numpy(np.ascontiguousarray(kernel))
        # What goes in comes out, plus the bias.
        norm.running_var = torch.ones_like(norm.weight) - norm.eps
        norm.bias.data = torch.from_numpy(np.array(bias))

    def measure(norm: nn.BatchNorm2d, inputs: tuple[Tensor]) -> None:
        mean, var = inputs[0].mean((0, 2, 3)), inputs[0].var((0, 2, 3), correction=0)
        after.append((norm, mean, var))

    after: list[tuple[nn.BatchNorm2d, Tensor, Tensor]] = []
    hooks = [norm.register_forward_pre_hook(measure) for norm in norms]
    faces = SyntheticFaces(n=FACES, size=56, seed=0)
    with torch.inference_mode():
        trunk(prepare(faces.take(range(FACES)), 56))
    for hook in hooks:
        hook.remove()
    for norm, mean, var in after:
        norm.running_mean, norm.running_var = mean.clone(), var.clone()
        norm.weight.data = (var + norm.eps).sqrt()
        norm.bias.data = norm.bias + mean
    return {name: tensor for name, tensor in net.state_dict().items() if "num_batches" not in name}
