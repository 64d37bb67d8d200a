import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fixtures.errors import InputError, ServingError
from fixtures.serving import server as server_module
from fixtures.serving import watchdog
from fixtures.serving.server import Launch, Refused, Server, launch, server_environment
from suites.selftest.stubbed import (
    COMMAND,
    DEADLINES,
    files_made,
    listens,
    stub_launch,
    stub_processes,
    temporary_directory,
    write_model,
)

SOON_S = 30.0  # on a machine that is busy with other things; nearly always a moment
ROOT = Path(__file__).parents[2]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model", width=1024)


def start(wanted: Launch) -> Server:
    """The server, ended again, for tests of what remains of it."""
    with launch(wanted) as outcome:
        assert isinstance(outcome, Server), outcome
        return outcome


def refuse(wanted: Launch) -> Refused:
    with launch(wanted) as outcome:
        assert isinstance(outcome, Refused), outcome
        return outcome


def wait_until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + SOON_S
    while not holds():
        assert time.monotonic() < deadline, f"{what}: not so within {SOON_S:g} s"
        time.sleep(0.02)


def wait_for_files(log: Path, count: int) -> list[Path]:
    wait_until(lambda: len(files_made(log)) == count, f"the stub has made {count} files")
    return files_made(log)


# ------------------------------------------------------------------ running


def test_a_server_that_answers_is_yielded_and_gone_afterwards(model: Path) -> None:
    wanted = stub_launch(model, tp=2, name="padded-tp2")
    with launch(wanted) as outcome:
        assert isinstance(outcome, Server)
        assert outcome.alive()
        assert outcome.model.startswith("padded-tp2-")
        assert outcome.argv[: len(COMMAND)] == COMMAND
        assert "--pipeline-parallel-size" not in outcome.argv
        assert 0 < outcome.ready_after_s < SOON_S
        assert listens(outcome.url)
    assert not outcome.alive()
    assert not listens(outcome.url)
    assert stub_processes(wanted.log) == []


def test_two_launches_of_one_cell_never_share_a_name(model: Path) -> None:
    assert start(stub_launch(model)).model != start(stub_launch(model)).model


@pytest.mark.parametrize(
    ("behaviour", "stage", "reason"),
    [
        ("refuse-config", "config", "ValidationError: the stub was told to refuse its config."),
        ("refuse-load", "load", "ValueError: the stub was told to refuse to load"),
        ("exit-at-warmup", "warmup", "ValueError: the stub was told to exit here"),
        (
            "die-at-first-request",
            "first_request",
            "cpu_wna16.cpp:296 Check failed: stub == honest (0 vs. 1).",
        ),
        ("nan", "first_request", "the log-probability of its first token is null"),
    ],
)
def test_a_server_that_gives_up_is_a_value_with_stage_and_root_cause(
    model: Path, behaviour: str, stage: str, reason: str
) -> None:
    wanted = stub_launch(model, behaviour)
    refused = refuse(wanted)
    assert (refused.stage, refused.log) == (stage, wanted.log)
    assert refused.reason.startswith(reason)
    assert refused.log_tail
    assert stub_processes(wanted.log) == []


@pytest.mark.parametrize(
    ("width", "tp", "stage", "reason"),
    [
        (896, 2, "first_request", "Check failed: group_size % 2 == 0 (1 vs. 0)."),
        (896, 8, "load", "Input size (112) not supported by CPUWNA16"),
        (768, 8, "first_request", "died unexpectedly (exit code: -8): ended by SIGFPE"),
    ],
)
def test_the_stub_fails_where_the_engine_was_seen_to_fail(
    tmp_path: Path, width: int, tp: int, stage: str, reason: str
) -> None:
    refused = refuse(stub_launch(write_model(tmp_path / "model", width=width), tp=tp))
    assert refused.stage == stage
    assert reason in refused.reason


def test_a_silent_log_ends_the_wait(model: Path) -> None:
    impatient = replace(DEADLINES, silence_s=0.5)
    refused = refuse(stub_launch(model, "hang-at-start", deadlines=impatient))
    assert refused.reason.startswith("its log has been silent for 0.5 s; its last line was: ")
    assert refused.after_s < SOON_S


def test_a_start_that_takes_too_long_is_ended(model: Path) -> None:
    impatient = replace(DEADLINES, start_s=0.4)
    refused = refuse(stub_launch(model, "hang-at-start", deadlines=impatient))
    assert refused.reason.startswith("not ready after 0.4 s")


def test_a_first_request_without_answer_is_a_refusal(model: Path) -> None:
    impatient = replace(DEADLINES, canary_s=0.4)
    slow = ("--stub-first-token-s=60",)
    refused = refuse(stub_launch(model, options=slow, deadlines=impatient))
    assert refused.stage == "first_request"
    assert refused.reason == "its first request got no answer within 0.4 s"


def test_a_server_that_dies_later_is_no_longer_alive(model: Path) -> None:
    with launch(stub_launch(model)) as outcome:
        assert isinstance(outcome, Server)
        os.kill(outcome.pid, signal.SIGKILL)
        wait_until(lambda: not outcome.alive(), "a killed server is dead")


