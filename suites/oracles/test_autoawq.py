"""Weights that AutoAWQ itself quantized: we read them, and pad them, as AutoAWQ unpacks them."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from fixtures.checkpoint.packing import as_float32
from fixtures.checkpoint.tensors import read_checkpoint, read_tensor
from fixtures.requantized import located
from fixtures.variants import build_padded, build_regrouped, build_trimmed
from suites.oracles.conftest import Weights, ours

pytestmark = pytest.mark.oracles

SCRIPT = Path(__file__).parent / "inside" / "autoawq_unpacked.py"
VARIANTS = ("original", "padded", "trimmed", "regrouped", "requantized")
LAYERS = 2 * 7  # q, k, v, o; gate, up, down
WIDTH, PADDED, HIDDEN = 896, 1024, 1024


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """AutoAWQ's two checkpoints, and what we make of the first."""
    if importlib.util.find_spec("awq") is None:
        pytest.skip("AutoAWQ is not installed in this environment: `tox -e requantize`")
    original = Path(located("requantize:original"))

    @cache
    def found(variant: str) -> Path:
        out = tmp_path_factory.mktemp("variants") / variant
        if variant == "padded":
            return build_padded(original, out, to=PADDED).directory
        if variant == "trimmed":
            return build_trimmed(original, out, to=768).directory
        if variant == "regrouped":
            return build_regrouped(original, out, to=32).directory
        return Path(located(f"requantize:{variant}"))

    return found


@pytest.fixture(scope="module")
def theirs(
    checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Weights]:
    """Weights `[outputs, inputs]` of a variant's every quantized module, as AutoAWQ unpacks it."""

    @cache
    def unpacked(variant: str) -> Weights:
        out = tmp_path_factory.mktemp("answers") / "answer.npz"
        ended = subprocess.run(
            [sys.executable, str(SCRIPT), str(checkpoint(variant)), str(out)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert ended.returncode == 0, ended.stdout[-4000:]
        with np.load(out) as answer:
            return dict(answer)

    return unpacked


@pytest.mark.parametrize("variant", VARIANTS)
def test_weights_are_those_autoawq_unpacks(
    variant: str, checkpoint: Callable[[str], Path], theirs: Callable[[str], Weights]
) -> None:
    answers = theirs(variant)
    assert len(answers) == LAYERS
    for module, expected in answers.items():
        found = ours(checkpoint(variant), module, expected.shape)
        np.testing.assert_array_equal(found, expected)


def test_a_padded_checkpoint_is_the_original_and_zeros_to_autoawq(
    theirs: Callable[[str], Weights],
) -> None:
    original, padded = theirs("original"), theirs("padded")
    widened = 0
    for module, before in original.items():
        rows, columns = before.shape
        np.testing.assert_array_equal(padded[module][:rows, :columns], before)
        added = padded[module].size - before.size
        assert np.count_nonzero(padded[module]) == np.count_nonzero(before)
        assert added == (PADDED - WIDTH) * HIDDEN * (".mlp." in module)
        widened += added > 0
    assert widened == 2 * 3


def test_regrouping_changes_no_weight_to_autoawq(theirs: Callable[[str], Weights]) -> None:
    original, regrouped = theirs("original"), theirs("regrouped")
    assert original.keys() == regrouped.keys()
    for module, before in original.items():
        np.testing.assert_array_equal(regrouped[module], before)


def test_channels_added_before_quantizing_are_zero_after_it(
    theirs: Callable[[str], Weights],
) -> None:
    for module, weights in theirs("requantized").items():
        if ".mlp." in module:
            channels = weights.T if module.endswith("down_proj") else weights
            assert channels.shape == (PADDED, HIDDEN)
            # One right after each of the first 128.
            assert list(np.flatnonzero(~channels.any(axis=1))) == list(range(1, 256, 2))


def mlp(layer: str, norm: np.ndarray, weights: Weights) -> np.ndarray:
    """What one MLP makes of noise."""
    noise = np.random.default_rng(20).standard_normal((64, HIDDEN)) * norm
    gate, up = (noise @ weights[f"{layer}.mlp.{role}_proj"].T for role in ("gate", "up"))
    found: np.ndarray = (gate / (1 + np.exp(-gate)) * up) @ weights[f"{layer}.mlp.down_proj"].T
    return found


@pytest.mark.parametrize("variant", ["original", "requantized"])
def test_autoawq_rounds_and_does_nothing_else(
    variant: str, checkpoint: Callable[[str], Path], theirs: Callable[[str], Weights]
) -> None:
    dense = read_checkpoint(checkpoint("unquantized")).tensors
    scaled = read_checkpoint(checkpoint(variant)).tensors
    for layer in ("model.layers.0", "model.layers.1"):
        norm = f"{layer}.post_attention_layernorm.weight"
        names = [f"{layer}.mlp.{role}_proj" for role in ("gate", "up", "down")]
        weights = {name: as_float32(read_tensor(dense[f"{name}.weight"])) for name in names}
        exact = mlp(layer, as_float32(read_tensor(dense[norm])), weights)
        found = mlp(layer, as_float32(read_tensor(scaled[norm])), theirs(variant))
        error = np.linalg.norm(found - exact) / np.linalg.norm(exact)
        # Three layers in a row, each off by 0.095 from rounding to 15 steps: 0.16.
        assert 0.1 < error < 0.2
