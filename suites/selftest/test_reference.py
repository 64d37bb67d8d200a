"""Expected scores come back exactly as they were stored, or not at all."""

from __future__ import annotations

import json
from pathlib import Path

from fixtures.reference import load, reference_key, store
from fixtures.serving.client import Position, Scored

SCORES = {
    "text-01": Scored(
        token_ids=(5, 7),
        positions=(
            Position(index=1, token_id=7, logprob=-0.1234567890123, rank=2, top={7: -2.5, 9: -0.1}),
        ),
    )
}


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
    document["scores"]["text-01"]["positions"][0]["logprob"] = -9.0
    file.write_text(json.dumps(document))
    assert load(tmp_path, "key") is None


def test_anything_that_decides_the_scores_is_another_key() -> None:
    facts = {"checkpoint": "a", "arguments": ("--dtype", "float16")}
    assert reference_key(facts) == reference_key(dict(reversed(facts.items())))
    assert reference_key(facts) != reference_key({**facts, "checkpoint": "b"})
    assert reference_key(facts) != reference_key({**facts, "arguments": ("--dtype", "float32")})
