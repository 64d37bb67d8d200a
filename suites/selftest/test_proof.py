import hashlib
import json
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from fixtures.checkpoint.moves import Move, move
from fixtures.checkpoint.tensors import TensorInfo, digest_of, read_checkpoint, read_header
from fixtures.errors import InputError, ProofError
from fixtures.headers import header_findings
from fixtures.variants import build_padded, build_regrouped, build_trimmed, verify
from suites.selftest.tiny import Arrays, Tiny, flip

DOWN = "model.layers.1.mlp.down_proj"
GATE = "model.layers.1.mlp.gate_proj"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return Tiny().write(tmp_path / "source")


@pytest.fixture
def padded(source: Path) -> Path:
    return build_padded(source, source.with_name("padded"), to=128).directory


def forge(directory: Path, change: Callable[[Arrays], None]) -> None:
    """Change tensors, and the manifest's digests with them, as a wrong builder would."""
    file = directory / "model.safetensors"
    arrays = load_file(file)
    change(arrays)
    file.unlink()
    save_file(arrays, file, {"format": "pt"})
    manifest = json.loads((directory / "variant.json").read_text())
    manifest["files"][file.name] = hashlib.sha256(file.read_bytes()).hexdigest()
    manifest["digest"] = digest_of(manifest["files"])
    manifest["tensors"] = {
        name: f"{zlib.crc32(array.tobytes()):08x}" for name, array in arrays.items()
    }
    (directory / "variant.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("part", ["qweight", "qzeros", "scales"])
def test_a_flipped_byte_is_found_and_its_tensor_named(padded: Path, part: str) -> None:
    name = f"{DOWN}.{part}"
    info = next(info for info in read_header(padded / "model.safetensors") if info.name == name)
    flip(info.file, info.begin + 3)
    with pytest.raises(ProofError) as failure:
        verify(padded)
    message = str(failure.value)
    assert "model.safetensors has SHA-256" in message
    assert f"(changed: {name})" in message
    assert f"{name} differs from the source in intermediate group 0 (first at [0, " in message


@pytest.mark.parametrize(
    ("file", "offset", "words"),
    [
        ("model.safetensors", 20, "(header: "),
        ("model.safetensors", -1, "(changed: "),
        ("config.json", 5, "config.json has SHA-256"),
        ("tokenizer.json", 0, "tokenizer.json has SHA-256"),
    ],
)
def test_a_flipped_byte_anywhere_is_found(padded: Path, file: str, offset: int, words: str) -> None:
    flip(padded / file, offset)
    with pytest.raises(ProofError) as failure:
        verify(padded)
    assert words in str(failure.value)
    assert "\n" not in str(failure.value)


def test_a_flipped_byte_in_a_linked_shard_is_named_though_the_source_has_it_too(
    tmp_path: Path,
) -> None:
    source = Tiny(shards=3).write(tmp_path / "source")
    out = build_padded(source, tmp_path / "padded", to=128).directory
    shard = out / "model-00001-of-00003.safetensors"
    info = read_header(shard)[0]
    with shard.open("r+b") as file:
        file.seek(info.begin)
        file.write(b"\xaa")
    with pytest.raises(ProofError) as failure:
        verify(out)
    assert f"{shard.name} has SHA-256" in str(failure.value)
    assert f"(changed: {info.name})" in str(failure.value)


@pytest.mark.parametrize(
    ("name", "where", "finding"),
    [
        (
            f"{DOWN}.qweight",
            np.s_[100:101, :1],
            f"{DOWN}: added input channel 100 dequantizes to 1 in magnitude, expected exactly 0",
        ),
        (f"{DOWN}.qzeros", np.s_[3:, :1], f"{DOWN}: added input channel 96 dequantizes to 1"),
        (f"{GATE}.qweight", np.s_[5:6, 12:13], f"{GATE}: added output channel 96 dequantizes"),
        (f"{GATE}.qzeros", np.s_[:1, 15:], f"{GATE}: added output channel 120 dequantizes"),
    ],
)
def test_padding_that_is_not_zero_is_found_even_under_honest_digests(
    padded: Path, name: str, where: Any, finding: str
) -> None:
    forge(padded, lambda arrays: arrays[name].__setitem__(where, 1))
    with pytest.raises(ProofError) as failure:
        verify(padded)
    assert finding in str(failure.value)


def test_padding_scaled_by_nan_is_no_zero(padded: Path) -> None:
    forge(padded, lambda arrays: arrays[f"{DOWN}.scales"].__setitem__((3, 0), np.nan))
    with pytest.raises(ProofError, match="added input channel 96 dequantizes to inf"):
        verify(padded)


def swap(name: str, first: Any, second: Any) -> Callable[[Arrays], None]:
    def change(arrays: Arrays) -> None:
        array = arrays[name]
        array[first], array[second] = array[second].copy(), array[first].copy()

    return change


@pytest.mark.parametrize(
    ("name", "first", "second", "groups"),
    [
        (f"{DOWN}.qweight", np.s_[:32], np.s_[64:96], "intermediate group 0, 2 ("),
        (f"{DOWN}.scales", np.s_[1], np.s_[2], "intermediate group 1, 2 ("),
        (
            f"{GATE}.qweight",
            np.s_[:, :4],
            np.s_[:, 4:8],
            "intermediate group 0, 1, input group 0, 1 (",
        ),
        (f"{GATE}.scales", np.s_[0], np.s_[1], "intermediate group 0, 1, 2, input group 0, 1 ("),
    ],
)
def test_two_swapped_groups_are_found_and_named(
    padded: Path, name: str, first: Any, second: Any, groups: str
) -> None:
    forge(padded, swap(name, first, second))
    with pytest.raises(ProofError) as failure:
        verify(padded)
    assert f"{name} differs from the source in {groups}" in str(failure.value)


def test_swapped_groups_in_a_trimmed_checkpoint_are_found(source: Path) -> None:
    out = build_trimmed(source, source.with_name("trimmed"), to=64).directory
    forge(out, swap(f"{DOWN}.qweight", np.s_[:32], np.s_[32:]))
    with pytest.raises(ProofError, match=rf"{DOWN}\.qweight differs .* group 0, 1 \("):
        verify(out)


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        (lambda a: a.pop("lm_head.weight"), "tensor lm_head.weight is missing"),
        (lambda a: a.update(extra=np.zeros(2)), "holds tensor extra, which is not part of"),
        (
            lambda a: a.update({f"{DOWN}.bias": np.zeros(64, np.float16)}),
            f"tensor {DOWN}.bias is not in the source",
        ),
        (
            lambda a: a.update({"model.norm.weight": np.zeros(64, np.float32)}),
            "tensor model.norm.weight is F32, F16 in the source",
        ),
        (
            lambda a: a.update({f"{DOWN}.scales": np.zeros((3, 64), np.float16)}),
            f"{DOWN}.scales is [3, 64] in model.safetensors, config.json promises [4, 64]",
        ),
        (lambda a: a["lm_head.weight"].fill(0), "lm_head.weight differs from the source"),
    ],
)
def test_every_tensor_is_accounted_for(
    padded: Path, change: Callable[[Arrays], None], finding: str
) -> None:
    forge(padded, change)
    with pytest.raises(ProofError) as failure:
        verify(padded)
    assert finding in str(failure.value)


