"""vLLM's own benchmark, run by ours, against a server whose clock is known.

Where definitions agree, our figures are vLLM's to rounding; where they do not, the difference is
asserted, with its reason.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from fixtures.load.bench import SCRIPT, Bench
from fixtures.load.bench_results import Benchmarked
from fixtures.load.instrument import Arrivals
from fixtures.load.prompts import Prompt
from fixtures.load.streams import KINDS, Load, failures_by_kind
from fixtures.serving.server import Server
from suites.benchmarks import side_by_side
from suites.benchmarks.instruments import write_tokenizer
from suites.benchmarks.truth import error, miscounted, paired
from suites.selftest.clocked import BECOMES, clock, read_log
from suites.selftest.stub_streams import FAULTS
from suites.selftest.test_bench import gone

pytestmark = [
    pytest.mark.oracles,
    pytest.mark.skipif(
        importlib.util.find_spec("vllm") is None,
        reason="vllm not installed: `tox -e cpu -- suites/oracles`",
    ),
]

ROOT = Path(__file__).parents[2]
Clock = Callable[..., tuple[Server, Path]]
TOKENS = 8
LONG_S = 60.0  # a machine that is busy stays far below, a deadline that is missed far above
ROUNDING = 1e-9  # sums of some hundred floats, in another order


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clock]:
    """Clocks by their options, each started once, beside a tokenizer that vLLM can read."""
    running: dict[tuple[str, ...], tuple[Server, Path]] = {}
    with ExitStack() as stack:

        def start(*options: str) -> tuple[Server, Path]:
            if options not in running:
                directory = tmp_path_factory.mktemp("clock")
                running[options] = stack.enter_context(clock(directory, *options))
                write_tokenizer(directory / "model")  # the stub has read its config
            return running[options]

        yield start


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("bench")
    with Bench(folder / "bench.log", folder / "blocks") as one:
        yield one


def texts(count: int, word: str) -> list[Prompt]:
    return [Prompt(f"{word} {index}") for index in range(count)]


def run(
    bench: Bench,
    server: Server,
    prompts: Sequence[Prompt],
    arrivals: Arrivals,
    *,
    deadline_s: float = LONG_S,
    **given: Any,
) -> Benchmarked:
    bench.run(
        server,
        prompts,
        arrivals=arrivals,
        output_tokens=given.pop("tokens", TOKENS),
        deadline_s=deadline_s,
        **given,
    )
    assert bench.last is not None
    return bench.last


def median_ms(load: Load, name: str) -> float:
    found: list[float | None] = [getattr(stream, name) for stream in load.answered]
    return 1e3 * statistics.median(value for value in found if value is not None)


# ------------------------------------------------------------------ counts and times

GRID = {
    "fast": ("--first-s=0.02", "--gap-s=0.005"),
    "slow": ("--first-s=0.1", "--gap-s=0.02"),
    "four tokens a chunk": ("--first-s=0.05", "--gap-s=0.01", "--chunk-tokens=4"),
    "shaken": ("--first-s=0.05", "--gap-s=0.01", "--chunk-tokens=3", "--jitter=0.5", "--seed=7"),
}


@pytest.mark.parametrize("clients", [1, 8, 32])
@pytest.mark.parametrize("setting", GRID)
def test_counts_are_exact_no_time_precedes_the_servers_and_vllm_says_the_same(
    started: Clock, bench: Bench, setting: str, clients: int
) -> None:
    server, log = started(*GRID[setting])
    prompts = texts(max(4, 2 * clients), f"{clients} of many")
    found = run(bench, server, prompts, Arrivals(clients=clients))
    pairs = paired(found.load, [prompt.text for prompt in prompts], read_log(log))
    assert len(pairs) == len(prompts)
    assert miscounted(pairs) == 0
    for mine, true in pairs:
        assert mine.completion_tokens == TOKENS
        assert len(mine.chunks_s) == len(true.sent_s)
        assert mine.sent_s <= true.arrived_s
        assert all(seen >= sent for seen, sent in zip(mine.chunks_s, true.sent_s, strict=True))
        assert mine.ended_s >= mine.chunks_s[-1]
    errors = [error(*pair) for pair in pairs]
    # A busy machine adds to any request; that it adds this much to all is a client that is wrong.
    assert 0 < min(one.ttft_s for one in errors if one.ttft_s is not None) < 0.25
    assert min(abs(one.tpot_s) for one in errors if one.tpot_s is not None) < 0.05
    the_same(found)


def the_same(found: Benchmarked) -> None:
    """Of a closed loop in which every request was answered."""
    load, figures = found.load, found.figures
    for ours, theirs in (("ttft_s", "ttft"), ("tpot_s", "tpot"), ("e2e_s", "e2el")):
        wanted = pytest.approx(figures[f"median_{theirs}_ms"], rel=ROUNDING)
        assert median_ms(load, ours) == wanted
        assert f"{median_ms(load, ours):.2f}" in found.printed
    counted = [stream.completion_tokens or 0 for stream in load.answered]
    assert sum(counted) == figures["total_output_tokens"]
    assert len(load.answered) == figures["completed"]
    prompted = sum(stream.prompt_tokens or 0 for stream in load.answered)
    assert prompted == figures["total_input_tokens"]
    # Rates differ by what lies about the requests: vLLM's clock starts before the first one's task
    # and stops after the last one's, ours runs from sending to end.
    assert load.wall_s < figures["duration"] < load.wall_s + 0.5
    assert load.output_tokens_per_s is not None
    tokens = load.output_tokens_per_s * load.wall_s
    assert tokens == pytest.approx(figures["output_throughput"] * figures["duration"])


def test_gaps_are_of_messages_and_pooled_which_is_not_tpot(started: Clock, bench: Bench) -> None:
    server, _ = started(*GRID["four tokens a chunk"])
    found = run(bench, server, texts(6, "pooled"), Arrivals(clients=3))
    gaps = [gap for stream in found.load.answered for gap in stream.gaps_s]
    assert len(gaps) == 6  # one between two messages of four tokens
    assert found.figures["median_itl_ms"] == pytest.approx(1e3 * statistics.median(gaps), rel=1e-6)
    # A message of four tokens after 40 ms is 40 / 7 ms a token after the first, by vLLM as by us.
    assert found.figures["median_itl_ms"] > 20
    assert found.figures["median_tpot_ms"] == pytest.approx(
        found.figures["median_itl_ms"] / 7, rel=0.3
    )


# ------------------------------------------------------------------ chats and pictures


def picture(seed: int, folder: Path) -> bytes:
    Image.new("RGB", (8, 8), (seed, 90, 20)).save(folder / "picture.png")
    return (folder / "picture.png").read_bytes()


def test_pictures_go_as_chats_and_the_role_is_vllms_first_token(
    started: Clock, bench: Bench, tmp_path: Path
) -> None:
    server, log = started(*GRID["slow"])
    prompts = [Prompt(f"What is this, {seed}?", picture(seed, tmp_path)) for seed in range(4)]
    prompts.append(Prompt("And without one?"))
    found = run(bench, server, prompts, Arrivals(clients=2))
    pairs = paired(found.load, [prompt.text for prompt in prompts], read_log(log))
    assert len(pairs) == 5
    assert miscounted(pairs) == 0  # the stub counts four tokens for a picture
    assert all(true.chat for _, true in pairs)
    for mine, true in pairs:
        # The role is a message more than there are tokens, and stands at the first one's moment.
        assert len(mine.chunks_s) == len(true.sent_s) + 1
        assert mine.gaps_s[0] < min(mine.gaps_s[1:])
        assert mine.chunks_s[1] >= true.sent_s[0]
        assert mine.ttft_s is not None
        assert mine.ttft_s >= 0.1
    the_same(found)


def test_empty_messages_are_vllms_first_token(started: Clock, bench: Bench) -> None:
    server, log = started(*GRID["slow"], "--fault=empty-first-chunks=1")
    prompts = texts(3, "empty")
    found = run(bench, server, prompts, Arrivals(clients=1))
    for mine, true in paired(found.load, [p.text for p in prompts], read_log(log)):
        assert mine.ttft_s is not None
        assert mine.ttft_s < 0.1 <= true.ttft_s  # the probe's ends at content
        assert len(mine.chunks_s) == len(true.sent_s) + 3
        assert mine.tpot_s is not None
        assert mine.tpot_s > true.tpot_s  # from the empty one on


# ------------------------------------------------------------------ failures

PATIENCE_S = 1.0


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_becomes_a_miss_of_its_kind_and_the_others_are_kept(
    started: Clock, bench: Bench, fault: str
) -> None:
    server, _ = started("--first-s=0.01", "--gap-s=0.002", f"--fault={fault}=3")
    stalls = BECOMES[fault] == "stalled"
    began_s = time.monotonic()
    # As many clients as requests: those that stall keep no other from being sent.
    found = run(
        bench,
        server,
        texts(6, fault),
        Arrivals(clients=6),
        deadline_s=PATIENCE_S if stalls else LONG_S,
    )
    wanted = {} if BECOMES[fault] is None else {BECOMES[fault]: 2}
    assert failures_by_kind(found.load.streams) == wanted, found.load.failures
    assert all(stream.error for stream in found.load.failures)
    assert not any("\n" in (stream.error or "") for stream in found.load.failures)
    assert time.monotonic() - began_s < LONG_S
    if stalls:
        # The loop lasted as long as the stalled ones did; vLLM's own rate says so, too.
        assert found.load.wall_s >= PATIENCE_S
    assert len(found.load.answered) == found.figures["completed"] - lenient(fault)


def lenient(fault: str) -> int:
    """What vLLM counts as a success, and we do not: of six requests two."""
    return 2 if fault in ("short", "no-usage") else 0


def test_vllm_counts_a_short_answer_and_one_without_usage_and_we_do_not(
    started: Clock, bench: Bench
) -> None:
    server, _ = started("--first-s=0.01", "--gap-s=0.002", "--fault=short=2", "--fault=no-usage=3")
    found = run(bench, server, texts(6, "lenient"), Arrivals(clients=1))
    assert [stream.kind for stream in found.load.streams] == [
        *(None, "short", "malformed", "short", None, "short"),
    ]
    assert (found.figures["completed"], found.figures["failed"]) == (6, 0)
    # Two whole answers; vLLM adds three halves, and what its tokenizer makes of " tok" * 8.
    assert sum(stream.completion_tokens or 0 for stream in found.load.answered) == 2 * TOKENS
    assert found.figures["total_output_tokens"] >= 2 * TOKENS + 3 * TOKENS // 2 + TOKENS


def test_a_server_that_dies_under_load_leaves_misses_of_two_kinds(
    started: Clock, bench: Bench
) -> None:
    server, _ = started("--first-s=0.01", "--gap-s=0.005", "--die-after=6")
    found = run(bench, server, texts(20, "mortal"), Arrivals(clients=4))
    assert set(failures_by_kind(found.load.streams)) == {"dropped", "refused"}
    assert len(found.load.streams) == 20
    assert len(found.load.answered) <= 6


def test_a_server_that_freezes_keeps_what_it_had_answered(started: Clock, bench: Bench) -> None:
    server, _ = started("--first-s=0.01", "--gap-s=0.002", "--fault=no-content=1000")

    def freeze(done: int, _total: int) -> None:
        if done == 4:
            os.kill(server.pid, signal.SIGSTOP)

    prompts = texts(400, "frozen")
    try:
        found = run(bench, server, prompts, Arrivals(clients=2), deadline_s=3.0, progress=freeze)
    finally:
        os.kill(server.pid, signal.SIGCONT)
    kinds = failures_by_kind(found.load.streams)
    assert set(kinds) == {"stalled", "unsent"}
    assert len(found.load.answered) >= 4
    assert len(found.load.streams) == 400


def test_what_was_not_sent_by_the_deadline_is_said_to_be_unsent(
    started: Clock, bench: Bench
) -> None:
    server, _ = started("--fault=stall-before=1")
    found = run(bench, server, texts(9, "never"), Arrivals(clients=2), deadline_s=1.0)
    kinds = failures_by_kind(found.load.streams)
    assert set(kinds) <= {"unsent", "stalled"}
    assert kinds["unsent"] >= 7
    assert found.load.output_tokens_per_s is None


def test_every_kind_of_failure_is_met_here() -> None:
    met = {*BECOMES.values(), "refused", "unsent", "crashed"} - {None}
    assert met == set(KINDS)


# ------------------------------------------------------------------ arrivals at random


def scheduled_s(per_s: float, count: int, seed: int) -> list[float]:
    """vLLM's arrivals after its first: a Poisson process, stretched to its mean rate exactly."""
    moments = np.cumsum(np.random.RandomState(seed).gamma(1.0, 1 / per_s, count))
    moments *= count / per_s / moments[-1]
    return [float(moment - moments[0]) for moment in moments]


