"""Is B slower than A: two variants, or two releases, measured in turns on one machine.

The unit is a server's start with the block of requests it answers, not the request: what autotuning
chose and how memory was laid out is one draw for all of a start's requests, and a thousand of them
say no more about the next start. Starts are interleaved, A B B A A B: whatever drifts in a straight
line gives as much to the one as to the other, as long as the number of pairs is even.

Each pair gives d = ln(B / A). Their mean with Student's t is the log of the ratio, its interval
one of 95 %. The ratio is *the same* where the interval lies within the margin, *better* or *worse*
where it lies beyond it, else *unclear*: too few pairs for what was to be seen. The margin is one of
logarithms too, so that B against A says the opposite of A against B and no more.

Among many comparisons one strays by chance: to call a change, its p-value has to pass Holm's
step-down correction over the family. To be called the same needs no such thing.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final, Literal, TypeVar

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, stats

from reports.equivalence import POWER, holm
from reports.record import SampleError

Change = Literal["same", "better", "worse", "unclear"]
Direction = Literal["lower", "higher"]
Cell = TypeVar("Cell")

ALPHA: Final = 0.05  # two-sided: of a pair of equals, so often one is called different
MOST_PAIRS: Final = 10_000

# By a part of the claim's name, first match: how far apart is still the same, as a fraction.
MARGINS: Final[tuple[tuple[str, float], ...]] = (
    ("_p9", 0.10),  # a tail's percentile, of however many nines, moves most
    ("tpot", 0.03),
    ("ttft", 0.05),
    ("e2e", 0.05),
    ("latency/", 0.05),
    ("throughput/", 0.03),
    ("output_tokens", 0.03),
)


@dataclass(frozen=True, slots=True)
class PairedRatio:
    """B / A of n pairs; `sd` is that of the log-ratio. None: one pair has no bounds."""

    value: float
    low: float | None
    high: float | None
    n: int
    sd: float | None

    def p_beyond(self, margin: float) -> float:
        """The two-sided p-value of "the ratio lies within the margin"; 1 where it was seen to."""
        distance = abs(math.log(self.value)) - math.log1p(margin)
        if self.sd is None or distance <= 0:
            return 1.0
        if self.sd == 0:
            return 0.0
        return min(1.0, 2 * float(stats.t.sf(distance * math.sqrt(self.n) / self.sd, self.n - 1)))

    def detectable(self, margin: float = 0.0) -> float | None:
        """The smallest true change, as a fraction, that so many pairs would call one.

        It stands on the spread that was seen: of few pairs, a rough figure.
        """
        return None if self.sd is None else detectable(self.sd, self.n, margin)


@dataclass(frozen=True, slots=True)
class Compared:
    """One comparison of a family; `told` says in one sentence what led to the verdict."""

    verdict: Change
    ratio: PairedRatio
    told: str


def paired_ratio(before: ArrayLike, after: ArrayLike) -> PairedRatio:
    """The ratio after / before; the two hold a number for each block, pair by pair. SampleError
    where there is no pair, or a number that has no logarithm."""
    old, new = (np.asarray(values, np.float64).ravel() for values in (before, after))
    if old.size != new.size:
        raise SampleError(f"{old.size} blocks before and {new.size} after; each needs its pair")
    if not old.size:
        raise SampleError("no pairs, hence no ratio")
    if not (np.isfinite([old, new]).all() and min(old.min(), new.min()) > 0):
        raise SampleError(
            "a ratio needs positive numbers on both sides; a block without one has no pair"
        )
    logs = np.log(new / old)
    n, mean = logs.size, float(logs.mean())
    if n < 2:
        return PairedRatio(math.exp(mean), None, None, n, None)
    sd = float(logs.std(ddof=1))
    reach = float(stats.t.ppf(1 - ALPHA / 2, n - 1)) * sd / math.sqrt(n)
    return PairedRatio(math.exp(mean), math.exp(mean - reach), math.exp(mean + reach), n, sd)


def judge_family(
    comparisons: Sequence[tuple[PairedRatio, float, Direction]], *, alpha: float = ALPHA
) -> list[Compared]:
    """One verdict for each (ratio, margin, which way is better) of one gate."""
    beyond = holm([ratio.p_beyond(margin) for ratio, margin, _ in comparisons], alpha)
    return [
        _judged(ratio, margin, better, called, len(comparisons))
        for (ratio, margin, better), called in zip(comparisons, beyond, strict=True)
    ]


def _judged(
    ratio: PairedRatio, margin: float, better: Direction, called: bool, family: int
) -> Compared:
    if ratio.low is None or ratio.high is None or ratio.sd is None:
        told = f"{100 * (ratio.value - 1):+.1f} % in one pair, which has no interval: repeat it"
        return Compared("unclear", ratio, told)
    low, high = (100 * (bound - 1) for bound in (ratio.low, ratio.high))
    told = f"{100 * (ratio.value - 1):+.1f} % [{low:+.1f}, {high:+.1f}] in {ratio.n} pairs"
    if called:
        verdict: Change = "better" if (ratio.value > 1) == (better == "higher") else "worse"
        return Compared(verdict, ratio, f"{told}, beyond the margin of {100 * margin:g} %")
    if 1 / (1 + margin) <= ratio.low and ratio.high <= 1 + margin:
        return Compared("same", ratio, f"{told}, within the margin of {100 * margin:g} %")
    effect = detectable(ratio.sd, ratio.n, margin)
    told += f"; so few would call a change from {100 * effect:.1f} % on"
    if ratio.p_beyond(margin) <= ALPHA:
        told += f", and one of {family} comparisons strays as far by chance"
    needed = pairs_needed(ratio.sd, 2 * margin, margin) if margin else None
    if needed is not None and needed > ratio.n:
        told += f", {needed} pairs one of {200 * margin:g} %"
    return Compared("unclear", ratio, told)


def detectable(
    sd: float, n: int, margin: float = 0.0, *, alpha: float = ALPHA, power: float = POWER
) -> float:
    """The smallest true change, as a fraction, that n pairs call beyond the margin so often.

    `sd` is that of the log-ratio, `alpha` two-sided. At an SD of 2 % and margin 0: 8.2 % with 3
    pairs, 4.0 % with 5, 2.3 % with 10.
    """
    return math.expm1(math.log1p(margin) + _noncentrality(n, alpha, power) * sd / math.sqrt(n))


def pairs_needed(sd: float, effect: float, margin: float = 0.0) -> int | None:
    """The fewest pairs that call a true change of `effect`; None: no number of them does."""
    sizes = range(2, MOST_PAIRS)
    found = bisect.bisect_left(sizes, True, key=lambda n: detectable(sd, n, margin) <= effect)
    return sizes[found] if found < len(sizes) else None


@cache
def _noncentrality(n: int, alpha: float, power: float) -> float:
    """By how many standard errors a mean of n must be off for Student's test to see it."""
    if n < 2:
        raise ValueError(f"{n} pairs detect nothing, whatever the effect; expected 2 or more")
    critical = float(stats.t.ppf(1 - alpha / 2, n - 1))

    def lacking(noncentrality: float) -> float:
        return float(stats.nct.sf(critical, n - 1, noncentrality)) - power

    farthest = critical + 4
    while lacking(farthest) < 0:
        farthest *= 2
    return float(optimize.brentq(lacking, 0, farthest))


def margin_of(claim: str) -> float | None:
    """How far apart is still the same, as a fraction; None for what is no timing."""
    return next((fraction for part, fraction in MARGINS if part in claim), None)


def order(cells: Sequence[Cell], repeats: int) -> list[tuple[Cell, ...]]:
    """In which order to start each cell, a round for each repeat: AB, BA, AB, BA.

    Forward, then backward: between any two cells, what drifts in a straight line cancels over an
    even number of rounds.
    """
    forward = tuple(cells)
    return [forward if turn % 2 == 0 else forward[::-1] for turn in range(repeats)]
