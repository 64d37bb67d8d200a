"""The variants command on disks that are full, or may not be written to: one line, nothing left."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from suites.selftest.tiny import Tiny
from suites.selftest.variant_runs import ROOT, SHARDED, command, content, names, plain

# A mount of its own for one command, gone with it; what is left there is listed.
MOUNTED = """
mount -t tmpfs -o "$1" none "$0" || exit 77
shift
"$@" > /dev/null
code=$?
ls -A "$0"
exit $code
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return SHARDED.write(tmp_path_factory.mktemp("models") / "source")


def test_a_file_larger_than_allowed_is_refused_and_leaves_nothing(
    source: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    limited = ["sh", "-c", 'ulimit -f 2000; exec "$@"', "sh", *command("pad", source, out)]
    done = subprocess.run(limited, cwd=ROOT, capture_output=True, text=True)
    said = plain(done.stderr)
    assert (done.returncode, said.count("\n")) == (2, 1)
    assert said.startswith(f"pad: {tmp_path} takes no larger file, expected")
    assert names(tmp_path) == []


def mounted(options: str, place: Path, argv: list[str]) -> subprocess.CompletedProcess[str]:
    """A run beside a file system of memory, mounted for it at `place` with those options."""
    place.mkdir(exist_ok=True)
    apart = ["unshare", "--map-root-user", "--mount", "sh", "-c", MOUNTED, str(place), options]
    return subprocess.run([*apart, *argv], cwd=ROOT, capture_output=True, text=True)


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """Where a small disk can be mounted; skips where none can, whatever is to run on it."""
    place = tmp_path / "disk"
    try:
        probe = mounted("size=1m", place, ["true"])
    except FileNotFoundError:
        pytest.skip("there is no `unshare` here to mount a small disk with")
    if probe.returncode:
        pytest.skip(f"no small disk can be mounted here: {probe.stderr.strip()}")
    return place


def on_mount(options: str, source: Path, place: Path) -> subprocess.CompletedProcess[str]:
    return mounted(options, place, command("pad", source, place / "out"))


def test_a_run_that_dies_on_a_small_disk_is_not_skipped(disk: Path) -> None:
    assert mounted("size=1m", disk, ["sh", "-c", "exit 3"]).returncode == 3


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ("200k", r" has 0.0 GB free, expected 0.0 GB for the rewritten weights"),
        ("3000k", r" has no space left (0.0 MB free), expected room"),  # linked files, as copies
        ("4900k", r" has no space left (0.0 MB free), expected room"),  # the weights
    ],
)
def test_a_full_disk_is_one_line_and_leaves_nothing(
    tmp_path: Path, disk: Path, size: str, words: str
) -> None:
    tiny = Tiny(hidden=256, intermediate=384, group=128, layers=3, shards=4, vocab=4096)
    source = tiny.write(tmp_path / "source")
    before = content(source)
    done = on_mount(f"size={size}", source, disk)
    said = plain(done.stderr)
    assert (done.returncode, said.count("\n")) == (2, 1)
    assert said.startswith(f"pad: {disk}{words}")
    assert done.stdout == ""
    assert content(source) == before


def test_a_disk_that_is_just_large_enough_takes_copies(tmp_path: Path, disk: Path) -> None:
    source = Tiny(shards=3).write(tmp_path / "source")
    done = on_mount("size=4m", source, disk)
    assert (done.returncode, plain(done.stderr), done.stdout) == (0, "", "out\n")


def test_a_read_only_target_is_one_line(source: Path, disk: Path) -> None:
    done = on_mount("ro", source, disk)
    said = plain(done.stderr)
    assert (done.returncode, said.count("\n")) == (2, 1)
    assert said.startswith(f"pad: {disk} is on a read-only filesystem")
    assert done.stdout == ""
