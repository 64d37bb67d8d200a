"""Two servers' scores of a corpus, held together: strata of differences, and what is missing there.

A comparison is over the positions that the reference counts. What cannot be compared is said: a
stratum without a document, documents without a scored token, and decoded positions that are cut
where a server left the path.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import pytest

from fixtures.reference import CorpusScores, Scores
from fixtures.serving.client import Scored
from fixtures.serving.server import FORCED_PATH, PROCESSORS
from reports.equivalence import CONFIDENCE
from reports.record import RecordRow, Row
from reports.statistics import fewest_units
from suites.baseline import DECODED_TOKENS, at_positions_of, without_positions
from suites.corpus import STRATA, Document
from suites.expect import Rows
from suites.numerics import Differences, MismatchError, differences

DECODE: Final = "decode"
IMAGE: Final = "image"
FEWEST: Final = fewest_units(CONFIDENCE)
LEAST_FOLLOWED: Final = 0.5  # of a path; less is a comparison of beginnings alone
NO_TEXT: Final = (
    f"no text has more than {2 * DECODED_TOKENS} tokens, of which the last {DECODED_TOKENS} are "
    "decoded. Give a corpus of longer texts"
)
PREFILLED: Final = "the independent reference reads whole documents, and decodes nothing"
SCOPES: Final = {
    IMAGE: "over the question alone, which follows the picture",
    DECODE: "over tokens decoded one at a time along the reference's path",
}


@dataclass(slots=True)
class Comparison:
    """Differences by stratum, each a list of documents. `absent` says why a stratum has none,
    `notes` what a reader of a stratum's numbers should know; of `due` decoded positions both sides
    `followed` the path at so many."""

    strata: dict[str, list[Differences]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    due: int = 0
    followed: int = 0

    def of_unlike(self) -> Comparison:
        """What tells two servers apart that are to differ: without strata of too few documents for
        an interval, and without decoding that was cut, if anything else is left.

        Positions before the first other token are those at which the two still agree: no sample.
        """
        out = {
            name: too_few(len(found)) for name, found in self.strata.items() if len(found) < FEWEST
        }
        if self.followed < self.due and DECODE in self.strata:
            out[DECODE] = f"the two write other texts: {self.notes[DECODE]}"
        left = {name: found for name, found in self.strata.items() if name not in out}
        if not left:
            return self
        return Comparison(left, self.absent | out, self.notes, self.due, self.followed)


def too_few(documents: int) -> str:
    """Why so few documents are not judged, and what to do."""
    counted = "1 document" if documents == 1 else f"{documents} documents"
    return (
        f"{counted} of this kind, and fewer than {FEWEST} have no interval. Give a corpus with "
        "more of them"
    )


def compared(
    reference: CorpusScores,
    candidate: CorpusScores,
    documents: Sequence[Document],
    *,
    ignored: frozenset[int] = frozenset(),
    undecoded: str = NO_TEXT,
) -> Comparison:
    """The candidate's scores against the reference's; MismatchError, naming the document, where
    they are not of the same tokens."""
    _require_same(reference.prefilled, candidate.prefilled, "scores")
    _require_same(reference.decoded, candidate.decoded, "decoded tokens")
    kinds = {document.id: document.stratum for document in documents}
    found = Comparison()
    empty: dict[str, list[str]] = {}
    for name, ours in reference.prefilled.items():
        stratum = kinds[name]
        pair = _difference(name, ours, candidate.prefilled[name], ignored)
        if pair.d.size:
            found.strata.setdefault(stratum, []).append(pair)
        else:
            empty.setdefault(stratum, []).append(name)
    left = 0
    for name, whole in reference.decoded.items():
        # An engine that cannot be made to follow the path stops where its own text leaves it.
        shared = min(len(whole.token_ids), len(candidate.decoded[name].token_ids))
        ours, theirs = cut(whole, shared), cut(candidate.decoded[name], shared)
        found.due += len(whole.positions)
        found.followed += len(ours.positions)
        left += len(ours.positions) < len(whole.positions)
        if ours.positions:
            pair = _difference(name, ours, theirs, ignored)
            found.strata.setdefault(DECODE, []).append(pair)
    found.absent = _absent(found, empty, undecoded)
    found.notes = {
        stratum: f"{len(names)} left out, of which no token is scored: {', '.join(names[:3])}"
        for stratum, names in empty.items()
        if stratum in found.strata
    }
    if notes := _decoding(reference, found, left):
        found.notes[DECODE] = "; ".join(notes)
    return found


def _require_same(ours: Scores, theirs: Scores, what: str) -> None:
    lacking = sorted(ours.keys() ^ theirs.keys())
    if lacking:
        raise MismatchError(
            f"{len(lacking)} documents have {what} on one of the two servers alone: "
            f"{', '.join(lacking[:3])}"
        )


def _difference(name: str, ours: Scored, theirs: Scored, ignored: frozenset[int]) -> Differences:
    theirs = at_positions_of(ours, theirs)
    if ours.token_ids == theirs.token_ids and len(theirs.positions) != len(ours.positions):
        raise MismatchError(
            f"{name} has scores of {len(theirs.positions)} of the {len(ours.positions)} "
            "positions that the reference counts"
        )
    try:
        return differences(ours, theirs, ignored=ignored)
    except MismatchError as error:
        raise MismatchError(f"{name}: {error}") from error


def cut(scored: Scored, tokens: int) -> Scored:
    """The scores of the first so many tokens."""
    kept = tuple(position for position in scored.positions if position.index < tokens)
    return Scored(scored.token_ids[:tokens], kept)


def _absent(
    found: Comparison,
    empty: Mapping[str, Sequence[str]],
    undecoded: str,
) -> dict[str, str]:
    absent = {}
    for stratum in STRATA:
        if stratum not in found.strata:
            absent[stratum] = (
                f"of no document of this kind is a token scored ({', '.join(empty[stratum][:3])})"
                if stratum in empty
                else "no document of this kind is asked of this model"
            )
    if DECODE not in found.strata:
        left = "every server left the path at its first token"
        absent[DECODE] = left if found.due else undecoded
    return absent


def _decoding(reference: CorpusScores, found: Comparison, left: int) -> list[str]:
    notes = []
    if found.followed < found.due:
        notes.append(
            f"{found.due - found.followed} of {found.due} positions are cut, in {left} of "
            f"{len(reference.decoded)} texts: the server left the path there"
        )
    if any(
        scored.token_ids != reference.prefilled[name].token_ids[: len(scored.token_ids)]
        for name, scored in reference.decoded.items()
    ):
        notes.append("the path is the reference's own greedy text: the engine forces none on it")
    return notes


@dataclass(frozen=True, slots=True)
class Noted:
    """A recorder that adds to a stratum's rows what its comparison has to say of them."""

    record: RecordRow
    comparison: Comparison

    def __call__(self, **fields: Any) -> Row:
        parts = fields["claim"].split("/")
        stratum = parts[2] if len(parts) > 2 else ""
        if (note := self.comparison.notes.get(stratum)) is not None:
            fields["reason"] = "; ".join(filter(None, (fields.get("reason"), note)))
        if (scope := SCOPES.get(stratum)) is not None and fields.get("definition"):
            fields["definition"] = f"{fields['definition']}; {scope}"
        return self.record(**fields)


