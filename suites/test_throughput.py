"""Many requests at a time: rates of closed loops, and times under arrivals at random."""

from __future__ import annotations

import pytest

from fixtures.deployment import PlatformSettings
from fixtures.matrix import Cell
from fixtures.serving.server import Server
from reports.record import RecordRow
from suites.baseline import Baseline
from suites.expect import Rows
from suites.measure import Block, Blocks, Gauge, best
from suites.times import (
    OUTPUT_RATE,
    REQUEST_RATE,
    expect_agreement,
    expect_answered,
    expect_floor,
    expect_times,
)

pytestmark = pytest.mark.throughput
BEST = f"{OUTPUT_RATE}; best closed loop"


def test_throughput(
    cell: Cell,
    sound: Server,
    baseline: Baseline,
    gauge: Gauge,
    cell_settings: PlatformSettings,
    record: RecordRow,
) -> None:
    """Rates reach their floors, and service under arrivals its percentiles; failures are misses."""
    budget = cell_settings.throughput
    rows = Rows(record, cell.id)
    blocks: Blocks = {}
    # A row as soon as its block is over: what was measured outlives Ctrl-C.
    for name, block in gauge.throughput(sound, budget, "cell-t"):
        blocks[name] = block
        prefix = f"throughput/{name}"
        expect_answered(rows, f"{prefix}/failed_requests", block.load, sound.log)
        expect_agreement(rows, f"{prefix}/server_agreement", block)
        expect_times(rows, prefix, block, budget if name == "poisson" else None)
        _expect_rate(rows, f"{prefix}/output_tokens_per_s", block, None)
        requests = block.load.requests_per_s
        claim = f"{prefix}/requests_per_s"
        expect_floor(rows, claim, block, requests, None, unit="1/s", what=REQUEST_RATE)
    block = best(blocks)
    claim = "throughput/output_tokens_per_s"
    _expect_rate(rows, claim, block, budget.output_tokens_per_s, what=BEST)
    base = best(baseline.throughput) if baseline.throughput else None
    if block.load.output_tokens_per_s is not None and cell.ranks == 1:
        baseline.one_rank[cell.variant] = block
    own = cell.variant if cell.variant in baseline.one_rank else "original"
    alone = baseline.one_rank.get(own, base)
    limits = {
        "output_tokens_ratio": (
            base,
            1,
            budget.output_tokens_ratio,
            f"{BEST} over original-tp1's in this run",
        ),
        "scaling_efficiency": (
            alone,
            cell.ranks,
            budget.scaling_efficiency,
            f"{BEST} over {own}-tp1's in this run, over the ranks",
        ),
    }
    for claim, (over, ranks, floors, what) in limits.items():
        limit = floors.get(cell.ranks)
        value = _ratio(block, over)
        if value is not None:
            expect_floor(rows, f"throughput/{claim}", block, value / ranks, limit, unit="1",
                         what=what, base=over)  # fmt: skip
        elif limit is not None:
            reason = "one of the two was not measured: there is no ratio"
            rows.add(f"throughput/{claim}", "failed", reason=reason)
    rows.settle()


def _ratio(block: Block, over: Block | None) -> float | None:
    """Of two output rates, where there are both."""
    rate = block.load.output_tokens_per_s
    base = None if over is None else over.load.output_tokens_per_s
    return None if rate is None or base is None else rate / base


def _expect_rate(
    rows: Rows, claim: str, block: Block, limit: float | None, what: str = OUTPUT_RATE
) -> None:
    rate = block.load.output_tokens_per_s
    expect_floor(rows, claim, block, rate, limit, unit="token/s", what=what)
