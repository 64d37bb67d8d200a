"""Whatever ends a run, its report says what happened and claims no more."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import reports.plugin  # noqa: F401  # once here, not anew in each session of its own
from reports.record import Row, Run, read_report, replay
from suites.selftest.sample_run import a_header

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[2]
Session = Callable[..., pytest.RunResult]

# Stands in for fixtures.plugin: what it says through the string keys of the contract.
CONFTEST = f"""
import json
import pytest

pytest_plugins = ["reports.plugin"]

def pytest_shardproof_header(config):
    return json.loads('''{json.dumps(a_header(command=["pytest"]))}''')

def pytest_collection_finish(session):
    for item in session.items:
        marker = item.get_closest_marker("about")
        if marker:
            cell, claim = marker.args
            item.user_properties.append(("shardproof_subject", {{"cell": cell, "claim": claim}}))

def pytest_configure(config):
    config.addinivalue_line("markers", "about(cell, claim): a claim")
"""

# Plugins that may be installed beside us and only cost time here.
WITHOUT = ("-p", "no:randomly", "-p", "no:hypothesispytest", "-p", "no:benchmark")

ABOUT = """
import pytest
about = pytest.mark.about
"""


@pytest.fixture
def session(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Session:
    """A pytest session of its own, in a directory of its own."""
    # The selftests may themselves run in CI, whose summary is not theirs to write.
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    pytester.makeconftest(CONFTEST)

    def run(source: str, *arguments: str) -> pytest.RunResult:
        pytester.makepyfile(ABOUT + source)
        return pytester.runpytest_inprocess(*WITHOUT, *arguments)

    return run


@pytest.fixture
def latest(pytester: pytest.Pytester) -> Path:
    return pytester.path / "reports" / "latest"


def report(latest: Path) -> Run:
    run = read_report(latest / "report.json")
    assert run == replay(latest / "run.jsonl")
    return run


def only_row(latest: Path) -> Row:
    (row,) = report(latest).rows
    return row


def test_recorded_rows_and_cells_reach_every_report(session: Session, latest: Path) -> None:
    result = session("""
@about("padded-tp2", "latency/ttft")
def test_latency(record, request):
    request.node.user_properties.append(("shardproof_cell", {
        "cell": "padded-tp2", "variant": "padded", "tp": 2, "planned": None, "observed": None}))
    row = record(cell="padded-tp2", claim="latency/ttft", outcome="passed", value=41.5, unit="ms")
    assert row.value == 41.5
""")
    assert result.ret == 0
    run = report(latest)
    assert [(row.claim, row.value) for row in run.rows] == [("latency/ttft", 41.5)]
    assert run.footer
    ended = {name: run.footer[name] for name in ("exit_status", "interrupted", "counts")}
    assert ended == {"exit_status": 0, "interrupted": False, "counts": {"passed": 1}}
    assert "41.5 ms" in (latest / "report.html").read_text()
    result.stdout.fnmatch_lines(
        ["*padded * ✓ serves", "", "The 1 cell that ran behaves*", "", "report: *report.html"]
    )


def test_recorded_evidence_reaches_the_report_once(session: Session, latest: Path) -> None:
    session("""
@about("padded-tp2", "numerics/close")
def test_close(record_evidence):
    evidence = record_evidence(cell="padded-tp2", name="numerics/seen", columns=("stratum", "d"),
        rows=[("text", 0.25), ("image", None)], definition="|d|; nat; v1")
    assert evidence.rows[1] == ("image", None)
""")
    (evidence,) = report(latest).evidence
    assert (evidence.cell, evidence.name) == ("padded-tp2", "numerics/seen")
    assert evidence.rows == (("text", 0.25), ("image", None))
    assert (latest / "run.jsonl").read_text().count('"kind": "evidence"') == 1
    assert only_row(latest).outcome == "passed"


def test_bad_evidence_fails_its_claim(session: Session, latest: Path) -> None:
    session("""
@about("padded-tp2", "numerics/close")
def test_close(record_evidence):
    record_evidence(cell="padded-tp2", name="n", columns=("d",), rows=[(1, 2)], definition="d")
