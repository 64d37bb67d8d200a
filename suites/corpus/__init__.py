"""The prompts every server is asked: our own texts, code, Chinese, numbers, pictures.

The files beside this module are the corpus; `read_corpus` loads them through `datasets` and names
their content by one digest, which goes into the report and into the reference cache's key.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent
FILES = ("documents.jsonl", "images.jsonl")


@dataclass(frozen=True, slots=True)
class Document:
    """One prompt; `image` is a PNG, or None for a plain text."""

    id: str
    stratum: str
    text: str
    image: bytes | None = None


@dataclass(frozen=True, slots=True)
class Corpus:
    documents: tuple[Document, ...]
    digest: str

    @property
    def texts(self) -> tuple[Document, ...]:
        return tuple(document for document in self.documents if document.image is None)


def corpus_digest(folder: Path = FOLDER) -> str:
    """sha256 over the lists of prompts and every picture they name."""
    state = hashlib.sha256()
    for name in FILES:
        text = (folder / name).read_bytes()
        state.update(text)
        for line in text.splitlines():
            if file := json.loads(line).get("file"):
                state.update((folder / file).read_bytes())
    return state.hexdigest()


def read_corpus(folder: Path = FOLDER) -> Corpus:
    """The corpus of a folder holding `documents.jsonl` and, for pictures, `images.jsonl`."""
    # Imported here: it takes a second, and only a run that scores needs it.
    from datasets import Dataset, disable_progress_bars

    disable_progress_bars()
    documents: list[Document] = []
    for name in FILES:
        # Parsed here: `from_json` would write a cache, which outlives a process that is killed.
        lines = (folder / name).read_bytes().splitlines()
        for row in Dataset.from_list([json.loads(line) for line in lines]):
            image = (folder / row["file"]).read_bytes() if row.get("file") else None
            documents.append(Document(row["id"], row["stratum"], row["text"], image))
    return Corpus(tuple(documents), corpus_digest(folder))
