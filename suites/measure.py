"""How times are taken: which prompts, what warms the server up, and whether to believe the clock.

A *block* is one load on one server. Around it the caches are emptied, the server's own counters are
read, and the machine is watched; what of that contradicts the client's times is a *doubt*, and a
block with doubts is invalid, not slow. Prompts of the warm-up are not among the measured ones, and
no two blocks share a beginning. Requests that fail are kept: as misses. Raw samples are written as
they come, so that what was measured outlives whatever ends the run.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Final, TypeAlias

from PIL import Image

from fixtures.budgets import LatencyBudget, ThroughputBudget
from fixtures.errors import ServingError
from fixtures.load.instrument import Arrivals, Instrument
from fixtures.load.metrics import (
    Margins,
    Told,
    between,
    disagreements,
    read_metrics,
    reset_caches,
    settled,
)
from fixtures.load.probe import probe
from fixtures.load.probe_load import asked_of
from fixtures.load.prompts import Prompt
from fixtures.load.streams import Load, Stream
from fixtures.serving.conditions import Limits
from fixtures.serving.observing import observe
from fixtures.serving.server import Server
from reports.record import write_atomically
from suites.corpus import Document
from suites.pace import Pace, Say

SHORT: Final = 400  # characters of a document that makes a prompt
WARMUPS: Final = 2
REQUEST_S: Final = 300.0

Ask: TypeAlias = Callable[[Prompt], Stream]
Rounds: TypeAlias = Callable[[Ask, Sequence[Prompt]], list[Stream]]
Blocks: TypeAlias = dict[str, "Block"]


@dataclass(frozen=True, slots=True)
class Block:
    """What came of one load; with a `doubt`, its times are not to be believed."""

    load: Load
    instrument: str
    told: Told | None = None  # by the server itself; `untold` says why not
    untold: str | None = None
    disagreements: tuple[str, ...] = ()  # between the two
    disturbed: str | None = None  # by what else the machine did
    notes: tuple[str, ...] = ()  # such as: which caches could not be emptied

    @property
    def doubt(self) -> str | None:
        """All doubts in words."""
        return "; ".join(filter(None, (*self.disagreements, self.disturbed))) or None


def one_by_one(ask: Ask, measured: Sequence[Prompt]) -> list[Stream]:
    """Ask each prompt in turn."""
    return [ask(prompt) for prompt in measured]


@dataclass(frozen=True, slots=True)
class Gauge:
    """Takes blocks on whatever server it is given. `raw` is the folder for samples."""

    instrument: Instrument
    documents: tuple[Document, ...]
    raw: Path
    say: Say | None
    margins: Margins
    limits: Limits

    def latency(
        self, server: Server, budget: LatencyBudget, tag: str, rounds: Rounds = one_by_one
    ) -> Iterator[tuple[str, Block]]:
        """One request at a time, streamed, block by block: `text`, then `image` where the model
        sees. `rounds` is who calls for the texts, so that pytest-benchmark can."""
        with probe(server) as one:

            def ask(prompt: Prompt) -> Stream:
                until_s = monotonic() + REQUEST_S
                return one.stream(
                    asked_of(prompt), max_tokens=budget.output_tokens, until_s=until_s
                )

            kinds = {"text": (budget.requests, False), "image": (budget.image_requests, True)}
            for kind, (count, pictures) in kinds.items():
                asked = prompts(self.documents, count + WARMUPS, f"{tag}-{kind[0]}", pictures)
                if not count or not asked:
                    continue
                one_by_one(ask, asked[:WARMUPS])
                how = rounds if kind == "text" else one_by_one
                send = partial(_in_turn, how, ask, asked[WARMUPS:])
                yield kind, self._block(server, f"{tag}-{kind}", "probe", send)

    def throughput(
        self, server: Server, budget: ThroughputBudget, tag: str
    ) -> Iterator[tuple[str, Block]]:
        """Block by block: closed loops, arrivals at a share of the best one's rate, pictures."""
        run = partial(self._loaded, server, budget, tag)
        rates = []
        for clients, count in sorted(budget.closed.items()):
            block = run(f"closed{clients}", count, Arrivals(clients=clients))
            rates.append(block.load.requests_per_s)
            yield f"closed{clients}", block
        capacity = max((rate for rate in rates if rate is not None), default=None)
        if budget.poisson_requests and capacity is not None:
            arrivals = Arrivals(per_s=budget.poisson_share * capacity)
            yield "poisson", run("poisson", budget.poisson_requests, arrivals)
        if budget.image_requests:
            arrivals = Arrivals(clients=budget.image_clients)
            name = f"image{budget.image_clients}"
            block = run(name, budget.image_requests, arrivals, pictures=True)
            if block.load.streams:
                yield name, block

    def _loaded(
        self,
        server: Server,
        budget: ThroughputBudget,
        tag: str,
        name: str,
        count: int,
        arrivals: Arrivals,
        *,
        pictures: bool = False,
    ) -> Block:
        """A block of load after one like it, of as many requests as are ever under way."""
        warm = min(count, arrivals.clients or WARMUPS)
        asked = prompts(self.documents, warm + count, f"{tag}-{name}", pictures)
        send = partial(
            self.instrument.run,
            server,
            arrivals=arrivals,
            output_tokens=budget.output_tokens,
            deadline_s=budget.deadline_s,
        )
        if not asked:
            return Block(Load((), 0.0), self.instrument.name)
        send(asked[:warm])
        pace = Pace(f"loading {server.model} ({name})", self.say)
        label = f"{tag}-{name}"
        measured = partial(send, asked[warm:], progress=pace, label=label)
        return self._block(server, label, self.instrument.name, measured)

    def _block(
        self, server: Server, label: str, instrument: str, send: Callable[[], Load]
    ) -> Block:
        full = tuple(f"not emptied: {refused}" for refused in reset_caches(server))
        with observe(limits=self.limits) as observed:
            load, told, untold = _counted(server, send)
        differ = () if told is None else tuple(disagreements(told, load, self.margins))
        block = Block(load, instrument, told, untold, differ, observed.verdict(), full)
        _write(self.raw / server.model / f"{label}.json", block, observed.to_json())
        return block


