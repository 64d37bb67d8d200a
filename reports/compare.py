"""Two reports, claim by claim: what got better, what got worse, what cannot be told.

`python -m reports.compare OLD NEW` gives each (cell, claim) one verdict of a
closed set. A difference is called only when the intervals lie apart by more
than the margin; being the same is called only when they lie within it, all of
them; everything between is unclear. Measurements taken under other conditions
are incomparable, with the reason, and say nothing: not even that all is well.

The rules apply in this order, and the first that fits decides:

    conditions of the runs differ    incomparable   (CONDITIONS: which rows each one touches)
    NEW ended before it got there    incomparable   (a partial report: no loss, and no clean bill)
    evidence on one side only        gone, new
    definition, unit, limit differ   incomparable
    outcome crossed pass and fail    broke, fixed
    exact rows                       same, worse
    measured rows                    same, better, worse, unclear
"""

import argparse
import json
import math
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

from reports.html import render_page
from reports.matrix import OUTCOME_WORDS, aligned, number_text, observed_text
from reports.paired import margin_of
from reports.partial import Partial, partial
from reports.record import JsonObject, ReportError, Row, Run, read_report, write_atomically

Verdict = Literal[
    "broke", "worse", "gone", "incomparable", "unclear", "new", "fixed", "better", "same"
]
WORST_FIRST: tuple[Verdict, ...] = get_args(Verdict)
REGRESSIONS: tuple[Verdict, ...] = ("broke", "worse", "gone")
NOT_COMPARED: tuple[Verdict, ...] = ("incomparable", "new")
SYMBOLS: dict[Verdict, str] = {
    "broke": "✗",
    "worse": "▼",
    "gone": "∅",
    "incomparable": "≁",
    "unclear": "?",
    "new": "+",
    "fixed": "✓",
    "better": "▲",
    "same": "=",
}

TIMING = frozenset({"latency", "throughput"})
NUMERICS = frozenset({"numerics"})

# What must be equal in both headers, and for which claims; None: for every claim.
CONDITIONS: tuple[tuple[str, Callable[[JsonObject], object], frozenset[str] | None], ...] = (
    ("deployment", lambda h: h["deployment"], None),
    ("engine", lambda h: (h["engine"]["name"], h["engine"]["version"]), None),
    ("platform", lambda h: h["engine"]["platform"], None),
    ("corpus", lambda h: h.get("corpus_digest"), NUMERICS),
    ("CPU", lambda h: h["machine"].get("cpu"), TIMING),
    ("CPU cores", lambda h: h["machine"].get("cores"), TIMING),
    ("GPU", lambda h: _of_gpus(h, "name"), TIMING),
    ("GPU driver", lambda h: _of_gpus(h, "driver"), TIMING),
)

# Numerics sit near zero, where a fraction of the value is a fraction of noise. Their scale is
# the limit: a twentieth of it is a change nobody's deployment depends on.
NUMERICS_MARGIN_OF_LIMIT = 0.05

# An invalid measurement is no evidence, like one that was not taken.
EVIDENCE = ("passed", "refused_as_planned", "failed", "inconclusive")
WORST_OUTCOME_FIRST = tuple(OUTCOME_WORDS)


@dataclass(frozen=True, slots=True)
class Change:
    cell: str
    claim: str
    verdict: Verdict
    reason: str
    old: Row | None
    new: Row | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """All changes, worst first, and what a reader should know about the two runs."""

    changes: tuple[Change, ...]
    notes: tuple[str, ...]
    unreached: int = 0  # claims of OLD that a partial NEW never came to

    @property
    def counts(self) -> dict[Verdict, int]:
        found = Counter(change.verdict for change in self.changes)
        return {verdict: found[verdict] for verdict in WORST_FIRST if found[verdict]}

    @property
    def compared(self) -> int:
        """Claims with evidence on both sides, or lost evidence: what the verdict stands on."""
        return sum(n for verdict, n in self.counts.items() if verdict not in NOT_COMPARED)

    @property
    def regressions(self) -> int:
        return sum(self.counts.get(verdict, 0) for verdict in REGRESSIONS)

    @property
    def exit_code(self) -> int:
        """0 no regression, 1 regression, 2 nothing could be compared, or not all of it."""
        if self.regressions:
            return 1
        return 0 if self.compared and not self.unreached else 2

    @property
    def summary(self) -> str:
        told = ", ".join(f"{count} {verdict}" for verdict, count in self.counts.items())
        if not self.compared:
            return f"Not comparable: {told or 'neither report has a row'}."
        found = {0: "No regression", 1: "1 regression"}
        regressions = found.get(self.regressions, f"{self.regressions} regressions")
        claims = f"{self.compared} compared claim{'' if self.compared == 1 else 's'}"
        missing = f", and {self.unreached} not reached by a partial NEW" if self.unreached else ""
        return f"{regressions} in {claims}{missing}. All verdicts: {told}."


