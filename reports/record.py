"""What a run leaves behind: a header, cells, rows, and a footer.

What lies between header and footer is built in `reports.rows`. While the run
lasts, each is appended to a journal, one JSON object per line, forced to disk
as it lands. When it ends, a footer closes the journal, and every report is
rendered from the journal alone: no footer, no report.

A report never hides absence. A row without a value names its reason, NaN and
infinity are refused when a row is built and again when a file is read, and an
unbounded side of an interval is null. Readers ignore fields they do not know
and refuse a major version they do not know.

    ReportError
    ├── RowError          a row, cell record or evidence that would mislead
    ├── FormatError       a file is not the report or journal it is taken for
    ├── UnfinishedError   a run without a footer: it crashed, or is still running
    ├── UndrawableError   evidence that no picture can show; its table is shown (raised by charts)
    └── SampleError       no usable measurements, hence no number (raised by statistics)
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from reports.rows import (
    CellRecord,
    Evidence,
    JsonObject,
    Outcome,
    RecordEvidence,
    RecordRow,
    ReportError,
    Row,
    RowError,
    UndrawableError,
)

__all__ = [
    "SCHEMA_PATH",
    "SCHEMA_VERSION",
    "CellRecord",
    "Evidence",
    "FormatError",
    "Journal",
    "JsonObject",
    "Outcome",
    "RecordEvidence",
    "RecordRow",
    "ReportError",
    "Row",
    "RowError",
    "Run",
    "SampleError",
    "UndrawableError",
    "UnfinishedError",
    "read_report",
    "replay",
    "write_atomically",
    "write_report",
]

# 1.1: a row's `detectable`, and evidence. 1.2: `selected` cells, and how far a partial run came.
SCHEMA_VERSION = "1.2"
SCHEMA_PATH = Path(__file__).with_name("schema") / "report-1.schema.json"
# Relative, and right from both folders reports live in: reports/latest and reports/releases.
SCHEMA_REFERENCE = "../schema/report-1.schema.json"


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


@dataclass(frozen=True, slots=True)
class Run:
    """One run as told by its journal or its report.

    One record per cell and one evidence per cell and name: the last to land.
    """

    header: JsonObject
    cells: tuple[CellRecord, ...]
    rows: tuple[Row, ...]
    footer: JsonObject | None
    evidence: tuple[Evidence, ...] = ()


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

    def evidence(self, evidence: Evidence) -> None:
        self._append("evidence", evidence.to_json())

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
    evidence: dict[tuple[str, str], Evidence] = {}
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
                case "evidence":
                    evidence[entry["cell"], entry["name"]] = Evidence.from_json(entry)
                case "footer":
                    footer = entry
        except RowError as error:
            raise FormatError(path, f"line {number}: {error}") from error
    if header is None:
        raise FormatError(path, "is empty; a journal starts with a header")
    return Run(header, tuple(cells.values()), tuple(rows), footer, tuple(evidence.values()))


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
    if run.evidence:
        document["evidence"] = [evidence.to_json() for evidence in run.evidence]
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
        evidence = tuple(Evidence.from_json(found) for found in document.get("evidence", ()))
    except RowError as error:
        raise FormatError(path, str(error)) from error
    return Run(document["header"], cells, rows, document["footer"], evidence)


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


_KINDS = ("header", "cell", "row", "evidence", "footer")


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
