"""The figures of the numerics as a terminal shows them: a line for each comparison of each cell.

The report has every row; here stands, of each lane, the stratum that is nearest to the limit of
what the lane is told by, so that one command prints what a release is staked on. Whether the lane
passed is said of *all* its rows, and each metric that did not is named with its worst number.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from textwrap import shorten
from typing import Any, Final, TypeAlias

Row: TypeAlias = Mapping[str, Any]
# What a lane is told by; any other is by its RMS. A variant that is another model has two promises
# to keep: it is told apart, and it is no stranger.
TOLD_BY: Final[Mapping[str, tuple[str, ...]]] = {
    "exact": ("max_abs_d",), "quality": ("told_apart", "mean_kl"), "control": ("caught",),
    "task": ("loss",),
}  # fmt: skip
FLOORS: Final = ("told_apart", "caught", "same_top")  # the more, the better
TIMES: Final = "seconds"


def figures(rows: Iterable[Row]) -> list[str]:
    """Lines, in the order of the rows; none where no numerics were compared."""
    lanes: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if (lane := _lane(row)) is not None:
            lanes.setdefault((row["cell"], lane), []).append(row)
    lines = (
        _times(cell, found) if lane == TIMES else _line(cell, lane, found)
        for (cell, lane), found in lanes.items()
    )
    return [line for line in lines if line is not None]


def _lane(row: Row) -> str | None:
    """What a row is printed with; None where it is not printed."""
    family, *parts = row["claim"].split("/")
    if family == "numerics" and len(parts) > 1:
        return str(parts[0])
    if family == "numerics" and row["outcome"] not in ("passed", "not_run"):
        return str(parts[0])  # it stands for a whole comparison that could not be made
    if family == "null" and parts[-1] == "rejected":
        return f"null {parts[0]}"
    if family == "faults" and len(parts) == 1 and parts[0].startswith("detected"):
        return str(parts[0]).replace("_", " ")
    return None


def _line(cell: str, lane: str, rows: Sequence[Row]) -> str | None:
    told_by = TOLD_BY.get(lane, ("rms_d",))
    by_metric = {metric: [row for row in rows if _metric(row) == metric] for metric in told_by}
    # A null and the faults are one number each, by whatever name.
    groups = list(by_metric.values()) if rows[0]["claim"].startswith("numerics") else [list(rows)]
    told = [_told(found) for found in groups if any(row["value"] is not None for row in found)]
    outcome = _outcome(rows)
    if not told and outcome == "not run":
        return None
    return _joined(cell, lane, "; ".join(told), outcome)


def _joined(cell: str, lane: str, *words: str) -> str:
    return " ".join([f"{cell:<14} {lane:<26}", *filter(None, words)])


def _told(rows: Sequence[Row]) -> str:
    """Of rows of one metric, the one that is nearest to its limit."""
    nearest = _nearest(rows)
    text = _number(nearest)
    if nearest["low"] is not None and nearest["high"] is not None:
        text += f" [{nearest['low']:.3g}, {nearest['high']:.3g}]"
    if nearest["limit"] is not None:
        text += f", {'at least' if _floored(nearest) else 'limit'} {nearest['limit']:.3g}"
    if stratum := _stratum(nearest):
        count = sum(row["value"] is not None for row in rows)
        text += f" ({_metric(nearest)}, {stratum}: nearest of {count} strata)"
    return text


def _outcome(rows: Sequence[Row]) -> str:
    """Of all rows; each metric that did not pass with its worst number, or why it has none."""
    found: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        if row["outcome"] not in ("passed", "not_run"):
            found.setdefault(row["outcome"], {}).setdefault(_metric(row), []).append(row)
    if found:
        return ", ".join(
            f"{outcome} ({'; '.join(_astray(name, bad) for name, bad in metrics.items())})"
            for outcome, metrics in sorted(found.items())
        )
    return "passed" if any(row["outcome"] == "passed" for row in rows) else "not run"


def _astray(metric: str, rows: Sequence[Row]) -> str:
    worst = _nearest(rows)
    if worst["value"] is None:
        return f"{metric}: {shorten(worst.get('reason') or 'no number', 120, placeholder=' …')}"
    strata = f" in {stratum}" if (stratum := _stratum(worst)) else ""
    more = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
    return f"{metric} {_number(worst)}{strata}{more}"


def _times(cell: str, rows: Sequence[Row]) -> str:
    """What a cell's numerics took, together and each."""
    known = [row for row in rows if row["value"] is not None]
    each = ", ".join(f"{row['claim'].split('/')[2]} {row['value']:.3g}" for row in known)
    return _joined(cell, TIMES, f"{sum(row['value'] for row in known):.3g} s ({each})")


def _nearest(rows: Sequence[Row]) -> Row:
    """The one that leaves least room; magnitudes, for a bias may be negative."""
    known = [row for row in rows if row["value"] is not None]
    if not known:
        return rows[0]
    return (min if _floored(rows[0]) else max)(known, key=lambda row: abs(row["value"]))


def _floored(row: Row) -> bool:
    return _metric(row) in FLOORS


def _metric(row: Row) -> str:
    return str(row["claim"].split("/")[-1])


def _stratum(row: Row) -> str | None:
    """None where a claim is of no stratum: numerics/LANE/STRATUM/METRIC has one."""
    parts = row["claim"].split("/")
    return parts[2] if len(parts) == 4 else None


def _number(row: Row) -> str:
    unit = f" {row['unit']}" if row["unit"] not in (None, "1") else ""
    return f"{row['value']:.3g}{unit}"
