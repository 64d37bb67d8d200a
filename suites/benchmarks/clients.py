"""How exact the instruments are that take our times, against a server whose clock is known.

Two figures for each. Errors: a closed loop at 1, 8 and 32 streams, and how far TTFT and TPOT are
from what the server wrote down of its own sending (truth.py). Reach: more and more streams, until
the median error passes 5 % of the true value; the highest request rate before that is what the
instrument can be trusted with, however fast the server is. Streams are shaken apart by a seeded
jitter, so that they neither march in step nor differ from run to run.

    python -m suites.benchmarks.clients --json clients.json

vLLM's own benchmark takes part where vLLM is installed (`.tox/cpu/bin/python`). About a minute and
a half for an instrument (two for vLLM's), on a machine that does nothing else: what else runs is
measured, too.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

from fixtures.load.streams import Load, failures_by_kind
from fixtures.serving.machine import read_machine
from suites.benchmarks.instruments import INSTRUMENTS, Instrument
from suites.benchmarks.truth import Error, error, miscounted, paired, spread
from suites.selftest.clocked import clock, read_log

LIMIT: Final = 0.05  # of the true value
JUDGED: Final = ("ttft_s", "bare_s", "tpot_s")
SHOWN: Final = (*JUDGED, "late_s")
BUSY: Final = 0.5  # load per core beyond which a machine is not quiet


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """The server's clock, and how much is asked of it."""

    first_s: float
    gap_s: float
    output_tokens: int
    jitter: float = 0.1

    @property
    def request_s(self) -> float:
        return self.first_s + self.gap_s * (self.output_tokens - 1)

    def options(self) -> tuple[str, ...]:
        waits = (f"--first-s={self.first_s}", f"--gap-s={self.gap_s}")
        return (*waits, f"--jitter={self.jitter}", "--seed=1")


@dataclass(frozen=True, slots=True)
class Step:
    """One closed loop that is to be run."""

    kind: str
    pace: Pace
    concurrency: int
    requests: int

    @property
    def expected_s(self) -> float:
        return self.requests / self.concurrency * self.pace.request_s


