"""vLLM's raw arrays in our terms; errors are as vLLM 0.32.0 and aiohttp wrote them."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from fixtures.load.bench_results import cause, figures, read_answer, read_load
from fixtures.load.streams import Kind, failures_by_kind

# Four requests at concurrency 2, asked for 3 tokens; the last one was never sent.
RESULT: dict[str, Any] = {
    "start_times": [10.0, 10.0, 10.5, 12.0],
    "queue_times": [0.125, 0.125, 0.625, 2.125],
    "ttfts": [0.25, 0.25, 0.5, 0.0],
    "itls": [[0.125, 0.125], [0.25], [0.125, 0.375], []],
    "output_lens": [3, 2, 3, 0],
    "input_lens": [7, 8, 9, 10],
    "errors": ["", "", "", "unsent"],
}
KNOWN: dict[str, dict[str, Any]] = {
    "0": {"kind": None, "ended_s": 10.5},
    "1": {"kind": None, "ended_s": 10.5},
    "2": {"kind": "no usage", "ended_s": 11.5},
    "3": {"kind": "unsent", "ended_s": 12.0},
}


def test_requests_are_read_in_their_order_with_their_failures() -> None:
    load = read_load(RESULT, KNOWN, 3, scheduled=False)
    whole, short, uncounted, unsent = load.streams
    assert (whole.sent_s, whole.due_s, whole.ended_s) == (10.0, 10.0, 10.5)
    assert whole.chunks_s == (10.25, 10.375, 10.5)
    assert (whole.ttft_s, whole.tpot_s, whole.e2e_s) == (0.25, 0.125, 0.5)
    assert (whole.prompt_tokens, whole.completion_tokens) == (7, 3)
    assert (short.kind, short.completion_tokens) == ("short", 2)
    assert short.error == "the stream ended after 2 tokens, of 3 asked for"
    assert (uncounted.kind, uncounted.completion_tokens) == ("malformed", None)
    assert (unsent.kind, unsent.chunks_s) == ("unsent", ())
    assert failures_by_kind(load.streams) == {"short": 1, "malformed": 1, "unsent": 1}


def test_the_wall_time_lasts_until_the_last_one_ended_however_it_ended() -> None:
    known = copy.deepcopy(KNOWN)
    known["3"] = {"kind": "stalled", "ended_s": 15.0}
    load = read_load(RESULT, known, 3, scheduled=False)
    assert load.wall_s == 5.0
    assert load.output_tokens_per_s == 3 / 5.0


def test_arrivals_at_random_are_due_before_they_are_sent() -> None:
    streams = read_load(RESULT, KNOWN, 3, scheduled=True).streams
    assert [stream.due_s for stream in streams] == [9.875] * 4
    assert streams[0].e2e_s == 0.625
    assert streams[0].ttft_s == 0.25  # from its sending, whatever it was late


def answer(**altered: Any) -> dict[str, Any]:
    return {"result": RESULT, "known": KNOWN, "printed": "", **altered}


@pytest.mark.parametrize(
    ("altered", "says"),
    [
        ({"result": {}}, "'start_times'"),
        ({"result": 7}, "not subscriptable"),
        ({"result": RESULT | {"ttfts": [0.1]}}, "shorter"),
        ({"result": RESULT | {"itls": [1, 2, 3, 4]}}, "not iterable"),
        ({"result": RESULT | {"ttfts": ["a", "b", "c", "d"]}}, "TypeError"),
        ({"known": {}}, "'0'"),
        ({"known": KNOWN | {"3": {"kind": "tired", "ended_s": 1.0}}}, "'tired'"),
    ],
)
def test_a_result_that_is_none_is_refused(altered: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        read_answer(answer(**altered), 3, 4, scheduled=False)


def test_as_many_requests_as_were_asked_for() -> None:
    assert len(read_answer(answer(), 3, 4, scheduled=False).load.streams) == 4
    with pytest.raises(ValueError, match="4 requests, of 5 asked for"):
        read_answer(answer(), 3, 5, scheduled=False)


def test_figures_are_vllms_numbers_and_nothing_else() -> None:
    result = RESULT | {
        "median_ttft_ms": 250.0,
        "completed": 4,
        "label": None,
        "request_rate": "inf",
    }
    found = figures(result | {"self_timed": True, "mean_itl_ms": float("nan")})
    assert found == {"median_ttft_ms": 250.0, "completed": 4.0}


def test_no_answer_has_no_median() -> None:
    told = {"completed": 0, "failed": 3, "median_ttft_ms": 0.0, "output_throughput": 0.0}
    assert figures(told) == {"completed": 0.0, "failed": 3.0, "output_throughput": 0.0}
    assert figures(told | {"completed": 1})["median_ttft_ms"] == 0.0


# ------------------------------------------------------------------ errors

SENT = """Traceback (most recent call last):
  File "/venv/vllm/benchmarks/lib/endpoint_request_func.py", line 210, in async_request
    async with session.post(url=api_url, json=payload, headers=headers) as response:
               ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