def test_a_file_that_was_not_there_is_found(padded: Path) -> None:
    (padded / "adapter.json").write_text("{}")
    (padded / "tokenizer.json").unlink()
    with pytest.raises(ProofError) as failure:
        verify(padded)
    assert "adapter.json is not in the manifest; tokenizer.json is missing" in str(failure.value)


def test_without_its_source_a_variant_says_what_was_not_proven(source: Path, padded: Path) -> None:
    assert verify(padded).not_proven == ()
    source.rename(source.with_name("moved"))
    (reason,) = verify(padded).not_proven
    assert "real channels could not be compared" in reason
    assert f"{source} is not a directory" in reason
    forge(padded, lambda arrays: arrays[f"{DOWN}.qweight"].__setitem__((100, 0), 1))
    with pytest.raises(ProofError, match="added input channel 100"):
        verify(padded)


def test_a_source_that_changed_since_is_not_compared_with(source: Path, padded: Path) -> None:
    flip(source / "model.safetensors", -1)
    (reason,) = verify(padded).not_proven
    assert f"{source} has changed since (model.safetensors)" in reason


@pytest.mark.parametrize("text", ["{", "{}", '{"schema": 1}', '{"schema": 2}', "[]"])
def test_a_broken_manifest_is_bad_input(padded: Path, text: str) -> None:
    (padded / "variant.json").write_text(text)
    with pytest.raises(InputError, match=r"variant\.json"):
        verify(padded)


