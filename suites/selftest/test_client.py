import base64
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

import pytest

from fixtures.errors import ServingError
from fixtures.serving.client import (
    LoadResult,
    Scored,
    ScoreError,
    Stream,
    Unscorable,
    closed_loop,
    longest_sequence,
    read_scores,
    stream,
    stream_chat,
    tokenize,
)
from fixtures.serving.scoring import Request, Written, score, score_chat, score_text, write
from fixtures.serving.server import Server, launch
from suites.selftest.stubbed import stub_launch, unproven_stub, write_model

TEXT = "The quick brown fox jumps over the lazy dog; then it does so again."
Start = Callable[..., Server]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Stubs by their properties, each started once."""
    servers: dict[object, Server] = {}
    with ExitStack() as stack:

        def started(
            *behaviours: str,
            width: int = 1024,
            tp: int = 1,
            kind: str | None = None,
            options: tuple[str, ...] = (),
        ) -> Server:
            key = (behaviours, width, tp, kind, options)
            if key not in servers:
                directory = tmp_path_factory.mktemp("model") / "model"
                model = write_model(directory, width=width, kind=kind)
                wanted = stub_launch(model, *behaviours, tp=tp, options=options)
                begin = unproven_stub if "nan" in behaviours else launch
                outcome = stack.enter_context(begin(wanted))
                assert isinstance(outcome, Server), outcome
                servers[key] = outcome
            return servers[key]

        yield started


def scored(server: Server, prompt: str | Sequence[int] = TEXT) -> Scored:
    result = score_text(server, prompt)
    assert isinstance(result, Scored), result
    return result


def greedy(server: Server, tokens: int) -> Written:
    (written,) = write(server, [TEXT], tokens=tokens, past_end=True)
    assert isinstance(written, Written), written
    return written


def rms_nat(left: Scored, right: Scored) -> float:
    pairs = zip(left.positions, right.positions, strict=True)
    return math.sqrt(sum((a.logprob - b.logprob) ** 2 for a, b in pairs) / len(left.positions))


def image(seed: int) -> list[dict[str, object]]:
    uri = f"data:image/png;base64,{base64.b64encode(bytes([seed])).decode()}"
    picture = {"type": "image_url", "image_url": {"url": uri}}
    return [{"role": "user", "content": [picture, {"type": "text", "text": "What is this?"}]}]


# ------------------------------------------------------------------ scores


def test_every_token_but_the_first_is_scored(start: Start) -> None:
    result = scored(start())
    assert list(result.token_ids) == tokenize(start(), TEXT)
    assert [position.index for position in result.positions] == list(range(1, len(TEXT)))
    for position in result.positions:
        assert position.token_id == result.token_ids[position.index]
        assert position.top[position.token_id] == position.logprob
        assert 20 <= len(position.top) <= 21
        better = sum(logprob > position.logprob for logprob in position.top.values())
        assert better == min(position.rank - 1, 20)


def test_a_text_and_its_token_ids_are_scored_alike(start: Start) -> None:
    assert scored(start(), tokenize(start(), TEXT)) == scored(start())


def test_fewer_candidates_are_listed_when_fewer_are_asked(start: Start) -> None:
    result = score_text(start(), TEXT, top=3)
    assert isinstance(result, Scored)
    assert {len(position.top) for position in result.positions} <= {3, 4}


def test_the_stubs_variants_differ_as_real_ones_do(start: Start) -> None:
    original = scored(start(width=896))
    assert rms_nat(original, scored(start(width=1024, kind="padded"))) == 0.0
    assert 0.0 < rms_nat(original, scored(start(width=1024, tp=2))) < 0.005
    assert 0.08 < rms_nat(original, scored(start(width=768, kind="trimmed"))) < 0.25
    assert 0.12 < rms_nat(original, scored(start(width=896, tp=4))) < 0.5  # rows lost: silent
    assert 0.15 < rms_nat(original, scored(start("wrong"))) < 0.5


def test_a_chat_is_scored_with_its_picture(start: Start) -> None:
    one, again, other = (score_chat(start(), image(seed)) for seed in (1, 1, 2))
    assert isinstance(one, Scored)
    assert isinstance(other, Scored)
    assert one == again
    assert one.token_ids == other.token_ids
    assert one != other


def decoded(server: Server, tokens: Sequence[int], cut: int) -> Scored:
    request = Request("end", tokens[:cut], path=tuple(tokens[cut:]))
    result = score(server, [request])["end"]
    assert isinstance(result, Scored), result
    return result


def test_a_path_is_decoded_as_it_was_prefilled(start: Start) -> None:
    whole = scored(start())
    found = decoded(start(), whole.token_ids, 10)
    assert found.token_ids == whole.token_ids
    assert [position.index for position in found.positions] == list(range(10, len(TEXT)))
    for prefilled, position in zip(whole.positions[9:], found.positions, strict=True):
        assert (position.token_id, position.logprob) == (prefilled.token_id, prefilled.logprob)
        assert {t: position.top[t] for t in prefilled.top} == pytest.approx(dict(prefilled.top))


def test_where_no_path_can_be_forced_scores_end_where_it_is_left(start: Start) -> None:
    server = start("no-path")
    greedily = greedy(server, 4)
    begun = [*tokenize(server, TEXT), *greedily.token_ids]
    strayed = [*begun[:-2], begun[-2] ^ 1, begun[-1]]
    assert len(decoded(server, begun, len(TEXT)).positions) == 4
    assert len(decoded(server, strayed, len(TEXT)).positions) == 2


def test_a_path_left_at_once_has_no_position(start: Start) -> None:
    prompt = tokenize(start(), TEXT)
    assert decoded(start("no-path"), [*prompt, prompt[0]], len(prompt)) == Scored(tuple(prompt), ())


def test_without_a_path_a_server_is_scored_along_its_own(start: Start) -> None:
    for behaviours in ((), ("no-path",)):
        request = Request("end", tokenize(start(), TEXT), tokens=4)
        found = score(start(*behaviours), [request])["end"]
        assert isinstance(found, Scored)
        assert found.token_ids[len(TEXT) :] == greedy(start(), 4).token_ids
        assert {position.rank for position in found.positions} == {1}


def test_a_server_says_how_much_it_has_room_for(start: Start) -> None:
    assert longest_sequence(start()) == 4096
    assert longest_sequence(start("short-context")) == 256


def test_a_request_that_is_called_wrong_is_named(start: Start) -> None:
    with pytest.raises(ServingError, match=r"request for 'novel' wrong \(HTTP 400.*256"):
        score(start("short-context"), [Request("novel", "a" * 300)])


@pytest.mark.parametrize("concurrency", [1, 4])
def test_many_are_scored_in_order_whoever_answers_first(start: Start, concurrency: int) -> None:
    requests = [Request(str(index), TEXT[: 10 + index]) for index in range(12)]
    told: list[tuple[int, int]] = []
    found = score(start(), requests, concurrency=concurrency, progress=lambda *at: told.append(at))
    assert list(found) == [request.name for request in requests]
    assert found["3"] == scored(start(), TEXT[:13])
    assert told == [(done, 12) for done in range(1, 13)]


def test_nan_is_a_finding_that_names_its_position(start: Start) -> None:
    result = score_text(start("nan"), TEXT)
    assert isinstance(result, Unscorable)
    assert "position 1: the log-probability of token" in result.reason
    assert "null, which is how JSON says NaN" in result.reason


def test_an_answer_that_json_cannot_hold_is_a_finding_too(start: Start) -> None:
    result = score_text(start("nan-later"), TEXT)
    assert isinstance(result, Unscorable)
    assert "Out of range float values" in result.reason


@pytest.mark.parametrize(
    ("entries", "complaint"),
    [
        ([None, {"7": {"logprob": math.nan, "rank": 1}}], "position 1: .* token 7 is nan"),
        ([None, {"7": {"logprob": None, "rank": 1}}], "position 1: .* token 7 is null"),
        ([None, {"7": {"logprob": -1.0, "rank": None}}], "position 1: the rank of token 7"),
        ([None, {"8": {"logprob": -1.0, "rank": 1}}], "position 1: no log-prob.* own token 7"),
        ([None], "1 log-probabilities for a prompt of 2 tokens"),
        (None, "no log-probabilities of its prompt"),
    ],
)
def test_an_answer_without_numbers_is_refused_by_position(entries: object, complaint: str) -> None:
    with pytest.raises(ScoreError, match=complaint):
        read_scores([5, 7], entries)


def test_a_server_that_dies_while_scoring_is_a_finding(start: Start) -> None:
    server = start("die-mid-run", options=("--stub-die-after=1",))
    assert isinstance(score_text(server, TEXT), Unscorable)
    gone = score_text(server, TEXT)
    assert isinstance(gone, Unscorable)
    assert "connection" in gone.reason.lower()


def test_a_request_that_is_our_mistake_raises(start: Start) -> None:
    with pytest.raises(ServingError, match=r"HTTP 400.*greater than max allowed: 20"):
        score_text(start(), TEXT, top=21)


def test_greedy_text_is_the_same_twice_and_a_stuck_server_shows(start: Start) -> None:
    healthy = greedy(start(), 12)
    assert healthy == greedy(start(), 12)
    assert len(set(healthy.token_ids)) > 6
    stuck = greedy(start("repeat"), 12)
    assert (stuck.text, set(stuck.token_ids)) == ("!" * 12, {ord("!")})


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
    assert all(reached <= t.e2e_s for reached, t in zip(last, timed, strict=True))


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
    assert late.error is not None
    assert late.e2e_s < 20  # of the 100 that the whole answer takes


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
    missed = Stream(sent_s=0.0, ended_s=1.0, error="refused")
    assert LoadResult((missed,), 1.0).output_tokens_per_s is None


def test_an_error_in_the_progress_callback_is_not_swallowed(start: Start) -> None:
    def complain(done: int, total: int) -> None:
        raise RuntimeError(f"{done} of {total}")

    with pytest.raises(RuntimeError, match="1 of 3"):
        closed_loop(
            start(), [TEXT] * 3, concurrency=1, max_tokens=1, deadline_s=60, progress=complain
        )
