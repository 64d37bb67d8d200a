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
from suites.measure import Ask, Block, Gauge
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
    blocks = gauge.latency(sound, budget, "cell-l", rounds=partial(timed, benchmark))
    rows = Rows(record, cell.id)
    text = blocks["text"]
    expect_answered(rows, "latency/failed_requests", text.load, sound.log)
    expect_times(rows, "latency", text, budget)
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
    expect_agreement(rows, "latency/server_agreement", text)
    _tell_client(rows, text)
    if (image := blocks.get("image")) is not None:
        expect_answered(rows, "latency/image/failed_requests", image.load, sound.log)
        expect_agreement(rows, "latency/image/server_agreement", image)
        expect_times(rows, "latency/image", image, None)
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
