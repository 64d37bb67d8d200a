from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from fixtures.checkpoint.tensors import read_checkpoint
from fixtures.errors import InputError, ProofError
from fixtures.miniature import Quantization, Recipe, write_miniature
from fixtures.repairs import regrouped, smaller_groups
from fixtures.variants import build_regrouped, main, verify
from suites.selftest import small_configs
from suites.selftest.drawn import write_drawn
from suites.selftest.test_proof import forge
from suites.selftest.tiny import Arrays, arrays_in

DOWN = "model.layers.0.mlp.down_proj"
# The tensors that have a step for each group, and the axis it lies on.
GROUPED: dict[Quantization, dict[str, int]] = {
    "awq": {"scales": 0, "qzeros": 0},
    "gptq": {"scales": 0, "qzeros": 0},
    "gptq-v2": {"scales": 0, "qzeros": 0},
    "gptq-asym": {"scales": 0, "qzeros": 0},
    "compressed-tensors": {"weight_scale": 1},
    "compressed-tensors-asym": {"weight_scale": 1, "weight_zero_point": 1},
    "compressed-tensors-int8": {"weight_scale": 1},
}


def mini(directory: Path, quant: Quantization) -> Path:
    directory.mkdir()
    recipe = Recipe(quant=quant, hidden_size=256, heads=4, kv_heads=2, layers=1, vision_depth=1)
    write_miniature(directory, recipe)
    return directory


@pytest.mark.parametrize("quant", GROUPED)
def test_every_group_is_written_twice_and_nothing_else_changes(
    tmp_path: Path, quant: Quantization
) -> None:
    source = mini(tmp_path / "source", quant)
    out = build_regrouped(source, tmp_path / "out", to=64).directory
    before, after = arrays_in(source), arrays_in(out)
    axes = GROUPED[quant]
    for name, array in before.items():
        module, _, part = name.rpartition(".")
        if part in axes:
            array = np.repeat(array, 2, axis=axes[part])
        elif part == "g_idx":
            array = np.arange(len(array)) // 64
        assert np.array_equal(after[name], array), f"{module} {part}"
    assert before.keys() == after.keys()
    assert read_checkpoint(out).config.quant.group_size == 64
    assert not verify(out).not_proven


def scale(arrays: Arrays) -> None:
    arrays[f"{DOWN}.scales"][3, 5] *= 2


def nibble(arrays: Arrays) -> None:
    arrays[f"{DOWN}.qweight"][7, 2] ^= 1


def zero(arrays: Arrays) -> None:
    arrays[f"{DOWN}.qzeros"][1, 0] ^= 1


def order(arrays: Arrays) -> None:
    arrays[f"{DOWN}.g_idx"][64] = 2  # 0 and 1 were one group, with the same scales


def row(arrays: Arrays) -> None:
    arrays[f"{DOWN}.scales"] = arrays[f"{DOWN}.scales"][:-1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (scale, rf"{DOWN}: output 5, input 192 dequantizes to"),
        (nibble, rf"{DOWN}.qweight differs from the source"),
        (zero, rf"{DOWN}: output \d, input 64 dequantizes to"),
        (order, rf"{DOWN}: output \d+, input 64 dequantizes to"),
        (row, rf"{DOWN}.scales is \[13, 256\] in .* promises \[14, 256\]"),
    ],
)
def test_a_wrong_builder_is_named(
    tmp_path: Path, change: Callable[[Arrays], None], words: str
) -> None:
    source = mini(tmp_path / "source", "gptq-asym")
    out = build_regrouped(source, tmp_path / "out", to=64).directory
    forge(out, change)
    with pytest.raises(ProofError, match=words):
        verify(out)


@pytest.mark.parametrize(
    ("quant", "to", "words"),
    [
        ("none", 64, "stored as 'none' have no groups"),
        ("fp8", 64, "stored as 'fp8' have no groups"),
        ("gptq-act", 64, "ordered by activation"),
        ("compressed-tensors-channel", 64, "one group a channel"),
        ("awq", 128, "groups of 128 cannot be split into groups of 128"),
        ("awq", 48, "groups of 128 cannot be split into groups of 48"),
    ],
)
def test_what_cannot_be_split_is_refused_before_a_byte_is_written(
    tmp_path: Path, quant: Quantization, to: int, words: str
) -> None:
    source = mini(tmp_path / "source", quant)
    with pytest.raises(InputError, match=words):
        build_regrouped(source, tmp_path / "out", to=to)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_an_order_that_the_config_denies_is_refused(tmp_path: Path) -> None:
    source = mini(tmp_path / "source", "gptq")
    arrays = load_file(source / "model.safetensors")
    arrays[f"{DOWN}.g_idx"][0] = 3
    save_file(arrays, source / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match="orders inputs otherwise than in neighbours"):
        build_regrouped(source, tmp_path / "out", to=64)


def exceptional(directory: Path, default: int, other: int) -> Path:
    """A GPTQ checkpoint whose down_proj has other groups than the rest."""
    config = small_configs.config("llama", "gptq")
    config["quantization_config"] |= {
        "group_size": default, "dynamic": {"+:.*down_proj": {"group_size": other}},
    }  # fmt: skip
    return write_drawn(directory, config)


def test_groups_that_only_an_exception_has_are_split(tmp_path: Path) -> None:
    source = exceptional(tmp_path / "source", -1, 128)
    variant = build_regrouped(source, tmp_path / "out", to=64)
    assert variant.manifest["sizes"] == {"group_size": {"from": 128, "to": 64}}
    verify(variant.directory)
    quant = read_checkpoint(variant.directory).config.quant
    assert (quant.group_size, quant.targets[0].scheme.group) == (1, 64)  # type: ignore[union-attr]
    source_model = read_checkpoint(source).config
    assert regrouped(source_model, 64).quant == quant


def test_groups_of_two_sizes_are_split_to_one_that_divides_both(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = exceptional(tmp_path / "source", 128, 64)
    assert list(smaller_groups(read_checkpoint(source).config)) == [32]
    assert main(["regroup", str(source), "--for-tp", "2", "--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().err == ""
    assert read_checkpoint(tmp_path / "out").config.quant.group_size == 32
    verify(tmp_path / "out")


def test_a_manifest_that_could_not_be_read_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fixtures.building.group_sizes", lambda _: {1})
    source = exceptional(tmp_path / "source", 128, 128)
    with pytest.raises(InputError, match="regrouped from 1 to 64"):
        build_regrouped(source, tmp_path / "out", to=64)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
