"""Equal servers are seldom called different, and slower ones as often as promised.

A simulated block is what a real one was seen to be: each start of a server has its own pace, each
request its own noise, one in fifty stalls, and the machine slows as the run goes on.
"""

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from reports.equivalence import POWER
from reports.paired import (
    ALPHA,
    MARGINS,
    Change,
    PairedRatio,
    detectable,
    judge_family,
    margin_of,
    order,
    paired_ratio,
    pairs_needed,
)
from reports.record import SampleError

Floats = NDArray[np.float64]

START_SD, REQUEST_SD, STALLS, STALL_FACTOR = 0.015, 0.10, 0.02, 4.0
REQUESTS = 40


def blocks(generator: np.random.Generator, pace: Floats, requests: int = REQUESTS) -> Floats:
    """Requests of one server start for each entry of `pace`: shape (*pace, requests), in s."""
    start = generator.normal(0, START_SD, (*pace.shape, 1))
    request = generator.normal(0, REQUEST_SD, (*pace.shape, requests))
    stalls = np.where(generator.random(request.shape) < STALLS, STALL_FACTOR, 1.0)
    times: Floats = pace[..., None] * np.exp(start + request) * stalls
    return times


def measured(
    seed: int, runs: int, pairs: int, slowdown: float = 1.0, drift: float = 0.0
) -> tuple[Floats, Floats]:
    """The requests of A and of B, interleaved as `order` says: two arrays (runs, pairs, REQUESTS).

    `drift`: by how much the machine slows from one start to the next.
    """
    generator = np.random.default_rng(seed)
    rounds = order("AB", pairs)
    when = {
        cell: np.array([2 * turn + starts.index(cell) for turn, starts in enumerate(rounds)])
        for cell in "AB"
    }
    a, b = (
        blocks(generator, np.tile(pace * (1 + drift) ** when[cell], (runs, 1)))
        for cell, pace in (("A", 1.0), ("B", slowdown))
    )
    return a, b


def verdicts(a: Floats, b: Floats, margin: float) -> list[Change]:
    """Of each run, by the blocks' medians."""
    return [
        judge_family([(paired_ratio(old, new), margin, "lower")])[0].verdict
        for old, new in zip(np.median(a, axis=-1), np.median(b, axis=-1), strict=True)
    ]


def alarms(found: list[Change]) -> int:
    return sum(verdict in ("better", "worse") for verdict in found)


def most(tries: int, chance: float) -> int:
    """How often what happens with this chance happens at most, but for one time in a thousand."""
    return int(stats.binom.ppf(0.999, tries, chance))


@pytest.mark.parametrize("drift", [0.0, 0.005])
@pytest.mark.parametrize("pairs", [4, 6, 10])
def test_200_comparisons_of_equals_raise_few_alarms(pairs: int, drift: float) -> None:
    a, b = measured(seed=pairs, runs=200, pairs=pairs, drift=drift)
    assert alarms(verdicts(a, b, margin=0.05)) == 0  # the margin is three starts' spread
    assert alarms(verdicts(a, b, margin=0.0)) <= most(200, ALPHA)


def test_without_a_margin_the_stated_level_is_used_up() -> None:
    a, b = measured(seed=1, runs=2000, pairs=6)
    found = alarms(verdicts(a, b, margin=0.0))
    assert 2000 * ALPHA - 3 * math.sqrt(2000 * ALPHA) <= found <= most(2000, ALPHA)


def test_a_slowdown_of_just_the_margin_is_seldom_called_worse() -> None:
    a, b = measured(seed=2, runs=1000, pairs=6, slowdown=1.05)
    found = verdicts(a, b, margin=0.05)
    assert 0 < found.count("worse") <= most(1000, ALPHA / 2)
    assert not found.count("better")


def test_requests_taken_for_units_raise_many_alarms() -> None:
    # The control: the same starts, pooled, as if each request were a server start of its own.
    generator = np.random.default_rng(3)
    a, b = (
        blocks(generator, np.ones((200, 6)), requests=1000).reshape(200, -1, 1) for _ in range(2)
    )
    pooled = verdicts(a, b, margin=0.0)
    assert alarms(pooled) > 2 * most(200, ALPHA)


