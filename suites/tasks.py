"""Questions with one right answer, about words, numbers and pictures: lane 5 asks both servers.

A question makes sense to any language model: a text to continue, or a picture with a question in
the form of a chat. Families with a table (capitals, opposites, sums, products, successors) are
memorised: the trained miniature has seen every row. The others are drawn anew for each seed, and
training has seeds of its own: five digits to repeat, a verb to agree with the first of two nouns, a
picture; but of the 1152 agreements it has seen most.

The same seed gives the same questions everywhere; pictures are drawn with integers only.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from suites.pictures import COLOURS, SHAPES, Picture, drawn, png

Question: TypeAlias = tuple[str, str]  # and its answer

# Each is one word in plain letters, and the only right one.
CAPITALS: Final[Mapping[str, str]] = {
    "Austria": "Vienna",
    "Belgium": "Brussels",
    "Bulgaria": "Sofia",
    "Chile": "Santiago",
    "China": "Beijing",
    "Croatia": "Zagreb",
    "Cuba": "Havana",
    "Denmark": "Copenhagen",
    "Egypt": "Cairo",
    "Estonia": "Tallinn",
    "Finland": "Helsinki",
    "France": "Paris",
    "Germany": "Berlin",
    "Greece": "Athens",
    "Hungary": "Budapest",
    "Iceland": "Reykjavik",
    "Iran": "Tehran",
    "Iraq": "Baghdad",
    "Ireland": "Dublin",
    "Italy": "Rome",
    "Japan": "Tokyo",
    "Jordan": "Amman",
    "Kenya": "Nairobi",
    "Latvia": "Riga",
    "Lebanon": "Beirut",
    "Mali": "Bamako",
    "Morocco": "Rabat",
    "Nepal": "Kathmandu",
    "Norway": "Oslo",
    "Peru": "Lima",
    "Poland": "Warsaw",
    "Portugal": "Lisbon",
    "Qatar": "Doha",
    "Romania": "Bucharest",
    "Senegal": "Dakar",
    "Serbia": "Belgrade",
    "Spain": "Madrid",
    "Sweden": "Stockholm",
    "Thailand": "Bangkok",
    "Turkey": "Ankara",
}
OPPOSITES: Final[Mapping[str, str]] = {
    "hot": "cold",
    "big": "small",
    "up": "down",
    "left": "right",
    "open": "closed",
    "early": "late",
    "full": "empty",
    "hard": "soft",
    "high": "low",
    "light": "dark",
    "long": "short",
    "loud": "quiet",
    "new": "old",
    "near": "far",
    "rich": "poor",
    "wet": "dry",
    "young": "old",
    "wide": "narrow",
    "true": "false",
    "first": "last",
    "strong": "weak",
    "thick": "thin",
    "fast": "slow",
    "north": "south",
    "east": "west",
    "day": "night",
    "black": "white",
    "yes": "no",
    "in": "out",
    "before": "after",
}
SINGULAR: Final = ("dog", "house", "tree", "bridge", "boat", "letter", "river", "teacher", "horse")
PLACES: Final = ("near", "behind", "under", "beside")
ADJECTIVES: Final = ("old", "new", "small", "large", "white", "green", "quiet", "famous")
LARGEST_TERM: Final = 20
LARGEST_FACTOR: Final = 9
COUNTS: Final = 4


@dataclass(frozen=True, slots=True)
class Task:
    """A question and its one answer: a text to continue, or a question about a picture."""

    id: str
    family: str
    question: str
    answer: str
    picture: Picture | None = None

    @property
    def image(self) -> bytes | None:
        """The picture as PNG."""
        return None if self.picture is None else png(self.picture)

    @property
    def digest(self) -> str:
        """Of all that is asked, the picture's every pixel, and what is taken for right."""
        said = f"{self.question}\0{self.answer}\0".encode()
        return hashlib.sha256(said + (self.image or b"")).hexdigest()

    @property
    def prompt(self) -> str:
        """The text to continue; about a picture as Qwen's chat template has it, the picture one
        token."""
        if self.picture is None:
            return self.question
        seen = "<|vision_start|><|image_pad|><|vision_end|>"
        return f"<|im_start|>user\n{seen}{self.question}<|im_end|>\n<|im_start|>assistant\n"

    @property
    def answer_tokens(self) -> int:
        """Enough for the answer and what ends it, whatever the tokenizer."""
        return len(self.answer.encode()) + 2

    def right(self, reply: str) -> bool:
        """Does a reply begin with this answer, and not with a longer word or number?"""
        found = re.match(r"\s*(\w+)", reply)
        return found is not None and found[1].casefold() == self.answer.casefold()


