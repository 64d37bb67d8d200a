"""The null of a calibration, and the limits that follow from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fixtures.errors import InputError
from reports.statistics import Verdict
from reports.telling import remark
from suites.calibration import (
    FACTORS,
    NULLS,
    RESAMPLES,
    StoredNull,
    Unproposed,
    called_different,
    document,
    null_quantiles,
    nulls,
    proposed,
    resampled,
    rounded_up,
    stored_null,
)
from suites.evidence import evidence
from suites.lanes import Limits
from suites.numerics import Differences
from suites.selftest.apart import differing
from suites.test_numerics import with_null

QUIET = {"text": [differing(np.zeros(40))] * 8}
LOUD = {
    "text": [differing(np.full(40, 0.002), kl=1e-5, same=0.99)] * 8,
    "code": [differing(np.array([0.01, -0.01] * 20), kl=3e-5)] * 8,
}


def test_a_null_says_what_moved_in_each_stratum() -> None:
    text, code = nulls("sharded", "padded-tp2", [LOUD])
    assert (text.stratum, text.documents, text.positions) == ("text", 8, 320)
    assert text.mean_abs_d == pytest.approx(0.002)
    assert code.mean_abs_d == pytest.approx(0.0, abs=1e-12)
    assert code.rms_d == code.max_abs_d == pytest.approx(0.01)
    assert code.kl_quantiles[-1] == (1.0, 3e-5)


def test_limits_leave_room_for_the_largest_null() -> None:
    found = [*nulls("repeat", "padded-tp1", [QUIET]), *nulls("sharded", "padded-tp2", [LOUD])]
    limits = proposed(found)  # documents are alike, so that intervals reach no further than values
    assert isinstance(limits, dict)
    assert limits["tp_kl_q999"] == pytest.approx(FACTORS["tp_kl_q999"] * 3e-5)
    assert limits["tp_rms_d"] == pytest.approx(FACTORS["tp_rms_d"] * 0.01)
    assert limits["tp_mean_abs_d"] == pytest.approx(FACTORS["tp_mean_abs_d"] * 0.002)
    assert limits["tp_mean_kl"] == pytest.approx(FACTORS["tp_mean_kl"] * 3e-5)
    assert limits["tp_same_top"] == pytest.approx(1 - FACTORS["tp_same_top"] * 0.01)
    assert limits["flip_margin"] == pytest.approx(FACTORS["flip_margin"] * 0.01)


def test_limits_reach_as_far_as_chance_may_show() -> None:
    random = np.random.default_rng(1)
    scattered = {"text": [differing(random.normal(0, 0.01, 40), kl=1e-6) for _ in range(8)]}
    (null,) = nulls("sharded", "padded-tp2", [scattered])
    assert null.reach["mean_d"] > null.mean_abs_d
    assert null.reach["rms_d"] > null.rms_d
    limits = proposed([null])
    assert isinstance(limits, dict)
    assert limits["tp_rms_d"] >= FACTORS["tp_rms_d"] * null.reach["rms_d"]


@pytest.mark.parametrize(
    ("name", "found", "says"),
    [
        ("restart", LOUD, "no cell on several ranks was measured beside its own tp1"),
        ("sharded", QUIET, "a limit of 0 is none"),
    ],
)
def test_without_a_null_that_moves_sums_no_limit_is_proposed(
    name: str, found: dict[str, list[Differences]], says: str
) -> None:
    made = nulls(name, "padded-tp1", [found])
    limits = proposed(made)
    assert isinstance(limits, Unproposed)
    assert says in limits.reason
    content = json.loads(document(made, {}))
    assert content["proposed"] is None
    assert says in content["not_proposed"]


def test_of_many_restarts_the_loudest_is_kept() -> None:
    found = nulls("restart", "padded-tp1", [QUIET, LOUD, QUIET], rejected=1)
    assert {one.stratum for one in found} == {"text", "code"}
    assert {(one.comparisons, one.rejected) for one in found} == {(3, 1)}


def test_corpora_resampled_from_a_null_are_passed_as_it_is() -> None:
    limits: Limits = {"rms_d": 0.02, "mean_kl": 1e-4}
    assert resampled(LOUD, limits, flip_margin=0.1) == ["passed"] * RESAMPLES
    assert resampled(LOUD, {"rms_d": 0.005}, flip_margin=0.1) == ["failed"] * RESAMPLES


def test_a_comparison_that_shows_nothing_has_called_equals_different() -> None:
    verdicts: list[Verdict] = ["passed"] * 18
    found = called_different([*verdicts, "inconclusive", "failed"])
    assert (found.value, found.n) == (0.1, 20)
    spotless = called_different(["passed"] * 20)
    assert spotless.low == spotless.value == 0
    assert spotless.high == pytest.approx(1 - 0.01 ** (1 / 20))  # none of 20: at most 20.6 %


@pytest.mark.parametrize(
    ("value", "rounded"), [(0.0, 0.0), (0.01234, 0.013), (9.91e-5, 1e-4), (2.0, 2.0), (0.25, 0.25)]
)
def test_limits_are_rounded_up(value: float, rounded: float) -> None:
    assert rounded_up(value) == pytest.approx(rounded)
    assert rounded_up(value) >= value - 1e-15


def test_the_stored_null_is_the_largest_at_each_quantile(tmp_path: Path) -> None:
    file = tmp_path / "cpu.json"
    found = [*nulls("repeat", "padded-tp1", [QUIET]), *nulls("sharded", "padded-tp2", [LOUD])]
    file.write_text(document(found, {"engine": "vllm"}))
    assert json.loads(file.read_text())["engine"] == "vllm"
    quantiles = null_quantiles(file)
    assert quantiles["text"][-1] == (1.0, 1e-5)
    assert quantiles["code"][0][1] == 3e-5


CONDITIONS = {
    "engine": {"name": "vllm", "version": "0.32.0", "platform": "cpu"},
    "checkpoint": {"name": "miniature:awq", "digest": "aa"},
    "machine": {"cpu": "a CPU", "gpus": []},
    "corpus": {"name": "ci", "digest": "cc"},
    "arguments": ["--dtype", "float16"],
}


def folder_of(directory: Path, **headers: dict[str, Any]) -> Path:
    for name, header in headers.items():
        found = nulls("sharded", "padded-tp2", [LOUD if name == "loud" else QUIET])
        (directory / f"{name}.json").write_text(document(found, CONDITIONS | header))
    return directory


def test_the_null_of_a_run_is_the_one_that_was_measured_under_its_conditions(
    tmp_path: Path,
) -> None:
    other = {"checkpoint": {"name": "miniature-trained:awq", "digest": "bb"}}
    folder = folder_of(tmp_path, quiet={}, loud=other)
    assert stored_null(CONDITIONS, folder).quantiles["text"][-1] == (1.0, 0.0)
    found = stored_null(CONDITIONS | other, folder)
    assert found.quantiles["code"][-1] == (1.0, 3e-5)
    assert found.told == "The null is that of suites/nulls/loud.json, measured on a CPU"
    renamed = {"checkpoint": {"name": "my-copy", "digest": "aa"}, "machine": {"cpu": "another"}}
    assert stored_null(CONDITIONS | renamed, folder).quantiles


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"checkpoint": {"name": "m", "digest": "dd"}},
            "is of checkpoint miniature:awq",
        ),
        (
            {"engine": {"name": "vllm", "version": "0.33.0", "platform": "cpu"}},
            "vllm 0.32.0",
        ),
        ({"arguments": ["--dtype", "float32"]}, "is of arguments float16"),
        ({"arguments": ["--dtype", "float16", "-x"]}, "is of arguments fewer than this run's"),
        ({"corpus": {"name": "mine", "digest": "dd"}}, "is of corpus ci"),
    ],
)
def test_a_null_of_other_conditions_is_not_drawn(
    tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    found = stored_null(CONDITIONS | changes, folder_of(tmp_path, quiet={}))
    assert found.quantiles == {}
    assert found.told.startswith("No null is drawn: none was measured under these conditions")
    assert found.told.endswith(told)


def test_without_a_stored_null_there_is_none(tmp_path: Path) -> None:
    assert stored_null(CONDITIONS, tmp_path).quantiles == {}


@pytest.mark.parametrize("content", ["{", "[]", '{"schema": 2}'])
def test_a_file_that_is_no_calibration_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "bad.json").write_text(content)
    with pytest.raises(InputError, match=r"bad\.json is no calibration"):
        stored_null(CONDITIONS, tmp_path)


def test_each_stored_calibration_is_of_a_run_of_its_own() -> None:
    stored = [json.loads(path.read_text()) for path in sorted(NULLS.glob("*.json"))]
    assert len(stored) > 1
    for header in stored:
        assert header["nulls"][0]["stratum"] in stored_null(header).quantiles


def test_the_picture_says_whose_null_it_holds_or_why_none() -> None:
    (_, quantiles, _) = evidence(LOUD, against="original-tp1", flip_margin=0.1)
    theirs = StoredNull({"text": [(1.0, 2e-6)], "other": [(1.0, 1.0)]}, "The null is theirs")
    table = with_null(quantiles, theirs)
    assert ("text", "null", 1.0, 2e-6) in table.rows
    assert not [row for row in table.rows if row[0] == "other"]
    assert remark(table.definition) == " The null is theirs."
    assert with_null(quantiles, StoredNull({}, "No null")).rows == quantiles.rows
    assert remark(quantiles.definition) == ""
