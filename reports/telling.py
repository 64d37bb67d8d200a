"""The sentence that each picture of numerics is drawn to show; it is also its text alternative."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from reports.matrix import number_text
from reports.rows import UndrawableError, Value

Record: TypeAlias = Mapping[str, Value]
REMARK: Final = re.compile(r"; v\d+\. (.+)$", re.DOTALL)


def number(record: Record, name: str) -> float | None:
    value = record.get(name)
    if isinstance(value, str):
        raise UndrawableError(f"{name} is {value!r}, expected a number")
    return value


def in_order(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def positions_told(records: Sequence[Record]) -> str:
    known = [(value, r) for r in records if (value := number(r, "max")) is not None]
    if not known:
        return "No difference was recorded."
    largest, where = max(known, key=lambda item: item[0])
    if largest == 0:
        return "Every difference is exactly 0."
    position = number_text(number(where, "position") or 0)
    place = f"stratum {where['stratum']}, from position {position} on"
    zeros = sum(value == 0 for value, _ in known)
    exact = f" It is exactly 0 in {zeros} of {len(known)} buckets." if zeros else ""
    return f"The largest |d| is {number_text(largest)} nat: {place}.{exact}"


def kl_told(records: Sequence[Record]) -> str:
    parts = []
    for against in in_order(str(r["against"]) for r in records):
        known = [
            (value, r)
            for r in records
            if str(r["against"]) == against and (value := number(r, "kl")) is not None
        ]
        if known:
            largest, where = max(known, key=lambda item: item[0])
            parts.append(f"{against} {number_text(largest)} nat (stratum {where['stratum']})")
    return f"The largest KL shown: {'; '.join(parts)}." if parts else "No KL was recorded."


def remark(definition: str) -> str:
    """What a definition says after its version, which is of this one table: whose null it holds, or
    why it holds none."""
    found = REMARK.search(definition)
    return f" {found[1].rstrip('.')}." if found else ""


def flips_told(records: Sequence[Record]) -> str:
    flips, positions = (sum(number(r, n) or 0 for r in records) for n in ("flips", "positions"))
    told = f"The likeliest token is another at {number_text(flips)} of {number_text(positions)}"
    threshold = threshold_of(records)
    if threshold is None:
        return f"{told} positions."
    hard = sum(
        number(r, "flips") or 0 for r in records if (number(r, "margin_low") or 0) >= threshold
    )
    return (
        f"{told} positions, {number_text(hard)} of them in bins above the hard-flip threshold "
        f"m* = {number_text(threshold)} nat (dashed)."
    )


def threshold_of(records: Sequence[Record]) -> float | None:
    return next((t for r in records if (t := number(r, "threshold")) is not None), None)


def faults_told(records: Sequence[Record]) -> str:
    by_outcome: dict[str, list[Record]] = {}
    for record in records:
        by_outcome.setdefault(str(record["outcome"]), []).append(record)
    detected = by_outcome.pop("detected", [])
    parts = [f"{len(detected)} of {len(records)} seeded faults detected"]
    sized = [(size, r) for r in detected if (size := number(r, "strength")) is not None]
    if sized:
        smallest = min(sized, key=lambda item: item[0])[1]
        parts.append(f"the smallest of them {fault_text(smallest)}")
    parts += [f"{o}: {', '.join(map(fault_text, found))}" for o, found in by_outcome.items()]
    return "; ".join(parts) + ". The upright stroke is the limit that a fault has to exceed."


def fault_text(record: Record) -> str:
    """What tells a seeded fault from the others: its name, and how large it is."""
    strength = number(record, "strength")
    name = str(record["fault"])
    return name if strength is None else f"{name}, {number_text(strength)}"


@dataclass(frozen=True, slots=True)
class Field:
    """A cell in a heat map: the worst stratum of its comparisons, or in a word why it has none.

    `differs`: it is to answer otherwise than the original, being another model or planned to be
    wrong; `symbol` and `judged` say how the cell came out.
    """

    variant: str
    column: str
    symbol: str
    judged: str
    value: float | None = None
    lane: str | None = None
    stratum: str | None = None
    why: str | None = None
    differs: bool = False


def heat_told(fields: Sequence[Field], what: str) -> str:
    parts = []
    for differs, where in ((False, "alike"), (True, "otherwise")):
        known = [
            (one.value, one) for one in fields if one.value is not None and one.differs is differs
        ]
        if known:
            value, worst = max(known, key=lambda item: item[0])
            place = f"{worst.variant} at {worst.column} ({worst.stratum})"
            parts.append(f"{number_text(value)} nat where cells must answer {where}: {place}")
    if not parts:
        return f"No cell has a {what}."
    zeros = [f"{one.variant} {one.column}" for one in fields if one.value == 0]
    exact = f" Exactly 0: {', '.join(zeros)}." if zeros else ""
    return f"The largest {what} is {'; '.join(parts)}.{exact}"
