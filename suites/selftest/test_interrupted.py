"""Runs that are ended in the middle of a measurement keep what was measured, and say how far they
came."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from reports.compare import main as compare_main
from reports.html import main as html_main
from suites.selftest.runs import ROOT, environment, pytest_command, server_command
from suites.selftest.stubbed import files_made

SLOW = "original-pp2"  # its server answers slowly, and is ended while it is asked
DEADLINE_S = 120


@dataclass(frozen=True, slots=True)
class Ended:
    """A run that was sent signals while the slow cell was asked."""

    code: int
    after_s: float
    output: str
    reports: Path

    @property
    def report(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads((self.reports / "report.json").read_text())
        return told


@pytest.fixture
def end_run(tmp_path: Path, cache: Path, deployments: Path) -> Callable[..., Ended]:
    def run(claims: str, *, posts: int, signals: Sequence[signal.Signals]) -> Ended:
        """Send the signals once the slow server has begun to answer so many requests."""
        reports = tmp_path / "reports"
        command = f"{server_command([f'{SLOW}=slow', '*=honest'])} --stub-slow-token-s 0.15"
        options = (f"--reports={reports}", "--platform=cpu", f"--deployments={deployments}")
        output = tmp_path / "output.txt"
        with output.open("w") as file:
            process = subprocess.Popen(
                pytest_command(*options, f"--server-command={command}", "--tp=1", "-m", claims),
                cwd=ROOT,
                env=environment(cache),
                stdout=file,
                stderr=file,
            )
        log = reports / "logs" / f"{SLOW}.log"
        try:
            until = time.monotonic() + DEADLINE_S
            while not (log.exists() and log.read_text().count("POST") >= posts):
                assert process.poll() is None, output.read_text()
                assert time.monotonic() < until, log.read_text()
                time.sleep(0.02)
            children = psutil.Process(process.pid).children(recursive=True)
            began_s = time.monotonic()
            for number in signals:
                process.send_signal(number)
                time.sleep(0.1)
            code = process.wait(timeout=DEADLINE_S)
            after_s = time.monotonic() - began_s
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)  # pytest's faulthandler tells where it hangs
            process.wait()
            raise AssertionError(output.read_text()) from None
        finally:
            process.kill()
            process.wait()
        _, alive = psutil.wait_procs(children, timeout=30)
        assert children
        assert alive == []
        assert [path for path in files_made(log) if path.exists()] == []
        assert list(reports.rglob(".*partial*")) == []
        return Ended(code, after_s, output.read_text(), reports)

    return run


WAYS = [
    pytest.param("latency", 2, [signal.SIGINT], "interrupted", id="ctrl-c-in-warm-up"),
    pytest.param("latency", 5, [signal.SIGTERM], "interrupted by SIGTERM", id="sigterm-in-latency"),
    pytest.param("throughput", 5, [signal.SIGINT], "interrupted", id="ctrl-c-under-load"),
    pytest.param("throughput", 5, [signal.SIGHUP], "interrupted by SIGHUP", id="sighup-under-load"),
]


@pytest.mark.parametrize(("suite", "posts", "signals", "why"), WAYS)
def test_a_run_ended_while_it_measures_has_a_partial_report(
    end_run: Callable[..., Ended],
    suite: str,
    posts: int,
    signals: Sequence[signal.Signals],
    why: str,
) -> None:
    ended = end_run(f"sharding or {suite}", posts=posts, signals=signals)
    assert ended.code == pytest.ExitCode.INTERRUPTED, ended.output
    assert "Traceback" not in ended.output
    assert ended.after_s < 30  # no request's deadline, which is minutes away
    report = ended.report
    assert report["footer"]["interrupted"] is True
    assert report["footer"]["partial"] == {
        "why": why,
        "during": f"{SLOW} {suite}/{suite}",
        "done": ["original-tp1"],
        "unfinished": [SLOW],
        "not_reached": ["trimmed-tp1", "padded-tp1", "regrouped-tp1"],
    }
    rows = {(row["cell"], row["claim"]): row for row in report["rows"]}
    assert rows[SLOW, "sharding/elements"]["outcome"] == "passed"
    finished = [row for (cell, _), row in rows.items() if cell == "original-tp1"]
    assert any(row["claim"].startswith(suite) and row["value"] is not None for row in finished)
    assert "interrupted during this claim" in rows[SLOW, f"{suite}/{suite}"]["reason"]
    assert why in rows["padded-tp1", f"{suite}/{suite}"]["reason"]
    headline = f"Partial, the run was {why} (of 5 cells 1 done, 1 unfinished, 3 not reached)"
    assert headline in ended.output
    assert f"partial report kept in {ended.reports}; ending what runs ..." in ended.output
    assert "not reached: trimmed-tp1, padded-tp1, regrouped-tp1" in ended.output
    page = (ended.reports / "report.html").read_text()
    assert headline in page
    assert "<li>not reached: trimmed-tp1, padded-tp1, regrouped-tp1</li>" in page


def test_more_signals_cost_no_report(end_run: Callable[..., Ended]) -> None:
    ended = end_run("latency", posts=2, signals=[signal.SIGINT, signal.SIGINT, signal.SIGTERM])
    assert ended.code != 0
    assert ended.report["footer"]["interrupted"] is True
    assert (ended.reports / "report.html").exists()


def test_a_kill_leaves_a_journal_from_which_a_page_is_made(
    end_run: Callable[..., Ended], capsys: pytest.CaptureFixture[str]
) -> None:
    ended = end_run("sharding or latency", posts=5, signals=[signal.SIGKILL])
    assert ended.code == -signal.SIGKILL
    assert not (ended.reports / "report.json").exists()
    assert html_main([str(ended.reports / "run.jsonl")]) == 0
    said = capsys.readouterr().out
    assert "Unfinished, the run crashed or is still running (of 5 cells 1 done, 1 unf" in said
    page = (ended.reports / "report.html").read_text()
    assert re.search(r"<li>not reached: trimmed-tp1, padded-tp1, regrouped-tp1</li>", page)
    assert compare_main([str(ended.reports / "report.html"), "x.json"]) == 2
