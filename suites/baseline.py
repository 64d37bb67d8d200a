"""What every cell is compared with: the original on one rank, its answers and its speed."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Any

from fixtures.errors import ServingError
from fixtures.reference import Scores
from fixtures.serving.client import LoadResult, Stream, Unscorable, score_chat, score_text
from fixtures.serving.server import Server
from suites.corpus import Document


class ScoringError(ServingError):
    """A server could not score a document; says which and why."""


@dataclass(slots=True)
class Baseline:
    """What original-tp1 answered, and how fast; None where no selected claim needs it."""

    scores: Scores | None = None
    latency: list[Stream] | None = None
    throughput: LoadResult | None = None
    broken: str | None = None
    by_cell: dict[str, Scores] = field(default_factory=dict)
    unscorable: dict[str, str] = field(default_factory=dict)  # cell → why it has no scores


def score_corpus(server: Server, documents: tuple[Document, ...]) -> Scores:
    """Every document's scores; ScoringError naming the first that has none."""
    scores: Scores = {}
    for document in documents:
        if document.image is None:
            scored = score_text(server, document.text)
        else:
            scored = score_chat(server, chat_messages(document))
        if isinstance(scored, Unscorable):
            raise ScoringError(f"{document.id}: {scored.reason}")
        scores[document.id] = scored
    return scores


def chat_messages(document: Document) -> list[dict[str, Any]]:
    """A picture and its question as one user message."""
    uri = "data:image/png;base64," + base64.b64encode(document.image or b"").decode()
    content = [
        {"type": "image_url", "image_url": {"url": uri}},
        {"type": "text", "text": document.text},
    ]
    return [{"role": "user", "content": content}]
