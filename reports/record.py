"""What a run leaves behind: a header, cells, rows, and a footer.

A *row* is one claim about one cell of variant × tensor parallel size; a *cell
record* says how that cell's server behaved beside what was planned. While the
run lasts, both are appended to a journal, one JSON object per line, forced to
disk as they land. When it ends, a footer closes the journal, and every report
is rendered from the journal alone: no footer, no report.

A report never hides absence. A row without a value names its reason, NaN and
infinity are refused when a row is built and again when a file is read, and an
unbounded side of an interval is null. Readers ignore fields they do not know
and refuse a major version they do not know.

    ReportError
    ├── RowError          a row or cell record that would mislead
    ├── FormatError       a file is not the report or journal it is taken for
    ├── UnfinishedError   a run without a footer: it crashed, or is still running
    └── SampleError       no usable measurements, hence no number (raised by statistics)
"""

import difflib
import json
import math
import operator
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

SCHEMA_VERSION = "1.0"
SCHEMA_PATH = Path(__file__).with_name("schema") / "report-1.schema.json"
# Relative, and right from both folders reports live in: reports/latest and reports/releases.
SCHEMA_REFERENCE = "../schema/report-1.schema.json"

JsonObject: TypeAlias = dict[str, Any]
Outcome = Literal["passed", "failed", "inconclusive", "invalid", "not_run", "refused_as_planned"]
Better = Literal["lower", "higher", "exact"]
FailureClass = Literal["config", "load", "warmup", "first_request", "silent"]
Observed = Literal["config", "load", "warmup", "first_request", "silent", "not_run"]


class ReportError(Exception):
    """Base of everything `reports` raises on purpose; str() is the one message."""


class RowError(ReportError):
    """A row or cell record that would mislead its reader."""


class FormatError(ReportError):
    """A file is not the report or journal it is taken for."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = path
        self.problem = problem


class UnfinishedError(ReportError):
    """A run without a footer cannot become a report."""

    def __init__(self, run_id: str) -> None:
        super().__init__(
            f"run {run_id} has no footer: it crashed or is still running, so there is no report "
            "of it. Run it again, or look at what it did with `python -m reports.html run.jsonl`."
        )
        self.run_id = run_id


class SampleError(ReportError):
    """No usable measurements, hence no number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One claim about one cell. `low` or `high` None beside a value: unbounded on that side."""

    cell: str
    claim: str
    outcome: Outcome
    value: float | None = None
    unit: str | None = None
    n: int | None = None
    low: float | None = None
    high: float | None = None
    limit: float | None = None
    better: Better | None = None
    reason: str | None = None
    definition: str | None = None
    checkpoint: str | None = None

    def __post_init__(self) -> None:
        where = f"row {self.cell} {self.claim}"
        _require_name(where, "cell", self.cell)
        _require_name(where, "claim", self.claim)
        _require_member(where, "outcome", self.outcome, get_args(Outcome))
        if self.better is not None:
            _require_member(where, "better", self.better, get_args(Better))
        for name in ("value", "low", "high", "limit"):
            object.__setattr__(self, name, _finite(where, name, getattr(self, name)))
        if self.n is not None:
            object.__setattr__(self, "n", _count(where, self.n))
        if self.value is None and not self.reason:
            raise RowError(
                f"{where}: no value and no reason; observed outcome {self.outcome}. "
                "Give the number, or say in `reason` why there is none."
            )
        if self.value is not None and self.n == 0:
            raise RowError(f"{where}: value {self.value:g} from n = 0; an empty sample has none.")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise RowError(f"{where}: interval [{self.low:g}, {self.high:g}] is upside down.")

    def to_json(self) -> JsonObject:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Row":
        return cls(**_known_fields(cls, data, ("cell", "claim", "outcome")))


# What the `record` fixture is to a test: Row's fields by keyword, the row back.
RecordRow: TypeAlias = Callable[..., Row]


@dataclass(frozen=True, slots=True, kw_only=True)
class CellRecord:
    """How one cell behaved beside the plan. `planned` or `observed` None: it serves."""

    cell: str
    variant: str
    tp: int
    planned: FailureClass | None
    observed: Observed | None
    pp: int = 1
    planned_reason: str | None = None
    reason: str | None = None
    ready_after_s: float | None = None
    argv: tuple[str, ...] = ()
    log: str | None = None
    message: str | None = None

    def __post_init__(self) -> None:
        where = f"cell {self.cell}"
        _require_name(where, "cell", self.cell)
        _require_name(where, "variant", self.variant)
        if self.planned is not None:
            _require_member(where, "planned", self.planned, get_args(FailureClass))
        if self.observed is not None:
            _require_member(where, "observed", self.observed, get_args(Observed))
        if self.observed == "not_run" and not self.reason:
            raise RowError(f"{where}: not run, and no reason. Say in `reason` why.")
        ready_after_s = _finite(where, "ready_after_s", self.ready_after_s)
        object.__setattr__(self, "ready_after_s", ready_after_s)
        object.__setattr__(self, "argv", tuple(self.argv))

    def to_json(self) -> JsonObject:
        return asdict(self) | {"argv": list(self.argv)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "CellRecord":
        required = ("cell", "variant", "tp", "planned", "observed")
        return cls(**_known_fields(cls, data, required))


@dataclass(frozen=True, slots=True)
class Run:
    """One run as told by its journal or its report; one record per cell, the last to land."""

    header: JsonObject
    cells: tuple[CellRecord, ...]
    rows: tuple[Row, ...]
    footer: JsonObject | None


class Journal:
    """The run on disk while it lasts: each line is forced out before the next claim starts."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file = path.open("w", encoding="utf-8")

    def header(self, header: Mapping[str, Any]) -> None:
        self._append("header", header)

    def cell(self, record: CellRecord) -> None:
        self._append("cell", record.to_json())

    def row(self, row: Row) -> None:
        self._append("row", row.to_json())

    def footer(self, footer: Mapping[str, Any]) -> None:
        self._append("footer", footer)

    def close(self) -> None:
        self._file.close()

    def _append(self, kind: str, content: Mapping[str, Any]) -> None:
        line = _dump(self.path, {"kind": kind, **content})
        # What is checked is what a reader will get: tuples have become arrays by then.
        problem = _schema_problem(kind, json.loads(line))
        if problem:
            raise FormatError(self.path, f"refused a {kind} record: {problem}")
        self._file.write(line + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())


