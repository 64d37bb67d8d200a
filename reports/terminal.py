"""A run as the terminal has it: the matrix, one sentence, and what failed with its figures."""

from __future__ import annotations

from reports.matrix import (
    interval_text,
    judged_cells,
    limit_text,
    number_text,
    observed_text,
    sentence,
    text_matrix,
)
from reports.partial import partial
from reports.record import Run


def summary(run: Run) -> list[str]:
    """Its lines; the last one is empty."""
    so_far = partial(run)
    lines = [*text_matrix(run), "", sentence(run), *(so_far.lines if so_far else ())]
    for cell in judged_cells(run):
        for row in cell.failed_rows:
            lines += ["", f"FAILED {row.cell} {row.claim}"]
            if row.value is not None:
                n = "" if row.n is None else f", n = {number_text(row.n)}"
                lines.append(f"  observed  {observed_text(row)}  ({interval_text(row)}{n})")
            if row.limit is not None:
                lines.append(f"  limit     {limit_text(row)}")
            if row.reason:
                lines.append(f"  reason    {row.reason}")
        if cell.status == "failed" and not cell.failed_rows:
            lines += ["", f"FAILED {cell.name}", f"  reason    {cell.reason}"]
    return [*lines, ""]
