"""Whose doing it is that a server gave no scores: by what real servers and their logs say."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from fixtures.errors import ServingError
from fixtures.matrix import Cell
from fixtures.running import Running
from fixtures.serving.server import Refused, Server
from suites import blame
from suites.baseline import ScoringError
from suites.blame import blamed

TRACEBACK = """(EngineCore pid=7) ERROR 11-22 21:35:05 [core.py:1512] Traceback (most recent call last):
(EngineCore pid=7) ERROR 11-22 21:35:05 [core.py:1512]   File "x.py", line 1, in run_busy_loop
(EngineCore pid=7) ERROR 11-22 21:35:05 [core.py:1512] {said}
"""  # noqa: E501
UNKNOWN = ServingError("whatever")


def refused(reason: str) -> Running:
    outcome = Refused(stage="load", reason=reason, log_tail="", log=Path("log"), after_s=1.0)
    nowhere = Path("nowhere")
    return Running(cast("Cell", None), outcome, model=nowhere, audits=nowhere, log=nowhere)


def served(tmp_path: Path, *said: str, alive: bool = False) -> Running:
    log = tmp_path / "log"
    log.write_text("".join(TRACEBACK.format(said=one) for one in said))
    own = Path("/proc/self").resolve().name if alive else "0"
    stat = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    server = Server(
        url="", model="", log=log, ready_after_s=1.0, pid=int(own), argv=(),
        started_ticks=int(stat[19]), ranks=1,
    )  # fmt: skip
    return Running(cast("Cell", None), server, model=tmp_path, audits=tmp_path, log=log)


@pytest.mark.parametrize(
    "reason",
    [
        "ValueError: the shapes do not fit",
        "cpu_wna16.cpp:296 Check failed: n % 32 == 0",
        "the log-probability of its first token is null, which is how JSON says NaN",
        "its first request was answered with HTTP 400: Out of range float values are not JSON",
        "Worker proc VllmWorker-0 died unexpectedly (exit code: -8): ended by SIGFPE",
    ],
)
def test_an_engine_that_refuses_the_copy_in_its_own_words_counts(reason: str) -> None:
    assert blamed(refused(reason), UNKNOWN) == f"the engine, at load: {reason}"


@pytest.mark.parametrize(
    "reason",
    [
        "not ready after 600 s; its last line was: Loading weights",
        "its log has been silent for 300 s; ValueError: something",
        "its first request got no answer within 120 s",
        "its first request failed with ConnectionResetError: [Errno 104]",
        "its first request was answered with HTTP 500: Internal Server Error",
        "its first answer holds no log-probability: {}",
        "exited with status 1",
        "ended by SIGKILL (usually the host ran out of memory)",
        "its watchdog has gone",
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB",
        "ValueError: Free memory on device cuda:0 (3/80 GiB) on startup is less than desired",
        "OSError: [Errno 28] No space left on device",
        "RuntimeError: NCCL error: unhandled system error",
    ],
)
def test_what_any_checkpoint_would_have_met_does_not(reason: str) -> None:
    assert blamed(refused(reason), UNKNOWN) is None


def test_a_server_that_was_never_started_says_nothing() -> None:
    assert blamed(None, ServingError("GPU memory is still held")) is None


@pytest.mark.parametrize(
    "said",
    [
        "text-3: position 4: the log-probability of token 7 is null, which is how JSON says NaN",
        "text-3: position 4: the log-probability of token 7 is -inf, not a number",
        "text-3: its log-probabilities hold a NaN or an infinity (HTTP 400: ...)",
    ],
)
def test_numbers_that_are_none_count(tmp_path: Path, said: str) -> None:
    assert blamed(served(tmp_path), ScoringError(said)) == said


@pytest.mark.parametrize(
    "error",
    [
        ServingError("cell calls a request of ours wrong (HTTP 400): too long"),
        ScoringError("text-3: no answer within 300 s"),
        ScoringError("text-3: the connection failed: ConnectError"),
        ScoringError("text-3: position 4: the rank of token 7 is None, not a number"),
        ScoringError("text-3: the answer holds no log-probabilities of its prompt"),
    ],
)
def test_a_server_that_lives_is_not_to_blame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(blame, "DYING_S", 0.01)
    assert blamed(served(tmp_path, "ValueError: an old quarrel", alive=True), error) is None


def test_a_death_counts_where_the_log_says_what_of(tmp_path: Path) -> None:
    lost = ScoringError("text-3: the connection failed: ReadError")
    assert blamed(served(tmp_path, "IndexError: out of range"), lost) == (
        "the engine, which died: IndexError: out of range"
    )
    assert blamed(served(tmp_path), lost) is None
    assert blamed(served(tmp_path, "torch.OutOfMemoryError: CUDA out of memory"), lost) is None
