"""The 72B at its real size: every name, shape and shard of it, whatever its numbers are.

As holes it takes no room, and neither does what is made of it, once zeros are written as holes;
with numbers it takes twice its size and runs where the disk has that, or with fewer --layers.
"""

from __future__ import annotations

import json
import math
import shutil
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import pytest

from suites.benchmarks.generated import Data, entries, write_checkpoint
from suites.benchmarks.shapes import PADDED_72B, WIDTH_72B, qwen_vl_72b
from suites.benchmarks.timed import Cost, run

pytestmark = pytest.mark.benchmarks

Header: TypeAlias = dict[str, Any]
SHARD_BYTES: Final = 4_000_000_000
MEMORY_LIMIT_BYTES: Final = 1 << 30
# Of a 128-wide group more: 4 bits a weight, and 4 + 16 bits a group of 128 for zero and scale.
ADDED_BYTES_PER_LAYER: Final = 3 * (PADDED_72B - WIDTH_72B) * 8192 * (4 + 20 / 128) / 8
MODULES: Final = 3  # gate, up, down
PARTS: Final = 3  # qweight, qzeros, scales


@dataclass(frozen=True, slots=True)
class Padded:
    """The 72B and its padded copy, with what both were before and after, and what it cost."""

    layers: int
    source: Path
    out: Path
    before: dict[str, tuple[int, ...]]
    made: Cost
    verified: Cost


@pytest.fixture(scope="module", params=["holes", "drawn"])
def padded(
    request: pytest.FixtureRequest,
    pytestconfig: pytest.Config,
    tmp_path_factory: pytest.TempPathFactory,
    say: Callable[[str], None],
) -> Iterator[Padded]:
    """Made by the command itself, in a process of its own."""
    data: Data = request.param
    layers: int = pytestconfig.getoption("--layers")
    room = tmp_path_factory.mktemp(f"scale-{data}")
    require_room(room, qwen_vl_72b(layers), data)
    source, out, log = room / "source", room / "out", room / "log"
    try:
        config = qwen_vl_72b(layers)
        write_checkpoint(source, config, limit_bytes=SHARD_BYTES, data=data, say=say)
        before = state(source)
        command = [sys.executable, "-m", "fixtures.variants"]
        made = run(
            [*command, "pad", source, "--out", out, "--to", str(PADDED_72B)], out=out, log=log
        )
        say(told("padded", made, out))
        verified = run([*command, "verify", out], log=log)
        say(told("verified", verified, out))
        yield Padded(layers, source, out, before, made, verified)
    finally:
        shutil.rmtree(room)


def test_neither_making_nor_proving_it_takes_a_gibibyte(padded: Padded) -> None:
    assert padded.made.peak_bytes < MEMORY_LIMIT_BYTES
    assert padded.verified.peak_bytes < MEMORY_LIMIT_BYTES


def test_every_tensor_has_the_shape_of_the_padded_config(padded: Padded) -> None:
    config = qwen_vl_72b(padded.layers, width=PADDED_72B)
    expected = {entry.name: (entry.dtype, list(entry.shape)) for entry in entries(config)}
    found = {
        name: (entry["dtype"], entry["shape"])
        for path in padded.out.glob("*.safetensors")
        for name, entry in header(path).items()
    }
    assert found == expected


def test_no_tensor_is_lost_or_in_another_shard(padded: Padded) -> None:
    assert placement(padded.out) == placement(padded.source)
    assert index(padded.out)["weight_map"] == placement(padded.out)
    assert index(padded.source)["weight_map"] == placement(padded.source)


def test_what_was_added_is_three_projections_a_layer(padded: Padded) -> None:
    totals = [index(path)["metadata"]["total_size"] for path in (padded.source, padded.out)]
    assert totals == [data_bytes(padded.source), data_bytes(padded.out)]
    assert totals[1] - totals[0] == padded.layers * ADDED_BYTES_PER_LAYER
    assert len(changed(padded)) == padded.layers * MODULES * PARTS


def test_the_shards_are_the_sources_and_hardly_larger(padded: Padded) -> None:
    names = [path.name for path in sorted(padded.source.glob("*.safetensors"))]
    assert [path.name for path in sorted(padded.out.glob("*.safetensors"))] == names
    assert len(names) >= 11 or padded.layers < 80
    for name in names:
        growth = (padded.out / name).stat().st_size / (padded.source / name).stat().st_size
        assert 1 <= growth <= PADDED_72B / WIDTH_72B


def test_the_source_is_as_it_was(padded: Padded) -> None:
    assert state(padded.source) == padded.before


def test_a_copy_of_holes_is_of_holes(padded: Padded) -> None:
    if stored_bytes(padded.source) > data_bytes(padded.source) / 2:
        pytest.skip("this one is of numbers")
    # Scales of added channels are ones: all that has to be stored, but for headers.
    ones = padded.layers * MODULES * 8192 * 2 * (PADDED_72B - WIDTH_72B) / 128
    assert stored_bytes(padded.out) < 1.5 * 2 * ones * 128 + (64 << 20)


def header(path: Path) -> Header:
    """Read by the format's own description: length, JSON, data."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        found: Header = json.loads(file.read(length))
    found.pop("__metadata__", None)
    return found


def index(directory: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((directory / "model.safetensors.index.json").read_text())
    return found


def placement(directory: Path) -> dict[str, str]:
    """Tensor → file, by the headers; a tensor in two files is counted as neither's."""
    found: dict[str, str] = {}
    for path in sorted(directory.glob("*.safetensors")):
        for name in header(path):
            assert name not in found, f"{name} is in {found[name]} and in {path.name}"
            found[name] = path.name
    return found


def data_bytes(directory: Path) -> int:
    ends = (header(path).values() for path in directory.glob("*.safetensors"))
    return sum(max(entry["data_offsets"][1] for entry in found) for found in ends)


def changed(padded: Padded) -> list[str]:
    shapes = [
        {n: e["shape"] for path in folder.glob("*.safetensors") for n, e in header(path).items()}
        for folder in (padded.source, padded.out)
    ]
    return [name for name in shapes[0] if shapes[0][name] != shapes[1].get(name)]


def state(directory: Path) -> dict[str, tuple[int, ...]]:
    """What tells whether a file was written to or replaced; a link to it changes none of these."""
    found: dict[str, tuple[int, ...]] = {}
    for path in directory.iterdir():
        status = path.stat()
        found[path.name] = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_blocks)
    return found


def stored_bytes(directory: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in directory.iterdir())


def told(what: str, cost: Cost, out: Path) -> str:
    return (
        f"{what} {data_bytes(out) / 1e9:.1f} GB in {cost.wall_s:.0f} s, "
        f"{cost.peak_bytes / 2**30:.2f} GiB resident, {stored_bytes(out) / 1e9:.2f} GB stored"
    )


def require_room(room: Path, config: dict[str, Any], data: Data) -> None:
    nbytes = sum(entry.nbytes for entry in entries(config))
    copies = 2.1 if data == "drawn" else 1.1  # holes are asked for as if they were none
    free = shutil.disk_usage(room).free
    if free < math.ceil(copies * nbytes):
        pytest.skip(
            f"{room} has {free / 1e9:.0f} GB free, expected {copies * nbytes / 1e9:.0f}: give "
            "--basetemp DIR on another disk, or fewer --layers"
        )
