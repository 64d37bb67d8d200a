"""Signals that end a run, so that it still has its report.

SIGTERM (a CI's timeout) and SIGHUP (a closed terminal) end a Python program where it stands: no
report, and its server is ended by nobody but its watchdog. While installed, the first of them
interrupts as Ctrl-C does; a second one ends the program at once. What is ignored stays ignored
(`nohup`).
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

ENDING = (signal.SIGTERM, signal.SIGHUP)


class Interruption:
    """Who ended the run: `signal_name` is None where that was Ctrl-C, or nobody."""

    def __init__(self) -> None:
        self.signal_name: str | None = None
        self._before: dict[signal.Signals, Any] = {}

    def install(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return  # only the main thread may, and only it is interrupted
        for number in ENDING:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._interrupt)

    def restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    @contextmanager
    def held(self) -> Iterator[None]:
        """None of the signals is heard meanwhile: an impatient second Ctrl-C, or the SIGTERM that
        a CI sends after it, would cost the report in the second it takes to write it."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGINT, *ENDING)
        before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _interrupt(self, number: int, frame: FrameType | None) -> NoReturn:
        del frame
        self.signal_name = signal.Signals(number).name
        self.restore()
        raise KeyboardInterrupt
