"""A line of progress with what is left, for work that is counted and takes a while."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Final, TypeAlias

Say: TypeAlias = Callable[[str], None]  # one line of progress, past pytest's capture
FIRST_S: Final = 10.0
EVERY_S: Final = 30.0


class Pace:
    """Called with (done, total), for one list of work after another; says nothing of short work."""

    def __init__(self, what: str, say: Say | None) -> None:
        self.what, self.say = what, say
        self._began_s = self._list_s = monotonic()
        self._next_s = self._began_s + FIRST_S

    def __call__(self, done: int, total: int) -> None:
        now_s = monotonic()
        if done <= 1:
            self._list_s = now_s
        if self.say is None or now_s < self._next_s or done >= total:
            return
        self._next_s = now_s + EVERY_S
        left_s = (now_s - self._list_s) / max(1, done - 1) * (total - done)
        self.say(f"{self.what}: {done} of {total}, about {max(1, round(left_s))} s left")
