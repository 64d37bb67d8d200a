"""What two servers' scores have in common, and what is said of the rest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from fixtures.reference import CorpusScores, Scores
from fixtures.serving.client import Position, Scored
from suites.comparison import FEWEST, Comparison, Noted, compared
from suites.corpus import Document
from suites.lanes import Metric, judged
from suites.numerics import MismatchError
from suites.selftest.apart import differing
from suites.selftest.test_expect import Recorder

PATH = 4


def scored(tokens: Sequence[int], first: int = 1, logprob: float = -1.0) -> Scored:
    """Every token from a place on, as likely as that."""
    top = {7: math.log(0.5)}
    return Scored(
        tuple(tokens),
        tuple(
            Position(index, tokens[index], logprob, 2, {**top, tokens[index]: logprob})
            for index in range(first, len(tokens))
        ),
    )


def texts(count: int, stratum: str = "text") -> list[Document]:
    return [Document(f"{stratum}-{number}", stratum, "a b") for number in range(count)]


def scores(documents: Sequence[Document], *, decoded: int = 0) -> CorpusScores:
    tokens = tuple(range(10, 20))
    ends = {one.id: scored(tokens, len(tokens) - PATH) for one in documents[:decoded]}
    return CorpusScores({one.id: scored(tokens) for one in documents}, ends)


def test_prefill_and_decoding_are_strata_apart() -> None:
    documents = [*texts(3), *texts(2, "code")]
    both = scores(documents, decoded=4)
    found = compared(both, both, documents)
    assert {name: len(each) for name, each in found.strata.items()} == {
        "text": 3,
        "code": 2,
        "decode": 4,
    }
    assert (found.due, found.followed, found.notes) == (16, 16, {})


def test_a_document_may_be_called_anything() -> None:
    documents = [Document(name, "text", "a b") for name in ("a", "a/decode", "/decode")]
    both = scores(documents, decoded=3)
    found = compared(both, both, documents)
    assert {name: len(each) for name, each in found.strata.items()} == {"text": 3, "decode": 3}


def test_every_stratum_without_a_document_says_why() -> None:
    documents = texts(3)
    both = scores(documents)
    found = compared(both, both, documents)
    assert set(found.absent) == {"code", "cjk", "long", "image", "decode"}
    assert "no document of this kind" in found.absent["code"]
    assert "no text has more than 32 tokens" in found.absent["decode"]


def test_documents_without_a_scored_token_are_left_out_and_named() -> None:
    documents = [*texts(3), *texts(1, "code")]
    both = scores(documents)
    both.prefilled["text-1"] = both.prefilled["code-0"] = scored((4,))
    found = compared(both, both, documents)
    assert len(found.strata["text"]) == 2
    assert "1 left out, of which no token is scored: text-1" in found.notes["text"]
    assert "code-0" in found.absent["code"]


@pytest.mark.parametrize("part", ["prefilled", "decoded"])
def test_a_document_that_one_side_lacks_is_no_match(part: str) -> None:
    documents = texts(3)
    whole, torn = scores(documents, decoded=3), scores(documents, decoded=3)
    lacking: Scores = getattr(torn, part)
    del lacking["text-1"]
    for pair in ((whole, torn), (torn, whole)):
        with pytest.raises(MismatchError, match="one of the two servers alone: text-1"):
            compared(*pair, documents)


def test_other_tokens_and_missing_positions_are_no_match_and_named() -> None:
    documents = texts(2)
    whole = scores(documents)
    for other in (scored((1, 2, 3)), scored(tuple(range(10, 20)), 3)):
        candidate = CorpusScores({**whole.prefilled, "text-1": other}, {})
        with pytest.raises(MismatchError, match="text-1"):
            compared(whole, candidate, documents)


def test_only_the_positions_that_the_reference_counts_are_compared() -> None:
    documents = texts(1)
    tokens = tuple(range(10, 20))
    reference = CorpusScores({"text-0": scored(tokens, 6)}, {})
    (pair,) = compared(reference, scores(documents), documents).strata["text"]
    assert list(pair.index) == [6, 7, 8, 9]


def left(whole: Scored, after: int) -> Scored:
    """The scores of a server that left the path after so many tokens."""
    cut = len(whole.token_ids) - PATH + after
    return Scored(whole.token_ids[:cut], whole.positions[:after])


def test_decoding_that_was_cut_is_counted() -> None:
    documents = texts(3)
    whole = scores(documents, decoded=3)
    ends = {
        name: left(each, after)
        for (name, each), after in zip(whole.decoded.items(), (4, 1, 0), strict=True)
    }
    found = compared(whole, replace(whole, decoded=ends), documents)
    assert [pair.d.size for pair in found.strata["decode"]] == [4, 1]
    assert (found.due, found.followed) == (12, 5)
    assert found.notes["decode"].startswith("7 of 12 positions are cut, in 2 of 3 texts")
    again = replace(whole, decoded=ends)  # as a reference in turn
    assert compared(again, again, documents).notes == {}


def test_decoding_that_was_left_at_once_everywhere_is_absent() -> None:
    documents = texts(1)
    whole = scores(documents, decoded=1)
    ends = {name: left(each, 0) for name, each in whole.decoded.items()}
    found = compared(whole, replace(whole, decoded=ends), documents)
    assert "decode" not in found.strata
    assert "left the path at its first token" in found.absent["decode"]


def test_a_path_of_the_references_own_making_is_said() -> None:
    documents = texts(1)
    whole = scores(documents)
    own = replace(whole, decoded={"text-0": scored((*range(10, 16), 90, 91, 92, 93), 6)})
    assert "reference's own greedy text" in compared(own, own, documents).notes["decode"]


def test_notes_and_scopes_go_to_the_rows_of_their_stratum() -> None:
    record = Recorder()
    noted = Noted(record, Comparison(notes={"decode": "7 are cut"}))
    for stratum, reason in (("text", None), ("decode", "recorded"), ("image", None)):
        claim = f"numerics/tp/{stratum}/rms_d"
        noted(cell="c", claim=claim, outcome="passed", value=0.0, reason=reason, definition="d; v1")
    text, decode, image = record.rows
    assert (text.reason, text.definition) == (None, "d; v1")
    assert (decode.reason, image.reason) == ("recorded; 7 are cut", None)
    assert str(image.definition).startswith("d; v1; over the question alone")


# ------------------------------------------------------------------ too few documents


LIMITS: dict[Metric, float] = {"rms_d": 0.05, "max_abs_d": 0.5, "hard_flips": 0}


def judgements(**counts: int) -> dict[str, str]:
    strata = {
        name: [differing(np.array([0.01, -0.01] * 9))] * count for name, count in counts.items()
    }
    found = judged(strata, LIMITS, flip_margin=0.1)
    return {f"{one.stratum}/{one.metric}": one.outcome for one in found}


def test_a_stratum_of_too_few_documents_is_not_judged_by_its_means() -> None:
    found = judgements(text=FEWEST, decode=FEWEST - 1)
    assert (found["text/rms_d"], found["decode/rms_d"]) == ("passed", "not_run")
    assert (found["decode/max_abs_d"], found["decode/hard_flips"]) == ("passed", "passed")


def test_where_no_mean_can_be_judged_that_is_inconclusive() -> None:
    found = judgements(text=3, decode=2)
    assert (found["text/rms_d"], found["decode/rms_d"]) == ("inconclusive", "inconclusive")


def test_what_must_differ_is_judged_by_strata_of_enough_documents() -> None:
    few, many = [differing(np.full(4, 0.1))] * 2, [differing(np.full(4, 0.1))] * FEWEST
    found = Comparison({"text": many, "code": few}).of_unlike()
    assert set(found.strata) == {"text"}
    assert "2 documents of this kind" in found.absent["code"]
    assert set(Comparison({"code": few}).of_unlike().strata) == {"code"}


def test_what_must_differ_is_not_judged_by_where_it_still_agreed() -> None:
    many = [differing(np.full(4, 0.1))] * FEWEST
    found = Comparison({"text": many, "decode": many}, due=100, followed=99, notes={"decode": "1"})
    assert set(found.of_unlike().strata) == {"text"}
    assert "write other texts" in found.of_unlike().absent["decode"]
    whole = Comparison({"text": many, "decode": many}, due=9, followed=9)
    assert set(whole.of_unlike().strata) == {"text", "decode"}
