"""The suite as its users run it, against a stub that behaves or does not: outcomes and rows."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from suites.selftest.runs import (
    ROOT,
    Inner,
    environment,
    pytest_command,
    run_inner,
    server_command,
)

SERVES = None


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all inner runs: the miniature is generated once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def deployments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped file with budgets for a stub: it is too fast for ratios to mean anything."""
    text = (ROOT / "suites" / "deployments.toml").read_text()
    lines = []
    for line in text.splitlines():
        name = line.partition(" =")[0]
        if name in ("ttft_p50_ratio", "tpot_p50_ratio", "e2e_p50_ratio"):
            line = f"{name} = {{ 1 = 1000.0, 2 = 1000.0, 4 = 1000.0, 8 = 1000.0 }}"
        if name == "output_tokens_ratio":
            line = f"{name} = {{ 1 = 1e-6, 2 = 1e-6, 4 = 1e-6, 8 = 1e-6 }}"
        lines.append(line)
    file = tmp_path_factory.mktemp("budgets") / "deployments.toml"
    file.write_text("\n".join(lines))
    return file


def changed(deployments: Path, tmp_path: Path, old: str, new: str) -> Path:
    text = deployments.read_text()
    assert old in text
    file = tmp_path / "deployments.toml"
    file.write_text(text.replace(old, new))
    return file


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
        "trimmed-tp1": SERVES,
        "trimmed-tp2": SERVES,
        "trimmed-tp4": "silent",
        "trimmed-tp8": "first_request",
        "padded-tp1": SERVES,
        "padded-tp2": SERVES,
        "padded-tp4": SERVES,
        "padded-tp8": SERVES,
    }


def test_each_server_starts_exactly_once_and_the_baseline_first(whole: Inner) -> None:
    assert len(whole.starts) == len(set(whole.starts)) == 12
    assert whole.starts[0] == "original-tp1"


def test_a_silent_cell_passes_because_the_numerics_caught_it(whole: Inner) -> None:
    assert whole.row("original-tp4", "sharding/stage")["outcome"] == "refused_as_planned"
    caught = whole.row("original-tp4", "numerics/text/caught")
    assert caught["outcome"] == "passed"
    assert caught["low"] > caught["limit"]


def test_the_audit_names_tensor_rows_and_ranks_of_a_silent_cell(whole: Inner) -> None:
    reason = whole.row("original-tp4", "sharding/elements")["reason"]
    assert "down_proj.qzeros: rows 4 to 6 of 7 not held by any rank" in reason
    assert "rank 3: 3..3" in reason


def test_padding_is_exact_and_trimming_is_told_apart(whole: Inner) -> None:
    assert whole.row("padded-tp1", "numerics/text/max_abs_d")["value"] == 0.0
    told = whole.row("trimmed-tp1", "numerics/text/told_apart")
    assert told["low"] > told["limit"]


def test_every_row_that_did_not_run_says_why(whole: Inner) -> None:
    assert whole.report is not None
    silent = [r for r in whole.report["rows"] if r["outcome"] == "not_run" and not r["reason"]]
    assert silent == []


# behaviour of padded-tp2 → a row that must fail, and what its reason must say
FAULTS = [
    ("refuse-config", "sharding/stage", "fails (config)"),
    ("refuse-load", "sharding/stage", "fails (load)"),
    ("exit-at-warmup", "sharding/stage", "fails (warmup)"),
    ("die-at-first-request", "sharding/stage", "fails (first_request)"),
    ("nan", "sharding/stage", "fails (first_request)"),
    ("hang-at-start", "sharding/stage", "silent for 1 s"),
    ("wrong", "numerics/text/rms_d", "The answers differ from original-tp1"),
    ("repeat", "numerics/longest_repeat", "One token repeated"),
    ("die-mid-run", "numerics/finite", "no usable log-probability"),
]


