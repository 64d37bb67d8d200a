"""The trained miniature is what its file says, as near as each format can hold it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fixtures import miniature
from fixtures.checkpoint.packing import as_float32
from fixtures.checkpoint.tensors import file_digest, read_checkpoint, read_tensor
from fixtures.checkpoint.weights import Linear
from fixtures.errors import InputError
from fixtures.matrix import Matrix
from fixtures.miniature import QUANTIZATIONS, Quantization, Recipe, cached_miniature, tensors
from fixtures.miniature_grid import Grid
from fixtures.miniature_rounding import Rounded
from fixtures.tokenizer import SPECIAL_TOKENS
from fixtures.trained import FILE, Trained, write_trained

# The file is the model: another one has other answers.
DIGEST = "d30bfa38a62273b6f1b9057a00fd1a97e64e4967805c3f1e4f0734cb1e388891"
DOWN = "model.layers.1.mlp.down_proj"
# RMS of what rounding changes, relative to the weights; 15 steps over a group of near-normal
# weights leave about 0.1, one scale for all inputs of an output more.
ERRORS: dict[Quantization, float] = dict.fromkeys(QUANTIZATIONS, 0.13) | {
    "compressed-tensors-channel": 0.2,
    "compressed-tensors-int8": 0.01,
    "fp8": 0.03,
    "none": 0.002,
}


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> dict[Quantization, Path]:
    root = tmp_path_factory.mktemp("trained")
    return {quant: cached_miniature(quant, trained=True, root=root) for quant in QUANTIZATIONS}


def by_hand(name: str) -> NDArray[np.float32]:
    """Value times scale, row by row, by the library's reader."""
    safetensors = pytest.importorskip("safetensors")
    with safetensors.safe_open(FILE, "np") as file:
        scales, values = file.get_tensor(f"{name}.scale"), file.get_tensor(name)
    rows = zip(values, scales, strict=True)
    return np.array([row.astype(np.float64) * scale for row, scale in rows], np.float32)


def linear(directory: Path, module: str, inputs: int, outputs: int) -> NDArray[np.float32]:
    checkpoint = read_checkpoint(directory)
    parts = {
        name.rpartition(".")[2]: info
        for name, info in checkpoint.tensors.items()
        if name.rpartition(".")[0] == module
    }
    scheme = checkpoint.config.quant.scheme((module,))
    return Linear(module, scheme, inputs, outputs, parts).weights()


def test_the_file_is_the_one_that_was_measured_and_small_enough_to_keep() -> None:
    assert file_digest(FILE) == DIGEST
    assert FILE.stat().st_size <= 16_000_000


@pytest.mark.parametrize("quant", QUANTIZATIONS)
def test_a_format_holds_what_the_file_says(
    quant: Quantization, directories: dict[Quantization, Path]
) -> None:
    said, held = by_hand(f"{DOWN}.weight"), linear(directories[quant], DOWN, 896, 1024)
    error = np.sqrt(((held - said) ** 2).mean() / (said**2).mean())
    assert error < ERRORS[quant]
    assert (error < ERRORS[quant] / 20) == (quant == "none" and error == 0.0)


@pytest.mark.parametrize(
    "alike",
    [
        ("gptq", "gptq-v2", "compressed-tensors"),
        ("awq", "gptq-asym", "compressed-tensors-asym"),
    ],
)
def test_formats_of_the_same_grid_hold_the_same_weights(
    alike: tuple[Quantization, ...], directories: dict[Quantization, Path]
) -> None:
    first, *others = (linear(directories[quant], DOWN, 896, 1024) for quant in alike)
    for other in others:
        np.testing.assert_array_equal(other, first)


def test_what_is_not_quantized_is_the_nearest_of_its_type(
    directories: dict[Quantization, Path],
) -> None:
    said = by_hand("visual.merger.mlp.0.weight")
    for quant, steps in (("awq", 2.0**-11), ("none", 2.0**-8)):
        info = read_checkpoint(directories[quant]).tensors["visual.merger.mlp.0.weight"]  # type: ignore[index]
        held = as_float32(read_tensor(info))
        assert (np.abs(held - said) <= np.abs(said) * steps + 2.0**-25).all()


def small(seed: int, outputs: int = 8, inputs: int = 256) -> Rounded:
    drawn = np.random.default_rng(seed).normal(0.01, 0.05, (outputs, inputs))
    return Rounded(3, "layer", drawn.astype(np.float32), 128)