def best(blocks: Blocks) -> Block:
    """The closed loop with the highest output rate."""
    closed = [block for name, block in blocks.items() if name.startswith("closed")]
    return max(closed, key=lambda block: block.load.output_tokens_per_s or 0.0)


def _in_turn(how: Rounds, ask: Ask, asked: Sequence[Prompt]) -> Load:
    streams = how(ask, asked)
    return Load(tuple(streams), streams[-1].ended_s - streams[0].sent_s)


def _counted(server: Server, send: Callable[[], Load]) -> tuple[Load, Told | None, str | None]:
    """A load, and what the server's own counters say of it, or why they say nothing."""
    try:
        before = read_metrics(server)
    except ServingError as error:
        return send(), None, str(error)
    load = send()
    try:
        return load, between(before, settled(server, before, len(load.answered))), None
    except ServingError as error:
        return load, None, str(error)


def _write(path: Path, block: Block, machine: dict[str, object]) -> None:
    write_atomically(path, json.dumps({**asdict(block), "machine": machine}) + "\n")


def prompts(
    documents: Sequence[Document], count: int, tag: str, pictures: bool = False
) -> list[Prompt]:
    """`count` prompts, no two blocks sharing a beginning, nor two prompts a picture.

    One seen before would be answered from a cache. Tags of one length make prompts of one length.
    Empty where no document fits: a model that cannot see is asked about no pictures.
    """
    fit = [one for one in documents if (one.image is not None) is pictures]
    # Short ones, so that prompts are alike; the beginnings of long ones where there are no others.
    fit = [one for one in fit if len(one.text) < SHORT] or fit
    if not fit:
        return []
    chosen = ((index, fit[index % len(fit)]) for index in range(count))
    return [
        Prompt(
            f"{tag}{index:04d} {one.text[:SHORT]}", one.image and marked(one.image, f"{tag}{index}")
        )
        for index, one in chosen
    ]


def marked(png: bytes, mark: str) -> bytes:
    """The picture with a corner that no other mark gives: caches go by its pixels."""
    with Image.open(io.BytesIO(png)) as opened:
        picture = opened.convert("RGB")
    said = hashlib.blake2b(mark.encode(), digest_size=12).digest()
    for place, pixel in enumerate(zip(said[::3], said[1::3], said[2::3], strict=True)):
        picture.putpixel((place % picture.width, picture.height - 1), pixel)
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()
