"""What a map of all cells shows: of each, the figure that is furthest from no difference.

Every stratum of every comparison of servers counts, for a fault may show in pictures alone, or in
the lane of a changed model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from reports.matrix import Cell, Status
from reports.record import Row
from reports.telling import Field

# What a heat map shows, and the last part of the claims that have it: being caught is an RMS d too.
HEATS: Final = (("rms_d", "RMS d", ("rms_d", "caught")), ("mean_kl", "mean KL", ("mean_kl",)))
# Comparisons of servers: with original-tp1, and with the variant's own tp 1. Last those that differ
# on purpose.
ALIKE: Final = ("exact", "padding", "end_to_end", "tp")
DIFFERING: Final = ("quality", "control")
NO_NUMBER: Final[dict[Status, str]] = {
    "serves": "not compared",
    "fails": "refused",
    "caught": "caught",
    "failed": "no number",
    "inconclusive": "no number",
    "not-run": "not run",
}


def furthest(cell: Cell, metrics: Sequence[str], lanes: Sequence[str]) -> Row | None:
    """Of all strata of these lanes, the row that is furthest from no difference."""
    found = [
        (row.value, row)
        for row in cell.rows
        if row.value is not None
        and len(parts := row.claim.split("/")) == 4
        and parts[0] == "numerics"
        and parts[1] in lanes
        and parts[3] in metrics
    ]
    return max(found, key=lambda item: item[0])[1] if found else None


def field(cell: Cell, column: str, metrics: Sequence[str]) -> Field:
    worst = furthest(cell, metrics, (*ALIKE, *DIFFERING))
    if worst is None:
        why = NO_NUMBER[cell.status]
        return Field(cell.variant, column, cell.symbol, cell.word, why=why)
    _, lane, stratum, _ = worst.claim.split("/")
    stratum = stratum if worst.value else "all strata"
    return Field(
        cell.variant,
        column,
        cell.symbol,
        cell.word,
        worst.value,
        lane,
        stratum,
        differs=lane in DIFFERING,
    )
