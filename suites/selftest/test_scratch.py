import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from fixtures.errors import InputError
from fixtures.scratch import remove_stale, scratch_directory

DEADLINE_S = 10.0

# Stops for good where it is told to; the parent kills it there.
VICTIM = """
import os, pathlib, sys, time
from fixtures.scratch import scratch_directory

final, point = pathlib.Path(sys.argv[1]), sys.argv[2]

def here(name):
    if name == point:
        print("here", flush=True)
        time.sleep(600)

def stopping(name, function):
    def stop(*arguments, **options):
        here("before " + name)
        result = function(*arguments, **options)
        here("after " + name)
        return result
    return stop

pathlib.Path.mkdir = stopping("mkdir", pathlib.Path.mkdir)
pathlib.Path.rename = stopping("rename", pathlib.Path.rename)
with scratch_directory(final) as partial:
    here("entered")
    with open(partial / "weights", "wb") as file:
        file.write(bytes(1000))
        here("half a file")
    (partial / "folder").mkdir()
    here("all written")
    pathlib.Path.rename = stopping("last rename", os.rename)
"""


def leftovers(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def empty_before(directory: Path, deadline_s: float) -> bool:
    ends = time.monotonic() + deadline_s
    while leftovers(directory) and time.monotonic() < ends:
        time.sleep(0.01)
    return not leftovers(directory)


def stopped_at(point: str, final: Path) -> subprocess.Popen[str]:
    root = Path(__file__).parents[2]
    victim = subprocess.Popen(
        [sys.executable, "-c", VICTIM, str(final), point],
        cwd=root,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert victim.stdout is not None
    assert victim.stdout.readline() == "here\n"
    return victim


def killed(victim: subprocess.Popen[str], number: signal.Signals = signal.SIGKILL) -> None:
    victim.send_signal(number)
    victim.communicate(timeout=DEADLINE_S)


def test_the_directory_appears_complete_under_its_name(tmp_path: Path) -> None:
    final = tmp_path / "final"
    with scratch_directory(final) as partial:
        assert partial.parent == tmp_path
        assert partial.name.startswith(".final.partial-")
        assert not final.exists()
        (partial / "weights").write_text("w")
    assert leftovers(tmp_path) == ["final"]
    assert (final / "weights").read_text() == "w"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_any_exception_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    def fail() -> None:
        with scratch_directory(tmp_path / "final") as partial:
            (partial / "weights").write_text("w")
            raise error

    with pytest.raises(error):
        fail()
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(
    "point",
    [
        "before mkdir",
        "before rename",
        "entered",
        "half a file",
        "all written",
        "before last rename",
    ],
)
def test_a_kill_leaves_nothing(tmp_path: Path, point: str) -> None:
    killed(stopped_at(point, tmp_path / "final"))
    assert empty_before(tmp_path, DEADLINE_S), leftovers(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_so_does_any_other_signal(tmp_path: Path, number: signal.Signals) -> None:
    killed(stopped_at("half a file", tmp_path / "final"), number)
    assert empty_before(tmp_path, DEADLINE_S), leftovers(tmp_path)


def test_a_kill_after_the_rename_leaves_the_complete_directory(tmp_path: Path) -> None:
    killed(stopped_at("after last rename", tmp_path / "final"))
    time.sleep(0.2)  # what a wrong cleaner would need to do its damage
    assert leftovers(tmp_path) == ["final"]
    assert leftovers(tmp_path / "final") == ["folder", "weights"]


def test_what_a_dead_owner_left_is_removed_at_the_next_attempt(tmp_path: Path) -> None:
    # As after a power failure: neither the owner nor its cleaner is there any more.
    (tmp_path / ".final.partial-0badcafe").mkdir()
    (tmp_path / ".final.partial-0badcafe" / "weights").write_text("w")
    (tmp_path / ".other.partial-0badcafe").mkdir()
    with scratch_directory(tmp_path / "final"):
        pass
    assert leftovers(tmp_path) == [".other.partial-0badcafe", "final"]


def test_what_a_living_owner_works_on_is_left_alone(tmp_path: Path) -> None:
    victim = stopped_at("half a file", tmp_path / "final")
    try:
        assert remove_stale(tmp_path / "final") == []
        assert len(leftovers(tmp_path)) == 1
    finally:
        killed(victim)
    assert empty_before(tmp_path, DEADLINE_S)


def test_an_existing_target_is_refused_and_untouched(tmp_path: Path) -> None:
    final = tmp_path / "final"
    final.mkdir()
    with pytest.raises(InputError, match="final already exists"), scratch_directory(final):
        pytest.fail("entered")
    assert leftovers(tmp_path) == ["final"]


def test_a_target_that_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    final = tmp_path / "final"

    def race() -> None:
        with scratch_directory(final):
            final.write_text("theirs")

    with pytest.raises(InputError, match="final already exists"):
        race()
    assert leftovers(tmp_path) == ["final"]
    assert final.read_text() == "theirs"


def test_a_missing_parent_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(InputError, match="no is not a directory"),
        scratch_directory(tmp_path / "no" / "final"),
    ):
        pytest.fail("entered")


def test_no_child_and_no_descriptor_is_left(tmp_path: Path) -> None:
    process = psutil.Process()
    before = (process.num_fds(), process.children())
    with scratch_directory(tmp_path / "final"):
        assert len(process.children()) == len(before[1]) + 1
    assert (process.num_fds(), process.children()) == before
