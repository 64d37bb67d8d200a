"""Our dequantization agrees, bit for bit, with those who define the formats and who serve them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fixtures.miniature import QUANTIZATIONS, Quantization
from suites.oracles.conftest import Ask, ours

pytestmark = pytest.mark.oracles

QUANTIZED = [quant for quant in QUANTIZATIONS if quant != "none"]
# transformers reads the others with gptqmodel, which this suite does not install.
BY_LIBRARY = [quant for quant in QUANTIZED if quant.startswith(("compressed", "fp8"))]


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
