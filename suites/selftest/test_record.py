"""A report never hides absence, and a journal survives its writer."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reports.record import (
    SCHEMA_PATH,
    Evidence,
    FormatError,
    Journal,
    Row,
    RowError,
    Run,
    UnfinishedError,
    read_report,
    replay,
    write_atomically,
    write_report,
)
from suites.selftest.sample_run import a_cell, a_footer, a_header, a_row, a_run, an_evidence


@pytest.mark.parametrize("name", ["value", "low", "high", "limit", "detectable"])
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_row_refuses_nan_and_infinity(name: str, number: float) -> None:
    with pytest.raises(RowError, match=name):
        a_row(**{name: number})


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"value": None}, "no value and no reason"),
        ({"value": None, "reason": ""}, "no value and no reason"),
        ({"outcome": "pased"}, "Did you mean passed"),
        ({"better": "smaller"}, "lower, higher, exact"),
        ({"cell": " "}, "expected a name"),
        ({"n": 0}, "n = 0"),
        ({"n": -1}, "whole number"),
        ({"n": 2.5}, "whole number"),
        ({"n": True}, "whole number"),
        ({"value": True}, "expected a number"),
        ({"value": "40"}, "expected a number"),
        ({"low": 42.0}, "upside down"),
        ({"detectable": -1e-4}, "0 or more"),
    ],
)
def test_a_row_that_would_mislead_is_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(RowError, match=told):
        a_row(**changes)


def test_a_row_that_names_its_reason_needs_no_value() -> None:
    assert a_row(value=None, n=0, low=None, high=None, reason="no GPU").value is None


def test_numpy_numbers_become_plain_ones() -> None:
    row = a_row(value=np.float32(40.5), n=np.int64(7))
    assert json.loads(json.dumps(row.to_json()))["value"] == 40.5
    assert (type(row.value), type(row.n)) == (float, int)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"columns": ()}, "no columns"),
        ({"columns": ("a", "a", "b", "c", "d")}, "each needs its own name"),
        ({"columns": ("stratum", "position")}, "5 values for 2 columns"),
        ({"rows": (("text", 0, 0.0, 1e-4),)}, "4 values for 5 columns"),
        ({"rows": (("text", 0, 0.0, math.nan, 1.0),)}, "p90 is nan"),
        ({"rows": (("text", 0, 0.0, 1.0, np.float32("inf")),)}, "max is inf"),
        ({"rows": (("text", 0, 0.0, 1.0, True),)}, "expected a number"),
        ({"rows": (("text", 0, 0.0, 1.0, [2.0]),)}, "expected a number"),
        ({"rows": (("text", 0, 0.0, 1.0, 2.0),) * 2001}, "2001 rows, at most 2000"),
        ({"name": ""}, "expected a name"),
        ({"definition": " "}, "expected a name"),
    ],
)
def test_evidence_that_would_mislead_is_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(RowError, match=told):
        an_evidence(**changes)


def test_evidence_keeps_whole_numbers_and_words_apart() -> None:
    (row,) = an_evidence(rows=[["text", np.int64(32), None, np.float64(0.5), 1]]).rows
    assert row == ("text", 32, None, 0.5, 1)
    assert [type(value) for value in row] == [str, int, type(None), float, int]


def test_a_cell_that_did_not_run_says_why() -> None:
    with pytest.raises(RowError, match="Say in `reason` why"):
        a_cell(observed="not_run")
    with pytest.raises(RowError, match="Did you mean load"):
        a_cell(observed="laod")


def test_a_run_comes_back_from_its_journal_and_from_its_report(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "deep" / "run.jsonl")
    journal.header(a_header())
    journal.cell(a_cell(ready_after_s=3.5, argv=("vllm", "--tp", "2")))
    journal.row(a_row())
    journal.footer(a_footer(counts={"passed": 1}))
    journal.close()
    run = replay(journal.path)
    write_report(run, tmp_path / "report.json")
    assert run.rows == (a_row(),)
    assert run.cells == (a_cell(ready_after_s=3.5, argv=("vllm", "--tp", "2")),)
    assert read_report(tmp_path / "report.json") == run


def test_evidence_comes_back_from_journal_and_report_the_last_to_land(tmp_path: Path) -> None:
    last = an_evidence(rows=[("image", 0, 0.0, 0.0, 0.0)])
    other = an_evidence(name="numerics/flips", columns=("margin_low",), rows=[(0.25,)])
    journal = Journal(tmp_path / "run.jsonl")
    journal.header(a_header())
    for evidence in (an_evidence(), other, last):
        journal.evidence(evidence)
    journal.footer(a_footer())
    journal.close()
    run = replay(journal.path)
    write_report(run, tmp_path / "report.json")
    assert run.evidence == (last, other)
    assert read_report(tmp_path / "report.json") == run


def test_a_report_of_1_0_is_still_read(tmp_path: Path) -> None:
    """As 1.0 wrote it: no row says what it could have detected, and nothing is called evidence."""
    path = report(tmp_path, lambda d: d | {"schema_version": "1.0"})
    document = json.loads(path.read_text())
    del document["rows"][0]["detectable"]
    assert "evidence" not in document
    path.write_text(json.dumps(document))
    run = read_report(path)
    assert (run.rows, run.evidence) == ((a_row(),), ())


def test_each_record_is_on_disk_before_the_next_claim(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.jsonl"
    forced: list[int] = []
    monkeypatch.setattr("os.fsync", lambda _: forced.append(len(replay(path).rows)))
    journal = Journal(path)
    journal.header(a_header())
    journal.row(a_row())
    assert forced == [0, 1]
    journal.close()


def test_the_last_record_of_a_cell_is_the_one_that_counts(tmp_path: Path) -> None:
    path = written(tmp_path, cells=[a_cell(), a_cell(observed="silent", planned="silent")])
    assert [cell.observed for cell in replay(path).cells] == ["silent"]


@pytest.mark.parametrize("kept", [1, 5, 40, -1])
def test_a_torn_last_line_is_left_out(tmp_path: Path, kept: int) -> None:
    path = written(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"kind": "row", "cell": "padded-tp2", "claim": "\xc3\xa9'[:kept])
    assert replay(path) == Run(a_header(), (), (a_row(),), None)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda text: text.replace('"kind": "row",', '"kind": "row"', 1), "line 2 is not JSON"),
        (lambda text: text.replace("40.0", "NaN", 1), "NaN"),
        (lambda text: text.replace("40.0", "1e999", 1), "line 2.*value is inf"),
        (lambda text: text.replace('"passed"', '"fine"', 1), r"line 2.*outcome.*fine"),
        (lambda text: text.splitlines()[1] + "\n", "starts with its one header"),
        (lambda text: text + text, "starts with its one header"),
        (
            lambda text: text + json.dumps({"kind": "footer", **a_footer()}) + "\n[]\n",
            "expected an",
        ),
        (lambda _: "", "is empty"),
    ],
)
def test_a_spoilt_journal_is_refused_by_line(tmp_path: Path, spoil: Any, told: str) -> None:
    path = written(tmp_path)
    path.write_text(spoil(path.read_text()))
    with pytest.raises(FormatError, match=told):
        replay(path)


def test_nothing_follows_the_footer(tmp_path: Path) -> None:
    path = written(tmp_path)
    path.write_text(
        path.read_text()
        + json.dumps({"kind": "footer", **a_footer()})
        + "\n"
        + json.dumps({"kind": "row", **a_row().to_json()})
        + "\n"
    )
    with pytest.raises(FormatError, match="follows the footer"):
        replay(path)


def test_a_journal_refuses_a_header_that_lacks_the_engine(tmp_path: Path) -> None:
    header = a_header()
    del header["engine"]
    journal = Journal(tmp_path / "run.jsonl")
    with pytest.raises(FormatError, match="engine"):
        journal.header(header)
    journal.close()


def test_no_footer_no_report(tmp_path: Path) -> None:
    unfinished = Run(a_header(), (), (a_row(),), None)
    with pytest.raises(UnfinishedError, match="run-1 has no footer"):
        write_report(unfinished, tmp_path / "report.json")
    assert list(tmp_path.iterdir()) == []


def test_an_invalid_report_is_not_written(tmp_path: Path) -> None:
    for header in (a_header(plan="none"), a_header(machine={"watts": math.nan})):
        with pytest.raises(FormatError):
            write_report(a_run(header=header), tmp_path / "report.json")
    assert list(tmp_path.iterdir()) == []


def test_a_newer_minor_version_is_read_and_its_new_fields_ignored(tmp_path: Path) -> None:
    path = report(tmp_path, lambda d: d | {"schema_version": "1.7", "colour": "blue"})
    document = json.loads(path.read_text())
    document["rows"][0]["mood"] = "calm"
    path.write_text(json.dumps(document))
    assert read_report(path).rows == (a_row(),)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda d: d | {"schema_version": "2.0"}, "schema_version is 2.0"),
        (lambda _: {"hello": 1}, "schema_version is missing"),
        (lambda d: {k: v for k, v in d.items() if k != "footer"}, "footer"),
        (lambda d: d | {"rows": [d["rows"][0] | {"outcome": "fine"}]}, r"rows\[0\].outcome"),
        (lambda d: d | {"rows": [d["rows"][0] | {"value": None}]}, r"rows\[0\].reason"),
        (lambda d: d | {"rows": [d["rows"][0] | {"low": 99.0}]}, "upside down"),
        (lambda d: [d], "expected an object"),
        (lambda d: d | {"evidence": [{"cell": "a"}]}, r"evidence\[0\]"),
        (lambda d: d | {"evidence": [spoilt(rows=[[True]])]}, r"evidence\[0\].rows"),
        (lambda d: d | {"evidence": [spoilt(rows=[["text"]])]}, "1 values for 5 columns"),
    ],
)
def test_what_is_no_report_is_refused_with_its_reason(
    tmp_path: Path, spoil: Any, told: str
) -> None:
    with pytest.raises(FormatError, match=told):
        read_report(report(tmp_path, spoil))


def test_a_missing_report_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"absent\.json: cannot be read: No such file"):
        read_report(tmp_path / "absent.json")


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")
    with pytest.raises(TypeError):
        write_atomically(path, 7)  # type: ignore[arg-type]
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_lone_surrogates_of_a_foreign_log_are_kept_readable(tmp_path: Path) -> None:
    row = a_row(reason="bytes \udcff in a log")
    path = tmp_path / "report.json"
    write_report(a_run([row]), path)
    assert read_report(path).rows == (row,)
    write_atomically(tmp_path / "page", row.reason or "")
    assert (tmp_path / "page").read_text() == "bytes \\udcff in a log"


def written(directory: Path, *, cells: Any = ()) -> Path:
    journal = Journal(directory / "run.jsonl")
    journal.header(a_header())
    journal.row(a_row())
    for cell in cells:
        journal.cell(cell)
    journal.close()
    return journal.path


def spoilt(**changes: Any) -> dict[str, Any]:
    return an_evidence().to_json() | changes


def report(directory: Path, spoil: Any) -> Path:
    path = directory / "report.json"
    write_report(a_run([a_row()]), path)
    path.write_text(json.dumps(spoil(json.loads(path.read_text()))))
    return path


def test_the_row_type_and_its_schema_name_the_same_fields() -> None:
    schema = json.loads(SCHEMA_PATH.read_text())
    assert set(schema["$defs"]["row"]["properties"]) == set(Row.__dataclass_fields__)
    assert set(schema["$defs"]["cell"]["properties"]) == set(a_cell().to_json())
    assert set(schema["$defs"]["evidence"]["properties"]) == set(Evidence.__dataclass_fields__)
