"""Launches of the server with a known clock, and what it wrote down of each request."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fixtures.load.streams import Kind
from fixtures.serving.server import Launch, Server, launch
from suites.selftest.stubbed import DEADLINES, write_model

CLOCK = Path(__file__).parent / "stub_clock.py"

# What a fault of the stub is, as any instrument tells it; None: none.
BECOMES: dict[str, Kind | None] = {
    "http500": "http",
    "drop": "dropped",
    "stall": "stalled",
    "stall-first": "stalled",
    "stall-before": "stalled",
    "trickle": "stalled",
    "short": "short",
    "no-usage": "malformed",
    "no-content": "malformed",
    "garbage": "malformed",
    "empty-first-chunks": None,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """One streamed request as the server saw it; times in seconds on time.monotonic.

    `due_s` and `sent_s` have an entry for each chunk with content; `prompt` is the beginning.
    """

    number: int
    id: str | None
    prompt: str
    chat: bool
    arrived_s: float
    due_s: tuple[float, ...]
    sent_s: tuple[float, ...]
    prompt_tokens: int
    completion_tokens: int
    fault: str | None
    complete: bool

    @property
    def ttft_s(self) -> float:
        return self.sent_s[0] - self.arrived_s

    @property
    def tpot_s(self) -> float:
        return (self.sent_s[-1] - self.sent_s[0]) / (self.completion_tokens - 1)

    @property
    def late_s(self) -> float:
        """By how much the server itself missed its schedule, at worst."""
        pairs = zip(self.sent_s, self.due_s, strict=True)
        return max((sent - due for sent, due in pairs), default=0.0)


def read_log(log: Path) -> list[Sent]:
    """What --log holds, in the order in which requests ended."""
    found = []
    for line in log.read_text().splitlines():
        record = json.loads(line)
        times = {name: tuple(record[name]) for name in ("due_s", "sent_s")}
        found.append(Sent(**record | times))
    return found


@contextmanager
def clock(directory: Path, *options: str) -> Iterator[tuple[Server, Path]]:
    """A running stub and its log; `options` are stub_clock.py's."""
    model = write_model(directory / "model", width=1024)
    log = directory / "sent.jsonl"
    wanted = Launch(
        model=model,
        tp=1,
        name="clock",
        log=directory / "clock.log",
        command=(sys.executable, str(CLOCK)),
        arguments=("--log", str(log), *options),
        deadlines=DEADLINES,
    )
    log.touch()
    with launch(wanted) as outcome:
        assert isinstance(outcome, Server), outcome
        yield outcome, log
