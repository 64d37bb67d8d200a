"""What sends the load, as `clients` compares it: a line in INSTRUMENTS for each."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from fixtures.load.probe import closed_loop
from fixtures.load.streams import Load
from fixtures.serving.server import Server

DEADLINE_S: Final = 120.0


class Instrument(Protocol):
    """Whatever keeps `concurrency` streams under way until each prompt was sent once."""

    @property
    def name(self) -> str: ...

    def run(
        self, url: str, model: str, prompts: Sequence[str], concurrency: int, output_tokens: int
    ) -> Load: ...


@dataclass(frozen=True, slots=True)
class Probe:
    """Ours: the openai client, a thread for each stream."""

    name: str = "probe"

    def run(
        self, url: str, model: str, prompts: Sequence[str], concurrency: int, output_tokens: int
    ) -> Load:
        server = Server(
            url=url,
            model=model,
            log=Path(os.devnull),
            ready_after_s=0.0,
            pid=os.getpid(),
            argv=(),
            started_ticks=0,
        )
        return closed_loop(
            server,
            prompts,
            concurrency=concurrency,
            max_tokens=output_tokens,
            deadline_s=DEADLINE_S,
        )


INSTRUMENTS: Final[tuple[Instrument, ...]] = (Probe(),)