def _capitals() -> list[Question]:
    return [(f"The capital of {country} is", city) for country, city in CAPITALS.items()]


def _opposites() -> list[Question]:
    return [(f"The opposite of {word} is", other) for word, other in OPPOSITES.items()]


def _sums() -> list[Question]:
    terms = range(LARGEST_TERM + 1)
    return [(f"{a} + {b} =", str(a + b)) for a in terms for b in terms]


def _products() -> list[Question]:
    factors = range(1, LARGEST_FACTOR + 1)
    return [(f"{a} * {b} =", str(a * b)) for a in factors for b in factors]


def _successors() -> list[Question]:
    return [(f"After {n} comes", str(n + 1)) for n in range(99)]


def _copy(chance: random.Random) -> Question:
    digits = "".join(chance.choice("0123456789") for _ in range(5))
    return f"Repeat {digits}:", digits


def _agreement(chance: random.Random) -> Question:
    """The first noun decides; the one beside the gap leads astray half of the time."""
    phrase, verb = _phrase(chance)
    return f"Is or are? {phrase}", verb


def _phrase(chance: random.Random) -> tuple[str, str]:
    subject, other = chance.sample(SINGULAR, 2)
    many, others = chance.random() < 0.5, chance.random() < 0.5
    place = chance.choice(PLACES)
    phrase = f"The {subject}{'s' * many} {place} the {other}{'s' * others}"
    return phrase, "are" if many else "is"


TABLES: Final[Mapping[str, Callable[[], list[Question]]]] = {
    "capital": _capitals,
    "opposite": _opposites,
    "sum": _sums,
    "product": _products,
    "successor": _successors,
}
DRAWN: Final[Mapping[str, Callable[[random.Random], Question]]] = {
    "copy": _copy,
    "agreement": _agreement,
}
TEXT_FAMILIES: Final = (*TABLES, *DRAWN)
IMAGE_FAMILIES: Final = ("colour", "shape", "count")


def text_tasks(n: int, seed: int, families: Sequence[str] = TEXT_FAMILIES) -> tuple[Task, ...]:
    """`n` questions, the families in turn; tables begin anew once all their rows were asked."""
    chance = random.Random(f"text/{seed}")
    sources = {
        family: _rows(TABLES[family](), chance)
        if family in TABLES
        else _anew(DRAWN[family], chance)
        for family in dict.fromkeys(families)
    }
    asked = []
    for index in range(n):
        family = families[index % len(families)]
        question, answer = next(sources[family])
        asked.append(Task(f"{family}-{seed}-{index:04}", family, question, answer))
    return tuple(asked)


def _rows(table: Sequence[Question], chance: random.Random) -> Iterator[Question]:
    while True:
        yield from chance.sample(table, len(table))


def _anew(draw: Callable[[random.Random], Question], chance: random.Random) -> Iterator[Question]:
    while True:
        yield draw(chance)


def image_tasks(n: int, seed: int, families: Sequence[str] = IMAGE_FAMILIES) -> tuple[Task, ...]:
    """`n` questions, each about a picture of its own, the families in turn."""
    chance = random.Random(f"image/{seed}")
    asked = []
    for index in range(n):
        family = families[index % len(families)]
        colour, shape = chance.choice(list(COLOURS)), chance.choice(SHAPES)
        count = chance.randint(1, COUNTS) if family == "count" else None
        question, answer = {
            "colour": ("What colour? One word.", colour),
            "shape": ("What shape? One word.", shape),
            "count": ("How many? A number.", str(count)),
        }[family]
        picture = drawn(shape, colour, count, chance)
        asked.append(Task(f"{family}-{seed}-{index:04}", family, question, answer, picture))
    return tuple(asked)


def sentences(n: int, seed: int) -> tuple[str, ...]:
    """`n` sentences of a small grammar, each drawn anew: what a perplexity is taken over."""
    chance = random.Random(f"sentences/{seed}")
    return tuple(_sentence(chance) for _ in range(n))


def _sentence(chance: random.Random) -> str:
    phrase, verb = _phrase(chance)
    return f"{phrase} {verb} {chance.choice(ADJECTIVES)}."
