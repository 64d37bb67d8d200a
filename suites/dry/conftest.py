"""One dry engine for all tests: importing vLLM costs more than all they ask of it."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import pytest

from fixtures.dry import DryEngine


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DryEngine]:
    """A process of this interpreter that answers; skipped where it has no vLLM."""
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("no vLLM is installed in this environment: `tox -e cpu -- suites/dry`")
    with DryEngine(log=tmp_path_factory.mktemp("dry") / "engine.log") as running:
        yield running
