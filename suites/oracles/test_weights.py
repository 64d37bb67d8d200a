"""Our dequantization agrees, bit for bit, with those who define the formats and who serve them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fixtures.checkpoint.tensors import read_checkpoint
from fixtures.checkpoint.weights import Linear
from fixtures.miniature import QUANTIZATIONS, Quantization
from suites.oracles.conftest import Ask

pytestmark = pytest.mark.oracles

QUANTIZED = [quant for quant in QUANTIZATIONS if quant != "none"]
# transformers reads the others with gptqmodel, which this suite does not install.
BY_LIBRARY = [quant for quant in QUANTIZED if quant.startswith(("compressed", "fp8"))]


def ours(directory: Path, module: str, shape: tuple[int, ...]) -> np.ndarray:
    checkpoint = read_checkpoint(directory)
    parts = {
        name.rpartition(".")[2]: info
        for name, info in checkpoint.tensors.items()
        if name.rpartition(".")[0] == module
    }
    outputs, inputs = shape
    scheme = checkpoint.config.quant.scheme((module,))
    return Linear(module, scheme, inputs, outputs, parts).weights()


@pytest.mark.parametrize("quant", BY_LIBRARY)
def test_weights_are_those_of_the_formats_own_library(
    quant: Quantization, miniature: Callable[[Quantization], Path], ask: Ask
) -> None:
    answers = ask("library", quant)
    assert len(answers) == 7  # q, k, v, o; gate, up, down
    for module, theirs in answers.items():
        np.testing.assert_array_equal(ours(miniature(quant), module, theirs.shape), theirs)


@pytest.mark.parametrize("quant", QUANTIZED)
def test_weights_are_those_the_engine_unpacks(
    quant: Quantization, miniature: Callable[[Quantization], Path], ask: Ask
) -> None:
    answers = ask("engine", quant)
    assert len(answers) == 7
    for module, theirs in answers.items():
        np.testing.assert_array_equal(ours(miniature(quant), module, theirs.shape), theirs)
