"""The pytest glue: tests record rows, a journal keeps them, reports are rendered from it.

A test is a *claim* when something (fixtures.plugin) has put a
("shardproof_subject", {"cell": ..., "claim": ...}) into its user_properties.
Every claim ends as at least one row: what it recorded through the `record`
fixture, and where it failed, was skipped or said nothing, a row derived from
its outcome. Rows travel in user_properties because those arrive wherever
reports are collected, in this process or in another.

Files are touched at the first claim and not before: then stale reports are
removed, so that a crash never leaves yesterday's green one, and the journal is
opened. The footer, report.json and report.html come last, from the journal
alone. Where no claim runs, nothing is written. From the first claim on, SIGTERM
ends a run as Ctrl-C does: with a report of what was measured by then, which says
that it is partial.
"""

import os
import uuid
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from _pytest.terminal import TerminalReporter

from reports.html import markdown_summary, render
from reports.interruption import Interruption
from reports.partial import Claim, Partial, came_so_far, partial
from reports.record import (
    SCHEMA_VERSION,
    CellRecord,
    Evidence,
    Journal,
    JsonObject,
    Outcome,
    RecordEvidence,
    RecordRow,
    ReportError,
    Row,
    Run,
    replay,
    write_atomically,
    write_report,
)
from reports.terminal import summary

REASON_LINES, REASON_CHARACTERS = 3, 600
# A row that already says that the claim does not hold; a failing test needs no second one.
UNWELL = ("failed", "inconclusive", "invalid")


class ShardproofHooks:
    @pytest.hookspec(firstresult=True)
    def pytest_shardproof_header(self, config: pytest.Config) -> JsonObject | None:
        """What this run tests: the header of its report. Called once, at the first claim.

        schema_version, run_id, started_at and command are filled in where left out.
        """


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    pluginmanager.add_hookspecs(ShardproofHooks)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("shardproof").addoption(
        "--reports",
        metavar="DIR",
        help="where report.json, report.html and run.jsonl go (default: reports/latest)",
    )


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        return  # Under xdist the controller collects every worker's rows and writes alone.
    given = config.getoption("--reports")
    if given is None:
        directory = config.rootpath / "reports" / "latest"
    else:
        directory = config.invocation_params.dir / given
    _require_writable(directory)
    config.pluginmanager.register(Reporter(config, directory), "shardproof-reporter")


def _require_writable(directory: Path) -> None:
    existing = next(path for path in (directory, *directory.parents) if path.exists())
    if not existing.is_dir():
        raise pytest.UsageError(f"--reports {directory}: {existing} is a file, not a directory")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise pytest.UsageError(f"--reports {directory}: {existing} is not writable")


@pytest.fixture
def record(request: pytest.FixtureRequest) -> RecordRow:
    """record(cell=..., claim=..., outcome=..., ...): Row's fields by keyword, checked at once."""

    def record_row(**fields: Any) -> Row:
        row = Row(**fields)
        request.node.user_properties.append(("shardproof_row", row.to_json()))
        return row

    return record_row


@pytest.fixture
def record_evidence(request: pytest.FixtureRequest) -> RecordEvidence:
    """record_evidence(cell=..., name=..., columns=..., rows=..., definition=...), checked at once.

    For the report's pictures and their tables; it makes no claim, and needs a row beside it.
    """

    def record(**fields: Any) -> Evidence:
        evidence = Evidence(**fields)
        request.node.user_properties.append(("shardproof_evidence", evidence.to_json()))
        return evidence

    return record


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Any:
    """A test that records a failed row fails: pytest's exit status and the report agree."""
    result = yield
    rows = [content for key, content in item.user_properties if key == "shardproof_row"]
    failed = [row for row in rows if isinstance(row, dict) and row["outcome"] == "failed"]
    if failed:
        claims = ", ".join(row["claim"] for row in failed)
        pytest.fail(f"recorded as failed, yet nothing was raised: {claims}", pytrace=False)
    return result


