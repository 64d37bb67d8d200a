"""How latency and throughput are taken: which prompts, how many, what warms the server up first.

Prompts of the warm-up are not among the measured ones. Requests that fail are kept: as misses.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from fixtures.deployment import LatencyBudget, ThroughputBudget
from fixtures.serving.client import LoadResult, Stream, closed_loop, stream
from fixtures.serving.server import Server
from suites.corpus import Document

WARMUPS = 2
DEADLINE_S = 600.0


def prompts(texts: Sequence[Document], count: int) -> tuple[list[str], list[str]]:
    """(warm-up prompts, `count` measured ones): short documents, made distinct when they repeat."""
    short = [document.text for document in texts if len(document.text) < 400]
    warm, rest = short[:WARMUPS], short[WARMUPS:]
    measured = [f"{index // len(rest)} {rest[index % len(rest)]}" for index in range(count)]
    return warm, measured


def measure_latency(
    server: Server, texts: Sequence[Document], budget: LatencyBudget
) -> list[Stream]:
    """One request at a time, streamed."""
    warm, measured = prompts(texts, budget.requests)
    for prompt in warm:
        stream(server, prompt, max_tokens=budget.output_tokens)
    return [stream(server, prompt, max_tokens=budget.output_tokens) for prompt in measured]


def measure_throughput(
    server: Server, texts: Sequence[Document], budget: ThroughputBudget
) -> LoadResult:
    """A closed loop: each client sends its next request when the last is answered."""
    warm, measured = prompts(texts, budget.requests)
    loop = partial(
        closed_loop,
        server,
        concurrency=budget.concurrency,
        max_tokens=budget.output_tokens,
        deadline_s=DEADLINE_S,
    )
    loop(warm)
    return loop(measured)
