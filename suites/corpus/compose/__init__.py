"""Where `generated.jsonl` comes from: documents composed of our own phrases by seeded dice.

    python -m suites.corpus.compose     write it again; a self-test holds the file against this

Each document has a seed of its own, so that adding one leaves the others as they are.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from suites.corpus.compose import cjk, code, dialogue, long, prose, tables

FILE: Final = Path(__file__).parent.parent / "generated.jsonl"
# (kind, stratum, what composes it, how many); their ids are kind-101 and on: written ones precede.
PLAN: Final[tuple[tuple[str, str, Callable[[int], str], int], ...]] = (
    ("prose", "text", prose.prose, 24),
    ("dialogue", "text", dialogue.dialogue, 12),
    ("table", "text", tables.table, 15),
    ("numbers", "text", tables.numbers, 10),
    ("code", "code", code.code, 34),
    ("cjk", "cjk", cjk.cjk, 30),
    ("long", "long", long.long, 40),
)


def rows() -> Iterator[dict[str, str]]:
    """Every generated document, in the file's order."""
    for place, (kind, stratum, compose, count) in enumerate(PLAN):
        for index in range(1, count + 1):
            text = compose(1000 * (place + 1) + index)
            yield {"id": f"{kind}-{100 + index}", "stratum": stratum, "text": text}


def text() -> str:
    """The file, a document a line."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows())
