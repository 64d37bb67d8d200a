"""Numbers with intervals, and verdicts that refuse to guess.

No number leaves here without its n and an interval. When the samples are too
few for the asked confidence, the bound is None, which means unbounded: such an
interval can never pass or fail a limit, it is inconclusive. An empty or
non-finite sample raises; it is never a 0.

A verdict is one-sided and fail-closed: an interval passes a limit only when it
lies wholly on the right side, and fails only when wholly on the wrong one. A
two-sided interval of confidence c gives a one-sided verdict of (1 + c) / 2, so
one-sided 99 % asks for `confidence=0.98`.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from reports.record import SampleError

Verdict = Literal["passed", "failed", "inconclusive"]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate from n independent units; a bound of None is unbounded."""

    value: float
    low: float | None
    high: float | None
    n: int


def quantile_interval(samples: ArrayLike, q: float, *, confidence: float) -> Interval:
    """A quantile with its order-statistic interval: no assumption on the distribution.

    How many of n samples lie below the true quantile is binomial(n, q), which
    says between which two of the sorted samples it lies. p99 at 95 % has an
    upper bound only from 368 samples on.
    """
    _require_fraction("q", q)
    _require_fraction("confidence", confidence)
    ordered = np.sort(_sample("samples", samples))
    n = ordered.size
    tail = (1 - confidence) / 2
    rank_low = int(stats.binom.ppf(tail, n, q))
    rank_high = int(stats.binom.ppf(1 - tail, n, q)) + 1
    return Interval(
        value=float(np.quantile(ordered, q)),
        low=float(ordered[rank_low - 1]) if rank_low >= 1 else None,
        high=float(ordered[rank_high - 1]) if rank_high <= n else None,
        n=n,
    )


def ratio_interval(
    new: ArrayLike,
    old: ArrayLike,
    *,
    confidence: float = 0.95,
    seed: int = 0,
    resamples: int = 5_000,
) -> Interval:
    """median(new) / median(old), both resampled; n is the smaller sample's size."""
    _require_fraction("confidence", confidence)
    new_samples, old_samples = _sample("new", new), _sample("old", old)
    if min(new_samples.min(), old_samples.min()) <= 0:
        raise SampleError("a ratio needs positive samples; observed a value of 0 or less")
    n = min(new_samples.size, old_samples.size)
    value = float(np.median(new_samples) / np.median(old_samples))
    if n < fewest_units(confidence):
        return Interval(value, None, None, n)
    generator = np.random.default_rng(seed)
    draws = _resampled_medians(generator, new_samples, resamples) / _resampled_medians(
        generator, old_samples, resamples
    )
    return Interval(value, *bounds(draws, n, confidence), n)


def verdict_upper(interval: Interval, limit: float) -> Verdict:
    """Is it shown to be at most `limit`?"""
    _require_finite_limit(limit)
    if interval.high is not None and interval.high <= limit:
        return "passed"
    if interval.low is not None and interval.low > limit:
        return "failed"
    return "inconclusive"


def verdict_lower(interval: Interval, limit: float) -> Verdict:
    """Is it shown to be at least `limit`? For floors, and for what must be distinguishable."""
    _require_finite_limit(limit)
    if interval.low is not None and interval.low >= limit:
        return "passed"
    if interval.high is not None and interval.high < limit:
        return "failed"
    return "inconclusive"


def fewest_units(confidence: float) -> int:
    """Below this many units a resampled interval is unbounded: 6 at 95 %, 7 at 98 %, 8 at 99 %.

    The widest a resample can reach is from the smallest to the largest unit,
    which misses the median of a distribution with probability 2^(1-n).
    """
    return 1 + math.ceil(-math.log2(1 - confidence))


def bounds(draws: Floats, n: int, confidence: float) -> tuple[float, float]:
    # The plain percentile interval is too narrow for few units, by sqrt((n-1)/n) and by the
    # normal in place of Student's t. Widening the percentiles undoes both (Hesterberg 2015,
    # "What teachers should know about the bootstrap", expanded percentile interval).
    student = float(stats.t.ppf((1 + confidence) / 2, n - 1))
    tail = float(stats.norm.cdf(-math.sqrt(n / (n - 1)) * student))
    low, high = np.quantile(draws, [tail, 1 - tail])
    return float(low), float(high)


def _resampled_medians(generator: np.random.Generator, samples: Floats, resamples: int) -> Floats:
    # In slices: thousands of requests times thousands of resamples do not fit in memory at once.
    slices = np.array_split(np.arange(resamples), max(1, resamples * samples.size // 4_000_000))
    medians = [
        np.median(generator.choice(samples, size=(part.size, samples.size)), axis=1)
        for part in slices
    ]
    return np.concatenate(medians).astype(np.float64)


def _sample(name: str, values: ArrayLike) -> Floats:
    sample = np.asarray(values, dtype=np.float64).ravel()
    if sample.size == 0:
        raise SampleError(f"{name}: empty, hence no number; an empty sample is never 0")
    if not np.isfinite(sample).all():
        bad = int(np.count_nonzero(~np.isfinite(sample)))
        raise SampleError(f"{name}: {bad} of {sample.size} values are NaN or infinite")
    return sample


def _require_fraction(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise ValueError(f"{name} is {value}, expected a number between 0 and 1, both excluded")


def _require_finite_limit(limit: float) -> None:
    if not math.isfinite(limit):
        raise ValueError(f"the limit is {limit}, expected a finite number")
