"""Groups chosen by what they do, and refits: written, proven, and told from copies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fixtures.calibration import Moments, Statistics
from fixtures.errors import InputError, ProofError
from fixtures.texts import Texts
from fixtures.trimming import How, as_stored
from fixtures.variants import build_trimmed, main, verify
from suites.selftest.test_proof import forge
from suites.selftest.tiny import Tiny, arrays_in, flip

DOWN = "model.layers.1.mlp.down_proj"
TEXTS = Texts("notes.txt", ("a", "b", "c", "d"))


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """Activations `[tokens, 96]` in which each channel of the first group follows another's."""
    random = np.random.default_rng(0)
    inputs = random.normal(size=(400, 96))
    inputs[:, :32] = 0.1 * inputs[:, 32:64] + 0.001 * random.normal(size=(400, 32))

    def statistics(*_: Any, moments: bool, **__: Any) -> Iterator[tuple[str, Statistics]]:
        product = inputs.T @ inputs / len(inputs)
        found = Moments(product, product) if moments else None
        for layer in range(2):
            mean_square = (inputs**2).mean(axis=0)
            yield f"model.layers.{layer}.mlp", Statistics(mean_square, len(inputs), found)

    monkeypatch.setattr("fixtures.trimming.statistics", statistics)
    return inputs


def trimmed(tmp_path: Path, how: How, **tiny: Any) -> tuple[Path, dict[str, Any]]:
    source = Tiny(**tiny).write(tmp_path / "source")
    variant = build_trimmed(source, tmp_path / "out", to=64, how=how)
    return variant.directory, variant.manifest


@pytest.mark.usefixtures("measured")
@pytest.mark.parametrize("quant", ["awq", "none"])
def test_the_group_that_does_least_goes_and_the_choice_is_recorded(
    tmp_path: Path, quant: str
) -> None:
    out, manifest = trimmed(tmp_path, How("activations", TEXTS), quant=quant)
    assert manifest["kept_groups"] == {f"model.layers.{n}.mlp": [1, 2] for n in (0, 1)}
    assert manifest["choice"] == {"by": "activations", "texts": TEXTS.to_json()}
    assert verify(out).proof["tensors_identical_in_real_channels"] == len(arrays_in(out))


def test_a_refit_stands_in_for_what_was_dropped(tmp_path: Path, measured: np.ndarray) -> None:
    out, manifest = trimmed(tmp_path, How("activations", TEXTS, refit=True), quant="none")
    before, after = (
        arrays_in(d)[f"{DOWN}.weight"].astype(float) for d in (out.parent / "source", out)
    )
    wanted, left = measured @ before.T, measured[:, 32:]
    errors = [np.linalg.norm(left @ w.T - wanted) for w in (before[:, 32:], after)]
    assert errors[1] < 0.1 * errors[0]
    assert manifest["refits"][f"{DOWN}.weight"]["error_after"] < 0.1
    assert verify(out).proof["tensors_refitted"] == 2
    assert not (out / ".refits").exists()


@pytest.mark.usefixtures("measured")
def test_a_refit_is_held_to_its_digest_and_everything_else_to_the_source(tmp_path: Path) -> None:
    out, _ = trimmed(tmp_path, How("activations", TEXTS, refit=True), quant="none")
    name = f"{DOWN.replace('down', 'up')}.weight"
    forge(out, lambda arrays: arrays[name].__setitem__((3, 3), 7))
    with pytest.raises(ProofError, match=rf"{name} differs from the source"):
        verify(out)
    flip(out / "model.safetensors", -1)
    with pytest.raises(ProofError, match="has SHA-256"):
        verify(out)


@pytest.mark.usefixtures("measured")
def test_quantized_weights_are_not_refitted(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is quantized, expected weights that can take any value"):
        trimmed(tmp_path, How("activations", TEXTS, refit=True))
    assert not (tmp_path / "out").exists()


def test_blind_drops_the_last_groups(tmp_path: Path) -> None:
    _, manifest = trimmed(tmp_path, How("position"))
    assert manifest["kept_groups"]["model.layers.0.mlp"] == [0, 1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--refit"], "--refit has nothing to fit to"),
        (["--calibration", "nowhere.txt"], "nowhere.txt does not exist"),
    ],
)
def test_options_that_mean_nothing_are_refused(
    tmp_path: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = Tiny().write(tmp_path / "source")
    assert main(["trim", str(source), "--to", "64", *arguments]) == 2
    assert words in capsys.readouterr().err


def test_bfloat16_is_rounded_to_the_nearest_and_to_even_between_two() -> None:
    values = np.array([1.0, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, -2.0])
    expected = [0x3F80, 0x3F80, 0x3F82, 0x3F81, 0xC000]
    assert as_stored(values, np.dtype(np.uint16)).tolist() == expected
    assert as_stored(values, np.dtype(np.float16)).dtype == np.float16
