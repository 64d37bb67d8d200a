"""Our figures beside those that vLLM's own benchmark prints of the same requests.

    python -m suites.benchmarks.side_by_side
    python -m suites.benchmarks.side_by_side --url http://HOST:PORT --served-model-name NAME \\
        --model DIR

Without a server it starts the one with the known clock, which can also be made to fail; with one
it asks that, whose tokenizer is DIR's. vLLM has to be installed beside this Python.

Both read the same raw arrays: where definitions agree, so do all printed digits.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fixtures.load.bench import Bench, installed
from fixtures.load.bench_results import Benchmarked
from fixtures.load.instrument import Arrivals
from fixtures.load.prompts import Prompt
from fixtures.load.streams import Load, Stream, failures_by_kind
from fixtures.serving.server import Server
from suites.benchmarks.instruments import DEADLINE_S, serving, write_tokenizer
from suites.selftest.clocked import clock

TOKENS: Final = 32
REQUESTS: Final = 48
UNEXPLAINED: Final = "DIFFERENT, and should not be"


@dataclass(frozen=True, slots=True)
class Row:
    """One figure: ours, vLLM's own name for it, and why they may differ."""

    what: str
    ours: Callable[[Load], float | None]
    theirs: str
    why: str | None = None

    def reason(self, found: Benchmarked) -> str:
        """Why it differs: misses are in all of vLLM's figures, and in none of ours."""
        more = found.figures["completed"] - len(found.load.answered)
        if more:
            return f"vLLM's is of {more:.0f} requests more, which are misses by ours"
        return self.why or UNEXPLAINED


def _median_ms(take: Callable[[Stream], float | None]) -> Callable[[Load], float | None]:
    def median(load: Load) -> float | None:
        found = [value for one in load.answered if (value := take(one)) is not None]
        return 1e3 * statistics.median(found) if found else None

    return median


def _gaps_ms(load: Load) -> float | None:
    found = [gap for one in load.answered for gap in one.gaps_s]
    return 1e3 * statistics.median(found) if found else None


def _answered_tokens(load: Load) -> float:
    return sum(one.completion_tokens or 0 for one in load.answered)


BRACKET: Final = "vLLM's lasts from before the first arrival until all is put away"
ROWS: Final = (
    Row("requests answered", lambda load: len(load.answered), "completed"),
    Row("output tokens", _answered_tokens, "total_output_tokens"),
    Row("TTFT, median (ms)", _median_ms(lambda one: one.ttft_s), "median_ttft_ms"),
    Row("TPOT, median (ms)", _median_ms(lambda one: one.tpot_s), "median_tpot_ms"),
    Row("gap between messages, median (ms)", _gaps_ms, "median_itl_ms"),
    Row(
        "end to end, median (ms)",
        _median_ms(lambda one: one.e2e_s),
        "median_e2el_ms",
        "ours begins when a request was due, vLLM's when it was sent",
    ),
    Row("duration (s)", lambda load: load.wall_s, "duration", BRACKET),
    Row("requests per s", lambda load: load.requests_per_s, "request_throughput", BRACKET),
    Row("output tokens per s", lambda load: load.output_tokens_per_s, "output_throughput", BRACKET),
)


@dataclass(frozen=True, slots=True)
class Case:
    """A load, and what the known clock is told for it."""

    name: str
    arrivals: Arrivals
    options: tuple[str, ...] = ()


CASES: Final = (
    Case("closed loop of 8", Arrivals(clients=8)),
    Case("arrivals at 20 a second", Arrivals(per_s=20.0)),
)
FAULTY: Final = Case(
    "closed loop of 8, every 6th answer short, every 8th without usage",
    Arrivals(clients=8),
    ("--fault=short=6", "--fault=no-usage=8"),
)
PACE: Final = ("--first-s=0.1", "--gap-s=0.02", "--jitter=0.1", "--seed=1")


def table(found: Benchmarked) -> list[str]:
    """Markdown. What vLLM prints with two digits is compared as it is printed."""
    lines = ["| figure | ours | vLLM's | |", "|---|---|---|---|"]
    for row in ROWS:
        ours, theirs = row.ours(found.load), found.figures[row.theirs]
        told = "none" if ours is None else f"{ours:.2f}"
        same = told == f"{theirs:.2f}"
        reason = "the same" if same else row.reason(found)
        lines.append(f"| {row.what} | {told} | {theirs:.2f} | {reason} |")
    if found.load.failures:
        kinds = failures_by_kind(found.load.streams).items()
        said = ", ".join(f"{count} {kind}" for kind, count in kinds)
        lines += ["", f"Misses by ours: {said}; failures by vLLM's: {found.figures['failed']:.0f}."]
    return lines


@contextmanager
def served(case: Case, given: Server | None) -> Iterator[Server]:
    if given is not None:
        yield given
        return
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        with clock(directory, *PACE, *case.options) as (server, _):
            write_tokenizer(directory / "model")
            yield server


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m suites.benchmarks.side_by_side",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example: python -m suites.benchmarks.side_by_side --url http://127.0.0.1:8000 "
        "--served-model-name NAME --model DIR",
    )
    parser.add_argument("--url", help="of a server that runs already")
    parser.add_argument("--served-model-name", metavar="NAME")
    parser.add_argument("--model", type=Path, metavar="DIR", help="for its tokenizer")
    parser.add_argument("--requests", type=int, default=REQUESTS)
    parser.add_argument("--output-tokens", type=int, default=TOKENS)
    options = parser.parse_args(argv)
    asked = (options.url, options.served_model_name, options.model)
    if any(asked) and not all(asked):
        parser.error("--url, --served-model-name and --model go together")
    if not installed():
        parser.error("vLLM is not installed beside this Python: run it with that of `tox -e cpu`")
    given = serving(options.url, options.served_model_name, options.model) if any(asked) else None
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        bench = stack.enter_context(Bench(folder / "bench.log", folder / "blocks"))
        for case in CASES if given else (*CASES, FAULTY):
            print("\n".join(_said(bench, case, given, options.requests, options.output_tokens)))
    return 0


def _said(
    bench: Bench, case: Case, given: Server | None, requests: int, output_tokens: int
) -> list[str]:
    prompts = [Prompt(f"{case.name}: {index:04d}") for index in range(requests)]
    with served(case, given) as server:
        load = bench.run(
            server,
            prompts,
            arrivals=case.arrivals,
            output_tokens=output_tokens,
            deadline_s=DEADLINE_S,
        )
    said = [f"{case.name}, {requests} requests of {output_tokens} tokens:", ""]
    if bench.last is None:
        return [*said, f"lost: {load.streams[0].error}", ""]
    return [*said, *table(bench.last), ""]


if __name__ == "__main__":
    raise SystemExit(main())
