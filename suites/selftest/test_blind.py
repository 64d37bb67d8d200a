"""A run that cannot see what it must says so, whatever else is green in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from suites.selftest.runs import Inner, changed, run_inner


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
    several = blind.row("padded-tp1", "faults/detected_on_several_ranks")
    assert several["outcome"] == "invalid"
    assert "groups_swapped (RMS d 0 nat)" in several["reason"]


def test_each_fault_has_a_row_and_a_copy_without_one_is_not_rejected(blind: Inner) -> None:
    rows = {row["claim"]: row for row in blind.rows("padded-tp1", "faults/")}
    assert rows["faults/identity"]["outcome"] == "passed"
    assert rows["faults/groups_swapped"]["outcome"] == "invalid"
    assert rows["faults/expert_permuted"]["outcome"] == "not_run"
    assert "it has no experts" in rows["faults/expert_permuted"]["reason"]


def test_a_width_edited_by_hand_is_seen_by_the_stub_too(blind: Inner) -> None:
    assert blind.row("padded-tp1", "faults/blind_trim")["outcome"] == "passed"


def test_steps_of_a_ladder_may_be_missed(blind: Inner) -> None:
    assert blind.row("padded-tp1", "faults/one_scale-0.001")["outcome"] == "passed"
    assert blind.row("padded-tp1", "faults/one_scale-0.01")["outcome"] == "invalid"


# What a copy's server does, and what comes of that: seen, or nothing known.
BEHAVIOURS = {
    "one_scale-0.01": ("wrong", "passed", "rms_d"),
    "groups_swapped": ("nan-later", "passed", "Out of range float values"),
    "gate_up_swapped": ("refuse-load", "passed", "the engine, at load: ValueError"),
    "head_permuted": ("hang-at-start", "invalid", "silent for 1 s"),
    "bias_shifted": ("die-mid-run", "invalid", "not judged: "),
}


@pytest.fixture(scope="module")
def hindered(tmp_path_factory: pytest.TempPathFactory, cache: Path, deployments: Path) -> Inner:
    """Seeded faults whose servers misbehave, each in its own way."""
    folder = tmp_path_factory.mktemp("hindered")
    return run_inner(
        folder / "reports",
        cache,
        *("--faults", "-m", "padded and tp1 and faults"),
        behaviours=[f"fault-{label}={one}" for label, (one, *_) in BEHAVIOURS.items()],
        deployments=changed(deployments, folder, "silence_s = 300", "silence_s = 1"),
    )


@pytest.mark.parametrize("label", BEHAVIOURS)
def test_only_what_is_the_copys_own_doing_counts(hindered: Inner, label: str) -> None:
    _, outcome, says = BEHAVIOURS[label]
    row = hindered.row("padded-tp1", f"faults/{label}")
    assert (row["outcome"], says in row["reason"]) == (outcome, True), row


def test_a_run_with_faults_it_could_not_judge_does_not_say_every_one_is_seen(
    hindered: Inner,
) -> None:
    detected = hindered.row("padded-tp1", "faults/detected")
    assert detected["outcome"] == "invalid"
    assert "not judged: bias_shifted, head_permuted" in detected["reason"]
    assert "INVALID, this run cannot see what it must (padded-tp1 faults/" in hindered.output


def test_no_copy_is_left_and_none_lies_beside_the_checkpoint(
    blind: Inner, hindered: Inner, cache: Path
) -> None:
    assert blind.report is not None
    assert hindered.report is not None
    found = [path for path in (cache / "shardproof").iterdir() if "fault" in path.name]
    assert [path.name for path in found] == ["faults"]
    assert not list(found[0].iterdir())


def test_without_a_control_nothing_is_served_and_the_summary_says_so(
    tmp_path: Path, cache: Path, deployments: Path
) -> None:
    """A disk that takes no copy, as a full or a read-only one: it is not the run's end."""
    taken = cache / "shardproof" / "faults"
    taken.mkdir(parents=True, exist_ok=True)
    taken.rmdir()
    taken.write_text("no directory")
    try:
        inner = run_inner(
            tmp_path / "reports",
            cache,
            *("--faults", "-m", "padded and tp1 and faults"),
            deployments=deployments,
        )
    finally:
        taken.unlink()
    assert not [name for name in inner.starts if name.startswith("fault-")]
    identity = inner.row("padded-tp1", "faults/identity")
    assert (identity["outcome"], str(taken) in identity["reason"]) == ("invalid", True)
    assert "could not be judged" in inner.row("padded-tp1", "faults/blind_trim")["reason"]
    detected = inner.row("padded-tp1", "faults/detected")
    assert (detected["outcome"], detected["value"]) == ("invalid", None)


def test_faults_are_seeded_on_demand(tmp_path: Path, cache: Path, deployments: Path) -> None:
    inner = run_inner(
        tmp_path / "reports", cache, "-m", "padded and tp1 and faults", deployments=deployments
    )
    assert inner.code == 5, inner.output
