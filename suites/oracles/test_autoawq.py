"""Our dequantization agrees, bit for bit, with AutoAWQ's of what AutoAWQ itself quantized."""

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

from fixtures.checkpoint.packing import dequantize_awq
from fixtures.checkpoint.tensors import read_checkpoint, read_tensor
from fixtures.requantized import located
from fixtures.variants import build_padded, build_trimmed

pytestmark = pytest.mark.oracles

SCRIPT = Path(__file__).parent / "inside" / "autoawq_unpacked.py"
VARIANTS = ("original", "padded", "trimmed", "requantized")
LAYERS = 2 * 7  # q, k, v, o; gate, up, down


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
            return build_padded(original, out, to=1024).directory
        if variant == "trimmed":
            return build_trimmed(original, out, to=768).directory
        return Path(located(f"requantize:{variant}"))

    return found


def theirs(checkpoint: Path, out: Path) -> dict[str, np.ndarray]:
    """Weights `[inputs, outputs]` of every quantized module, as AutoAWQ unpacks them."""
    ended = subprocess.run(
        [sys.executable, str(SCRIPT), str(checkpoint), str(out)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert ended.returncode == 0, ended.stdout[-4000:]
    with np.load(out) as answer:
        return dict(answer)


def ours(directory: Path, module: str) -> np.ndarray:
    checkpoint = read_checkpoint(directory)
    qweight, qzeros, scales = (
        read_tensor(checkpoint.tensors[f"{module}.{part}"])
        for part in ("qweight", "qzeros", "scales")
    )
    return dequantize_awq(qweight, qzeros, scales, checkpoint.config.quant.group_size)


@pytest.mark.parametrize("variant", VARIANTS)
def test_weights_are_those_autoawq_unpacks(
    variant: str, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    directory = checkpoint(variant)
    answers = theirs(directory, tmp_path / "answer.npz")
    assert len(answers) == LAYERS
    for module, expected in answers.items():
        np.testing.assert_array_equal(ours(directory, module), expected)
