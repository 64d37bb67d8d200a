"""What every cell is compared with: the original on one rank, its answers and its speed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import SequenceMatcher
from functools import partial
from itertools import zip_longest
from typing import Final

from fixtures.errors import InputError, ServingError
from fixtures.load.prompts import Prompt
from fixtures.reference import CorpusScores, Scores
from fixtures.serving.client import (
    TOP,
    Scored,
    Unscorable,
    longest_sequence,
    tokenize,
)
from fixtures.serving.scoring import Request, score
from fixtures.serving.server import FORCED_PATH, Server
from suites.corpus import Document
from suites.measure import Block, Blocks
from suites.pace import Pace, Say

DECODED_TOKENS: Final = 16
DECODED_TEXTS: Final = 16  # fewer than 7 have no interval
# How the corpus is asked: what was collected in another way is another reference.
COLLECTION: Final = {
    "decoded": (DECODED_TEXTS, DECODED_TOKENS), "top": TOP, "pictures": "question",
    "path": FORCED_PATH,
}  # fmt: skip
SPECIAL_TOKENS: Final = 16  # a tokenizer may add to a prompt, by far
NAMED: Final = 5


class ScoringError(ServingError):
    """A server could not score a document; says which and why."""


@dataclass(slots=True)
class Baseline:
    """What original-tp1 answered, and how fast; None where no selected claim needs it."""

    scores: CorpusScores | None = None
    right: Mapping[str, bool] | None = None  # task → was it answered rightly?
    latency: Blocks | None = None
    throughput: Blocks | None = None
    one_rank: dict[str, Block] = field(default_factory=dict)  # variant → its best closed loop
    broken: str | None = None
    by_cell: dict[str, CorpusScores] = field(default_factory=dict)
    unscorable: dict[str, str] = field(default_factory=dict)  # cell → why it has no scores


def score_corpus(
    server: Server,
    documents: tuple[Document, ...],
    *,
    reference: CorpusScores | None = None,
    placeholders: frozenset[int] = frozenset(),
    concurrency: int = 1,
    say: Say | None = None,
) -> CorpusScores:
    """Every document's scores, then those of decoding the ends of texts; ScoringError naming the
    first that has none.

    Paths are those of the `reference`, so that both sides decode the same tokens after the same
    prompt. Without one, this server becomes it: documents that are too long for it are refused
    (InputError), of a picture's chat the positions of the question are kept, and paths are the
    documents' own last tokens, or what the server writes greedily where it cannot be made to follow
    them.
    """
    if reference is None:
        _require_room(server, documents)
    ask = partial(score, server, concurrency=concurrency)
    pace = Pace(f"scoring {server.model}", say)
    prefilled = _scored(ask(_prompts(documents), progress=pace))
    if reference is not None:
        # These may be a reference in turn, of the same cell on more ranks or asked once more.
        prefilled = {
            name: at_positions_of(reference.prefilled.get(name, scored), scored)
            for name, scored in prefilled.items()
        }
        again = [_again(name, found) for name, found in reference.decoded.items()]
        return CorpusScores(prefilled, _scored(ask(again, progress=pace)))
    for document in documents:
        if document.image is not None:
            asked = tokenize(server, document.text, special=False)
            prefilled[document.id] = question_of(prefilled[document.id], asked, placeholders)
    paths = _paths(documents, prefilled)
    decoded = _scored(ask(paths, progress=pace))
    if any(len(decoded[path.name].positions) < len(path.path) for path in paths):
        own = [replace(path, path=(), tokens=len(path.path)) for path in paths]
        decoded = _scored(ask(own, progress=pace))
    return CorpusScores(prefilled, decoded)


def _require_room(server: Server, documents: tuple[Document, ...]) -> None:
    """Every text fits into the server's context: said of all at once, before any is scored."""
    longest = longest_sequence(server)
    if longest is None:
        return
    tokens = {
        document.id: len(tokenize(server, document.text))
        for document in documents
        # A token is a byte at least: what is shorter in bytes has room, its special tokens too.
        if document.image is None and len(document.text.encode()) + SPECIAL_TOKENS > longest
    }
    # Each is asked for one token more.
    excess = [f"{name} ({count})" for name, count in tokens.items() if count >= longest]
    if excess:
        more = f" and {len(excess) - NAMED} more" if len(excess) > NAMED else ""
        raise InputError(
            f"{len(excess)} of {len(documents)} documents have more tokens than the server's "
            f"--max-model-len of {longest} leaves room for: {', '.join(excess[:NAMED])}{more}. "
            "Shorten them, leave them out of the corpus, or raise it in deployments.toml"
        )


def question_of(
    scored: Scored, question: Sequence[int], placeholders: frozenset[int] = frozenset()
) -> Scored:
    """A chat's scores at the tokens of its question, after its picture alone.

    What stands before the picture cannot depend on it, and the rest is the template's, the same in
    every chat. The question is the longest piece of it that is found there, since a tokenizer may
    join its ends with what stands beside them; where not even half of it is, all after the picture
    counts.
    """
    begin = 1 + max(
        (place for place, token in enumerate(scored.token_ids) if token in placeholders), default=-1
    )
    after = scored.token_ids[begin:]
    found = SequenceMatcher(None, after, question, autojunk=False).find_longest_match()
    places = range(begin + found.a, begin + found.a + found.size)
    if 2 * found.size < len(question):
        places = range(begin, len(scored.token_ids))
    kept = tuple(position for position in scored.positions if position.index in places)
    return Scored(scored.token_ids, kept)


def at_positions_of(wanted: Scored, scored: Scored) -> Scored:
    """The scores at the positions that another has, where both are of the same tokens."""
    if wanted.token_ids != scored.token_ids:
        return scored
    places = {position.index for position in wanted.positions}
    kept = tuple(position for position in scored.positions if position.index in places)
    return Scored(scored.token_ids, kept)


def without_positions(scores: CorpusScores) -> list[str]:
    """The documents of which no token is scored, such as those of one token."""
    return [name for name, scored in scores.prefilled.items() if not scored.positions]


def _prompts(documents: tuple[Document, ...]) -> list[Request]:
    return [
        Request(document.id, document.text)
        if document.image is None
        else Request(document.id, messages=chat_messages(document))
        for document in documents
    ]


def _paths(documents: tuple[Document, ...], scores: Scores) -> list[Request]:
    """The last tokens of texts, after all before them: of every stratum in turn, DECODED_TEXTS in
    all."""
    found: dict[str, list[Request]] = {}
    for document in documents:
        ids = scores[document.id].token_ids
        if document.image is None and len(ids) > 2 * DECODED_TOKENS:
            cut = len(ids) - DECODED_TOKENS
            path = Request(document.id, ids[:cut], path=tuple(ids[cut:]))
            found.setdefault(document.stratum, []).append(path)
    turns = zip_longest(*found.values())
    return [path for turn in turns for path in turn if path is not None][:DECODED_TEXTS]


def _again(name: str, decoded: Scored) -> Request:
    """The path that the reference was decoded along."""
    cut = decoded.positions[0].index
    return Request(name, decoded.token_ids[:cut], path=tuple(decoded.token_ids[cut:]))


def _scored(found: Mapping[str, Scored | Unscorable]) -> Scores:
    scores: Scores = {}
    for name, scored in found.items():
        if isinstance(scored, Unscorable):
            raise ScoringError(f"{name}: {scored.reason}")
        scores[name] = scored
    return scores


def chat_messages(document: Document) -> list[dict[str, object]]:
    """A picture and its question as one user message."""
    return Prompt(document.text, document.image).messages