def replay(path: Path) -> Run:
    """The run a journal tells. A torn last line (the writer was killed) is left out."""
    lines = _read_bytes(path).split(b"\n")
    # A complete line ends in a newline, so what follows the last one is empty or torn.
    torn = lines.pop()
    entries = [_parse(path, line, f"line {number}") for number, line in enumerate(lines, 1)]
    if torn and (last := _parse_torn(torn)) is not None:
        entries.append(last)
    header: JsonObject | None = None
    footer: JsonObject | None = None
    cells: dict[str, CellRecord] = {}
    rows: list[Row] = []
    for number, entry in enumerate(entries, 1):
        kind = entry.pop("kind", None)
        problem = _schema_problem(kind, entry) if kind in _KINDS else None
        if (kind == "header") != (number == 1):
            problem = "a journal starts with its one header"
        elif footer is not None:
            problem = "follows the footer, which closes a journal"
        if problem:
            raise FormatError(path, f"line {number}: {problem}")
        try:
            match kind:
                case "header":
                    header = entry
                case "cell":
                    cells[entry["cell"]] = CellRecord.from_json(entry)
                case "row":
                    rows.append(Row.from_json(entry))
                case "footer":
                    footer = entry
        except RowError as error:
            raise FormatError(path, f"line {number}: {error}") from error
    if header is None:
        raise FormatError(path, "is empty; a journal starts with a header")
    return Run(header, tuple(cells.values()), tuple(rows), footer)


def write_report(run: Run, path: Path) -> None:
    """Write report.json, validated, in one rename. A run without a footer is refused."""
    if run.footer is None:
        raise UnfinishedError(str(run.header.get("run_id")))
    document: JsonObject = {
        "$schema": SCHEMA_REFERENCE,
        "schema_version": SCHEMA_VERSION,
        "header": run.header,
        "cells": [cell.to_json() for cell in run.cells],
        "rows": [row.to_json() for row in run.rows],
        "footer": run.footer,
    }
    problem = _schema_problem("report", document)
    if problem:
        raise FormatError(path, f"not written: {problem}")
    write_atomically(path, _dump(path, document, indent=1) + "\n")


