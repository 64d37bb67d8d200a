"""The engine does what the plan says, and the ranks hold the checkpoint."""

from __future__ import annotations

import pytest

from fixtures.deployment import PlatformSettings
from fixtures.running import Running
from reports.record import RecordRow
from suites.agreement import note
from suites.expect import expect_capacity, expect_shards, expect_stage

pytestmark = pytest.mark.sharding


def test_stage(running: Running, record: RecordRow, request: pytest.FixtureRequest) -> None:
    """It serves where the plan says so, and fails as predicted where it says that."""
    agrees = running.observed == running.cell.plan.failure_class
    note(request.node.user_properties, "live: failure classes", agrees=agrees)
    expect_stage(record, running)


def test_elements(running: Running, record: RecordRow) -> None:
    """Every element of every tensor is held exactly as often as planned."""
    if running.observed in ("config", "load"):
        pytest.skip(f"{running.cell.id} was refused at {running.observed}: no rank holds anything")
    expect_shards(record, running)


def test_capacity(
    running: Running,
    settings: PlatformSettings,
    record: RecordRow,
    request: pytest.FixtureRequest,
) -> None:
    """The engine has room for as many tokens as the plan's arithmetic says."""
    if running.observed in ("config", "load"):
        pytest.skip(f"{running.cell.id} was refused at {running.observed}: it has no cache")
    try:
        expect_capacity(record, running, settings)
    except pytest.fail.Exception:
        note(request.node.user_properties, "live: capacity", agrees=False)
        raise
    note(request.node.user_properties, "live: capacity", agrees=True)