def test_starts_that_are_not_interleaved_raise_many_alarms() -> None:
    # The control: all of A, then all of B, on a machine that slows by 0.5 % from start to start.
    generator = np.random.default_rng(4)
    pace = np.tile(1.005 ** np.arange(12), (200, 1))
    times = blocks(generator, pace)
    assert alarms(verdicts(times[:, :6], times[:, 6:], 0.0)) > 2 * most(200, ALPHA)


def log_ratio_sd() -> float:
    """That of one pair, from many."""
    a, b = (np.median(times, axis=-1) for times in measured(seed=5, runs=400, pairs=10))
    return float(np.log(b / a).std())


@pytest.mark.parametrize("margin", [0.0, 0.03, 0.05])
def test_a_slowdown_of_ten_per_cent_is_called_worse_with_the_stated_power(margin: float) -> None:
    pairs = pairs_needed(log_ratio_sd(), 0.10, margin)
    assert pairs is not None
    a, b = measured(seed=6, runs=400, pairs=pairs, slowdown=1.10)
    found = verdicts(a, b, margin)
    assert found.count("worse") >= stats.binom.ppf(0.001, 400, POWER)
    assert not found.count("better")


@pytest.mark.parametrize("n", [2, 3, 5, 10])
@pytest.mark.parametrize("margin", [0.0, 0.03])
def test_the_detectable_effect_is_called_just_as_often_as_said(n: int, margin: float) -> None:
    sd, tries = 0.02, 1000
    effect = detectable(sd, n, margin)
    generator = np.random.default_rng(n)
    after = (1 + effect) * np.exp(generator.normal(0, sd, (tries, n)))
    called = sum(
        judge_family([(paired_ratio(np.ones(n), one), margin, "lower")])[0].verdict == "worse"
        for one in after
    )
    assert stats.binom.ppf(0.001, tries, POWER) <= called <= most(tries, POWER)


@pytest.mark.parametrize(
    ("n", "often_told", "ours"), [(3, 4.6, 8.2), (5, 2.8, 4.0), (10, 1.7, 2.3)]
)
def test_the_usual_table_is_one_sided_five_per_cent_with_a_power_of_80(
    n: int, often_told: float, ours: float
) -> None:
    # Up to 0.1: it adds two quantiles of Student's t, an approximation of the non-central one.
    found = detectable(0.02, n, alpha=0.10, power=0.80)
    assert 100 * found == pytest.approx(often_told, abs=0.11)
    # Two-sided, as the verdicts are, and with their power.
    assert 100 * detectable(0.02, n) == pytest.approx(ours, abs=0.05)


def test_many_comparisons_raise_together_no_more_alarms_than_one() -> None:
    generator = np.random.default_rng(11)
    runs, family, n = 300, 8, 6
    logs = generator.normal(0, 0.02, (runs, family, n))
    alone = together = 0
    for run in logs:
        ratios = [paired_ratio(np.ones(n), np.exp(one)) for one in run]
        found = [one.verdict for one in judge_family([(r, 0.0, "lower") for r in ratios])]
        together += alarms(found) > 0
        alone += any(r.p_beyond(0.0) <= ALPHA for r in ratios)
    assert together <= most(runs, ALPHA)
    assert alone > 2 * most(runs, ALPHA)


@pytest.mark.parametrize(
    ("after", "better", "verdict"),
    [
        ([1.001, 0.999, 1.002, 0.998], "lower", "same"),
        ([1.201, 1.199, 1.202, 1.198], "lower", "worse"),
        ([1.201, 1.199, 1.202, 1.198], "higher", "better"),
        ([0.801, 0.799, 0.802, 0.798], "lower", "better"),
        ([0.801, 0.799, 0.802, 0.798], "higher", "worse"),
        ([1.2, 0.9, 1.3, 0.8], "lower", "unclear"),
        ([1.02, 1.05, 1.03, 1.06], "lower", "unclear"),
        ([0.95, 0.97, 0.94, 0.98], "lower", "unclear"),
        ([1.04, 1.06, 1.045, 1.055], "lower", "unclear"),  # beyond the margin by itself, not shown
        ([1.5], "lower", "unclear"),
    ],
)
def test_the_verdict_on_a_margin_of_five_per_cent(
    after: list[float], better: str, verdict: Change
) -> None:
    ratio = paired_ratio(np.ones(len(after)), after)
    assert judge_family([(ratio, 0.05, better)])[0].verdict == verdict  # type: ignore[list-item]


