"""Runs that cannot begin, and runs that are ended: one clear line, and nothing left behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from suites.selftest.runs import (
    ROOT,
    environment,
    pytest_command,
    run_inner,
    run_pytest,
    server_command,
)
from suites.selftest.stubbed import files_made, listens


def test_too_few_gpus_are_rows_and_under_strict_matrix_errors(tmp_path: Path, cache: Path) -> None:
    reports = tmp_path / "reports"
    options = (f"--reports={reports}", "--platform=cuda", "-m", "padded and tp8 and plan")
    done = run_pytest(cache, *options)
    assert "needs 8 GPUs; this machine has" in (reports / "report.json").read_text()
    assert done.returncode == pytest.ExitCode.NO_TESTS_COLLECTED, done.stdout
    assert "nothing was proven" in done.stdout
    strict = run_pytest(cache, *options, "--strict-matrix")
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


def test_a_cache_that_cannot_be_kept_is_one_line(tmp_path: Path) -> None:
    inner = run_inner(tmp_path / "reports", Path("/proc/none"), "-m", "plan and tp1")
    assert inner.code == 4, inner.output
    assert "point XDG_CACHE_HOME to a writable directory" in inner.output
    assert "Traceback" not in inner.output
    assert "INTERNALERROR" not in inner.output


def test_without_an_engine_nothing_is_green(tmp_path: Path, cache: Path) -> None:
    done = run_pytest(cache, f"--reports={tmp_path / 'reports'}")
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
    deadline = time.monotonic() + 120
    while not (log.exists() and "POST" in log.read_text()):
        assert time.monotonic() < deadline, "the inner run did not get to its first request"
        time.sleep(0.05)
    children = descendants_of(run.pid)
    assert children
    # By the stub's own account: what others make meanwhile is none of this test's business.
    shared = files_made(log)
    assert len(shared) == 2
    assert all(file.exists() for file in shared)
    (port,) = re.findall(r" --port (\d+) ", log.read_text())
    url = f"http://127.0.0.1:{port}"
    assert listens(url)
    os.killpg(run.pid, how)
    run.wait(timeout=60)
    _, alive = psutil.wait_procs(children, timeout=30)
    assert alive == []
    assert [file for file in files_made(log) if file.exists()] == []
    assert not listens(url)
    assert list(cache.rglob("*.partial-*")) == []
    if how == signal.SIGINT:
        text = (reports / "report.json").read_text()
        assert '"interrupted": true' in text
