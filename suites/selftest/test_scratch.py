import errno
import fcntl
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from fixtures.errors import InputError
from fixtures.scratch import Abandoned, passing_directory, remove_stale, scratch_directory

DEADLINE_S = 10.0

# Stops for good where it is told to; the parent kills it there.
VICTIM = """
import pathlib, sys, time
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
"""


def leftovers(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def empty_before(directory: Path, deadline_s: float) -> bool:
    ends = time.monotonic() + deadline_s
    while leftovers(directory) and time.monotonic() < ends:
        time.sleep(0.01)
    return not leftovers(directory)


def stopped_at(point: str, final: Path, code: str = VICTIM) -> subprocess.Popen[str]:
    root = Path(__file__).parents[2]
    victim = subprocess.Popen(
        [sys.executable, "-c", code, str(final), point],
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


def abandoned(directory: Path) -> Path:
    """As after a power failure: neither the owner nor its cleaner is there any more."""
    partial = directory / ".final.partial-0badcafe"
    partial.mkdir()
    (partial / "weights").write_text("12345")
    return partial


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


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
def test_a_passing_directory_ends_with_its_block(
    tmp_path: Path, error: type[BaseException] | None
) -> None:
    home = tmp_path / "home"

    def pass_through() -> None:
        with passing_directory(home / "one") as one, passing_directory(home / "one") as other:
            assert one != other  # two runs at once
            (one / "weights").write_text("w")
            if error is not None:
                raise error

    if error is None:
        pass_through()
    else:
        with pytest.raises(error):
            pass_through()
    assert leftovers(home) == []


def test_a_passing_directory_is_gone_after_a_kill_and_after_a_power_failure(tmp_path: Path) -> None:
    abandoned(tmp_path)
    code = VICTIM.replace("scratch_directory", "passing_directory")
    victim = stopped_at("all written", tmp_path / "final", code)
    (partial,) = tmp_path.iterdir()  # the one that nobody owned was removed
    assert partial.name != ".final.partial-0badcafe"
    killed(victim)
    assert empty_before(tmp_path, DEADLINE_S)


@pytest.mark.parametrize(
    "point",
    [
        "before mkdir",
        "after mkdir",
        "entered",
        "half a file",
        "all written",
        "before rename",
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
    killed(stopped_at("after rename", tmp_path / "final"))
    time.sleep(0.2)  # what a wrong cleaner would need to do its damage
    assert leftovers(tmp_path) == ["final"]
    assert leftovers(tmp_path / "final") == ["folder", "weights"]


def test_what_a_dead_owner_left_is_removed_at_the_next_attempt(tmp_path: Path) -> None:
    abandoned(tmp_path)
    (tmp_path / ".other.partial-0badcafe").mkdir()
    (tmp_path / ".final.partial-old").mkdir()  # somebody's own
    with scratch_directory(tmp_path / "final"):
        pass
    assert leftovers(tmp_path) == [".final.partial-old", ".other.partial-0badcafe", "final"]


def test_what_was_removed_is_told_with_the_bytes_it_frees(tmp_path: Path) -> None:
    partial = abandoned(tmp_path)
    (tmp_path / "source").write_text("not freed")
    (partial / "linked").hardlink_to(tmp_path / "source")
    said = [str(found) for found in remove_stale(tmp_path / "final")]
    assert said == [f"removed an abandoned partial copy: {partial} (5 bytes)"]
    assert leftovers(tmp_path) == ["source"]


def test_what_cannot_be_told_abandoned_stays_and_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    partial = abandoned(tmp_path)
    monkeypatch.setattr(fcntl, "flock", refuse)
    with scratch_directory(tmp_path / "final"):
        found = [str(one) for one in remove_stale(tmp_path / "final")]  # its own is among them
    said = f"left a partial copy: {partial} (whether its owner lives is unknown"
    assert [text for text in found if text.startswith(said)]
    assert leftovers(tmp_path) == [partial.name, "final"]


def test_a_directory_taken_for_abandoned_before_its_lock_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed: list[Abandoned] = []

    real = Path.mkdir

    def race(path: Path) -> None:
        real(path)
        if not removed:
            removed.extend(remove_stale(tmp_path / "final"))

    monkeypatch.setattr(Path, "mkdir", race)
    with scratch_directory(tmp_path / "final") as partial:
        assert [found.path for found in removed] == [partial]
        assert remove_stale(tmp_path / "final") == []
    assert leftovers(tmp_path) == ["final"]


def test_an_interrupted_sweep_is_finished_by_the_child(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    def fail() -> None:
        with scratch_directory(tmp_path / "final") as partial:
            (partial / "weights").write_text("w")
            monkeypatch.setattr("shutil.rmtree", interrupt)
            raise ValueError

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert leftovers(tmp_path) == []


def test_a_target_that_another_run_makes_is_refused_at_once(tmp_path: Path) -> None:
    victim = stopped_at("half a file", tmp_path / "final")
    try:
        with (
            pytest.raises(InputError, match=r"is being made by another run, which works in .*l-"),
            scratch_directory(tmp_path / "final"),
        ):
            pytest.fail("entered")
    finally:
        killed(victim)
    assert empty_before(tmp_path, DEADLINE_S)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, r"has no space left \([\d.]+ MB free\), expected room .* Free some"),
        (errno.EDQUOT, "exceeds this user's quota"),
        (errno.EFBIG, "takes no larger file, .* Raise `ulimit -f`"),
        (errno.EROFS, "is on a read-only filesystem"),
        (errno.EACCES, "is not open to this user, .* Change its mode"),
        (errno.EIO, "failed to read or write"),
        (errno.ESTALE, "cannot be used: Stale file handle"),
    ],
)
def test_what_the_disk_refuses_is_one_line(tmp_path: Path, code: int, words: str) -> None:
    def fail() -> None:
        with scratch_directory(tmp_path / "final") as partial:
            raise OSError(code, "refused", str(partial / "weights"))

    with pytest.raises(InputError, match=f"^{tmp_path} {words}.*nothing was left behind.$"):
        fail()
    assert leftovers(tmp_path) == []


def test_what_the_source_refuses_names_its_file(tmp_path: Path) -> None:
    def fail(source: str) -> None:
        with scratch_directory(tmp_path / "final"):
            raise PermissionError(errno.EACCES, "refused", source)

    for source in ("/models/qwen/weights", str(tmp_path / "source" / "weights")):
        with pytest.raises(InputError, match=rf"^{source} is not open to this user"):
            fail(source)


def test_a_name_too_long_is_refused_as_the_target_s(tmp_path: Path) -> None:
    final = tmp_path / ("x" * 250)  # a name of its own, but no partial one
    with pytest.raises(InputError, match="x has too long a name"), scratch_directory(final):
        pytest.fail("entered")
    assert leftovers(tmp_path) == []


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