@pytest.mark.parametrize(
    "grid",
    [
        Grid(symmetric=False),
        Grid(),
        Grid(bits=8),
        Grid(channel=True),
        Grid(ordered=True),
        Grid(symmetric=False, ordered=True),
    ],
)
def test_no_other_integer_is_nearer(grid: Grid) -> None:
    layer = small(1)
    found = layer.integers(grid)
    groups = layer.order() if grid.ordered else np.arange(256) // (256 if grid.channel else 128)
    for i in range(0, 256, 7):
        for o in range(8):
            scale, zero = found.scales[groups[i], o], int(found.zeros[groups[i], o])
            choices = (np.arange(1 << grid.bits) - zero) * np.float64(scale)
            best = np.abs(choices - layer.weights[o, i]).min()
            chosen = choices[found.values[i, o]]
            assert abs(chosen - layer.weights[o, i]) <= best + 1e-9
            # A step is no larger than the group's reach makes it.
            assert best <= 0.51 * scale or zero in (1, 1 << (grid.bits - 1))


def test_a_group_of_zeros_stays_zero() -> None:
    layer = replace(small(2), weights=np.zeros((8, 256), np.float32))
    for grid in (Grid(), Grid(symmetric=False)):
        found = layer.integers(grid)
        assert (found.values == found.zeros[0, 0]).all()
    assert not layer.blocks().codes.any()


def test_rows_round_to_their_own_255_values(tmp_path: Path) -> None:
    drawn = np.random.default_rng(4).normal(size=(5, 40)).astype(np.float32)
    write_trained(tmp_path / "t.safetensors", {"layer.weight": drawn, "norm.weight": drawn[0]})
    file = Trained(tmp_path / "t.safetensors")
    found = file.weight("layer.weight", (5, 40))
    step = np.abs(drawn).max(axis=1, keepdims=True) / 127
    assert (np.abs(found - drawn) <= 0.51 * step).all()
    np.testing.assert_allclose(file.weight("norm.weight", (40,)), drawn[0], rtol=2.0**-11)


def test_tokens_no_text_has_are_zero_and_frames_are_equal() -> None:
    table = Trained().weight("lm_head.weight", (512, 1024))
    used = max(SPECIAL_TOKENS.values()) + 1
    assert used < len(table)
    assert not table[used:].any()
    assert table[:used].any(axis=1).all()
    patches = Trained().weight("visual.patch_embed.proj.weight", (256, 3, 2, 14, 14))
    np.testing.assert_array_equal(patches[:, :, 0], patches[:, :, 1])


def test_both_miniatures_have_the_same_tensors() -> None:
    def shapes(recipe: Recipe) -> list[tuple[Any, ...]]:
        return [(tensor.name, tensor.dtype, tensor.shape) for tensor in tensors(recipe)]

    assert shapes(Recipe(trained=True)) == shapes(Recipe())


def test_its_recipe_is_another_and_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {Recipe().digest(), Recipe(trained=True).digest()}
    (tmp_path / "other").write_bytes(b"other weights")
    monkeypatch.setattr(miniature, "TRAINED", Trained(tmp_path / "other"))
    after = {Recipe().digest(), Recipe(trained=True).digest()}
    assert len(before | after) == 3
    assert Recipe().digest() in before


def test_other_sizes_were_not_trained() -> None:
    with pytest.raises(InputError, match=r"is \[896, 1024\], expected \[768, 1024\]"):
        tuple(tensors(Recipe(trained=True, intermediate_size=768)))
    with pytest.raises(InputError, match=r"has no model\.layers\.2\."):
        tuple(tensors(Recipe(trained=True, layers=3)))


def test_the_matrix_takes_it_by_name() -> None:
    def matrix(name: str) -> Matrix:
        return Matrix(name, ["padded"], (1, 2), "cpu", {}, lambda _: None)

    assert matrix("miniature-trained:awq").miniature == Recipe(trained=True)
    assert matrix("miniature:awq").miniature == Recipe()
    assert matrix("miniature-trained:awq").original == matrix("miniature:awq").original
    with pytest.raises(InputError, match="no miniature named 'miniature-trained:awk'"):
        matrix("miniature-trained:awk")


def test_the_command_line_writes_it(tmp_path: Path) -> None:
    assert miniature.main(["--out", str(tmp_path / "mini"), "--trained"]) == 0
    found = read_checkpoint(tmp_path / "mini")
    assert file_digest(found.directory / "model.safetensors") != (
        "a3c8b80f443d8eef4c0bfe88e5dc661b4ab344113c4565ea14079bc0587d5d6a"  # the random one's
    )
