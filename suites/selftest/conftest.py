"""What the inner runs share: one cache, and budgets that fit a stub."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from suites.selftest.runs import (
    ROOT,
)
from suites.selftest.stubbed import Start, stubs


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all inner runs: the miniature is generated once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def deployments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped file with budgets for a stub: it is too fast for ratios to mean anything."""
    text = (ROOT / "suites" / "deployments.toml").read_text()
    lines = []
    for line in text.splitlines():
        name = line.partition(" =")[0]
        if name in ("ttft_p50_ratio", "e2e_p50_ratio"):
            line = f"{name} = {{ 1 = 1000.0, 2 = 1000.0, 4 = 1000.0, 8 = 1000.0 }}"
        if name == "output_tokens_ratio":
            line = f"{name} = {{ 1 = 1e-6, 2 = 1e-6, 4 = 1e-6, 8 = 1e-6 }}"
        quick = {
            "requests": "6",
            "output_tokens": "6",
            "stop_s": "3",
            "closed": "{ 1 = 2, 4 = 8 }",
            "poisson_requests": "6",
            "image_requests": "6",
            # These tests run beside others, and look at nothing again.
            "foreign_cores": "1000.0\nquota_share = 1e9\nswap_bytes_per_s = 1e18",
            "steal_share": "1e9",
            "again_s": "0",
        }
        lines.append(f"{name} = {quick[name]}" if name in quick else line)
    file = tmp_path_factory.mktemp("budgets") / "deployments.toml"
    file.write_text("\n".join(lines))
    return file


# A stall of the machine is no slow example, and what one run finds the next must find, too.
settings.register_profile("house", deadline=None, derandomize=True)
settings.load_profile("house")


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Stubs by their properties, each started once in a module."""
    with stubs(lambda: tmp_path_factory.mktemp("model")) as started:
        yield started


@pytest.fixture(autouse=True, scope="session")
def interruptible() -> None:
    """Children can be interrupted: what a shell starts in the background ignores SIGINT for all,
    what `nohup` starts SIGHUP."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        # A handler is not handed down, as being ignored is: this process stays deaf to it.
        signal.signal(signal.SIGHUP, lambda *_: None)
