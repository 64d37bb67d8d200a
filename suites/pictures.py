"""Small pictures of one to four shapes, drawn with integers: the same pixels everywhere."""

from __future__ import annotations

import io
import random
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Picture: TypeAlias = NDArray[np.uint8]  # [SIDE, SIDE, 3]

SIDE: Final = 84  # three tokens of 28 pixels across
COLOURS: Final = {
    "red": (210, 30, 30),
    "green": (30, 150, 50),
    "blue": (30, 60, 210),
    "yellow": (240, 220, 40),
    "purple": (130, 40, 160),
    "black": (10, 10, 10),
}
SHAPES: Final = ("circle", "square", "triangle", "cross")


def drawn(shape: str, colour: str, count: int | None, chance: random.Random) -> Picture:
    """One to four equal shapes, each in a quarter of its own; without a count, a larger one near
    the middle."""
    if count is None:
        radius, jitter, centres = chance.randint(22, 30), 8, [(SIDE // 2, SIDE // 2)]
    else:
        radius, jitter = chance.randint(13, 17), 3
        near, far = SIDE // 4, SIDE - SIDE // 4
        centres = chance.sample([(near, near), (near, far), (far, near), (far, far)], count)
    picture = np.full((SIDE, SIDE, 3), 255, np.uint8)
    for y, x in centres:
        centre = (y + chance.randint(-jitter, jitter), x + chance.randint(-jitter, jitter))
        picture[_covered(shape, centre, radius)] = COLOURS[colour]
    return picture


def _covered(shape: str, centre: tuple[int, int], radius: int) -> NDArray[np.bool_]:
    """The pixels of one shape `[SIDE, SIDE]`; the radius is half its height."""
    rows, columns = np.mgrid[0:SIDE, 0:SIDE]
    down, right = rows - centre[0], columns - centre[1]
    if shape == "circle":
        inside = down**2 + right**2 <= radius**2
    elif shape == "square":
        inside = np.maximum(abs(down), abs(right)) <= radius * 7 // 8
    elif shape == "triangle":
        inside = (abs(down) <= radius) & (2 * abs(right) <= down + radius)
    else:
        arm = radius // 3
        inside = (np.minimum(abs(down), abs(right)) <= arm) & (
            np.maximum(abs(down), abs(right)) <= radius
        )
    found: NDArray[np.bool_] = inside
    return found


def png(picture: Picture) -> bytes:
    """The same pixels as a file."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()
