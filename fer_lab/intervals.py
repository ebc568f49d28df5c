"""TODO."""

import math
from collections.abc import Sequence

import numpy as np

LEVEL = 0.95
# Resamples are drawn in pieces of about this many numbers, so that large sets fit into memory.
_PIECE = 4_000_000


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


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number, so that one false alarm among all of them is as rare as in one test.

    Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6, 1979:
    the i-th smallest of n is multiplied by n − i + 1, and none becomes smaller than one before it.
    """
    p_values = np.asarray(p_values, dtype=float)
    order = np.argsort(p_values, kind="stable")
    scaled = p_values[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty_like(scaled)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(scaled))
    return adjusted.tolist()


def seed_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float, float]:
    """(mean, low, high) of one number a seed, by Student's t; a single seed has no interval (NaN)."""
    from scipy import stats

    values = np.asarray(values, dtype=float)
    mean, n = float(values.mean()), len(values)
    if n < 2:
        return mean, math.nan, math.nan
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1) * values.std(ddof=1) / math.sqrt(n))
    return mean, mean - half, mean + half
