"""Padded and trimmed checkpoints of every format and family, against weights worked out by hand."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fixtures.checkpoint.config import parse_config
from fixtures.checkpoint.moves import ADDED, move
from fixtures.checkpoint.places import place
from fixtures.checkpoint.streams import runs
from fixtures.checkpoint.tensors import Checkpoint, read_checkpoint, read_tensor
from fixtures.checkpoint.widths import EXPERTS, MAIN, SHARED, TOWER
from fixtures.errors import InputError
from fixtures.manifest import read_manifest
from fixtures.targets import main_width
from fixtures.variants import build_padded, build_regrouped, build_trimmed, verify
from suites.selftest import oracles, small_configs
from suites.selftest.drawn import write_drawn

FORMATS = (
    "none", "awq", "gptq", "packed", "packed_asymmetric", "packed_channel", "fp8_block",
)  # fmt: skip
# model, key, its width, and the modules that are cut along it on their (inputs, outputs)
FAMILIES: tuple[tuple[str, str, int, str, str], ...] = (
    ("llama", MAIN, 384, "layers.0.mlp.down_proj", "layers.0.mlp.up_proj"),
    ("mixtral", MAIN, 384, "experts.1.w2", "experts.1.w3"),
    ("qwen2_moe", EXPERTS, 384, "experts.1.down_proj", "experts.1.gate_proj"),
    ("qwen2_moe", SHARED, 384, "shared_expert.down_proj", "shared_expert.up_proj"),
    ("deepseek_v2", EXPERTS, 384, "experts.1.down_proj", "experts.1.gate_proj"),
    ("internlm2", MAIN, 384, "layers.0.feed_forward.w2", "layers.0.feed_forward.w3"),
    ("qwen2_5_vl", MAIN, 384, "layers.0.mlp.down_proj", "layers.0.mlp.gate_proj"),
    ("qwen2_5_vl", TOWER, 384, "blocks.0.mlp.down_proj", "blocks.0.mlp.gate_proj"),
)
CASES = [("llama", *FAMILIES[0][1:], quant) for quant in FORMATS] + [
    (*family, quant) for family in FAMILIES[1:] for quant in ("none", "awq", "gptq")
]


def configured(model: str, quant: str, key: str, width: int) -> dict[str, Any]:
    config = small_configs.config(model, quant)
    level = config.get("text_config", config) if key != TOWER else config["vision_config"]
    level[key.rpartition(".")[2]] = width
    return config


def layer(checkpoint: Checkpoint, ending: str) -> Callable[[int, int], float]:
    """The weight from an input to an output of the one module whose name ends so."""
    names = [n for n in checkpoint.tensors if n.rpartition(".")[0].endswith(ending)]
    promised = place(names[0], checkpoint.config)
    assert promised is not None
    parts = {
        name.rpartition(".")[2]: widened(read_tensor(checkpoint.tensors[name])) for name in names
    }
    return lambda i, o: oracles.element(parts, promised.scheme, i, o)


def widened(array: np.ndarray) -> np.ndarray:
    """bfloat16, which numpy lacks, as float32."""
    if array.dtype != np.uint16:
        return array
    return np.asarray(array.astype(np.uint32) << 16).view(np.float32)


@pytest.mark.parametrize(("model", "key", "width", "down", "up", "quant"), CASES)
def test_padding_keeps_every_weight_and_adds_zeros(
    tmp_path: Path, model: str, key: str, width: int, down: str, up: str, quant: str
) -> None:
    source = write_drawn(tmp_path / "source", configured(model, quant, key, width))
    out = build_padded(source, tmp_path / "out", to={key: 512}).directory
    before, after = read_checkpoint(source), read_checkpoint(out)
    random = np.random.default_rng(1)
    for ending, on_inputs in ((down, True), (up, False)):
        old, new = layer(before, ending), layer(after, ending)
        for channel, other in zip(
            [*random.integers(0, width, 20), width - 1], random.integers(0, 64, 21), strict=True
        ):
            pair = (int(channel), int(other)) if on_inputs else (int(other), int(channel))
            assert new(*pair) == old(*pair)
        for channel in (width, width + 1, 511):
            assert new(*((channel, 5) if on_inputs else (5, channel))) == 0


@pytest.mark.parametrize("quant", FORMATS)
def test_trimming_keeps_the_weights_of_the_kept_groups(
    tmp_path: Path, quant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fixtures.trimming.most_important", lambda *_: (0, 2))
    source = write_drawn(tmp_path / "source", configured("llama", quant, MAIN, 384))
    variant = build_trimmed(source, tmp_path / "out", to=256)
    kept = variant.manifest["kept_groups"]["model.layers.0.mlp"]  # type: ignore[index]
    step = int(variant.manifest["granule"])  # type: ignore[call-overload]
    before, after = read_checkpoint(source), read_checkpoint(variant.directory)
    old, new = layer(before, "layers.0.mlp.down_proj"), layer(after, "layers.0.mlp.down_proj")
    for channel in range(0, 256, 13):
        origin = kept[channel // step] * step + channel % step
        assert new(channel, 3) == old(origin, 3)


def test_fused_halves_grow_each_for_itself(tmp_path: Path) -> None:
    source = write_drawn(tmp_path / "source", configured("phi3", "gptq", MAIN, 384))
    out = build_padded(source, tmp_path / "out", to=512).directory
    name = "layers.0.mlp.gate_up_proj"
    old, new = layer(read_checkpoint(source), name), layer(read_checkpoint(out), name)
    assert [new(7, o) for o in (0, 383, 512, 895)] == [old(7, o) for o in (0, 383, 384, 767)]
    assert [new(7, o) for o in (384, 511, 896, 1023)] == [0, 0, 0, 0]


LAYER = "model.layers.0"


def stray(directory: Path, name: str) -> np.ndarray:
    return read_tensor(read_checkpoint(directory).tensors[name])


@pytest.mark.parametrize(("operation", "width"), [("pad", 512), ("trim", 256)])
def test_a_bias_gptq_adds_to_a_layer_without_one_keeps_its_size(
    tmp_path: Path, operation: str, width: int
) -> None:
    config = configured("llama", "gptq", MAIN, 384)
    widths = {"gate_proj": 384, "up_proj": 384, "down_proj": config["hidden_size"]}
    more = {f"{LAYER}.mlp.{role}.bias": np.zeros(n, np.float16) for role, n in widths.items()}
    source = write_drawn(tmp_path / "source", config, more=more)
    build = build_padded if operation == "pad" else build_trimmed
    out = build(source, tmp_path / "out", to=width).directory
    verify(out)
    shapes = {role: stray(out, f"{LAYER}.mlp.{role}.bias").shape for role in widths}
    hidden = (config["hidden_size"],)
    assert shapes == {"gate_proj": (width,), "up_proj": (width,), "down_proj": hidden}


def test_a_bias_gptq_adds_is_held_to_its_layer_s_size(tmp_path: Path) -> None:
    more = {f"{LAYER}.mlp.gate_proj.bias": np.zeros(512, np.float16)}
    source = write_drawn(tmp_path / "source", configured("llama", "gptq", MAIN, 384), more=more)
    with pytest.raises(InputError, match=r"gate_proj.bias is \[512\].*promises \[384\]"):
        build_padded(source, tmp_path / "out", to=512)


def test_buffers_of_old_checkpoints_are_carried(tmp_path: Path) -> None:
    name = f"{LAYER}.self_attn.rotary_emb.inv_freq"
    frequencies = np.arange(64, dtype=np.float16)
    source = write_drawn(
        tmp_path / "source", configured("llama", "awq", MAIN, 384), more={name: frequencies}
    )
    out = build_padded(source, tmp_path / "out", to=512).directory
    assert np.array_equal(stray(out, name), frequencies)


@pytest.mark.parametrize("name", ["model.layers.4.enorm.weight", "mtp.norm.weight"])
def test_layers_of_multi_token_prediction_are_refused_by_their_name(
    tmp_path: Path, name: str
) -> None:
    config = configured("glm4_moe", "awq", EXPERTS, 384)
    config["num_nextn_predict_layers"] = 1
    source = write_drawn(tmp_path / "source", config, more={name: np.zeros(512, np.float16)})
    said = rf"layers \({re.escape(name)}; 1 in all\), which variants do not resize"
    with pytest.raises(InputError, match=said):
        build_padded(source, tmp_path / "out", to={EXPERTS: 512})
    with pytest.raises(InputError, match=said):
        build_regrouped(source, tmp_path / "out", to=64)


def test_modules_are_packed_where_the_files_say_so(tmp_path: Path) -> None:
    config = configured("llama", "gptq", MAIN, 384)
    config["quantization_config"]["dynamic"] = {r"-:.*layers\.1\.mlp.*": {}}
    source = write_drawn(tmp_path / "source", config)
    del config["quantization_config"]["dynamic"]
    (source / "config.json").write_text(json.dumps(config))
    out = build_padded(source, tmp_path / "out", to=512).directory
    verify(out)
    packed, plain = "layers.0.mlp.down_proj.qweight", "layers.1.mlp.down_proj.weight"
    assert stray(out, f"model.{packed}").shape == (512 // 8, config["hidden_size"])
    assert stray(out, f"model.{plain}").shape == (config["hidden_size"], 512)


def test_a_partial_last_block_takes_in_what_is_added(tmp_path: Path) -> None:
    source = write_drawn(tmp_path / "source", configured("llama", "fp8_block", MAIN, 448))
    out = build_padded(source, tmp_path / "out", to=512).directory
    before, after = read_checkpoint(source), read_checkpoint(out)
    name = "model.layers.0.mlp.down_proj.weight_scale_inv"
    assert before.tensors[name].shape == after.tensors[name].shape
    old, new = (layer(one, "layers.0.mlp.down_proj") for one in (before, after))
    assert [new(i, 1) for i in (0, 447, 448, 511)] == [old(0, 1), old(447, 1), 0, 0]


@pytest.mark.parametrize(("model", "width"), [("phi3", 448), ("glm4", 320), ("phi3", 192)])
@pytest.mark.parametrize(("operation", "to"), [("pad", 512), ("trim", 128)])
def test_a_block_in_both_fused_halves_is_refused(
    tmp_path: Path, model: str, width: int, operation: str, to: int
) -> None:
    source = write_drawn(tmp_path / "source", configured(model, "fp8_block", MAIN, width))
    with pytest.raises(InputError, match=rf"gate_up_proj.weight_scale_inv .* block at {width}"):
        (build_padded if operation == "pad" else build_trimmed)(source, tmp_path / "out", to=to)


def test_a_move_does_not_tear_a_block_of_two_fused_halves(tmp_path: Path) -> None:
    raw = configured("phi3", "fp8_block", MAIN, 448)
    source = read_checkpoint(write_drawn(tmp_path / "source", raw))
    after = parse_config({**raw, "intermediate_size": 512}, source="c")
    info = source.tensors["model.layers.0.mlp.gate_up_proj.weight_scale_inv"]
    with pytest.raises(ValueError, match="stores 128 channels together, across fused halves"):
        move(info, source.config, after, lambda *_: np.arange(512))


def test_fused_halves_of_whole_blocks_grow(tmp_path: Path) -> None:
    source = write_drawn(tmp_path / "source", configured("phi3", "fp8_block", MAIN, 384))
    out = build_padded(source, tmp_path / "out", to=512).directory
    old, new = (layer(read_checkpoint(one), "0.mlp.gate_up_proj") for one in (source, out))
    assert [new(7, o) for o in (383, 384, 512, 895, 896)] == [
        old(7, 383), 0, old(7, 384), old(7, 767), 0,
    ]  # fmt: skip


def one_zero_a_channel(quant: str) -> dict[str, Any]:
    config = configured("llama", quant, MAIN, 384)
    form = config["quantization_config"]
    if quant == "packed_channel":
        form["config_groups"]["group_0"]["weights"]["symmetric"] = False
    else:
        form |= {"group_size": -1, **({"sym": False} if quant == "gptq" else {})}
    return config


@pytest.mark.parametrize("quant", ["gptq", "packed_channel"])
def test_new_inputs_share_no_zero_point_with_old_ones(tmp_path: Path, quant: str) -> None:
    source = write_drawn(tmp_path / "source", one_zero_a_channel(quant))
    with pytest.raises(InputError, match=r"down_proj.* has one zero point for each output, which"):
        build_padded(source, tmp_path / "out", to=512)
    verify(build_trimmed(source, tmp_path / "trimmed", to=256).directory)


def test_new_inputs_get_new_groups_behind_any_order(tmp_path: Path) -> None:
    config = configured("llama", "gptq", MAIN, 384)
    config["quantization_config"]["desc_act"] = True
    source = write_drawn(tmp_path / "source", config)
    out = build_padded(source, tmp_path / "out", to=512).directory
    name = "model.layers.0.mlp.down_proj.g_idx"
    old, new = (read_tensor(read_checkpoint(one).tensors[name]) for one in (source, out))
    assert np.array_equal(new[:384], old)
    assert not np.array_equal(np.sort(old), old)
    assert set(new[384:].tolist()) == {3}
    with pytest.raises(InputError, match="ordered by activation"):
        build_trimmed(source, tmp_path / "trimmed", to=256)


def test_the_makers_layout_puts_a_zero_behind_each_of_the_first(tmp_path: Path) -> None:
    source = write_drawn(tmp_path / "source", configured("llama", "none", MAIN, 384))
    out = build_padded(source, tmp_path / "out", to=512, layout="interleaved").directory
    before, after = read_checkpoint(source), read_checkpoint(out)
    for ending, on_inputs in (("layers.0.mlp.down_proj", True), ("layers.0.mlp.up_proj", False)):
        old, new = layer(before, ending), layer(after, ending)
        for channel in range(0, 512, 3):
            pair = (channel, 3) if on_inputs else (3, channel)
            if channel < 256 and channel % 2:
                assert new(*pair) == 0
                continue
            origin = channel // 2 if channel < 256 else channel - 128
            assert new(*pair) == old(*((origin, 3) if on_inputs else (3, origin)))


def test_packed_weights_are_not_interleaved(tmp_path: Path) -> None:
    source = write_drawn(tmp_path / "source", configured("llama", "awq", MAIN, 384))
    with pytest.raises(InputError, match="tear the groups"):
        build_padded(source, tmp_path / "out", to=512, layout="interleaved")


@pytest.mark.parametrize("quant", ["int8", "fp8_tensor", "fp8_channel"])
def test_other_formats_are_refused_by_name(tmp_path: Path, quant: str) -> None:
    source = write_drawn(tmp_path / "source", configured("llama", quant, MAIN, 384))
    with pytest.raises(InputError, match=r"stored as (8-bit int8|FP8 without blocks), expected"):
        build_padded(source, tmp_path / "out", to=512)


def test_the_largest_width_is_the_first_of_the_keys() -> None:
    assert main_width(small_configs.config("qwen2_moe", "awq")).key == EXPERTS
    with pytest.raises(InputError, match="no width of this model"):
        main_width(small_configs.config("llama", "awq"), EXPERTS)


@pytest.mark.parametrize(
    ("origins", "found"),
    [
        ([], []),
        ([0, 1, 2], [(0, 0, 3)]),
        ([0, 1, ADDED, ADDED], [(0, 0, 2), (2, ADDED, 2)]),
        ([ADDED, 0, ADDED, 1], [(0, ADDED, 1), (1, 0, 1), (2, ADDED, 1), (3, 1, 1)]),
        ([0, 0, 1, 1], [(0, 0, 1), (1, 0, 2), (3, 1, 1)]),
        ([4, 5, 2], [(0, 4, 2), (2, 2, 1)]),
    ],
)
def test_runs_are_what_moves_together(origins: list[int], found: list[tuple[int, ...]]) -> None:
    made = [(run.first, run.source, run.count) for run in runs(np.array(origins, np.int64))]
    assert made == found


@pytest.mark.parametrize(("model", "key"), [("qwen2_moe", EXPERTS), ("mixtral", MAIN)])
def test_experts_are_packed_where_only_the_files_say_so(
    tmp_path: Path, model: str, key: str
) -> None:
    config = configured(model, "awq", key, 384)
    config["quantization_config"]["modules_to_not_convert"] = ["gate"]
    source = write_drawn(tmp_path / "source", config)
    config["quantization_config"]["modules_to_not_convert"] = None
    (source / "config.json").write_text(json.dumps(config))
    for build, to in ((build_padded, {key: 512}), (build_trimmed, {key: 256})):
        verify(build(source, tmp_path / f"{to[key]}", to=to).directory)
    verify(build_regrouped(source, tmp_path / "regrouped", to=64).directory)


def kept_channels(manifest: dict[str, Any], mlp: str) -> list[int]:
    step = manifest.get("granules", {}).get(mlp, manifest["granule"])
    return [group * step + at for group in manifest["kept_groups"][mlp] for at in range(step)]


def test_two_widths_are_trimmed_at_once_each_in_its_own_groups(tmp_path: Path) -> None:
    config = configured("deepseek_v2", "packed_asymmetric", MAIN, 512)
    config |= {EXPERTS: 200, "n_routed_experts": 2, "n_group": 1, "topk_group": 1}
    config["quantization_config"]["ignore"].append("re:.*experts.*")
    source = write_drawn(tmp_path / "source", config)
    out = build_trimmed(source, tmp_path / "out", to={MAIN: 384, EXPERTS: 192}).directory
    verify(out)
    manifest = read_manifest(out).to_json()
    before, after = read_checkpoint(source), read_checkpoint(out)
    experts = next(mlp for mlp in manifest["kept_groups"] if mlp.endswith("experts.1"))  # type: ignore[attr-defined]
    for mlp, step, size in (("model.layers.0.mlp", 128, 384), (experts, 8, 192)):
        channels = kept_channels(manifest, mlp)
        assert len(channels) == size
        assert channels[0] % step == 0
        old, new = (layer(one, f"{mlp}.down_proj") for one in (before, after))
        assert [new(i, 3) for i in range(0, size, 7)] == [old(i, 3) for i in channels[::7]]


def test_an_mlp_of_half_the_key_s_width_is_trimmed_in_its_own_groups(tmp_path: Path) -> None:
    source = write_drawn(tmp_path / "source", configured("qwen", "awq", MAIN, 1024))
    out = build_trimmed(source, tmp_path / "out", to=768).directory
    verify(out)
    manifest = read_manifest(out).to_json()
    assert (manifest["granule"], manifest.get("granules")) == (128, None)
    channels = kept_channels(manifest, "h.0.mlp")
    assert len(channels) == 384
    old, new = (layer(read_checkpoint(one), "h.0.mlp.c_proj") for one in (source, out))
    assert [new(i, 3) for i in range(0, 384, 7)] == [old(i, 3) for i in channels[::7]]
