"""The server's own word against the client's: they agree, or both figures are told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

from fixtures.errors import ServingError
from fixtures.load import metrics
from fixtures.load.metrics import (
    Margins,
    Snapshot,
    Told,
    between,
    disagreements,
    means,
    read_metrics,
    reset_caches,
    settled,
)
from fixtures.load.probe import closed_loop
from fixtures.load.streams import Load, Stream
from fixtures.serving.server import Server
from suites.selftest.clocked import clock, read_log
from suites.selftest.stubbed import Start

Clock = Callable[..., tuple[Server, Path]]
TOKENS = 6
PACE = ("--first-s=0.05", "--gap-s=0.01")
# Beyond what a busy machine adds; the default margins are for machines that are watched.
AMPLE = Margins(share=0.25, slack_s=1.0)


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clock]:
    running: dict[tuple[str, ...], tuple[Server, Path]] = {}
    with ExitStack() as stack:

        def start(*options: str) -> tuple[Server, Path]:
            if options not in running:
                directory = tmp_path_factory.mktemp("clock")
                running[options] = stack.enter_context(clock(directory, *PACE, *options))
            return running[options]

        yield start


def block(server: Server, word: str, count: int = 6) -> tuple[Told, Load]:
    before = read_metrics(server)
    asked = [f"{word} {index}" for index in range(count)]
    load = closed_loop(server, asked, concurrency=3, max_tokens=TOKENS, deadline_s=60.0)
    return between(before, settled(server, before, len(load.answered))), load


# ------------------------------------------------------------------ reading


def test_a_block_is_what_was_counted_between_two_readings(started: Clock) -> None:
    server, log = started()
    block(server, "before it")
    earlier = len(read_log(log))
    told, load = block(server, "the block")
    sent = read_log(log)[earlier:]
    assert (told.requests, told.output_tokens) == (6, 6 * TOKENS)
    assert told.prompt_tokens == sum(record.prompt_tokens for record in sent)
    assert told.mean_s == {
        "ttft": pytest.approx(sum(record.ttft_s for record in sent) / 6),
        "tpot": pytest.approx(sum(record.tpot_s for record in sent) / 6),
        "e2e": pytest.approx(sum(one.sent_s[-1] - one.arrived_s for one in sent) / 6),
    }
    assert not load.failures


def test_samples_are_summed_over_engines_and_reasons(
    monkeypatch: pytest.MonkeyPatch, started: Clock
) -> None:
    text = "\n".join(
        [
            "# TYPE vllm:request_success_total counter",
            'vllm:request_success_total{engine="0",finished_reason="length"} 3.0',
            'vllm:request_success_total{engine="1",finished_reason="stop"} 4.0',
            "# TYPE vllm:time_to_first_token_seconds histogram",
            'vllm:time_to_first_token_seconds_bucket{engine="0",le="+Inf"} 7.0',
            'vllm:time_to_first_token_seconds_count{engine="0"} 7.0',
            'vllm:time_to_first_token_seconds_sum{engine="0"} 3.5',
            "",
        ]
    )
    told = between(Snapshot({}), answering(monkeypatch, text, started()[0]))
    assert told.requests == 7
    assert told.mean_s == {"ttft": 0.5, "tpot": None, "e2e": None}
    assert told.output_tokens is None


def answering(monkeypatch: pytest.MonkeyPatch, text: str, server: Server) -> Snapshot:
    """What is read of a server that says this."""

    def get(url: str, **_: object) -> httpx2.Response:
        return httpx2.Response(200, text=text, request=httpx2.Request("GET", url))

    monkeypatch.setattr(httpx2, "get", get)
    return read_metrics(server)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "lacks vllm:request_success_total"),
        ("http_requests_total 4.0\n", "--disable-log-stats, or it is no vLLM"),
        ("vllm:request_success_total{engine= 3\n", "its /metrics cannot be read"),
    ],
)
def test_metrics_that_tell_nothing_are_said_to(
    monkeypatch: pytest.MonkeyPatch, started: Clock, text: str, says: str
) -> None:
    server, _ = started()
    with pytest.raises(ServingError, match=says):
        answering(monkeypatch, text, server)


def test_a_server_without_metrics_is_said_to_have_none(start: Start) -> None:
    server = start()
    with pytest.raises(ServingError, match=f"{server.model} gives no metrics: HTTP 404"):
        read_metrics(server)
    nobody = replace(server, url="http://127.0.0.1:1")
    with pytest.raises(ServingError, match="gives no metrics: ConnectError"):
        read_metrics(nobody)


def test_what_the_server_never_counts_is_waited_for_only_so_long(
    monkeypatch: pytest.MonkeyPatch, started: Clock
) -> None:
    monkeypatch.setattr(metrics, "SETTLED_S", 0.2)
    server, _ = started()
    before = read_metrics(server)
    assert between(before, settled(server, before, 1)).requests == 0


# ------------------------------------------------------------------ comparing


def test_client_and_server_agree_on_an_honest_block(started: Clock) -> None:
    told, load = block(started()[0], "honest")
    assert disagreements(told, load, AMPLE) == []
    for ours, theirs in means(told, load).values():
        assert ours >= theirs * 0.9  # what lies between them is the client's
    assert set(means(told, load)) == {"ttft", "tpot", "e2e"}


@pytest.mark.parametrize("factor", [0.02, 50.0])
def test_a_server_whose_clock_is_wrong_is_a_doubt_with_both_figures(
    started: Clock, factor: float
) -> None:
    told, load = block(started(f"--metrics-factor={factor}")[0], "lying")
    found = disagreements(told, load, Margins())
    assert [doubt.split()[1] for doubt in found] == ["ttft", "tpot", "e2e"]
    ours, theirs = means(told, load)["ttft"]
    assert found[0].startswith(
        f"mean ttft is {ours * 1000:.4g} ms by the client and {theirs * 1000:.4g} ms by the server"
    )


def forged(**given: float) -> tuple[Told, Load]:
    """Two requests of 5 prompt and 11 output tokens: 0.4 s to the first, 0.1 s for each other."""
    chunks = tuple(10.4 + 0.1 * index for index in range(11))
    stream = Stream(
        due_s=9.0,
        sent_s=10.0,
        chunks_s=chunks,
        ended_s=12.0,
        prompt_tokens=5,
        completion_tokens=11,
    )
    told = Told(
        requests=given.get("requests", 2),
        prompt_tokens=given.get("prompt_tokens", 10),
        output_tokens=given.get("output_tokens", 22),
        mean_s={
            "ttft": given.get("ttft", 0.4),
            "tpot": given.get("tpot", 0.1),
            "e2e": given.get("e2e", 1.4),
        },
    )
    return told, Load((stream, stream), 3.0)


@pytest.mark.parametrize(
    ("counted", "says"),
    [
        ({"requests": 3}, "answered requests: 2 by the client and 3 by the server"),
        ({"prompt_tokens": 11}, "prompt tokens: 10 by the client and 11 by the server"),
        ({"output_tokens": 21}, "output tokens: 22 by the client and 21 by the server"),
    ],
)
def test_a_count_that_is_off_by_one_is_a_doubt(counted: dict[str, float], says: str) -> None:
    told, load = forged(**counted)
    assert disagreements(told, load, Margins()) == [says]


@pytest.mark.parametrize(
    ("metric", "inside", "outside"),
    [
        # Longer by a quarter and 0.05 s, or shorter by 0.05 s; of a token, 0.05 s / 11 of them.
        ("ttft", (0.281, 0.449), (0.279, 0.451)),
        ("tpot", (0.0765, 0.1045), (0.0762, 0.1047)),
        ("e2e", (1.081, 1.449), (1.079, 1.451)),
    ],
)
def test_a_margin_holds_up_to_its_edge(
    metric: str, inside: tuple[float, ...], outside: tuple[float, ...]
) -> None:
    assert [disagreements(*forged(**{metric: t}), Margins()) for t in inside] == [[], []]
    found = [disagreements(*forged(**{metric: t}), Margins()) for t in outside]
    assert [len(doubts) for doubts in found] == [1, 1]
    assert all(doubts[0].startswith(f"mean {metric} is") for doubts in found)


def test_how_late_a_request_was_sent_is_none_of_the_servers_business() -> None:
    told, load = forged()
    assert load.streams[0].e2e_s == pytest.approx(2.4)  # due a second before it was sent
    assert disagreements(told, load, Margins()) == []


def test_a_block_with_failures_is_not_compared() -> None:
    told, load = forged(requests=9, ttft=70.0)
    failed = replace(load.streams[0], kind="dropped", error="dropped")
    assert disagreements(told, Load((load.streams[0], failed), 3.0), Margins()) == []


# ------------------------------------------------------------------ caches


def test_caches_are_emptied_or_said_not_to_be(started: Clock) -> None:
    server, _ = started()
    assert reset_caches(server) == []
    doorless = replace(server, url=f"{server.url}/elsewhere")
    assert reset_caches(doorless) == ["prefix cache: HTTP 404", "mm cache: HTTP 404"]
    nobody = replace(server, url="http://127.0.0.1:1")
    assert [said.partition(":")[0] for said in reset_caches(nobody)] == ["prefix cache", "mm cache"]
