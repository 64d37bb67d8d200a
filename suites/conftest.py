"""What several claims share: the corpus, the baseline every cell is compared with, its scores.

The baseline is the original on one rank. It is measured before the first other server starts, in
one start of its own, and only for the suites this run selects; its scores come from the reference
cache where they are known already.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from fixtures.budgets import METRICS, TimeBudgets, quantile
from fixtures.checkpoint.tensors import read_checkpoint
from fixtures.errors import InputError, ShardproofError
from fixtures.load.bench import Bench, installed
from fixtures.load.instrument import Instrument
from fixtures.load.probe_load import ProbeLoad
from fixtures.matrix import Cell, Matrix
from fixtures.plugin import SUITES, State, selected, state_of
from fixtures.reference import (
    load,
    load_answers,
    reference_key,
    store,
    store_answers,
)
from fixtures.running import Servers
from fixtures.serving.server import Server
from reports.percentiles import impossible, needs
from reports.record import write_atomically
from suites.agreement import lines, tally
from suites.answers import answered, tasks
from suites.baseline import COLLECTION, Baseline, score_corpus, without_positions
from suites.calibration import (
    Null,
    StoredNull,
    Unproposed,
    document,
    proposed,
    stored_null,
)
from suites.comparison import nothing_to_compare
from suites.corpus import Corpus, Document, read_corpus
from suites.figures import figures
from suites.known import deciding, reference_folder
from suites.measure import Gauge
from suites.pace import Say
from suites.patience import Patience
from suites.repeats import Repeated, repeat
from suites.tasks import Task

ROW = "shardproof_row"  # as the `record` fixture keeps them
CORPUS = pytest.StashKey[Corpus]()
COMPARED = ("numerics", "faults", "calibration")  # what asks for scores


@pytest.hookimpl(wrapper=True)
def pytest_shardproof_header(
    config: pytest.Config,
) -> Generator[None, dict[str, object], dict[str, object]]:
    """The report's header names the corpus: other prompts give other numbers."""
    header = yield
    corpus = asked(config).to_json()
    return {**header, "corpus_digest": corpus["digest"], "corpus": corpus}


def asked(config: pytest.Config) -> Corpus:
    """What this run's servers are asked, read once."""
    if CORPUS not in config.stash:
        state = state_of(config)
        config.stash[CORPUS] = read_corpus(state.corpus, platform=state.platform)
    return config.stash[CORPUS]


def pytest_collection_finish(session: pytest.Session) -> None:
    """What cannot be asked is refused before a server starts."""
    if any(selected(session, suite) for suite in SUITES):  # the report's header names it too
        try:
            corpus = asked(session.config)
            _require_possible(session)
        except InputError as error:
            raise pytest.UsageError(str(error)) from error
        state = state_of(session.config)
        if any(selected(session, suite) for suite in COMPARED) and not askable(corpus, state):
            raise pytest.UsageError(
                f"--corpus {corpus.name} holds pictures alone, and {state.checkpoint} is a model "
                "that sees none: there is nothing to ask it. Give a corpus with texts, such as ci"
            )


def askable(corpus: Corpus, state: State) -> tuple[Document, ...]:
    """The documents this model can be asked: no pictures for a model that cannot see."""
    return corpus.texts if state.matrix.original.vision is None else corpus.documents


