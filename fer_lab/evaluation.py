"""Predictions, metrics with 95 % intervals, and comparisons of two models.

Every metric is a function of sums over faces (cells of the confusion matrix, calibration bins), so one
matrix product gives it for a thousand resamples at once. torchmetrics computes one sample at a time and
costs a second to import; tests hold that both agree, and where they must not:
- mean class recall is over the classes that occur in the truth. torchmetrics and scikit-learn also count a
  class that only occurs among the predictions, as a recall of 0. Macro F1 does count such a class.
- calibration bins are closed on the right, as in the paper. torchmetrics closes them on the left, and
  probabilities of exactly 1 get a bin of their own.

Intervals come from the bootstrap over faces: BCa (Efron, JASA 1987), as in scipy.stats.bootstrap, which
cannot share resamples between metrics. Faces count as independent, which several pictures of one person
are not. Two exceptions, both measured:
- calibration error is biased upwards, in a resample more than in the sample. Simulated with 300 faces and
  true errors of 0, 0.02 and 0.08, the percentile interval holds the truth in 0, 0 and 76 % of the cases, BCa
  in 0, 1 and 89 %, and the reflected interval 2·value − quantile, widened to its value, in 54, 82 and 91 %
  (with 3000 faces 64, 89 and 95 %). The last is used here; near 0 it still promises too much.
- with every face right (or wrong) all resamples agree and the bootstrap says "no uncertainty": accuracy and
  recall then get the exact binomial interval of Clopper and Pearson; the other metrics, no width.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from fer_lab.data.faces import FaceSet
from fer_lab.data.progress import progress
from fer_lab.hardware import best_device
from fer_lab.models.fuse import fuse
from fer_lab.models.method import Method
from fer_lab.runs import Predictions
from fer_lab.training import in_order

__all__ = [
    "Comparison",
    "Predictions",
    "compare",
    "confusion_matrix",
    "evaluate",
    "predict",
]

BINS = 15
LEVEL = 0.95
OVERALL = ("accuracy", "mean_class_recall", "macro_f1", "ece")
# Resamples are drawn in pieces of about this many numbers, so that large sets fit into memory.
_PIECE = 4_000_000


@torch.no_grad()
def predict(
    model: Method,
    faces: FaceSet,
    *,
    batch_size: int = 256,
    device: torch.device | str | None = None,
    embeddings: bool = False,
) -> Predictions:
    """Class probabilities of every face, in the set's order, in float32.

    Args:
        model: works in eval mode, in the form that `fuse` gives it; its own modes are left alone.
        faces: resized and ordered (RGB or BGR) as the model asks.
        device: where to compute; None is the best there is. The model stays where it is.
        embeddings: also keep `model.embed`, which runs the network a second time.

    Raises:
        ValueError: no faces, other classes than the model's, or outputs that are not finite.
    """
    _check_classes(model, faces)
    device = torch.device(best_device() if device is None else device)
    loader = in_order(model, faces, device=device, batch_size=batch_size)
    network = fuse(model).to(device)
    outputs, embedded = [], []
    for batch in progress(loader, "predict"):
        outputs.append(network(batch.images).float().softmax(1).cpu())
        if embeddings:
            embedded.append(network.embed(batch.images).float().cpu())
    probabilities = torch.cat(outputs)
    if broken := int((~probabilities.isfinite()).any(1).sum()):
        raise ValueError(
            f"{model.name} gave numbers that are not finite for {broken} of {len(faces)} faces; "
            "its weights are broken, or its precision is too low"
        )
    return Predictions(
        probabilities=probabilities.numpy(),
        labels=faces.labels.numpy(),
        classes=tuple(faces.classes),
        name=faces.name,
        fingerprint=faces.fingerprint,
        rows=faces.rows.numpy(),
        embeddings=torch.cat(embedded).numpy() if embeddings else None,
    )


def _check_classes(model: Method, faces: FaceSet) -> None:
    if model.num_classes != faces.num_classes:
        raise ValueError(
            f"{model.name} has {model.num_classes} classes, but {faces.name} has {faces.num_classes}; "
            "load the faces with num_classes as the model's"
        )
    ours, theirs = tuple(model.classes), tuple(faces.classes)
    if ours != theirs and sorted(ours) == sorted(theirs):
        raise ValueError(f"{model.name} orders its classes {ours}, {faces.name} {theirs}")


def confusion_matrix(predictions: Predictions) -> np.ndarray:
    """Counts int64 [C,C]: rows are the truth, columns what was predicted."""
    c = len(predictions.classes)
    cells = predictions.labels * c + predictions.predicted
    return np.bincount(cells, minlength=c * c).reshape(c, c)


def evaluate(
    predictions: Predictions, *, resamples: int = 1000, seed: int = 0, interval: bool = True
) -> pd.DataFrame:
    """All metrics as a long table with columns metric, class ("" for all), value, low, high.

    accuracy; mean_class_recall over the classes in the truth; macro_f1 over the classes in the truth or
    among the predictions; ece, the expected calibration error over 15 bins of equal width (Guo et al.,
    ICML 2017, arXiv 1706.04599, eq. 3); recall, a row a class, NaN for a class not in the truth.

    Args:
        resamples: of the faces, with replacement, shared by all metrics.
        seed: of the resampling.
        interval: False leaves low and high NaN.

    Raises:
        ValueError: no faces.
    """
    c = len(predictions.classes)
    features = _features(predictions)
    whole = features.sum(0, keepdims=True, dtype=np.float64)
    values = _scores(whole, c)[0]
    low = high = np.full_like(values, np.nan)
    if interval:
        drawn = np.concatenate([_scores(sums, c) for sums in _resample(features, resamples, seed)])
        left_out = _scores(whole - features, c)
        low, high = _intervals(values, drawn, left_out)
        ece = OVERALL.index("ece")
        ends = np.quantile(drawn[:, ece], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        low[ece], high[ece] = np.maximum(2 * values[ece] - ends[::-1], 0)
        groups = predictions.labels == np.arange(c)[:, None]
        for i, group in [(0, np.full(len(predictions), True)), *enumerate(groups, start=len(OVERALL))]:
            if group.any() and values[i] in (0, 1):
                low[i], high[i] = binomial_interval(int(predictions.correct[group].sum()), int(group.sum()))
        low, high = np.minimum(low, values), np.maximum(high, values)
    return pd.DataFrame(
        {
            "metric": [*OVERALL, *["recall"] * c],
            "class": [*[""] * len(OVERALL), *predictions.classes],
            "value": values,
            "low": low,
            "high": high,
        }
    )


def _features(predictions: Predictions) -> np.ndarray:
    """What each face adds to the sums, float32 [N, C·C + 15]: its confusion cell, then confidence − correct
    in its calibration bin."""
    n, c = predictions.probabilities.shape
    if not n:
        raise ValueError(f"there are no predictions on {predictions.name} to evaluate")
    confidence = predictions.probabilities.max(1)
    bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    features = np.zeros((n, c * c + BINS), dtype=np.float32)
    faces = np.arange(n)
    features[faces, predictions.labels * c + predictions.predicted] = 1
    features[faces, c * c + bins] = confidence - predictions.correct
    return features


def _scores(sums: np.ndarray, c: int) -> np.ndarray:
    """Metrics [R, 4 + C] from sums of features [R, C·C + 15]: `OVERALL`, then each class's recall."""
    sums = sums.astype(np.float64)
    confusion = sums[:, : c * c].reshape(-1, c, c)
    right = np.diagonal(confusion, axis1=1, axis2=2)
    truth, said = confusion.sum(2), confusion.sum(1)
    total = truth.sum(1)
    with np.errstate(invalid="ignore"):
        recall = right / truth
        f1 = 2 * right / (truth + said)
    overall = [
        right.sum(1) / total,
        _mean_of_known(recall),
        _mean_of_known(f1),
        np.abs(sums[:, c * c :]).sum(1) / total,
    ]
    return np.column_stack([*overall, recall])


