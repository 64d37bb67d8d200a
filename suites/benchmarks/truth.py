"""How far an instrument's times are from those that the server wrote down itself.

Errors are the client's time minus the server's, in seconds, of answered requests. An instrument
on the same machine also carries what the system does in between, and the server's own delay in
reading a request: the errors are bounds from above of what the instrument itself adds.

    ttft_s   (first content - send) minus (first content sent - request read)
    tpot_s   (last - first content) / (tokens - 1), minus the same of the send times
    bare_s   ttft_s without the time that the instrument knows to be its own (client_s)
    late_s   the server's own lateness against its schedule, at worst; no error of the client
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from fixtures.load.streams import Load, Stream
from suites.selftest.clocked import Sent
from suites.selftest.stub_streams import PROMPT_SHOWN


@dataclass(frozen=True, slots=True, kw_only=True)
class Error:
    """Of one request; None where either side has no such time."""

    true_ttft_s: float
    true_tpot_s: float | None
    ttft_s: float | None
    tpot_s: float | None
    bare_s: float | None
    late_s: float


def paired(load: Load, prompts: Sequence[str], sent: Sequence[Sent]) -> list[tuple[Stream, Sent]]:
    """Answered requests, each with what the server says of it.

    Prompts must differ within the beginning that the server shows. A KeyError names one that the
    server has never seen.
    """
    by_prompt = {record.prompt: record for record in sent if record.complete}
    streams = zip(load.streams, prompts, strict=True)
    return [(one, by_prompt[text[:PROMPT_SHOWN]]) for one, text in streams if one.error is None]


def error(stream: Stream, sent: Sent) -> Error:
    """Of one answered request."""
    true_tpot_s = sent.tpot_s if sent.completion_tokens > 1 else None
    ttft_s = None if stream.ttft_s is None else stream.ttft_s - sent.ttft_s
    tpots = stream.tpot_s, true_tpot_s
    return Error(
        true_ttft_s=sent.ttft_s,
        true_tpot_s=true_tpot_s,
        ttft_s=ttft_s,
        tpot_s=None if tpots[0] is None or tpots[1] is None else tpots[0] - tpots[1],
        bare_s=None if ttft_s is None or stream.client_s is None else ttft_s - stream.client_s,
        late_s=sent.late_s,
    )


def miscounted(pairs: Sequence[tuple[Stream, Sent]]) -> int:
    """Requests whose tokens the instrument counts otherwise than the server that made them."""
    return sum(
        (stream.prompt_tokens, stream.completion_tokens)
        != (sent.prompt_tokens, sent.completion_tokens)
        for stream, sent in pairs
    )


def spread(errors: Sequence[Error], name: str) -> Mapping[str, float] | None:
    """Median and maximum of the error's size; None without a single one."""
    found = [abs(value) for one in errors if (value := getattr(one, name)) is not None]
    return {"median": median(found), "max": max(found), "n": len(found)} if found else None