""")
    assert "2 values for 1 columns" in (only_row(latest).reason or "")
    assert report(latest).evidence == ()


def test_cells_nothing_selected_stay_in_the_report(session: Session, latest: Path) -> None:
    session("""
@about("padded-tp2", "plan/x")
def test_one(): pass
""")
    not_run = {cell.cell: cell for cell in report(latest).cells}
    assert set(not_run) == {"original-tp1", "original-tp2"}
    assert {cell.observed for cell in not_run.values()} == {"not_run"}
    assert {cell.reason for cell in not_run.values()} == {"not selected in this run"}
    assert not_run["original-tp2"].planned == "load"


DERIVED = [
    ("assert 1 == 2, 'ranks differ\\nby one'", "failed", "ranks differ by one assert 1 == 2"),
    ("raise OSError('disk is gone')", "failed", "OSError: disk is gone"),
    ("pytest.fail('too slow', pytrace=False)", "failed", "too slow"),
    ("pytest.skip('needs 4 GPUs')", "not_run", "needs 4 GPUs"),
    ("pass", "passed", "asserted; no number recorded"),
    ("record(cell='a', claim='b', outcome='fine')", "failed", "*outcome is 'fine', expected one*"),
]


@pytest.mark.parametrize(("body", "outcome", "reason"), DERIVED)
def test_a_claim_that_records_nothing_still_has_a_row(
    session: Session, latest: Path, body: str, outcome: str, reason: str
) -> None:
    session(f"""
@about("padded-tp2", "plan/x")
def test_one(record):
    {body}
""")
    row = only_row(latest)
    assert (row.cell, row.claim, row.outcome) == ("padded-tp2", "plan/x", outcome)
    assert Path(row.reason or "").match(reason) or row.reason == reason


@pytest.mark.parametrize("when", ["setup", "teardown"])
def test_an_error_around_a_claim_is_a_failed_row(session: Session, latest: Path, when: str) -> None:
    result = session(f"""
@pytest.fixture
def server():
    if {when == "setup"}: raise RuntimeError("no server")
    yield
    if {when == "teardown"}: raise RuntimeError("no server")

@about("padded-tp2", "plan/x")
def test_one(server): pass
""")
    result.assert_outcomes(errors=1, passed=when == "teardown")
    failed = [row for row in report(latest).rows if row.outcome == "failed"]
    assert [row.reason for row in failed] == [
        "RuntimeError: no server" if when == "setup" else "afterwards: RuntimeError: no server"
    ]


@pytest.mark.parametrize("outcome", ["failed", "inconclusive", "invalid"])
def test_a_failure_that_recorded_its_row_gets_no_second(
    session: Session, latest: Path, outcome: str
) -> None:
    session(f"""
@about("padded-tp2", "plan/x")
def test_one(record):
    record(cell="padded-tp2", claim="plan/x", outcome="{outcome}", value=3, limit=2)
    pytest.fail("3 is above 2")
""")
    assert only_row(latest).outcome == outcome


def test_a_failure_after_a_passed_row_is_not_lost(session: Session, latest: Path) -> None:
    session("""
@about("padded-tp2", "plan/x")
def test_one(record):
    record(cell="padded-tp2", claim="plan/x", outcome="passed", value=1)
    assert False, "what follows does not hold"
""")
    assert [row.outcome for row in report(latest).rows] == ["passed", "failed"]


def test_a_failed_row_fails_its_test(session: Session) -> None:
    result = session("""
def test_one(record):
    record(cell="padded-tp2", claim="plan/x", outcome="failed", value=3, limit=2)
""")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*recorded as failed, yet nothing was raised: plan/x"])


def test_a_failed_row_is_told_in_the_terminal(session: Session) -> None:
    session("""
@about("padded-tp2", "latency/ttft")
def test_one(record):
    record(cell="padded-tp2", claim="latency/ttft", outcome="failed", value=300, unit="ms",
           n=90, low=290, high=310, limit=250, better="lower", reason="above the budget")
    assert False