def _mean_of_known(values: np.ndarray) -> np.ndarray:
    """Mean over axis 1 of what is not NaN."""
    known = ~np.isnan(values)
    return np.where(known, values, 0).sum(1) / known.sum(1)


def _resample(features: np.ndarray, resamples: int, seed: int):
    """Yield sums of features over faces drawn with replacement, [r,F] a piece, `resamples` in all."""
    n = len(features)
    if resamples < 100:
        raise ValueError(f"a 95 % interval needs at least 100 resamples, got {resamples}")
    rng = np.random.default_rng(seed)
    step = max(1, _PIECE // n)
    for start in range(0, resamples, step):
        r = min(step, resamples - start)
        chosen = rng.integers(n, size=(r, n)) + np.arange(r)[:, None] * n
        times = np.bincount(chosen.ravel(), minlength=r * n).reshape(r, n)
        yield times.astype(np.float32) @ features


def _intervals(values: np.ndarray, drawn: np.ndarray, left_out: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """BCa intervals of M statistics (Efron, JASA 1987; Efron & Tibshirani 1993, eqs. 14.9, 14.14 and 14.15).

    Args:
        values: [M], on the whole sample.
        drawn: [R,M], on the resamples; NaN where a resample does not have the statistic.
        left_out: [N,M], with one face left out.

    Returns:
        low [M], high [M]; NaN where the value is.
    """
    from scipy.stats import norm

    low, high = np.full_like(values, np.nan), np.full_like(values, np.nan)
    for i in np.flatnonzero(np.isfinite(values)):
        sample, jackknife = drawn[:, i], left_out[:, i]
        sample, jackknife = sample[~np.isnan(sample)], jackknife[~np.isnan(jackknife)]
        if np.ptp(sample) == 0:
            low[i] = high[i] = values[i]
            continue
        # Ties count half: on few faces many resamples give the very value.
        below = ((sample < values[i]).mean() + (sample <= values[i]).mean()) / 2
        bias = norm.ppf(np.clip(below, 0.5 / len(sample), 1 - 0.5 / len(sample)))
        spread = jackknife.mean() - jackknife
        scale = (spread**2).sum()
        acceleration = (spread**3).sum() / (6 * scale**1.5) if scale > 0 else 0.0
        z = bias + norm.ppf([(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        low[i], high[i] = np.quantile(sample, norm.cdf(bias + z / (1 - acceleration * z)))
    return low, high


def binomial_interval(right: int, total: int) -> tuple[float, float]:
    """Exact 95 % interval (Clopper & Pearson, 1934) of a share of which `right` of `total` were seen."""
    from scipy.stats import binomtest

    return tuple(binomtest(right, total).proportion_ci(LEVEL, method="exact"))


@dataclass(frozen=True)
class Comparison:
    """Two models on the same faces.

    Attributes:
        table: metric (accuracy, mean_class_recall), first, second, difference (first − second), low, high.
        only_first, only_second: faces that only one of the two has right.
        p_value: exact McNemar, two-sided: how likely so unequal a split of these faces is by chance.
    """

    table: pd.DataFrame
    only_first: int
    only_second: int
    p_value: float


def compare(first: Predictions, second: Predictions, *, resamples: int = 1000, seed: int = 0) -> Comparison:
    """Difference of two models with a paired bootstrap (both on the same resampled faces), and McNemar's test.

    It speaks of these two trained models. Whether a method is better than another is a question to several
    seeds of each.

    Raises:
        ValueError: predictions on different faces, or none.
    """
    from scipy.stats import binomtest

    same = first.fingerprint == second.fingerprint and first.classes == second.classes
    if (
        not same
        or not np.array_equal(first.rows, second.rows)
        or not np.array_equal(first.labels, second.labels)
    ):
        raise ValueError(
            f"predictions are on different faces: {first.name} {first.fingerprint} ({len(first)}) and "
            f"{second.name} {second.fingerprint} ({len(second)}); predict with both models on one set"
        )
    c, metrics = len(first.classes), 2
    features = np.concatenate([_features(first), _features(second)], axis=1)

    def both(sums: np.ndarray) -> np.ndarray:
        halves = np.split(sums, 2, axis=1)
        return np.stack([_scores(half, c)[:, :metrics] for half in halves])

    def difference(sums: np.ndarray) -> np.ndarray:
        a, b = both(sums)
        return a - b

    whole = features.sum(0, keepdims=True, dtype=np.float64)
    a, b = both(whole)[:, 0]
    drawn = np.concatenate([difference(sums) for sums in _resample(features, resamples, seed)])
    low, high = _intervals(a - b, drawn, difference(whole - features))
    table = pd.DataFrame(
        {"metric": OVERALL[:metrics], "first": a, "second": b, "difference": a - b, "low": low, "high": high}
    )
    only_first = int((first.correct & ~second.correct).sum())
    only_second = int((second.correct & ~first.correct).sum())
    discordant = only_first + only_second
    p_value = float(binomtest(only_first, discordant).pvalue) if discordant else 1.0
    return Comparison(table, only_first, only_second, p_value)