"""
REFUSED = """Traceback (most recent call last):
  File "/venv/aiohttp/connector.py", line 1329, in _wrap_create_connection
    sock = await aiohappyeyeballs.start_connection(
           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
ConnectionRefusedError: [Errno 111] Connect call failed ('127.0.0.1', 42037)

The above exception was the direct cause of the following exception:

"""
READ = """Traceback (most recent call last):
  File "/venv/aiohttp/streams.py", line 365, in _wait
    await waiter
"""
PARSED = """Traceback (most recent call last):
  File "/python3.11/json/decoder.py", line 353, in raw_decode
    obj, end = self.scan_once(s, idx)
               ^^^^^^^^^^^^^^^^^^^^^^
"""
AIO = "aiohttp.client_exceptions."
NO_CHUNK = "Never received a valid chunk to calculate TTFT.This response will be marked as failed!"
ERRORS: list[tuple[str, str, Kind, str]] = [
    (
        REFUSED + SENT,
        f"{AIO}ClientConnectorError: Cannot connect to host 127.0.0.1:42037 ssl:default "
        "[Connect call failed ('127.0.0.1', 42037)]",
        "refused",
        "",
    ),
    (SENT, f"{AIO}ServerDisconnectedError: Server disconnected", "dropped", ""),
    (SENT, f"{AIO}ClientOSError: [Errno 104] Connection reset by peer", "dropped", ""),
    (SENT, "ConnectionResetError: [Errno 104] Connection reset by peer", "dropped", ""),
    (
        READ,
        f"{AIO}ClientPayloadError: Response payload is not completed: <TransferEncodingError: 400, "
        "message='Not enough data to satisfy transfer length header.'>",
        "dropped",
        "",
    ),
    # As older releases of aiohttp have it, in two lines.
    (
        READ,
        f"{AIO}ClientPayloadError: 400, message:\n  Not enough data for satisfy transfer length.",
        "dropped",
        f"{AIO}ClientPayloadError: 400, message: Not enough data for satisfy transfer length.",
    ),
    (SENT, f"{AIO}ServerTimeoutError: Timeout on reading data from socket", "stalled", ""),
    (SENT, "TimeoutError", "stalled", ""),
    (
        PARSED,
        "json.decoder.JSONDecodeError: Expecting ':' delimiter: line 1 column 29 (char 28)",
        "malformed",
        "",
    ),
    (PARSED, "json.decoder.JSONDecodeError: in 'TimeoutError'", "malformed", ""),
    (SENT, "AttributeError: 'list' object has no attribute 'get'", "malformed", ""),
    ("", NO_CHUNK, "malformed", "the stream ended without content"),
    ("", "Internal Server Error", "http", "HTTP error: Internal Server Error"),
    ("", "Gateway Timeout", "http", "HTTP error: Gateway Timeout"),
    ("", "", "http", "HTTP error: no reason given"),
]


@pytest.mark.parametrize(("before", "raised", "kind", "said"), ERRORS)
def test_an_error_becomes_its_kind_and_one_line(
    before: str, raised: str, kind: Kind, said: str
) -> None:
    end = "\n" if before else ""
    assert cause(before + raised + end) == (kind, said or raised)
