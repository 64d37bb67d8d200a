"""What is found in the copies of a dry load, and what becomes of an engine that does not answer."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from fixtures.boxes import Box, merged
from fixtures.coverage import Copy, Finding
from fixtures.dry import DryEngine
from fixtures.dry_findings import RankLoad, findings, module_of
from fixtures.errors import ServingError

WEIGHT, SCALES = "mlp.down_proj.qweight", "mlp.down_proj.scales"
SHAPES: dict[str, tuple[int, ...]] = {WEIGHT: (8, 4), SCALES: (4, 4), "norm.weight": (6,)}


def copy(rank: int, tensor: str, rows: tuple[int, int], at: int = 0) -> Copy:
    rest: Box = tuple((0, size) for size in SHAPES[tensor][1:])
    written = ((at, at + rows[1] - rows[0]), *rest)
    return Copy(rank, tensor, (rows, *rest), tensor, written, True)


def load(rank: int, copies: Sequence[Copy], **parameters: tuple[int, ...]) -> RankLoad:
    own = {tensor: (stop, *SHAPES[tensor][1:]) for tensor, stop in _written(copies).items()}
    return RankLoad(rank, 0, own | parameters, tuple(copies))


def _written(copies: Sequence[Copy]) -> dict[str, int]:
    boxes = ((copy.tensor, copy.written) for copy in copies)
    return {tensor: box[0][1] for tensor, box in boxes if box is not None}


def two_ranks() -> list[RankLoad]:
    """Input rows cut in two, the norm on both."""
    return [
        load(
            rank,
            [
                copy(rank, WEIGHT, (4 * rank, 4 * rank + 4)),
                copy(rank, SCALES, (2 * rank, 2 * rank + 2)),
                copy(rank, "norm.weight", (0, 6)),
            ],
        )
        for rank in range(2)
    ]


def without(load: RankLoad, tensor: str, *instead: Copy) -> RankLoad:
    kept = tuple(copy for copy in load.copies if copy.tensor != tensor)
    return replace(load, copies=(*kept, *instead))


def kinds(found: Sequence[Finding]) -> list[str]:
    return sorted(finding.kind for finding in found)


def test_a_whole_load_has_no_findings() -> None:
    assert findings(two_ranks(), SHAPES, 2) == ()


def test_rows_that_no_rank_reads_are_named() -> None:
    first, second = two_ranks()
    shapes = SHAPES | {SCALES: (5, 4)}
    found = findings([first, second], shapes, 2)
    (lost,) = (finding for finding in found if finding.kind == "dropped")
    assert (lost.tensor, lost.elements) == (SCALES, 4)
    assert "[4:5,:] held by 0 ranks" in lost.message


def test_scales_out_of_step_with_their_weight_are_found_on_each_rank() -> None:
    found = findings(two_ranks(), SHAPES | {SCALES: (5, 4)}, 2)
    first, second = (finding for finding in found if finding.kind == "out_of_step")
    assert (first.ranks, second.ranks) == ((0,), (1,))
    assert f"{WEIGHT} is cut at 0..1/2, {SCALES} at 0..2/5" in first.message


def test_a_tensor_nobody_reads_is_dropped_whole() -> None:
    loads = [without(load, "norm.weight") for load in two_ranks()]
    found = findings(loads, SHAPES, 2)
    assert [(f.kind, f.ranks, f.elements) for f in found if f.kind == "dropped"] == [
        ("dropped", (), 6)
    ]


def test_an_element_held_by_some_ranks_too_many_is_found() -> None:
    loads = [load(rank, [copy(rank, "norm.weight", (0, 6))]) for rank in range(3)]
    found = findings(loads, {"norm.weight": (6,)}, 4)
    assert [(f.kind, f.ranks, f.elements) for f in found] == [("repeated", (0, 1, 2), 6)]


def test_shared_kv_heads_are_held_by_as_many_ranks_as_the_caller_says() -> None:
    shapes = {"k_proj.weight": (4, 2)}
    copies = [
        Copy(
            r, "k_proj.weight", ((r // 2 * 2, r // 2 * 2 + 2), (0, 2)), "k", ((0, 2), (0, 2)), True
        )
        for r in range(4)
    ]
    loads = [RankLoad(c.rank, 0, {"k": (2, 2)}, (c,)) for c in copies]
    assert findings(loads, shapes, 4, replicas={2}) == ()
    assert kinds(findings(loads, shapes, 4)) == ["repeated"]
    assert kinds(findings(loads[:3], shapes, 4, replicas={2})) == []  # once, where no one shares


def test_a_parameter_nobody_writes_is_found_and_padding_is_not() -> None:
    first, second = two_ranks()
    wide = replace(first, parameters={**first.parameters, "norm.weight": (8,)})
    (found,) = findings([wide, second], SHAPES, 2)
    assert (found.kind, found.tensor, found.elements) == ("unwritten", "norm.weight", 2)
    padded = replace(wide, filled=(("norm.weight", ((6, 8),)),))
    assert findings([padded, second], SHAPES, 2) == ()


@pytest.mark.parametrize("name", ["mlp.down_proj.g_idx", "self_attn.attn.k_scale"])
def test_what_an_engine_makes_for_itself_need_not_be_written(name: str) -> None:
    first, second = two_ranks()
    own = replace(first, parameters={**first.parameters, name: (8,)})
    assert findings([own, second], SHAPES, 2) == ()


def test_one_place_written_by_two_boxes_has_lost_the_first() -> None:
    first, second = two_ranks()
    again = replace(first, copies=(*first.copies, copy(0, SCALES, (1, 3))))
    found = findings([again, second], SHAPES, 2)
    assert ("altered", SCALES, 8) in [(f.kind, f.tensor, f.elements) for f in found]


def test_a_box_that_is_not_known_is_a_fault_and_not_a_guess() -> None:
    first, second = two_ranks()
    unknown = replace(without(first, WEIGHT), faults=((WEIGHT, WEIGHT),))
    found = findings([unknown, second], SHAPES, 2)
    assert [(f.kind, f.tensor, f.ranks) for f in found] == [("fault", WEIGHT, (0,))]


def test_neighbouring_boxes_are_one() -> None:
    corners: list[Box] = [((x, x + 2), (y, y + 3)) for x in (0, 2) for y in (0, 3)]
    assert merged(corners) == [((0, 4), (0, 6))]
    assert merged([((0, 1), (0, 1)), ((1, 2), (1, 2))]) == [((0, 1), (0, 1)), ((1, 2), (1, 2))]


@pytest.mark.parametrize(
    ("tensor", "module"),
    [
        ("layers.0.mlp.up_proj.scales", "layers.0.mlp.up_proj"),
        ("layers.0.mlp.up_proj.weight_scale_inv", "layers.0.mlp.up_proj"),
        ("layers.0.mlp.experts.gate_up_proj", "layers.0.mlp.experts.gate_up_proj"),
        ("layers.0.mlp.experts.gate_up_proj_bias", "layers.0.mlp.experts.gate_up_proj"),
        ("layers.0.linear_attn.A_log", "layers.0.linear_attn.A_log"),
    ],
)
def test_tensors_that_are_cut_together_have_one_module(tensor: str, module: str) -> None:
    assert module_of(tensor) == module


READY = "import json, sys, time\nprint(json.dumps({'id': None, 'ready': {}}), flush=True)\n"
ANSWER = "{'id': request['id'], 'raised': None, 'ranks': [], 'seconds': 0.0}"


def impostor(directory: Path, body: str) -> DryEngine:
    """An engine whose interpreter runs this instead of the script it is given."""
    program = directory / "python"
    program.write_text(f"#!{sys.executable}\n{READY}{body}\n")
    program.chmod(0o755)
    return DryEngine(log=directory / "engine.log", python=str(program), answer_s=10.0)


def test_an_engine_that_answers_is_asked_again(tmp_path: Path) -> None:
    body = f"for line in sys.stdin:\n request = json.loads(line)\n print(json.dumps({ANSWER}))\n"
    with impostor(tmp_path, body + " sys.stdout.flush()") as engine:
        large: dict[str, object] = {"padding": "x" * (1 << 20)}  # more than a pipe takes at once
        assert engine.ask(large, {}, 1).loads_whole
        assert engine.ask({}, {}, 1).loads_whole


def test_an_engine_that_dies_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    body = "sys.stdin.readline()\nprint('out of luck', file=sys.stderr)\nsys.exit(3)"
    with impostor(tmp_path, body) as engine, pytest.raises(ServingError) as error:
        engine.ask({}, {}, 1)
    assert "exit code 3" in str(error.value)
    assert "out of luck" in str(error.value)


def test_an_engine_that_hangs_is_ended_and_started_anew(tmp_path: Path) -> None:
    with impostor(tmp_path, "time.sleep(600)") as engine:
        engine.answer_s = 0.2
        for _ in range(2):
            with pytest.raises(ServingError, match=r"did not answer within 0\.2 s"):
                engine.ask({}, {}, 1)


def test_an_engine_that_cannot_start_says_so(tmp_path: Path) -> None:
    engine = impostor(tmp_path, "")
    Path(engine.python).write_text("#!/bin/sh\necho no torch here >&2\nexit 1\n")
    with pytest.raises(ServingError, match="no torch here"):
        engine.ask({}, {}, 1)
