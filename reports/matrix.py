"""The judgement of a run: one word for each cell, one sentence for all of them.

Each cell of variant × parallel size gets one of six words, judged from
its rows first and its record second: a failed row is never outvoted, and a cell
that behaves unlike the plan is FAILED even where no row says so. Whatever shows
a run (page, CI summary, terminal) shows this judgement and these spellings.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from reports.partial import partial
from reports.record import CellRecord, Outcome, Row, Run

Status = Literal["serves", "fails", "caught", "failed", "inconclusive", "not-run"]

WORDS: dict[Status, tuple[str, str]] = {
    "serves": ("✓", "serves"),
    "fails": ("⊘", "fails as planned"),
    "caught": ("≠", "wrong answers, caught as planned"),
    "failed": ("✗", "FAILED"),
    "inconclusive": ("?", "inconclusive"),
    "not-run": ("–", "not run"),
}
AS_PLANNED: tuple[Status, ...] = ("serves", "fails", "caught")

# In the order a reader needs them: what is wrong, what is unknown, what is well.
OUTCOME_WORDS: dict[Outcome, tuple[str, str]] = {
    "failed": ("✗", "failed"),
    "invalid": ("!", "invalid"),
    "inconclusive": ("?", "inconclusive"),
    "not_run": ("–", "not run"),
    "passed": ("✓", "passed"),
    "refused_as_planned": ("⊘", "refused as planned"),
}

STAGE_WORDS: dict[str | None, str] = {
    "config": "refused at config",
    "load": "refused at load",
    "warmup": "dies at warm-up",
    "first_request": "dies at the first request",
    "silent": "serves, and answers wrongly",
    None: "serves",
}

LIMIT_SIGNS = {"lower": "≤ ", "higher": "≥ ", "exact": "= ", None: ""}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One cell as judged, ready to be shown."""

    name: str
    variant: str
    tp: int | None
    pp: int
    status: Status
    how: str
    reason: str
    planned: str
    planned_reason: str
    record: CellRecord | None
    rows: tuple[Row, ...]

    @property
    def symbol(self) -> str:
        return WORDS[self.status][0]

    @property
    def word(self) -> str:
        return WORDS[self.status][1]

    @property
    def marks(self) -> list[str]:
        """What selects it from the matrix; empty where nothing is known but a name."""
        if self.tp is None:
            return []
        tp = [] if self.tp == 1 < self.pp else [f"tp{self.tp}"]
        return [self.variant, *tp, *([f"pp{self.pp}"] if self.pp > 1 else [])]

    @property
    def anchor(self) -> str:
        return "cell-" + re.sub(r"[^A-Za-z0-9_.-]", "-", self.name)

    @property
    def failed_rows(self) -> list[Row]:
        return [row for row in self.rows if row.outcome == "failed"]


def judged_cells(run: Run) -> list[Cell]:
    """Every cell the plan, a record or a row names, in the plan's order."""
    plan = {str(entry["cell"]): entry for entry in run.header["plan"]}
    records = {record.cell: record for record in run.cells}
    rows: dict[str, list[Row]] = {}
    for row in run.rows:
        rows.setdefault(row.cell, []).append(row)
    return [
        _judged(name, plan.get(name), records.get(name), rows.get(name, []))
        for name in dict.fromkeys([*plan, *records, *rows])
    ]


def _judged(
    name: str, entry: Mapping[str, Any] | None, record: CellRecord | None, rows: list[Row]
) -> Cell:
    order = list(OUTCOME_WORDS)
    variant, tp, pp, planned = _identity(name, entry, record)
    told = (record and record.planned_reason) or (entry and entry.get("message")) or ""
    planned_reason = _beyond_the_words(told, variant)
    status, how, reason = _judge(planned, record, rows)
    return Cell(
        name=name,
        variant=variant,
        tp=tp,
        pp=pp,
        status=status,
        how=how,
        reason=reason or (planned_reason if status in ("fails", "caught") else ""),
        planned=STAGE_WORDS[planned],
        planned_reason=planned_reason,
        record=record,
        rows=tuple(sorted(rows, key=lambda row: order.index(row.outcome))),
    )


def _beyond_the_words(reason: str, variant: str) -> str:
    """The plan's reason without "padded at tp=4 is refused at load: ", which is said already."""
    where = rf"^{re.escape(variant)}(?: serves)? at [tp]p=\d+(?:, pp=\d+)?"
    return re.sub(rf"{where}(?:\.?$| [^:]*: )", "", reason)


