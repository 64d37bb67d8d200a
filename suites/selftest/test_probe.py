from __future__ import annotations

import pytest

from fixtures.load.probe import closed_loop, stream, stream_chat
from fixtures.load.streams import Load, Stream
from fixtures.serving.scoring import score_text
from suites.selftest.stubbed import TEXT, Start, image

# ------------------------------------------------------------------ streams

PACED = ("--stub-first-token-s=0.1", "--stub-token-s=0.02")


def test_the_clock_agrees_with_a_server_of_known_pace(start: Start) -> None:
    timed = [stream(start(options=PACED), TEXT, max_tokens=6) for _ in range(5)]
    assert [(t.error, t.prompt_tokens, t.completion_tokens) for t in timed] == [
        (None, len(TEXT), 6)
    ] * 5
    assert {len(t.chunks_s) for t in timed} == {6}
    first = [t.ttft_s or 0.0 for t in timed]
    last = [t.ttft_s + 5 * t.tpot_s for t in timed if t.ttft_s and t.tpot_s]
    # A busy machine only ever adds: none is faster than the server, and the best is near it.
    assert 0.1 <= min(first) < 0.2
    assert 0.2 <= min(last) < 0.3
    assert [t.e2e_s for t in timed] == pytest.approx(last)


def test_a_chats_role_is_not_its_first_token(start: Start) -> None:
    timed = stream_chat(start(options=PACED), image(1), max_tokens=2)
    assert timed.error is None
    assert len(timed.chunks_s) == 2
    assert timed.ttft_s is not None
    assert timed.ttft_s >= 0.1


def test_one_token_has_no_time_per_further_token(start: Start) -> None:
    assert stream(start(), TEXT, max_tokens=1).tpot_s is None


def test_a_stream_that_never_started_has_an_error_and_no_times(start: Start) -> None:
    server = start("die-mid-run", options=("--stub-die-after=1", "--gone"))
    score_text(server, TEXT)
    failed = stream(server, TEXT, max_tokens=2)
    assert failed.error is not None
    assert (failed.ttft_s, failed.tpot_s, failed.completion_tokens) == (None, None, None)


def test_a_stream_gives_up_at_its_deadline(start: Start) -> None:
    late = stream(start(options=PACED), TEXT, max_tokens=5000, timeout_s=0.3)
    assert late.kind == "stalled"
    assert late.ended_s - late.sent_s < 20  # of the 100 that the whole answer takes


# ------------------------------------------------------------------ load


def test_a_closed_loop_sends_every_prompt_and_counts_tokens_by_usage(start: Start) -> None:
    told: list[tuple[int, int]] = []
    result = closed_loop(
        start(options=PACED),
        [f"{TEXT} {number}" for number in range(8)],
        concurrency=4,
        max_tokens=3,
        deadline_s=60,
        progress=lambda done, total: told.append((done, total)),
    )
    assert [s.error for s in result.streams] == [None] * 8
    assert told == [(done, 8) for done in range(1, 9)]
    assert result.output_tokens_per_s == pytest.approx(24 / result.wall_s)
    in_flight = [
        sum(other.sent_s <= one.sent_s < other.ended_s for other in result.streams)
        for one in result.streams
    ]
    assert 2 <= max(in_flight) <= 4


def test_a_server_that_dies_mid_run_leaves_misses_and_no_exception(start: Start) -> None:
    server = start("die-mid-run", options=("--stub-die-after=4",))
    result = closed_loop(server, [TEXT] * 10, concurrency=1, max_tokens=2, deadline_s=60)
    assert len(result.streams) == 10
    assert len(result.failures) == 7  # the canary was the first of the four
    assert result.output_tokens_per_s == pytest.approx(6 / result.wall_s)


def test_a_closed_loop_ends_by_its_deadline_and_counts_the_unsent(start: Start) -> None:
    server = start(options=PACED)
    result = closed_loop(server, [TEXT] * 500, concurrency=2, max_tokens=3, deadline_s=0.4)
    assert result.wall_s < 20  # of the 35 that all of them take
    assert any(s.error == "not sent before the deadline" for s in result.streams)
    assert len(result.streams) == 500


def test_no_completed_request_is_no_throughput_rather_than_none_per_second() -> None:
    missed = Stream(due_s=0.0, sent_s=0.0, ended_s=1.0, kind="refused", error="refused")
    assert Load((missed,), 1.0).output_tokens_per_s is None


def test_an_error_in_the_progress_callback_is_not_swallowed(start: Start) -> None:
    def complain(done: int, total: int) -> None:
        raise RuntimeError(f"{done} of {total}")

    with pytest.raises(RuntimeError, match="1 of 3"):
        closed_loop(
            start(), [TEXT] * 3, concurrency=1, max_tokens=1, deadline_s=60, progress=complain
        )
