"""A trained model as one ONNX file, for programs without PyTorch."""

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fer_lab._files import atomic_path
from fer_lab.data.augmentation import prepare
from fer_lab.models.method import Method
from fer_lab.models.weights import model_card

# Largest difference between ONNX Runtime's numbers and PyTorch's, as a share of an output's largest number.
TOLERANCE = 1e-4


class FromBytes(nn.Module):
    """RGB faces uint8 [B,3,S,S] → logits [B,C] and the maps that may be drawn over the face, each [B,K,h,w].

    The model's colour order and normalisation are inside.
    """

    def __init__(self, model: Method):
        super().__init__()
        self.model = model
        self.side = model.image_size
        shown = model.attention_maps(torch.zeros(1, 3, self.side, self.side)) if model.has_face_maps else {}
        self.outputs = ["logits", *(name.replace(" ", "_") for name in shown)]

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        ready = prepare(images, self.side, self.model.color_order)
        maps = self.model.attention_maps(ready).values() if self.model.has_face_maps else ()
        return self.model(ready), *maps


def export_onnx(model: Method, path: str | Path, *, half: bool = False) -> float:
    """Write a model as ONNX, after holding ONNX Runtime's numbers against PyTorch's.

    The graph takes "images", RGB faces uint8 [B,3,S,S] with any B and the model's own side S. It gives "logits"
    [B,C], and the model's maps over the face under their names, "_" for a space. The metadata "card" has
    `model_card` as JSON: method, classes in the order of the logits, colour order. `half` stores weights as
    float16; they are computed with in float32.

    Returns the largest difference of any number, as a share of the largest of its output. Raises ValueError for
    another suffix than .onnx, or a difference above 1e-4 (with `half` 1e-3), FileExistsError,
    ImportError where the extra `onnx` is not installed, and DiskFullError.
    """
    path = Path(path)
    if path.suffix != ".onnx":
        raise ValueError(f"an ONNX file's name ends in .onnx, got {path.name!r}")
    if path.exists():
        raise FileExistsError(f"{path} is there already; take another name, or remove it first")
    inner = FromBytes(copy.deepcopy(model).cpu().eval())
    graph, difference = to_onnx(inner, inner.side, inner.outputs, half=half, card=model_card(model))
    with atomic_path(path, len(graph)) as partial:
        partial.write_bytes(graph)
    return difference


def to_onnx(
    inner: nn.Module, side: int, outputs: Sequence[str], *, half: bool, card: dict[str, Any]
) -> tuple[bytes, float]:
    """A module like `FromBytes` as the bytes of an ONNX file, and the largest difference, as `export_onnx`."""
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise ImportError("writing ONNX needs its packages: pip install 'fer_lab[onnx]'") from error

    inner.eval()
    images = torch.randint(
        256, (3, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    names: dict[str, Any] = {"input_names": ["images"], "output_names": list(outputs)}
    any_batch = ({0: torch.export.Dim("batch")},)
    program = torch.onnx.export(inner, (images,), dynamic_shapes=any_batch, dynamo=True, verbose=False, **names)
    assert program is not None  # what dynamo=True gives
    graph = program.model_proto
    if half:
        _store_as_half(graph.graph)
    onnx.helper.set_model_props(graph, {"card": json.dumps(card)})
    onnx.checker.check_model(graph, full_check=True)
    written = graph.SerializeToString()
    session = onnxruntime.InferenceSession(written, providers=["CPUExecutionProvider"])
    worst = 0.0
    for part in (images, images[:1]):
        with torch.no_grad():
            expected = inner(part)
        for found, true in zip(session.run(None, {"images": part.numpy()}), expected, strict=True):
            worst = max(worst, float((torch.from_numpy(found) - true).abs().max() / true.abs().max()))
    # Rounded weights are another model: it may differ by what a half-precision number leaves out.
    if not worst <= (10 if half else 1) * TOLERANCE:
        raise ValueError(f"ONNX Runtime's numbers differ from PyTorch's by {worst:.1e} of the largest")
    return written, worst


def _store_as_half(graph: Any) -> None:
    """Float32 weights of an ONNX graph become float16, each behind a Cast back to float32, in place."""
    from onnx import TensorProto, helper, numpy_helper

    for weight in graph.initializer:
        if weight.data_type == TensorProto.FLOAT and numpy_helper.to_array(weight).size > 64:
            name = weight.name
            half = numpy_helper.to_array(weight).astype("float16")
            weight.CopyFrom(numpy_helper.from_array(half, f"{name}.half"))
            graph.node.insert(0, helper.make_node("Cast", [weight.name], [name], to=TensorProto.FLOAT))
