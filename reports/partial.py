"""How far a run came that did not come to its end: which cells are done, and which it never saw.

A partial run is written into its footer by whoever knew what had been selected. A run without a
footer (killed, or still running) is judged by its header's `selected` cells and its rows: of the
last cell that has one, nobody can say that it was done.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass

from reports.record import JsonObject, Run

Claim = tuple[str, str]  # cell, claim


@dataclass(frozen=True, slots=True, kw_only=True)
class Partial:
    """Cells in the order of the run. Where nothing is known of them all three are empty."""

    why: str
    during: str | None = None  # "padded-tp2 latency/ttft"
    done: tuple[str, ...] = ()
    unfinished: tuple[str, ...] = ()
    not_reached: tuple[str, ...] = ()

    def to_json(self) -> JsonObject:
        return asdict(self)

    @property
    def counts(self) -> str:
        """of 5 cells 1 done, 1 unfinished, 3 not reached; empty where nothing is known."""
        if not self.known:
            return ""
        cells = sum(len(cells) for _, cells in self._words)
        told = ", ".join(f"{len(cells)} {word}" for word, cells in self._words)
        return f"of {cells} {'cell' if cells == 1 else 'cells'} {told}"

    @property
    def lines(self) -> list[str]:
        """For a reader who has to decide what to run again."""
        lines = [f"{word}: {', '.join(cells)}" for word, cells in self._words if cells]
        return [*([f"ended during: {self.during}"] if self.during else []), *lines]

    @property
    def known(self) -> bool:
        return any(cells for _, cells in self._words)

    def lacks(self, cell: str) -> bool:
        """Whether a claim about this cell may be missing for no other reason."""
        return not self.known or cell in (*self.unfinished, *self.not_reached)

    @property
    def _words(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        return (
            ("done", self.done),
            ("unfinished", self.unfinished),
            ("not reached", self.not_reached),
        )


def came_so_far(
    selected: Sequence[tuple[str, Claim]], finished: Collection[str], current: str | None, why: str
) -> Partial:
    """From the selected tests (id, claim) and the ids of those that ended by themselves."""
    ids: dict[str, list[str]] = {}
    for nodeid, (cell, _) in selected:
        ids.setdefault(cell, []).append(nodeid)
    done = tuple(cell for cell, own in ids.items() if all(nodeid in finished for nodeid in own))
    seen = {*finished, current}
    unfinished = tuple(
        cell for cell, own in ids.items() if cell not in done and any(one in seen for one in own)
    )
    return Partial(
        why=why,
        during=next((" ".join(claim) for nodeid, claim in selected if nodeid == current), None),
        done=done,
        unfinished=unfinished,
        not_reached=tuple(cell for cell in ids if cell not in (*done, *unfinished)),
    )


def partial(run: Run) -> Partial | None:
    """How far the run came; None where it came to its end."""
    if run.footer is None:
        return _by_its_rows(run)
    if told := run.footer.get("partial"):
        cells = {name: tuple(told[name]) for name in ("done", "unfinished", "not_reached")}
        return Partial(why=told["why"], during=told.get("during"), **cells)
    return Partial(why="interrupted") if run.footer["interrupted"] else None


def _by_its_rows(run: Run) -> Partial:
    why = "it crashed, or is still running"
    told = list(dict.fromkeys(row.cell for row in run.rows))
    selected = run.header.get("selected")
    if selected is None:
        return Partial(why=why)
    last = run.rows[-1].cell if run.rows else None
    return Partial(
        why=why,
        done=tuple(cell for cell in selected if cell in told and cell != last),
        unfinished=tuple(cell for cell in selected if cell == last),
        not_reached=tuple(cell for cell in selected if cell not in told),
    )
