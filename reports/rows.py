"""What a run says: rows, cell records and evidence, refused where they would mislead.

A *row* is one claim about one cell of variant × tensor parallel size; a *cell record* says how
that cell's server behaved beside what was planned; *evidence* is a table that a row's number was
made of, kept so that it can be drawn. Each is checked when it is built, so also when it is read:
what has no value names its reason, and NaN and infinity are nowhere.
"""

import difflib
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from numbers import Integral
from typing import Any, Literal, TypeAlias, get_args

JsonObject: TypeAlias = dict[str, Any]
Outcome = Literal["passed", "failed", "inconclusive", "invalid", "not_run", "refused_as_planned"]
Better = Literal["lower", "higher", "exact"]
FailureClass = Literal["config", "load", "warmup", "first_request", "silent"]
Observed = Literal["config", "load", "warmup", "first_request", "silent", "not_run"]
Value: TypeAlias = float | int | str | None

# What a picture of this width can show, and what a page with dozens of them can carry.
MOST_EVIDENCE_ROWS = 2000


class ReportError(Exception):
    """Base of everything `reports` raises on purpose; str() is the one message."""


class RowError(ReportError):
    """A row, cell record or evidence that would mislead its reader."""


class UndrawableError(ReportError):
    """Numbers that a picture has no place for, or a drawing that no page may hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One claim about one cell. `low` or `high` None beside a value: unbounded on that side.

    `detectable` is the minimum detectable effect of the verdict: the smallest true difference from
    none, in the row's unit, that this many documents would not have let pass this row's limit, with
    90 % power. None where there is no limit, or nothing would have passed.
    """

    cell: str
    claim: str
    outcome: Outcome
    value: float | None = None
    unit: str | None = None
    n: int | None = None
    low: float | None = None
    high: float | None = None
    limit: float | None = None
    detectable: float | None = None
    better: Better | None = None
    reason: str | None = None
    definition: str | None = None
    checkpoint: str | None = None

    def __post_init__(self) -> None:
        where = f"row {self.cell} {self.claim}"
        _require_name(where, "cell", self.cell)
        _require_name(where, "claim", self.claim)
        _require_member(where, "outcome", self.outcome, get_args(Outcome))
        if self.better is not None:
            _require_member(where, "better", self.better, get_args(Better))
        for name in ("value", "low", "high", "limit", "detectable"):
            object.__setattr__(self, name, _finite(where, name, getattr(self, name)))
        if self.n is not None:
            object.__setattr__(self, "n", _count(where, self.n))
        if self.value is None and not self.reason:
            raise RowError(
                f"{where}: no value and no reason; observed outcome {self.outcome}. "
                "Give the number, or say in `reason` why there is none."
            )
        if self.value is not None and self.n == 0:
            raise RowError(f"{where}: value {self.value:g} from n = 0; an empty sample has none.")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise RowError(f"{where}: interval [{self.low:g}, {self.high:g}] is upside down.")
        if self.detectable is not None and self.detectable < 0:
            raise RowError(
                f"{where}: detectable is {self.detectable:g}; a smallest difference is 0 or more."
            )

    def to_json(self) -> JsonObject:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Row":
        return cls(**_known_fields(cls, data, ("cell", "claim", "outcome")))


# What the `record` fixture is to a test: Row's fields by keyword, the row back.
RecordRow: TypeAlias = Callable[..., Row]


