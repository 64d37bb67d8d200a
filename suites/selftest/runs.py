"""Whole inner runs of the suite against the stub: what a user types, and what comes of it."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
STUB = ROOT / "suites" / "selftest" / "stub_server.py"
DEADLINE_S = 240


@dataclass(frozen=True, slots=True)
class Inner:
    """An inner run: its exit code, what it printed, and its report where it wrote one."""

    code: int
    output: str
    report: dict[str, Any] | None

    def rows(self, cell: str, prefix: str = "") -> list[dict[str, Any]]:
        """The rows of one cell whose claim begins with `prefix`."""
        assert self.report is not None, self.output
        found = [row for row in self.report["rows"] if row["cell"] == cell]
        return [row for row in found if row["claim"].startswith(prefix)]

    def row(self, cell: str, claim: str) -> dict[str, Any]:
        """The one row of a cell and claim."""
        found = [row for row in self.rows(cell) if row["claim"] == claim]
        assert len(found) == 1, f"{len(found)} rows {cell} {claim}\n{self.output}"
        return found[0]

    def failed(self) -> set[tuple[str, str]]:
        """(cell, claim) of every row that failed."""
        assert self.report is not None, self.output
        rows = self.report["rows"]
        return {(row["cell"], row["claim"]) for row in rows if row["outcome"] == "failed"}

    @property
    def starts(self) -> list[str]:
        """The cells whose servers were started, in order."""
        lines = (line for line in self.output.splitlines() if line.startswith("starting "))
        return [line.split()[1] for line in lines]


def server_command(behaviours: Sequence[str] = ()) -> str:
    """The command line that starts the stub, misbehaving as told (`CELL=NAME`)."""
    words = [sys.executable, str(STUB)]
    for behaviour in behaviours:
        words += ["--stub-behaviour", behaviour]
    return shlex.join(words)


def pytest_command(*arguments: str) -> list[str]:
    """An inner pytest in this repository."""
    unused = ("cacheprovider", "hypothesispytest", "randomly")
    without = [word for name in unused for word in ("-p", f"no:{name}")]
    return [sys.executable, "-m", "pytest", *without, *arguments]


def run_pytest(cache: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """An inner pytest, run to its end."""
    return subprocess.run(
        pytest_command(*arguments),
        cwd=ROOT,
        env=environment(cache),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )


def run_inner(
    reports: Path, cache: Path, *arguments: str, behaviours: Sequence[str] = (), **files: Path
) -> Inner:
    """Run the claims against the stub; `deployments=FILE` replaces the shipped budgets."""
    options = [f"--reports={reports}", "--platform=cpu"]
    options.append(f"--server-command={server_command(behaviours)}")
    options += [f"--{name}={path}" for name, path in files.items()]
    done = run_pytest(cache, *options, *arguments)
    report = reports / "report.json"
    document = json.loads(report.read_text()) if report.exists() else None
    return Inner(done.returncode, done.stdout + done.stderr, document)


def environment(cache: Path) -> dict[str, str]:
    """What an inner run sees: a cache of its own, and nothing of the outer run's options."""
    dropped = ("PYTEST_ADDOPTS", "GITHUB_STEP_SUMMARY", "PYTEST_XDIST_WORKER")
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    return {**kept, "XDG_CACHE_HOME": str(cache), "PYTHONDONTWRITEBYTECODE": "1"}


def changed(deployments: Path, tmp_path: Path, old: str, new: str) -> Path:
    """A copy of a deployments file with one text replaced."""
    text = deployments.read_text()
    assert old in text
    file = tmp_path / "deployments.toml"
    file.write_text(text.replace(old, new))
    return file
