"""A run that cannot see what it must says so, whatever else is green in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from suites.selftest.runs import Inner, run_inner


@pytest.fixture(scope="module")
def blind(tmp_path_factory: pytest.TempPathFactory, cache: Path, deployments: Path) -> Inner:
    """Seeded faults before a stub that answers by a checkpoint's width alone."""
    reports = tmp_path_factory.mktemp("blind") / "reports"
    asked = ("--faults", "-m", "padded and tp1 and faults")
    return run_inner(reports, cache, *asked, deployments=deployments)


def test_a_missed_fault_makes_the_run_invalid(blind: Inner) -> None:
    assert blind.code == 1, blind.output
    detected = blind.row("padded-tp1", "faults/detected")
    assert detected["outcome"] == "invalid"
    assert "missed: " in detected["reason"]
    assert "groups_swapped" in detected["reason"]
    assert "INVALID, this run cannot see what it must (padded-tp1 faults/" in blind.output


def test_each_fault_has_a_row_and_a_copy_without_one_is_not_rejected(blind: Inner) -> None:
    rows = {row["claim"]: row for row in blind.rows("padded-tp1", "faults/")}
    assert rows["faults/identity"]["outcome"] == "passed"
    assert rows["faults/groups_swapped"]["outcome"] == "invalid"
    assert rows["faults/expert_permuted"]["outcome"] == "not_run"
    assert "it has no experts" in rows["faults/expert_permuted"]["reason"]


def test_a_width_edited_by_hand_is_seen_by_the_stub_too(blind: Inner) -> None:
    assert blind.row("padded-tp1", "faults/blind_trim")["outcome"] == "passed"


def test_faults_are_seeded_on_demand(tmp_path: Path, cache: Path, deployments: Path) -> None:
    inner = run_inner(
        tmp_path / "reports", cache, "-m", "padded and tp1 and faults", deployments=deployments
    )
    assert inner.code == 5, inner.output
