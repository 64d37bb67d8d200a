"""Long documents: what stands near the end was said near the beginning.

Each takes most of the miniature's context of 1024 tokens, at 1.5 characters of English to a token
of its vocabulary: see MOST.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from suites.corpus.compose import code, prose, tables
from suites.corpus.compose.chance import Chance
from suites.corpus.compose.cjk import chinese

# Bytes of UTF-8; the densest kind, code and numbers, comes close to a token a character.
MOST: Final = {"register": 900, "tale": 1350, "minutes": 1280, "source": 900, "chinese": 900}


def _register(chance: Chance, most: int) -> str:
    """Numbered entries, then questions about early ones with their answers."""
    entries = []
    for number in range(1, 60):
        name, place = chance.pick(prose.NAMES), chance.pick(prose.PLACES)
        thing = chance.pick(prose.THINGS)
        entries.append((number, name, thing, place))
        if sum(len(_entry(*entry)) for entry in entries) > most - 260:
            break
    asked = chance.some(entries[: len(entries) // 2], 2)
    questions = [
        f"Question: what did {name} leave under number {number}, and where?\n"
        f"Answer: {thing}, at {place}.\n"
        for number, name, thing, place in asked
    ]
    return "Register of things left behind\n" + "".join(
        [*(_entry(*entry) for entry in entries), *questions]
    )


def _entry(number: int, name: str, thing: str, place: str) -> str:
    return f"{number}. {name} left {thing} at {place}.\n"


def _tale(chance: Chance, most: int) -> str:
    """Paragraphs, no sentence in two; the last repeats the first, as such tales do."""
    deck = chance.some(prose.MIDDLES, len(prose.MIDDLES))
    first = prose.paragraph(chance, [deck.pop()])
    found = [first]
    while len("\n\n".join(found)) + len(first) < most - 420:
        found.append(prose.paragraph(chance, [deck.pop(), deck.pop()]))
    return "\n\n".join([*found, "And so the tale begins again: " + first])


def _minutes(chance: Chance, most: int) -> str:
    """Who said what at a meeting, and at the end who has what to do."""
    present = chance.some(prose.NAMES, 4)
    matters = chance.some(_MATTERS, 8)
    head = f"Minutes of the {chance.number(3, 90)}th meeting. Present: {', '.join(present)}.\n"
    body, tasks = [head], ["Tasks:"]
    for number, (matter, task) in enumerate(matters, 1):
        says, does = chance.some(present, 2)
        votes = chance.number(2, 4)
        body.append(
            f"{number}. {matter} {says} asked for more time. {does} offered to {task}. "
            f"In favour {votes}, against {4 - votes}.\n"
        )
        tasks.append(f"{does} will {task}.")
        if len("".join(body)) + len(" ".join(tasks)) > most - 230:
            break
    return "".join(body) + " ".join(tasks)


_MATTERS = (
    ("The roof of the reading room leaks above the maps.", "find a roofer before the autumn"),
    (
        "The clock in the hall gains nine minutes a month.",
        "set it by the radio each week",
    ),
    ("Two keys to the cellar are missing.", "have the lock changed"),
    ("The fee for borrowed instruments has not been raised in ten years.", "propose a new fee"),
    ("Visitors ask why the tower is closed on windy days.", "write a notice for the door"),
    ("The boat needs a new coat of tar.", "ask the harbour for a quiet week"),
    ("The accounts were read and found to be short by four crowns.", "count the cash box again"),
    ("A school has asked for a guided walk.", "lead the walk on the first dry Friday"),
    ("The lamp at the gate was broken by a cart.", "write to the owner of the cart"),
    ("Somebody has been feeding the geese.", "put up the old sign"),
)


def _source(chance: Chance, most: int) -> str:
    """Files of one repository, one after the other, and a table of what they take."""
    found: list[str] = []
    for template in chance.some(code.TEMPLATES, len(code.TEMPLATES)):
        part = f"# file {len(found) + 1}\n{code.filled(template, chance)}"
        if len("\n".join([*found, part])) < most - 160:
            found.append(part)
    return "\n".join([*found, tables.TABLES[0](chance, 4)])


def _chinese(chance: Chance, most: int) -> str:
    """Numbered paragraphs; a character takes three bytes, and about as many tokens."""
    found: list[str] = []
    while len("\n".join(found).encode()) < most - 330:
        found.append(f"（{len(found) + 1}）{chinese(chance, 2)}")
    return "\n".join(found)


KINDS: dict[str, Callable[[Chance, int], str]] = {
    "tale": _tale, "register": _register, "minutes": _minutes, "source": _source,
    "chinese": _chinese,
}  # fmt: skip


def long(seed: int) -> str:
    """One of the kinds in turn; every second is a tale, the kind that holds most words."""
    names = tuple(KINDS)
    name = names[0] if seed % 2 else names[1 + seed // 2 % (len(names) - 1)]
    return KINDS[name](Chance(seed), MOST[name])
