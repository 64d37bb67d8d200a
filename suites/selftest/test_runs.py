"""The whole matrix as its users run it, against an honest stub: outcomes and rows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from suites.selftest.runs import (
    Inner,
    run_inner,
)

SERVES = None


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, cache: Path, deployments: Path) -> Inner:
    """The whole matrix on an honest server."""
    reports = tmp_path_factory.mktemp("whole")
    return run_inner(reports, cache, deployments=deployments)


def test_the_whole_matrix_is_green_and_finds_every_class(whole: Inner) -> None:
    assert whole.code == 0, whole.output
    assert whole.report is not None
    seen = {cell["cell"]: cell["observed"] for cell in whole.report["cells"]}
    assert seen == {
        "original-tp1": SERVES,
        "original-tp2": "first_request",
        "original-tp4": "silent",
        "original-tp8": "load",
        "original-pp2": SERVES,
        "trimmed-tp1": SERVES,
        "trimmed-tp2": SERVES,
        "trimmed-tp4": "silent",
        "trimmed-tp8": "first_request",
        "padded-tp1": SERVES,
        "padded-tp2": SERVES,
        "padded-tp4": SERVES,
        "padded-tp8": SERVES,
        "regrouped-tp1": SERVES,
        "regrouped-tp2": SERVES,
        "regrouped-tp4": SERVES,
        "regrouped-tp8": "load",
    }


def test_each_server_starts_exactly_once_and_the_baseline_first(whole: Inner) -> None:
    assert len(whole.starts) == len(set(whole.starts)) == 17
    assert whole.starts[0] == "original-tp1"


def test_a_silent_cell_passes_because_the_numerics_caught_it(whole: Inner) -> None:
    assert whole.row("original-tp4", "sharding/stage")["outcome"] == "refused_as_planned"
    caught = whole.row("original-tp4", "numerics/control/text/caught")
    assert caught["outcome"] == "passed"
    assert caught["low"] > caught["limit"]


def test_the_audit_names_tensor_rows_and_ranks_of_a_silent_cell(whole: Inner) -> None:
    reason = whole.row("original-tp4", "sharding/elements")["reason"]
    assert "down_proj.qzeros: rows 4 to 6 of 7 not held by any rank" in reason
    assert "rank 3: 3..3" in reason


def test_padding_and_regrouping_are_exact_and_trimming_is_told_apart(whole: Inner) -> None:
    for cell in ("padded-tp1", "regrouped-tp1"):
        row = whole.row(cell, "numerics/exact/text/max_abs_d")
        assert (row["value"], row["limit"], row["outcome"]) == (0.0, 0.0, "passed")
    told = whole.row("trimmed-tp1", "numerics/quality/text/told_apart")
    assert told["low"] > told["limit"]


def test_what_the_numerics_of_a_cell_took_stands_in_report_and_terminal(whole: Inner) -> None:
    row = whole.row("padded-tp2", "numerics/seconds/scoring")
    assert (row["outcome"], row["limit"], row["unit"]) == ("passed", None, "s")
    line = rf"padded-tp2 +seconds +{row['value']:.3g} s \(scoring {row['value']:.3g}\)"
    assert re.search(line, whole.output)


def test_stages_serve_what_ranks_cannot_share_and_move_nothing(whole: Inner) -> None:
    assert whole.row("original-pp2", "numerics/exact/text/max_abs_d")["value"] == 0.0
    elements = whole.row("original-pp2", "sharding/elements")
    assert (elements["outcome"], elements["value"]) == ("passed", 1.0)
    held = whole.rows("original-pp2", "sharding/weight_bytes_rank")
    assert [row["claim"][-1] for row in held] == ["0", "1"]


def test_the_engine_has_room_for_as_many_tokens_as_planned(whole: Inner) -> None:
    assert whole.report is not None
    rows = [row for row in whole.report["rows"] if row["claim"] == "sharding/capacity"]
    assert {row["outcome"] for row in rows if row["value"] is not None} == {"passed"}
    assert {row["value"] for row in rows} == {1.0, None}
    lacking = [row["cell"] for row in rows if row["value"] is None]
    assert lacking == ["original-tp8", "regrouped-tp8"]  # refused at load: they have no cache


def test_every_row_that_did_not_run_says_why(whole: Inner) -> None:
    assert whole.report is not None
    silent = [r for r in whole.report["rows"] if r["outcome"] == "not_run" and not r["reason"]]
    assert silent == []


def test_order_does_not_start_a_server_twice(
    tmp_path: Path, cache: Path, deployments: Path
) -> None:
    shuffler = tmp_path / "shuffler.py"
    shuffler.write_text(
        "import random\n\n"
        "def pytest_collection_modifyitems(items):\n    random.Random(3).shuffle(items)\n"
    )
    inner = run_inner(
        tmp_path / "reports",
        cache,
        *("-p", "shuffler", "-o", f"pythonpath=. {tmp_path}"),
        *("suites/test_throughput.py", "suites/test_sharding.py", "-m", "padded"),
        deployments=deployments,
    )
    assert inner.code == 0, inner.output
    assert sorted(inner.starts) == sorted({*inner.starts})
    assert len(inner.starts) == 5  # the baseline and four cells


def test_sizes_on_the_command_line_choose_the_cells(
    tmp_path: Path, cache: Path, deployments: Path
) -> None:
    inner = run_inner(
        tmp_path / "reports",
        cache,
        *("--tp=2", "--pp=1,2", "-m", "original and sharding"),
        deployments=deployments,
    )
    assert inner.code == 0, inner.output
    assert inner.starts == ["original-tp2", "original-tp2-pp2"]
    assert "          tp 2                tp 2 · pp 2" in inner.output
    staged = inner.row("original-tp2-pp2", "sharding/stage")
    assert (staged["outcome"], "group_size % 2 == 0" in staged["reason"]) == (
        "refused_as_planned",
        True,
    )


def test_a_stage_without_a_layer_fails_as_planned(
    tmp_path: Path, cache: Path, deployments: Path
) -> None:
    inner = run_inner(
        tmp_path / "reports",
        cache,
        *("--tp=1", "--pp=3", "-m", "sharding"),
        deployments=deployments,
    )
    assert inner.code == 0, inner.output
    assert inner.starts == ["original-pp3"]
    row = inner.row("original-pp3", "sharding/stage")
    assert (row["outcome"], "ZeroDivisionError" in row["reason"]) == ("refused_as_planned", True)
    assert inner.row("original-pp3", "sharding/capacity")["outcome"] == "not_run"


def test_narrowing_runs_only_what_was_asked(tmp_path: Path, cache: Path, deployments: Path) -> None:
    inner = run_inner(
        tmp_path / "reports",
        cache,
        *("-m", "tp8 and trimmed and sharding"),
        deployments=deployments,
    )
    assert inner.code == 0, inner.output
    assert inner.starts == ["trimmed-tp8"]
    assert inner.report is not None
    others = [c for c in inner.report["cells"] if c["cell"] != "trimmed-tp8"]
    assert {cell["observed"] for cell in others} == {"not_run"}
