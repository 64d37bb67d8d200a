"""The miniature is the same everywhere, is a real checkpoint, and has the obstacle."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fixtures import miniature
from fixtures.checkpoint.layout import locate
from fixtures.checkpoint.tensors import file_digest, read_checkpoint, read_tensor
from fixtures.checkpoint.weights import Linear
from fixtures.ledger import LEDGER
from fixtures.miniature import (
    QUANTIZATIONS,
    Quantization,
    Recipe,
    cached_miniature,
    write_miniature,
)
from fixtures.tokenizer import SPECIAL_TOKENS, VOCABULARY_SIZE, tokenizer_files
from suites.selftest.oracles import unpack

# The weights' bytes, on every machine: a change here changes every reference and every report.
DIGESTS: dict[Quantization, str] = {
    "awq": "a3c8b80f443d8eef4c0bfe88e5dc661b4ab344113c4565ea14079bc0587d5d6a",
    "gptq": "94e0e431b62721aed74953407123e7c198e6955fc3e727ff8da0b7e8cf1213fb",
    "gptq-v2": "1c010d5fa1beb7d3309fe249faa03f859f33df66e45e230d54ddcfc5ceba4059",
    "gptq-asym": "40a33a3db743bd07b1a4e475490bb5e0204627da5a3110751f6fea594c74dae3",
    "gptq-act": "fbe839e21bba7596034e46aa30713f70552f5dd235f39dc0bbabe0833c79ec72",
    "compressed-tensors": "046e12aa860d537060edbb6adaab368260db20603110a0e540ea0369f686ff16",
    "compressed-tensors-asym": "10ff1e035361c344bf260df89b236f57a3edb965bb0fd33cda0310622dbb232c",
    "compressed-tensors-channel": (
        "bc0f6dd4f11f66a4073b115bd2cc11e3781345813187da7b7531009cb7397ebd"
    ),
    "compressed-tensors-int8": "927f5f7167c161e28ec98a38f73d97dbedeabb1cd9576f7536859f8149d5aa65",
    "fp8": "3bd807b2cd3d9dc7977d6ff20ade5cc30681c0a778e1e1703aa1e55d93eb13ae",
    "none": "d50646e17a098525328e94b4867d56d06acff3ef0dd7a889ac153a470e7514d1",
}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("miniature")
    write_miniature(path, Recipe())
    return path


@pytest.fixture(scope="module")
def miniatures(tmp_path_factory: pytest.TempPathFactory) -> dict[Quantization, Path]:
    found = {}
    for quant in QUANTIZATIONS:
        found[quant] = tmp_path_factory.mktemp(quant)
        write_miniature(found[quant], Recipe(quant=quant))
    return found


@pytest.mark.parametrize("quant", QUANTIZATIONS)
def test_the_weights_are_bit_identical_everywhere(
    quant: Quantization, miniatures: dict[Quantization, Path]
) -> None:
    assert file_digest(miniatures[quant] / "model.safetensors") == DIGESTS[quant]


def linear(directory: Path, module: str) -> Linear:
    checkpoint = read_checkpoint(directory)
    parts = {
        name.removeprefix(f"{module}."): info
        for name, info in checkpoint.tensors.items()
        if name.startswith(f"{module}.")
    }
    return Linear(module, checkpoint.config.quant.scheme((module,)), 896, 1024, parts)


DOWN = "model.layers.1.mlp.down_proj"


@pytest.mark.parametrize(
    "alike",
    [
        ("gptq", "gptq-v2", "compressed-tensors"),
        ("awq", "gptq-asym", "compressed-tensors-asym"),
    ],
)
def test_formats_of_the_same_integers_hold_the_same_weights(
    alike: tuple[Quantization, ...], miniatures: dict[Quantization, Path]
) -> None:
    first, *others = (linear(miniatures[quant], DOWN).weights() for quant in alike)
    for other in others:
        np.testing.assert_array_equal(other, first)


@pytest.mark.parametrize("quant", [quant for quant in QUANTIZATIONS if quant != "none"])
def test_in_every_format_one_group_carries_little_and_outputs_are_of_one_size(
    quant: Quantization, miniatures: dict[Quantization, Path]
) -> None:
    down = linear(miniatures[quant], DOWN)
    norms = down.channel_norms("inputs")
    order = read_tensor(down.parts["g_idx"]) if quant == "gptq-act" else np.arange(896) // 128
    sizes = np.array([norms[order == group].mean() for group in range(7)])
    assert int(sizes.argmin()) == 1
    assert sizes.min() < sizes[-1] / 3
    # Twice what keeps an input's size, to within the scales' spread.
    assert 2 < down.channel_norms("outputs").mean() < 5


@pytest.mark.parametrize("quant", QUANTIZATIONS)
def test_every_tensor_has_its_place_and_shape(
    quant: Quantization, miniatures: dict[Quantization, Path]
) -> None:
    checkpoint = read_checkpoint(miniatures[quant])
    for name, info in checkpoint.tensors.items():
        where = locate(name, checkpoint.config)
        assert where is not None, name
        assert where.stored.shape == info.shape, name


def test_the_width_is_an_odd_number_of_groups(directory: Path) -> None:
    config = read_checkpoint(directory).config
    assert config.intermediate_size / config.quant.group_size == 7


def test_one_group_of_each_layer_carries_little_and_it_is_not_the_last(directory: Path) -> None:
    tensors = read_checkpoint(directory).tensors
    for layer in (0, 1):
        scales = read_tensor(tensors[f"model.layers.{layer}.mlp.down_proj.scales"])
        weight = scales.astype(np.float64).mean(axis=1)
        assert int(weight.argmin()) == layer
        assert weight.min() < weight[-1] / 4


def test_quantized_values_use_their_whole_range(directory: Path) -> None:
    info = read_checkpoint(directory).tensors["model.layers.0.mlp.up_proj.qweight"]
    values = np.array(unpack(read_tensor(info)[:32].tolist()))
    assert {int(v) for v in np.unique(values)} >= set(range(1, 15))


def test_the_tokenizer_round_trips_any_text() -> None:
    tokenizers = pytest.importorskip("tokenizers", reason="comes with the engine only")
    tokenizer = tokenizers.Tokenizer.from_str(tokenizer_files()["tokenizer.json"])
    for text in ("The width was odd.", "机器学习", "def f(x):\n\treturn x ** 2\n", "naïve ☕"):
        assert tokenizer.decode(tokenizer.encode(text).ids) == text
    assert tokenizer.encode("<|image_pad|>").ids == [SPECIAL_TOKENS["<|image_pad|>"]]


def test_every_token_id_fits_the_vocabulary() -> None:
    vocabulary = json.loads(tokenizer_files()["vocab.json"])
    ids = [*vocabulary.values(), *SPECIAL_TOKENS.values()]
    assert sorted(ids) == list(range(len(ids)))
    assert max(ids) < VOCABULARY_SIZE


def test_the_cache_is_reused_and_a_changed_byte_is_noticed(tmp_path: Path) -> None:
    said: list[str] = []
    first = cached_miniature("awq", root=tmp_path, say=said.append)
    stamp = (first / "model.safetensors").stat().st_mtime_ns
    assert cached_miniature("awq", root=tmp_path, say=said.append) == first
    assert (first / "model.safetensors").stat().st_mtime_ns == stamp
    with (first / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x55")
    cached_miniature("awq", root=tmp_path, say=said.append)
    assert file_digest(first / "model.safetensors") == DIGESTS["awq"]
    assert any("does not match its digests" in text for text in said)


@pytest.mark.parametrize("ledger", ["", '{"config.json": "7', "[]", "\x80", None])
def test_a_ledger_that_does_not_read_back_is_a_mismatch(
    ledger: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def small(directory: Path, _: Recipe) -> None:
        (directory / "config.json").write_text("{}")

    monkeypatch.setattr(miniature, "write_miniature", small)
    said: list[str] = []
    directory = cached_miniature("awq", root=tmp_path, say=said.append)
    assert [path.name for path in tmp_path.iterdir()] == [directory.name]
    if ledger is None:
        (directory / LEDGER).unlink()
    else:
        (directory / LEDGER).write_text(ledger, encoding="latin-1")
    cached_miniature("awq", root=tmp_path, say=said.append)
    cached_miniature("awq", root=tmp_path, say=said.append)
    assert [text.partition(" ")[0] for text in said].count("generating") == 2


def test_the_command_line_writes_one_and_overwrites_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "mini"
    assert miniature.main(["--out", str(out), "--quant", "none"]) == 0
    assert read_checkpoint(out).config.quant.method == "none"
    assert miniature.main(["--out", str(out)]) == 2
    assert "exists already" in capsys.readouterr().err