""").stdout.fnmatch_lines(
        [
            "padded * ✗ FAILED",
            "FAILED padded-tp2 latency/ttft",
            "  observed  300 ms  (290 … 310, n = 90)",
            "  limit     ≤ 250 ms",
            "  reason    above the budget",
        ]
    )


def test_without_a_claim_nothing_is_written(session: Session, pytester: pytest.Pytester) -> None:
    result = session("def test_one(): pass")
    result.assert_outcomes(passed=1)
    assert not (pytester.path / "reports").exists()
    assert "shardproof" not in result.stdout.str()
    session('@about("padded-tp2", "plan/x")\ndef test_one(): pass', "--collect-only")
    assert not (pytester.path / "reports").exists()


def test_a_stale_report_is_gone_before_the_first_fixture_runs(
    session: Session, latest: Path
) -> None:
    latest.mkdir(parents=True)
    for name in ("report.json", "report.html", "run.jsonl"):
        (latest / name).write_text("green, and of yesterday")
    (latest / "server.log").write_text("kept")
    result = session(f"""
import pathlib

@pytest.fixture
def server():
    latest = pathlib.Path({str(latest)!r})
    assert sorted(path.name for path in latest.iterdir()) == ["run.jsonl", "server.log"]
    assert latest.joinpath("run.jsonl").read_text().count(chr(10)) == 1

@about("padded-tp2", "plan/x")
def test_one(server): pass
""")
    result.assert_outcomes(passed=1)


def test_an_interrupted_run_has_a_partial_report(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, latest: Path
) -> None:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(
        ABOUT
        + """
@about("original-tp1", "plan/x")
def test_one(record):
    record(cell="original-tp1", claim="plan/x", outcome="passed", value=1)

@about("padded-tp2", "plan/y")
def test_two(record):
    record(cell="padded-tp2", claim="plan/y", outcome="passed", value=2)
    raise KeyboardInterrupt
"""
    )
    result = pytester.runpytest_subprocess(*WITHOUT)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    run = report(latest)
    assert run.footer
    assert run.footer["interrupted"] is True
    assert [(row.claim, row.outcome) for row in run.rows] == [
        ("plan/x", "passed"),
        ("plan/y", "passed"),
        ("plan/y", "not_run"),
    ]
    (missed,) = run.cells
    assert missed.reason == "not selected in this run"
    assert run.footer["partial"] == {
        "why": "interrupted",
        "during": "padded-tp2 plan/y",
        "done": ["original-tp1"],
        "unfinished": ["padded-tp2"],
        "not_reached": [],
    }
    assert "Partial, the run was interrupted" in (latest / "report.html").read_text()


def test_signals_that_come_while_the_report_is_written_do_not_cost_it(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, latest: Path
) -> None:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(
        ABOUT
        + """
import os, signal
import reports.plugin

def impatient(run, render=reports.plugin.render):
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(os.getpid(), number)
    return render(run)

@about("padded-tp2", "plan/y")
def test_two():
    reports.plugin.render = impatient
    os.kill(os.getpid(), signal.SIGTERM)
"""
    )
    result = pytester.runpytest_subprocess(*WITHOUT)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    footer = report(latest).footer
    assert footer
    assert footer["partial"]["why"] == "interrupted by SIGTERM"
    assert (latest / "report.html").exists()


def test_a_run_stopped_by_a_test_is_partial_too(session: Session, latest: Path) -> None:
    session("""
@about("original-tp1", "plan/x")
def test_one():
    pytest.exit("enough", returncode=7)
""")
    run = report(latest)
    assert run.footer
    assert run.footer["interrupted"] is True
    assert [row.outcome for row in run.rows] == ["not_run"]


def test_a_run_that_stops_at_a_failure_says_what_it_never_reached(
    session: Session, latest: Path
) -> None:
    result = session(
        """
@about("original-tp1", "plan/x")
def test_one(): assert False

@about("padded-tp2", "plan/y")
def test_two(): pass
""",
        "-x",
    )
    run = report(latest)
    assert run.footer
    assert run.footer["interrupted"] is False
    assert run.footer["partial"]["done"] == ["original-tp1"]
    assert run.footer["partial"]["not_reached"] == ["padded-tp2"]
    assert [(row.outcome, row.reason) for row in run.rows if row.cell == "padded-tp2"] == [
        ("not_run", "not reached before the run ended: stopping after 1 failures")
    ]
    result.stdout.fnmatch_lines(["Partial, the run stopped early (of 2 cells 1 done, *"])


def test_a_killed_run_leaves_its_journal_and_no_report(
    pytester: pytest.Pytester, latest: Path
) -> None:
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(
        ABOUT
        + """
