"""Many requests at a time: output tokens per second in a closed loop."""

from __future__ import annotations

import pytest

from fixtures.deployment import PlatformSettings
from fixtures.matrix import Cell
from fixtures.serving.server import Server
from reports.record import RecordRow
from reports.statistics import Interval
from suites.baseline import Baseline
from suites.corpus import Corpus
from suites.expect import Rows, expect_answered, expect_baseline, expect_within
from suites.measure import measure_throughput

pytestmark = pytest.mark.throughput

DEFINITION = "completion tokens of answered requests over the loop's wall time; token/s; v1"


def test_throughput(
    cell: Cell,
    sound: Server,
    baseline: Baseline,
    corpus: Corpus,
    settings: PlatformSettings,
    record: RecordRow,
) -> None:
    """The loop's output rate reaches its floors; a failed request is a miss."""
    budget = settings.throughput
    result = measure_throughput(sound, corpus.texts, budget, "cell-t")
    rows = Rows(record, cell.id)
    expect_answered(rows, "throughput/failed_requests", result.streams, sound.log)
    rate = result.output_tokens_per_s
    if rate is None:
        reason = "no request was answered, so there is no rate"
        rows.add("throughput/output_tokens_per_s", "failed", reason=reason)
        rows.settle()
        return
    # One loop is one sample: the number stands without an interval until blocks are repeated.
    expect_within(
        rows,
        "throughput/output_tokens_per_s",
        Interval(rate, None, None, 1),
        budget.output_tokens_per_s,
        unit="token/s",
        definition=f"{DEFINITION}; {budget.concurrency} clients",
        floor=True,
        advice="Below the floor in deployments.toml",
    )
    limit = budget.output_tokens_ratio.get(cell.ranks)
    base = baseline.throughput.output_tokens_per_s if baseline.throughput else None
    if base is None:
        expect_baseline(rows, "throughput/output_tokens_ratio", limit)
    elif limit is not None:
        ratio = rate / base
        expect_within(
            rows,
            "throughput/output_tokens_ratio",
            Interval(ratio, None, None, 1),
            limit,
            unit="1",
            definition=f"{DEFINITION}; over original-tp1's in this run",
            floor=True,
            advice="Below the ratio to original-tp1 in deployments.toml",
        )
    rows.settle()