class Reporter:
    """Journals one session, and closes it with its reports."""

    def __init__(self, config: pytest.Config, directory: Path) -> None:
        self._config = config
        self._directory = directory
        self._started_at = _now()
        self._journal: Journal | None = None
        self._header: JsonObject = {}
        self._journaled: dict[str, int] = {}
        self._outcomes: dict[str, list[str]] = {}
        self._told_cells: set[str] = set()
        self._counts: Counter[str] = Counter()
        self._current: pytest.Item | None = None
        self._finished: set[str] = set()
        self._interruption = Interruption()
        self._run: Run | None = None
        self._notices: list[str] = []

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        self._current = item
        # Before the fixtures, so before a server starts that could take this process down.
        if _subject(item.user_properties):
            self._opened(item.session)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._take_properties(report.nodeid, report.user_properties)
        subject = _subject(report.user_properties)
        outcomes = self._outcomes.setdefault(report.nodeid, [])
        if subject and (row := _derived_row(report, subject, outcomes)):
            self._take_row(report.nodeid, row)
        if report.when == "teardown":
            self._current = None
            self._finished.add(report.nodeid)
            self._journaled.pop(report.nodeid, None)
            self._outcomes.pop(report.nodeid, None)

    # Outermost, and the others run whatever happens here: some of them end servers.
    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> Any:
        try:
            if self._journal is not None:
                with self._interruption.held():
                    self._close(session, exitstatus)
                self._say_that_it_is_kept()
        except (ReportError, OSError) as error:
            self._notices.append(f"NO REPORT: {error}")
            session.exitstatus = pytest.ExitCode.INTERNAL_ERROR
        finally:
            self._interruption.restore()
            result = yield
        return result

    def pytest_terminal_summary(self, terminalreporter: TerminalReporter) -> None:
        if self._run is None and not self._notices:
            return
        terminalreporter.section("shardproof")
        if self._run is not None:
            for line in summary(self._run):
                terminalreporter.write_line(line)
            terminalreporter.write_line(f"report: {self._directory / 'report.html'}")
        for notice in self._notices:
            terminalreporter.write_line(notice, red=True)

    def _opened(self, session: pytest.Session | None = None) -> Journal:
        if self._journal is None:
            self._interruption.install()
            try:
                for name in ("report.json", "report.html"):
                    (self._directory / name).unlink(missing_ok=True)
                self._header = self._made_header()
                if selected := dict.fromkeys(cell for _, (cell, _) in _selected(session)):
                    self._header["selected"] = list(selected)
                journal = Journal(self._directory / "run.jsonl")
                journal.header(self._header)
            except (ReportError, OSError) as error:
                pytest.exit(f"no report can be kept: {error}", pytest.ExitCode.USAGE_ERROR)
            self._journal = journal
        return self._journal

    def _made_header(self) -> JsonObject:
        header = self._config.hook.pytest_shardproof_header(config=self._config)
        if header is None:
            raise ReportError(
                "nothing describes this run; a plugin has to implement pytest_shardproof_header"
            )
        return {
            "schema_version": SCHEMA_VERSION,
            "run_id": uuid.uuid4().hex,
            "started_at": self._started_at,
            "command": ["pytest", *map(str, self._config.invocation_params.args)],
            **header,
        }

    def _close(self, session: pytest.Session, exitstatus: int) -> None:
        # A test without a teardown report was cut off: Ctrl-C, or pytest.exit().
        interrupted = self._current is not None or exitstatus in (
            pytest.ExitCode.INTERRUPTED,
            pytest.ExitCode.INTERNAL_ERROR,
        )
        so_far = self._so_far(session, interrupted)
        self._take_unreported()
        self._take_unreached(session, so_far)
        self._take_silent_cells(so_far)
        footer: JsonObject = {
            "ended_at": _now(),
            "exit_status": int(exitstatus),
            "interrupted": interrupted,
            "counts": dict(self._counts),
        }
        if so_far is not None:
            footer["partial"] = so_far.to_json()
        journal = self._opened()
        journal.footer(footer)
        journal.close()
        run = replay(journal.path)
        write_report(run, self._directory / "report.json")
        write_atomically(self._directory / "report.html", render(run))
        self._run = run
        self._append_step_summary(run)

    def _take_properties(self, nodeid: str, properties: list[tuple[str, object]]) -> None:
        """Journal what is new: each phase's report repeats the properties of those before it."""
        for key, content in properties[self._journaled.get(nodeid, 0) :]:
            if key == "shardproof_row" and isinstance(content, dict):
                self._take_row(nodeid, Row.from_json(content))
            elif key == "shardproof_evidence" and isinstance(content, dict):
                self._opened().evidence(Evidence.from_json(content))
            elif key == "shardproof_cell" and isinstance(content, dict):
                self._told_cells.add(content["cell"])
                self._opened().cell(CellRecord.from_json(content))
        self._journaled[nodeid] = len(properties)

    def _take_row(self, nodeid: str, row: Row) -> None:
        self._opened().row(row)
        self._told_cells.add(row.cell)
        self._counts[row.outcome] += 1
        self._outcomes.setdefault(nodeid, []).append(row.outcome)

    def _take_unreported(self) -> None:
        """Ctrl-C ends a test without a report; what it had recorded by then still counts."""
        item = self._current
        if item is None:
            return
        self._take_properties(item.nodeid, item.user_properties)
        subject = _subject(item.user_properties)
        if subject:
            reason = "the run was interrupted during this claim"
            self._take_row(item.nodeid, _bare_row(subject, "not_run", reason))

    def _say_that_it_is_kept(self) -> None:
        """Before the server ends, which takes a while in which one would press Ctrl-C again."""
        terminal = self._config.pluginmanager.getplugin("terminalreporter")
        if terminal is not None and self._run is not None and partial(self._run):
            terminal.ensure_newline()
            terminal.write_line(f"partial report kept in {self._directory}; ending what runs ...")

    def _so_far(self, session: pytest.Session, interrupted: bool) -> Partial | None:
        """None where the run came to its end."""
        stopped = session.shouldfail or session.shouldstop
        if not interrupted and not stopped:
            return None
        by = self._interruption.signal_name
        why = "interrupted" + (f" by {by}" if by else "") if interrupted else str(stopped)
        current = self._current.nodeid if self._current else None
        return came_so_far(_selected(session), self._finished, current, why)

    def _take_unreached(self, session: pytest.Session, so_far: Partial | None) -> None:
        """A claim that was selected and never came to its turn has a row that says so."""
        if so_far is None:
            return
        seen = {*self._finished, self._current.nodeid if self._current else None}
        for nodeid, (cell, claim) in _selected(session):
            if nodeid not in seen:
                reason = f"not reached before the run ended: {so_far.why}"
                row = Row(cell=cell, claim=claim, outcome="not_run", reason=reason)
                self._opened().row(row)
                self._counts[row.outcome] += 1

    def _take_silent_cells(self, so_far: Partial | None) -> None:
        not_reached = so_far.not_reached if so_far else ()
        for entry in self._header["plan"]:
            if entry["cell"] not in self._told_cells:
                why = "not selected in this run"
                if entry["cell"] in not_reached:
                    why = "not reached before the run ended"
                elif so_far and not self._header.get("selected"):
                    why = "not selected, or not reached before the run stopped"
                record = CellRecord(
                    cell=entry["cell"],
                    variant=entry["variant"],
                    tp=entry["tp"],
                    pp=entry.get("pp", 1),
                    planned=entry["failure_class"],
                    planned_reason=entry.get("message"),
                    observed="not_run",
                    reason=why,
                )
                self._opened().cell(record)

    def _append_step_summary(self, run: Run) -> None:
        step_summary = os.environ.get("GITHUB_STEP_SUMMARY")
        if not step_summary:
            return
        try:
            with Path(step_summary).open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(markdown_summary(run) + "\n")
        except OSError as error:
            self._notices.append(f"no step summary in {step_summary}: {error.strerror}")


