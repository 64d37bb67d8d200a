"""The comparison of instruments, run on ones that are known to be wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from fixtures.load.streams import Load, Stream
from suites.benchmarks import clients
from suites.benchmarks.clients import Outcome, Pace, Step, run, sustained
from suites.benchmarks.instruments import INSTRUMENTS, Probe, VllmBench
from suites.benchmarks.truth import Error, spread

FAST = Pace(first_s=0.02, gap_s=0.005, output_tokens=6)
STEP = Step("errors", FAST, 2, 6)


@dataclass(frozen=True, slots=True)
class Altered:
    """The probe's streams, each as something else."""

    alter: Callable[[Stream], Stream]
    name: str = "altered"

    def run(
        self, url: str, model: str, prompts: Sequence[str], concurrency: int, output_tokens: int
    ) -> Load:
        load = Probe().run(url, model, prompts, concurrency, output_tokens)
        return replace(load, streams=tuple(map(self.alter, load.streams)))

    def close(self) -> None:
        pass


def later(stream: Stream) -> Stream:
    """0.2 s more to the first chunk, and 0.04 s more to each further one."""
    shifted = (moment + 0.2 + 0.04 * index for index, moment in enumerate(stream.chunks_s))
    return replace(stream, chunks_s=tuple(shifted), client_s=None)


def median(outcome: Outcome, name: str) -> float:
    found = spread(outcome.errors, name)
    assert found is not None
    return found["median"]


def test_an_instrument_that_is_late_is_found_out() -> None:
    outcome = run(Altered(later), STEP)
    assert median(outcome, "ttft_s") >= 0.2
    assert median(outcome, "tpot_s") >= 0.03  # what it adds, less what a busy server was late
    assert spread(outcome.errors, "bare_s") is None
    assert sustained([outcome], "ttft_s") is None


def test_an_instrument_that_miscounts_is_found_out() -> None:
    def one_more(stream: Stream) -> Stream:
        return replace(stream, completion_tokens=(stream.completion_tokens or 0) + 1)

    assert run(Altered(one_more), STEP).miscounted == 6
    assert run(Probe(), STEP).miscounted == 0


def forged(share: float, rate: float) -> Outcome:
    """Ten answered requests, `rate` a second, whose TTFT is off by a share of its true second."""
    stream = Stream(due_s=0.0, sent_s=0.0, chunks_s=(1.0,), ended_s=1.0, completion_tokens=1)
    found = Error(
        true_ttft_s=1.0, true_tpot_s=None, ttft_s=share, tpot_s=None, bare_s=None, late_s=0.0
    )
    return Outcome(STEP, Load((stream,) * 10, 10 / rate), [found] * 10, 0)


def test_the_reach_ends_before_the_first_loop_beyond_the_limit() -> None:
    climb = [forged(0.01, 10.0), forged(0.02, 20.0), forged(0.09, 30.0), forged(0.01, 40.0)]
    assert sustained(climb, "ttft_s") == {"requests_per_s": 20.0, "passed": True}
    assert sustained(climb[:2], "ttft_s") == {"requests_per_s": 20.0, "passed": False}
    assert sustained(climb[2:], "ttft_s") is None
    assert sustained(climb, "tpot_s") is None


def test_a_time_that_an_instrument_does_not_tell_is_said_so() -> None:
    lines = clients.markdown({"late": ([], [forged(0.09, 10.0)])})
    assert lines[-1] == "| late | not at one stream | not told | not told |"


def test_a_loop_with_failures_is_not_sustained() -> None:
    good = forged(0.01, 10.0)
    lost = Stream(due_s=0.0, sent_s=0.0, ended_s=1.0, kind="dropped", error="dropped")
    failing = replace(good, load=replace(good.load, streams=(*good.load.streams, lost)))
    assert sustained([good, failing], "ttft_s") == {"requests_per_s": 10.0, "passed": True}


def test_the_command_prints_a_table_and_writes_every_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(clients, "ERRORS", (STEP,))
    monkeypatch.setattr(clients, "REACH", (Step("reach", FAST, 1, 3),))
    out = tmp_path / "clients.json"
    assert clients.main(["--instrument", "probe", "--json", str(out)]) == 0
    said = capsys.readouterr()
    assert "| probe | 2 | 6 | 0 |" in said.out
    assert "probe: errors, 2 streams, 6 requests; about" in said.err
    found = json.loads(out.read_text())["instruments"]["probe"]
    assert found["errors"][0]["error_s"]["ttft_s"]["n"] == 6
    assert [step["concurrency"] for step in found["reach"]] == [1]


def test_an_instrument_that_is_not_installed_is_left_out_and_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(clients, "ERRORS", (STEP,))
    monkeypatch.setattr(clients, "REACH", (Step("reach", FAST, 1, 3),))
    absent = {VllmBench.name: (VllmBench, lambda: False)}
    monkeypatch.setattr(clients, "INSTRUMENTS", INSTRUMENTS | absent)
    assert clients.main([]) == 0
    said = capsys.readouterr()
    assert "vllm bench serve is not installed beside this Python" in said.err
    assert "| probe |" in said.out
    assert "| vllm bench serve |" not in said.out
    with pytest.raises(SystemExit, match="2"):
        clients.main(["--instrument", "vllm bench serve"])
