"""One request at a time: time to first token, time per output token, end to end."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from fixtures.budgets import METRICS
from fixtures.deployment import PlatformSettings
from fixtures.load.prompts import Prompt
from fixtures.load.streams import Load, Stream
from fixtures.matrix import Cell
from fixtures.serving.server import Server
from reports.record import RecordRow
from reports.statistics import quantile_interval
from suites.baseline import Baseline
from suites.expect import Rows
from suites.measure import Ask, Block, Blocks, Gauge
from suites.times import (
    DEFINITIONS,
    expect_agreement,
    expect_answered,
    expect_ratio,
    expect_times,
    samples,
)

pytestmark = pytest.mark.latency


def timed(benchmark: BenchmarkFixture, ask: Ask, measured: Sequence[Prompt]) -> list[Stream]:
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
    for kind, block in gauge.latency(sound, budget, "cell-l", rounds=partial(timed, benchmark)):
        blocks[kind] = block
        prefix = "latency" if kind == "text" else f"latency/{kind}"
        expect_answered(rows, f"{prefix}/failed_requests", block.load, sound.log)
        expect_agreement(rows, f"{prefix}/server_agreement", block)
        expect_times(rows, prefix, block, budget if kind == "text" else None)
    text = blocks["text"]
    base = baseline.latency["text"].load if baseline.latency else Load((), 0.0)
    for metric in METRICS:
        expect_ratio(
            rows,
            f"latency/{metric}_p50_ratio",
            text,
            samples(text.load, metric),
            samples(base, metric),
            budget.ratio(metric, cell.ranks),
            what=f"{DEFINITIONS[metric]}; median over original-tp1's in this run",
        )
    _tell_client(rows, text)
    if (image := blocks.get("image")) is not None:
        expect_ratio(
            rows,
            "latency/image_ttft_p50_ratio",
            image,
            samples(image.load, "ttft"),
            samples(text.load, "ttft"),
            budget.image_ttft_p50_ratio,
            what=f"{DEFINITIONS['ttft']}; median with a picture over that without",
        )
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
