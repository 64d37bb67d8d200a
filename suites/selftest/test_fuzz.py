"""Files from strangers: whatever a config or a header says, the answer is a value or one line."""

from __future__ import annotations

import copy
import json
import math
import struct
import time
import tracemalloc
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fixtures.checkpoint.config import parse_config
from fixtures.checkpoint.matching import Names
from fixtures.checkpoint.model import ModelConfig
from fixtures.checkpoint.tensors import INDEX, read_checkpoint, read_header, read_metadata
from fixtures.errors import InputError
from fixtures.platforms import Platform
from fixtures.prediction import plan
from fixtures.reality import contradictions, notes
from suites.selftest.small_configs import MODELS, QUANTS, config
from suites.selftest.tiny import Tiny

# Seconds are no unit of work: this only stops what would never end.
FOREVER_S = 30.0
WORDS = ["", "x", "model", "Linear", "re:.*", "re:(", "re:(a+)+$", "*", "\n", "\x00", "ü" * 300]
NUMBERS = [0, 1, -1, 2, 3, 7, 127, 10_000, 10_001, 2**31, 2**63, 10**400, -(10**400)]
junk = st.recursive(
    st.none()
    | st.booleans()
    | st.sampled_from(NUMBERS)
    | st.sampled_from([0.5, -0.0, 1e308, math.nan, math.inf])
    | st.sampled_from(WORDS)
    | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)
LONG = st.sampled_from([["x"] * 1000, list(range(1000)), {str(n): n for n in range(1000)}])
DEEP = st.integers(10, 400).map(lambda depth: json.loads("[" * depth + "]" * depth))


# What may well be meant.
NUDGES: dict[type, st.SearchStrategy[Any]] = {
    int: st.integers(1, 40) | st.integers(1, 12).map(lambda power: 2**power) | st.just(10_000),
    bool: st.booleans(),
    str: st.sampled_from(
        ["channel", "tensor", "group", "block", "int", "float", "re:.*layers.1.*"]
    ),
}