def test_arrivals_at_random_have_their_rate_and_are_due_when_they_were_drawn(
    started: Clock, bench: Bench
) -> None:
    server, log = started("--first-s=0.3", "--gap-s=0.01")
    prompts = texts(60, "random")
    found = run(bench, server, prompts, Arrivals(per_s=40.0, seed=11), tokens=2)
    assert miscounted(paired(found.load, [p.text for p in prompts], read_log(log))) == 0
    due = [stream.due_s for stream in found.load.streams]
    wanted = scheduled_s(40.0, 60, 11)
    late = [(is_s - due[0]) - was_s for is_s, was_s in zip(due, wanted, strict=True)]
    # A moment is taken when vLLM wakes up: after it was due, by what a busy machine adds.
    assert statistics.median(late) < 0.05
    assert all(stream.sent_s >= stream.due_s for stream in found.load.streams)
    # Twelve are under way at once: none waits for another.
    assert due[-1] - due[0] < 0.3 * len(prompts) / 4
    for stream in found.load.streams:
        assert stream.ttft_s is not None
        assert stream.e2e_s is not None
        assert stream.e2e_s >= stream.ttft_s >= 0.3


def test_vllms_rate_counts_the_wait_for_the_first_arrival_and_ours_does_not(
    started: Clock, bench: Bench
) -> None:
    server, _ = started(*GRID["fast"])
    found = run(bench, server, texts(4, "awaited"), Arrivals(per_s=4.0, seed=3), tokens=2)
    moments = np.cumsum(np.random.RandomState(3).gamma(1.0, 1 / 4.0, 4))
    awaited_s = float(moments[0] / moments[-1])  # of the second that four arrivals take
    assert awaited_s > 0.05
    assert found.figures["duration"] - found.load.wall_s == pytest.approx(awaited_s, abs=0.2)


