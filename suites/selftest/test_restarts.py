"""`--calibrate`: servers that agree are called so as often as they are started, or it fails."""

from __future__ import annotations

import json
from pathlib import Path

from suites.selftest.runs import run_inner, run_pytest

ASKED = ("--calibrate", "-m", "padded and tp1")


def test_each_restart_is_judged_by_the_cell_s_own_lane(
    tmp_path: Path, cache: Path, deployments: Path
) -> None:
    inner = run_inner(
        tmp_path, cache, *ASKED, "--restarts", "2",
        behaviours=["padded-tp1.restart2=wrong"], deployments=deployments,
    )  # fmt: skip
    assert inner.code == 1, inner.output
    assert inner.failed() == {("padded-tp1", "null/restart/rejected")}
    restarts = inner.row("padded-tp1", "null/restart/rejected")
    assert (restarts["value"], restarts["n"], restarts["limit"]) == (0.5, 2, 0.0)
    assert "1 of 2 called different, 0 inconclusive, by limits on max_abs_d" in restarts["reason"]
    for name in ("repeat", "concurrency", "batch_tokens"):
        row = inner.row("padded-tp1", f"null/{name}/rejected")
        assert (row["outcome"], row["value"], row["n"]) == ("passed", 0.0, 1)
    stored = json.loads((tmp_path / "calibration.json").read_text())
    assert stored["proposed"] is None
    assert "no cell on several ranks was measured" in stored["not_proposed"]
    assert stored["not_proposed"] in inner.output
    kept = [null for null in stored["nulls"] if null["name"] == "restart"]
    assert {(null["comparisons"], null["rejected"]) for null in kept} == {(2, 1)}


def test_a_count_of_restarts_is_a_count(cache: Path) -> None:
    for given in ("0", "-1", "many", "1001"):
        done = run_pytest(cache, f"--restarts={given}", "--collect-only")
        assert done.returncode == 4
        assert f"'{given}' is no count from 1 to 1000" in done.stderr
