"""What the claim about original-tp1 says where its judge cannot speak."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fixtures.errors import InputError, UnsupportedError
from fixtures.reference import CorpusScores
from fixtures.serving.client import Scored
from suites import test_numerics
from suites.baseline import Baseline
from suites.corpus import Document
from suites.selftest.test_expect import SERVING, Recorder
from suites.selftest.tiny import Tiny


def judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> Recorder:
    """The rows of a run whose judge raises this."""

    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr(test_numerics, "score_independently", refuse)
    record = Recorder()
    nobody: Any = None
    directory = Tiny().write(tmp_path / "source")
    matrix: Any = SimpleNamespace(directory=lambda _: directory)
    baseline = Baseline(scores=CorpusScores({"a": Scored((1, 2), ())}, {}))
    with suppress(pytest.fail.Exception):
        test_numerics.test_independent(
            SERVING, nobody, matrix, baseline, (Document("a", "text", "a"),), nobody, frozenset(),
            record,
        )  # fmt: skip
    return record


def test_a_judge_that_there_is_none_of_is_a_skip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(pytest.skip.Exception, match="torch is not installed"):
        judged(tmp_path, monkeypatch, UnsupportedError("torch is not installed"))


@pytest.mark.parametrize("why", ["are not finite in float32", "ended with exit code -9"])
def test_a_judge_that_fails_is_no_skip(
    why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (row,) = judged(tmp_path, monkeypatch, InputError(why)).rows
    assert (row.claim, row.outcome) == ("numerics/independent/scored", "invalid")
    assert why in str(row.reason)
