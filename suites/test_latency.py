"""One request at a time: time to first token, time per output token, end to end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from fixtures.deployment import PlatformSettings
from fixtures.load.streams import Stream
from fixtures.matrix import Cell
from fixtures.serving.server import Server
from reports.record import RecordRow
from reports.statistics import quantile_interval, ratio_interval
from suites.baseline import Baseline
from suites.corpus import Corpus
from suites.expect import Rows, expect_answered, expect_baseline, expect_within
from suites.measure import Ask, measure_latency

pytestmark = pytest.mark.latency

DEFINITIONS = {
    "ttft": "send to the first non-empty content; s; v1",
    "tpot": "(last content - first content) / (completion tokens - 1); s; v1",
    "e2e": "due moment to the last content; s; v2",
}
TAKE: dict[str, Callable[[Stream], float | None]] = {
    "ttft": lambda stream: stream.ttft_s,
    "tpot": lambda stream: stream.tpot_s,
    "e2e": lambda stream: stream.e2e_s,
}


def samples(streams: Sequence[Stream], metric: str) -> list[float]:
    """The metric of every request that was answered."""
    taken = (TAKE[metric](stream) for stream in streams if stream.error is None)
    return [value for value in taken if value is not None]


def timed(benchmark: BenchmarkFixture, ask: Ask, measured: Sequence[str]) -> list[Stream]:
    """Each request as one round of pytest-benchmark, for those who use its JSON and compare."""
    streams: list[Stream] = []
    prompts = iter(measured)
    benchmark.pedantic(  # type: ignore[no-untyped-call]  # the plugin carries no types
        lambda prompt: streams.append(ask(prompt)),
        setup=lambda: ((next(prompts),), {}),
        rounds=len(measured),
    )
    return streams


def test_latency(
    cell: Cell,
    sound: Server,
    baseline: Baseline,
    corpus: Corpus,
    settings: PlatformSettings,
    record: RecordRow,
    benchmark: BenchmarkFixture,
) -> None:
    """Medians stay within the deployment's budgets, and within its ratios to the baseline."""
    budget = settings.latency
    streams = measure_latency(
        sound, corpus.texts, budget, "cell-l", rounds=partial(timed, benchmark)
    )
    rows = Rows(record, cell.id)
    expect_answered(rows, "latency/failed_requests", streams, sound.log)
    for metric, definition in DEFINITIONS.items():
        values = samples(streams, metric)
        if not values:
            rows.add(f"latency/{metric}_p50", "failed", reason="no request was answered")
            continue
        expect_within(
            rows,
            f"latency/{metric}_p50",
            quantile_interval(values, 0.5, confidence=0.95),
            getattr(budget, f"{metric}_p50_s"),
            unit="s",
            definition=definition,
            advice="Slower than the budget in deployments.toml",
        )
        limit = getattr(budget, f"{metric}_p50_ratio").get(cell.ranks)
        base = samples(baseline.latency or (), metric)
        if not base:
            expect_baseline(rows, f"latency/{metric}_p50_ratio", limit)
        if limit is None or not base:
            continue
        expect_within(
            rows,
            f"latency/{metric}_p50_ratio",
            ratio_interval(values, base),
            limit,
            unit="1",
            definition=f"{definition}; median over original-tp1's in this run",
            advice="Slower than the ratio in deployments.toml allows beside original-tp1",
        )
    rows.settle()
