"""One request at a time: time to first token, time per output token, end to end."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from fixtures.budgets import METRICS
from fixtures.deployment import PlatformSettings
from fixtures.load.streams import Stream
from fixtures.matrix import Cell
from fixtures.serving.server import Server
from reports.record import RecordRow
from reports.statistics import quantile_interval
from suites.baseline import Baseline
from suites.expect import Rows
from suites.measure import Block, Blocks, Gauge
from suites.times import (
    expect_agreement,
    expect_answered,
    expect_ratio,
    expect_times,
)

pytestmark = pytest.mark.latency


class Replayed:
    """The clock of pytest-benchmark: it goes by what was measured, and stands still otherwise."""

    __name__ = "replayed"

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    def replay(self, benchmark: BenchmarkFixture, streams: Sequence[Stream]) -> None:
        """Each request as one round, from its sending to its end, for those who use the plugin's
        JSON and compare. A block may be measured again, which the plugin allows nobody."""
        left = iter(streams)

        def one() -> None:
            stream = next(left, None)  # the plugin's profiler calls once more
            if stream is not None:
                self.now_s += stream.ended_s - stream.sent_s

        benchmark.pedantic(one, rounds=len(streams))  # type: ignore[no-untyped-call]  # no types


REPLAYED = Replayed()


@pytest.mark.benchmark(timer=REPLAYED)
def test_latency(
    cell: Cell,
    sound: Server,
    baseline: Baseline,
    gauge: Gauge,
    cell_settings: PlatformSettings,
    record: RecordRow,
    benchmark: BenchmarkFixture,
) -> None:
    """Percentiles stay within the deployment's budgets, medians within ratios to the baseline."""
    budget = cell_settings.latency
    rows = Rows(record, cell.id)
    blocks: Blocks = {}
    # A row as soon as its block is over: what was measured outlives Ctrl-C.
    for kind, block in gauge.latency(sound, budget, "cell-l"):
        blocks[kind] = block
        prefix = "latency" if kind == "text" else f"latency/{kind}"
        expect_answered(rows, f"{prefix}/failed_requests", block.load, sound.log)
        expect_agreement(rows, f"{prefix}/server_agreement", block)
        expect_times(rows, prefix, block, budget if kind == "text" else None)
    text = blocks["text"]
    base = baseline.latency["text"] if baseline.latency else None
    for metric in METRICS:
        expect_ratio(
            rows,
            f"latency/{metric}_p50_ratio",
            metric,
            text,
            base,
            budget.ratio(metric, cell.ranks),
            what="median over original-tp1's in this run",
        )
    _tell_client(rows, text)
    if (image := blocks.get("image")) is not None:
        expect_ratio(
            rows,
            "latency/image_ttft_p50_ratio",
            "ttft",
            image,
            text,
            budget.image_ttft_p50_ratio,
            what="median with a picture over that without",
        )
    REPLAYED.replay(benchmark, text.load.streams)
    rows.settle()


def _tell_client(rows: Rows, block: Block) -> None:
    """What of the time to the first token passed in the client itself."""
    own = [one.client_s for one in block.load.answered if one.client_s is not None]
    if own:
        rows.add_measured(
            "latency/client_p50",
            "passed",
            quantile_interval(own, 0.5, confidence=0.95),
            None,
            unit="s",
            better="lower",
            definition="time to the first token that passed in the client; s; v1",
        )
