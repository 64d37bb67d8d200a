"""Seeded choice that gives the same corpus on every Python.

Only `random()` is used: of the module's methods it alone is promised to give the same sequence for
the same seed in every release.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Chance:
    """One document's dice: a change to one document moves no other."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def number(self, low: int, high: int) -> int:
        """An integer from `low` to `high`, both included."""
        return low + int(self._random.random() * (high - low + 1))

    def pick(self, items: Sequence[T]) -> T:
        return items[self.number(0, len(items) - 1)]

    def some(self, items: Sequence[T], count: int) -> list[T]:
        """`count` different ones, in an order of their own."""
        left = list(items)
        return [left.pop(self.number(0, len(left) - 1)) for _ in range(count)]
