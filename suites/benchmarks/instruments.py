"""What sends the load, as `clients` compares it: a line in INSTRUMENTS for each."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Protocol

from fixtures.load import bench
from fixtures.load.instrument import Arrivals
from fixtures.load.probe import closed_loop
from fixtures.load.prompts import Prompt
from fixtures.load.streams import Load
from fixtures.serving.server import Server
from fixtures.tokenizer import tokenizer_files

DEADLINE_S: Final = 120.0


class Instrument(Protocol):
    """Whatever keeps `concurrency` streams under way until each prompt was sent once."""

    @property
    def name(self) -> str: ...

    def run(
        self, url: str, model: str, prompts: Sequence[str], concurrency: int, output_tokens: int
    ) -> Load: ...

    def close(self) -> None:
        """It is not used again."""


class Probe:
    """Ours: the openai client, a thread for each stream."""

    name: Final = "probe"

    def run(
        self, url: str, model: str, prompts: Sequence[str], concurrency: int, output_tokens: int
    ) -> Load:
        return closed_loop(
            serving(url, model),
            prompts,
            concurrency=concurrency,
            max_tokens=output_tokens,
            deadline_s=DEADLINE_S,
        )

    def close(self) -> None:
        pass


class VllmBench:
    """vLLM's own, in a process that is started once; it reads a tokenizer that is never asked."""

    name: Final = bench.Bench.name

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        folder = Path(self._folder.name)
        self._tokenizer = write_tokenizer(folder / "tokenizer")
        self._bench = bench.Bench(folder / "bench.log", folder / "blocks")

    def run(
        self, url: str, model: str, prompts: Sequence[str], concurrency: int, output_tokens: int
    ) -> Load:
        return self._bench.run(
            serving(url, model, self._tokenizer),
            [Prompt(text) for text in prompts],
            arrivals=Arrivals(clients=concurrency),
            output_tokens=output_tokens,
            deadline_s=DEADLINE_S,
        )

    def close(self) -> None:
        self._bench.close()
        self._folder.cleanup()


def serving(url: str, model: str, directory: Path | None = None) -> Server:
    """A server that is none of ours to end; `directory` has its tokenizer."""
    return Server(
        url=url,
        model=model,
        log=Path(os.devnull),
        ready_after_s=0.0,
        pid=os.getpid(),
        argv=() if directory is None else ("--model", str(directory)),
        started_ticks=0,
        ranks=1,
    )


def write_tokenizer(directory: Path) -> Path:
    """The miniature's, without a model."""
    directory.mkdir(parents=True, exist_ok=True)
    # Without a kind of model vLLM looks for one twice, two seconds apart, at every block.
    (directory / "config.json").write_text(json.dumps({"model_type": "llama"}))
    for name, text in tokenizer_files().items():
        (directory / name).write_text(text, encoding="utf-8")
    return directory


# What is made when it is asked for, and whether it can be.
INSTRUMENTS: Final[dict[str, tuple[Callable[[], Instrument], Callable[[], bool]]]] = {
    Probe.name: (Probe, lambda: True),
    VllmBench.name: (VllmBench, bench.installed),
}
