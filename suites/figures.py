"""The figures of the numerics as a terminal shows them: a line for each comparison of each cell.

The report has every row; here stands, of each lane, the stratum that is nearest to its limit, so
that one command prints what a release is staked on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeAlias

Row: TypeAlias = Mapping[str, Any]
# What a lane is told by; of any other its RMS.
TOLD_BY: Final[Mapping[str, str]] = {
    "exact": "max_abs_d", "quality": "told_apart", "control": "caught", "task": "loss",
}  # fmt: skip


def figures(rows: Iterable[Row]) -> list[str]:
    """Lines, in the order of the rows; none where no numerics were compared."""
    lanes: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        parts = row["claim"].split("/")
        if row["value"] is None:
            continue
        told_by = TOLD_BY.get(parts[1], "rms_d")
        if parts[0] == "numerics" and len(parts) == 4 and parts[3] == told_by:
            lanes.setdefault((row["cell"], parts[1]), []).append(row)
        elif parts[0] == "null" and parts[-1] == "rejected":
            lanes.setdefault((row["cell"], f"null {parts[1]}"), []).append(row)
        elif parts[0] == "faults" and len(parts) == 2 and parts[1].startswith("detected"):
            lanes.setdefault((row["cell"], parts[1].replace("_", " ")), []).append(row)
    return [_line(cell, lane, found) for (cell, lane), found in lanes.items()]


def _line(cell: str, lane: str, rows: list[Row]) -> str:
    floor = lane in ("quality", "control")
    nearest = (min if floor else max)(rows, key=lambda row: row["value"])
    name = nearest["claim"].split("/")
    text = f"{cell:<14} {lane:<26} {nearest['value']:.3g}{_unit(nearest)}"
    if nearest["low"] is not None and nearest["high"] is not None:
        text += f" [{nearest['low']:.3g}, {nearest['high']:.3g}]"
    if nearest["limit"] is not None:
        text += f", {'at least' if floor else 'limit'} {nearest['limit']:.3g}"
    if len(name) == 4:
        text += f" ({name[3]}, {name[2]}: nearest of {len(rows)} strata)"
    worst = {row["outcome"] for row in rows} - {"passed"}
    return f"{text} {', '.join(sorted(worst)) or 'passed'}"


def _unit(row: Row) -> str:
    return f" {row['unit']}" if row["unit"] not in (None, "1") else ""
