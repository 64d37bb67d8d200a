"""Blocks that the machine disturbed are measured again: with new prompts, so often, no longer."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, repeat
from pathlib import Path

import pytest

from fixtures.budgets import LatencyBudget, ThroughputBudget
from fixtures.load.metrics import Margins
from fixtures.load.probe_load import ProbeLoad
from fixtures.serving.conditions import Limits
from suites import measure, patience
from suites.corpus import read_corpus
from suites.measure import Block, Gauge
from suites.patience import MOST, Patience
from suites.selftest.runs import changed, run_inner
from suites.selftest.stubbed import Start

BUSY = "somebody else's compiler took a core"
TEXTS = LatencyBudget(requests=3, output_tokens=4)


@dataclass(slots=True)
class Watched:
    """What a watch of the machine came to."""

    said: str | None
    others: bool = True

    def verdict(self) -> str | None:
        return self.said

    def to_json(self) -> dict[str, object]:
        return {"invalid": self.said}

    def may_pass(self) -> bool:
        return self.others


@dataclass(slots=True)
class Disturbed:
    """A gauge on a machine that is as busy as it is told to be."""

    gauge: Gauge
    said: list[str] = field(default_factory=list)

    def files(self) -> list[str]:
        return sorted(path.stem for path in self.gauge.raw.rglob("*.json"))


Machine = Callable[..., Disturbed]


def watching(verdicts: Iterator[str | None], *, others: bool = True) -> Callable[..., object]:
    @contextmanager
    def observe(**_: object) -> Iterator[Watched]:
        yield Watched(next(verdicts), others)

    return observe


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    def made(
        *looks: str | None,
        then: str | None = None,
        waits: str | None = None,
        left_s: float = 60.0,
        others: bool = True,
    ) -> Disturbed:
        seen = chain(looks, repeat(then))
        monkeypatch.setattr(measure, "observe", watching(seen, others=others))
        monkeypatch.setattr(patience, "observe", watching(repeat(waits)))
        monkeypatch.setattr(patience, "WINDOW_S", 0.01)
        monkeypatch.setattr(patience, "TELL_S", 0.5)
        said: list[str] = []
        documents = tuple(read_corpus("ci").documents)
        margins = Margins(share=0.25, slack_s=5.0)
        left = Patience(left_s, Limits(), said.append)
        return Disturbed(Gauge(ProbeLoad(), documents, tmp_path, said.append, margins, left), said)

    return made


def text_of(found: Disturbed, start: Start, *behaviours: str) -> Block:
    return dict(found.gauge.latency(start(*behaviours), TEXTS, "cell-l"))["text"]


def told(block: Block) -> list[str]:
    """What is noted of it, but for caches, of which the stub has none."""
    return [note for note in block.notes if "not emptied" not in note] + [
        again for again in [block.again] if again is not None
    ]


def test_a_quiet_machine_is_looked_at_once(machine: Machine, start: Start) -> None:
    found = machine()
    block = text_of(found, start)
    assert (block.doubt, told(block), found.said) == (None, [], [])
    assert found.files() == ["cell-l-text"]


def test_a_disturbed_block_is_measured_again_and_says_so(machine: Machine, start: Start) -> None:
    found = machine(BUSY, BUSY)
    block = text_of(found, start)
    assert block.doubt is None
    assert told(block) == [f"measured 3 times, since the machine disturbed it: {BUSY}"]
    assert found.files() == ["cell-l-text", "cell-l-text.disturbed1", "cell-l-text.disturbed2"]
    assert len(found.said) == 2
    assert all(BUSY in line and "cell-l-text" in line for line in found.said)
    assert found.gauge.patience.left_s < 60


def test_a_load_is_measured_again_too(machine: Machine, start: Start) -> None:
    found = machine(BUSY)
    budget = ThroughputBudget(closed={2: 4}, output_tokens=4)
    block = dict(found.gauge.throughput(start(), budget, "cell-t"))["closed2"]
    assert (block.doubt, len(block.load.answered), len(told(block))) == (None, 4, 1)
    assert found.files() == ["cell-t-closed2", "cell-t-closed2.disturbed1"]


def test_what_stays_disturbed_is_invalid_in_the_end(machine: Machine, start: Start) -> None:
    found = machine(then=BUSY)
    assert text_of(found, start).doubt == BUSY
    assert len(found.files()) == MOST


def test_a_machine_that_does_not_become_quiet_is_not_waited_for_long(
    machine: Machine, start: Start
) -> None:
    found = machine(BUSY, waits=BUSY, left_s=2.0)
    assert text_of(found, start).doubt == BUSY
    assert len(found.files()) == 1
    assert any("waiting for a quiet machine" in line for line in found.said)
    assert "patience with the machine is used up" in found.said[-1]
    assert found.gauge.patience.left_s < 1


def test_what_a_run_brings_about_itself_is_not_waited_for(machine: Machine, start: Start) -> None:
    found = machine("GPU 0 was slowed down", others=False)
    assert text_of(found, start).doubt == "GPU 0 was slowed down"
    assert (len(found.files()), found.said) == (1, [])


def test_a_run_has_only_so_much_patience(machine: Machine, start: Start) -> None:
    found = machine(BUSY, left_s=0.0)
    assert text_of(found, start).doubt == BUSY
    assert len(found.files()) == 1


def test_failed_requests_are_never_measured_away(machine: Machine, start: Start) -> None:
    found = machine(BUSY)
    block = text_of(found, start, "die-mid-run")
    assert block.load.failures
    assert block.doubt == BUSY
    assert len(found.files()) == 1


def test_a_run_on_a_busy_machine_ends_in_invalid_times(
    tmp_path: Path, cache: Path, deployments: Path
) -> None:
    file = changed(deployments, tmp_path, "foreign_cores = 1000.0", "foreign_cores = 0.1")
    file = changed(file, tmp_path, "again_s = 0", "again_s = 5\nforeign_share = 0.001")
    asked = ("-m", "latency and original and tp1")
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        # Slow, so that a block is not too short for the counters of CPU time.
        slow = ["*=slow"]
        inner = run_inner(tmp_path / "r", cache, *asked, behaviours=slow, deployments=file)
    finally:
        other.kill()
        other.wait()
    assert inner.code == 1
    row = inner.row("original-tp1", "latency/ttft_p50")
    assert row["outcome"] == "invalid"
    assert "other processes used" in row["reason"]
    assert "-l-text) was disturbed: other processes used" in inner.output
