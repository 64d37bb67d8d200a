"""A percentile's budget passes a failing system as seldom as it says, and says what it needs."""

import math
from fractions import Fraction
from itertools import count

import numpy as np
import pytest
from scipy import stats

from reports.percentiles import (
    impossible,
    judge,
    misses_allowed,
    misses_that_fail,
    needs,
    percentile,
    requests_needed,
)
from reports.record import SampleError

# (q, confidence): requests needed with 0, 1, 2, 5, 10 misses.
NEEDED = [
    ("0.90", "0.99", (44, 64, 81, 127, 197)),
    ("0.95", "0.99", (90, 130, 165, 259, 398)),
    ("0.99", "0.95", (299, 473, 628, 1049, 1693)),
    ("0.99", "0.99", (459, 662, 838, 1307, 2010)),
]


def chance_of_at_most(misses: int, n: int, q: Fraction) -> Fraction:
    """Exactly, term by term: how often a system at its limit misses so seldom."""
    return sum(
        (math.comb(n, k) * (1 - q) ** k * q ** (n - k) for k in range(misses + 1)), Fraction()
    )


@pytest.mark.parametrize(("q", "confidence", "table"), NEEDED)
def test_the_requests_needed_are_those_of_the_table(
    q: str, confidence: str, table: tuple[int, ...]
) -> None:
    found = tuple(requests_needed(float(q), float(confidence), t) for t in (0, 1, 2, 5, 10))
    assert found == table


@pytest.mark.parametrize(("q", "confidence", "table"), NEEDED)
def test_one_request_fewer_would_pass_a_failing_system_too_often(
    q: str, confidence: str, table: tuple[int, ...]
) -> None:
    risk = 1 - Fraction(confidence)
    for misses, n in zip((0, 1, 2, 5, 10), table, strict=True):
        assert chance_of_at_most(misses, n, Fraction(q)) <= risk
        assert chance_of_at_most(misses, n - 1, Fraction(q)) > risk


@pytest.mark.parametrize("q", ["0.1", "0.5", "0.75", "0.9"])
@pytest.mark.parametrize("confidence", ["0.75", "0.9", "0.96875"])
@pytest.mark.parametrize("misses", [0, 1, 3])
def test_the_search_finds_what_counting_up_finds(q: str, confidence: str, misses: int) -> None:
    risk = 1 - Fraction(confidence)
    slow = next(n for n in count(1) if chance_of_at_most(misses, n, Fraction(q)) <= risk)
    assert requests_needed(float(q), float(confidence), misses) == slow


@pytest.mark.parametrize(
    ("q", "confidence", "misses", "n"), [("0.4", "0.936", 0, 3), ("0.1", "0.81", 1, 2)]
)
def test_a_rule_that_is_met_exactly_is_met(q: str, confidence: str, misses: int, n: int) -> None:
    assert chance_of_at_most(misses, n, Fraction(q)) == 1 - Fraction(confidence)
    assert requests_needed(float(q), float(confidence), misses) == n


def test_p55_of_a_hundred_is_the_55th_although_floating_point_says_more() -> None:
    assert math.ceil(0.55 * 100) == 56
    assert percentile(np.arange(1.0, 101.0), 0, 0.55, 0.95).value == 55


@pytest.mark.parametrize("n", [1, 20, 43, 44, 63, 64, 200])
def test_allowed_and_failing_misses_are_those_of_exact_sums(n: int) -> None:
    q, risk = Fraction("0.9"), Fraction("0.01")
    at_most = [chance_of_at_most(m, n, q) for m in range(n + 1)]
    few = [m for m in range(n + 1) if at_most[m] <= risk]
    many = [m for m in range(1, n + 1) if 1 - at_most[m - 1] <= risk]
    assert misses_allowed(0.9, 0.99, n) == (few[-1] if few else None)
    assert misses_that_fail(0.9, 0.99, n) == (many[0] if many else None)


def test_a_system_at_its_limit_passes_and_fails_as_seldom_as_promised() -> None:
    generator = np.random.default_rng(7)
    for q, confidence, n in [(0.9, 0.95, 120), (0.99, 0.95, 480), (0.5, 0.9, 40)]:
        tries = 2000
        limit = -math.log(1 - q)  # the exponential's own quantile
        verdicts = [
            judge(generator.exponential(size=n), 0, limit, q, confidence).verdict
            for _ in range(tries)
        ]
        most = stats.binom.ppf(0.999, tries, 1 - confidence)
        assert 0 < verdicts.count("passed") <= most
        assert 0 < verdicts.count("failed") <= most


