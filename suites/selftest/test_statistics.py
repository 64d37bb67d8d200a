"""Intervals cover what they claim to cover, and verdicts refuse to guess."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from reports.record import SampleError
from reports.statistics import (
    Interval,
    fewest_units,
    quantile_interval,
    ratio_interval,
    verdict_lower,
    verdict_upper,
)

Floats = NDArray[np.float64]


def covers(interval: Interval, truth: float) -> bool:
    return (
        interval.low is not None
        and interval.high is not None
        and (interval.low <= truth <= interval.high)
    )


def test_a_median_interval_is_the_one_in_the_tables() -> None:
    # Conover's table for n = 20, p = 0.5, 95 %: the 6th and the 15th of the sorted samples.
    interval = quantile_interval(range(20, 0, -1), 0.5, confidence=0.95)
    assert interval == Interval(value=10.5, low=6.0, high=15.0, n=20)


@pytest.mark.parametrize(("n", "bounded"), [(367, False), (368, True)])
def test_a_p99_needs_368_samples_for_an_upper_bound_at_95(n: int, bounded: bool) -> None:
    # All n samples lie below the true p99 with probability 0.99^n; 2.5 % is reached at 368.
    interval = quantile_interval(np.arange(n), 0.99, confidence=0.95)
    assert (interval.high is not None) is bounded
    assert (0.99**n <= 0.025) is bounded


def test_quantile_intervals_cover_the_truth_as_often_as_they_say() -> None:
    generator = np.random.default_rng(1)
    hits = [
        covers(quantile_interval(generator.exponential(size=60), 0.5, confidence=0.9), math.log(2))
        for _ in range(800)
    ]
    # 0.9 promised; three standard errors of 800 tries are 0.032. Ranks are whole: a bit above.
    assert 0.87 <= np.mean(hits) <= 0.96


def test_ratio_intervals_cover_the_true_ratio() -> None:
    generator = np.random.default_rng(3)
    hits = [
        covers(
            ratio_interval(
                generator.lognormal(sigma=0.3, size=20),
                generator.lognormal(math.log(2), 0.3, size=25),
                confidence=0.9,
                seed=seed,
                resamples=300,
            ),
            0.5,
        )
        for seed in range(200)
    ]
    assert 0.83 <= np.mean(hits) <= 0.99


def test_one_seed_gives_one_interval() -> None:
    samples = [1.0, 2.0, 3.0, 5.0, 4.0, 8.0, 0.5]
    first, again, other = (
        ratio_interval(samples, [2.0, 3.0, 1.0] * 3, confidence=0.9, seed=seed)
        for seed in (7, 7, 8)
    )
    assert first == again != other
    assert first.n == 7


@pytest.mark.parametrize(("confidence", "fewest"), [(0.9, 5), (0.95, 6), (0.98, 7), (0.99, 8)])
def test_too_few_units_have_no_bounds(confidence: float, fewest: int) -> None:
    assert fewest_units(confidence) == fewest
    units = [float(i) for i in range(1, fewest + 1)]
    enough = ratio_interval(units, units, confidence=confidence, resamples=50)
    few = ratio_interval(units[1:], units[1:], confidence=confidence)
    assert enough.low is not None
    assert (few.low, few.high, few.n) == (None, None, fewest - 1)
    assert ratio_interval([1.0], [2.0], confidence=confidence) == Interval(0.5, None, None, 1)


def test_an_empty_sample_raises_and_is_never_zero() -> None:
    with pytest.raises(SampleError, match="never 0"):
        quantile_interval([], 0.5, confidence=0.9)
    with pytest.raises(SampleError, match="old: empty"):
        ratio_interval([1.0], [])


def test_a_sample_with_nan_is_refused_with_its_count() -> None:
    with pytest.raises(SampleError, match="2 of 3 values are NaN or infinite"):
        quantile_interval([1.0, math.nan, math.inf], 0.5, confidence=0.9)
    with pytest.raises(SampleError, match="positive"):
        ratio_interval([1.0], [0.0])


@pytest.mark.parametrize("wrong", [0.0, 1.0, 95.0])
def test_a_confidence_in_percent_is_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        quantile_interval([1.0], 0.5, confidence=wrong)


UPPER = [
    (1.0, 2.0, "passed"),
    (1.0, 3.0, "passed"),  # the limit itself is allowed
    (1.0, 3.1, "inconclusive"),
    (3.0, 4.0, "inconclusive"),
    (3.1, 4.0, "failed"),
    (None, 2.0, "passed"),
    (None, None, "inconclusive"),
    (1.0, None, "inconclusive"),
    (3.1, None, "failed"),
]


@pytest.mark.parametrize(("low", "high", "verdict"), UPPER)
def test_an_upper_limit_of_three(low: float | None, high: float | None, verdict: str) -> None:
    assert verdict_upper(Interval(2.5, low, high, 9), 3.0) == verdict


@pytest.mark.parametrize(("low", "high", "verdict"), UPPER)
def test_a_lower_limit_mirrors_it(low: float | None, high: float | None, verdict: str) -> None:
    def mirrored(bound: float | None) -> float | None:
        return None if bound is None else -bound

    interval = Interval(-2.5, mirrored(high), mirrored(low), 9)
    assert verdict_lower(interval, -3.0) == verdict


def test_a_limit_that_is_no_number_is_refused() -> None:
    for judge in (verdict_upper, verdict_lower):
        with pytest.raises(ValueError, match="finite"):
            judge(Interval(1.0, 0.0, 2.0, 9), math.nan)
