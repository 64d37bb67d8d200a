"""Is a mean of many documents within a limit: estimates, verdicts over strata, and their power.

The unit is the document: what its positions say is one observation, of `sums / counts`, and means
over documents are means over positions, each document weighing as many as it has. Intervals come
from resampling documents, as in `statistics`; everything here is linear, so that thousands of
resamples of twenty thousand positions are one product of matrices.

An equivalence is shown where the upper bound lies below the limit. To pass, every stratum has to
show it, so no error of one stratum is multiplied by their number (an intersection-union test). To
*fail*, one stratum is enough, and among many strata one strays by chance: there the p-values go
through Holm's step-down correction.

The *detectable* effect of an estimate is the smallest true value that its documents would tell from
zero: one-sided at 1 %, with a power of 90 %.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from reports.record import SampleError
from reports.statistics import Floats, Interval, Verdict, bounds, fewest_units

CONFIDENCE: Final = 0.98  # two-sided: each bound is a one-sided 99 % bound
ALPHA: Final = 0.01
POWER: Final = 0.9
RESAMPLES: Final = 2000
SEED: Final = 20


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over documents. `low` and `high` None: too few documents for a bound."""

    value: float
    low: float | None
    high: float | None
    n: int
    standard_error: float | None

    @property
    def interval(self) -> Interval:
        return Interval(self.value, self.low, self.high, self.n)

    @property
    def detectable(self) -> float | None:
        """The smallest true value that would be told from zero."""
        if self.standard_error is None:
            return None
        freedom = self.n - 1
        reach = stats.t.ppf(1 - ALPHA, freedom) + stats.t.ppf(POWER, freedom)
        return float(reach) * self.standard_error

    def p_within(self, limit: float) -> float:
        """The p-value of "the mean is at most `limit`"; 1 where nothing can be said against it."""
        if self.standard_error is None or self.value <= limit:
            return 1.0
        if self.standard_error == 0:
            return 0.0
        distance = (self.value - limit) / self.standard_error
        return float(stats.t.sf(distance, self.n - 1))

    def root(self) -> Estimate:
        """The same of the square root, for a mean of squares."""
        return Estimate(
            math.sqrt(self.value),
            None if self.low is None else math.sqrt(self.low),
            None if self.high is None else math.sqrt(self.high),
            self.n,
            self.standard_error,
        )


def cluster_mean(
    per_document: Sequence[ArrayLike],
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Estimate:
    """The mean of all positions, `per_document` one array of positions each; SampleError where a
    document is empty or not finite."""
    if not per_document:
        raise SampleError("no documents, hence no mean and no interval")
    arrays = [np.asarray(positions, np.float64).ravel() for positions in per_document]
    for index, positions in enumerate(arrays):
        if not positions.size or not np.isfinite(positions).all():
            raise SampleError(
                f"document {index}: {positions.size} values, of which "
                f"{int(np.count_nonzero(~np.isfinite(positions)))} are NaN or infinite"
            )
    sums = np.array([positions.sum() for positions in arrays])
    counts = np.array([float(positions.size) for positions in arrays])
    value, n = float(sums.sum() / counts.sum()), len(arrays)
    if n < fewest_units(confidence):
        return Estimate(value, None, None, n, None)
    draws = _resampled(sums, counts, resamples, seed)
    # Documents drawn with replacement vary less than documents do, by (n - 1) / n.
    error = float(draws.std(ddof=1)) * math.sqrt(n / (n - 1))
    low, high = bounds(draws, n, confidence)
    # All documents alike leave no room but that of rounding, which may put the mean outside.
    return Estimate(value, min(low, value), max(high, value), n, error)


def _resampled(sums: Floats, counts: Floats, resamples: int, seed: int) -> Floats:
    n = len(sums)
    chosen = np.random.default_rng(seed).integers(0, n, size=(resamples, n))
    times = np.apply_along_axis(np.bincount, 1, chosen, minlength=n).astype(np.float64)
    drawn: Floats = (times @ sums) / (times @ counts)
    return drawn


def within(estimates: Sequence[Estimate], limit: float, *, squared: bool = False) -> list[Verdict]:
    """One verdict for each stratum of a metric that is to be at most `limit` in magnitude.

    `squared`: the estimates are means of squares, and the limit that of their root.
    """
    if squared:
        limit = limit * limit
    p_values = [
        min(1.0, 2 * min(one.p_within(limit), negated(one).p_within(limit))) for one in estimates
    ]
    rejected = holm(p_values)
    return [
        "passed"
        if one.low is not None and one.high is not None and -limit <= one.low and one.high <= limit
        else "failed" if beyond else "inconclusive"
        for one, beyond in zip(estimates, rejected, strict=True)
    ]  # fmt: skip


def negated(estimate: Estimate) -> Estimate:
    """The estimate of the negative."""
    low = None if estimate.high is None else -estimate.high
    high = None if estimate.low is None else -estimate.low
    return Estimate(-estimate.value, low, high, estimate.n, estimate.standard_error)


def holm(p_values: Sequence[float], alpha: float = ALPHA) -> list[bool]:
    """Which hypotheses are rejected, with at most `alpha` of any true one among them."""
    rejected = [False] * len(p_values)
    for step, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[index] > alpha / (len(p_values) - step):
            break
        rejected[index] = True
    return rejected


@dataclass(frozen=True, slots=True)
class Flips:
    """Paired answers to the same items: `lost` were right before, `won` are right now."""

    items: int
    right_before: int
    lost: int
    won: int

    @property
    def p_value(self) -> float:
        """McNemar's exact test: would as many be lost as won if nothing had changed?"""
        if not self.lost + self.won:
            return 1.0
        return float(stats.binomtest(self.lost, self.lost + self.won, 0.5).pvalue)

    def loss(self, confidence: float = CONFIDENCE) -> Interval:
        """The share lost of what was right, with its exact (Clopper-Pearson) interval. What is won
        is not set against it: an answer that got better elsewhere helps nobody with this one."""
        right = self.right_before
        if not right:
            raise SampleError("no items were right before, hence no share of them")
        found = stats.binomtest(self.lost, right).proportion_ci(confidence, method="exact")
        return Interval(self.lost / right, float(found.low), float(found.high), right)

    @staticmethod
    def needed(share: float) -> int:
        """How many items show, none of them lost, that no more than a share is."""
        return math.ceil(math.log(ALPHA) / math.log(1 - share))

    def detectable(self) -> float:
        """The smallest true share of losses of which one at least shows with the stated power."""
        return float(1 - (1 - POWER) ** (1 / self.right_before))


def paired(before: Sequence[bool], after: Sequence[bool]) -> Flips:
    """What became of each answer; the two are in one order."""
    pairs = list(zip(before, after, strict=True))
    return Flips(
        len(pairs),
        sum(old for old, _ in pairs),
        sum(old and not new for old, new in pairs),
        sum(new and not old for old, new in pairs),
    )