def _require_possible(session: pytest.Session) -> None:
    """A budget that cannot pass from so many requests is refused before a server starts; of the
    others is said how many they need, and how many may miss."""
    state = state_of(session.config)
    told: dict[str, None] = {}
    for suite in ("latency", "throughput"):
        for cell in selected(session, suite):
            settings = state.settings_of(cell)
            tables: dict[str, tuple[TimeBudgets, int]] = {
                "latency": (settings.latency, settings.latency.requests),
                "throughput": (settings.throughput, settings.throughput.poisson_requests),
            }
            budgets, requests = tables[suite]
            for metric in METRICS:
                for name in budgets.limits(metric):
                    where = f"{suite}.{metric}_s"
                    asked = quantile(name), budgets.confidence, requests
                    if (said := impossible(*asked)) is not None:
                        raise InputError(f"{cell.id}: {where}.{name}: {said}")
                    told[f"{where}: {needs(*asked)}"] = None
    for line in () if session.config.option.collectonly else told:
        state.say(line)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The figures of the numerics; how often the planner's word was held against somebody else's,
    and how often it stood."""
    outcomes = ("passed", "failed")
    reports = [r for name in outcomes for r in terminalreporter.stats.get(name, ())]
    # Of a test whose fixture failed, and of a skipped one that scored for others, too; once each.
    stats = terminalreporter.stats
    every = {r.nodeid: r for name in (*outcomes, "skipped", "error") for r in stats.get(name, ())}
    properties = (getattr(report, "user_properties", ()) for report in every.values())
    recorded = (content for found in properties for key, content in found if key == ROW)
    if lines_of_figures := figures(row for row in recorded if isinstance(row, dict)):
        terminalreporter.section("numerics")
        for line in lines_of_figures:
            terminalreporter.write_line(line)
    found = tally(report.user_properties for report in reports)
    if found:
        terminalreporter.section("agreement of the planner")
        for line in lines(found):
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def corpus(pytestconfig: pytest.Config) -> Corpus:
    """The prompts."""
    return asked(pytestconfig)


@pytest.fixture(scope="session")
def documents(corpus: Corpus, state: State) -> tuple[Document, ...]:
    """The documents this model can be asked."""
    return askable(corpus, state)


@pytest.fixture(scope="session")
def say(state: State) -> Say:
    """Tells the user how far long work is."""
    return state.say


@pytest.fixture(scope="session")
def asked_tasks(state: State) -> tuple[Task, ...]:
    """The questions with one right answer that every server is asked."""
    return tasks(pictures=state.matrix.original.vision is not None)


@pytest.fixture(scope="session")
def tp_detects(state: State) -> tuple[str, ...] | None:
    """The seeded faults that must be seen on several ranks; None where nobody reviewed them."""
    deployment = state.deployments.deployment(state.deployment_name)
    return deployment.tp_detects.get(state.platform)


@pytest.fixture(scope="session")
def baseline() -> Baseline:
    """Filled by `prerequisites`."""
    return Baseline()


@pytest.fixture(scope="session")
def placeholders(matrix: Matrix) -> frozenset[int]:
    """Tokens that stand for a picture's patches: nobody predicts them."""
    raw = read_checkpoint(matrix.directory("original")).raw
    token = raw.get("image_token_id")
    return frozenset({token} if isinstance(token, int) else ())


@pytest.fixture(scope="session")
def calibration(state: State, corpus: Corpus) -> Iterator[list[Null]]:
    """What `--calibrate` finds; written, and its proposal shown, when the run is over."""
    found: list[Null] = []
    yield found
    if not found:
        return
    path = state.reports / "calibration.json"
    write_atomically(path, document(found, _conditions(state, corpus)))
    limits = proposed(found)
    if isinstance(limits, Unproposed):
        state.say(f"{len(found)} nulls ({path}), of which no limits follow: {limits.reason}")
        return
    state.say(f"limits that leave room for {len(found)} nulls ({path}):")
    for name, limit in limits.items():
        state.say(f"{name} = {limit:g}")


@pytest.fixture(scope="session")
def null(state: State, corpus: Corpus) -> StoredNull:
    """The noise that was measured under this run's conditions, where it was."""
    return stored_null(_conditions(state, corpus))


def _conditions(state: State, corpus: Corpus) -> dict[str, object]:
    """What a calibration was measured under, and a run that it is of."""
    return {
        "engine": state.engine_json,
        "checkpoint": {"name": Path(state.checkpoint).name, "digest": state.matrix.digest},
        "machine": {"cpu": state.machine.cpu, "gpus": [gpu.name for gpu in state.machine.gpus]},
        "corpus": corpus.to_json(),
        "arguments": list(state.settings.arguments),
    }


@pytest.fixture(scope="session")
def gauge(state: State, documents: tuple[Document, ...]) -> Iterator[Gauge]:
    """Takes latency and throughput; raw samples and vLLM's own results go beside the report."""
    folder = state.reports / "loads"
    with ExitStack() as stack:
        instrument: Instrument = ProbeLoad()
        # A custom command is asked by what is installed here in any case; vLLM's benchmark is not.
        if state.command is None and installed():
            log = state.reports / "logs" / "bench.log"
            instrument = stack.enter_context(Bench(log, folder))
        machine = state.settings.machine
        patience = Patience(machine.again_s, machine.limits, state.say)
        yield Gauge(instrument, documents, folder, state.say, machine.margins, patience)


@pytest.fixture(scope="session")
def repeated(
    request: pytest.FixtureRequest, state: State, servers: Servers, gauge: Gauge
) -> Repeated | str:
    """Every selected cell, restarted in turns; or why that could not be done."""
    cells = [
        cell
        for cell in dict.fromkeys(selected(request.session, "repeats"))
        if cell.plan.failure_class is None and cell.unneeded is None
    ]
    if len(cells) < 2:
        return "--repeats compares cells, and fewer than two that serve are selected"
    try:
        return repeat(cells, state.repeats, servers, gauge, state.settings_of)
    except ShardproofError as error:
        return f"a cell could not be started again: {error}"


