"""How a corpus is asked of a server, against one whose answers are known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from fixtures.errors import InputError
from fixtures.serving.client import Position, Scored
from fixtures.serving.scoring import Written, write
from fixtures.serving.server import Server, launch
from suites.baseline import (
    DECODED_TEXTS,
    DECODED_TOKENS,
    question_of,
    score_corpus,
    without_positions,
)
from suites.comparison import compared, nothing_to_compare
from suites.corpus import Document, read_corpus
from suites.selftest.stubbed import stub_launch, write_model

Start = Callable[..., Server]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Stubs by their behaviours, each started once."""
    servers: dict[tuple[str, ...], Server] = {}
    with ExitStack() as stack:

        def started(*behaviours: str) -> Server:
            if behaviours not in servers:
                model = write_model(tmp_path_factory.mktemp("model") / "model", width=1024)
                outcome = stack.enter_context(launch(stub_launch(model, *behaviours)))
                assert isinstance(outcome, Server), outcome
                servers[behaviours] = outcome
            return servers[behaviours]

        yield started


def texts(count: int, stratum: str = "text") -> tuple[Document, ...]:
    return tuple(
        Document(f"{stratum}-{number}", stratum, f"{number:03d} of many bells, and of one drum")
        for number in range(count)
    )


def test_ends_of_texts_are_decoded_of_each_kind_in_turn(start: Start) -> None:
    documents = (*texts(40), *texts(3, "code"))
    found = score_corpus(start(), documents).decoded
    assert len(found) == DECODED_TEXTS
    assert sum(name.startswith("code") for name in found) == 3
    assert {len(one.positions) for one in found.values()} == {DECODED_TOKENS}


def test_the_small_corpus_decodes_as_many_of_each_kind(start: Start) -> None:
    found = score_corpus(start(), read_corpus("ci").texts).decoded
    assert len(found) == DECODED_TEXTS
    kinds = [one.stratum for one in read_corpus("ci").texts if one.id in found]
    assert {kinds.count(kind) for kind in kinds} == {4}


def test_a_candidate_follows_the_references_path(start: Start) -> None:
    documents = texts(9)
    reference = score_corpus(start(), documents)
    found = compared(reference, score_corpus(start(), documents, reference=reference), documents)
    assert (found.followed, found.due) == (9 * DECODED_TOKENS, 9 * DECODED_TOKENS)
    assert found.notes == {}


def test_where_no_path_can_be_forced_it_is_the_references_own(start: Start) -> None:
    documents = texts(3)
    server = start("no-path")
    reference = score_corpus(server, documents)
    for one in documents:
        prompt = one.text[:-DECODED_TOKENS]
        (written,) = write(server, [prompt], tokens=DECODED_TOKENS, past_end=True)
        assert isinstance(written, Written)
        assert reference.decoded[one.id].token_ids[len(prompt) :] == written.token_ids
    same = compared(reference, score_corpus(server, documents, reference=reference), documents)
    assert same.followed == same.due == 3 * DECODED_TOKENS
    assert "reference's own greedy text" in same.notes["decode"]
    wrong = start("no-path", "wrong")
    other = compared(reference, score_corpus(wrong, documents, reference=reference), documents)
    assert other.followed < other.due
    assert "positions are cut" in other.notes["decode"]


def test_documents_that_are_too_long_are_named_before_any_is_scored(start: Start) -> None:
    documents = (*texts(2), Document("novel", "long", "a" * 300), Document("b", "text", "b" * 256))
    with pytest.raises(InputError) as refusal:
        score_corpus(start("short-context"), documents)
    assert str(refusal.value).startswith(
        "2 of 4 documents have more tokens than the server's --max-model-len of 256 leaves room "
        "for: novel (300), b (256). "
    )
    assert score_corpus(start("short-context"), (Document("c", "text", "c" * 255),)).prefilled


def test_one_token_alone_is_no_traceback(start: Start) -> None:
    found = score_corpus(start(), (*texts(1), Document("short", "text", "x")))
    assert without_positions(found) == ["short"]
    assert nothing_to_compare(found) is None
    nothing = score_corpus(start(), (Document("short", "text", "x"),))
    assert "of none of the corpus's 1 documents is a token scored" in str(
        nothing_to_compare(nothing)
    )


def test_of_a_pictures_chat_the_question_counts(start: Start) -> None:
    document = Document("seen", "image", "What is this?", b"picture")
    found = score_corpus(start(), (document,)).prefilled["seen"]
    asked = bytes(found.token_ids[position.index] for position in found.positions)
    assert asked == document.text.encode()


def test_a_candidate_counts_what_the_reference_counts(start: Start) -> None:
    documents = (Document("seen", "image", "What is this?", b"picture"),)
    reference = score_corpus(start(), documents)
    # It is a reference itself, of its own cell on more ranks.
    assert score_corpus(start(), documents, reference=reference) == reference


# ------------------------------------------------------------------ where a question stands

HEAD, PICTURE, CLOSE, FOOT = (90, 91, 92), (5, 5, 5), (93,), (94, 95, 90)


def kept(ids: tuple[int, ...], question: tuple[int, ...], **options: frozenset[int]) -> list[int]:
    positions = tuple(Position(at, ids[at], -1.0, 1, {ids[at]: -1.0}) for at in range(1, len(ids)))
    found = question_of(Scored(ids, positions), question, **options)
    assert found.token_ids == ids
    return [position.token_id for position in found.positions]


@pytest.mark.parametrize(
    ("ids", "question", "expected"),
    [
        ((*HEAD, *PICTURE, *CLOSE, 1, 2, 3, *FOOT), (1, 2, 3), [1, 2, 3]),
        # A template that lays the question before the picture as well.
        ((*HEAD, 1, 2, 3, *PICTURE, *CLOSE, 1, 2, 3, *FOOT), (1, 2, 3), [1, 2, 3]),
        # One that begins with the question of a shorter chat.
        ((1, 2, *PICTURE, 1, 2, 3, *FOOT), (1, 2, 3), [1, 2, 3]),
        # A tokenizer that joins the question's first letter with a newline before it.
        ((*PICTURE, 70, 2, 3, *FOOT), (1, 2, 3), [2, 3]),
        # One that makes other tokens of it altogether.
        ((*PICTURE, 70, 71, *FOOT), (1, 2, 3), [70, 71, *FOOT]),
        # A question before the picture cannot depend on it.
        ((1, 2, 3, *PICTURE), (1, 2, 3), []),
    ],
)
def test_a_question_is_found_in_any_template(
    ids: tuple[int, ...], question: tuple[int, ...], expected: list[int]
) -> None:
    assert kept(ids, question, placeholders=frozenset({5})) == expected


def test_without_a_placeholder_the_question_is_found_all_the_same() -> None:
    assert kept((*HEAD, *PICTURE, 1, 2, 3, *FOOT), (1, 2, 3)) == [1, 2, 3]
