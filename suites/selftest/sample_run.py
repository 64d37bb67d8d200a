"""Runs to make reports of: small, valid, and easy to spoil in one place."""

from collections.abc import Sequence
from typing import Any

from reports.record import CellRecord, Evidence, JsonObject, Row, Run

STAGES: dict[str, str | None] = {"original-tp1": None, "original-tp2": "load", "padded-tp2": None}


def a_header(**changes: Any) -> JsonObject:
    header: JsonObject = {
        "schema_version": "1.1",
        "run_id": "run-1",
        "started_at": "2026-01-02T03:04:05+00:00",
        "deployment": "miniature",
        "checkpoint": {"path": "/models/tiny", "digest": "abc"},
        "engine": {"name": "vllm", "version": "0.32.0", "platform": "cpu"},
        "machine": {"cpu": "Some CPU", "cores": 2, "gpus": []},
        "corpus_digest": "corpus-1",
        "matrix": {"variants": ["original", "padded"], "tps": [1, 2]},
        "plan": [
            {
                "cell": cell,
                "variant": cell.split("-")[0],
                "tp": int(cell[-1]),
                "serves": stage is None,
                "failure_class": stage,
                "message": "720 is not a multiple of 32" if stage else "every cut is whole",
            }
            for cell, stage in STAGES.items()
        ],
    }
    return header | changes


def a_footer(**changes: Any) -> JsonObject:
    footer: JsonObject = {
        "ended_at": "2026-01-02T03:14:05+00:00",
        "exit_status": 0,
        "interrupted": False,
        "counts": {},
    }
    return footer | changes


def a_row(**changes: Any) -> Row:
    fields: JsonObject = {
        "cell": "padded-tp2",
        "claim": "latency/ttft_p50",
        "outcome": "passed",
        "value": 40.0,
        "unit": "ms",
        "n": 90,
        "low": 39.0,
        "high": 41.0,
        "limit": 250.0,
        "better": "lower",
        "definition": "ttft-1",
    }
    return Row(**fields | changes)


def a_cell(name: str = "padded-tp2", **changes: Any) -> CellRecord:
    fields: JsonObject = {
        "cell": name,
        "variant": name.split("-")[0],
        "tp": int(name[-1]),
        "planned": None,
        "observed": None,
    }
    return CellRecord(**fields | changes)


def an_evidence(**changes: Any) -> Evidence:
    fields: JsonObject = {
        "cell": "padded-tp2",
        "name": "numerics/position",
        "columns": ("stratum", "position", "median", "p90", "max"),
        "rows": (("text", 0, 0.0, 1e-4, 2e-3), ("text", 64, None, 2e-4, 5e-3)),
        "definition": "|log q(x) - log p(x)| by position; nat; v1",
    }
    return Evidence(**fields | changes)


def a_run(
    rows: Sequence[Row] = (),
    cells: Sequence[CellRecord] = (),
    *,
    evidence: Sequence[Evidence] = (),
    header: JsonObject | None = None,
    footer: JsonObject | None = None,
) -> Run:
    return Run(
        header or a_header(), tuple(cells), tuple(rows), footer or a_footer(), tuple(evidence)
    )
