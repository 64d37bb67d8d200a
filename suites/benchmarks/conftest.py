"""Options of the benchmarks, a place with room, and the table at the end."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fixtures.serving.machine import read_machine
from suites.benchmarks.shapes import LAYERS_72B
from suites.benchmarks.table import Measured, caption, disk_name, markdown

ROWS = pytest.StashKey[list[Measured]]()
DISK = pytest.StashKey[str]()
SOURCE = {"cold": "on the disk, out of the page cache", "warm": "in the page cache"}


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("benchmarks", "what a variant costs; --basetemp DIR chooses the disk")
    group.addoption("--gib", type=float, default=4.0, help="size of the checkpoints (default 4)")
    group.addoption("--rounds", type=int, default=5, help="runs of each contender (default 5)")
    group.addoption("--source", choices=SOURCE, default="cold", help="where it is read from")
    group.addoption(
        "--layers", type=int, default=LAYERS_72B, help=f"of the 72B (default {LAYERS_72B}, all)"
    )


@pytest.fixture(scope="session")
def rows(pytestconfig: pytest.Config) -> list[Measured]:
    """What was measured so far; printed and written at the end of the session."""
    return pytestconfig.stash.setdefault(ROWS, [])


@pytest.fixture(scope="session")
def say(pytestconfig: pytest.Config) -> Callable[[str], None]:
    """One line of progress, past pytest's capture."""
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    assert capture is not None

    def show(text: str) -> None:
        with capture.global_and_fixture_disabled():
            print(f"\n{text}", end="", flush=True)

    return show


@pytest.fixture
def room(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Path]:
    """A directory on the disk that is measured, gone afterwards: pytest would keep it."""
    directory = tmp_path_factory.mktemp("room")
    pytestconfig.stash[DISK] = disk_name(directory)
    if pytestconfig.stash[DISK].startswith("tmpfs"):
        pytest.skip(f"{directory} is memory, not a disk: give --basetemp DIR on one")
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """The table, ready for the README; and benchmark.json beside the reports."""
    found = config.stash.get(ROWS, [])
    if not found:
        return
    machine, source = read_machine(), config.getoption("--source")
    words = caption(machine, config.stash[DISK], SOURCE[source])
    terminalreporter.section("what a variant costs")
    for line in (*markdown(found), "", words):
        terminalreporter.write_line(line)
    given = config.getoption("--reports")
    folder = config.invocation_params.dir / given if given else config.rootpath / "reports/latest"
    folder.mkdir(parents=True, exist_ok=True)
    document = {
        "schema": 1,
        "machine": machine.to_json(),
        "disk": config.stash[DISK],
        "source": source,
        "measured": [row.to_json() for row in found],
    }
    (folder / "benchmark.json").write_text(json.dumps(document, indent=2) + "\n")
    terminalreporter.write_line(f"{folder / 'benchmark.json'}")