def compare(old: Run, new: Run) -> Comparison:
    """Every claim of either run, with its verdict."""
    differing = [
        (f"{what} {_shown(read(old.header))} → {_shown(read(new.header))}", families)
        for what, read, families in CONDITIONS
        if read(old.header) != read(new.header)
    ]
    old_rows, new_rows = _by_claim(old), _by_claim(new)
    so_far = partial(new)
    unreached = 0
    changes = []
    for key in dict.fromkeys((row.cell, row.claim) for row in (*old.rows, *new.rows)):
        before, after = old_rows.get(key), new_rows.get(key)
        family = key[1].split("/")[0]
        reasons = [text for text, families in differing if families is None or family in families]
        if not reasons and _unreached(before, after, so_far):
            unreached += 1
            reasons = ["NEW is partial, and ended before this claim had an answer"]
        verdict, reason = _verdict(before, after, reasons)
        changes.append(Change(*key, verdict, reason, before, after))
    changes.sort(key=lambda change: WORST_FIRST.index(change.verdict))
    return Comparison(tuple(changes), _notes(old, new), unreached)


def _unreached(old: Row | None, new: Row | None, so_far: Partial | None) -> bool:
    """Whether OLD's evidence has no counterpart only because NEW's run ended too early."""
    if old is None or old.outcome not in EVIDENCE or so_far is None:
        return False
    return (new is None or new.outcome == "not_run") and so_far.lacks(old.cell)


def _by_claim(run: Run) -> dict[tuple[str, str], Row]:
    """One row per claim. Where a run recorded several, its worst: a pass never hides a failure."""
    rows: dict[tuple[str, str], Row] = {}
    for row in sorted(run.rows, key=lambda row: WORST_OUTCOME_FIRST.index(row.outcome)):
        rows.setdefault((row.cell, row.claim), row)
    return rows


def _verdict(old: Row | None, new: Row | None, conditions: list[str]) -> tuple[Verdict, str]:
    had = old is not None and old.outcome in EVIDENCE
    has = new is not None and new.outcome in EVIDENCE
    if conditions:
        # What happened is still told; it only counts for nothing.
        return "incomparable", "; ".join([*conditions, *_crossing(old, new)])
    if not had and not has:
        return "same", "no evidence in either"
    if old is None or not had:
        return "new", "not in OLD" if old is None else f"was {_outcome(old)}: {old.reason}"
    if new is None or not has:
        return "gone", "not in NEW" if new is None else f"now {_outcome(new)}: {new.reason}"
    if mismatch := _mismatch(old, new):
        return "incomparable", "; ".join([mismatch, *_crossing(old, new)])
    if new.outcome == "failed" and old.outcome in ("passed", "refused_as_planned"):
        return "broke", new.reason or _outside(new)
    if old.outcome == "failed" and new.outcome in ("passed", "refused_as_planned"):
        return "fixed", f"had failed: {old.reason or _outside(old)}"
    if (old.outcome, new.outcome) == ("passed", "refused_as_planned"):
        return "worse", "worked, and is now planned not to"
    if (old.outcome, new.outcome) == ("refused_as_planned", "passed"):
        return "better", "was planned not to work, and works"
    return _measured(old, new)


def _crossing(old: Row | None, new: Row | None) -> list[str]:
    before, after = (_outcome(row) if row else "absent" for row in (old, new))
    return [f"{before} → {after}"] if before != after else []


def _outcome(row: Row) -> str:
    return OUTCOME_WORDS[row.outcome][1]


def _outside(row: Row) -> str:
    if row.value is None or row.limit is None:
        return "no reason recorded"
    return f"{observed_text(row)} against a limit of {number_text(row.limit)}"


def _mismatch(old: Row, new: Row) -> str | None:
    """How two rows of one claim measure different things. A row that died measured nothing."""
    both = old.value is not None and new.value is not None
    for name in ("definition", "unit", "better", "limit"):
        before, after = getattr(old, name), getattr(new, name)
        if before != after and (both or (before is not None and after is not None)):
            return f"{name} {_shown(before)} → {_shown(after)}"
    return None


def _measured(old: Row, new: Row) -> tuple[Verdict, str]:
    if old.value is None or new.value is None:
        if old.outcome == new.outcome and old.value == new.value:
            return "same", ""
        return "unclear", f"{_outcome(old)} → {_outcome(new)}, no number on one side"
    moved = f"{number_text(old.value)} → {number_text(new.value)}{_percent(old.value, new.value)}"
    if new.better == "exact":
        return ("same", "") if new.value == old.value else ("worse", f"exact, yet {moved}")
    if (old.value, old.low, old.high, old.n) == (new.value, new.low, new.high, new.n):
        return "same", "identical"
    if new.better is None:
        return "unclear", f"{moved}; the claim does not say which way is better"
    margin = _margin(new, old.value)
    rise = _bound(new.low, -math.inf) - _bound(old.high, math.inf)
    fall = _bound(old.low, -math.inf) - _bound(new.high, math.inf)
    if max(rise, fall) > margin:
        return ("better" if (rise > fall) == (new.better == "higher") else "worse"), moved
    # Not the two numbers but all that the intervals allow for has to lie within the margin.
    if max(-rise, -fall) <= margin:
        return "same", moved
    if None in (old.low, old.high, new.low, new.high):
        return "unclear", f"{moved}; too few measurements for an interval"
    within = f"the intervals neither lie apart by, nor fit within, {number_text(margin)}"
    return "unclear", f"{moved}; {within} {new.unit or ''}".rstrip()


