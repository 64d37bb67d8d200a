"""What several claims share: the corpus, the baseline every cell is compared with, its scores.

The baseline is the original on one rank. It is measured before the first other server starts, in
one start of its own, and only for the suites this run selects; its scores come from the reference
cache where they are known already.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Mapping
from pathlib import Path

import pytest

from fixtures.errors import ShardproofError
from fixtures.matrix import Cell
from fixtures.miniature import cache_root
from fixtures.plugin import State, selected
from fixtures.reference import load, reference_key, store
from fixtures.running import Servers
from fixtures.serving.server import Server, server_environment
from suites.agreement import lines, tally
from suites.baseline import Baseline, score_corpus
from suites.corpus import Corpus, Document, corpus_digest, read_corpus
from suites.measure import measure_latency, measure_throughput

ENGINE_VARIABLES = ("VLLM_", "NCCL_", "CUDA_", "OMP_", "TORCHDYNAMO_")


@pytest.hookimpl(wrapper=True)
def pytest_shardproof_header() -> Generator[None, dict[str, object], dict[str, object]]:
    """The report's header names the corpus: other prompts give other numbers."""
    header = yield
    return {**header, "corpus_digest": corpus_digest()}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How often the planner's word was held against somebody else's, and how often it stood."""
    outcomes = ("passed", "failed")
    reports = [r for name in outcomes for r in terminalreporter.stats.get(name, ())]
    found = tally(report.user_properties for report in reports)
    if found:
        terminalreporter.section("agreement of the planner")
        for line in lines(found):
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def corpus() -> Corpus:
    """The prompts, loaded when the first claim needs them."""
    return read_corpus()


@pytest.fixture(scope="session")
def documents(corpus: Corpus, state: State) -> tuple[Document, ...]:
    """The documents this model can be asked: no pictures for a model that cannot see."""
    return corpus.texts if state.matrix.original.vision is None else corpus.documents


@pytest.fixture(scope="session")
def baseline() -> Baseline:
    """Filled by `prerequisites`."""
    return Baseline()


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

    def take() -> None:
        wanted = {
            suite: any(cell.answers for cell in selected(request.session, suite))
            for suite in ("numerics", "latency", "throughput")
        }
        key = None
        if wanted["numerics"] and state.command is None:
            # A custom command has no version to tell its answers by: it is scored anew.
            key = _key(state, request.getfixturevalue("corpus"))
            baseline.scores = load(_folder(), key)
        settings = state.settings
        compared = {
            "latency": bool(
                settings.latency.ttft_p50_ratio
                or settings.latency.tpot_p50_ratio
                or settings.latency.e2e_p50_ratio
            ),
            "throughput": bool(settings.throughput.output_tokens_ratio),
        }
        timed = [suite for suite in compared if wanted[suite] and compared[suite]]
        if not timed and (baseline.scores is not None or not wanted["numerics"]):
            return
        running = servers.start(state.matrix.baseline)
        if running.observed is not None:
            baseline.broken = (
                f"the baseline {running.cell.id} does not serve ({running.observed}): "
                f"{running.reason}. Log: {running.log}"
            )
            return
        if wanted["numerics"] and baseline.scores is None:
            baseline.scores = score_corpus(running.server, request.getfixturevalue("documents"))
            if key is not None:
                store(_folder(), key, baseline.scores)
        texts = request.getfixturevalue("corpus").texts if timed else ()
        if "latency" in timed:
            baseline.latency = measure_latency(running.server, texts, settings.latency, "base-l")
        if "throughput" in timed:
            baseline.throughput = measure_throughput(
                running.server, texts, settings.throughput, "base-t"
            )

    return measure


def answer_deciding(environment: Mapping[str, str]) -> dict[str, str]:
    """What a server's environment says about the engine: the caller's settings reach it too."""
    given = server_environment(os.environ, environment)
    return {name: value for name, value in given.items() if name.startswith(ENGINE_VARIABLES)}


def _folder() -> Path:
    return cache_root() / "references"


def _key(state: State, corpus: Corpus) -> str:
    machine = state.machine
    return reference_key(
        {
            "checkpoint": state.matrix.digest,
            "engine": state.engine_json,
            "arguments": state.settings.arguments,
            "environment": answer_deciding(state.settings.environment),
            "corpus": corpus.digest,
            "cpu": machine.cpu,
            "gpus": [gpu.name for gpu in machine.gpus],
            "versions": machine.versions,
        }
    )


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