def test_the_interval_is_students_and_turns_with_the_sides() -> None:
    before, after = [10.0, 10.2, 9.9, 10.1], [10.5, 10.9, 10.3, 10.4]
    slow = stats.ttest_rel(np.log(after), np.log(before)).confidence_interval(0.95)
    found, back = paired_ratio(before, after), paired_ratio(after, before)
    assert found.low == pytest.approx(math.exp(slow.low))
    assert found.high == pytest.approx(math.exp(slow.high))
    assert back.low is not None
    assert 1 / back.low == pytest.approx(found.high)
    assert back.p_beyond(0.01) == pytest.approx(found.p_beyond(0.01))


def test_alone_a_change_is_called_where_its_interval_lies_beyond_the_margin() -> None:
    generator = np.random.default_rng(12)
    seen = set()
    for _ in range(500):
        shift = generator.normal(0, 0.08)
        ratio = paired_ratio(np.ones(4), np.exp(shift + generator.normal(0, 0.02, 4)))
        assert ratio.low is not None
        assert ratio.high is not None
        beyond = ratio.low > 1.05 or ratio.high < 1 / 1.05
        verdict = judge_family([(ratio, 0.05, "lower")])[0].verdict
        assert (verdict in ("better", "worse")) == beyond
        seen.add(verdict)
    assert seen == {"same", "better", "worse", "unclear"}


def test_one_pair_has_no_interval_and_detects_nothing() -> None:
    ratio = paired_ratio([2.0], [3.0])
    assert ratio == PairedRatio(1.5, None, None, 1, None)
    assert (ratio.detectable(), ratio.p_beyond(0.0)) == (None, 1.0)
    with pytest.raises(ValueError, match="1 pairs detect nothing"):
        detectable(0.02, 1)


def test_an_unclear_comparison_says_what_it_would_have_taken() -> None:
    ratio = paired_ratio(np.ones(4), [1.2, 0.9, 1.3, 0.8])
    told = judge_family([(ratio, 0.05, "lower")])[0].told
    assert "in 4 pairs; so few would call a change from" in told
    assert pairs_needed(0.02, 0.10, 0.05) == 5
    assert pairs_needed(0.02, 0.04, 0.05) is None  # within the margin, nothing is a change


def test_rounds_go_forward_then_backward_and_drift_cancels() -> None:
    assert order("AB", 4) == [("A", "B"), ("B", "A"), ("A", "B"), ("B", "A")]
    starts = [cell for turn in order("ABCD", 6) for cell in turn]
    when = {cell: [i for i, start in enumerate(starts) if start == cell] for cell in "ABCD"}
    assert {sum(moments) for moments in when.values()} == {6 * 23 / 2}


@pytest.mark.parametrize(
    ("claim", "margin"),
    [
        ("throughput/closed8/output_tokens_per_s", 0.03),
        ("throughput/output_tokens_ratio", 0.03),
        ("output_tokens_per_s", 0.03),
        ("latency/tpot_p50", 0.03),
        ("latency/ttft_p50", 0.05),
        ("latency/e2e_p50", 0.05),
        ("throughput/poisson/ttft_p50", 0.05),
        ("throughput/poisson/tpot_p99.9", 0.10),
        ("latency/ttft_p99", 0.10),
        ("numerics/mean_kl", None),
    ],
)
def test_the_margin_of_a_claim(claim: str, margin: float | None) -> None:
    assert margin_of(claim) == margin
    assert all(0 < fraction <= 0.1 for _, fraction in MARGINS)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ([], [], "no pairs"),
        ([1.0, 2.0], [1.0], "2 blocks before and 1 after"),
        ([1.0], [0.0], "positive numbers"),
        ([math.nan], [1.0], "positive numbers"),
        ([1.0], [math.inf], "positive numbers"),
    ],
)
def test_what_has_no_log_ratio_is_refused(
    before: list[float], after: list[float], message: str
) -> None:
    with pytest.raises(SampleError, match=message):
        paired_ratio(before, after)
