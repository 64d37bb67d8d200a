"""One dry engine for all tests: importing vLLM costs more than all they ask of it."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.dry import DryEngine, simulated_cuda


@pytest.fixture(scope="session")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where engines write what they say; skipped where there is no vLLM to say anything."""
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("no vLLM is installed in this environment: `tox -e cpu -- suites/dry`")
    return tmp_path_factory.mktemp("dry")


@pytest.fixture(scope="session")
def engine(logs: Path) -> Iterator[DryEngine]:
    """A process of this interpreter that answers for its platform, which must be the CPU."""
    with DryEngine(log=logs / "engine.log") as running:
        if running.ready["platform"] != "cpu":
            pytest.skip("these classes are the CPU build's: `tox -e cpu -- suites/dry`")
        yield running


@pytest.fixture(scope="session")
def hopper(logs: Path) -> Iterator[DryEngine]:
    """The same, deciding as on a GPU of capability 9.0."""
    with DryEngine(log=logs / "hopper.log", arguments=simulated_cuda("9.0")) as running:
        yield running
