"""What the stub server is asked to be: vLLM's flags that matter to it, and how it misbehaves."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

WRONG_NAT = 0.3
LONGEST, SHORT = 4096, 256

BEHAVIOURS = {
    "honest": "answers as its checkpoint deserves",
    "refuse-config": "exits before the engine core starts",
    "refuse-load": "exits while loading",
    "hang-at-start": "falls silent while loading",
    "deaf-at-start": "falls silent while loading, ignores SIGTERM, has made semaphores",
    "no-audit": "serves, and its ranks record nothing of what they loaded",
    "lost-rows": "serves, though its last rank lacks a row of a layer's scales",
    "honest-though-silent": "answers unperturbed where its checkpoint's rows are lost",
    "exit-at-warmup": "exits after loading",
    "die-at-first-request": "reports health, answers the first request with 500 and exits",
    "small-cache": "says that its cache has room for half of what its memory holds",
    "no-capacity": "does not say for how much its cache has room",
    "nan": "answers null where a log-probability should be",
    "nan-later": "answers 400 to a scored prompt, as vLLM does whose answer holds a NaN",
    "no-path": "writes its own tokens where it is told which",
    "repeat": "generates one token again and again",
    "wrong": f"log-probabilities are off by {WRONG_NAT} nat",
    "short-context": f"has room for {SHORT} tokens, and answers 400 to a longer prompt",
    "slow": "adds a delay to every token",
    "wrong-name": "serves under another model id",
    "die-mid-run": "exits in the middle of a later request",
    "ignore-term": "has children in sessions of their own that ignore SIGTERM",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    model: Path
    host: str
    port: int
    name: str
    tp: int
    pp: int
    eager: bool
    longest: int
    behaviours: frozenset[str]
    first_token_s: float
    token_s: float
    slow_token_s: float
    die_after: int


def read_options(argv: Sequence[str] | None) -> Options:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--served-model-name", required=True)
    parser.add_argument("--tensor-parallel-size", "-tp", type=int, default=1)
    parser.add_argument("--pipeline-parallel-size", "-pp", type=int, default=1)
    parser.add_argument("--enforce-eager", action=argparse.BooleanOptionalAction, default=False)
    parser.add_argument("--max-model-len", type=int, default=1024)
    parser.add_argument(
        "--stub-behaviour",
        action="append",
        default=[],
        metavar="CELL=NAME",
        help="; ".join(f"{name}: {what}" for name, what in BEHAVIOURS.items()),
    )
    parser.add_argument("--stub-first-token-s", type=float, default=0.0)
    parser.add_argument("--stub-token-s", type=float, default=0.0)
    parser.add_argument("--stub-slow-token-s", type=float, default=0.02)
    parser.add_argument("--stub-die-after", type=int, default=3, help="requests, the canary's too")
    known, _ = parser.parse_known_args(argv)  # vLLM's other flags mean nothing to a stub
    cell = known.served_model_name.rpartition("-")[0]
    asked = [entry.partition("=")[::2] for entry in known.stub_behaviour]
    for _, behaviour in asked:
        if behaviour not in BEHAVIOURS:
            parser.error(f"unknown behaviour {behaviour!r}; there are: {', '.join(BEHAVIOURS)}")
    own = frozenset(behaviour for name, behaviour in asked if name == cell)
    return Options(
        model=known.model,
        host=known.host,
        port=known.port,
        name=known.served_model_name,
        tp=known.tensor_parallel_size,
        pp=known.pipeline_parallel_size,
        eager=known.enforce_eager,
        longest=known.max_model_len,
        behaviours=own or frozenset(behaviour for name, behaviour in asked if name == "*"),
        first_token_s=known.stub_first_token_s,
        token_s=known.stub_token_s,
        slow_token_s=known.stub_slow_token_s,
        die_after=known.stub_die_after,
    )
