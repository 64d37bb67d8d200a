"""The load instrument without vLLM: what becomes of a block, whatever its process does."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from fixtures.errors import ServingError
from fixtures.load.bench import Bench, arguments, lines
from fixtures.load.instrument import Arrivals
from fixtures.load.prompts import Prompt
from fixtures.load.streams import Load
from fixtures.serving.server import INSIDE, Server
from suites.selftest.stand_in_bench import SENT_S

STAND_IN = Path(__file__).parent / "stand_in_bench.py"
ROOT = Path(__file__).parents[2]
LONG_S = 30.0  # a busy machine stays far below
THREE = [Prompt(f"prompt {index}") for index in range(3)]
Make = Callable[..., Bench]


def a_server(*argv: str) -> Server:
    return Server(
        url="http://127.0.0.1:1",
        model="cell-1234",
        log=Path(os.devnull),
        ready_after_s=0.0,
        pid=os.getpid(),
        argv=argv or ("vllm", "--model", "/models/miniature"),
        started_ticks=0,
        ranks=1,
    )


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    with ExitStack() as stack:

        def made(behaviours: str, *, start_s: float = LONG_S, grace_s: float = LONG_S) -> Bench:
            command = (sys.executable, str(STAND_IN), str(tmp_path), behaviours)
            bench = Bench(
                *(tmp_path / "bench.log", tmp_path / "blocks"),
                command=command,
                start_s=start_s,
                grace_s=grace_s,
            )
            return stack.enter_context(bench)

        yield made


def run(bench: Bench, label: str | None = None, **given: object) -> Load:
    progress = given.get("progress")
    assert progress is None or callable(progress)
    return bench.run(
        a_server(),
        THREE,
        arrivals=Arrivals(clients=2),
        output_tokens=2,
        deadline_s=0.1,
        progress=progress,
        label=label,
    )


def pids(folder: Path) -> list[int]:
    file = folder / "pids"
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def gone(pid: int) -> bool:
    """Within a while: a process that nobody waits for is no process."""
    until_s = time.monotonic() + LONG_S
    while time.monotonic() < until_s:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


# ------------------------------------------------------------------ a block that goes well


def test_an_honest_block_is_told_with_its_figures(make: Make) -> None:
    told: list[tuple[int, int]] = []
    bench = make("honest")
    load = run(bench, progress=lambda done, total: told.append((done, total)))
    assert [(s.sent_s, s.ended_s, s.error) for s in load.streams] == [
        (SENT_S + index / 2, SENT_S + index / 2 + 0.5, None) for index in range(3)
    ]
    assert load.wall_s == 1.5
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert bench.last is not None
    assert (bench.last.load, bench.last.printed) == (load, "a table")
    assert bench.last.figures == {"median_ttft_ms": 250.0}


def test_one_process_serves_all_blocks(make: Make, tmp_path: Path) -> None:
    bench = make("honest")
    assert not pids(tmp_path)  # nothing starts before it is needed
    for _ in range(3):
        assert not run(bench).failures
    assert len(pids(tmp_path)) == 1


def test_vllms_result_is_kept_with_a_label_only_and_prompts_never(
    make: Make, tmp_path: Path
) -> None:
    bench = make("honest,honest,dies")
    for label in (None, "closed2", "lost"):
        run(bench, label)
    kept = list((tmp_path / "blocks").iterdir())
    assert [path.name for path in kept] == ["cell-1234-closed2.bench.json"]
    assert json.loads(kept[0].read_text())["median_ttft_ms"] == 250.0
    asked = [json.loads(line) for line in (tmp_path / "asked").read_text().splitlines()]
    assert [one["prompts"] for one in asked] == [[{"prompt": p.text} for p in THREE]] * 3


def test_no_prompts_are_no_block(make: Make, tmp_path: Path) -> None:
    bench = make("honest")
    none = bench.run(a_server(), [], arrivals=Arrivals(clients=1), output_tokens=2, deadline_s=1.0)
    assert none == Load((), 0.0)
    assert not pids(tmp_path)


# ------------------------------------------------------------------ a block that is lost

SAID = {
    "dies-at-start": "ended with status 1, saying 'ImportError: no engine'",
    "greets-wrongly": "answered what is no answer of its protocol: \"{'hello': True}\"",
    "dies": "ended with status 3, saying 'RuntimeError: half-way'",
    "is-killed": "was killed by SIGKILL",
    "says-no-json": "answered what is no answer of its protocol",
    "says-a-number": "answered what is no answer of its protocol: '17'",
    "gives-no-result": "gave a result that cannot be read: KeyError: 'result'",
    "counts-wrongly": "gave a result that cannot be read: 4 requests, of 3 asked for",
    "fails": "failed: ValueError: of two lines",
}


def missed_with(load: Load, said: str, log: Path) -> None:
    """Every request is a miss, by the fault of the instrument, and one line says of what."""
    assert [stream.kind for stream in load.streams] == ["crashed"] * 3
    (error,) = {stream.error for stream in load.streams}
    assert error is not None
    assert error.startswith(f"vLLM's benchmark {said}")
    assert error.endswith(f". Log: {log}")
    assert "\n" not in error
    assert load.output_tokens_per_s is None


@pytest.mark.parametrize("behaviour", SAID)
def test_a_lost_block_is_all_misses_and_the_next_one_has_another_process(
    make: Make, tmp_path: Path, behaviour: str
) -> None:
    bench = make(f"honest,{behaviour},honest")
    if "start" in behaviour or "greets" in behaviour:
        bench = make(f"{behaviour},honest")
    else:
        assert not run(bench).failures
    missed_with(run(bench), SAID[behaviour], tmp_path / "bench.log")
    assert bench.last is None
    assert all(map(gone, pids(tmp_path)))
    assert not run(bench).failures
    assert bench.last is not None
    assert len(pids(tmp_path)) == 2


def test_a_process_that_says_nothing_after_its_deadline_is_given_up(
    make: Make, tmp_path: Path
) -> None:
    bench = make("hangs,honest", grace_s=2.0)
    began_s = time.monotonic()
    load = run(bench)
    missed_with(load, "says nothing 2 s after the deadline", tmp_path / "bench.log")
    assert 0.4 <= load.wall_s <= time.monotonic() - began_s < LONG_S
    assert gone(pids(tmp_path)[0])
    assert not run(bench).failures


def test_a_process_that_stops_inside_a_message_is_given_up(make: Make, tmp_path: Path) -> None:
    bench = make("stops-inside-a-message,honest", grace_s=3.0)
    missed_with(run(bench), "stops for 3 s inside a message", tmp_path / "bench.log")
    assert gone(pids(tmp_path)[0])
    assert not run(bench).failures


def test_a_process_that_is_never_ready_is_given_up(make: Make, tmp_path: Path) -> None:
    bench = make("never-ready,honest", start_s=2.0)
    missed_with(run(bench), "is not ready after 2 s", tmp_path / "bench.log")
    assert all(map(gone, pids(tmp_path)))


def test_a_process_killed_between_blocks_is_replaced(make: Make, tmp_path: Path) -> None:
    bench = make("honest")
    run(bench)
    (pid,) = pids(tmp_path)
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # with all its threads; not taken from Popen
    assert not run(bench).failures
    assert len(pids(tmp_path)) == 2


def test_what_an_earlier_process_said_is_no_reason_for_a_later_one(
    make: Make, tmp_path: Path
) -> None:
    bench = make("dies,is-killed")
    run(bench)
    (error,) = {stream.error for stream in run(bench).streams}
    assert error == f"vLLM's benchmark was killed by SIGKILL. Log: {tmp_path / 'bench.log'}"


# ------------------------------------------------------------------ nothing is left behind


def test_nothing_outlives_the_instrument(make: Make, tmp_path: Path) -> None:
    bench = make("honest")
    run(bench)
    bench.close()
    bench.close()
    assert gone(pids(tmp_path)[0])


def test_what_the_process_has_started_ends_with_it(make: Make, tmp_path: Path) -> None:
    assert run(make("has-a-child", grace_s=3.0)).failures
    own, child = pids(tmp_path)
    assert gone(own)
    assert gone(child)


def test_an_interruption_ends_the_process_whose_answer_was_awaited(
    make: Make, tmp_path: Path
) -> None:
    def interrupt(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    bench = make("honest")
    with pytest.raises(KeyboardInterrupt):
        run(bench, "stopped", progress=interrupt)
    assert gone(pids(tmp_path)[0])
    assert list((tmp_path / "blocks").iterdir()) == []
    assert not run(bench).failures  # by a process of its own, not with the other's answer
    assert len(pids(tmp_path)) == 2


PARENT = """
import os, sys
from suites.selftest.test_bench import Bench, Path, run
folder = Path(sys.argv[1])
command = (sys.executable, sys.argv[2], str(folder), sys.argv[3])
bench = Bench(folder / "bench.log", folder / "blocks", command=command)
run(bench, progress=lambda done, total: print("under way", flush=True))
print("done", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("behaviour", ["honest", "hangs"])
def test_the_process_ends_with_a_parent_that_is_killed(tmp_path: Path, behaviour: str) -> None:
    command = [sys.executable, "-c", PARENT, str(tmp_path), str(STAND_IN), behaviour]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        awaited = "done" if behaviour == "honest" else "under way"
        assert any(line.strip() == awaited for line in parent.stdout)
        (child,) = pids(tmp_path)
        assert psutil.pid_exists(child)
        parent.kill()
        assert gone(child)


# ------------------------------------------------------------------ what vLLM is asked


def of(argv: list[str], option: str) -> str:
    return argv[argv.index(option) + 1]


def test_a_closed_loop_is_asked_for_in_vllms_words() -> None:
    argv = arguments(a_server(), Path("asked.jsonl"), THREE, Arrivals(clients=8, seed=3), 32)
    wanted = {
        "--base-url": "http://127.0.0.1:1",
        "--model": "cell-1234",
        "--tokenizer": "/models/miniature",
        "--endpoint": "/v1/completions",
        "--num-prompts": "3",
        "--custom-output-len": "32",
        "--max-concurrency": "8",
        "--seed": "3",
        "--temperature": "0",
        "--num-warmups": "0",
        "--ready-check-timeout-sec": "0",
    }
    assert {option: of(argv, option) for option in wanted} == wanted
    assert {"--ignore-eos", "--disable-shuffle", "--no-oversample"} <= set(argv)
    assert "--request-rate" not in argv


def test_arrivals_at_random_have_a_rate_and_no_bound_of_clients() -> None:
    argv = arguments(a_server(), Path("asked.jsonl"), THREE, Arrivals(per_s=2.5), 32)
    assert (of(argv, "--request-rate"), of(argv, "--burstiness")) == ("2.5", "1")
    assert "--max-concurrency" not in argv


def test_one_picture_makes_chats_of_a_block() -> None:
    prompts = [Prompt("What is this?", b"png"), Prompt("And without?")]
    argv = arguments(a_server(), Path("asked.jsonl"), prompts, Arrivals(clients=1), 8)
    assert of(argv, "--endpoint") == "/v1/chat/completions"
    assert of(argv, "--dataset-name") == "custom_image"
    contents = [json.loads(line)["content"] for line in lines(prompts).splitlines()]
    assert [[part["type"] for part in content] for content in contents] == [
        ["image_url", "text"],
        ["text"],
    ]


def test_a_server_without_a_model_directory_has_no_tokenizer(make: Make) -> None:
    with pytest.raises(ServingError, match=re.escape("without --model")):
        make("honest").run(
            a_server("vllm"), THREE, arrivals=Arrivals(clients=1), output_tokens=2, deadline_s=1.0
        )


def test_the_tokenizer_is_read_as_the_server_reads_it() -> None:
    server = a_server("vllm", "--model", "/m", "--tokenizer", "/t", "--trust-remote-code")
    argv = arguments(server, Path("asked.jsonl"), THREE, Arrivals(clients=1), 2)
    assert of(argv, "--tokenizer") == "/t"
    assert "--trust-remote-code" in argv


def test_no_proxy_and_no_key_reaches_the_benchmark(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, "http://elsewhere")
    run(make("honest"))
    environment = Path(f"/proc/{pids(tmp_path)[0]}/environ").read_text()
    assert "elsewhere" not in environment
    assert "HF_HUB_OFFLINE=1" in environment


# ------------------------------------------------------------------ the program itself

NAMES = """
import argparse, os, subprocess, time
ASYNC_REQUEST_FUNCS = {}
get_request = fetch_spec_decode_metrics = fetch_diffusion_metrics = get_tokenizer = print
class aiohttp: TCPConnector = ClientSession = dict
def add_cli_args(parser): parser.add_argument("--model")
class FlexibleArgumentParser(argparse.ArgumentParser):
    def parse_args(self, argv): return self.parse_known_args(argv)[0]
def main(arguments):
    os.write(2, f"{os.getpid()} {subprocess.Popen(['sleep', '600']).pid} under way\\n".encode())
    time.sleep(600)
"""


@pytest.mark.parametrize("busy", ["in a block", "importing"])
def test_the_program_ends_with_a_parent_that_is_killed_and_what_it_has_started_too(
    tmp_path: Path, busy: str
) -> None:
    for package in ("vllm", "vllm/benchmarks", "vllm/utils"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
    at_import = "main(None)" if busy == "importing" else ""
    (tmp_path / "vllm/benchmarks/serve.py").write_text(NAMES + at_import)
    (tmp_path / "vllm/utils/argparse_utils.py").write_text(NAMES)
    command = ("env", f"PYTHONPATH={tmp_path}", sys.executable, str(INSIDE / "bench_blocks.py"))
    log = tmp_path / "bench.log"
    code = (
        "from suites.selftest.test_bench import Bench, Path, run\n"
        f"run(Bench(Path({str(log)!r}), Path({str(tmp_path)!r}), command={command!r}))"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT) as parent:
        until_s = time.monotonic() + LONG_S
        while "under way" not in (said := log.read_text() if log.exists() else ""):
            assert time.monotonic() < until_s, said
            time.sleep(0.02)
        parent.kill()
        assert all(gone(int(pid)) for pid in said.split()[:2])