@pytest.mark.parametrize(("behaviour", "claim", "says"), FAULTS, ids=[f[0] for f in FAULTS])
def test_a_fault_of_the_server_turns_its_own_row_red(
    behaviour: str, claim: str, says: str, tmp_path: Path, cache: Path, deployments: Path
) -> None:
    hasty = changed(deployments, tmp_path, "silence_s = 300", "silence_s = 1")
    inner = run_inner(
        tmp_path / "reports",
        cache,
        *("-m", "padded and tp2 and (sharding or numerics)"),
        behaviours=[f"padded-tp2={behaviour}"],
        deployments=hasty,
    )
    assert inner.code == 1, inner.output
    row = inner.row("padded-tp2", claim)
    assert row["outcome"] == "failed"
    assert says in row["reason"]
    assert claim in inner.output
    assert {cell for cell, _ in inner.failed()} == {"padded-tp2"}


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
    assert ("padded-tp1", "latency/tpot_p50_ratio") in inner.failed()


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


def test_too_few_gpus_are_rows_and_under_strict_matrix_errors(tmp_path: Path, cache: Path) -> None:
    options = ("--platform=cuda", "-m", "padded and tp8 and plan")
    reports = tmp_path / "reports"
    command = pytest_command(f"--reports={reports}", *options)
    done = subprocess.run(
        command, cwd=ROOT, env=environment(cache), capture_output=True, text=True, timeout=60
    )
    assert "needs 8 GPUs; this machine has" in (reports / "report.json").read_text()
    assert done.returncode == 0, done.stdout
    strict = subprocess.run(
        [*command, "--strict-matrix"],
        cwd=ROOT,
        env=environment(cache),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert strict.returncode == 1
    assert "--strict-matrix accepts no gaps" in strict.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--checkpoint=nowhere",), "nowhere"),
        (("--variant=padded",), "expected NAME=DIR"),
        (("--tp=two",), "not a list of sizes"),
        (("--deployment=prod",), "no deployment named 'prod'"),
        (("--deployments=none.toml",), "no such file"),
        (("--numprocesses=2",), "cannot be spread over xdist workers"),
    ],
)
def test_bad_options_are_one_line_and_a_usage_error(
    arguments: tuple[str, ...], says: str, tmp_path: Path, cache: Path
) -> None:
    inner = run_inner(tmp_path / "reports", cache, *arguments)
    assert inner.code == 4, inner.output
    assert says in inner.output
    assert "Traceback" not in inner.output
    assert inner.report is None


def test_without_an_engine_nothing_is_green(tmp_path: Path, cache: Path) -> None:
    done = subprocess.run(
        pytest_command(f"--reports={tmp_path / 'reports'}"),
        cwd=ROOT,
        env=environment(cache),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 4
    assert "no vLLM is installed" in done.stderr
    assert "tox -e cpu" in done.stderr
    assert not (tmp_path / "reports").exists()


def descendants_of(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "kill-9"])
def test_nothing_is_left_when_the_run_is_ended(
    how: signal.Signals, tmp_path: Path, cache: Path, deployments: Path
) -> None:
    reports = tmp_path / "reports"
    shared = set(Path("/dev/shm").iterdir())
    run = subprocess.Popen(
        pytest_command(
            f"--reports={reports}",
            "--platform=cpu",
            f"--deployments={deployments}",
            f"--server-command={server_command(['*=ignore-term', '*=slow'])}",
            *("-m", "padded and tp2"),
        ),
        cwd=ROOT,
        env=environment(cache),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    log = reports / "logs" / "original-tp1.log"
    deadline = time.monotonic() + 30
    while not (log.exists() and "POST" in log.read_text()):
        assert time.monotonic() < deadline, "the inner run did not get to its first request"
        time.sleep(0.05)
    children = descendants_of(run.pid)
    assert children
    os.killpg(run.pid, how)
    run.wait(timeout=60)
    _, alive = psutil.wait_procs(children, timeout=30)
    assert alive == []
    assert set(Path("/dev/shm").iterdir()) <= shared
    assert list(cache.rglob("*.partial-*")) == []
    if how == signal.SIGINT:
        text = (reports / "report.json").read_text()
        assert '"interrupted": true' in text
