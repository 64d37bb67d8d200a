"""Checkpoints that are odd but legal, and requests that are not: they work, or are one line."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from fixtures.checkpoint.tensors import INDEX
from fixtures.errors import InputError, ProofError
from fixtures.targets import main_width
from fixtures.variants import build_padded, build_regrouped, build_trimmed, main, verify
from suites.selftest import small_configs
from suites.selftest.drawn import write_drawn
from suites.selftest.tiny import Tiny, arrays_in


def edit(path: Path, **keys: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))


def refused(capsys: pytest.CaptureFixture[str], *argv: object) -> str:
    """What a command that is bad input says: one line, whatever it is."""
    assert main([str(word) for word in argv]) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err.count("\n")) == ("", 1)
    return captured.err


@pytest.mark.parametrize("file", ["config.json", INDEX])
@pytest.mark.parametrize("value", ["\ud800", float("nan"), [float("inf")]])
def test_json_that_python_reads_is_written_again(tmp_path: Path, file: str, value: object) -> None:
    source = Tiny(shards=3).write(tmp_path / "source")
    edit(source / file, metadata={"odd": value})
    out = build_padded(source, tmp_path / "out", to=128).directory
    found = json.loads((out / file).read_bytes())["metadata"]["odd"]
    assert json.dumps(found) == json.dumps(value)
    verify(out)


def test_a_config_without_its_nan_is_found(tmp_path: Path) -> None:
    source = Tiny().write(tmp_path / "source")
    edit(source / "config.json", odd=float("nan"))
    out = build_padded(source, tmp_path / "out", to=128).directory
    edit(out / "config.json", odd=0)
    with pytest.raises(ProofError, match=r"config\.json differs from the source's in odd"):
        verify(out)


def test_a_file_whose_name_is_no_text_is_carried_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = Tiny().write(tmp_path / "source")
    for name in (b"\xff.txt", b"\xff.bin"):
        Path(os.fsdecode(os.fsencode(source) + b"/" + name)).write_text("odd")
    out = tmp_path / "out"
    assert main(["pad", str(source), "--to", "128", "--out", str(out)]) == 0
    assert r"left out, not resized: \udcff.bin" in capsys.readouterr().out
    assert (out / os.fsdecode(b"\xff.txt")).samefile(source / os.fsdecode(b"\xff.txt"))
    verify(out)


@pytest.mark.parametrize("to", [2**20 + 32, 2**31, 2**40])
def test_a_width_that_no_memory_holds_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], to: int
) -> None:
    source = Tiny().write(tmp_path / "source")
    said = refused(capsys, "pad", source, "--to", to)
    assert f"intermediate_size cannot be brought from 96 to {to}, expected at most 1048576" in said


def test_a_variant_that_no_disk_holds_is_refused_before_it_takes_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Tiny().write(tmp_path / "source")
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10**7))
    monkeypatch.setattr("fixtures.building.moved_tensors", None)
    with pytest.raises(InputError, match=r"has 0\.0 GB free, expected 0\.2 GB"):
        build_padded(source, tmp_path / "out", to=2**20)


def test_json_nested_beyond_all_sense_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = Tiny().write(tmp_path / "source")
    text = (source / "config.json").read_text().rstrip()
    deep = f'{text[:-1]}, "deep": {"[" * 900}{"]" * 900}}}'
    (source / "config.json").write_text(deep)
    said = refused(capsys, "pad", source, "--to", 128)
    assert "config.json is nested more than 100 levels deep" in said


@pytest.mark.parametrize(
    ("model", "keys", "name"),
    [
        ("glm4_moe", {"num_nextn_predict_layers": 1}, "model.layers.4.enorm.weight"),
        ("qwen3_next", {}, "mtp.fc.weight"),
    ],
)
@pytest.mark.parametrize(
    "asked", [("pad", "--to", 512, "--key", "moe_intermediate_size"), ("regroup", "--to", 64)]
)
def test_layers_of_multi_token_prediction_are_refused_by_their_name(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    model: str,
    keys: dict[str, Any],
    name: str,
    asked: tuple[object, ...],
) -> None:
    config = {**small_configs.config(model, "awq"), "vocab_size": 64, **keys}
    extra = {name: np.zeros(512, np.float16)}
    source = write_drawn(tmp_path / "source", config, more=extra)
    said = refused(capsys, asked[0], source, *asked[1:])
    assert f"holds tensors of multi-token-prediction layers ({name}; 1 in all)" in said


@pytest.mark.parametrize(
    "quant", ["none", "awq", "gptq", "packed", "packed_asymmetric", "packed_channel", "fp8_block"]
)
def test_a_model_that_stores_inputs_first_is_resized_in_every_format(
    tmp_path: Path, quant: str
) -> None:
    config = {**small_configs.config("gpt2", quant), "n_layer": 1, "vocab_size": 64, "n_inner": 384}
    source = write_drawn(tmp_path / "source", config)
    for build, to in ((build_padded, 512), (build_trimmed, 256)):
        verify(build(source, tmp_path / str(to), to=to).directory)


def test_an_empty_map_of_inputs_is_carried(tmp_path: Path) -> None:
    config = {**small_configs.config("llama", "gptq"), "num_hidden_layers": 1, "vocab_size": 64}
    config["torch_dtype"] = "float16"
    source = write_drawn(tmp_path / "source", {**config, "intermediate_size": 384})
    arrays = arrays_in(source)
    empty = {name: np.zeros(0, np.int32) for name in arrays if name.endswith(".g_idx")}
    save_file({**arrays, **empty}, source / "model.safetensors", {"format": "pt"})
    for build, to in ((build_padded, 512), (build_trimmed, 256), (build_regrouped, 64)):
        out = build(source, tmp_path / str(to), to=to).directory
        assert {name: array.shape for name, array in arrays_in(out).items() if name in empty} == (
            dict.fromkeys(empty, (0,))
        )
        verify(out)


@pytest.mark.parametrize("inside", ["model.safetensors", None])
def test_a_file_that_cannot_be_read_is_named_and_nothing_said_to_be_made(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    inside: str | None,
) -> None:
    source = Tiny().write(tmp_path / "source")
    out = build_padded(source, tmp_path / "out", to=128).directory
    place = out if inside is None else out / inside

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "refused", inside and str(place))

    monkeypatch.setattr("fixtures.proof.digest_files", refuse)
    said = refused(capsys, "verify", out)
    assert said == (
        f"verify: {place} is not open to this user, expected permission to read it. "
        "Change its mode or owner.\n"
    )


@pytest.mark.parametrize("json_asked", [False, True])
def test_a_variant_without_its_source_is_not_said_to_be_proven(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], json_asked: bool
) -> None:
    source = Tiny().write(tmp_path / "source")
    out = build_padded(source, tmp_path / "out", to=128).directory
    options = ["--json"] if json_asked else []
    assert main(["verify", str(out), *options]) == 0
    assert json_asked or capsys.readouterr().out == f"{out}: padded, proven\n"
    source.rename(tmp_path / "elsewhere")
    assert main(["verify", str(out), *options]) == 3
    said = capsys.readouterr().out
    assert "real channels could not be compared" in said
    assert json_asked or said.startswith(f"{out}: padded, intact, not proven\nnot proven: ")


@pytest.mark.parametrize(
    ("model", "key", "words"),
    [
        ("deepseek_v3", "shared_expert_intermediate_size", "does not say that width as a number"),
        ("glm4v", "vision_config.intermediate_size", "does not say that width as a number"),
        ("llama", "moe_intermediate_size", "is no width of this model, expected one of interm"),
    ],
)
def test_a_key_that_cannot_be_changed_is_refused_with_its_reason(
    model: str, key: str, words: str
) -> None:
    with pytest.raises(InputError, match=rf"^{key} .*{words}"):
        main_width(small_configs.config(model), key)
