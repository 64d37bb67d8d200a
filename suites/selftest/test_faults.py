"""Inner runs against a stub that misbehaves: the right row turns red, and says why."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fixtures.checkpoint.packing import Array, pack_awq, unpack_awq
from fixtures.checkpoint.tensors import read_checkpoint, read_tensor
from fixtures.matrix import Matrix
from suites.selftest.runs import (
    Inner,
    changed,
    run_inner,
)

# cell, behaviour, the claim that must turn red, what its reason must say; two runs hold them all
FAULTS = (
    (
        ("padded-tp1", "wrong", "numerics/exact/text/max_abs_d", "answers differ from those of"),
        ("padded-tp2", "wrong", "numerics/end_to_end/text/rms_d", "answers differ from those of"),
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


def test_stages_without_a_warmup_are_red_with_the_engines_words(
    tmp_path: Path, cache: Path, deployments: Path
) -> None:
    inner = run_inner(
        tmp_path / "reports",
        cache,
        *("-m", "pp2 and sharding"),
        deployments=changed(deployments, tmp_path, '"--no-enforce-eager", ', ""),
    )
    row = inner.row("original-pp2", "sharding/stage")
    assert row["outcome"] == "failed"
    assert "it fails (first_request): AssertionError: assert self.intermediate" in row["reason"]


@pytest.fixture(scope="module")
def deceptive(tmp_path_factory: pytest.TempPathFactory, cache: Path, deployments: Path) -> Inner:
    """One run of servers that look as they should, and whose evidence says otherwise."""
    folder = tmp_path_factory.mktemp("deceptive")
    hasty = changed(deployments, folder, "silence_s = 300", "silence_s = 1")
    behaviours = {
        "padded-tp1": "no-audit",
        "padded-tp2": "lost-rows",
        "original-tp4": "honest-though-silent",
        "trimmed-tp4": "no-audit",
        "original-tp8": "hang-at-start",
        "trimmed-tp1": "small-cache",
        "trimmed-tp2": "no-capacity",
    }
    return run_inner(
        folder / "reports",
        cache,
        *(
            "-m",
            "sharding or (numerics and (original or (padded and tp2)))",
            "-k",
            " or ".join(behaviours),
        ),
        behaviours=[f"{cell}={behaviour}" for cell, behaviour in behaviours.items()],
        deployments=hasty,
    )


def test_ranks_that_recorded_nothing_prove_nothing(deceptive: Inner) -> None:
    assert deceptive.code == 1, deceptive.output
    assert deceptive.row("padded-tp1", "sharding/elements")["outcome"] in ("failed", "invalid")
    assert "padded-tp1 sharding/elements" in deceptive.output
    # Planned to lose rows in silence: not confirmed by an audit that is not there.
    for claim in ("sharding/stage", "sharding/elements"):
        row = deceptive.row("trimmed-tp4", claim)
        assert row["outcome"] in ("failed", "invalid"), row


def test_a_cache_of_another_size_than_planned_is_red(deceptive: Inner) -> None:
    half = deceptive.row("trimmed-tp1", "sharding/capacity")
    assert (half["outcome"], half["value"]) == ("failed", 0.5)
    assert "room for 131,072 tokens" in half["reason"]
    assert deceptive.row("trimmed-tp2", "sharding/capacity")["outcome"] == "invalid"


def test_one_lost_row_of_scales_is_red_though_the_answers_are_right(deceptive: Inner) -> None:
    for claim in ("sharding/stage", "sharding/elements"):
        row = deceptive.row("padded-tp2", claim)
        assert row["outcome"] == "failed"
        assert "layers.0.mlp.down_proj.scales" in row["reason"]
    numerics = {row["outcome"] for row in deceptive.rows("padded-tp2", "numerics/end_to_end/text/")}
    assert numerics == {"passed"}


def test_a_cell_planned_to_answer_wrongly_that_does_not_is_red(deceptive: Inner) -> None:
    assert deceptive.row("original-tp4", "numerics/control/text/caught")["outcome"] == "failed"


def test_a_refusal_for_another_reason_than_the_planned_one_is_red(deceptive: Inner) -> None:
    row = deceptive.row("original-tp8", "sharding/stage")
    assert (row["outcome"], "silent for 1 s" in row["reason"]) == ("failed", True), row


# ------------------------------------------------------------------ broken variants

WIDTH = 896  # the miniature's; what lies beyond in the padded one must be zero


def one_byte(name: str, stored: Array) -> Array | None:
    if name != "model.layers.0.mlp.up_proj.qweight":
        return None
    stored.reshape(-1).view(np.uint8)[12345] ^= 0x10
    return stored


def pads_of_one(name: str, stored: Array) -> Array | None:
    """Added channels whose quantized value is 1, where their zero point is 0."""
    module, _, part = name.rpartition(".")
    if part != "qweight" or not module.endswith(("gate_proj", "up_proj", "down_proj")):
        return None
    values = unpack_awq(stored)
    added = values[WIDTH:] if module.endswith("down_proj") else values[:, WIDTH:]
    added[...] = 1
    return pack_awq(values)


def swapped_groups(name: str, stored: Array) -> Array | None:
    if name != "model.layers.1.mlp.down_proj.scales":
        return None
    stored[[1, 3]] = stored[[3, 1]]
    return stored


# name, what is done to it, what the reason must name
BREAKS = (
    ("one_byte", one_byte, "model.layers.0.mlp.up_proj.qweight"),
    ("pads_of_one", pads_of_one, "mlp.down_proj"),
    ("swapped_groups", swapped_groups, "model.layers.1.mlp.down_proj.scales"),
)


@pytest.fixture(scope="module")
def padded(cache: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        matrix = Matrix("miniature:awq", ("padded",), (1, 2, 4, 8), "cpu", {}, say=lambda _: None)
        return matrix.directory("padded")


def broken(padded: Path, out: Path, change: Callable[[str, Array], Array | None]) -> Path:
    """A copy of the padded miniature, changed in place behind its manifest's back."""
    shutil.copytree(padded, out)
    for name, info in read_checkpoint(out).tensors.items():
        data = change(name, np.array(read_tensor(info)))
        if data is not None:
            with info.file.open("r+b") as file:
                file.seek(info.begin)
                file.write(np.ascontiguousarray(data).tobytes())
    return out


def test_a_variant_that_was_changed_is_red_and_its_tensor_is_named(
    padded: Path, tmp_path: Path, cache: Path, deployments: Path
) -> None:
    variants = [
        f"--variant={name}={broken(padded, tmp_path / name, change)}" for name, change, _ in BREAKS
    ]
    inner = run_inner(
        tmp_path / "reports",
        cache,
        *(*variants, "-m", "plan and tp1"),
        deployments=deployments,
    )
    assert inner.code == 1, inner.output
    assert inner.row("padded-tp1", "plan/proof")["outcome"] == "passed"
    for name, _, tensor in BREAKS:
        row = inner.row(f"{name}-tp1", "plan/proof")
        assert (row["outcome"], tensor in row["reason"]) == ("failed", True), row
