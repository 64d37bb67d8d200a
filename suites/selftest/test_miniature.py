"""The miniature is the same everywhere, is a real AWQ checkpoint, and has the obstacle."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fixtures import miniature
from fixtures.checkpoint.layout import expected_shape, place
from fixtures.checkpoint.tensors import file_digest, read_checkpoint, read_tensor
from fixtures.miniature import Quantization, Recipe, cached_miniature, write_miniature
from fixtures.tokenizer import SPECIAL_TOKENS, VOCABULARY_SIZE, tokenizer_files
from suites.selftest.oracles import unpack

# The weights' bytes, on every machine: a change here changes every reference and every report.
DIGESTS: dict[Quantization, str] = {
    "awq": "a3c8b80f443d8eef4c0bfe88e5dc661b4ab344113c4565ea14079bc0587d5d6a",
    "none": "d50646e17a098525328e94b4867d56d06acff3ef0dd7a889ac153a470e7514d1",
}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("miniature")
    write_miniature(path, Recipe())
    return path


@pytest.mark.parametrize("quant", ["awq", "none"])
def test_the_weights_are_bit_identical_everywhere(quant: Quantization, tmp_path: Path) -> None:
    write_miniature(tmp_path, Recipe(quant=quant))
    assert file_digest(tmp_path / "model.safetensors") == DIGESTS[quant]


@pytest.mark.parametrize("quant", ["awq", "none"])
def test_every_tensor_has_its_place_and_shape(quant: Quantization, tmp_path: Path) -> None:
    write_miniature(tmp_path, Recipe(quant=quant))
    checkpoint = read_checkpoint(tmp_path)
    for name, info in checkpoint.tensors.items():
        where = place(name, checkpoint.config.quant)
        assert where is not None, name
        assert expected_shape(where, checkpoint.config) in (None, info.shape), name


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
        (directory / miniature.LEDGER).unlink()
    else:
        (directory / miniature.LEDGER).write_text(ledger, encoding="latin-1")
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
