"""Measuring again what others disturbed on the machine: how often, and for how long.

Whether a block counts is decided by what was seen of the machine alone, never by its times, so
that a second look favours nobody; what a run brings about itself, such as a GPU's heat, is not
waited for. Each look has prompts of its own, and is taken once the machine has been quiet for a
moment. When the run's patience is used up, a disturbed block stays invalid.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

from fixtures.serving.conditions import Limits
from fixtures.serving.observing import observe
from suites.pace import Say

MOST: Final = 4  # looks at one block
WINDOW_S: Final = 1.0  # what counts as a quiet moment
TELL_S: Final = 60.0


@dataclass(slots=True)
class Patience:
    """Of one run; `left_s` is what disturbed blocks may still take, waiting included."""

    left_s: float
    limits: Limits
    say: Say | None

    def again(self, what: str, disturbed: str, looks: int, took_s: float) -> bool:
        """Whether to measure `what` again, which the last of so many looks found disturbed and
        which takes so long. It returns when the machine is quiet."""
        if looks >= MOST or took_s > self.left_s:
            return False
        self._tell(f"{what} was disturbed: {disturbed}. It is measured again once that is over")
        quiet = self._wait(self.left_s - took_s)
        if quiet:
            self.left_s -= took_s
        else:
            self._tell(f"{what} stays as it is: the run's patience with the machine is used up")
        return quiet

    def _wait(self, most_s: float) -> bool:
        """Waits for a quiet moment; False where none came in time."""
        began_s = time.monotonic()
        tell_s = began_s + TELL_S
        quiet = False
        while not quiet and (now_s := time.monotonic()) < began_s + most_s:
            if now_s >= tell_s:
                tell_s = now_s + TELL_S
                left_s = began_s + most_s - now_s
                self._tell(f"waiting for a quiet machine, for {left_s:.0f} s more at most")
            with observe(limits=self.limits) as observed:
                time.sleep(WINDOW_S)
            quiet = observed.verdict() is None
        self.left_s = max(0.0, self.left_s - (time.monotonic() - began_s))
        return quiet

    def _tell(self, line: str) -> None:
        if self.say is not None:
            self.say(line)