def _bound(value: float | None, unbounded: float) -> float:
    return unbounded if value is None else value


def _margin(row: Row, old_value: float) -> float:
    """How far apart is still the same, in the row's unit."""
    if row.claim.split("/")[0] in NUMERICS:
        return NUMERICS_MARGIN_OF_LIMIT * abs(row.limit or 0)
    return (margin_of(row.claim) or 0.0) * abs(old_value)


def _percent(old: float, new: float) -> str:
    return f" ({100 * (new / old - 1):+.1f} %)" if old > 0 else ""


def _shown(value: object) -> str:
    if isinstance(value, float):
        return number_text(value)
    if isinstance(value, list | tuple):
        return " ".join(_shown(item) for item in value) or "none"
    return "none" if value is None else str(value)


def _of_gpus(header: JsonObject, field: str) -> list[object]:
    return [gpu.get(field) for gpu in header["machine"].get("gpus") or []]


def _notes(old: Run, new: Run) -> tuple[str, ...]:
    notes = [
        "; ".join([f"{name} is partial: {so_far.why}", *so_far.lines])
        for name, run in (("OLD", old), ("NEW", new))
        if (so_far := partial(run))
    ]
    before, after = (run.header["checkpoint"].get("digest") for run in (old, new))
    if before != after:
        notes.append(
            f"the checkpoint differs ({_shown(before)} → {_shown(after)}): any change below may "
            "come from it"
        )
    return tuple(notes)


def text_table(comparison: Comparison) -> list[str]:
    table = [["verdict", "cell", "claim", "old", "new", "reason"]]
    table += [
        [c.verdict, c.cell, c.claim, _value_text(c.old), _value_text(c.new), c.reason]
        for c in comparison.changes
    ]
    return aligned(table)


def _value_text(row: Row | None) -> str:
    if row is None:
        return "–"
    return observed_text(row) if row.value is not None else _outcome(row)


def to_json(comparison: Comparison, old: Path, new: Path) -> JsonObject:
    return {
        "schema": 1,
        "old": str(old),
        "new": str(new),
        "summary": comparison.summary,
        "exit_code": comparison.exit_code,
        "unreached": comparison.unreached,
        "counts": comparison.counts,
        "notes": list(comparison.notes),
        "changes": [asdict(change) for change in comparison.changes],
    }


def render(comparison: Comparison, old: Path, new: Path) -> str:
    """The comparison as one self-contained page."""
    tones = {0: "good", 1: "bad", 2: "open"}
    return render_page(
        "comparison.html.jinja",
        comparison=comparison,
        tone=tones[comparison.exit_code],
        old=str(old),
        new=str(new),
        symbols=SYMBOLS,
        regressions=REGRESSIONS,
        value_text=_value_text,
    )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m reports.compare",
        description="Compare two reports claim by claim.",
        epilog="example: python -m reports.compare reports/releases/0.3.json "
        "reports/latest/report.json    exit: 0 no regression (worse, broke, gone), "
        "1 regression, 2 nothing comparable, NEW partial, or bad input",
    )
    parser.add_argument("old", type=Path, metavar="OLD", help="the earlier report.json")
    parser.add_argument("new", type=Path, metavar="NEW", help="the later report.json")
    parser.add_argument("--html", type=Path, metavar="F", help="also write a page")
    parser.add_argument("--json", type=Path, metavar="F", help="also write the verdicts as JSON")
    arguments = parser.parse_args(argv)
    paths = arguments.old, arguments.new
    try:
        comparison = compare(read_report(arguments.old), read_report(arguments.new))
        if arguments.html:
            write_atomically(arguments.html, render(comparison, *paths))
        if arguments.json:
            document = json.dumps(to_json(comparison, *paths), indent=1, allow_nan=False)
            write_atomically(arguments.json, document + "\n")
    except ReportError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{error.filename}: cannot be written: {error.strerror}", file=sys.stderr)
        return 2
    print("\n".join(text_table(comparison)))
    print()
    for note in comparison.notes:
        print(f"Note: {note}.")
    print(comparison.summary)
    return comparison.exit_code


if __name__ == "__main__":
    raise SystemExit(main())
