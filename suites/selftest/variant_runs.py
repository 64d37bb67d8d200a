"""Runs of the variants command, as processes: started, watched, stopped in their work, killed."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from suites.selftest.tiny import Tiny

ROOT = Path(__file__).parents[2]
DEADLINE_S = 20.0
OPERATIONS = {"pad": "2048", "trim": "1024", "regroup": "64"}
# 7 MB in five shards; one of them has nothing to resize.
SHARDED = Tiny(hidden=512, intermediate=1536, group=128, layers=4, shards=5, vocab=256)


def content(directory: Path) -> dict[str, tuple[str, int, int, int]]:
    """All of a directory but its times of access and counts of links."""
    found = {}
    for path in sorted(directory.rglob("*")):
        status = path.stat()
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        found[str(path)] = (digest, status.st_ino, status.st_mtime_ns, status.st_mode)
    return found


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def partials(out: Path) -> list[Path]:
    return list(out.parent.glob(f".{out.name}.partial-*"))


def filled(out: Path) -> bool:
    """Has a run begun to write? Its directory is there a moment before it is locked."""
    try:
        return any(any(partial.iterdir()) for partial in partials(out))
    except FileNotFoundError:  # done, or removed, meanwhile
        return False


def command(operation: str, source: Path, out: Path) -> list[str]:
    asked = [operation, str(source), "--out", str(out), "--to", OPERATIONS[operation]]
    return [sys.executable, "-m", "fixtures.variants", *asked]


def start(operation: str, source: Path, out: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(operation, source, out),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """(exit code, what it said to stderr)"""
    _, said = process.communicate(timeout=DEADLINE_S)
    return process.returncode, plain(said)


def plain(said: str) -> str:
    """Without the progress that a slow disk makes it tell."""
    return "".join(line for line in said.splitlines(True) if not line.endswith(" s left\n"))


def at_work(process: subprocess.Popen[str], out: Path) -> bool:
    """Waits for what it writes; False if it ended first."""
    while process.poll() is None:
        if filled(out):
            return True
        time.sleep(0.001)
    return False


def swept(out: Path) -> bool:
    """Has whoever removes partial directories done so, given time?"""
    ends = time.monotonic() + DEADLINE_S
    while partials(out) and time.monotonic() < ends:
        time.sleep(0.01)
    return not partials(out)


def kill(process: subprocess.Popen[str], *, child: bool) -> None:
    """Kill a run, and as a dying machine does its child, which would have cleaned up."""
    process.send_signal(signal.SIGSTOP)
    if child and process.poll() is None:
        for cleaner in psutil.Process(process.pid).children():
            cleaner.kill()
    process.kill()
    process.communicate(timeout=DEADLINE_S)


@contextmanager
def stopped(operation: str, source: Path, out: Path) -> Iterator[subprocess.Popen[str]]:
    """A run that stands still in the middle of its work; it goes on when the block ends."""
    for _ in range(5):  # one may be done before it is stopped
        process = start(operation, source, out)
        if at_work(process, out):
            process.send_signal(signal.SIGSTOP)
            os.waitpid(process.pid, os.WUNTRACED)
            if filled(out):
                break
        ended(process)
        subprocess.run(["rm", "-rf", str(out)], check=True)
    else:
        pytest.fail("five runs were done before they could be stopped")
    try:
        yield process
    except BaseException:
        kill(process, child=False)
        raise
    process.send_signal(signal.SIGCONT)
