"""How times are taken: which prompts, what warms the server up, and whether to believe the clock.

A *block* is one load on one server. Around it the caches are emptied, the server's own counters are
read, and the machine is watched; what of that contradicts the client's times is a *doubt*, and a
block with doubts is invalid, not slow; one that the machine disturbed is measured again before that
(`suites/patience.py`). Prompts of the warm-up are not among the measured ones, and no two blocks
share a beginning. Requests that fail are kept: as misses. Raw samples are written as
they come, so that what was measured outlives whatever ends the run.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import count
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
    miscounts,
    read_metrics,
    reset_caches,
    settled,
)
from fixtures.load.probe import probe
from fixtures.load.probe_load import asked_of
from fixtures.load.prompts import Prompt
from fixtures.load.streams import Load
from fixtures.serving.observing import Observation, observe
from fixtures.serving.server import Server
from reports.record import write_atomically
from suites.corpus import Document
from suites.pace import Pace, Say
from suites.patience import Patience

SHORT: Final = 400  # characters of a document that makes a prompt
WARMUPS: Final = 2
REQUEST_S: Final = 300.0

Send: TypeAlias = Callable[[Sequence[Prompt]], Load]
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
    before: tuple[str, ...] = ()  # what disturbed earlier looks, which do not count
    notes: tuple[str, ...] = ()  # such as: which caches could not be emptied

    @property
    def doubt(self) -> str | None:
        """All doubts in words."""
        return "; ".join(filter(None, (*self.disagreements, self.disturbed))) or None

    @property
    def again(self) -> str | None:
        """That it was measured again, and why."""
        if not self.before:
            return None
        return (
            f"measured {len(self.before) + 1} times, since the machine disturbed it: "
            f"{self.before[-1]}"
        )


@dataclass(frozen=True, slots=True)
class Gauge:
    """Takes blocks on whatever server it is given. `raw` is the folder for samples."""

    instrument: Instrument
    documents: tuple[Document, ...]
    raw: Path
    say: Say | None
    margins: Margins
    patience: Patience

    def latency(
        self, server: Server, budget: LatencyBudget, tag: str
    ) -> Iterator[tuple[str, Block]]:
        """One request at a time, streamed, block by block: `text`, then `image` where the model
        sees."""
        with probe(server) as one:

            def send(asked: Sequence[Prompt]) -> Load:
                streams = tuple(
                    one.stream(
                        asked_of(prompt),
                        max_tokens=budget.output_tokens,
                        until_s=monotonic() + REQUEST_S,
                    )
                    for prompt in asked
                )
                return Load(streams, streams[-1].ended_s - streams[0].sent_s)

            kinds = {"text": (budget.requests, False), "image": (budget.image_requests, True)}
            for kind, (requests, pictures) in kinds.items():
                asking = Asking(self._fit(pictures), f"{tag}-{kind[0]}", WARMUPS, requests)
                if not requests or not asking.documents:
                    continue
                send(asking.warmup())
                yield kind, self._block(server, f"{tag}-{kind}", "probe", send, asking)

    def throughput(
        self, server: Server, budget: ThroughputBudget, tag: str
    ) -> Iterator[tuple[str, Block]]:
        """Block by block: closed loops, arrivals at a share of the best one's rate, pictures."""
        run = partial(self._loaded, server, budget, tag)
        rates = []
        for clients, requests in sorted(budget.closed.items()):
            block = run(f"closed{clients}", requests, Arrivals(clients=clients))
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
        requests: int,
        arrivals: Arrivals,
        *,
        pictures: bool = False,
    ) -> Block:
        """A block of load after one like it, of as many requests as are ever under way."""
        warm = min(requests, arrivals.clients or WARMUPS)
        asking = Asking(self._fit(pictures), f"{tag}-{name}", warm, requests)
        run = partial(
            self.instrument.run,
            server,
            arrivals=arrivals,
            output_tokens=budget.output_tokens,
            deadline_s=budget.deadline_s,
        )
        if not asking.documents:
            return Block(Load((), 0.0), self.instrument.name)
        run(asking.warmup())

        label = f"{tag}-{name}"

        def send(asked: Sequence[Prompt]) -> Load:
            pace = Pace(f"loading {server.model} ({name})", self.say)
            return run(asked, progress=pace, label=label)

        return self._block(server, label, self.instrument.name, send, asking)

    def _block(
        self, server: Server, label: str, instrument: str, send: Send, asking: Asking
    ) -> Block:
        """The first look that nobody disturbed. One with failed requests, or other counts than the
        server's, is the last: those are no noise, whatever the machine did."""
        path = self.raw / server.model / f"{label}.json"
        before: tuple[str, ...] = ()
        for look in count():
            began_s = monotonic()
            block, observed = self._look(server, instrument, partial(send, asking.measured(look)))
            block = replace(block, before=before)
            _write(path, block, observed.to_json())
            final = block.load.failures or (block.told and miscounts(block.told, block.load))
            if block.disturbed is None or final or not observed.may_pass():
                break
            took_s = monotonic() - began_s
            what = f"{server.model} ({label})"
            if not self.patience.again(what, block.disturbed, look + 1, took_s):
                break
            before = (*before, block.disturbed)
            path.rename(path.with_suffix(f".disturbed{len(before)}.json"))
        return block

    def _look(
        self, server: Server, instrument: str, send: Callable[[], Load]
    ) -> tuple[Block, Observation]:
        full = tuple(f"not emptied: {refused}" for refused in reset_caches(server))
        with observe(limits=self.patience.limits) as observed:
            load, told, untold = _counted(server, send)
        margins = self.margins.with_ranks(server.ranks, len(os.sched_getaffinity(0)))
        differ = () if told is None else tuple(disagreements(told, load, margins))
        disturbed = observed.verdict()
        block = Block(load, instrument, told, untold, differ, disturbed, notes=full)
        return block, observed

    def _fit(self, pictures: bool) -> tuple[Document, ...]:
        """What makes a prompt: short ones, so that prompts are alike; the beginnings of long ones
        where there are no others. A model that cannot see is asked about no pictures."""
        fit = [one for one in self.documents if (one.image is not None) is pictures]
        return tuple([one for one in fit if len(one.text) < SHORT] or fit)


@dataclass(frozen=True, slots=True)
class Asking:
    """Prompts of one block, no two blocks sharing a beginning, nor two prompts a picture: one seen
    before would be answered from a cache. Tags of one length make prompts of one length."""

    documents: tuple[Document, ...]
    tag: str
    warm: int
    requests: int

    def warmup(self) -> list[Prompt]:
        """What is asked first, and not measured."""
        return [self._prompt(place, place) for place in range(self.warm)]

    def measured(self, look: int) -> list[Prompt]:
        """Of the same documents at each look, and each prompt a new one."""
        places = range(self.warm, self.warm + self.requests)
        return [self._prompt(place, place + look * self.requests) for place in places]

    def _prompt(self, place: int, number: int) -> Prompt:
        one = self.documents[place % len(self.documents)]
        picture = one.image and marked(one.image, f"{self.tag}{number}")
        return Prompt(f"{self.tag}{number:04d} {one.text[:SHORT]}", picture)


def best(blocks: Blocks) -> Block:
    """The closed loop with the highest output rate."""
    closed = [block for name, block in blocks.items() if name.startswith("closed")]
    return max(closed, key=lambda block: block.load.output_tokens_per_s or 0.0)


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
