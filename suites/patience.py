"""Measuring again what something else on the machine disturbed: how often, and for how long.

Whether a block counts is decided by what was seen of the machine alone, never by its times, so
that a second look favours nobody. Each look has prompts of its own. It is taken once the machine
has been quiet for a moment; where it does not become quiet, or the run's patience is used up, the
block stays invalid.
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
QUIET_S: Final = 30.0  # waited for it


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
        quiet = self._wait()
        if quiet:
            self.left_s -= took_s
        else:
            self._tell(f"{what} stays as it is: the machine was not quiet within {QUIET_S:.0f} s")
        return quiet

    def _wait(self) -> bool:
        """Waits for a quiet moment; False where none came in time."""
        began_s = time.monotonic()
        until_s = began_s + min(QUIET_S, self.left_s)
        quiet = False
        while not quiet and time.monotonic() < until_s:
            with observe(limits=self.limits) as observed:
                time.sleep(WINDOW_S)
            quiet = observed.verdict() is None
        self.left_s -= time.monotonic() - began_s
        return quiet

    def _tell(self, line: str) -> None:
        if self.say is not None:
            self.say(line)