def _derived_row(
    report: pytest.TestReport, subject: dict[str, str], outcomes: list[str]
) -> Row | None:
    """What a test's own outcome says about its claim, where its rows do not say it already."""
    if report.failed:
        if report.when == "teardown":
            return _bare_row(subject, "failed", f"afterwards: {_reason(report)}")
        if any(outcome in UNWELL for outcome in outcomes):
            return None
        return _bare_row(subject, "failed", _reason(report))
    if outcomes:
        return None
    if report.skipped:
        return _bare_row(subject, "not_run", _reason(report))
    if report.when == "call":
        return _bare_row(subject, "passed", "asserted; no number recorded")
    return None


def _bare_row(subject: dict[str, str], outcome: Outcome, reason: str) -> Row:
    return Row(cell=subject["cell"], claim=subject["claim"], outcome=outcome, reason=reason)


def _reason(report: pytest.TestReport) -> str:
    """The first lines of what a test raised, or why it was skipped."""
    crash = getattr(report.longrepr, "reprcrash", None)
    if crash is not None:
        text = str(crash.message)
    elif isinstance(report.longrepr, tuple):
        text = str(report.longrepr[2])
    else:
        text = str(report.longrepr or "")
    if hasattr(report, "wasxfail"):
        text = f"marked xfail ({report.wasxfail}), which says nothing here: plan the failure"
    for noise in ("Skipped: ", "AssertionError: ", "Failed: "):
        text = text.removeprefix(noise)
    lines = [line.strip() for line in text.splitlines() if line.strip()][:REASON_LINES]
    return " ".join(lines)[:REASON_CHARACTERS] or f"{report.when} {report.outcome}, nothing said"


def _selected(session: pytest.Session | None) -> list[tuple[str, Claim]]:
    """(test, claim) of what is to run; nothing is known of it where others' workers run it."""
    items = getattr(session, "items", [])
    subjects = [(item.nodeid, _subject(item.user_properties)) for item in items]
    return [(nodeid, (told["cell"], told["claim"])) for nodeid, told in subjects if told]


def _subject(properties: list[tuple[str, object]]) -> dict[str, str] | None:
    for key, content in properties:
        if key == "shardproof_subject" and isinstance(content, dict):
            return {"cell": content["cell"], "claim": content["claim"]}
    return None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