def _identity(
    name: str, entry: Mapping[str, Any] | None, record: CellRecord | None
) -> tuple[str, int | None, int, str | None]:
    """Variant, tp, pp, and what was planned."""
    if record is not None:
        return record.variant, record.tp, record.pp, record.planned
    if entry is not None:
        return entry["variant"], entry["tp"], entry.get("pp", 1), entry["failure_class"]
    # Rows of a cell that nothing planned and nothing recorded: its name is all there is.
    match = re.fullmatch(r"(.+?)(?:-tp(\d+))?(?:-pp(\d+))?", name)
    if match is None or match[1] == name:
        return name, None, 1, None
    return match[1], int(match[2] or 1), int(match[3] or 1), None


def _judge(
    planned: str | None, record: CellRecord | None, rows: list[Row]
) -> tuple[Status, str, str]:
    """Status, how it came about, and the short reason. First rule that applies."""
    by_outcome: dict[str, list[Row]] = {}
    for row in rows:
        by_outcome.setdefault(row.outcome, []).append(row)
    as_planned = "refused_as_planned" in by_outcome
    if failed := by_outcome.get("failed"):
        return "failed", "", _headline(failed)
    if unsure := by_outcome.get("invalid", []) + by_outcome.get("inconclusive", []):
        return "inconclusive", "", _headline(unsure)
    if record is not None:
        observed: str | None = record.observed
    else:  # Nothing says that it was served; a refusal as planned needs no server.
        observed = planned if as_planned else "not_run"
    if observed == "not_run":
        return "not-run", "", _why_not_run(record, by_outcome)
    if planned is None and observed is None:
        if "passed" not in by_outcome:
            return "inconclusive", "", "it serves, but no claim about it was checked"
        return "serves", "", _tally(by_outcome)
    if planned == observed == "silent":
        if any(row.claim.endswith("/caught") for row in by_outcome.get("passed", [])):
            return "caught", "", ""
        return "fails", "loses rows; no claim about its answers ran", ""
    if planned == "silent" and observed is None:
        return "inconclusive", "", "planned to answer wrongly; no claim that ran could catch it"
    if planned == observed or (planned and observed not in (None, "silent") and as_planned):
        return "fails", STAGE_WORDS[observed], ""
    told = f": {record.reason}" if record and record.reason else ""
    return "failed", "", f"planned: {STAGE_WORDS[planned]}; observed: {STAGE_WORDS[observed]}{told}"


def _why_not_run(record: CellRecord | None, by_outcome: Mapping[str, list[Row]]) -> str:
    if "passed" in by_outcome:
        return f"no server was started; of its files, {_tally(by_outcome)}"
    known = [row.reason for row in by_outcome.get("not_run", []) if row.reason]
    if record is not None and record.reason:
        known.insert(0, record.reason)
    return known[0] if known else "nothing ran, and no reason was recorded"


def _headline(rows: Sequence[Row]) -> str:
    first = rows[0]
    more = f" (and {len(rows) - 1} more)" if len(rows) > 1 else ""
    if first.value is None or first.limit is None:
        return f"{first.claim}: {first.reason or first.outcome}{more}"
    return f"{first.claim}: {observed_text(first)}, limit {limit_text(first)}{more}"


def _tally(by_outcome: Mapping[str, list[Row]]) -> str:
    passed, not_run = len(by_outcome["passed"]), len(by_outcome.get("not_run", []))
    text = f"{passed} claim{'s' if passed > 1 else ''} passed"
    return f"{text}, {not_run} not run" if not_run else text


# What must be told apart or rejected, whatever else the run says.
BLIND: Final = ("/told_apart", "/caught")


def blind_claims(run: Run) -> list[str]:
    """Controls that came out wrong: with one of them, no green row of the run says anything."""
    return [
        f"{row.cell} {row.claim}"
        for row in run.rows
        if (row.claim.startswith("faults/") and row.outcome == "invalid")
        or (row.claim.endswith(BLIND) and row.outcome not in ("passed", "not_run"))
    ]


