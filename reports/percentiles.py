"""A budget on a percentile is a binomial test: how many requests it needs, and what they say.

"p99 at most 0.5 s" says that of all requests at most 1 in 100 is a *miss*: later than 0.5 s, or
failed. Were it exactly 1 in 100, the misses among n requests would be binomial(n, 0.01). The
budget is passed when so few would be seen with a probability of at most 1 - confidence, and failed
when so many would (MLPerf's early-stopping rule, on both sides). Between lies inconclusive.

Passing and failing are bounds of one order-statistic interval, each one-sided at the confidence:
the rules above hold exactly where its upper bound is within the limit, its lower one beyond it. A
failed request counts as infinitely late. Infinity is in no report: such a bound, or the percentile
itself, is None.

The number of requests is set in advance. To look again after more of them, and stop once it is
green, passes a failing system more often than 1 - confidence.
"""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from reports.record import SampleError
from reports.statistics import Floats, Verdict

# Floating point says 1 - 0.9 < 0.1, and would ask for one request more where a rule is just met.
ROUNDING = 1e-9
# 0.99 needs half a million requests for 1,000 misses; nobody's budget lies beyond this.
MOST_REQUESTS = 10**9


@dataclass(frozen=True, slots=True)
class Percentile:
    """Of n requests, failed ones included; None: unbounded, or among the failed requests."""

    value: float | None
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True, slots=True)
class Judged:
    """`misses` are late or failed; `told` says in one sentence what led to the verdict."""

    verdict: Verdict
    percentile: Percentile
    misses: int
    told: str


@cache
def requests_needed(q: float, confidence: float, misses: int = 0) -> int:
    """The fewest requests of which this many may miss: a system that fails the percentile passes
    with a probability of at most 1 - confidence."""
    _require(q, confidence)
    if misses < 0:
        raise ValueError(f"misses is {misses}, expected 0 or more")
    sizes = range(misses + 1, MOST_REQUESTS)
    return sizes[bisect.bisect_left(sizes, True, key=lambda n: _few(misses, n, q, confidence))]


@cache
def misses_allowed(q: float, confidence: float, requests: int) -> int | None:
    """The most misses with which so many requests still pass; None: not even with none."""
    _require(q, confidence)
    if not _few(0, requests, q, confidence):
        return None
    counts = range(requests + 1)
    return bisect.bisect_left(counts, True, key=lambda m: not _few(m, requests, q, confidence)) - 1


@cache
def misses_that_fail(q: float, confidence: float, requests: int) -> int | None:
    """The fewest misses that show the percentile beyond its limit; None: not even if all do."""
    _require(q, confidence)
    counts = range(requests + 1)
    found = bisect.bisect_left(counts, True, key=lambda m: _many(m, requests, q, confidence))
    return found if found <= requests else None


def percentile(samples: ArrayLike, failed: int, q: float, confidence: float) -> Percentile:
    """The percentile with its interval, each bound one-sided at the confidence.

    The value is the ceil(q n)-th of the sorted requests, not one interpolated between two: there is
    nothing between a late request and a failed one.
    """
    answered, n = _counted(samples, failed)
    ordered = np.sort(answered)

    def ranked(rank: int) -> float | None:
        return float(ordered[rank - 1]) if rank <= len(ordered) else None

    allowed, failing = misses_allowed(q, confidence, n), misses_that_fail(q, confidence, n)
    return Percentile(
        value=ranked(math.ceil(q * n * (1 - ROUNDING))),
        low=None if failing is None else ranked(n - failing + 1),
        high=None if allowed is None else ranked(n - allowed),
        n=n,
    )


def judge(samples: ArrayLike, failed: int, limit: float, q: float, confidence: float) -> Judged:
    """Is the percentile shown to be at most `limit`? `samples` are of the answered requests, in the
    limit's unit; `failed` is how many were not. SampleError where there was no request at all."""
    if not math.isfinite(limit):
        raise ValueError(f"the limit is {limit}, expected a finite number")
    answered, n = _counted(samples, failed)
    misses = int(np.count_nonzero(answered > limit)) + failed
    verdict: Verdict = "inconclusive"
    if _few(misses, n, q, confidence):
        verdict = "passed"
    elif _many(misses, n, q, confidence):
        verdict = "failed"
    of_them = f", {failed} of them failed" if failed else ""
    told = f"{misses} of {n} requests missed the limit{of_them}; {needs(q, confidence, n)}"
    if verdict == "inconclusive":
        told += f"; {misses} would be few enough of {requests_needed(q, confidence, misses):,}"
    return Judged(verdict, percentile(samples, failed, q, confidence), misses, told)


def needs(q: float, confidence: float, requests: int) -> str:
    """What the asked confidence needs, and how many misses the given number allows, in words."""
    least, allowed = requests_needed(q, confidence), misses_allowed(q, confidence, requests)
    failing = misses_that_fail(q, confidence, requests)
    if allowed is None:
        can = f"{requests:,} can never pass"
    else:
        can = f"{requests:,} pass with at most {_count(allowed, 'miss', 'misses')}"
    beyond = "cannot fail" if failing is None else f"fail from {failing:,} on"
    return f"{_budget(q, confidence)} needs {_count(least, 'request')}: {can} and {beyond}"


def impossible(q: float, confidence: float, requests: int) -> str | None:
    """Why no answer of so many requests could pass, and what could be asked instead; else None."""
    if misses_allowed(q, confidence, requests) is not None:
        return None
    instead = f"ask for {requests_needed(q, confidence):,} requests"
    # All of n requests below the limit show, at this confidence, a quantile of (1 - c)^(1/n).
    reachable = math.floor(100 * (1 - confidence) ** (1 / requests)) if requests > 0 else 0
    if reachable:
        instead += f", or for p{reachable} at most"
    return (
        f"{_budget(q, confidence)} can never pass from {_count(requests, 'request')}: it needs "
        f"{requests_needed(q, confidence):,}, none of them late or failed; {instead}"
    )


@cache
def _few(misses: int, n: int, q: float, confidence: float) -> bool:
    """Would a system just at its limit miss so seldom with a probability of at most 1 - c?"""
    return bool(stats.binom.cdf(misses, n, 1 - q) <= (1 - confidence) * (1 + ROUNDING))


@cache
def _many(misses: int, n: int, q: float, confidence: float) -> bool:
    return bool(stats.binom.sf(misses - 1, n, 1 - q) <= (1 - confidence) * (1 + ROUNDING))


def _counted(samples: ArrayLike, failed: int) -> tuple[Floats, int]:
    answered = np.asarray(samples, dtype=np.float64).ravel()
    if failed < 0:
        raise ValueError(f"failed is {failed}, expected how many requests were not answered")
    if not answered.size + failed:
        raise SampleError("no requests, hence no percentile and no verdict")
    if bad := int(np.count_nonzero(~np.isfinite(answered))):
        raise SampleError(
            f"{bad} of {answered.size} values are NaN or infinite; a request without an answer "
            "counts in `failed`"
        )
    return answered, answered.size + failed


def _require(q: float, confidence: float) -> None:
    if not 0 < q < 1:
        raise ValueError(f"q is {q}, expected a quantile between 0 and 1: 0.99 for p99")
    if not 0.5 < confidence < 1:
        # Below one half, passing and failing would overlap.
        raise ValueError(f"confidence is {confidence}, expected more than 0.5 and less than 1")


def _budget(q: float, confidence: float) -> str:
    return f"p{100 * q:.10g} at {100 * confidence:.10g} % confidence"


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"