def test_a_directory_without_config_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no config\.json"), launch(stub_launch(tmp_path)):
        pass


# ------------------------------------------------------------------ outside the checkpoint


def test_a_taken_port_is_tried_again_once(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as squatter:
        squatter.bind((server_module.HOST, 0))
        ports = [squatter.getsockname()[1], server_module._free_port()]
        monkeypatch.setattr(server_module, "_free_port", lambda: ports.pop(0))
        assert start(stub_launch(model)).ready_after_s > 0
    assert ports == []


def test_another_servers_answer_is_never_taken_for_ours(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "NAME_S", 0.2)
    wanted = stub_launch(model, "wrong-name")
    with (
        pytest.raises(ServingError, match=r"twice.*'another-model'.*nothing about"),
        launch(wanted),
    ):
        pass
    assert stub_processes(wanted.log) == []


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (("/no/such/engine",), "cannot start /no/such/engine"),
        ((sys.executable, "-m", "vllm_is_not_here"), "No module named"),
        ((*COMMAND, "--stub-behaviour=*=fly"), "unknown behaviour 'fly'"),
    ],
)
def test_an_engine_that_cannot_be_run_is_no_refusal(
    model: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], reason: str
) -> None:
    monkeypatch.setattr(server_module, "NO_ENGINE", re.compile("No module named vllm_is_not_here"))
    wanted = Launch(model=model, tp=1, name="cell", log=model.parent / "log", command=command)
    with pytest.raises(ServingError, match=f"whatever the checkpoint: .*{reason}"), launch(wanted):
        pass


# ------------------------------------------------------------------ nothing left behind


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_exception_in_the_body_ends_the_server(model: Path, error: type[BaseException]) -> None:
    wanted = stub_launch(model)
    with pytest.raises(error), launch(wanted):
        raise error
    assert stub_processes(wanted.log) == []


def test_deaf_workers_in_sessions_of_their_own_are_killed_and_their_memory_removed(
    model: Path,
) -> None:
    wanted = stub_launch(model, "ignore-term", tp=2)
    with launch(wanted):
        ours = wait_for_files(wanted.log, 4)  # a segment and a semaphore each
        assert all(segment.exists() for segment in ours)
        assert len(stub_processes(wanted.log)) == 3
    assert stub_processes(wanted.log) == []
    assert not any(segment.exists() for segment in ours)


@pytest.fixture
def foreign_segment() -> Iterator[Path]:
    path = Path(watchdog.SHARED_MEMORY) / f"psm_foreign_{os.getpid()}"
    yield path
    path.unlink(missing_ok=True)


def test_shared_memory_of_others_is_left_alone(model: Path, foreign_segment: Path) -> None:
    with launch(stub_launch(model, "ignore-term")):
        foreign_segment.write_bytes(b"made meanwhile, by somebody else")
    assert foreign_segment.exists()


def test_shared_memory_that_others_have_joined_is_left_to_them(model: Path) -> None:
    wanted = stub_launch(model, "ignore-term")
    with launch(wanted):
        segment, semaphore = wait_for_files(wanted.log, 2)
        joined = segment.open("rb")
    with joined:
        assert (segment.exists(), semaphore.exists()) == (True, False)
    segment.unlink()


def hurried(folder: Path) -> Path:
    """A watchdog whose haste takes no seconds of a test."""
    text = Path(watchdog.__file__).read_text()
    copy = folder / "watchdog.py"
    copy.write_text(text.replace(f"\nHASTE_S = {watchdog.HASTE_S}", "\nHASTE_S = 0.3"))
    assert copy.read_text() != text
    return copy


def test_a_server_that_serves_nobody_is_ended_in_haste_and_its_trackers_do_their_work(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "__file__", str(hurried(tmp_path)))
    patient = replace(DEADLINES, silence_s=1.0, stop_s=120.0)
    wanted = stub_launch(model, "deaf-at-start", deadlines=patient)
    began = time.monotonic()
    assert refuse(wanted).reason.startswith("its log has been silent")
    assert time.monotonic() - began < SOON_S
    assert stub_processes(wanted.log) == []
    assert [file.name[:3] for file in files_made(wanted.log)] == ["sem", "psm"]
    assert not any(file.exists() for file in files_made(wanted.log))


def test_a_server_that_serves_gets_the_time_that_the_deployment_gives_it(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "__file__", str(hurried(tmp_path)))
    patient = replace(DEADLINES, stop_s=1.0)
    with launch(stub_launch(model, "ignore-term", deadlines=patient)):
        began = time.monotonic()
    assert time.monotonic() - began > patient.stop_s


def test_temporary_files_of_the_server_go_with_it(model: Path) -> None:
    with launch(stub_launch(model)) as outcome:
        assert isinstance(outcome, Server)
        temporary = temporary_directory(outcome)
        (temporary / "rendezvous").touch()
    assert not temporary.exists()


