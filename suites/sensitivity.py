"""What a run may say of its seeded faults as a whole: how many are seen, and how small ones.

The sentence that every fault is rejected is for a run in which every listed one was served and
judged, and a copy without a fault as well, which was not rejected.
"""

from __future__ import annotations

from collections.abc import Sequence

from fixtures.faults import Trial
from suites.detection import UNDETECTED, UNJUDGED, Result, Unjudged, Verdict
from suites.expect import RECORDED, Rows
from suites.judges import NAMES


def record_summary(rows: Rows, results: Sequence[Result], required: Sequence[str] | None) -> None:
    """How many are seen, and how small a fault is, on one rank and on several."""
    faulty = [result for result in results if not result.trial.control]
    verdicts = [result for result in faulty if isinstance(result, Verdict)]
    unjudged = [one.trial for one in faulty if isinstance(one, Unjudged) and one.possible]
    if not verdicts and not unjudged:
        rows.add("faults/detected", "not_run", reason="this checkpoint can have none of the faults")
        return
    _detected(rows, results, verdicts, unjudged)
    _detected_on_several(rows, verdicts, unjudged, required)
    for claim, found in (
        ("smallest_detected", [one for one in verdicts if one.detected]),
        (
            "smallest_detected_on_several_ranks",
            [one for one in verdicts if one.detected_statistically],
        ),
    ):
        sizes = [verdict.fault.relative for verdict in found if verdict.fault.relative > 0]
        if sizes:
            rows.add(
                f"faults/{claim}",
                "passed",
                value=min(sizes),
                unit="1",
                n=len(found),
                better="lower",
                reason=RECORDED,
                definition="smallest relative change of a layer's weights that is rejected; v1",
            )
    for name in NAMES:
        held = [one.opinions[name] for one in verdicts if one.opinions and name in one.opinions]
        judged_ones = [opinion for opinion in held if opinion.passed is not None]
        if judged_ones:
            rows.add(
                f"faults/others/{name}",
                "passed",
                value=sum(not opinion.passed for opinion in judged_ones) / len(judged_ones),
                unit="1",
                n=len(judged_ones),
                better="higher",
                reason="recorded, beside ours: what this judge would have rejected",
                definition="share of seeded faults this judge rejects; suites/judges.py; v1",
            )


def _detected(
    rows: Rows, results: Sequence[Result], verdicts: Sequence[Verdict], unjudged: Sequence[Trial]
) -> None:
    """The listed faults, on one rank; without a control that is served, a rejection is nothing."""
    listed = [verdict for verdict in verdicts if verdict.trial.listed]
    steps = [verdict for verdict in verdicts if not verdict.trial.listed]
    missed = [verdict.trial.label for verdict in listed if not verdict.detected]
    open_ = [trial.label for trial in unjudged if trial.listed]
    control = next((result for result in results if result.trial.control), None)
    bad = [f"missed: {', '.join(missed)}"] * bool(missed)
    bad += [f"not judged: {', '.join(open_)}"] * bool(open_)
    if not isinstance(control, Verdict):
        bad.append("the copy without a fault was not judged, so a rejection shows nothing")
    elif control.detected:
        bad.append("the copy without a fault is rejected, so a rejection shows nothing")
    seen = sum(verdict.detected for verdict in steps)
    beyond = f"; of {len(steps)} other steps of the ladder, {seen}" if steps else ""
    rows.add(
        "faults/detected",
        "invalid" if bad else "passed",
        value=(len(listed) - len(missed)) / len(listed) if listed else None,
        unit="1",
        n=len(listed) if listed else None,
        limit=1.0,
        better="exact",
        reason="; ".join(bad) if bad else f"every listed fault is rejected{beyond}",
        definition="share of the listed faults, of those judged, that the lane of a cell on one "
        "rank rejects; v2",
        advice=UNDETECTED if missed else UNJUDGED,
    )


def _detected_on_several(
    rows: Rows,
    verdicts: Sequence[Verdict],
    unjudged: Sequence[Trial],
    required: Sequence[str] | None,
) -> None:
    """The faults deployments.toml names, by the limits of a cell on several ranks."""
    must = required or ()
    seen = [verdict for verdict in verdicts if verdict.detected_statistically]
    blind = [verdict for verdict in verdicts if not verdict.detected_statistically]
    missed = [f"{one.trial.label}{one.size}" for one in blind if one.trial.label in must]
    open_ = [trial.label for trial in unjudged if trial.label in must]
    known = [f"{one.trial.label}{one.size}" for one in blind if one.trial.label not in must]
    said = [f"missed: {', '.join(missed)}"] * bool(missed)
    said += [f"not judged: {', '.join(open_)}"] * bool(open_)
    if required is None:
        said.append("recorded; deployments.toml does not say what must be seen")
    said.append(f"not seen where sums have other orders: {', '.join(known) or 'none'}")
    unasked = [one.trial.label for one in seen if one.trial.label not in must]
    if required is not None and unasked:
        said.append(f"seen, though expected to be missed: {', '.join(unasked)}")
    rows.add(
        "faults/detected_on_several_ranks",
        "invalid" if missed or open_ else "passed",
        value=len(seen) / len(verdicts) if verdicts else None,
        unit="1",
        n=len(verdicts) if verdicts else None,
        better="higher",
        reason="; ".join(said),
        definition="share of seeded faults beyond the limits of a cell on several ranks; v1",
        advice=UNDETECTED if missed else UNJUDGED,
    )
