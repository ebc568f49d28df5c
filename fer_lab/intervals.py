"""Every interval and adjusted p-value of the book: bootstrap over faces, Student's t over seeds, exact shares.

All intervals are at `LEVEL`. Faces and seeds answer different questions. An interval over faces is about other
faces like these for one trained model. An interval over seeds is about another training of the same method.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

LEVEL = 0.95
# Resamples are drawn in pieces of about this many numbers, so that large sets fit into memory.
_PIECE = 4_000_000


class Bootstrap(NamedTuple):
    """M statistics of a sample (value [M]), BCa intervals (low, high [M]), and R resamples (drawn [R,M]).

    NaN where the sample or a resample does not have the statistic.
    """

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    drawn: np.ndarray


def bootstrap(
    features: np.ndarray,
    statistics: Callable[[np.ndarray], np.ndarray],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> Bootstrap:
    """Statistics of sums over faces with BCa intervals; all statistics share the same resampled faces.

    A share [1] of N faces: `bootstrap(right[:, None], lambda sums: sums / len(right))`. Raises ValueError for
    fewer than 100 resamples.

    Args:
        features: [N,F], what each face adds to the sums.
        statistics: sums [R,F] → M numbers for each, [R,M].
        resamples: R, how often N faces are drawn with replacement.
    """
    if resamples < 100:
        raise ValueError(f"a 95 % interval needs at least 100 resamples, got {resamples}")
    n, rng = len(features), np.random.default_rng(seed)
    step = max(1, _PIECE // n)
    pieces = []
    for start in range(0, resamples, step):
        r = min(step, resamples - start)
        chosen = rng.integers(n, size=(r, n)) + np.arange(r)[:, None] * n
        times = np.bincount(chosen.ravel(), minlength=r * n).reshape(r, n)
        pieces.append(statistics(times.astype(np.float32) @ features))
    total = features.sum(0, keepdims=True, dtype=np.float64)
    value, drawn = statistics(total)[0], np.concatenate(pieces)
    low, high = _bca(value, drawn, statistics(total - features))
    return Bootstrap(value, low, high, drawn)


def _bca(value: np.ndarray, drawn: np.ndarray, left_out: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Low and high [M] of BCa intervals (Efron, JASA 1987; Efron & Tibshirani 1993, eqs. 14.9, 14.14, 14.15).

    `left_out` [N,M] are the statistics with one face left out; the rest is as in `Bootstrap`.
    """
    from scipy.stats import norm

    low, high = np.full_like(value, np.nan), np.full_like(value, np.nan)
    for i in np.flatnonzero(np.isfinite(value)):
        sample, jackknife = drawn[:, i], left_out[:, i]
        sample, jackknife = sample[~np.isnan(sample)], jackknife[~np.isnan(jackknife)]
        if np.ptp(sample) == 0:
            low[i] = high[i] = value[i]
            continue
        # Ties count half: on few faces many resamples give exactly the value of the sample.
        below = ((sample < value[i]).mean() + (sample <= value[i]).mean()) / 2
        bias = norm.ppf(np.clip(below, 0.5 / len(sample), 1 - 0.5 / len(sample)))
        spread = jackknife.mean() - jackknife
        scale = (spread**2).sum()
        acceleration = (spread**3).sum() / (6 * scale**1.5) if scale > 0 else 0.0
        z = bias + norm.ppf([(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        low[i], high[i] = np.quantile(sample, norm.cdf(bias + z / (1 - acceleration * z)))
    return low, high


def mean_interval(values: Sequence[float] | np.ndarray, *, seed: int = 0) -> tuple[float, float, float]:
    """(mean, low, high) of one number a face by `bootstrap`, without NaNs; equal numbers get no width."""
    x = np.asarray(values, dtype=float)
    x = x[~np.isnan(x)]
    if len(x) < 2 or np.ptp(x) == 0:
        mean = float(x.mean()) if len(x) else math.nan
        return mean, mean, mean
    features = np.column_stack([x, np.ones(len(x))])
    result = bootstrap(features, lambda sums: sums[:, :1] / sums[:, 1:], seed=seed)
    return float(result.value[0]), float(result.low[0]), float(result.high[0])


def reflected_interval(value: float, drawn: np.ndarray) -> tuple[float, float]:
    """(low, high) = 2·value − quantile, cut at 0, for a statistic ≥ 0 that resampling biases upwards.

    Such as the expected calibration error. `value` is the sample's, `drawn` [R] are the resamples'.
    """
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return max(2 * value - float(high), 0.0), max(2 * value - float(low), 0.0)


def binomial_interval(right: int, total: int) -> tuple[float, float]:
    """(low, high) of the share `right` / `total`, exact (Clopper & Pearson, Biometrika 26, 1934)."""
    from scipy.stats import binomtest

    ends = binomtest(right, total).proportion_ci(LEVEL, method="exact")
    return ends.low, ends.high


def seed_interval(values: Sequence[float] | np.ndarray) -> tuple[float, float, float]:
    """(mean, low, high) of one number a seed, by Student's t; a single seed has no interval (NaN)."""
    from scipy import stats

    x = np.asarray(values, dtype=float)
    mean, n = float(x.mean()), len(x)
    if n < 2:
        return mean, math.nan, math.nan
    half = float(stats.t.ppf((1 + LEVEL) / 2, n - 1) * x.std(ddof=1) / math.sqrt(n))
    return mean, mean - half, mean + half


class PairedDifference(NamedTuple):
    """Mean difference of two methods over n seeds, its Student's t interval, and the two-sided p-value."""

    difference: float
    low: float
    high: float
    p: float
    n: int


def paired_difference(a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray) -> PairedDifference:
    """Difference a − b of two methods, one number a seed each, in the same order of seeds, by paired t-test.

    A single seed has no interval and no p (NaN). Raises ValueError for no seeds, or not as many in a as in b.
    """
    from scipy import stats

    if len(a) != len(b) or not len(a):
        raise ValueError(f"expected one value of each method for every seed, got {len(a)} and {len(b)}")
    x = np.asarray(a, dtype=float) - np.asarray(b, dtype=float)
    difference, low, high = seed_interval(x)
    n = len(x)
    if n < 2:
        return PairedDifference(difference, low, high, math.nan, n)
    error = float(x.std(ddof=1)) / math.sqrt(n)
    # Without spread, t is 0 / 0 for equal methods and infinite for others.
    p = float(2 * stats.t.sf(abs(difference) / error, n - 1)) if error else float(difference == 0)
    return PairedDifference(difference, low, high, p, n)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for how many there are: one false alarm in all of them is as rare as in a single test.

    Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6, 1979:
    the i-th smallest of n is multiplied by n − i + 1, and none becomes smaller than one before it.
    """
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    scaled = p[order] * np.arange(len(p), 0, -1)
    adjusted = np.empty_like(scaled)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(scaled))
    return adjusted.tolist()


def equivalence_p(a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray, margin: float) -> float:
    """p-value of "a and b differ by less than `margin`", paired by seed; NaN for a single seed.

    Two one-sided t-tests; the larger p-value counts (Schuirmann, Journal of Pharmacokinetics and
    Biopharmaceutics 15, 1987). A small p shows equivalence. A large one shows nothing. The margin is above 0.
    """
    from scipy import stats

    x = np.asarray(a, dtype=float) - np.asarray(b, dtype=float)
    if len(x) < 2:
        return math.nan
    error = max(float(x.std(ddof=1)) / math.sqrt(len(x)), 1e-12)
    return float(stats.t.sf((margin - abs(x.mean())) / error, len(x) - 1))


def smallest_effect(spread: float, n: int, comparisons: int = 1, power: float = 0.8) -> float:
    """The smallest true difference that n paired seeds find with a given power, after Holm's first step.

    `spread` is the standard deviation of the paired differences; the level is 5 % divided by `comparisons`.
    """
    from scipy import stats

    level = (1 - LEVEL) / comparisons
    return float((stats.t.isf(level / 2, n - 1) + stats.t.ppf(power, n - 1)) * spread / math.sqrt(n))


def crossed_interval(differences: np.ndarray) -> tuple[float, float, float]:
    """(mean, low, high) of one number a seed and face, for other seeds and other faces at once.

    The variance of the mean is that over seeds, plus that over faces, minus that of single numbers, which the
    two share (Cameron, Gelbach & Miller, Journal of Business & Economic Statistics 29, 2011, for two-way
    clusters). The interval is Student's t, its degrees of freedom by Satterthwaite (Biometrics Bulletin 2,
    1946): a bootstrap of eight seeds never leaves their range and is too narrow. In simulations with 3 and 8
    seeds it holds the truth in 93 to 95 % of the cases. Takes [S,N] of S ≥ 2 seeds and N ≥ 2 faces.
    """
    from scipy import stats

    x = np.asarray(differences, dtype=float)
    seeds, faces = x.shape
    mean = float(x.mean())
    over_seeds = x.mean(1).var(ddof=1) / seeds
    over_faces = x.mean(0).var(ddof=1) / faces
    rest = x - x.mean(1, keepdims=True) - x.mean(0, keepdims=True) + mean
    single = float((rest**2).sum()) / ((seeds - 1) * (faces - 1)) / (seeds * faces)
    only_faces = max(over_faces - single, 0)
    variance = over_seeds + only_faces
    if variance == 0:
        return mean, mean, mean
    freedom = variance**2 / (over_seeds**2 / (seeds - 1) + only_faces**2 / (faces - 1))
    half = float(stats.t.isf((1 - LEVEL) / 2, freedom)) * math.sqrt(variance)
    return mean, mean - half, mean + half