def places(value: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value."""
    found = [path] if path else []
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, inner in items:
        found += places(inner, (*path, key))
    return found


@st.composite
def mutated(draw: st.DrawFn) -> dict[str, Any]:
    """A valid config with up to four places gone, replaced, or added to."""
    data = config(draw(st.sampled_from(sorted(MODELS))), draw(st.sampled_from(sorted(QUANTS))))
    for _ in range(draw(st.integers(1, 4))):
        where = places(data)
        if not where:
            break
        *path, last = draw(st.sampled_from(where))
        inner: Any = data
        for key in path:
            inner = inner[key]
        action = draw(st.sampled_from(["delete", "replace", "nudge", "nudge", "add", "swap"]))
        if action == "delete" and isinstance(inner, dict):
            del inner[last]
        elif action == "add" and isinstance(inner, dict):
            inner[draw(st.text(max_size=5))] = draw(junk)
        elif action == "nudge" and type(inner[last]) in NUDGES:
            inner[last] = draw(NUDGES[type(inner[last])])
        elif action == "swap":
            inner[last] = copy.deepcopy(draw(st.sampled_from([inner, data, *QUANTS.values()])))
        else:
            inner[last] = copy.deepcopy(draw(junk | LONG | DEEP | st.integers(-2, 2**33)))
    return data


def parsed(data: dict[str, Any]) -> ModelConfig | None:
    """The model, or None where the config was refused in one line."""
    try:
        return parse_config(data, source="c")
    except InputError as refusal:
        message = str(refusal)
        assert message.isprintable(), message
        assert len(message) < 2000, message
        return None


def planned(model: ModelConfig) -> None:
    """Every size on every platform, and the config against no weights at all."""
    for platform in get_args(Platform):
        for tp in range(1, 9):
            cell = plan(model, tp=tp, platform=platform)
            assert all(obstacle.message.isprintable() for obstacle in cell.obstacles)
    assert contradictions(model, {})
    assert notes(model, {}) == ()


CATASTROPHES = ["(a+)+$", "(.*)*x", r"(?:\w+\.?)+!", "(.*a){20}", "a?" * 30, "(a|a)*b", ".*" * 40]


@pytest.mark.parametrize("pattern", CATASTROPHES)
def test_a_pattern_that_backtracks_forever_is_refused_or_takes_no_time(pattern: str) -> None:
    data = config("qwen2_5_vl", "packed")
    data["quantization_config"]["ignore"] = [f"re:{pattern}", f"re:model.*{pattern}"]
    gptq = config("qwen2", "gptq")
    gptq["quantization_config"]["dynamic"] = {f"-:{pattern}": {}}
    began = time.monotonic()
    for each in (data, gptq):
        if (model := parsed(each)) is not None:
            planned(model)
    assert time.monotonic() - began < FOREVER_S


HUGE = 100_000
LISTS: list[tuple[str, str, list[str]]] = [
    ("awq", "modules_to_not_convert", [f"layers.{n}.mlp.up_proj" for n in range(HUGE)]),
    ("fp8_block", "modules_to_not_convert", [f"model.layers.{n}.mlp" for n in range(HUGE)]),
    (
        "fp8_block",
        "ignored_layers",
        [f"model.layers.0.mlp.experts.{n}.up_proj" for n in range(HUGE)],
    ),
    ("packed", "ignore", [f"model.layers.{n}.mlp.down_proj" for n in range(HUGE)]),
    ("packed", "ignore", ["x" * length for length in range(2000)]),
    ("awq", "modules_to_not_convert", ["x" * length for length in range(1, 2000)]),
    ("packed", "ignore", [f"re:.*layers\\.{n}\\..*" for n in range(1000)]),
]


@pytest.mark.parametrize(("quant", "key", "names"), LISTS)
@pytest.mark.parametrize("layers", [4, 10_000])
def test_a_list_of_any_length_is_asked_for_each_name_once(
    quant: str, key: str, names: list[str], layers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    look_up = Names._look_up

    def counted(self: Names, name: str) -> int:
        asked.append(name)
        return look_up(self, name)

    monkeypatch.setattr(Names, "_look_up", counted)
    data = config("qwen3_moe", quant) | {"num_hidden_layers": layers, "num_experts": 10_000}
    data["quantization_config"][key] = names
    model = parsed(data)
    if model is not None:
        planned(model)
    assert len(asked) == len(set(asked))
    assert len(asked) <= 20 * layers + 10


def test_more_matches_than_sense_are_refused_by_number() -> None:
    data = config("llama", "packed") | {"num_hidden_layers": 1000}
    data["quantization_config"]["ignore"] = ["re:.*"] * 101
    with pytest.raises(InputError, match="patterns worth 101 simple ones, for 1000 layers"):
        parse_config(data, source="c")


@settings(deadline=None, max_examples=200, suppress_health_check=list(HealthCheck))
@given(mutated())
def test_a_mutated_config_is_a_model_that_can_be_planned_or_one_line(data: dict[str, Any]) -> None:
    began = time.monotonic()
    model = parsed(data)
    if model is not None:
        planned(model)
    assert time.monotonic() - began < FOREVER_S


entries = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F16", "I32", "F4", "", "BF16"]) | junk,
        "shape": st.lists(st.integers(-1, 4) | st.sampled_from(NUMBERS), max_size=3) | junk,
        "data_offsets": st.lists(st.integers(-1, 9) | st.sampled_from(NUMBERS), max_size=3) | junk,
    }
)
headers = st.dictionaries(st.text(max_size=5) | st.just("__metadata__"), entries | junk, max_size=4)


def encoded(header: object) -> bytes:
    return json.dumps(header).encode()


files = st.binary(max_size=200) | st.builds(
    lambda header, length, data: struct.pack("<Q", length or len(header)) + header + data,
    headers.map(encoded) | st.binary(max_size=50) | st.just(b"[" * 100_000),
    st.just(0) | st.integers(0, 2**64 - 1),
    st.binary(max_size=16),
)


@settings(
    deadline=None,
    max_examples=300,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(files)
def test_a_hostile_file_is_tensors_or_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    for read in (read_header, read_metadata):
        try:
            read(path)
        except InputError as refusal:
            message = str(refusal)
            assert message.isprintable(), message
            assert len(message) < 2000, message


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 100_000_000, 93, 101])
def test_no_more_memory_is_taken_than_the_file_is_long(tmp_path: Path, length: int) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", length) + b" " * 92)
    tracemalloc.start()
    try:
        with pytest.raises(InputError):
            read_header(path)
        assert tracemalloc.get_traced_memory()[1] < 200_000
    finally:
        tracemalloc.stop()


@settings(
    deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.dictionaries(st.text(max_size=4), st.text(max_size=4) | junk, max_size=3) | junk)
def test_a_hostile_index_is_one_line(tmp_path: Path, mapping: object) -> None:
    refused(tmp_path, mapping)


def refused(tmp_path: Path, mapping: object) -> None:
    tiny = tmp_path / "c"
    if not tiny.exists():
        Tiny(shards=2).write(tiny)
    (tiny / INDEX).write_text(json.dumps({"weight_map": mapping}))
    with pytest.raises(InputError) as refusal:
        read_checkpoint(tiny)
    assert str(refusal.value).isprintable()


@pytest.mark.parametrize("name", ["x" * 5000, "\x00", "\ud800", "..", "", "."])
def test_a_file_name_no_file_has_is_one_line(tmp_path: Path, name: str) -> None:
    refused(tmp_path, {"a": name})
