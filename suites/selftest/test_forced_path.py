"""Every engine is started with the processor that makes it follow a path, and either runner can.

The processor runs inside the engine; here it is held against stand-ins for what it imports, and its
rows of logits are dictionaries.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from fixtures.serving.server import FORCED_PATH, INSIDE, PROCESSORS, with_forced_path

OURS = (PROCESSORS, FORCED_PATH)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((), OURS),
        (("--dtype", "float16"), ("--dtype", "float16", *OURS)),
        (OURS, OURS),
        ((PROCESSORS, "mine:Own", "-q"), (*OURS, "mine:Own", "-q")),
        ((f"{PROCESSORS}=mine:Own", "-q"), (*OURS, "mine:Own", "-q")),
        (("--speculative-config", "{}"), ("--speculative-config", "{}")),
        (("--spec-method", "ngram"), ("--spec-method", "ngram")),
        (("-sc", "{}"), ("-sc", "{}")),
        (("--specialize-active-lora",), ("--specialize-active-lora", *OURS)),
    ],
)
def test_the_processor_is_among_the_arguments_where_the_engine_takes_one(
    given: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    assert with_forced_path(given) == expected


# ------------------------------------------------------------------ inside the engine


class Number(float):
    """An element of a tensor."""

    def clone(self) -> Number:
        return self


class Logits(list[list[float]]):
    """Rows of logits, with as much of a tensor as the processor uses."""

    def __getitem__(self, place: Any) -> Any:
        return Number(list.__getitem__(self, place[0])[place[1]])

    def __setitem__(self, place: Any, value: Any) -> None:
        if isinstance(place, tuple):
            list.__getitem__(self, place[0])[place[1]] = float(value)
        else:
            list.__getitem__(self, place)[:] = [value] * len(list.__getitem__(self, place))

    def possible(self) -> list[list[int]]:
        """By row, the tokens that can still be drawn."""
        return [[at for at, value in enumerate(row) if value > float("-inf")] for row in self]


@pytest.fixture
def processor(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The class, as an engine of two model runners has it."""
    base, slots = type("V1", (), {}), type("V2", (), {})
    modules: Mapping[str, Mapping[str, Any]] = {
        "torch": {},
        "vllm": {},
        "vllm.v1": {},
        "vllm.v1.sample": {},
        "vllm.v1.sample.logits_processor": {"LogitsProcessor": base},
        "vllm.v1.sample.logits_processor.interface": {
            "BatchUpdate": object,
            "MoveDirectionality": SimpleNamespace(SWAP="swap"),
        },
        "vllm.v1.worker": {},
        "vllm.v1.worker.gpu": {},
        "vllm.v1.worker.gpu.sample": {},
        "vllm.v1.worker.gpu.sample.logits_processor": {"LogitsProcessor": slots},
    }
    for name, content in modules.items():
        module = ModuleType(name)
        module.__dict__.update(content)
        monkeypatch.setitem(sys.modules, name, module)
    file, name = INSIDE / "shardproof_path.py", FORCED_PATH.partition(":")[0]
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    assert issubclass(found.ForcedPath, (base,))
    assert issubclass(found.ForcedPath, (slots,))
    return found.ForcedPath


def params(path: list[int] | None) -> SimpleNamespace:
    return SimpleNamespace(extra_args=None if path is None else {"shardproof_path": path})


def test_the_second_runner_follows_a_path_from_its_prompts_end(processor: Any) -> None:
    # Prompts of 10, 4 and 7 tokens in slots 0, 1 and 2; the one of slot 1 has no path.
    state = SimpleNamespace(prompt_len=SimpleNamespace(np=[10, 4, 7]))
    forced = processor(None, state)
    asked = [
        forced.add_request(slot, params(path)) for slot, path in enumerate(([3, 1], None, [2]))
    ]
    assert asked == [True, False, True]

    def possible(slots: list[int], lengths: list[int]) -> list[list[int]]:
        context = SimpleNamespace(idx_mapping_np=slots, seq_lens_upper_bound_np=lengths)
        logits = Logits([0.0] * 4 for _ in slots)
        return forced.apply(logits, context).possible()  # type: ignore[no-any-return]

    every = [0, 1, 2, 3]
    assert possible([2, 1, 0], [7, 4, 10]) == [[2], every, [3]]
    assert possible([0, 1], [11, 5]) == [[1], every]
    assert possible([0, 2], [12, 8]) == [every, every]  # the paths are at their ends
    assert possible([0, 2], [6, 3]) == [every, every]  # prompts that are read in pieces
    assert forced.add_request(0, params(None)) is False  # the slot of one that has ended
    assert possible([0], [10]) == [every]


def test_the_first_runner_follows_a_path_through_moves(processor: Any) -> None:
    forced = processor(None, "cuda:0", False)
    written: list[int] = []

    def update(**parts: Any) -> None:
        whole = {"removed": (), "added": (), "moved": (), **parts}
        forced.update_state(SimpleNamespace(**whole))

    def possible() -> list[list[int]]:
        return forced.apply(Logits([0.0] * 4 for _ in range(2))).possible()  # type: ignore[no-any-return]

    every = [0, 1, 2, 3]
    update(added=[(0, params([3, 1]), [9], written), (1, params(None), [9], [])])
    assert possible() == [[3], every]
    written.append(3)
    update(moved=[(0, 1, "swap")])
    assert possible() == [every, [1]]
    update(removed=[1])
    assert possible() == [every, every]


def test_a_path_that_is_none_is_refused_at_the_door(processor: Any) -> None:
    processor.validate_params(params([1, 2]))
    processor.validate_params(params(None))
    for wrong in ([], "12", [1.5], [True]):
        with pytest.raises(ValueError, match="expected a list of token ids"):
            processor.validate_params(params(wrong))  # type: ignore[arg-type]
