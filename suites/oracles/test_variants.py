"""Variants of every format, as others read them: the source's weights, and zeros, bit for bit.

Nothing of ours dequantizes here. What the engine and the formats' own libraries make of a variant
is held against what they make of its source.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
import pytest

from fixtures.miniature import Quantization
from fixtures.variants import Variant, build_padded, build_regrouped, build_trimmed
from suites.oracles.conftest import Answers, Weights
from suites.oracles.test_weights import BY_LIBRARY, QUANTIZED

pytestmark = pytest.mark.oracles

Case: TypeAlias = tuple[Quantization, str]
WIDTH, WIDER, NARROWER, GROUP = 896, 1024, 768, 128
UNSPLIT: Final = ("gptq-act", "compressed-tensors-channel", "fp8")


def cases() -> Iterator[Case]:
    for quant in QUANTIZED:
        yield quant, "padded"
        if quant != "gptq-act":
            yield quant, "trimmed"
        if quant not in UNSPLIT:
            yield quant, "regrouped"


def build(source: Path, out: Path, operation: str) -> Variant:
    if operation == "padded":
        return build_padded(source, out, to=WIDER)
    if operation == "trimmed":
        return build_trimmed(source, out, to=NARROWER)
    return build_regrouped(source, out, to=GROUP // 2)


@pytest.fixture(scope="module")
def built(
    miniature: Callable[[Quantization], Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[Case, Variant]:
    folder = tmp_path_factory.mktemp("variants")
    return {
        (quant, operation): build(miniature(quant), folder / f"{quant}-{operation}", operation)
        for quant, operation in cases()
    }


@pytest.fixture(scope="module", params=("engine", "library"))
def read(
    request: pytest.FixtureRequest,
    built: dict[Case, Variant],
    miniature: Callable[[Quantization], Path],
    answers: Answers,
) -> dict[Case, Weights]:
    """What somebody else makes of every variant and, as operation `source`, of what it is of."""
    known = BY_LIBRARY if request.param == "library" else QUANTIZED
    paths: dict[Case, Path] = {(quant, "source"): miniature(quant) for quant in known}
    paths |= {case: one.directory for case, one in built.items() if case[0] in known}
    return dict(zip(paths, answers(request.param, list(paths.values())), strict=True))


def held(found: Weights, source: Weights, case: Case, built: dict[Case, Variant]) -> None:
    """Every module's weights `[outputs, inputs]` are the source's in its real channels, else 0."""
    assert found.keys() == source.keys()
    for module, weights in found.items():
        before = source[module]
        if ".mlp." not in module or case[1] == "regrouped":
            np.testing.assert_array_equal(weights, before, module)
            continue
        if module.endswith("down_proj"):
            weights, before = weights.T, before.T
        if case[1] == "padded":
            np.testing.assert_array_equal(weights[:WIDTH], before, module)
            assert weights.shape[0] == WIDER
            assert not weights[WIDTH:].any()
            continue
        manifest = built[case].manifest
        kept, step = manifest["kept_groups"], int(manifest["granule"])  # type: ignore[call-overload]
        groups = np.array(kept[module.rpartition(".")[0]])  # type: ignore[index]
        channels = (groups[:, None] * step + np.arange(step)).reshape(-1)
        np.testing.assert_array_equal(weights, before[channels], module)


@pytest.mark.parametrize("case", list(cases()), ids="-".join)
def test_others_read_the_same_weights(
    case: Case, read: dict[Case, Weights], built: dict[Case, Variant]
) -> None:
    if case not in read:
        pytest.skip("transformers reads AWQ and GPTQ with gptqmodel, which is not installed here")
    held(read[case], read[case[0], "source"], case, built)
