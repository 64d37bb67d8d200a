"""Inner runs against a stub that misbehaves: the right row turns red, and says why."""

from __future__ import annotations

from pathlib import Path

import pytest

from suites.selftest.runs import (
    Inner,
    changed,
    run_inner,
)

# cell, behaviour, the claim that must turn red, what its reason must say; two runs hold them all
FAULTS = (
    (
        ("padded-tp1", "wrong", "numerics/text/max_abs_d", "answers differ from those of"),
        ("padded-tp2", "wrong", "numerics/text/rms_d", "answers differ from those of"),
        ("padded-tp4", "repeat", "numerics/longest_repeat", "One token repeated"),
        ("padded-tp8", "die-mid-run", "numerics/finite", "no usable log-probability"),
        ("trimmed-tp1", "refuse-config", "sharding/stage", "fails (config)"),
        ("trimmed-tp2", "refuse-load", "sharding/stage", "fails (load)"),
    ),
    (
        ("padded-tp1", "exit-at-warmup", "sharding/stage", "fails (warmup)"),
        ("padded-tp2", "die-at-first-request", "sharding/stage", "fails (first_request)"),
        ("padded-tp4", "nan", "sharding/stage", "fails (first_request)"),
        ("trimmed-tp1", "nan-later", "numerics/finite", "Out of range float values"),
        ("padded-tp8", "hang-at-start", "sharding/stage", "silent for 1 s"),
    ),
)


@pytest.fixture(scope="module", params=FAULTS, ids=["first", "second"])
def faulty(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    cache: Path,
    deployments: Path,
) -> tuple[Inner, tuple[tuple[str, str, str, str], ...]]:
    """One run in which every cell that should serve misbehaves in its own way."""
    folder = tmp_path_factory.mktemp("faulty")
    hasty = changed(deployments, folder, "silence_s = 300", "silence_s = 1")
    inner = run_inner(
        folder / "reports",
        cache,
        *("-m", "(padded or (trimmed and (tp1 or tp2))) and (sharding or numerics)"),
        behaviours=[f"{cell}={behaviour}" for cell, behaviour, *_ in request.param],
        deployments=hasty,
    )
    return inner, request.param


def test_each_fault_of_a_server_turns_its_own_row_red(
    faulty: tuple[Inner, tuple[tuple[str, str, str, str], ...]],
) -> None:
    inner, faults = faulty
    assert inner.code == 1, inner.output
    for cell, _, claim, says in faults:
        row = inner.row(cell, claim)
        assert (row["outcome"], says in row["reason"]) == ("failed", True), row
        assert f"{cell} {claim}" in inner.output
    assert {cell for cell, _ in inner.failed()} == {cell for cell, *_ in faults}


def test_a_slow_server_breaks_its_latency_budget(
    tmp_path: Path, cache: Path, deployments: Path
) -> None:
    tight = changed(deployments, tmp_path, "1 = 1000.0", "1 = 3.0")
    inner = run_inner(
        tmp_path / "reports",
        cache,
        *("-m", "padded and tp1 and latency"),
        behaviours=["padded-tp1=slow"],
        deployments=tight,
    )
    assert ("padded-tp1", "latency/e2e_p50_ratio") in inner.failed()


def test_a_plan_that_is_wrong_is_red_in_the_other_direction(
    tmp_path: Path, cache: Path, deployments: Path
) -> None:
    # The stub follows the CPU rules; the plan for CUDA expects a refusal at load.
    inner = run_inner(
        tmp_path / "reports",
        cache,
        *("--platform=cuda", "-m", "original and tp4 and sharding"),
        deployments=deployments,
    )
    row = inner.row("original-tp4", "sharding/stage")
    assert row["outcome"] == "failed"
    assert "planned to fail (load), observed that it fails (silent)" in row["reason"]
