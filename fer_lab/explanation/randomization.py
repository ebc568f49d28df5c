"""Does a map depend on what was learned? Maps of a model whose weights are replaced by random ones.

If an untrained model gives the same map, it shows the picture, or the architecture, and not what was learned.
"""

import copy
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fer_lab.explanation.attribution import Target, classes_to_explain, explain
from fer_lab.models.layers import evaluating
from fer_lab.models.method import Method, method_class


def rank_correlation(first: Tensor, second: Tensor) -> Tensor:
    """Spearman's rank correlation of two maps of each face, [B,1,h,w] → float32 [B], −1…1.

    0 where one of the two maps is constant: it has no order. Raises ValueError for maps of different shapes.
    """
    from scipy.stats import rankdata

    if first.shape != second.shape or first.ndim != 4:
        raise ValueError(f"expected maps of one shape [B,1,h,w], got {list(first.shape)}, {list(second.shape)}")
    a, b = (torch.from_numpy(rankdata(one.flatten(1).cpu().numpy(), axis=1)) for one in (first, second))
    return F.cosine_similarity(a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)).float()


def weight_randomization(
    model: Method,
    images: Tensor,
    ways: Mapping[str, Mapping[str, Any]],
    *,
    target: Target = None,
    stages: int = 4,
    fresh: nn.Module | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Cascading randomisation (Adebayo et al., Sanity Checks for Saliency Maps, arXiv 1810.03292).

    From the answer down to the pixels, more and more layers get the weights of an untrained model, in `stages`
    equal parts: those of `fresh`, or of one built by `seed` with the model's name, size and options. At each
    stage the maps (`ways`: way → options for `explain`) are compared with the trained model's for the same
    class, by `rank_correlation` of what speaks for the class. A map that depends on what was learned ends near
    0. Returns a row a way, stage and face: way, stage (0…stages), share (of the layers that are random), face,
    correlation. Raises ValueError for fewer than one stage, another `fresh` network, or as `explain` does.
    """
    if stages < 1:
        raise ValueError(f"stages must be at least 1, got {stages}")
    target = classes_to_explain(model, images, target)
    fresh = _untrained(model, seed) if fresh is None else fresh
    layers = _layers_that_run(model, images[:1])
    partly, given = copy.deepcopy(model), fresh.state_dict()
    if {k: v.shape for k, v in given.items()} != {k: v.shape for k, v in model.state_dict().items()}:
        raise ValueError("the untrained model has other weights; build it with the trained one's options")

    trained: dict[str, Tensor] = {}
    tables = []
    for stage in range(stages + 1):
        random = layers[len(layers) - round(len(layers) * stage / stages) :]
        # Weights of modules that never run are replaced in the last stage.
        keys = given if stage == stages else [key for key in given if key.rpartition(".")[0] in random]
        partly.load_state_dict({key: given[key] for key in keys}, strict=False)
        for way, chosen in ways.items():
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


def _layers_that_run(model: nn.Module, images: Tensor) -> list[str]:
    """Names of the modules with weights of their own, in the order in which they start in a forward pass."""
    own = {module: name for name, module in model.named_modules() if list(module.parameters(recurse=False))}
    order: dict[str, None] = {}

    def note(module: nn.Module, _inputs: Any) -> None:
        order.setdefault(own[module])

    with ExitStack() as hooks, evaluating(model), torch.no_grad():
        for module in own:
            hooks.enter_context(module.register_forward_pre_hook(note))
        model(images)
    return list(order)
