"""Is a map right? Scores of maps against known places, and against the model's own answer.

A map may pass one and fail the other:
- `place_scores`: does the map mark the places where the expression is? Only for rendered faces are they known.
  A model may be right to look elsewhere, and a blob in the middle of every face scores rather well. Therefore
  every score comes with its chance level, and `priors` gives maps to beat.
- `probing_scores`: does the answer depend on the places that the map marks? Cells are replaced by those of the
  `blurred` face. This needs no truth, but the model was not trained on such faces.

Images and targets are as in attribution.py.
"""

import functools
import math
from collections.abc import Mapping, Sequence

import pandas as pd
import torch
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from fer_lab.explanation.attribution import Target, classes_to_explain
from fer_lab.explanation.maps import GRID, centre_prior, mass_in_regions, pointing_game, to_grid
from fer_lab.intervals import mean_interval
from fer_lab.models.layers import evaluating
from fer_lab.models.method import Method

Names = Sequence[str]
# Faces that run at once.
CHUNK = 256


def priors(faces: int, masks: Tensor | None = None) -> dict[str, Tensor]:
    """Maps that have not seen the face, each [B,1,7,7]: "chance", an even map; "centre", `centre_prior`.

    All cells of the even map tie, so the probing scores replace them in a random order. With the faces' known
    places, bool [B,S,S], there is "other", for each face the mean of all others' places.
    """
    even, centre = torch.ones(1, 1, GRID, GRID), centre_prior()
    maps = {name: one.expand(faces, -1, -1, -1) for name, one in (("chance", even), ("centre", centre))}
    if masks is None:
        return maps
    places = to_grid(masks[:, None].float(), GRID)
    return maps | {"other": (places.sum(0) - places) / (faces - 1)}


def place_scores(maps: Mapping[str, Tensor], masks: Tensor) -> pd.DataFrame:
    """Pointing game and share of mass of several maps of the same faces on one region.

    Only what speaks for the class counts, so values below zero are set to zero. A map that is then zero
    everywhere is scored as an even map. Maps [B,1,h,w] by way, and masks bool [B,S,S], such as the places that
    the active units move → a row a way and face: way, face, hit and mass (0…1), chance (the region's share of
    the picture), empty (whether the map was zero everywhere). Raises ValueError for shapes that do not match.
    """
    tables = []
    for way, signed in maps.items():
        _check_single(way, signed, len(masks))
        positive = signed.clamp(min=0)
        empty = (positive == 0).all(3).all(2)[:, 0]
        positive = torch.where(empty[:, None, None, None], torch.ones_like(positive), positive)
        hit, chance = pointing_game(positive, masks[:, None])
        share, _ = mass_in_regions(positive, masks[:, None])
        columns = {"hit": hit[:, 0, 0], "mass": share[:, 0, 0], "chance": chance[:, 0], "empty": empty}
        tables.append(_rows(way, columns))
    return pd.concat(tables, ignore_index=True)


def _check_single(way: str, maps: Tensor, faces: int) -> None:
    if maps.ndim != 4 or maps.shape[:2] != (faces, 1):
        raise ValueError(f"expected map {way!r} as [{faces},1,h,w], got {list(maps.shape)}")


def _rows(way: str, columns: Mapping[str, Tensor]) -> pd.DataFrame:
    values = {name: column.cpu().numpy() for name, column in columns.items()}
    return pd.DataFrame({"way": way, "face": range(len(next(iter(values.values())))), **values})


def blurred(images: Tensor) -> Tensor:
    """Images [B,3,S,S] without detail: a Gaussian blur whose standard deviation is one cell of the 7×7 grid.

    A head remains visible, but hardly an expression.
    """
    sigma = images.shape[-1] / GRID
    # The kernel reaches two deviations, and at most as far as reflecting the border can fill.
    reach = min(math.ceil(2 * sigma), images.shape[-1] - 1)
    return gaussian_blur(images, [2 * reach + 1] * 2, [sigma] * 2)


@torch.no_grad()
def perturbation_curves(
    model: Method,
    images: Tensor,
    maps: Tensor,
    *,
    target: Target = None,
    insertion: bool = False,
    steps: int = 7,
) -> Tensor:
    """Probability of the class while a map's cells are replaced, the largest first (RISE, arXiv 1806.07421).

    Maps [B,K,h,w] of any sign → float32 [B,K,steps+1], 0…1, from nothing replaced to everything, in parts equal
    up to rounding. Cells that tie go in a random order. `insertion` puts the face back into its blurred copy,
    cell by cell. Raises ValueError for another number of maps than images, or more steps than cells.
    """
    if maps.ndim != 4 or len(maps) != len(images):
        raise ValueError(f"expected maps [{len(images)},K,h,w], got {list(maps.shape)}")
    b, k, h, w = maps.shape
    if not 1 <= steps <= h * w:
        raise ValueError(f"steps must lie in 1…{h * w}, the map's cells, got {steps}")
    target = classes_to_explain(model, images, target)
    replacement = blurred(images)
    first, last = (replacement, images) if insertion else (images, replacement)
    generator = torch.Generator().manual_seed(0)
    tie = torch.rand(b, k, h * w, generator=generator).to(maps.device).argsort(dim=2)
    order = maps.flatten(2).gather(2, tie).argsort(dim=2, descending=True, stable=True)
    rank = tie.gather(2, order).argsort(dim=2).view(b, k, h, w)

    curves = torch.empty(b, k, steps + 1)
    for step, end in ((0, first), (steps, last)):
        curves[:, :, step] = answers(model, end).softmax(1).gather(1, target[:, None]).cpu()
    for step in range(1, steps):
        replaced = (rank < round(h * w * step / steps)).float()
        for i in range(k):
            mask = to_grid(replaced[:, i : i + 1], images.shape[2], images.shape[3])
            logits = answers(model, torch.lerp(first, last, mask))
            curves[:, i, step] = logits.softmax(1).gather(1, target[:, None])[:, 0].cpu()
    return curves


