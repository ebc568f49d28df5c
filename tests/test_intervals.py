"""Intervals and p-values against scipy, against hand-worked numbers, and by how often they hold the truth."""

import math

import numpy as np
import pytest
from scipy import stats

from fer_lab.intervals import (
    binomial_interval,
    bootstrap,
    crossed_interval,
    equivalence_p,
    holm,
    mean_interval,
    paired_difference,
    reflected_interval,
    seed_interval,
    smallest_effect,
)


def mean_of(x, **options):
    """Bootstrap of the mean: each face gives its value and a one."""
    return bootstrap(np.column_stack([x, np.ones(len(x))]), lambda sums: sums[:, :1] / sums[:, 1:], **options)


def test_the_bootstrap_of_a_skewed_mean_is_scipys_bca():
    x = np.random.default_rng(0).exponential(size=40)
    ours = mean_of(x, resamples=20_000)
    theirs = stats.bootstrap((x,), np.mean, n_resamples=20_000, random_state=np.random.default_rng(1))
    assert ours.value == pytest.approx([x.mean()])
    assert ours.drawn.shape == (20_000, 1)
    # A tenth of what BCa moves the upper end by here.
    assert ours.low[0] == pytest.approx(theirs.confidence_interval.low, abs=0.01)
    assert ours.high[0] == pytest.approx(theirs.confidence_interval.high, abs=0.01)
    assert ours.high[0] > np.quantile(ours.drawn, 0.975) + 0.02


def test_statistics_share_the_resamples():
    x = np.random.default_rng(0).normal(size=30)
    result = bootstrap(np.column_stack([x, x]), lambda sums: sums / 30)
    assert np.array_equal(result.drawn[:, 0], result.drawn[:, 1])


def test_the_seed_fixes_the_resamples():
    x = np.random.default_rng(0).normal(size=30)
    assert mean_of(x).low == mean_of(x).low != mean_of(x, seed=1).low


def test_the_interval_of_a_mean_leaves_out_what_is_unknown():
    x = np.random.default_rng(0).normal(size=30)
    result = mean_of(x)
    assert mean_interval([*x, math.nan]) == (result.value[0], result.low[0], result.high[0])
    assert mean_interval([0.5, math.nan, 0.5, 0.5]) == (0.5, 0.5, 0.5)
    assert mean_interval([0.3]) == (0.3, 0.3, 0.3)
    assert np.isnan(mean_interval([math.nan])).all()


def test_equal_values_have_no_width_and_unknown_ones_no_interval():
    result = bootstrap(np.ones((9, 1)), lambda sums: np.column_stack([sums / 9, sums * math.nan]))
    assert (result.value[0], result.low[0], result.high[0]) == (1, 1, 1)
    assert np.isnan([result.value[1], result.low[1], result.high[1]]).all()


def test_pieces_of_resampling_do_not_change_the_width(monkeypatch):
    x = np.random.default_rng(0).normal(size=400)
    whole = mean_of(x)
    monkeypatch.setattr("fer_lab.intervals._PIECE", 3000)
    pieces = mean_of(x)
    assert pieces.drawn.shape == whole.drawn.shape
    assert pieces.high == pytest.approx(whole.high, abs=0.01)
    with pytest.raises(ValueError, match="at least 100 resamples, got 99"):
        mean_of(x, resamples=99)


def test_the_reflected_interval_by_hand():
    drawn = np.linspace(0.1, 0.5, 401)  # quantiles 0.11 and 0.49
    assert reflected_interval(0.4, drawn) == pytest.approx((0.8 - 0.49, 0.8 - 0.11))
    assert reflected_interval(0.2, drawn) == pytest.approx((0.0, 0.4 - 0.11))


def test_clopper_and_pearson_by_hand():
    # Of n of n the lower end is 0.025^(1/n).
    assert binomial_interval(5, 5) == pytest.approx((0.025 ** (1 / 5), 1))
    assert binomial_interval(0, 5) == pytest.approx((0, 1 - 0.025 ** (1 / 5)))
    low, high = binomial_interval(7, 20)
    assert stats.binom.sf(6, 20, low) == pytest.approx(0.025)
    assert stats.binom.cdf(7, 20, high) == pytest.approx(0.025)


