"""The corpus's pictures, drawn by code: shapes, stripes, a gradient, letters made of bars.

Run `python -m suites.corpus.draw` to write them again; a self-test holds the files against this.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
FOLDER = Path(__file__).parent / "images"

_GLYPHS = {  # five rows of three, read downwards
    "T": "111 010 010 010 010",
    "P": "111 101 111 100 100",
    "4": "101 101 111 001 001",
    "8": "111 101 111 101 111",
}


def _canvas(height: int, width: int, colour: tuple[int, int, int]) -> Pixels:
    return np.full((height, width, 3), colour, dtype=np.uint8)


def red_square() -> Pixels:
    """A red square on white, left of the middle."""
    pixels = _canvas(112, 112, (255, 255, 255))
    pixels[30:80, 14:64] = (210, 30, 30)
    return pixels


def two_discs() -> Pixels:
    """A blue and a green disc on grey."""
    pixels = _canvas(84, 140, (190, 190, 190))
    rows, columns = np.mgrid[0:84, 0:140]
    for centre, colour in ((38, (20, 60, 200)), (102, (20, 160, 60))):
        pixels[(rows - 42) ** 2 + (columns - centre) ** 2 < 26**2] = colour
    return pixels


def stripes() -> Pixels:
    """Seven vertical stripes, an odd number."""
    pixels = _canvas(84, 112, (250, 240, 200))
    for index in range(7):
        pixels[:, 16 * index : 16 * index + 8] = (40, 40, 40)
    return pixels


def gradient() -> Pixels:
    """Dark to bright from left to right, warm to cold from top to bottom."""
    rows, columns = np.mgrid[0:112, 0:84]
    return np.stack([255 - 2 * rows, 3 * columns, 2 * rows], axis=-1).clip(0, 255).astype(np.uint8)


def letters() -> Pixels:
    """The text TP48 in yellow bars on navy."""
    pixels = _canvas(56, 140, (15, 25, 70))
    for place, glyph in enumerate("TP48"):
        for row, bits in enumerate(_GLYPHS[glyph].split()):
            for column, bit in enumerate(bits):
                if bit == "1":
                    top, left = 8 + 8 * row, 10 + 32 * place + 8 * column
                    pixels[top : top + 8, left : left + 8] = (250, 220, 40)
    return pixels


def bars() -> Pixels:
    """A bar chart of four growing bars."""
    pixels = _canvas(112, 112, (255, 255, 255))
    for index, height in enumerate((20, 45, 70, 95)):
        pixels[104 - height : 104, 10 + 25 * index : 28 + 25 * index] = (120, 60 + 40 * index, 180)
    return pixels


def checkers() -> Pixels:
    """A black and white board of seven by seven fields."""
    rows, columns = np.mgrid[0:112, 0:112]
    dark = ((rows // 16 + columns // 16) % 2).astype(bool)
    pixels = _canvas(112, 112, (255, 255, 255))
    pixels[dark] = (0, 0, 0)
    return pixels


def horizon() -> Pixels:
    """Blue above, green below, and a yellow sun on the left."""
    pixels = _canvas(84, 140, (120, 180, 250))
    pixels[52:] = (60, 150, 60)
    rows, columns = np.mgrid[0:84, 0:140]
    pixels[(rows - 22) ** 2 + (columns - 30) ** 2 < 14**2] = (255, 230, 60)
    return pixels


DRAWINGS: dict[str, Callable[[], Pixels]] = {
    drawing.__name__: drawing
    for drawing in (red_square, two_discs, stripes, gradient, letters, bars, checkers, horizon)
}


def main() -> int:
    """Write every drawing as PNG."""
    FOLDER.mkdir(exist_ok=True)
    for name, drawing in DRAWINGS.items():
        Image.fromarray(drawing()).save(FOLDER / f"{name}.png", optimize=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