@torch.no_grad()
def answers(model: Method, images: Tensor) -> Tensor:
    """Logits of images in eval mode, float32 [B,C]."""
    with evaluating(model):
        return torch.cat([model(part).float() for part in images.split(CHUNK)])


def area(curves: Tensor) -> Tensor:
    """Area under curves [...,n] over 0…1, by the trapezoid rule: their mean height, [...]."""
    return torch.trapezoid(curves, dx=1 / (curves.shape[-1] - 1))


def probing_scores(
    model: Method, images: Tensor, maps: Mapping[str, Tensor], *, target: Target = None, steps: int = 7
) -> pd.DataFrame:
    """Areas under the deletion and insertion curves of several maps of the same faces.

    Maps [B,1,g,g] by way, all on one grid, of any sign → a row a way and face: way, face, deletion (0…1, lower
    is better), insertion (0…1, higher is better).
    """
    for way, one in maps.items():
        _check_single(way, one, len(images))
    together = torch.cat(list(maps.values()), dim=1)
    target = classes_to_explain(model, images, target)
    curves = functools.partial(perturbation_curves, model, images, together, target=target, steps=steps)
    scores = {"deletion": area(curves()), "insertion": area(curves(insertion=True))}
    tables = [_rows(way, {name: s[:, i] for name, s in scores.items()}) for i, way in enumerate(maps)]
    return pd.concat(tables, ignore_index=True)


def mean_over_faces(
    scores: pd.DataFrame, metrics: Names, *, by: Names = (), reference: str | None = None, seed: int = 0
) -> pd.DataFrame:
    """Means of scores over faces, with 95 % bootstrap intervals (BCa).

    The interval is about other faces like these and the same trained model. Scores that are the same for all
    faces get an interval without width, which is too narrow if the faces are few. NaN scores are left out.
    Returns a row a group, way and metric: the columns of `by`, way, metric, faces, value, low, high, and with a
    reference difference, difference_low, difference_high. Raises ValueError for missing columns, a group in
    which a way has a face twice, or a group without the reference.

    Args:
        scores: a row a way and face, as `place_scores` gives them.
        by: further columns that distinguish groups of faces, such as a model's name.
        reference: a way; adds the mean difference to it, paired by face, within each group.
    """
    keys = [*by, "way"]
    needed = [*keys, "face", *metrics]
    if missing := [name for name in needed if name not in scores.columns]:
        raise ValueError(f"the scores need columns {', '.join(needed)}; {', '.join(missing)} missing")
    if scores.duplicated([*keys, "face"]).any():
        raise ValueError(f"a face occurs twice in a group by {', '.join(keys)}; distinguish it by more columns")
    groups = {key: part.set_index("face") for key, part in scores.groupby(keys, sort=False)}
    rows = []
    for key, part in groups.items():
        other = groups.get((*key[:-1], reference))
        if reference is not None and other is None:
            raise ValueError(f"no way {reference!r} to compare {', '.join(map(str, key))} with")
        for metric in metrics:
            values = part[metric].astype(float)
            row = {**dict(zip(keys, key, strict=True)), "metric": metric, "faces": int(values.notna().sum())}
            row["value"], row["low"], row["high"] = mean_interval(values, seed=seed)
            if other is not None:
                gap = mean_interval(values - other[metric].astype(float), seed=seed)
                row["difference"], row["difference_low"], row["difference_high"] = gap
            rows.append(row)
    return pd.DataFrame(rows)


def better_than(
    rivals: Mapping[str, str],
    scores: pd.DataFrame,
    metrics: Sequence[str],
    *,
    rows: Sequence[str] = ("metric",),
    lower: Sequence[str] = (),
    seed: int = 0,
) -> pd.DataFrame:
    """How many maps score better than a rival, face by face, by more than the interval of the difference.

    `rivals`: title of a column → way. All other ways are counted, each once a model. `lower`: the metrics of
    which less is better. Returns "3 of 20" for each rival, and for all of them at once; `rows`: for what there
    is a row each, the metric, the way or both.
    """
    above = {}
    for title, rival in rivals.items():
        table = mean_over_faces(scores, metrics, by=["model"], reference=rival, seed=seed)
        table = table[~table["way"].isin(rivals.values())].set_index(["metric", "model", "way"])
        less = table.index.get_level_values("metric").isin(lower)
        above[title] = (table["difference_high"] < 0).where(less, table["difference_low"] > 0)
    every = pd.DataFrame(above).assign(**{"all of them": pd.DataFrame(above).all(axis=1)})
    return every.groupby(list(rows), sort=False).agg(lambda one: f"{one.sum()} of {len(one)}")
