"""Expected scores come back exactly as they were stored, or not at all."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from fixtures import reference
from fixtures.reference import CorpusScores, load, processor, reference_key, store
from fixtures.serving.client import Position, Scored

SCORED = Scored(
    token_ids=(5, 7),
    positions=(
        Position(index=1, token_id=7, logprob=-0.1234567890123, rank=2, top={7: -2.5, 9: -0.1}),
    ),
)
SCORES = CorpusScores({"text-01": SCORED, "text-01/decode": SCORED}, {"text-01": SCORED})


def test_scores_come_back_exactly(tmp_path: Path) -> None:
    store(tmp_path, "key", SCORES)
    assert load(tmp_path, "key") == SCORES
    assert [file.name for file in tmp_path.iterdir()] == ["key.json"]


def test_what_was_never_stored_is_none(tmp_path: Path) -> None:
    assert load(tmp_path, "other") is None


def test_a_torn_or_edited_file_is_scored_anew(tmp_path: Path) -> None:
    store(tmp_path, "key", SCORES)
    file = tmp_path / "key.json"
    whole = file.read_text()
    file.write_text(whole[: len(whole) // 2])
    assert load(tmp_path, "key") is None
    document = json.loads(whole)
    document["scores"]["prefilled"]["text-01"]["positions"][0]["logprob"] = -9.0
    file.write_text(json.dumps(document))
    assert load(tmp_path, "key") is None


def signed(body: object) -> str:
    return json.dumps({"digest": reference._digest(body), "scores": body})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "7",
        "{}",
        '{"scores": {}}',
        '{"digest": 3, "scores": {}}',
        "[" * 100_000,
        signed([]),
        signed({"prefilled": {}}),
        signed({"prefilled": {}, "decoded": []}),
        signed({"prefilled": {"a": 7}, "decoded": {}}),
        signed({"prefilled": {"a": {"token_ids": [1]}}, "decoded": {}}),
        signed({"prefilled": {"a": {"token_ids": 1, "positions": []}}, "decoded": {}}),
        signed(
            {"prefilled": {"a": {"token_ids": [1], "positions": [{"top": [3]}]}}, "decoded": {}}
        ),
        signed({"decoded": {"a": {"token_ids": [1], "positions": [{"odd": 1}]}}, "prefilled": {}}),
    ],
)
def test_json_that_is_not_ours_is_scored_anew(text: str, tmp_path: Path) -> None:
    (tmp_path / "key.json").write_text(text)
    assert load(tmp_path, "key") is None


def killed_while_storing(folder: Path) -> None:
    def dump(*_: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    pytest.MonkeyPatch().setattr(json, "dump", dump)
    store(folder, "other", SCORES)


def test_what_a_killed_writer_left_goes_with_the_next_store(tmp_path: Path) -> None:
    victim = multiprocessing.get_context("spawn").Process(
        target=killed_while_storing, args=(tmp_path,)
    )
    victim.start()
    victim.join(30)
    assert victim.exitcode == -signal.SIGKILL
    assert [file.suffix for file in tmp_path.iterdir()] == [".partial"]
    store(tmp_path, "key", SCORES)
    assert [file.name for file in tmp_path.iterdir()] == ["key.json"]


def test_a_living_writers_file_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dump = json.dump

    def interrupted(*arguments: Any) -> None:
        monkeypatch.setattr(json, "dump", dump)
        store(tmp_path, "other", SCORES)
        dump(*arguments)

    monkeypatch.setattr(json, "dump", interrupted)
    store(tmp_path, "key", SCORES)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["key.json", "other.json"]


def test_anything_that_decides_the_scores_is_another_key() -> None:
    facts = {"checkpoint": "a", "arguments": ("--dtype", "float16")}
    assert reference_key(facts) == reference_key(dict(reversed(facts.items())))
    assert reference_key(facts) != reference_key({**facts, "checkpoint": "b"})
    assert reference_key(facts) != reference_key({**facts, "arguments": ("--dtype", "float32")})


X86 = """processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 25
model\t\t: 17
model name\t: A Name In Common
stepping\t: 1
flags\t\t: fpu vme sse4_2 avx2 {}fma nospec
bugs\t\t: spectre_v1

processor\t: 1
"""


def test_chips_of_one_name_are_told_apart(tmp_path: Path) -> None:
    found = {}
    for name, text in {
        "with": X86.format("avx512f "),
        "without": X86.format(""),
        "stepping": X86.format("").replace("stepping\t: 1", "stepping\t: 2"),
        "patched": X86.format("").replace("nospec", "ibpb").replace("spectre_v1", "retbleed"),
    }.items():
        (tmp_path / name).write_text(text)
        found[name] = reference_key({"processor": processor(tmp_path / name)})
    assert found["without"] == found["patched"]  # no arithmetic in it
    assert len(set(found.values())) == 3


def test_this_machines_processor_says_what_it_is() -> None:
    assert processor().get("instructions")
