"""What every cell is compared with: the original on one rank, its answers and its speed."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from fixtures.errors import ServingError
from fixtures.reference import Scores
from fixtures.serving.client import Scored, Unscorable
from fixtures.serving.scoring import Request, score
from fixtures.serving.server import Server
from suites.corpus import Document
from suites.measure import Blocks
from suites.pace import Pace, Say

DECODED: Final = "/decode"  # after a document's id: its end, decoded token by token
DECODED_TOKENS: Final = 16
DECODED_TEXTS: Final = 4  # of each stratum


class ScoringError(ServingError):
    """A server could not score a document; says which and why."""


@dataclass(slots=True)
class Baseline:
    """What original-tp1 answered, and how fast; None where no selected claim needs it."""

    scores: Scores | None = None
    right: Mapping[str, bool] | None = None  # task → was it answered rightly?
    latency: Blocks | None = None
    throughput: Blocks | None = None
    one_rank: dict[str, float] = field(default_factory=dict)  # variant → its best output rate
    broken: str | None = None
    by_cell: dict[str, Scores] = field(default_factory=dict)
    unscorable: dict[str, str] = field(default_factory=dict)  # cell → why it has no scores


def score_corpus(
    server: Server,
    documents: tuple[Document, ...],
    *,
    reference: Scores | None = None,
    concurrency: int = 1,
    say: Say | None = None,
) -> Scores:
    """Every document's scores, then those of decoding the ends of texts; ScoringError naming the
    first that has none.

    Paths are those of the `reference`, so that both sides decode the same tokens after the same
    prompt; without one, they are the documents' own last tokens.
    """
    ask = partial(score, server, concurrency=concurrency)
    pace = Pace(f"scoring {server.model}", say)
    prefilled = _scored(ask(_prompts(documents), progress=pace))
    paths = _paths(documents, prefilled if reference is None else reference)
    return prefilled | _scored(ask(paths, progress=pace))


def _prompts(documents: tuple[Document, ...]) -> list[Request]:
    return [
        Request(document.id, document.text)
        if document.image is None
        else Request(document.id, messages=chat_messages(document))
        for document in documents
    ]


def _paths(documents: tuple[Document, ...], scores: Scores) -> list[Request]:
    """The last tokens of texts, after all before them: the first few texts of each stratum."""
    found: dict[str, list[Request]] = {}
    for document in documents:
        ids = scores[document.id].token_ids
        if document.image is None and len(ids) > 2 * DECODED_TOKENS:
            cut = len(ids) - DECODED_TOKENS
            path = Request(document.id + DECODED, ids[:cut], path=tuple(ids[cut:]))
            found.setdefault(document.stratum, []).append(path)
    return [path for paths in found.values() for path in paths[:DECODED_TEXTS]]


def _scored(found: Mapping[str, Scored | Unscorable]) -> Scores:
    scores: Scores = {}
    for name, scored in found.items():
        if isinstance(scored, Unscorable):
            raise ScoringError(f"{name}: {scored.reason}")
        scores[name] = scored
    return scores


def chat_messages(document: Document) -> list[dict[str, Any]]:
    """A picture and its question as one user message."""
    return shown(document.image or b"", document.text)


def shown(picture: bytes, question: str) -> list[dict[str, Any]]:
    """A chat that shows a PNG and asks about it."""
    uri = "data:image/png;base64," + base64.b64encode(picture).decode()
    content = [
        {"type": "image_url", "image_url": {"url": uri}},
        {"type": "text", "text": question},
    ]
    return [{"role": "user", "content": content}]