# A large model's pace for the errors; a small and fast one's for the reach, so that it has an end.
ERRORS_AT: Final = Pace(first_s=0.1, gap_s=0.02, output_tokens=32)
REACH_AT: Final = Pace(first_s=0.05, gap_s=0.01, output_tokens=16)
ERRORS: Final = tuple(Step("errors", ERRORS_AT, *asked) for asked in ((1, 32), (8, 96), (32, 192)))
REACH: Final = tuple(
    Step("reach", REACH_AT, streams, max(32, 6 * streams))
    for streams in (1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one step."""

    step: Step
    load: Load
    errors: Sequence[Error]
    miscounted: int

    def share(self, name: str) -> float | None:
        """The median of the error as a share of the true value; None where nothing is known."""
        true = "true_tpot_s" if name == "tpot_s" else "true_ttft_s"
        pairs = [(getattr(one, name), getattr(one, true)) for one in self.errors]
        found = [abs(off) / real for off, real in pairs if off is not None and real]
        return median(found) if found else None

    def to_json(self) -> dict[str, Any]:
        return {
            "concurrency": self.step.concurrency,
            "requests": self.step.requests,
            "answered": len(self.load.answered),
            "failures": failures_by_kind(self.load.streams),
            "miscounted": self.miscounted,
            "requests_per_s": self.load.requests_per_s,
            "error_s": {name: spread(self.errors, name) for name in SHOWN},
            "median_share": {name: self.share(name) for name in JUDGED},
        }


def run(instrument: Instrument, step: Step) -> Outcome:
    """One loop against a server of its own; the first requests warm the instrument, unmeasured."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server, log = stack.enter_context(clock(directory, *step.pace.options()))
        few, tokens = max(2, step.concurrency), step.pace.output_tokens
        warm = [f"warm-up {index}" for index in range(few)]
        instrument.run(server.url, server.model, warm, step.concurrency, 2)
        prompts = [f"measured {index}" for index in range(step.requests)]
        load = instrument.run(server.url, server.model, prompts, step.concurrency, tokens)
        pairs = paired(load, prompts, read_log(log))
    return Outcome(step, load, [error(*pair) for pair in pairs], miscounted(pairs))


def sustained(outcomes: Sequence[Outcome], name: str) -> Mapping[str, float | bool] | None:
    """The highest rate before the first loop in which the error passes the limit, or fails.

    `passed` says whether there was such a loop: without one, the rate is a bound from below.
    None where the very first passes it.
    """
    best: float | None = None
    for outcome in outcomes:
        share, rate = outcome.share(name), outcome.load.requests_per_s
        if share is None or rate is None or share > LIMIT or outcome.load.failures:
            return None if best is None else {"requests_per_s": best, "passed": True}
        best = max(best or 0.0, rate)
    return None if best is None else {"requests_per_s": best, "passed": False}


def measure(instrument: Instrument) -> tuple[list[Outcome], list[Outcome]]:
    """(errors, reach) of one; steps of the reach after every error has passed are left out."""
    began_s, due_s = time.monotonic(), 0.0
    total_s = sum(step.expected_s for step in (*ERRORS, *REACH))
    errors: list[Outcome] = []
    reach: list[Outcome] = []
    for step in (*ERRORS, *REACH):
        pace = (time.monotonic() - began_s) / due_s if due_s else 1.0
        left = f"about {(total_s - due_s) * pace:.0f} s left at most"
        said = f"{instrument.name}: {step.kind}, {step.concurrency} streams"
        print(f"{said}, {step.requests} requests; {left}", file=sys.stderr, flush=True)
        outcome = run(instrument, step)
        (errors if step.kind == "errors" else reach).append(outcome)
        due_s += step.expected_s
        shares = [outcome.share(name) for name in JUDGED]
        if step.kind == "reach" and all(share is None or share > LIMIT for share in shares):
            break
    return errors, reach


def markdown(measured: Mapping[str, tuple[list[Outcome], list[Outcome]]]) -> list[str]:
    """Two tables: what they are off by, and how far they reach."""
    lines = [
        "| instrument | streams | requests | miscounted | TTFT error, median (max) "
        "| without its own time | TPOT error, median (max) | server late, median (max) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, (errors, _) in measured.items():
        for one in errors:
            found = [_off(spread(one.errors, key)) for key in SHOWN]
            counts = f"{one.step.concurrency} | {len(one.load.answered)} | {one.miscounted}"
            lines.append(f"| {name} | {counts} | {' | '.join(found)} |")
    lines += ["", f"| instrument | TTFT within {LIMIT:.0%} up to | without its own time | TPOT |"]
    lines.append("|---|---|---|---|")
    for name, (_, reach) in measured.items():
        rates = [_rate(reach, key) for key in JUDGED]
        lines.append(f"| {name} | {' | '.join(rates)} |")
    return lines


def _off(found: Mapping[str, float] | None) -> str:
    if found is None:
        return "not told"
    return f"{found['median'] * 1e3:.3f} ({found['max'] * 1e3:.3f}) ms"


def _rate(reach: Sequence[Outcome], name: str) -> str:
    found = sustained(reach, name)
    if found is None:
        told = any(outcome.share(name) is not None for outcome in reach)
        return "not at one stream" if told else "not told"
    return f"{'' if found['passed'] else 'at least '}{found['requests_per_s']:.0f} requests/s"


def caption() -> str:
    """What the numbers were measured on, and how busy that was before."""
    machine, load = read_machine(), os.getloadavg()[0]
    busy = "; BUSY: not to be quoted" if load > BUSY * machine.cores else ""
    pace = (
        f"errors at {ERRORS_AT.first_s * 1e3:g} ms to the first and {ERRORS_AT.gap_s * 1e3:g} ms "
        f"between {ERRORS_AT.output_tokens} tokens, reach at {REACH_AT.first_s * 1e3:g} ms, "
        f"{REACH_AT.gap_s * 1e3:g} ms and {REACH_AT.output_tokens}"
    )
    return f"{machine.cpu}, {machine.cores} cores, load {load:.1f}{busy}; {pace}."


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m suites.benchmarks.clients",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example: python -m suites.benchmarks.clients --instrument probe --json FILE",
    )
    parser.add_argument(
        "--instrument", action="append", choices=INSTRUMENTS, help="default: all that are installed"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="every figure, for a program")
    options = parser.parse_args(argv)
    words = caption()
    there = [name for name, (_, installed) in INSTRUMENTS.items() if installed()]
    for name in options.instrument or INSTRUMENTS:
        if name not in there:
            said = f"{name} is not installed beside this Python: run it with that of `tox -e cpu`"
            if options.instrument:
                parser.error(said)
            print(said, file=sys.stderr)
    measured = {}
    for name in (one for one in there if one in (options.instrument or there)):
        make, _ = INSTRUMENTS[name]
        with closing(make()) as instrument:
            measured[name] = measure(instrument)
    print("\n".join([*markdown(measured), "", words]))
    if options.json:
        found = {
            name: {
                "errors": [one.to_json() for one in errors],
                "reach": [one.to_json() for one in reach],
                "sustained": {key: sustained(reach, key) for key in JUDGED},
            }
            for name, (errors, reach) in measured.items()
        }
        document = {"schema": 1, "machine": read_machine().to_json(), "instruments": found}
        options.json.write_text(json.dumps(document, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
