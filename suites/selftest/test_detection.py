"""What a run may say of seeded faults, from results made by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from fixtures.deployment import NumericsBudget
from fixtures.faults import TRIALS, Fault, Trial
from fixtures.reference import CorpusScores
from reports.record import Row
from suites import test_faults
from suites.answers import Answers
from suites.baseline import Baseline
from suites.detection import Result, Unjudged, Verdict, judged_blind, record_result
from suites.expect import Rows
from suites.lanes import Judgement
from suites.selftest.apart import differing
from suites.sensitivity import record_summary

BY_LABEL = {trial.label: trial for trial in TRIALS}
LISTED = tuple(trial.label for trial in TRIALS if trial.listed)
STEPS = tuple(t.label for t in TRIALS if not t.listed and not t.control)
FAR = Judgement("text", "rms_d", "failed", 0.5, 10, limit=0.1)
BUDGET = NumericsBudget(
    padded_max_abs_d=0.0, tp_rms_d=0.1, tp_mean_abs_d=0.1, tp_mean_kl=0.1, tp_rms_dp=0.1,
    tp_same_top=0.9, flip_margin=0.1, task_loss=0.05, tp_kl_q999=0.1,
)  # fmt: skip


def fault(name: str) -> Fault:
    nothing: tuple[str, ...] = ()
    return Fault(
        name=name, of="padded", simulates="a mistake", seed=0, strength=None, directory=Path("out"),
        source=Path("in"), source_digest="", where="here", spans=(), before="", after="",
        tensors=nothing, files=nothing, relative=0.1, layers={}, detectable=True,
    )  # fmt: skip


def verdict(label: str, *, exact: bool = True, several: bool = True) -> Verdict:
    trial = BY_LABEL[label]
    one, many = (FAR,) * exact, (FAR,) * several
    return Verdict(trial, fault(trial.kind.name), one, many, 0.02)


def every(changed: Mapping[str, Result] | None = None) -> list[Result]:
    """A run in which each fault is seen everywhere and the control nowhere, but for `changed`."""
    good: dict[str, Result] = {label: verdict(label) for label in BY_LABEL}
    good["identity"] = verdict("identity", exact=False, several=False)
    return list({**good, **(changed or {})}.values())


def recorded(results: list[Result], required: tuple[str, ...] | None) -> dict[str, Row]:
    found: dict[str, Row] = {}

    def record(**fields: Any) -> Row:
        row = Row(**fields)
        found[row.claim.removeprefix("faults/")] = row
        return row

    rows = Rows(record, "padded-tp1")
    for result in results:
        record_result(rows, result, required)
    record_summary(rows, results, required)
    return found


def test_a_run_that_sees_every_fault_says_so() -> None:
    rows = recorded(every(), LISTED)
    assert {row.outcome for row in rows.values()} == {"passed"}
    assert rows["detected"].reason == (
        "every listed fault is rejected; of 4 other steps of the ladder, 4"
    )
    assert (rows["detected"].value, rows["detected"].n) == (1.0, len(LISTED))


def test_a_listed_fault_that_is_missed_is_invalid() -> None:
    rows = recorded(every({"groups_swapped": verdict("groups_swapped", exact=False)}), ())
    assert rows["groups_swapped"].outcome == rows["detected"].outcome == "invalid"
    assert "missed: groups_swapped" in str(rows["detected"].reason)


@pytest.mark.parametrize("label", STEPS)
def test_another_step_of_the_ladder_may_be_missed(label: str) -> None:
    rows = recorded(every({label: verdict(label, exact=False, several=False)}), ())
    assert rows[label].outcome == rows["detected"].outcome == "passed"
    assert "A step of the ladder, recorded. Rejected by nothing" in str(rows[label].reason)
    assert "of 4 other steps of the ladder, 3" in str(rows["detected"].reason)


def test_the_step_that_a_fault_is_listed_by_may_not() -> None:
    assert "one_scale-0.01" in LISTED
    missed = verdict("one_scale-0.01", exact=False)
    assert recorded(every({"one_scale-0.01": missed}), ())["detected"].outcome == "invalid"


@pytest.mark.parametrize("label", ["groups_swapped", "identity"])
def test_what_was_not_judged_is_not_detected(label: str) -> None:
    unjudged = Unjudged(BY_LABEL[label], "not judged: the port was taken")
    rows = recorded(every({label: unjudged}), ())
    assert rows[label].outcome == rows["detected"].outcome == "invalid"
    assert "every" not in str(rows["detected"].reason)


def test_a_step_that_was_not_judged_is_left_out() -> None:
    unjudged = Unjudged(BY_LABEL["one_scale-0.1"], "not judged: no space left")
    rows = recorded(every({"one_scale-0.1": unjudged}), ())
    assert rows["one_scale-0.1"].outcome == "not_run"
    assert rows["detected"].outcome == "passed"
    asked = recorded(every({"one_scale-0.1": unjudged}), ("one_scale-0.1",))
    assert asked["several_ranks/one_scale-0.1"].outcome == "invalid"
    assert asked["detected_on_several_ranks"].outcome == "invalid"


def test_a_rejected_control_takes_the_worth_of_every_rejection() -> None:
    rows = recorded(every({"identity": verdict("identity")}), ())
    assert rows["identity"].outcome == rows["detected"].outcome == "invalid"
    assert "so a rejection shows nothing" in str(rows["detected"].reason)


def test_what_a_checkpoint_cannot_have_is_not_missed() -> None:
    label = "expert_permuted"
    impossible = Unjudged(BY_LABEL[label], "it has no experts", possible=False)
    rows = recorded(every({label: impossible}), (label,))
    assert rows[label].outcome == rows[f"several_ranks/{label}"].outcome == "not_run"
    assert rows["detected"].outcome == rows["detected_on_several_ranks"].outcome == "passed"
    none: list[Result] = [Unjudged(trial, "no", possible=False) for trial in TRIALS]
    assert recorded(none, ())["detected"].outcome == "not_run"


def test_several_ranks_must_see_what_is_asked_and_say_what_is_not() -> None:
    blind = {label: verdict(label, several=False) for label in ("groups_swapped", "bias_shifted")}
    rows = recorded(every(blind), ("groups_swapped", "head_permuted"))
    claim = "several_ranks/"
    assert rows[f"{claim}groups_swapped"].outcome == "invalid"
    assert "known to be missed" in str(rows[f"{claim}bias_shifted"].reason)
    assert rows[f"{claim}bias_shifted"].value == 0.02
    assert "must be seen" in str(rows[f"{claim}head_permuted"].reason)
    assert "expected to be missed, and seen" in str(rows[f"{claim}blind_trim"].reason)
    whole = rows["detected_on_several_ranks"]
    assert whole.outcome == "invalid"
    assert "missed: groups_swapped (RMS d 0.02 nat)" in str(whole.reason)
    assert "other orders: bias_shifted (RMS d 0.02 nat)" in str(whole.reason)
    assert "seen, though expected to be missed: " in str(whole.reason)


def test_limits_nobody_reviewed_ask_for_nothing() -> None:
    rows = recorded(every({"bias_shifted": verdict("bias_shifted", several=False)}), None)
    assert rows["detected_on_several_ranks"].outcome == "passed"
    assert "does not say what must be seen" in str(rows["detected_on_several_ranks"].reason)


def test_a_copy_that_is_to_blame_for_its_silence_is_detected() -> None:
    broken = replace(verdict("bias_shifted", exact=False, several=False), broken="null is NaN")
    rows = recorded(every({"bias_shifted": replace(broken, loudest=None)}), ("bias_shifted",))
    assert rows["detected"].outcome == rows["detected_on_several_ranks"].outcome == "passed"
    assert "Rejected by null is NaN" in str(rows["bias_shifted"].reason)


def test_other_judges_are_asked_about_each_position_once() -> None:
    """The end of a text is decoded as well: the ratio of perplexities is that of the text."""
    texts, decoded = differing(np.zeros(90)), differing(np.full(30, 0.04))
    nothing = Answers((), ())
    trial: Trial = BY_LABEL["groups_swapped"]
    found = judged_blind(
        trial, fault("groups_swapped"), {"text": [texts], "decode": [decoded]},
        {"max_abs_d": 0.0}, BUDGET, nothing, nothing,
    )  # fmt: skip
    assert found.detected
    assert found.loudest == pytest.approx(0.04)
    assert found.opinions is not None
    assert found.opinions["perplexity"].seen == "ratio 1.0000"


def test_judges_of_texts_say_nothing_where_there_are_none() -> None:
    found = judged_blind(
        BY_LABEL["groups_swapped"], fault("groups_swapped"), {"image": [differing(np.ones(9))]},
        {"max_abs_d": 0.0}, BUDGET, Answers((), ()), Answers((), ()),
    )  # fmt: skip
    opinions = found.opinions or {}
    assert opinions["greedy_text"].passed is opinions["logprobs_close"].passed is None
    assert opinions["perplexity"].passed is False


def test_a_corpus_of_which_this_model_sees_nothing_compares_nothing() -> None:
    names = ("cell", "measured", "servers", "say", "matrix", "asked_tasks", "placeholders")
    others = ("settings", "tp_detects", "record", "record_evidence")
    unused = dict.fromkeys((*names, *others), cast("Any", None))
    with pytest.raises(pytest.skip.Exception, match="only pictures"):
        test_faults.test_seeded(
            baseline=Baseline(scores=CorpusScores({}, {})), documents=(), **unused
        )
