"""Maps of what a class token takes from each place, beside the bare weights of the native map.

`weighed`: a large weight on a small value moves little. `rollout`: earlier layers have mixed the tokens that
the last one reads. `without_outliers`: in large vision transformers a few long tokens of the background collect
attention (sinks; Darcet et al., ICLR 2024, https://arxiv.org/abs/2309.16588).

They hold only where a token is still a place, in the layers of `Method.attention_path`; a model without any
raises ValueError. Images are as in attribution.py. Attention belongs to no class, so no target changes it.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import reduce
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fer_lab.explanation.maps import GRID, to_grid
from fer_lab.models.layers import evaluating, watch
from fer_lab.models.method import Method

if TYPE_CHECKING:
    import pandas as pd


def carried(weights: Tensor, values: Tensor, output: Tensor) -> Tensor:
    """‖Σ_h α_h W_h v_h‖, the length of what each token adds to a query (Kobayashi et al., arXiv 2004.10102).

    The query's weights α [B,H,M], values v [B,H,M,e] and the output's matrix W [d,H·e] → [B,M].
    """
    return F.linear((weights[..., None] * values).transpose(1, 2).flatten(2), output).norm(dim=-1)


def rolled_out(weights: Sequence[Tensor]) -> Tensor:
    """Attention rollout, Π (A + 1)/2, A the mean over the heads (Abnar & Zuidema, arXiv 2005.00928).

    Weights [B,H,N,N] of every layer, the first one first → [B,N,N], whose rows add up to 1.
    """
    steps = [(one.mean(1) + torch.eye(one.shape[-1], device=one.device)) / 2 for one in weights]
    return reduce(lambda before, step: step @ before, steps)


def outlying(norms: Tensor) -> Tensor:
    """Which norms [...,N] are more than three robust standard deviations above their median: bool [...,N]."""
    middle = norms.median(-1, keepdim=True).values
    return norms > middle + 3 * 1.4826 * (norms - middle).abs().median(-1, keepdim=True).values


@torch.no_grad()
def _layers(model: Method, images: Tensor) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Of each layer of the attention path: weights, values, its block's tokens [B,N,d], the output's matrix."""
    if not (path := model.attention_path):
        raise ValueError(f"{type(model).__name__} has no class token that reads places by attention")
    inputs: dict[nn.Module, Tensor] = {}

    def keep(module: nn.Module, given: Any) -> None:
        inputs[module] = given[-1]  # the values of an `Attend`, the tokens of a block

    found: list[tuple[Any, Any]] = [
        (model.get_submodule(name), model.get_submodule(name.rpartition(".")[0])) for name in path
    ]
    with ExitStack() as hooks, evaluating(model), watch(model) as weights:
        for layer, block in found:
            hooks.enter_context(layer.attend.register_forward_pre_hook(keep))
            hooks.enter_context(block.register_forward_pre_hook(keep))
        model(images)
    return [
        (weights[f"{name}.attend"], inputs[layer.attend], inputs[block], layer.proj.weight.detach())
        for name, (layer, block) in zip(path, found, strict=True)
    ]


def _places(model: Method, tokens: Tensor) -> Tensor:
    """[...,M] with the class token first → [...,K,7,7], K the number of grids."""
    count = model.attention_grids
    return tokens[..., 1 : 1 + count * GRID**2].unflatten(-1, (count, GRID, GRID))


def weighed(model: Method, images: Tensor, _target: Any = None) -> Tensor:
    """How much each place adds to the class token in the last layer, `carried`: [B,1,7,7], grids added up."""
    weights, values, _, output = _layers(model, images)[-1]
    return _places(model, carried(weights[:, :, 0], values, output)).sum(1, keepdim=True)


def rollout(model: Method, images: Tensor, _target: Any = None) -> Tensor:
    """What of each place has come to the class token, `rolled_out`: [B,1,7,7], grids added up.

    Raises ValueError for a model whose tokens are places in one layer alone: its rollout is the native map.
    """
    layers = _layers(model, images)
    if len(layers) < 2:
        raise ValueError(
            f"the tokens of {type(model).__name__} are places in one layer of attention alone, and a rollout "
            "over one layer is the native map"
        )
    return _places(model, rolled_out([weights for weights, *_ in layers])[:, 0]).sum(1, keepdim=True)


def without_outliers(model: Method, images: Tensor, _target: Any = None) -> Tensor:
    """The native weights without the `outlying` tokens of each grid: [B,H,7,7], grids added up."""
    weights, _, tokens, _ = _layers(model, images)[-1]
    out = outlying(_places(model, tokens.norm(dim=-1)).flatten(2)).unflatten(2, (GRID, GRID))
    return (_places(model, weights[:, :, 0]) * ~out[:, None]).sum(2)


_FUNCTIONS: tuple[Callable[..., Tensor], ...] = (weighed, rollout, without_outliers)
ATTENTION_WAYS = {function.__name__: function for function in _FUNCTIONS}


def token_norms(model: Method, images: Tensor) -> Tensor:
    """The length of every token that the last layer reads, a grid each: [B,K,7,7]."""
    return _places(model, _layers(model, images)[-1][2].norm(dim=-1))


def sinks(model: Method, images: Tensor, face: Tensor) -> "pd.DataFrame":
    """Are tokens beside the face long, and are they looked at? `face`: bool [B,S,S].

    A row a grid and kind of token: "face", more than half of its cell is face; "beside", nothing of it is;
    "outlying". Columns: grid, tokens, count (a face), beside (share of them, 0…1), and, where 1 is the mean
    token of the grid, norm (of the token), value (norm of what it offers to carry), attention (the weight).
    """
    import pandas as pd  # so that `predict` starts without it

    weights, values, tokens, output = _layers(model, images)[-1]
    offered = carried(torch.ones_like(values[..., 0]), values, output)
    seen = {"norm": tokens.norm(dim=-1), "value": offered, "attention": weights[:, :, 0].mean(1)}
    seen = {name: _places(model, one).flatten(2) for name, one in seen.items()}
    cover = to_grid(face[:, None].float(), GRID).flatten(2).expand_as(seen["norm"])
    kinds = {"face": cover > 0.5, "beside": cover == 0, "outlying": outlying(seen["norm"])}
    rows = []
    for k in range(model.attention_grids):
        for kind, chosen in kinds.items():
            at = chosen[:, k]
            means = {name: (one / one.mean(2, keepdim=True))[:, k][at].mean() for name, one in seen.items()}
            shares = {"count": at.sum(1).float().mean(), "beside": kinds["beside"][:, k][at].float().mean()}
            rows.append({"grid": k + 1, "tokens": kind} | {n: v.item() for n, v in (shares | means).items()})
    return pd.DataFrame(rows)
