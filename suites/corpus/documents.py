"""A row of a corpus, whoever wrote it, becomes a document, or is refused in one line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from fixtures.checkpoint.fields import listed, shown
from fixtures.errors import InputError
from suites.corpus.pictures import UnreadableError, png

STRATA: Final = ("text", "code", "cjk", "long", "image")


@dataclass(frozen=True, slots=True)
class Document:
    """One prompt; `image` is a PNG it is asked about, or None for a plain text."""

    id: str
    stratum: str
    text: str
    image: bytes | None = None


def read_documents(
    rows: Iterable[tuple[str, Mapping[str, Any]]], source: str, folder: Path
) -> tuple[Document, ...]:
    """Every row that is not blank, each with the words for where it stands.

    Pictures given by name lie in `folder`.
    """
    found: dict[str, Document] = {}
    for number, (where, row) in enumerate(rows, 1):
        document = _document(row, where, f"row-{number:04d}", folder)
        if document is None:
            continue
        if document.id in found:
            raise InputError(
                f"{where} is called {shown(document.id)}, as a row before it; expected a name of "
                "its own. Rename one, or leave the column `id` away."
            )
        found[document.id] = document
    if not found:
        raise InputError(f"{source} holds no documents, expected some to score. Use another one.")
    return tuple(found.values())


def require_text(row: Mapping[str, Any], where: str) -> None:
    """A row has the column that is asked; it may be empty."""
    if "text" not in row:
        raise InputError(
            f"{where} has {listed(tuple(map(str, row))) or 'no column'}, expected a column called "
            "text. Rename one."
        )


def _document(row: Mapping[str, Any], where: str, unnamed: str, folder: Path) -> Document | None:
    require_text(row, where)
    text, image, name = row["text"], row.get("image"), row.get("id")
    if text is not None and not isinstance(text, str):
        raise InputError(f"{where} has {shown(text)} as text, expected a text. Convert the file.")
    if not text or not text.strip():
        if image is None:
            return None  # between paragraphs, in many datasets
        raise InputError(f"{where} has a picture and no text, expected what is asked about it.")
    if name is not None and (isinstance(name, bool) or not isinstance(name, str | int)):
        raise InputError(f"{where} has {shown(name)} as id, expected a name. Correct it.")
    stratum = _stratum(row.get("stratum"), image is not None, where)
    try:
        picture = None if image is None else png(image, folder)
    except UnreadableError as error:
        raise InputError(f"{where}: {error}. Correct the path, or convert the picture.") from error
    identity = unnamed if name is None or name == "" else str(name)
    return Document(identity, stratum, text, picture)


def _stratum(given: object, pictured: bool, where: str) -> str:
    """What the row says, or what it is."""
    if given is None or given == "":
        return "image" if pictured else "text"
    if given not in STRATA:
        near = get_close_matches(str(given)[:80].lower(), STRATA, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise InputError(
            f"{where} is of stratum {shown(given)}, expected one of {listed(STRATA)}.{hint}"
        )
    if pictured != (given == "image"):
        state = "has a picture" if pictured else "has no picture"
        raise InputError(
            f"{where} is of stratum {given} and {state}: documents with one are of stratum image, "
            "and no others. Correct the row."
        )
    return str(given)