@pytest.fixture(scope="session")
def prerequisites(
    request: pytest.FixtureRequest, servers: Servers, state: State, baseline: Baseline
) -> Callable[[], None]:
    """Measures the baseline, once, before any other server starts."""
    done = False

    def measure() -> None:
        nonlocal done
        if done:
            return
        done = True
        try:
            take()
        except ShardproofError as error:
            baseline.broken = f"the baseline original-tp1 could not be measured: {error}"
        if baseline.scores is not None and baseline.broken is None:
            baseline.broken = nothing_to_compare(baseline.scores)
            if silent := without_positions(baseline.scores):
                state.say(
                    "left out of the numerics, since no token of theirs is scored "
                    f"({len(silent)}): {', '.join(silent[:5])}"
                )

    def take() -> None:
        wanted = {
            suite: any(cell.answers for cell in selected(request.session, suite))
            for suite in ("numerics", "latency", "throughput", "faults", "calibration")
        }
        wanted["numerics"] |= wanted["faults"] | wanted["calibration"]
        key = tasks_key = None
        questions = request.getfixturevalue("asked_tasks") if wanted["numerics"] else ()
        if wanted["numerics"] and state.command is None:
            # A custom command has no version to tell its answers by: it is scored anew.
            corpus = request.getfixturevalue("corpus")
            facts = deciding(state.matrix.digest, state.engine_json, state.settings, state.machine)
            key = reference_key({**facts, "corpus": corpus.digest, "collection": COLLECTION})
            tasks_key = reference_key({**facts, "tasks": [task.digest for task in questions]})
            baseline.scores = load(reference_folder(), key)
            baseline.right = load_answers(reference_folder(), tasks_key)
        settings = state.settings
        compared = {
            "latency": bool(
                settings.latency.ttft_p50_ratio
                or settings.latency.tpot_p50_ratio
                or settings.latency.e2e_p50_ratio
            ),
            "throughput": bool(
                settings.throughput.output_tokens_ratio or settings.throughput.scaling_efficiency
            ),
        }
        timed = [suite for suite in compared if wanted[suite] and compared[suite]]
        known = baseline.scores is not None and baseline.right is not None
        if not timed and (known or not wanted["numerics"]):
            return
        running = servers.start(state.matrix.baseline)
        if running.observed is not None:
            baseline.broken = (
                f"the baseline {running.cell.id} does not serve ({running.observed}): "
                f"{running.reason}. Log: {running.log}"
            )
            return
        if wanted["numerics"] and baseline.scores is None:
            documents = request.getfixturevalue("documents")
            placeholders = request.getfixturevalue("placeholders")
            baseline.scores = score_corpus(
                running.server, documents, placeholders=placeholders, say=state.say
            )
            baseline.by_cell[running.cell.id] = baseline.scores
            if key is not None:
                store(reference_folder(), key, baseline.scores)
        if wanted["numerics"] and baseline.right is None:
            baseline.right = answered(running.server, questions, state.say)
            if tasks_key is not None:
                store_answers(reference_folder(), tasks_key, baseline.right)
        if timed:
            gauge: Gauge = request.getfixturevalue("gauge")
            if "latency" in timed:
                baseline.latency = dict(gauge.latency(running.server, settings.latency, "base-l"))
            if "throughput" in timed:
                baseline.throughput = dict(
                    gauge.throughput(running.server, settings.throughput, "base-t")
                )

    return measure


@pytest.fixture
def answering(runnable: Cell) -> Cell:
    """A cell planned to answer; asked before `server`, so that no other is started in vain."""
    if not runnable.answers:
        pytest.skip(
            f"{runnable.id} is planned to fail ({runnable.plan.failure_class}): there is no answer "
            "to judge"
        )
    return runnable


@pytest.fixture
def measured(answering: Cell, request: pytest.FixtureRequest, baseline: Baseline) -> Server:
    """A live server of a cell planned to answer, and a baseline to hold it against."""
    server: Server = request.getfixturevalue("server")
    if baseline.broken is not None:
        pytest.fail(f"{answering.id} cannot be compared: {baseline.broken}", pytrace=False)
    return server


@pytest.fixture
def sound(answering: Cell, request: pytest.FixtureRequest) -> Server:
    """A live server whose speed is worth knowing: it is not planned to answer wrongly."""
    if answering.plan.failure_class == "silent":
        pytest.skip(f"{answering.id} is planned to answer wrongly: its speed is of no use")
    server: Server = request.getfixturevalue("measured")
    return server