import time

@about("original-tp1", "plan/x")
def test_one(record):
    record(cell="original-tp1", claim="plan/x", outcome="passed", value=1)

@about("padded-tp2", "plan/y")
def test_two():
    time.sleep(60)
"""
    )
    latest.mkdir(parents=True)
    (latest / "report.json").write_text("yesterday's")
    environment = {k: v for k, v in os.environ.items() if k != "GITHUB_STEP_SUMMARY"}
    environment |= {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pytest", "-q", *WITHOUT]
    process = subprocess.Popen(command, cwd=pytester.path, env=environment)
    journal = latest / "run.jsonl"
    deadline = time.monotonic() + 60
    try:
        while not (journal.exists() and b'"plan/x"' in journal.read_bytes()):
            assert process.poll() is None, "it ended by itself"
            assert time.monotonic() < deadline, "no row within 60 s"
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()
    assert [row.claim for row in replay(journal).rows] == ["plan/x"]
    assert replay(journal).footer is None
    assert not (latest / "report.json").exists()


def test_reports_go_where_asked(session: Session, pytester: pytest.Pytester) -> None:
    session('@about("padded-tp2", "plan/x")\ndef test_one(): pass', "--reports", "elsewhere/now")
    assert read_report(pytester.path / "elsewhere" / "now" / "report.json").rows
    assert not (pytester.path / "reports").exists()


@pytest.mark.parametrize("given", ["a-file", "a-file/below"])
def test_a_file_as_the_report_directory_is_a_usage_error(
    session: Session, pytester: pytest.Pytester, given: str
) -> None:
    (pytester.path / "a-file").touch()
    result = session("def test_one(): pass", "--reports", given)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: --reports *{given}: *a-file is a file, not a directory"])


def test_an_unwritable_report_directory_is_a_usage_error(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Root may write anywhere, so the answer of the system is replaced.
    monkeypatch.setattr("os.access", lambda *_: False)
    result = session("def test_one(): pass")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --reports *latest: * is not writable"])


def test_a_run_nobody_describes_ends_at_its_first_claim(
    session: Session, pytester: pytest.Pytester, latest: Path
) -> None:
    conftest = CONFTEST.replace("pytest_shardproof_header", "nobody_asks")
    pytester.makeconftest(conftest)
    result = session('@about("padded-tp2", "plan/x")\ndef test_one(): pass')
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "no report can be kept: nothing describes this run" in result.stdout.str()
    assert not (latest / "report.json").exists()


def test_a_report_that_cannot_be_written_turns_the_run_red(session: Session, latest: Path) -> None:
    result = session(f"""
@about("padded-tp2", "plan/x")
def test_one():
    import pathlib
    pathlib.Path({str(latest / "report.json")!r}).mkdir()
""")
    assert result.ret == pytest.ExitCode.INTERNAL_ERROR
    result.stdout.fnmatch_lines(["NO REPORT: *"])


def test_the_step_summary_is_appended_to(
    session: Session, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = pytester.path / "summary.md"
    summary.write_text("# earlier\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    session('@about("padded-tp2", "plan/x")\ndef test_one(): pass')
    assert summary.read_text().startswith("# earlier\n## shardproof\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(pytester.path))
    result = session('@about("padded-tp2", "plan/x")\ndef test_one(): pass')
    assert result.ret == 0
    result.stdout.fnmatch_lines(["no step summary in *: Is a directory"])


def test_rows_arrive_from_worker_processes_once_each(session: Session, latest: Path) -> None:
    pytest.importorskip("xdist")
    result = session(
        """
@pytest.mark.parametrize("n", range(6))
@about("padded-tp2", "plan/x")
def test_one(record, n):
    record(cell="padded-tp2", claim=f"plan/{n}", outcome="passed", value=n)
""",
        "-n",
        "2",
    )
    assert result.ret == 0
    assert sorted(row.claim for row in report(latest).rows) == [f"plan/{n}" for n in range(6)]