@pytest.mark.parametrize("part", ["scales", "qzeros", "qweight"])
@pytest.mark.parametrize("module", [DOWN, GATE])
def test_a_wrong_plan_is_found_though_writer_and_proof_share_it(
    source: Path, monkeypatch: pytest.MonkeyPatch, module: str, part: str
) -> None:
    def wrong(info: TensorInfo, *configs: Any) -> Move | None:
        made = move(info, *configs)
        if made is not None and info.name == f"{module}.{part}":
            made.origins[:3] = made.origins[[1, 0, 2]]
        return made

    monkeypatch.setattr("fixtures.resized.move", wrong)
    monkeypatch.setattr("fixtures.proof.move", wrong)
    with pytest.raises(ProofError, match=rf"{module}: .*put channel \d+ dequantizes to .* source"):
        build_padded(source, source.with_name("padded"), to=128)
    monkeypatch.setattr("fixtures.proof.retained_findings", lambda *_: [])
    build_padded(source, source.with_name("padded"), to=128)


def lacking(source: Path, *words: str) -> None:
    """Take away the tensors whose names have one of these words."""
    file = source / "model.safetensors"
    arrays = {n: a for n, a in load_file(file).items() if not any(word in n for word in words)}
    save_file(arrays, file, {"format": "pt"})


@pytest.mark.parametrize(
    ("words", "first"),
    [
        (("lm_head",), "lm_head.weight"),
        (("self_attn", "norm", "lm_head"), "model.layers.0.self_attn.q_proj.qweight"),
        (("layers.1.",), "model.layers.1.self_attn.q_proj.qweight"),
        (("layers.1.input_layernorm",), "model.layers.1.input_layernorm.weight"),
    ],
)
@pytest.mark.parametrize("build", [partial(build_padded, to=128), partial(build_regrouped, to=16)])
def test_an_incomplete_checkpoint_is_refused(
    source: Path, build: Any, words: tuple[str, ...], first: str
) -> None:
    lacking(source, *words)
    with pytest.raises(InputError, match=f"{first} is missing, expected it as config.json prom"):
        build(source, source.with_name("out"))
    assert not source.with_name("out").exists()


def test_a_shard_that_no_index_misses_is_missing(tmp_path: Path) -> None:
    source = Tiny(shards=3).write(tmp_path / "source")
    for name in ("model.safetensors.index.json", "model-00001-of-00003.safetensors"):
        (source / name).unlink()
    with pytest.raises(InputError, match=r"embed_tokens\.weight is missing"):
        build_padded(source, tmp_path / "out", to=128)


@pytest.mark.parametrize(("bias", "nested"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("quant", ["awq", "none"])
def test_a_complete_checkpoint_lacks_nothing(
    tmp_path: Path, quant: str, bias: bool, nested: bool
) -> None:
    source = Tiny(quant=quant, bias=bias, nested=nested).write(tmp_path / "source")
    assert list(header_findings(read_checkpoint(source))) == []


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        (lambda m: m.update(tensors={}), "the manifest's tensors and those of the files do not"),
        (lambda m: m["tensors"].update(more="0"), "do not agree in more"),
        (lambda m: m.update(tensors_changed=[]), "changed tensors are not those that changed"),
        (
            lambda m: m["sizes"].update({"vision_config.intermediate_size": {"from": 1, "to": 2}}),
            "says vision_config.intermediate_size 1 of the source, which has none",
        ),
    ],
)
def test_a_manifest_that_says_what_is_not_so_is_found(
    padded: Path, change: Callable[[dict[str, Any]], object], finding: str
) -> None:
    manifest = json.loads((padded / "variant.json").read_text())
    change(manifest)
    (padded / "variant.json").write_text(json.dumps(manifest))
    with pytest.raises(ProofError) as failure:
        verify(padded)
    assert finding in str(failure.value)


def test_a_regrouping_from_other_groups_is_found(source: Path) -> None:
    out = build_regrouped(source, source.with_name("out"), to=16).directory
    manifest = json.loads((out / "variant.json").read_text())
    manifest["sizes"]["group_size"]["from"] = 64
    (out / "variant.json").write_text(json.dumps(manifest))
    with pytest.raises(ProofError, match="says group_size 64 of the source, which has 32"):
        verify(out)


@pytest.mark.parametrize("where", [(), ("source",)])
def test_a_digest_of_other_files_is_bad_input(padded: Path, where: tuple[str, ...]) -> None:
    manifest = json.loads((padded / "variant.json").read_text())
    (manifest[where[0]] if where else manifest)["digest"] = "0" * 64
    (padded / "variant.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=r"digest '0+' of other files"):
        verify(padded)
