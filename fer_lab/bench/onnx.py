"""Networks as ONNX files against PyTorch: how near their logits are, and which is faster on one thread."""

import statistics
import time
from collections.abc import Sequence

import pandas as pd
import torch

from fer_lab._progress import progress
from fer_lab.bench.models import with_sizes
from fer_lab.models import create_model
from fer_lab.models.export import FromBytes, to_onnx
from fer_lab.models.inference import fuse
from fer_lab.models.method import SIZES

COLUMNS = ("model", "size", "difference", "plain", "folded", "onnx")


def bench_onnx(
    models: Sequence[str] | None = None, sizes: Sequence[str] = SIZES, *, batch: int = 4, rounds: int = 9
) -> pd.DataFrame:
    """Logits of the same random bytes in fp32, with random weights, on one thread; None takes all models.

    A model is left out of the sizes that it does not have. Returns a row a model and size, with the columns
    `COLUMNS`. difference is ONNX Runtime's largest one, as a share of the largest logit. The others are images
    a second of processor time, medians of rounds in which the ways take turns: PyTorch as it is (plain), as
    `fuse` makes it for `predict` (folded), and ONNX Runtime. Raises ValueError for an unknown model, or a size
    that none of them has, and ImportError where the extra `onnx` is not installed.
    """
    jobs = with_sizes(models, sizes)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rows = [(one, size, *_measure(one, size, batch, rounds)) for one, size in progress(jobs, "bench")]
    finally:
        torch.set_num_threads(threads)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _measure(name: str, size: str, batch: int, rounds: int) -> list[float]:
    model = create_model(name, size=size).eval()
    model.has_face_maps = False
    plain, folded = FromBytes(model), FromBytes(fuse(model))
    graph, difference = to_onnx(plain, plain.side, plain.outputs, half=False, card={})

    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    images = torch.randint(256, (batch, 3, plain.side, plain.side), dtype=torch.uint8)
    asked = {"images": images.numpy()}
    ways = (lambda: plain(images), lambda: folded(images), lambda: session.run(None, asked))
    times: list[list[float]] = [[] for _ in ways]
    with torch.inference_mode():
        for _ in range(rounds + 1):
            for way, taken in zip(ways, times, strict=True):
                start = time.process_time()
                way()
                taken.append(time.process_time() - start)
    # The first round warms up.
    return [difference, *(batch / statistics.median(taken[1:]) for taken in times)]
