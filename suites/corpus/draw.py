"""The corpus's pictures, drawn by code: eight drawn one by one, the rest dealt by `scenes`.

    python -m suites.corpus.draw     write the pictures and `images.jsonl` again

A self-test holds the files against this. Sides are multiples of 28, a token's side to Qwen2.5-VL.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from suites.corpus.canvas import Pixels, canvas, disc
from suites.corpus.scenes import SCENES

FOLDER: Final = Path(__file__).parent

_GLYPHS = {  # five rows of three, read downwards
    "T": "111 010 010 010 010",
    "P": "111 101 111 100 100",
    "4": "101 101 111 001 001",
    "8": "111 101 111 101 111",
}


def red_square() -> Pixels:
    """A red square on white, left of the middle."""
    pixels = canvas(112, 112, (255, 255, 255))
    pixels[30:80, 14:64] = (210, 30, 30)
    return pixels


def two_discs() -> Pixels:
    """A blue and a green disc on grey."""
    pixels = canvas(84, 140, (190, 190, 190))
    disc(pixels, (42, 38), 26, (20, 60, 200))
    disc(pixels, (42, 102), 26, (20, 160, 60))
    return pixels


def stripes() -> Pixels:
    """Seven vertical stripes, an odd number."""
    pixels = canvas(84, 112, (250, 240, 200))
    for index in range(7):
        pixels[:, 16 * index : 16 * index + 8] = (40, 40, 40)
    return pixels


def gradient() -> Pixels:
    """Dark to bright from left to right, warm to cold from top to bottom."""
    rows, columns = np.mgrid[0:112, 0:84]
    return np.stack([255 - 2 * rows, 3 * columns, 2 * rows], axis=-1).clip(0, 255).astype(np.uint8)


def letters() -> Pixels:
    """The text TP48 in yellow bars on navy."""
    pixels = canvas(56, 140, (15, 25, 70))
    for place, glyph in enumerate("TP48"):
        for row, bits in enumerate(_GLYPHS[glyph].split()):
            for column, bit in enumerate(bits):
                if bit == "1":
                    top, left = 8 + 8 * row, 10 + 32 * place + 8 * column
                    pixels[top : top + 8, left : left + 8] = (250, 220, 40)
    return pixels


def bars() -> Pixels:
    """A bar chart of four growing bars."""
    pixels = canvas(112, 112, (255, 255, 255))
    for index, height in enumerate((20, 45, 70, 95)):
        pixels[104 - height : 104, 10 + 25 * index : 28 + 25 * index] = (120, 60 + 40 * index, 180)
    return pixels


def checkers() -> Pixels:
    """A black and white board of seven by seven fields."""
    rows, columns = np.mgrid[0:112, 0:112]
    dark = ((rows // 16 + columns // 16) % 2).astype(bool)
    pixels = canvas(112, 112, (255, 255, 255))
    pixels[dark] = (0, 0, 0)
    return pixels


def horizon() -> Pixels:
    """Blue above, green below, and a yellow sun on the left."""
    pixels = canvas(84, 140, (120, 180, 250))
    pixels[52:] = (60, 150, 60)
    disc(pixels, (22, 30), 14, (255, 230, 60))
    return pixels


# The pictures of the small size too: each is few tokens, and so is its text.
DRAWINGS: Final[tuple[tuple[Callable[[], Pixels], str], ...]] = (
    (red_square, "What shape is this? A red square."),
    (two_discs, "Which colours? Blue, then green."),
    (stripes, "How many dark stripes? Seven."),
    (gradient, "Where is it brightest? To the right."),
    (letters, "Read the text. TP48."),
    (bars, "Which bar is tallest? The last one."),
    (checkers, "How many fields in a row? Seven."),
    (horizon, "What is in the sky? A yellow sun."),
)


def pictures() -> Iterator[tuple[dict[str, object], Pixels]]:
    """Every row of `images.jsonl`, and the picture it names."""
    for drawing, text in DRAWINGS:
        yield _row(drawing.__name__, text) | {"ci": True}, drawing()
    for kind, (scene, count) in enumerate(SCENES):
        for index in range(1, count + 1):
            pixels, text = scene(100 * (kind + 1) + index)
            yield _row(f"{scene.__name__}_{index}", text), pixels


def _row(name: str, text: str) -> dict[str, object]:
    return {
        "id": f"image-{name.replace('_', '-')}",
        "stratum": "image",
        "image": f"images/{name}.png",
        "text": text,
    }


def main() -> int:
    """Write every picture as PNG, and the list of them."""
    rows = []
    for row, pixels in pictures():
        Image.fromarray(pixels).save(FOLDER / str(row["image"]), optimize=True)
        rows.append(json.dumps(row) + "\n")
    (FOLDER / "images.jsonl").write_text("".join(rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