def test_a_system_well_inside_passes_as_often_as_the_binomial_says() -> None:
    generator = np.random.default_rng(8)
    tries, n, missing = 2000, 662, 0.001
    limit = -math.log(missing)
    passed = sum(
        judge(generator.exponential(size=n), 0, limit, 0.99, 0.99).verdict == "passed"
        for _ in range(tries)
    )
    chance = stats.binom.cdf(1, n, missing)  # 662 requests allow one miss
    assert stats.binom.ppf(0.001, tries, chance) <= passed <= stats.binom.ppf(0.999, tries, chance)


def test_a_failed_request_is_a_miss_and_counts() -> None:
    quick = np.full(458, 0.1)
    assert judge([*quick, 0.1], 0, 0.5, 0.99, 0.99).verdict == "passed"
    with_a_failure = judge(quick, 1, 0.5, 0.99, 0.99)
    assert (with_a_failure.verdict, with_a_failure.misses) == ("inconclusive", 1)
    assert with_a_failure.percentile.n == 459
    # Dropped, it would have left 458 quick ones; many of them are a failure however quick the rest.
    assert judge(quick, 60, 0.5, 0.99, 0.99).verdict == "failed"


def test_verdict_and_interval_agree_whatever_was_measured() -> None:
    generator = np.random.default_rng(9)
    seen = set()
    for _ in range(1500):
        n = int(generator.integers(1, 400))
        failed = int(generator.integers(0, 4)) if generator.random() < 0.5 else 0
        times = np.round(generator.exponential(size=n), 1)  # with ties, and on the limit itself
        limit = round(float(generator.uniform(0.5, 4.0)), 1)
        judged = judge(times, failed, limit, 0.9, 0.95)
        of = judged.percentile
        assert (judged.verdict == "passed") == (of.high is not None and of.high <= limit)
        if of.low is not None:
            assert (judged.verdict == "failed") == (of.low > limit)
        known = [bound for bound in (of.low, of.value, of.high) if bound is not None]
        assert known == sorted(known)
        seen.add(judged.verdict)
    assert seen == {"passed", "failed", "inconclusive"}


def test_a_percentile_among_the_failures_has_no_value() -> None:
    found = percentile(np.arange(1.0, 81.0), 20, 0.9, 0.95)
    assert (found.value, found.high, found.n) == (None, None, 100)
    assert judge([], 50, 1.0, 0.9, 0.95).verdict == "failed"
    # One failure of a hundred: p90 is a number, and its upper bound too.
    few = percentile(np.arange(1.0, 100.0), 1, 0.9, 0.95)
    assert (few.value, few.low, few.high) == (90.0, 85.0, 96.0)


def test_an_interval_covers_the_truth_on_each_side() -> None:
    generator = np.random.default_rng(10)
    tries, truth = 1000, -math.log(0.1)
    found = [percentile(generator.exponential(size=90), 0, 0.9, 0.95) for _ in range(tries)]
    above = sum(p.low is not None and p.low > truth for p in found)
    below = sum(p.high is not None and p.high < truth for p in found)
    most = stats.binom.ppf(0.999, tries, 0.05)
    assert 0 < above <= most
    assert 0 < below <= most


def test_an_impossible_budget_is_told_with_what_is_possible() -> None:
    told = impossible(0.99, 0.99, 50)
    assert told is not None
    assert told.startswith("p99 at 99 % confidence can never pass from 50 requests: it needs 459,")
    assert "ask for 459 requests, or for p91 at most" in told
    assert impossible(0.91, 0.99, 50) is None
    assert impossible(0.92, 0.99, 50) is not None
    assert impossible(0.99, 0.99, 459) is None
    assert impossible(0.99, 0.99, 458) is not None
    assert "from 0 requests" in str(impossible(0.99, 0.99, 0))


def test_what_a_budget_needs_is_said_in_advance() -> None:
    assert needs(0.99, 0.99, 700) == (
        "p99 at 99 % confidence needs 459 requests: 700 pass with at most 1 miss and fail from "
        "15 on"
    )
    assert "50 can never pass and fail from 4 on" in needs(0.99, 0.99, 50)
    assert "2 would be few enough of 838" in judge([0.1] * 700, 2, 1.0, 0.99, 0.99).told


def test_what_is_no_sample_or_no_level_is_refused() -> None:
    with pytest.raises(SampleError, match="no requests"):
        judge([], 0, 1.0, 0.9, 0.95)
    with pytest.raises(SampleError, match=r"1 of 2 values are NaN or infinite.*`failed`"):
        judge([0.1, math.inf], 0, 1.0, 0.9, 0.95)
    with pytest.raises(ValueError, match="expected a quantile between 0 and 1"):
        requests_needed(99, 0.99)
    with pytest.raises(ValueError, match=r"more than 0\.5"):
        requests_needed(0.99, 0.4)