def test_arrivals_due_after_the_deadline_are_not_waited_for(started: Clock, bench: Bench) -> None:
    server, _ = started(*GRID["fast"])
    began_s = time.monotonic()
    found = run(bench, server, texts(50, "late"), Arrivals(per_s=0.5, seed=1), deadline_s=2.0)
    assert time.monotonic() - began_s < LONG_S  # of the 100 s of all arrivals
    assert failures_by_kind(found.load.streams).keys() == {"unsent"}
    assert len(found.load.streams) == 50


# ------------------------------------------------------------------ side by side


def test_the_two_side_by_side_differ_only_where_it_is_explained(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert side_by_side.main(["--requests=16", "--output-tokens=4"]) == 0
    said = capsys.readouterr().out
    assert side_by_side.UNEXPLAINED not in said
    assert said.count("| TPOT, median (ms) |") == 3
    assert said.count("misses by ours") >= 3
    assert "Misses by ours: 2 short, 2 malformed; failures by vLLM's: 0." in said


# ------------------------------------------------------------------ the process


def test_arguments_that_vllm_refuses_end_it_with_its_own_words(
    started: Clock, tmp_path: Path
) -> None:
    server, _ = started(*GRID["fast"])
    with Bench(tmp_path / "bench.log", tmp_path / "blocks") as one:
        load = one.run(
            server, texts(2, "refused"), arrivals=Arrivals(), output_tokens=2, deadline_s=1.0
        )
    (said,) = {stream.error for stream in load.streams}
    assert said is not None
    assert "ended with status 2, saying" in said
    assert "--request-rate: invalid float value: 'None'" in said


def test_no_proxy_is_asked_the_way_even_where_one_is_named(started: Clock, tmp_path: Path) -> None:
    server, _ = started(*GRID["fast"])
    command = ("env", "http_proxy=http://127.0.0.1:9", sys.executable, str(SCRIPT))
    with Bench(tmp_path / "bench.log", tmp_path / "blocks", command=command) as one:
        assert not run(one, server, texts(2, "direct"), Arrivals(clients=1)).load.failures


def test_connections_that_the_server_is_about_to_close_are_not_used(
    started: Clock, bench: Bench
) -> None:
    server, _ = started(*GRID["fast"])
    mine = psutil.Process(server.pid)

    def connected(_done: int, _total: int) -> None:
        ports.append({c.raddr.port for c in mine.net_connections() if c.status == "ESTABLISHED"})

    ports: list[set[int]] = []
    # The third keeps the session open while we look at what the second used.
    seed = next(
        seed
        for seed in range(1000)
        if 5.5 < (moments := scheduled_s(0.3, 3, seed))[1] < 7 and moments[2] - moments[1] > 2
    )
    load = bench.run(
        server,
        texts(3, "idle"),
        arrivals=Arrivals(per_s=0.3, seed=seed),
        output_tokens=2,
        deadline_s=LONG_S,
        progress=connected,
    )
    assert not load.failures
    assert ports[0]
    assert ports[1]
    assert not ports[0] & ports[1]  # idle for 5.5 s: vLLM's own server closes them after 5


def test_prompts_and_results_are_left_as_they_should(started: Clock, tmp_path: Path) -> None:
    server, _ = started(*GRID["fast"])
    before = {thread.name for thread in threading.enumerate()}
    with Bench(tmp_path / "bench.log", tmp_path / "blocks") as one:
        found = run(one, server, texts(2, "kept"), Arrivals(clients=1), label="closed1")
        (kept,) = (tmp_path / "blocks").iterdir()
        result = json.loads(kept.read_text())
        assert result["median_ttft_ms"] == found.figures["median_ttft_ms"]
        assert found.printed.strip() in (tmp_path / "bench.log").read_text()
    assert {thread.name for thread in threading.enumerate()} == before


PARENT = """
import sys
from pathlib import Path
from fixtures.load.bench import Bench
from suites.benchmarks.instruments import serving
from suites.oracles.test_bench import Arrivals, texts
folder = Path(sys.argv[1])
server = serving(sys.argv[2], sys.argv[3], Path(sys.argv[4]))
bench = Bench(folder / "bench.log", folder / "blocks")
bench.run(server, texts(2, "orphan"), arrivals=Arrivals(clients=2), output_tokens=8,
          deadline_s=600, progress=lambda done, total: print("under way", flush=True))
"""


def test_it_ends_in_the_middle_of_a_block_with_a_parent_that_is_killed(
    started: Clock, tmp_path: Path
) -> None:
    server, _ = started("--first-s=0.01", "--fault=stall=2")
    model = server.argv[server.argv.index("--model") + 1]
    command = [sys.executable, "-c", PARENT, str(tmp_path), server.url, server.model, model]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "under way\n"
        (child,) = psutil.Process(parent.pid).children()
        assert child.is_running()
        parent.kill()
        assert gone(child.pid)
