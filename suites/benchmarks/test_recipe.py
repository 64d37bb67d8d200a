"""What ours is compared with does the same work, else the comparison would be worth nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from fixtures.checkpoint.tensors import INDEX
from fixtures.variants import build_padded
from suites.benchmarks.recipe import command
from suites.benchmarks.timed import run
from suites.selftest.tiny import Tiny, arrays_in

pytestmark = pytest.mark.benchmarks


def test_packed_weights_padded_by_hand_are_those_of_our_pad(tmp_path: Path) -> None:
    source = Tiny(shards=3).write(tmp_path / "source")
    run(command("by-hand", source, tmp_path / "hand", 128), log=tmp_path / "log")
    ours = build_padded(source, tmp_path / "ours", to=128).directory
    mine, theirs = arrays_in(tmp_path / "hand"), arrays_in(ours)
    assert mine.keys() == theirs.keys()
    assert all(np.array_equal(mine[name], theirs[name]) for name in mine)
    assert (ours / INDEX).exists() == (tmp_path / "hand" / INDEX).exists()


def test_the_makers_recipe_puts_a_zero_channel_behind_each_of_the_first(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    source = Tiny(quant="none").write(tmp_path / "source")
    run(command("recipe", source, tmp_path / "out", 128), log=tmp_path / "log")
    padded = torch.load(tmp_path / "out" / "pytorch_model.bin")
    original = load_file(source / "model.safetensors")
    for role, axis in (("gate", 0), ("up", 0), ("down", 1)):
        name = f"model.layers.1.mlp.{role}_proj.weight"
        found = np.moveaxis(padded[name].numpy(), axis, 0)
        assert not found[1:64:2].any()
        real = np.concatenate((found[0:64:2], found[64:]))
        assert np.array_equal(real, np.moveaxis(original[name], axis, 0))


def test_a_peak_is_the_commands_own_and_not_ours(tmp_path: Path) -> None:
    mine = bytearray(400 << 20)
    small = run(["true"], log=tmp_path / "log")
    large = run(["python3", "-c", "x = bytearray(300 << 20)"], log=tmp_path / "log")
    assert small.peak_bytes < 100 << 20 < 300 << 20 < large.peak_bytes < len(mine)
