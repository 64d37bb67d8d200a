"""Launches of the stub, and the small checkpoints that it is asked to serve."""

import base64
import json
import os
import re
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from fixtures.serving import probe
from fixtures.serving import server as server_module
from fixtures.serving.server import Deadlines, Launch, Server, launch
from fixtures.serving.watched import Watched

STUB = Path(__file__).parent / "stub_server.py"
COMMAND = (sys.executable, str(STUB))
# Ample, for machines that are busy: only tests of a deadline wait for one.
DEADLINES = Deadlines(start_s=60.0, silence_s=60.0, canary_s=30.0, stop_s=0.5)
TEXT = "The quick brown fox jumps over the lazy dog; then it does so again."

Start = Callable[..., Server]


def image(seed: int) -> list[dict[str, object]]:
    """A chat about a picture, another for each seed."""
    uri = f"data:image/png;base64,{base64.b64encode(bytes([seed])).decode()}"
    picture = {"type": "image_url", "image_url": {"url": uri}}
    return [{"role": "user", "content": [picture, {"type": "text", "text": "What is this?"}]}]


def write_model(directory: Path, *, width: int, heads: int = 16, kind: str | None = None) -> Path:
    """A config alone: the stub needs no weights to know what the engine would say."""
    directory.mkdir(parents=True, exist_ok=True)
    config = {
        "hidden_size": 1024,
        "intermediate_size": width,
        "num_attention_heads": heads,
        "num_key_value_heads": 8,
        "vocab_size": 512,
        "quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 128},
    }
    (directory / "config.json").write_text(json.dumps(config))
    if kind is not None:
        (directory / "variant.json").write_text(json.dumps({"schema": 1, "kind": kind}))
    return directory


def stub_launch(
    model: Path,
    *behaviours: str,
    tp: int = 1,
    name: str = "cell",
    options: tuple[str, ...] = (),
    deadlines: Deadlines = DEADLINES,
    environment: Mapping[str, str] | None = None,
) -> Launch:
    return Launch(
        model=model,
        tp=tp,
        name=name,
        log=model.parent / f"{name}.log",
        command=COMMAND,
        arguments=(*(f"--stub-behaviour=*={behaviour}" for behaviour in behaviours), *options),
        environment=environment or {},
        deadlines=deadlines,
    )


def files_made(log: Path) -> list[Path]:
    """What a stub has made under /dev/shm, by its own account."""
    return [Path(name) for name in re.findall(r"stub made (\S+)", log.read_text())]


def temporary_directory(server: Server) -> Path:
    environment = Path(f"/proc/{server.pid}/environ").read_text().split("\0")
    return next(Path(entry[7:]) for entry in environment if entry.startswith("TMPDIR="))


def stub_processes(log: Path) -> list[int]:
    """By the log they write, which is theirs alone: nothing is assumed of how they are related."""
    found = []
    for link in Path("/proc").glob("[0-9]*/fd/1"):
        try:
            if link.readlink() == log:
                found.append(int(link.parts[2]))
        except OSError:
            continue
    return found


def listens(url: str) -> bool:
    host, port = url.removeprefix("http://").split(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


@contextmanager
def unproven_stub(wanted: Launch) -> Iterator[Server]:
    """A stub that serves although its first answer would have had it refused."""
    port = server_module._free_port()
    name = f"{wanted.name}-unproven"
    argv = (
        *wanted.command,
        *("--port", str(port), "--served-model-name", name, "--model", str(wanted.model)),
        *wanted.arguments,
    )
    watched = Watched(argv, environment=os.environ, log=wanted.log, stop_s=0.5)
    try:
        deadline = time.monotonic() + wanted.deadlines.start_s
        while not probe.healthy(server_module.HOST, port):
            assert not watched.ended(), wanted.log.read_text()
            assert time.monotonic() < deadline, "the stub has not started"
            time.sleep(0.02)
        assert watched.process is not None
        yield Server(
            url=f"http://{server_module.HOST}:{port}",
            model=name,
            log=wanted.log,
            ready_after_s=0.0,
            pid=watched.process.pid,
            argv=argv,
            started_ticks=watched.process.started_ticks,
            ranks=wanted.tp * wanted.pp,
        )
    finally:
        watched.stop()


@contextmanager
def stubs(directory: Callable[[], Path]) -> Iterator[Start]:
    """Stubs by their properties, each started once; `directory` makes a new one."""
    servers: dict[object, Server] = {}
    with ExitStack() as stack:

        def started(
            *behaviours: str,
            width: int = 1024,
            tp: int = 1,
            kind: str | None = None,
            options: tuple[str, ...] = (),
        ) -> Server:
            key = (behaviours, width, tp, kind, options)
            if key not in servers:
                model = write_model(directory() / "model", width=width, kind=kind)
                wanted = stub_launch(model, *behaviours, tp=tp, options=options)
                begin = unproven_stub if "nan" in behaviours else launch
                outcome = stack.enter_context(begin(wanted))
                assert isinstance(outcome, Server), outcome
                servers[key] = outcome
            return servers[key]

        yield started
