"""What pictures are made of: rectangles, discs, triangles, lines and letters, without smoothing.

Everything is integer arithmetic on arrays (height, width, 3) of red, green, blue: the same pixels
on every machine, which no drawing library promises of its fonts.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Pixels: TypeAlias = NDArray[np.uint8]
Colour: TypeAlias = tuple[int, int, int]

WHITE: Final = (255, 255, 255)
BLACK: Final = (20, 20, 20)
COLOURS: Final[dict[str, Colour]] = {
    "red": (210, 30, 30),
    "green": (20, 150, 60),
    "blue": (20, 60, 200),
    "orange": (240, 140, 20),
    "purple": (130, 40, 160),
}
# Five columns by seven rows, read downwards; a row is five bits.
_GLYPHS: Final = {
    "A": "0e 11 11 1f 11 11 11",
    "B": "1e 11 11 1e 11 11 1e",
    "C": "0e 11 10 10 10 11 0e",
    "D": "1e 11 11 11 11 11 1e",
    "E": "1f 10 10 1e 10 10 1f",
    "F": "1f 10 10 1e 10 10 10",
    "G": "0e 11 10 17 11 11 0f",
    "H": "11 11 11 1f 11 11 11",
    "I": "0e 04 04 04 04 04 0e",
    "J": "07 02 02 02 02 12 0c",
    "K": "11 12 14 18 14 12 11",
    "L": "10 10 10 10 10 10 1f",
    "M": "11 1b 15 15 11 11 11",
    "N": "11 19 19 15 13 13 11",
    "O": "0e 11 11 11 11 11 0e",
    "P": "1e 11 11 1e 10 10 10",
    "Q": "0e 11 11 11 15 12 0d",
    "R": "1e 11 11 1e 14 12 11",
    "S": "0f 10 10 0e 01 01 1e",
    "T": "1f 04 04 04 04 04 04",
    "U": "11 11 11 11 11 11 0e",
    "V": "11 11 11 11 11 0a 04",
    "W": "11 11 11 15 15 1b 11",
    "X": "11 11 0a 04 0a 11 11",
    "Y": "11 11 0a 04 04 04 04",
    "Z": "1f 01 02 04 08 10 1f",
    "0": "0e 11 13 15 19 11 0e",
    "1": "04 0c 04 04 04 04 0e",
    "2": "0e 11 01 06 08 10 1f",
    "3": "1e 01 01 0e 01 01 1e",
    "4": "02 06 0a 12 1f 02 02",
    "5": "1f 10 1e 01 01 11 0e",
    "6": "06 08 10 1e 11 11 0e",
    "7": "1f 01 02 04 08 08 08",
    "8": "0e 11 11 0e 11 11 0e",
    "9": "0e 11 11 0f 01 02 0c",
    " ": "00 00 00 00 00 00 00",
    "+": "00 04 04 1f 04 04 00",
    "-": "00 00 00 1f 00 00 00",
    "=": "00 00 1f 00 1f 00 00",
    "?": "0e 11 01 02 04 00 04",
    ":": "00 04 00 00 00 04 00",
    ".": "00 00 00 00 00 00 04",
}
ADVANCE: Final = 6  # columns from a letter to the next


def canvas(height: int, width: int, colour: Colour = WHITE) -> Pixels:
    """An empty picture."""
    return np.full((height, width, 3), colour, dtype=np.uint8)


def rectangle(pixels: Pixels, top: int, left: int, size: tuple[int, int], colour: Colour) -> None:
    """A filled one; `size` is (height, width)."""
    pixels[top : top + size[0], left : left + size[1]] = colour


def disc(pixels: Pixels, centre: tuple[int, int], radius: int, colour: Colour) -> None:
    """A filled circle; `centre` is (row, column)."""
    rows, columns = np.mgrid[0 : pixels.shape[0], 0 : pixels.shape[1]]
    pixels[(rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < radius**2] = colour


def triangle(pixels: Pixels, centre: tuple[int, int], radius: int, colour: Colour) -> None:
    """A filled one on its base, as wide as it is high."""
    rows, columns = np.mgrid[0 : pixels.shape[0], 0 : pixels.shape[1]]
    down = rows - centre[0] + radius
    inside = (down >= 0) & (down <= 2 * radius) & (2 * np.abs(columns - centre[1]) <= down)
    pixels[inside] = colour


def line(pixels: Pixels, start: tuple[int, int], end: tuple[int, int], colour: Colour) -> None:
    """Three pixels thick, from one (row, column) to the other."""
    steps = max(abs(end[0] - start[0]), abs(end[1] - start[1]), 1)
    for step in range(steps + 1):
        row = (start[0] * (steps - step) + end[0] * step) // steps
        column = (start[1] * (steps - step) + end[1] * step) // steps
        pixels[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2] = colour


def write(pixels: Pixels, top: int, left: int, text: str, colour: Colour, scale: int = 1) -> None:
    """A line of capitals and digits; each is five by seven squares of `scale` pixels."""
    for place, letter in enumerate(text):
        for row, bits in enumerate(_GLYPHS[letter].split()):
            for column in range(5):
                if int(bits, 16) >> (4 - column) & 1:
                    corner = (left + scale * (place * ADVANCE + column), top + scale * row)
                    rectangle(pixels, corner[1], corner[0], (scale, scale), colour)


def width(text: str, scale: int = 1) -> int:
    """Of a written line, in pixels."""
    return scale * (len(text) * ADVANCE - 1)
