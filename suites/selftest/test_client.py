import math
from collections.abc import Sequence

import pytest

from fixtures.errors import ServingError
from fixtures.serving.client import (
    Scored,
    ScoreError,
    Unscorable,
    longest_sequence,
    read_scores,
    tokenize,
)
from fixtures.serving.scoring import Request, Written, score, score_chat, score_text, write
from fixtures.serving.server import Server
from suites.selftest.stubbed import TEXT, Start, image


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
