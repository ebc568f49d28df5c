"""Does a map depend on what was learned? Maps of a model whose weights are replaced by random ones.

If an untrained model gives the same map, the map shows the picture, or the architecture, and not what the model
has learned: Adebayo et al., Sanity Checks for Saliency Maps, NeurIPS 2018, https://arxiv.org/abs/1810.03292
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from fer_lab.explanation.attribution import classes_to_explain, explain
from fer_lab.models.layers import evaluating
from fer_lab.models.method import Method, method_class


def rank_correlation(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Spearman's rank correlation of two maps of each face, [B,1,h,w] → float32 [B], −1…1.

    0 where one of the two maps is constant: it has no order. Raises ValueError for maps of different shapes.
    """
    from scipy.stats import rankdata

    if first.shape != second.shape or first.ndim != 4:
        raise ValueError(
            f"expected two maps of one shape [B,1,h,w], got {list(first.shape)} and {list(second.shape)}"
        )
    a, b = (rankdata(one.flatten(1).cpu().numpy(), axis=1) for one in (first, second))
    a, b = (one - one.mean(1, keepdims=True) for one in (a, b))
    length = np.sqrt((a**2).sum(1) * (b**2).sum(1))
    together = np.divide((a * b).sum(1), length, out=np.zeros(len(a)), where=length > 0)
    return torch.from_numpy(together).float()


def weight_randomization(
    model: Method,
    images: torch.Tensor,
    ways: Sequence[str] | Mapping[str, Mapping],
    *,
    target: int | torch.Tensor | None = None,
    stages: int = 4,
    fresh: nn.Module | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Cascading randomisation (Adebayo et al., Sanity Checks for Saliency Maps, arXiv 1810.03292).

    From the answer down to the pixels, more and more layers get the weights of an untrained model. At each
    stage the map is compared with the trained model's map for the same class, by `rank_correlation` of what
    speaks for the class. A map that depends on what was learned ends near 0. Returns a row a way, stage and
    face: way, stage (0…stages), share (of the layers that are random), face, correlation. Raises ValueError for
    fewer than one stage, a model whose weights differ in shape from `fresh`'s, or as `explain` does.

    Args:
        ways: some of `attribution.WAYS`, or way → options for `explain`.
        target: as in attribution.py; None is the class that the trained model predicts.
        stages: number of parts, equal up to rounding, in which the layers are randomised.
        fresh: an untrained model; None builds one from the model's name, size and options.
        seed: of its weights.
    """
    if stages < 1:
        raise ValueError(f"stages must be at least 1, got {stages}")
    options = ways if isinstance(ways, Mapping) else {way: {} for way in ways}
    target = classes_to_explain(model, images, target)
    fresh = _untrained(model, seed) if fresh is None else fresh
    layers = _layers_that_run(model, images[:1])
    partly, given = copy.deepcopy(model), fresh.state_dict()
    if {k: v.shape for k, v in given.items()} != {k: v.shape for k, v in model.state_dict().items()}:
        raise ValueError(
            "the untrained model has other weights than the trained one; build it with the same options"
        )

    trained: dict[str, torch.Tensor] = {}
    tables = []
    for stage in range(stages + 1):
        random = layers[len(layers) - round(len(layers) * stage / stages) :]
        # Weights of modules that never run are replaced in the last stage.
        keys = given if stage == stages else [key for key in given if key.rpartition(".")[0] in random]
        partly.load_state_dict({key: given[key] for key in keys}, strict=False)
        for way, chosen in options.items():
            maps = explain(partly, images, way, target=target, **chosen).clamp(min=0)
            alike = rank_correlation(trained.setdefault(way, maps), maps).numpy()
            columns = {"way": way, "stage": stage, "share": stage / stages, "face": range(len(images))}
            tables.append(pd.DataFrame({**columns, "correlation": alike}))
    return pd.concat(tables, ignore_index=True)


def _untrained(model: Method, seed: int) -> Method:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        # Not by create_model, which may load bundled weights into a part of the model.
        fresh = method_class(model.name)(num_classes=model.num_classes, size=model.size, **model.options)
    return fresh.to(next(model.parameters()).device)


def _layers_that_run(model: nn.Module, images: torch.Tensor) -> list[str]:
    """Names of the modules with weights of their own, in the order in which they start in a forward pass."""
    order: list[str] = []

    def note(name: str) -> Callable[[nn.Module, Any], None]:
        def hook(_module: nn.Module, _inputs: Any) -> None:
            if name not in order:
                order.append(name)

        return hook

    with ExitStack() as hooks, evaluating(model), torch.no_grad():
        for name, module in model.named_modules():
            if next(module.parameters(recurse=False), None) is not None:
                hooks.enter_context(module.register_forward_pre_hook(note(name)))
        model(images)
    return order
