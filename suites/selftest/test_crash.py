"""The variants command killed, raced and misled, as a process: all or nothing.

`fixtures.scratch` is tested where it can stop; here the whole command is, where chance stops it.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fixtures.variants import main, verify
from suites.selftest.variant_runs import (
    OPERATIONS,
    SHARDED,
    at_work,
    command,
    content,
    ended,
    kill,
    names,
    partials,
    start,
    stopped,
    swept,
)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return SHARDED.write(tmp_path_factory.mktemp("models") / "source")


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A source that a test may spoil."""
    return SHARDED.write(tmp_path / "source")


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds of one whole run: before its partial directory is there, and from then on."""

    before_s: float
    work_s: float


@pytest.fixture(scope="module")
def pace(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Pace]:
    found: dict[str, Pace] = {}

    def measured(operation: str) -> Pace:
        if operation not in found:
            out = tmp_path_factory.mktemp("pace") / "out"
            began = time.monotonic()
            process = start(operation, source, out)
            at_work(process, out)
            working = time.monotonic()
            assert ended(process)[0] == 0
            found[operation] = Pace(working - began, time.monotonic() - working)
        return found[operation]

    return measured


def moments(seed: int) -> Iterator[tuple[str, float, bool]]:
    """(operation, part of the run before the kill, whether its child dies too), evenly spread.

    Below 0 the run has not begun to write; from 0 to 1 it does.
    """
    chance = random.Random(seed)
    for operation in OPERATIONS:
        yield operation, chance.uniform(-1, 0), chance.random() < 0.5
        for third in range(3):
            yield operation, (third + chance.random()) / 3, third % 2 == 0


@pytest.mark.parametrize(
    ("operation", "moment", "child"),
    [pytest.param(*one, id=f"{one[0]}-{number}") for number, one in enumerate(moments(seed=4))],
)
def test_a_kill_at_any_moment_leaves_nothing_or_all(
    source: Path,
    tmp_path: Path,
    pace: Callable[[str], Pace],
    capsys: pytest.CaptureFixture[str],
    operation: str,
    moment: float,
    child: bool,
) -> None:
    before, out = content(source), tmp_path / "out"
    measured = pace(operation)
    process = start(operation, source, out)
    if moment < 0:
        time.sleep((1 + moment) * measured.before_s)
    elif at_work(process, out):
        time.sleep(moment * measured.work_s)
    kill(process, child=child)
    left = partials(out)
    if not child:
        assert swept(out)
    if out.exists():
        assert not verify(out).not_proven
    assert content(source) == before
    capsys.readouterr()
    assert main(command(operation, source, out)[3:]) == 0
    said = capsys.readouterr().err
    assert ("removed an abandoned partial copy" in said) == bool(left and child)
    assert names(tmp_path) == ["out"]
    assert not verify(out).not_proven
    assert content(source) == before


@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_next_run_says_what_a_dead_machine_left(
    source: Path, tmp_path: Path, operation: str
) -> None:
    out = tmp_path / "out"
    with stopped(operation, source, out) as process:
        (left,) = partials(out)
        kill(process, child=True)
    code, said = ended(start(operation, source, out))
    assert code == 0
    assert f"removed an abandoned partial copy: {left} (" in said
    assert names(tmp_path) == ["out"]


def test_a_kill_while_an_intact_variant_is_looked_through_leaves_it(
    source: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert ended(start("pad", source, out))[0] == 0
    before = content(out)
    process = start("pad", source, out)
    time.sleep(0.2)
    kill(process, child=True)
    assert content(out) == before


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [
        (signal.SIGTERM, 143, "terminated"),
        (signal.SIGINT, 130, "interrupted"),
        (signal.SIGHUP, 129, "terminal closed"),
    ],
)
def test_a_signal_is_one_line_and_leaves_nothing(
    source: Path, tmp_path: Path, number: signal.Signals, code: int, word: str
) -> None:
    out = tmp_path / "out"
    with stopped("pad", source, out) as process:
        process.send_signal(number)
    said = f"pad: {word}, nothing half-made was left behind\n"
    assert ended(process) == (code, said)
    assert names(tmp_path) == []


def test_of_two_runs_the_later_is_refused_and_the_first_goes_on(
    source: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with stopped("pad", source, out) as first:
        code, said = ended(start("pad", source, out))
        assert code == 2
        last = said.splitlines()[-1]  # progress may stand before it on a busy machine
        assert f"pad: {out} is being made by another run, which works in {partials(out)[0]}" in last
    assert ended(first) == (0, "")
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("operations", [("pad", "pad"), ("pad", "trim")])
def test_of_two_runs_that_start_together_one_has_the_name(
    source: Path, tmp_path: Path, operations: tuple[str, str]
) -> None:
    out = tmp_path / "out"
    runs = [start(operation, source, out) for operation in operations]
    codes, said = zip(*(ended(run) for run in runs), strict=True)
    won = [code == 0 for code in codes]
    assert any(won)
    # A second one of the same kind that came when all was over had nothing left to do.
    assert sorted(codes) in ([0, 2], [0, 0] if operations == ("pad", "pad") else [])
    for code, line in zip(codes, said, strict=True):
        refusals = ("is being made by another run", "already exists", "appeared while it was")
        assert code == 0 or any(words in line for words in refusals)
    assert names(tmp_path) == ["out"]
    assert not verify(out).not_proven


def rewritten(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(-8, os.SEEK_END)
        file.write(b"rewrite!")


def replaced(path: Path) -> None:
    other = path.with_name("download.tmp")
    other.write_bytes(path.read_bytes())
    other.replace(path)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1000)


@pytest.mark.parametrize(
    ("shard", "change", "words"),
    [
        (1, rewritten, "was written to"),  # the first is only read, and linked
        (5, rewritten, "was written to"),
        (1, replaced, "was replaced"),
        (5, cut, "bytes, had"),
        (5, Path.unlink, "is gone"),
    ],
)
def test_a_source_that_changes_underneath_is_refused(
    own: Path, tmp_path: Path, shard: int, change: Callable[[Path], object], words: str
) -> None:
    name = f"model-0000{shard}-of-00005.safetensors"
    with stopped("pad", own, tmp_path / "out") as process:
        change(own / name)
    code, said = ended(process)
    assert (code, said.count("\n")) == (2, 1)
    assert f"pad: {own} changed while it was read ({name} " in said
    assert words in said
    assert names(tmp_path) == ["source"]


def test_what_is_there_already_is_kept(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("three years of work")
    before = content(tmp_path)
    code, said = ended(start("pad", source, out))
    assert (code, said.count("\n")) == (2, 1)
    assert f"pad: {out} already exists" in said
    assert content(tmp_path) == before


def test_a_snapshot_of_links_into_a_cache_is_a_source(source: Path, tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "model" / "blobs", tmp_path / "model" / "snapshots" / "0badcafe"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for path in source.iterdir():
        blob = blobs / hashlib.sha256(path.read_bytes()).hexdigest()
        blob.write_bytes(path.read_bytes())
        (snapshot / path.name).symlink_to(Path("..", "..", "blobs", blob.name))
    before, out = content(tmp_path / "model"), tmp_path / "out"
    assert ended(start("pad", snapshot, out)) == (0, "")
    assert not verify(out).not_proven
    assert not any(path.is_symlink() for path in out.iterdir())
    linked = {path.name for path in out.iterdir() if path.stat().st_nlink == 2}
    assert linked == {"model-00001-of-00005.safetensors", "tokenizer.json"}
    assert all((out / name).samefile(snapshot / name) for name in linked)
    assert all(path.is_symlink() for path in snapshot.iterdir())
    assert content(tmp_path / "model") == before
