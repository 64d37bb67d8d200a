"""The probe against a server whose clock is known: counts, times, and every way to fail."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import get_args

import httpx2
import pytest

from fixtures.load.probe import Chat, closed_loop, stream
from fixtures.load.streams import KINDS, Kind, failures_by_kind
from fixtures.serving.server import Server
from suites.benchmarks.truth import error, miscounted, paired
from suites.selftest.clocked import BECOMES, Sent, clock, read_log
from suites.selftest.stub_streams import FAULTS, Settings
from suites.selftest.stubbed import image

Clock = Callable[..., tuple[Server, Path]]
TOKENS = 8
LONG_S = 20.0  # a machine that is busy stays far below, a deadline that is missed far above


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clock]:
    """Clocks by their options, each started once."""
    running: dict[tuple[str, ...], tuple[Server, Path]] = {}
    with ExitStack() as stack:

        def start(*options: str) -> tuple[Server, Path]:
            if options not in running:
                directory = tmp_path_factory.mktemp("clock")
                running[options] = stack.enter_context(clock(directory, *options))
            return running[options]

        yield start


# ------------------------------------------------------------------ counts and times

GRID = {
    "fast": ("--first-s=0.02", "--gap-s=0.005"),
    "slow": ("--first-s=0.1", "--gap-s=0.02"),
    "four tokens a chunk": ("--first-s=0.05", "--gap-s=0.01", "--chunk-tokens=4"),
    "shaken": ("--first-s=0.05", "--gap-s=0.01", "--chunk-tokens=3", "--jitter=0.5", "--seed=7"),
    "empty chunks first": ("--first-s=0.05", "--gap-s=0.01", "--fault=empty-first-chunks=1"),
}


@pytest.mark.parametrize("concurrency", [1, 8, 32])
@pytest.mark.parametrize("setting", GRID)
def test_counts_are_exact_and_no_time_precedes_the_servers(
    started: Clock, setting: str, concurrency: int
) -> None:
    server, log = started(*GRID[setting])
    prompts = [f"{concurrency}-{index} of many" for index in range(max(4, 2 * concurrency))]
    load = closed_loop(server, prompts, concurrency=concurrency, max_tokens=TOKENS, deadline_s=60.0)
    pairs = paired(load, prompts, read_log(log))
    assert len(pairs) == len(prompts)
    assert miscounted(pairs) == 0
    for mine, true in pairs:
        assert mine.completion_tokens == TOKENS
        assert len(mine.chunks_s) == len(true.sent_s)
        assert mine.sent_s <= true.arrived_s
        assert all(seen >= sent for seen, sent in zip(mine.chunks_s, true.sent_s, strict=True))
    errors = [error(*pair) for pair in pairs]
    # A busy machine adds to any request; that it adds this much to all is a client that is wrong.
    assert 0 < min(one.ttft_s for one in errors if one.ttft_s is not None) < 0.25
    assert min(abs(one.tpot_s) for one in errors if one.tpot_s is not None) < 0.05


def test_the_clients_own_time_is_set_apart(started: Clock) -> None:
    server, log = started(*GRID["slow"])
    prompts = [f"own time {index}" for index in range(4)]
    load = closed_loop(server, prompts, concurrency=2, max_tokens=2, deadline_s=60.0)
    for mine, true in paired(load, prompts, read_log(log)):
        assert mine.client_s is not None
        found = error(mine, true)
        assert found.ttft_s is not None
        # Part of what the client sees above the server's figure, and never part of the server's.
        assert 0 < mine.client_s <= found.ttft_s


def test_a_chat_with_a_picture_is_timed_from_its_content(started: Clock) -> None:
    server, log = started(*GRID["slow"])
    chats = [Chat(tuple(image(seed))) for seed in range(3)]
    load = closed_loop(server, chats, concurrency=3, max_tokens=3, deadline_s=60.0)
    sent = [record for record in read_log(log) if record.chat]
    assert [s.completion_tokens for s in load.streams] == [3] * 3
    assert min(s.ttft_s or 0.0 for s in load.streams) >= 0.1
    assert {s.prompt_tokens for s in load.streams} == {record.prompt_tokens for record in sent}


# ------------------------------------------------------------------ failures

PATIENCE_S = 0.4


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_becomes_a_miss_of_its_kind_by_its_deadline(started: Clock, fault: str) -> None:
    server, _ = started("--first-s=0.01", "--gap-s=0.002", f"--fault={fault}=1")
    for prompt in ("faulty", Chat(({"role": "user", "content": "faulty"},))):
        # Only what stalls is to meet its deadline, however busy the machine.
        patience_s = PATIENCE_S if BECOMES[fault] == "stalled" else LONG_S
        found = stream(server, prompt, max_tokens=TOKENS, timeout_s=patience_s)
        assert found.kind == BECOMES[fault], found.error
        assert found.ended_s - found.sent_s < LONG_S
        assert (found.error is None) == (found.kind is None)


def test_a_server_that_dies_under_load_leaves_misses_of_two_kinds(started: Clock) -> None:
    server, _ = started("--first-s=0.01", "--gap-s=0.005", "--die-after=6")
    prompts = [f"mortal {index}" for index in range(20)]
    load = closed_loop(server, prompts, concurrency=4, max_tokens=TOKENS, deadline_s=60.0)
    kinds = failures_by_kind(load.streams)
    assert len(load.streams) == 20
    assert set(kinds) == {"dropped", "refused"}
    assert len(load.answered) <= 6


def test_faults_among_many_are_all_counted_and_the_rest_is_answered(started: Clock) -> None:
    server, log = started("--first-s=0.01", "--fault=http500=3", "--fault=drop=5")
    prompts = [f"mixed {index}" for index in range(30)]
    load = closed_loop(server, prompts, concurrency=8, max_tokens=4, deadline_s=60.0)
    assert failures_by_kind(load.streams) == {"http": 10, "dropped": 4}
    assert sum(record.fault is not None for record in read_log(log)) == 14


def test_what_was_not_sent_by_the_deadline_is_said_to_be_unsent(started: Clock) -> None:
    server, _ = started("--fault=stall-before=1")
    began_s = time.monotonic()
    load = closed_loop(server, ["never"] * 9, concurrency=2, max_tokens=4, deadline_s=1.0)
    kinds = failures_by_kind(load.streams)
    assert set(kinds) <= {"unsent", "stalled"}
    assert sum(kinds.values()) == 9
    assert kinds["unsent"] >= 7  # of the two sent, a machine that is busy may send none in time
    assert time.monotonic() - began_s < LONG_S


def test_an_interruption_does_not_wait_for_a_stalled_stream(started: Clock) -> None:
    server, _ = started("--first-s=0.01", "--fault=stall=2")

    def interrupt(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    began_s = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        closed_loop(
            server,
            ["one", "two"],
            concurrency=2,
            max_tokens=4,
            deadline_s=10 * LONG_S,
            progress=interrupt,
        )
    assert time.monotonic() - began_s < LONG_S


def test_every_kind_of_failure_is_met_here() -> None:
    # `crashed` is for instruments that run as a process of their own.
    met = {*BECOMES.values(), "refused", "unsent", "crashed"} - {None}
    assert met == set(KINDS) == set(get_args(Kind))


# ------------------------------------------------------------------ the clock itself


def settings(**given: float) -> Settings:
    return Settings(
        model="clock",
        first_s=0.1,
        gap_s=0.02,
        jitter=given.get("jitter", 0.0),
        seed=int(given.get("seed", 0)),
        chunk_tokens=int(given.get("chunk_tokens", 1)),
        usage=True,
        faults=(("http500", 2), ("drop", 3)),
        die_after=None,
    )


def test_jitter_moves_the_waits_and_keeps_their_mean() -> None:
    waits = [w for number in range(500) for w in settings(jitter=0.3).waits_s(9, number)[1:]]
    # 4000 draws of relative deviation 0.31: the mean is within 2 % but for one in 10000 seeds.
    assert statistics.fmean(waits) == pytest.approx(0.02, rel=0.02)
    assert settings(jitter=0.3).waits_s(9, 1) == settings(jitter=0.3).waits_s(9, 1)
    assert settings(jitter=0.3).waits_s(9, 1) != settings(jitter=0.3, seed=1).waits_s(9, 1)
    assert settings(chunk_tokens=4).waits_s(3, 1) == pytest.approx([0.1, 0.08, 0.08])


def test_faults_fall_on_every_kth_request() -> None:
    found = [settings().fault(number) for number in range(1, 7)]
    assert found == [None, "http500", "drop", "http500", None, "http500"]


def scraped(server: Server) -> dict[str, float]:
    text = httpx2.get(f"{server.url}/metrics", trust_env=False).text
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {name.partition("{")[0]: float(value) for name, _, value in lines}


@pytest.mark.parametrize("factor", [1.0, 1.5])
def test_the_servers_histograms_say_what_its_log_says_or_lie_by_a_factor(
    started: Clock, factor: float
) -> None:
    server, log = started("--first-s=0.02", "--gap-s=0.005", f"--metrics-factor={factor}")
    for index in range(3):
        stream(server, f"counted {index}", max_tokens=5)
    sent: list[Sent] = read_log(log)
    told = scraped(server)
    assert told["vllm:generation_tokens_total"] == 15
    assert told["vllm:time_to_first_token_seconds_count"] == 3
    assert told["vllm:time_to_first_token_seconds_sum"] == pytest.approx(
        factor * sum(record.ttft_s for record in sent)
    )
    assert told["vllm:request_time_per_output_token_seconds_sum"] == pytest.approx(
        factor * sum(record.tpot_s for record in sent)
    )


def test_a_request_in_many_pieces_is_read_whole(started: Clock) -> None:
    server, _ = started(*GRID["fast"])
    found = stream(server, "word " * 400_000, max_tokens=2)
    assert found.error is None
    assert found.prompt_tokens == 2_000_000
