"""The prompts every server is asked, and their digest.

    read_corpus()                    the corpus that ships, in the size of the platform
    read_corpus("full")              the same in a size: `full`, or `ci`, a part of it
    read_corpus("my/corpus")         a folder laid out as this one is
    read_corpus("notes.jsonl")       a document a row; also .parquet, and paragraphs of a .txt
    read_corpus("someone/talks")     a dataset's train split, as `datasets` knows it

A folder holds `*.jsonl`, read in the order of their names, whose rows have a `text` and may have
`id`, `stratum`, `image` (a path in the folder) and `ci` (true: the small size has it too). Ours:
`documents.jsonl` is written by hand, `generated.jsonl` by `compose`, `images.jsonl` by `draw`.
All goes through `datasets`, none of it through its cache.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

from fixtures.checkpoint.fields import shown
from fixtures.errors import InputError
from fixtures.platforms import Platform
from fixtures.texts import read_rows
from suites.corpus.documents import STRATA, Document, read_documents, require_text

__all__ = [
    "FOLDER",
    "MOST",
    "SIZES",
    "STRATA",
    "Corpus",
    "Document",
    "read_corpus",
]

FOLDER: Final = Path(__file__).parent
SIZES: Final[dict[Platform, str]] = {"cpu": "ci", "cuda": "full"}
COLUMNS: Final = ("id", "stratum", "text", "image", "ci")
# Scoring one takes a request to every server: a data set of millions is a mistake.
MOST: Final = 2000


@dataclass(frozen=True, slots=True)
class Corpus:
    """Documents in their order; `digest` is a sha256 of everything a server is asked."""

    name: str
    documents: tuple[Document, ...]

    @property
    def digest(self) -> str:
        state = hashlib.sha256()
        for document in self.documents:
            image = document.image and hashlib.sha256(document.image).hexdigest()
            facts = (document.id, document.stratum, document.text, image)
            state.update(json.dumps(facts).encode() + b"\n")
        return state.hexdigest()

    @property
    def texts(self) -> tuple[Document, ...]:
        return tuple(document for document in self.documents if document.image is None)

    def to_json(self) -> dict[str, object]:
        """For a report's header."""
        strata = Counter(document.stratum for document in self.documents)
        return {"name": self.name, "digest": self.digest, "documents": dict(strata)}


def read_corpus(choice: str | Path | None = None, *, platform: Platform = "cpu") -> Corpus:
    """The corpus of that size, folder, file or name; InputError in one line where it is none."""
    name = SIZES[platform] if choice is None else str(choice)
    if not name.strip():
        raise InputError(
            "--corpus is empty: expected ci, full, a folder, a file or a dataset's name (an unset "
            "variable?)"
        )
    if name in SIZES.values():
        rows = [(at, row) for at, row in _folder(FOLDER) if name == "full" or row["ci"]]
        return Corpus(name, read_documents(rows, name, FOLDER))
    path = Path(name)
    if path.is_dir():
        return Corpus(name, read_documents(_folder(path), name, path))
    found = list(islice(read_rows(name), MOST + 1))
    if len(found) > MOST:
        raise InputError(
            f"{name} holds more than {MOST} documents, and each is asked of every server. Write "
            "those you want into a .jsonl file."
        )
    folder = path.parent if path.is_file() else Path()
    rows = [(f"{name}, row {number}", row) for number, row in enumerate(found, 1)]
    return Corpus(name, read_documents(rows, name, folder))


def _folder(folder: Path) -> list[tuple[str, Mapping[str, Any]]]:
    """The rows of a folder's files and where each stands, every one with every column."""
    # Imported here: it takes a second, and only a run that scores needs it.
    from datasets import Dataset

    files = sorted(folder.glob("*.jsonl"))
    if not files:
        raise InputError(
            f"{folder} holds no *.jsonl, expected lists of documents such as documents.jsonl. "
            "Check the path; suites/corpus is an example."
        )
    found = [pair for file in files for pair in _lines(file)]
    try:
        # Parsed here: `from_json` would write a cache, which outlives a process that is killed.
        rows = list(Dataset.from_list([row for _, row in found]))
    except (ValueError, TypeError, OverflowError) as error:  # pyarrow's are of these kinds
        raise InputError(
            f"{folder} cannot be read as one table ({' '.join(str(error).split())[:200]}), "
            "expected a column to hold the same in every row. Correct the rows."
        ) from error
    return [(where, row) for (where, _), row in zip(found, rows, strict=True)]


def _lines(file: Path) -> list[tuple[str, dict[str, Any]]]:
    try:
        lines = file.read_bytes().splitlines()
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror}). Check the folder.") from error
    rows = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{file}, line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise InputError(
                f"{where} is {shown(line.decode(errors='replace'))}, expected a JSON "
                "object. Correct the line."
            )
        require_text(row, where)
        rows.append((where, {column: row.get(column) for column in COLUMNS}))
    return rows