@dataclass(frozen=True, slots=True, kw_only=True)
class CellRecord:
    """How one cell behaved beside the plan. `planned` or `observed` None: it serves."""

    cell: str
    variant: str
    tp: int
    planned: FailureClass | None
    observed: Observed | None
    pp: int = 1
    planned_reason: str | None = None
    reason: str | None = None
    ready_after_s: float | None = None
    argv: tuple[str, ...] = ()
    log: str | None = None
    message: str | None = None

    def __post_init__(self) -> None:
        where = f"cell {self.cell}"
        _require_name(where, "cell", self.cell)
        _require_name(where, "variant", self.variant)
        if self.planned is not None:
            _require_member(where, "planned", self.planned, get_args(FailureClass))
        if self.observed is not None:
            _require_member(where, "observed", self.observed, get_args(Observed))
        if self.observed == "not_run" and not self.reason:
            raise RowError(f"{where}: not run, and no reason. Say in `reason` why.")
        ready_after_s = _finite(where, "ready_after_s", self.ready_after_s)
        object.__setattr__(self, "ready_after_s", ready_after_s)
        object.__setattr__(self, "argv", tuple(self.argv))

    def to_json(self) -> JsonObject:
        return asdict(self) | {"argv": list(self.argv)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "CellRecord":
        required = ("cell", "variant", "tp", "planned", "observed")
        return cls(**_known_fields(cls, data, required))


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The table behind some rows of a cell: `definition` says what its columns hold, and of what.

    A value None is absent. Cell and name are its key: the last to land counts.
    """

    cell: str
    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]
    definition: str

    def __post_init__(self) -> None:
        where = f"evidence {self.cell} {self.name}"
        _require_name(where, "cell", self.cell)
        _require_name(where, "name", self.name)
        _require_name(where, "definition", self.definition)
        columns = tuple(self.columns)
        if not columns:
            raise RowError(f"{where}: no columns; name what each row's values are.")
        for column in columns:
            _require_name(where, "a column", column)
        if len(set(columns)) < len(columns):
            raise RowError(f"{where}: columns are {', '.join(columns)}; each needs its own name.")
        if len(self.rows) > MOST_EVIDENCE_ROWS:
            raise RowError(
                f"{where}: {len(self.rows)} rows, at most {MOST_EVIDENCE_ROWS} are kept. "
                "Summarize them: buckets, quantiles."
            )
        object.__setattr__(self, "columns", columns)
        rows = tuple(_evidence_row(where, columns, row) for row in self.rows)
        object.__setattr__(self, "rows", rows)

    def to_json(self) -> JsonObject:
        """With lists, as a reader will get it: this also travels between pytest's processes."""
        rows = [list(row) for row in self.rows]
        return asdict(self) | {"columns": list(self.columns), "rows": rows}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Evidence":
        required = ("cell", "name", "columns", "rows", "definition")
        return cls(**_known_fields(cls, data, required))


# What the `record_evidence` fixture is to a test: Evidence's fields by keyword, it back.
RecordEvidence: TypeAlias = Callable[..., Evidence]


def _evidence_row(where: str, columns: Sequence[str], row: Sequence[object]) -> tuple[Value, ...]:
    if len(row) != len(columns):
        told = f"{len(row)} values for {len(columns)} columns ({', '.join(columns)})"
        raise RowError(f"{where}: a row has {told}: {tuple(row)!r:.200}")
    return tuple(_value(where, column, value) for column, value in zip(columns, row, strict=True))


def _value(where: str, column: str, value: object) -> Value:
    if value is None or isinstance(value, str):
        return value if value is None else str(value)
    # numpy's whole numbers are Integral too, and stay whole: a token's position is no 32.0.
    if isinstance(value, Integral) and not isinstance(value, bool):
        return int(value)
    return _finite(where, column, value)


def _known_fields(cls: type, data: Mapping[str, Any], required: Sequence[str]) -> JsonObject:
    missing = [name for name in required if name not in data]
    if missing:
        raise RowError(f"{cls.__name__} lacks {', '.join(missing)}; it has {', '.join(data)}.")
    names = {field.name for field in fields(cls)}
    return {name: value for name, value in data.items() if name in names}


def _require_name(where: str, name: str, value: object) -> None:
    if not isinstance(value, str) or not value.strip():
        raise RowError(f"{where}: {name} is {value!r}, expected a name.")


def _require_member(where: str, name: str, value: object, allowed: Sequence[str]) -> None:
    if value in allowed:
        return
    near = difflib.get_close_matches(str(value), allowed, 1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise RowError(f"{where}: {name} is {value!r}, expected one of {', '.join(allowed)}.{hint}")


def _finite(where: str, name: str, value: object) -> float | None:
    if value is None:
        return None
    # numpy's scalars count as numbers, a bool does not: True ms is a bug in the caller.
    if isinstance(value, bool) or not hasattr(value, "__float__"):
        raise RowError(f"{where}: {name} is {value!r}, expected a number or None.")
    number = float(value)
    if not math.isfinite(number):
        raise RowError(f"{where}: {name} is {number}. Use None and say why in `reason`.")
    return number


def _count(where: str, n: object) -> int:
    try:
        count = -1 if isinstance(n, bool) else operator.index(n)  # type: ignore[arg-type]
    except TypeError:
        count = -1
    if count < 0:
        raise RowError(f"{where}: n is {n!r}, expected a whole number of measurements.")
    return count