def sentence(run: Run) -> str:
    """The verdict of the whole run, in one sentence."""
    cells = judged_cells(run)
    names = {status: [c.name for c in cells if c.status == status] for status in WORDS}
    well = sum(len(names[status]) for status in AS_PLANNED)
    ran = len(cells) - len(names["not-run"])
    if ran == 0:
        passed = sum(row.outcome == "passed" for row in run.rows)
        files = f", and {passed} claims about files alone passed" if passed else ""
        text = f"None of {len(cells)} cells was served{files}"
    else:
        cells_ran = "cell" if ran == well == 1 else "cells"
        of_those = " that ran" if ran < len(cells) else ""
        verb = "behaves" if ran == well == 1 else "behave"
        count = f"{well} of {ran}" if well < ran else "The 1" if ran == 1 else f"All {ran}"
        text = f"{count} {cells_ran}{of_those} {verb} as planned"
    failed = [cell for cell in cells if cell.status == "failed"]
    parts = [text, *(f"{cell.name} failed: {shorten(cell.reason, 120)}" for cell in failed[:3])]
    if len(failed) > 3:
        parts.append(f"{len(failed) - 3} more failed")
    if names["inconclusive"]:
        parts.append(f"inconclusive: {', '.join(names['inconclusive'])}")
    if names["not-run"] and ran:
        parts.append(f"{len(names['not-run'])} of {len(cells)} were not run")
    text = "; ".join(part.rstrip(".") for part in parts) + "."
    if blind := blind_claims(run):
        text = f"INVALID, this run cannot see what it must ({', '.join(blind[:3])}): {text}"
    if so_far := partial(run):
        counts = f" ({so_far.counts})" if so_far.counts else ""
        if run.footer is None:
            return f"Unfinished, the run crashed or is still running{counts}: {text}"
        if run.footer["interrupted"]:
            return f"Partial, the run was {so_far.why}{counts}: {text}"
        return f"Partial, the run stopped early{counts}: {text}"
    if run.footer and run.footer["exit_status"] != 0 and well == ran:
        text += f" Yet pytest ended with exit status {run.footer['exit_status']}: see its output."
    return text


def matrix(run: Run) -> tuple[list[str], list[tuple[str, list[Cell | None]]]]:
    """The columns (tp 1, tp 2, …, then pp 2, …) and the rows (variant, its cell per column)."""
    cells = {(cell.variant, (cell.pp, cell.tp)): cell for cell in judged_cells(run) if cell.tp}
    wanted = run.header["matrix"]
    found = sorted(size for _, size in cells)
    sizes = list(dict.fromkeys([*((1, tp) for tp in wanted["tps"]), *found]))
    variants = list(dict.fromkeys([*wanted["variants"], *(variant for variant, _ in cells)]))
    body = [(variant, [cells.get((variant, size)) for size in sizes]) for variant in variants]
    return [_column(pp, tp) for pp, tp in sizes], body


def _column(pp: int, tp: int) -> str:
    shown = [] if tp == 1 < pp else [f"tp {tp}"]
    return " · ".join([*shown, *([f"pp {pp}"] if pp > 1 else [])])


def text_matrix(run: Run) -> list[str]:
    """The matrix in words, for a terminal."""
    columns, body = matrix(run)
    table = [["", *columns]]
    table += [[v, *(f"{c.symbol} {c.word}" if c else "" for c in cells)] for v, cells in body]
    return aligned(table)


def aligned(table: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    return [
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in table
    ]


def number_text(value: float) -> str:
    """Whole numbers in full, others to four digits, small ones with exponent: 1,234 · 3.1e−04."""
    if value == int(value) and abs(value) < 1e15:
        text = f"{int(value):,}"
    elif abs(value) < 1e-3:
        mantissa, exponent = f"{value:.2e}".split("e")
        text = f"{mantissa.rstrip('0').rstrip('.')}e{exponent}"
    else:
        text = f"{value:.4g}" if abs(value) < 10_000 else f"{value:,.0f}"
    # The minus sign, not the hyphen: a browser breaks lines after a hyphen.
    return text.replace("-", "−")


def observed_text(row: Row) -> str:
    return "–" if row.value is None else _with_unit(number_text(row.value), row)


def interval_text(row: Row) -> str:
    if row.low is None and row.high is None:
        return "–"
    low = "−∞" if row.low is None else number_text(row.low)
    high = "∞" if row.high is None else number_text(row.high)
    return f"{low} … {high}"


def limit_text(row: Row) -> str:
    if row.limit is None:
        return "–"
    return _with_unit(LIMIT_SIGNS[row.better] + number_text(row.limit), row)


def detectable_text(row: Row) -> str:
    """From where on a difference would not have passed."""
    return "–" if row.detectable is None else _with_unit(f"≥ {number_text(row.detectable)}", row)


def _with_unit(number: str, row: Row) -> str:
    return number if row.unit in (None, "", "1") else f"{number} {row.unit}"


def first_sentence(text: str) -> str:
    return shorten(text.split(". ")[0].rstrip("."), 120)


def shorten(text: str, characters: int) -> str:
    flat_text = " ".join(text.split())
    if len(flat_text) <= characters:
        return flat_text
    return flat_text[: characters - 1].rsplit(" ", 1)[0].rstrip(" ,;:") + "…"