PARENT = """
import json, sys, time
from dataclasses import replace
from pathlib import Path
from fixtures.serving import watchdog
from fixtures.serving.server import launch
from suites.selftest.stubbed import DEADLINES, stub_launch
watchdog.__file__ = sys.argv[3]
patient = replace(DEADLINES, stop_s=120.0)
with launch(stub_launch(Path(sys.argv[1]), sys.argv[2], tp=2, deadlines=patient)) as server:
    print(json.dumps(server.url), flush=True)
    time.sleep(600)
"""


def parent_of(model: Path, behaviour: str) -> list[str]:
    """A process that launches a stub with a long grace, to be killed like a pytest."""
    return [sys.executable, "-c", PARENT, str(model), behaviour, str(hurried(model.parent))]


def test_a_killed_pytest_leaves_no_process_no_port_and_no_shared_memory(model: Path) -> None:
    log = model.parent / "cell.log"
    command = parent_of(model, "ignore-term")
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as parent:
        assert parent.stdout is not None
        url = json.loads(parent.stdout.readline())
        ours = wait_for_files(log, 4)
        assert listens(url)
        parent.kill()
    wait_until(lambda: stub_processes(log) == [], "no process of the server lives")
    wait_until(lambda: not any(s.exists() for s in ours), "no shared memory of it is left")
    assert not listens(url)


def test_a_pytest_killed_while_its_server_starts_leaves_no_process_and_no_semaphore(
    model: Path,
) -> None:
    log = model.parent / "cell.log"
    with subprocess.Popen(parent_of(model, "deaf-at-start"), cwd=ROOT) as parent:
        wait_until(log.exists, "the log is there")
        ours = wait_for_files(log, 2)
        parent.kill()
    wait_until(lambda: stub_processes(log) == [], "no process of the server lives")
    wait_until(lambda: not any(f.exists() for f in ours), "no shared memory of it is left")


def test_a_killed_watchdog_takes_its_server_along_and_is_reported(model: Path) -> None:
    wanted = stub_launch(model, "ignore-term")
    context = launch(wanted)
    outcome = context.__enter__()
    assert isinstance(outcome, Server)
    ours = wait_for_files(wanted.log, 2)
    temporary = temporary_directory(outcome)
    stat = Path(f"/proc/{outcome.pid}/stat").read_text()
    os.kill(int(stat.rpartition(")")[2].split()[1]), signal.SIGKILL)
    wait_until(lambda: not outcome.alive(), "the server dies with its watchdog")
    with pytest.raises(ServingError, match="somebody killed it"):
        context.__exit__(None, None, None)
    assert stub_processes(wanted.log) == []
    # What only the watchdog could have removed, and the error says may remain:
    for file in ours:
        file.unlink()
    temporary.rmdir()


# ------------------------------------------------------------------ the environment


def test_secrets_of_the_caller_do_not_reach_the_server() -> None:
    caller = {
        "PATH": "/bin",
        "CUDA_VISIBLE_DEVICES": "0,1",
        "VLLM_USE_V1": "1",
        "HF_HOME": "/cache",
        "LC_ALL": "C",
        "HF_TOKEN": "hf_secret",
        "HF_HUB_TOKEN": "hf_secret",
        "VLLM_API_KEY": "secret",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "PYTHONPATH": "/callers",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "XPATH": "/bin",
    }
    kept = server_environment(caller, {}).keys() & caller.keys()
    assert kept == {
        *("PATH", "CUDA_VISIBLE_DEVICES", "VLLM_USE_V1", "HF_HOME", "LC_ALL", "PYTHONPATH")
    }
    assert server_environment(caller, {})["PYTHONPATH"] == str(server_module.INSIDE)


@pytest.mark.parametrize(
    ("callers", "servers"),
    [
        ({}, None),
        ({"VLLM_PLUGINS": ""}, "shardproof_audit"),
        ({"VLLM_PLUGINS": "lora_resolver"}, "lora_resolver,shardproof_audit"),
        ({"VLLM_PLUGINS": "shardproof_audit,other"}, "shardproof_audit,other"),
    ],
)
def test_a_callers_choice_of_plugins_does_not_keep_the_audit_out(
    callers: dict[str, str], servers: str | None
) -> None:
    assert server_environment(callers, {}).get("VLLM_PLUGINS") == servers
    assert server_environment({}, callers).get("VLLM_PLUGINS") == servers
    (declared,) = server_module.INSIDE.glob("*.dist-info/entry_points.txt")
    assert f"{server_module.AUDIT_PLUGIN} = " in declared.read_text()


def test_what_the_launch_sets_is_set_and_its_pythonpath_comes_after_ours() -> None:
    added = {"OMP_NUM_THREADS": "1", "PYTHONPATH": "/plugins"}
    environment = server_environment({"OMP_NUM_THREADS": "64"}, added)
    assert environment["OMP_NUM_THREADS"] == "1"
    assert environment["PYTHONPATH"] == f"{server_module.INSIDE}{os.pathsep}/plugins"