def held(
    rows: Rows,
    lane: str,
    reference: CorpusScores,
    candidate: CorpusScores,
    documents: Sequence[Document],
    ignored: frozenset[int],
    *,
    alike: bool = True,
    undecoded: str = NO_TEXT,
) -> Comparison:
    """The comparison; what it lacks is a row, and so is how far a path of decoding was followed.

    Other tokens, or none in common, are an invalid row. `alike`: the two are to follow one path;
    strata of too few documents are left to those metrics that need no interval. Where they are not,
    such strata are left out.
    """
    try:
        found = compared(reference, candidate, documents, ignored=ignored, undecoded=undecoded)
    except MismatchError as error:
        rows.add("numerics/tokens", "invalid", reason=str(error))
        pytest.fail(str(error), pytrace=False)
    if not alike:
        found = found.of_unlike()
    for stratum, reason in found.absent.items():
        rows.add(f"numerics/{lane}/{stratum}", "not_run", reason=reason)
    if found.due:
        share = found.followed / found.due
        followed = share >= LEAST_FOLLOWED or not alike
        rows.add(
            f"numerics/{lane}/{DECODE}/followed",
            "passed" if followed else "inconclusive",
            value=share,
            unit="1",
            n=found.due,
            limit=LEAST_FOLLOWED if alike else None,
            better="higher",
            reason=found.notes.get(DECODE),
            definition="share of decoded positions up to where the server left the reference's "
            "path; v1",
            advice="Decoding was compared at its beginning alone: an engine that loads "
            f"`{PROCESSORS} {FORCED_PATH}` can be made to follow the path",
        )
    if not found.strata:
        reason = "no document has a position that both servers scored"
        rows.add("numerics/positions", "invalid", reason=reason)
        rows.settle()
    return found


def nothing_to_compare(scores: CorpusScores) -> str | None:
    """Why nothing can be said of these scores at all; None where something can."""
    silent = without_positions(scores)
    if len(silent) < len(scores.prefilled):
        return None
    return (
        f"of none of the corpus's {len(silent)} documents is a token scored: the first of each has "
        "no prediction. Give a corpus of longer ones"
    )
