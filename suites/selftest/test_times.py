"""A block in rows: percentiles with their misses, rates against floors, doubts about the clock."""

from __future__ import annotations

import pytest

from fixtures.budgets import LatencyBudget
from fixtures.load.streams import Kind, Load, Stream
from suites.expect import Rows
from suites.measure import Block
from suites.selftest.test_expect import Recorder
from suites.times import expect_floor, expect_ratio, expect_times


def answered(ttft_s: float, sent_s: float = 0.0) -> Stream:
    """11 tokens, the first after so long, then one every 10 ms."""
    chunks = tuple(sent_s + ttft_s + 0.01 * step for step in range(11))
    return Stream(
        due_s=sent_s, sent_s=sent_s, chunks_s=chunks, ended_s=chunks[-1], completion_tokens=11
    )


def failed(kind: Kind = "stalled") -> Stream:
    return Stream(due_s=0.0, sent_s=0.0, ended_s=9.0, kind=kind, error="why")


def block(*streams: Stream, disturbed: str | None = None) -> Block:
    return Block(Load(streams, 2.0), "probe", disturbed=disturbed)


def judged(found: Block, limit_s: float, name: str = "p50", confidence: float = 0.99) -> Recorder:
    record = Recorder()
    budget = LatencyBudget(
        requests=7, output_tokens=11, confidence=confidence, ttft_s={name: limit_s}
    )
    expect_times(Rows(record, "padded-tp2"), "latency", found, budget)
    return record


FAST, SLOW = answered(0.1), answered(0.9)


@pytest.mark.parametrize(
    ("streams", "outcome"),
    [
        ((FAST,) * 7, "passed"),  # the fewest for p50 at 99 %
        ((FAST,) * 6, "inconclusive"),
        ((SLOW,) * 7, "failed"),
        ((FAST,) * 6 + (SLOW,), "inconclusive"),
        ((FAST,) * 6 + (failed(),), "inconclusive"),  # a failure is a miss
        ((failed(),) * 7, "failed"),
        ((FAST,) * 4 + (SLOW,) * 3, "inconclusive"),
    ],
)
def test_a_percentile_is_judged_by_its_misses(streams: tuple[Stream, ...], outcome: str) -> None:
    assert judged(block(*streams), 0.5).outcomes()["latency/ttft_p50"] == outcome


def test_a_percentile_among_the_failed_is_no_number() -> None:
    row = next(
        row
        for row in judged(block(*(FAST,) * 85, *(failed(),) * 15), 0.5, "p95").rows
        if row.claim == "latency/ttft_p95"
    )
    assert (row.value, row.high, row.n, row.outcome) == (None, None, 100, "failed")
    assert "15 of 100 requests missed" in str(row.reason)


def test_what_has_no_budget_is_recorded_and_says_so() -> None:
    rows = {row.claim: row for row in judged(block(*(FAST,) * 7), 0.5).rows}
    assert rows["latency/tpot_p50"].outcome == "passed"
    assert "sets no limit" in str(rows["latency/tpot_p50"].reason)
    assert rows["latency/tpot_p50"].value == pytest.approx(0.01)


def test_a_clock_in_doubt_makes_every_time_invalid_however_good() -> None:
    record = judged(block(*(FAST,) * 7, disturbed="somebody else's compiler took a core"), 0.5)
    assert set(record.outcomes().values()) == {"invalid"}
    assert all("compiler" in str(row.reason) for row in record.rows)


def test_a_request_that_is_sent_late_has_waited_since_it_was_due() -> None:
    late = Stream(due_s=1.0, sent_s=3.0, chunks_s=(3.5, 4.0), ended_s=4.0, completion_tokens=2)
    assert (late.ttft_s, late.e2e_s) == (0.5, 3.0)


@pytest.mark.parametrize(("factor", "outcome"), [(1.0, "passed"), (9.0, "failed")])
def test_a_ratio_is_judged_by_its_interval(factor: float, outcome: str) -> None:
    record = Recorder()
    one = block(*(answered(factor * (0.1 + 0.001 * step)) for step in range(12)))
    base = block(*(answered(0.1 + 0.001 * step) for step in range(12)))
    expect_ratio(Rows(record, "padded-tp2"), "latency/x", "ttft", one, base, 3.0, what="x")
    assert record.outcomes() == {"latency/x": outcome}


@pytest.mark.parametrize("doubtful", ["block", "base"])
def test_a_ratio_is_as_doubtful_as_either_of_its_blocks(doubtful: str) -> None:
    record = Recorder()
    rows = Rows(record, "padded-tp2")
    quiet, noisy = block(*(FAST,) * 12), block(*(FAST,) * 12, disturbed="a compiler")
    one, base = (noisy, quiet) if doubtful == "block" else (quiet, noisy)
    expect_ratio(rows, "latency/x", "ttft", one, base, 3.0, what="x")
    expect_floor(rows, "throughput/x", one, 1.0, 0.5, unit="1", what="x", base=base)
    assert set(record.outcomes().values()) == {"invalid"}
    assert all("a compiler" in str(row.reason) for row in record.rows)


@pytest.mark.parametrize(
    ("value", "limit", "doubt", "outcome"),
    [
        (12.0, 10.0, None, "passed"),
        (8.0, 10.0, None, "failed"),
        (12.0, None, None, "passed"),
        (12.0, 10.0, "a busy machine", "invalid"),
        (None, 10.0, None, "failed"),
        (None, None, None, "not_run"),
    ],
)
def test_a_rate_is_judged_as_it_stands(
    value: float | None, limit: float | None, doubt: str | None, outcome: str
) -> None:
    record = Recorder()
    found = block(FAST, disturbed=doubt)
    expect_floor(Rows(record, "c"), "throughput/x", found, value, limit, unit="1/s", what="x")
    assert record.outcomes() == {"throughput/x": outcome}
