"""Pictures dealt by dice, each with its question and the right answer.

The answer is part of the document: its tokens are the ones a model can only predict by looking.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Final, NamedTuple

from suites.corpus.canvas import (
    BLACK,
    COLOURS,
    WHITE,
    Pixels,
    canvas,
    disc,
    line,
    rectangle,
    triangle,
    width,
    write,
)
from suites.corpus.compose.chance import Chance


class Scene(NamedTuple):
    """A picture, and what is asked and answered about it."""

    pixels: Pixels
    text: str


_SIGNS = (
    ("NORTH", "GATE"), ("QUIET", "PLEASE"), ("PLATFORM", "7"), ("WET", "PAINT"),
    ("EXIT", "LEFT"), ("OPEN", "UNTIL 6"), ("LOW", "BRIDGE"), ("FERRY", "CLOSED"),
)  # fmt: skip


def sign(seed: int) -> Scene:
    """Two words on a board."""
    chance = Chance(seed)
    words = _SIGNS[seed % len(_SIGNS)]
    name = chance.pick(tuple(COLOURS))
    pixels = canvas(84, 168, (225, 225, 225))
    rectangle(pixels, 8, 8, (68, 152), COLOURS[name])
    rectangle(pixels, 12, 12, (60, 144), WHITE)
    for row, word in enumerate(words):
        write(pixels, 20 + 26 * row, 84 - width(word, 2) // 2, word, COLOURS[name], 2)
    return Scene(pixels, f"What does the sign say? It says {' '.join(words)}, in {name} letters.")


def ticket(seed: int) -> Scene:
    """Three lines of small print and numbers."""
    chance = Chance(seed)
    row, seat, number = chance.number(2, 30), chance.number(1, 60), chance.number(1000, 9999)
    pixels = canvas(112, 168, (250, 235, 190))
    rectangle(pixels, 0, 0, (112, 6), (200, 120, 60))
    for place, text in enumerate((f"ROW {row}", f"SEAT {seat}", f"NO. {number}")):
        write(pixels, 12 + 34 * place, 18, text, BLACK, 2)
    return Scene(
        pixels,
        f"Read the ticket. Row {row}, seat {seat}, number {number}.",
    )


def addition(seed: int) -> Scene:
    """A sum without its result."""
    chance = Chance(seed)
    left, right = chance.number(11, 60), chance.number(11, 39)
    pixels = canvas(56, 168, (30, 60, 45))
    text = f"{left}+{right}=?"
    write(pixels, 18, 84 - width(text, 3) // 2, text, WHITE, 3)
    return Scene(
        pixels, f"What belongs in place of the question mark? {left} + {right} = {left + right}."
    )


def bar_chart(seed: int) -> Scene:
    """Four or five bars with their letters below and their values above."""
    chance = Chance(seed)
    names = "ABCDE"[: chance.number(4, 5)]
    values = chance.some(range(2, 10), len(names))
    pixels, colours = canvas(168, 168), tuple(COLOURS.values())
    rectangle(pixels, 146, 8, (2, 152), BLACK)
    for place, (name, value) in enumerate(zip(names, values, strict=True)):
        left, high = 14 + 30 * place, 12 * value
        rectangle(pixels, 146 - high, left, (high, 20), colours[place])
        write(pixels, 150, left + 5, name, BLACK, 2)
        write(pixels, 146 - high - 17, left + 5, str(value), BLACK, 2)
    highest = names[values.index(max(values))]
    lowest = names[values.index(min(values))]
    return Scene(
        pixels,
        f"Which bar is the highest and which the lowest? The highest is {highest} with "
        f"{max(values)}, the lowest is {lowest} with {min(values)}; all {len(names)} together make "
        f"{sum(values)}.",
    )


def line_chart(seed: int) -> Scene:
    """A line that rises or falls in the end, on two axes."""
    chance = Chance(seed)
    heights = [chance.number(30, 100) for _ in range(5)]
    rises = seed % 2 == 0
    heights[0], heights[-1] = (20, 115) if rises else (115, 20)
    pixels = canvas(140, 168)
    rectangle(pixels, 8, 14, (118, 2), BLACK)
    rectangle(pixels, 126, 14, (2, 146), BLACK)
    name = chance.pick(tuple(COLOURS))
    points = [(126 - height, 18 + 34 * place) for place, height in enumerate(heights)]
    for start, end in pairwise(points):
        line(pixels, start, end, COLOURS[name])
    for point in points:
        disc(pixels, point, 4, BLACK)
    way = "higher" if rises else "lower"
    return Scene(
        pixels,
        f"Does the line end higher or lower than it begins? The {name} line ends {way}; it has "
        f"{len(points)} marked points.",
    )


def shapes(seed: int) -> Scene:
    """Shapes of two colours on a grid."""
    chance = Chance(seed)
    names = chance.some(tuple(COLOURS), 2)
    counts: dict[str, int] = {}
    size = chance.pick((112, 140, 168))
    pixels = canvas(112, size, (240, 240, 240))
    places = [(28 + 56 * row, 28 + 56 * column) for row in (0, 1) for column in range(size // 56)]
    for centre in chance.some(places, chance.number(3, len(places))):
        kind, name = chance.pick(("disc", "square", "triangle")), chance.pick(names)
        if kind == "disc":
            disc(pixels, centre, 20, COLOURS[name])
        elif kind == "triangle":
            triangle(pixels, centre, 20, COLOURS[name])
        else:
            rectangle(pixels, centre[0] - 18, centre[1] - 18, (36, 36), COLOURS[name])
        counts[f"{name} {kind}"] = counts.get(f"{name} {kind}", 0) + 1
    listed = ", ".join(
        f"{count} {what}{'s' if count > 1 else ''}" for what, count in sorted(counts.items())
    )
    return Scene(
        pixels, f"Count the shapes by colour and kind. {listed}: {sum(counts.values())} in all."
    )


def grid(seed: int) -> Scene:
    """A table of three rows and three columns."""
    chance = Chance(seed)
    values = [[chance.number(10, 99) for _ in range(3)] for _ in range(3)]
    pixels = canvas(140, 168)
    for place in range(4):
        write(pixels, 11, 6 + 42 * place, (" ", "1", "2", "3")[place], COLOURS["blue"], 2)
        write(pixels, 11 + 34 * place, 8, (" ", "A", "B", "C")[place], COLOURS["blue"], 2)
        rectangle(pixels, 1 + 34 * place, 2, (2, 164), (150, 150, 150))
    for row, entries in enumerate(values):
        for column, value in enumerate(entries):
            write(pixels, 45 + 34 * row, 42 + 42 * column, str(value), BLACK, 2)
    row, column = chance.number(0, 2), chance.number(0, 2)
    return Scene(
        pixels,
        f"Which number stands in row {'ABC'[row]}, column {column + 1}? It is "
        f"{values[row][column]}. And the whole of row C? {values[2][0]}, {values[2][1]}, "
        f"{values[2][2]}.",
    )


# How many of each; together with the eight drawn one by one, 42.
SCENES: Final[tuple[tuple[Callable[[int], Scene], int], ...]] = (
    (sign, 8), (ticket, 5), (addition, 3), (bar_chart, 6), (line_chart, 3), (shapes, 6), (grid, 3),
)  # fmt: skip