def read_report(path: Path) -> Run:
    """Read report.json. Unknown fields are ignored, an unknown major version is refused."""
    document = _parse(path, _read_bytes(path), "document")
    version = str(document.get("schema_version", "missing"))
    major = SCHEMA_VERSION.split(".")[0]
    if version.split(".")[0] != major:
        raise FormatError(
            path,
            f"schema_version is {version}, and this reader knows major version {major}. "
            "Is it a report.json, and of this tool's version?",
        )
    problem = _schema_problem("report", document)
    if problem:
        raise FormatError(path, f"is no report of major version {major}: {problem}")
    try:
        cells = tuple(CellRecord.from_json(cell) for cell in document["cells"])
        rows = tuple(Row.from_json(row) for row in document["rows"])
    except RowError as error:
        raise FormatError(path, str(error)) from error
    return Run(document["header"], cells, rows, document["footer"])


def write_atomically(path: Path, text: str) -> None:
    """Readers see the old file or the whole new one, never a part of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        # backslashreplace: output of a foreign process may carry lone surrogates.
        with partial.open("w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


_KINDS = ("header", "cell", "row", "footer")


@cache
def _validator(part: str) -> Draft202012Validator:
    schema = json.loads(SCHEMA_PATH.read_text(encoding="utf-8"))
    if part != "report":
        schema = {"$ref": f"#/$defs/{part}", "$defs": schema["$defs"]}
    return Draft202012Validator(schema)


def _schema_problem(part: str, document: JsonObject) -> str | None:
    error = best_match(_validator(part).iter_errors(document))
    return None if error is None else f"{error.json_path}: {error.message[:300]}"


def _dump(path: Path, document: JsonObject, *, indent: int | None = None) -> str:
    try:
        return json.dumps(document, indent=indent, allow_nan=False)
    except (ValueError, TypeError) as error:
        raise FormatError(path, f"not JSON: {error}, in {str(document)[:200]}") from error


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise FormatError(path, f"cannot be read: {error.strerror}") from error


def _parse(path: Path, text: bytes, what: str) -> JsonObject:
    def refuse(constant: str) -> float:
        raise FormatError(path, f"{what} holds {constant}, which a report never does")

    try:
        document = json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise FormatError(path, f"{what} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise FormatError(path, f"{what} is a JSON {type(document).__name__}, expected an object")
    return document


def _parse_torn(text: bytes) -> JsonObject | None:
    try:
        document = json.loads(text)
    except ValueError:
        return None  # Torn inside: the one line a killed writer could not finish.
    return document if isinstance(document, dict) else None


def _known_fields(cls: type, data: Mapping[str, Any], required: Sequence[str]) -> JsonObject:
    missing = [name for name in required if name not in data]
    if missing:
        raise RowError(f"{cls.__name__} lacks {', '.join(missing)}; it has {', '.join(data)}.")
    names = {field.name for field in fields(cls)}
    return {name: value for name, value in data.items() if name in names}


def _require_name(where: str, name: str, value: object) -> None:
    if not isinstance(value, str) or not value.strip():
        raise RowError(f"{where}: {name} is {value!r}, expected a name.")


def _require_member(where: str, name: str, value: object, allowed: Sequence[str]) -> None:
    if value in allowed:
        return
    near = difflib.get_close_matches(str(value), allowed, 1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise RowError(f"{where}: {name} is {value!r}, expected one of {', '.join(allowed)}.{hint}")


def _finite(where: str, name: str, value: object) -> float | None:
    if value is None:
        return None
    # numpy's scalars count as numbers, a bool does not: True ms is a bug in the caller.
    if isinstance(value, bool) or not hasattr(value, "__float__"):
        raise RowError(f"{where}: {name} is {value!r}, expected a number or None.")
    number = float(value)
    if not math.isfinite(number):
        raise RowError(f"{where}: {name} is {number}. Use None and say why in `reason`.")
    return number


def _count(where: str, n: object) -> int:
    try:
        count = -1 if isinstance(n, bool) else operator.index(n)  # type: ignore[arg-type]
    except TypeError:
        count = -1
    if count < 0:
        raise RowError(f"{where}: n is {n!r}, expected a whole number of measurements.")
    return count
