"""How latency and throughput are taken: which prompts, how many, what warms the server up first.

Prompts of the warm-up are not among the measured ones. Requests that fail are kept: as misses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias

from fixtures.deployment import LatencyBudget, ThroughputBudget
from fixtures.load.probe import closed_loop, stream
from fixtures.load.streams import Load, Stream
from fixtures.serving.server import Server
from suites.corpus import Document

Ask: TypeAlias = Callable[[str], Stream]
Rounds: TypeAlias = Callable[[Ask, Sequence[str]], list[Stream]]

WARMUPS = 2
DEADLINE_S = 600.0


def one_by_one(ask: Ask, measured: Sequence[str]) -> list[Stream]:
    """Ask each prompt in turn."""
    return [ask(prompt) for prompt in measured]


def prompts(texts: Sequence[Document], count: int, block: str) -> tuple[list[str], list[str]]:
    """(warm-up prompts, `count` measured ones): short documents, no two blocks sharing a beginning.

    A prompt seen before would be answered from the prefix cache. Block names are equally long.
    """
    short = [document.text for document in texts if len(document.text) < 400]
    warm, rest = short[:WARMUPS], short[WARMUPS:]
    measured = [f"{block}{index:03d} {rest[index % len(rest)]}" for index in range(count)]
    return [f"{block} {text}" for text in warm], measured


def measure_latency(
    server: Server,
    texts: Sequence[Document],
    budget: LatencyBudget,
    block: str,
    rounds: Rounds = one_by_one,
) -> list[Stream]:
    """One request at a time, streamed; `rounds` is who calls, so that pytest-benchmark can."""
    warm, measured = prompts(texts, budget.requests, block)
    ask = partial(stream, server, max_tokens=budget.output_tokens)
    for prompt in warm:
        ask(prompt)
    return rounds(ask, measured)


def measure_throughput(
    server: Server, texts: Sequence[Document], budget: ThroughputBudget, block: str
) -> Load:
    """A closed loop: each client sends its next request when the last is answered."""
    warm, measured = prompts(texts, budget.requests, block)
    loop = partial(
        closed_loop,
        server,
        concurrency=budget.concurrency,
        max_tokens=budget.output_tokens,
        deadline_s=DEADLINE_S,
    )
    loop(warm)
    return loop(measured)