def test_t_covers_what_the_bootstrap_of_three_seeds_does_not():
    samples = np.random.default_rng(0).normal(size=(1000, 3))
    t = [low <= 0 <= high for _, low, high in map(seed_interval, samples)]
    assert 0.93 < np.mean(t) < 0.97
    result = stats.bootstrap(
        (samples,), np.mean, axis=1, n_resamples=200, batch=50, method="BCa", vectorized=True, random_state=0
    )
    interval = result.confidence_interval
    assert np.mean((interval.low <= 0) & (interval.high >= 0)) < 0.80


def test_a_single_seed_has_no_interval():
    mean, low, high = seed_interval([0.7])
    assert mean == 0.7
    assert math.isnan(low)
    assert math.isnan(high)
    alone = paired_difference([0.7], [0.5])
    assert (alone.difference, alone.n) == (pytest.approx(0.2), 1)
    assert np.isnan([alone.low, alone.high, alone.p]).all()


def test_a_paired_difference_is_the_paired_t_test():
    rng = np.random.default_rng(0)
    hard_seeds = rng.normal(size=5)
    a, b = hard_seeds + 0.3 + 0.1 * rng.normal(size=5), hard_seeds + 0.1 * rng.normal(size=5)
    result = paired_difference(a, b)
    theirs = stats.ttest_rel(a, b)
    assert result.p == pytest.approx(theirs.pvalue)
    assert (result.low, result.high) == pytest.approx(tuple(theirs.confidence_interval(0.95)))
    assert (result.difference, result.n) == (pytest.approx((a - b).mean()), 5)
    # Unpaired, the seeds' own spread hides the difference.
    assert result.p < 0.05 < stats.ttest_ind(a, b).pvalue


def test_equal_methods_differ_by_nothing_and_constant_differences_are_certain():
    assert paired_difference([0.5, 0.75, 1.0], [0.5, 0.75, 1.0]) == (0, 0, 0, 1, 3)
    assert paired_difference([0.5, 0.75, 1.0], [0.25, 0.5, 0.75]) == (0.25, 0.25, 0.25, 0, 3)
    for a, b in (([0.5], [0.5, 0.6]), ([], [])):
        with pytest.raises(ValueError, match=f"for every seed, got {len(a)} and {len(b)}"):
            paired_difference(a, b)


def test_holm_by_hand():
    # Sorted 0.01, 0.02, 0.04: times 3, 2, 1 = 0.03, 0.04, 0.04.
    assert holm([0.04, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    # 0.5 times 2 is cut at 1, and the last may not be smaller than the one before.
    assert holm([0.5, 0.6]) == [1.0, 1.0]


def test_equivalence_is_shown_in_as_few_false_cases_as_promised():
    rng = np.random.default_rng(0)
    at_the_margin = rng.normal(0.01, 0.005, (2000, 8))
    shown = np.mean([equivalence_p(x, np.zeros(8), 0.01) < 0.05 for x in at_the_margin])
    assert 0.03 < shown < 0.07
    assert equivalence_p(rng.normal(0, 0.002, 8), np.zeros(8), 0.01) < 1e-4
    assert np.isnan(equivalence_p([0.1], [0.1], 0.01))


def test_the_smallest_effect_is_found_four_times_in_five():
    effect = smallest_effect(0.01, 8)
    rng = np.random.default_rng(0)
    found = np.mean([paired_difference(x, np.zeros(8)).p < 0.05 for x in rng.normal(effect, 0.01, (2000, 8))])
    assert 0.76 < found < 0.84
    assert smallest_effect(0.01, 8, comparisons=8) > effect


@pytest.mark.parametrize("count", [3, 8])
@pytest.mark.parametrize("spread", [0.003, 0.01, 0.05])  # of the seeds; that of the mean over faces is 0.014
def test_a_crossed_interval_holds_the_truth_for_other_seeds_and_faces(count, spread):
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(1000):
        seeds, faces = rng.normal(0, spread, (count, 1)), rng.normal(0, 0.25, (1, 300))
        mean, low, high = crossed_interval(0.02 + seeds + faces + rng.normal(0, 0.1, (count, 300)))
        held += low <= 0.02 <= high
        assert low < mean < high
    assert 0.915 < held / 1000 < 0.98


def test_a_crossed_interval_of_one_number_has_no_width():
    assert crossed_interval(np.full((3, 50), 0.5)) == (0.5, 0.5, 0.5)
