"""Our pad beside `cp -r` of the same tree, and beside the whole model in memory.

Contenders take turns, each round beginning with another, so that what the disk and the page cache
do to one they do to all. Times are reported and not judged; memory is.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import psutil
import pytest

from suites.benchmarks import recipe
from suites.benchmarks.generated import write_checkpoint
from suites.benchmarks.shapes import PADDED, SMALL_VOCABULARY, VOCABULARY, qwen_7b_of, shared_limit
from suites.benchmarks.table import OURS, YARDSTICK, Measured
from suites.benchmarks.timed import Cost, run

pytestmark = pytest.mark.benchmarks

Say: TypeAlias = Callable[[str], None]
Command: TypeAlias = list[str | Path]
MEMORY_LIMIT_BYTES: Final = 1 << 30
IN_MEMORY: Final = {"recipe": "the makers' recipe", "by-hand": "load, edit, save"}
# Of the checkpoint's size: its state dict, what is edited, and room to breathe.
IN_MEMORY_NEED: Final = 2.5
SPARE_BYTES: Final = 2 << 30


@dataclass(frozen=True, slots=True)
class Tree:
    """A checkpoint to be padded, and what it is padded with besides ours."""

    name: str
    method: str
    vocabulary: int
    limit_bytes: int
    apart: bool
    in_memory: str


TREES: Final = (
    Tree("AWQ, every shard changes", "awq", SMALL_VOCABULARY, 512 << 20, False, "by-hand"),
    # Larger than the limit, embeddings and head get a shard each, which is linked: half of 4 GiB.
    Tree("AWQ, embeddings in shards of their own", "awq", VOCABULARY, 1 << 30, True, "by-hand"),
    Tree("bfloat16, every shard changes", "none", SMALL_VOCABULARY, 1 << 30, False, "recipe"),
)


@pytest.mark.parametrize("tree", TREES, ids=lambda tree: tree.name.replace(" ", "-"))
def test_a_variant_costs_less_than_a_gibibyte(
    tree: Tree, room: Path, pytestconfig: pytest.Config, rows: list[Measured], say: Say
) -> None:
    size = int(pytestconfig.getoption("--gib") * 2**30)
    source = write_source(tree, size, room, say)
    ours = room / "proven"
    measured = measure(tree, source, pytestconfig, say)
    rows.append(measured)
    run(pad(source, ours), out=ours, log=room / "log")
    run([*VARIANTS, "verify", ours], log=room / "log")
    assert measured.peak_bytes(OURS) < MEMORY_LIMIT_BYTES


VARIANTS: Final[Command] = [sys.executable, "-m", "fixtures.variants"]


def pad(source: Path, out: Path) -> Command:
    return [*VARIANTS, "pad", source, "--out", out, "--to", str(PADDED)]


def write_source(tree: Tree, nbytes: int, room: Path, say: Say) -> Path:
    free = shutil.disk_usage(room).free
    # The source, one result at a time, and what a result may be larger.
    if free < (need := 2.2 * nbytes + SPARE_BYTES):
        pytest.skip(
            f"{room} has {free / 1e9:.0f} GB free, expected {need / 1e9:.0f}: free some, give "
            "--basetemp DIR on another disk, or a smaller --gib"
        )
    source = room / "source"
    config = qwen_7b_of(nbytes, method=tree.method, vocabulary=tree.vocabulary)
    limit = tree.limit_bytes if tree.apart else shared_limit(config, tree.limit_bytes)
    write_checkpoint(source, config, limit_bytes=limit, data="drawn", say=say)
    return source


def contenders(tree: Tree, source: Path, out: Path) -> dict[str, Command]:
    return {
        YARDSTICK: ["cp", "-r", source, out],
        OURS: pad(source, out),
        IN_MEMORY[tree.in_memory]: recipe.command(tree.in_memory, source, out, PADDED),
    }


def measure(tree: Tree, source: Path, config: pytest.Config, say: Say) -> Measured:
    weights = sorted(source.glob("*.safetensors"))
    nbytes = sum(path.stat().st_size for path in weights)
    out = source.with_name("out")
    commands = contenders(tree, source, out)
    not_run = {}
    if psutil.virtual_memory().available < IN_MEMORY_NEED * nbytes:
        name = IN_MEMORY[tree.in_memory]
        del commands[name]
        not_run[name] = f"it needs {IN_MEMORY_NEED * nbytes / 1e9:.0f} GB of memory"
    costs = take_turns(commands, config, (source, out), say)
    return Measured(tree.name, nbytes, len(weights), costs, not_run)


def take_turns(
    commands: Mapping[str, Command], config: pytest.Config, paths: tuple[Path, Path], say: Say
) -> dict[str, list[Cost]]:
    source, out = paths
    costs: dict[str, list[Cost]] = {name: [] for name in commands}
    rounds: int = config.getoption("--rounds")
    names = list(commands)
    for index in range(rounds):
        first = index % len(names)
        for name in names[first:] + names[:first]:
            place_in_cache(source, config.getoption("--source"))
            cost = run(commands[name], out=out, log=out.with_name("log"))
            shutil.rmtree(out)
            costs[name].append(cost)
            peak = cost.peak_bytes / 2**30
            say(f"round {index + 1} of {rounds}: {name} {cost.wall_s:.1f} s, {peak:.2f} GiB")
    return costs


def place_in_cache(source: Path, where: str) -> None:
    """The same start for everyone; nothing of the run before is left to be written."""
    os.sync()
    for path in source.glob("*.safetensors"):
        with path.open("rb") as file:
            if where == "cold":
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            else:
                while file.read(1 << 24):
                    pass
