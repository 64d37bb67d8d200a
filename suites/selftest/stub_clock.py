"""A server with a known clock: it streams as vLLM does, when it is told to, and writes down when.

Load instruments are held against it. Each chunk has a moment fixed in advance on the monotonic
clock (arrival + first-token time + sum of gaps), so that being late once delays nothing after it;
and every request's real send times go to --log, one JSON object a line, as soon as it is over:

    number, id, prompt   which it was of the streamed ones, its X-Request-Id, its prompt's beginning
    arrived_s            when its last byte was read
    due_s, sent_s        of each chunk with content: when it should have left, just before it did
    prompt_tokens, completion_tokens, fault, complete

All on time.monotonic, which processes of one machine share: a client's stamp before `sent_s` is
impossible, and the lateness of the stub itself is sent_s - due_s. Standard library only.

    python suites/selftest/stub_clock.py --port 8000 --served-model-name clock \\
        --first-s 0.05 --gap-s 0.01 --chunk-tokens 1 --log sent.jsonl --fault http500=7
"""

import argparse
import asyncio
import json
import selectors
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Run by its path, from anywhere, like the engine that it stands in for.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from suites.selftest.stub_metrics import Metrics
from suites.selftest.stub_streams import FAULTS, Answer, Settings, Stub, error, response, whole


class Connection(asyncio.Protocol):
    """One client's connection: requests one after the other, answers never interleaved."""

    def __init__(self, stub: Stub) -> None:
        self.stub = stub
        self.received = bytearray()
        self.needed = 0  # bytes of the request, once its headers have told
        self.answer: Answer | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, _: Exception | None) -> None:
        if self.answer is not None:
            self.answer.end(complete=False)

    def data_received(self, data: bytes) -> None:
        arrived_s = time.monotonic()
        self.received += data
        if len(self.received) < self.needed:
            return  # an image is megabytes in many pieces, and other streams are waiting
        head, found, rest = bytes(self.received).partition(b"\r\n\r\n")
        if not found:
            return
        request, *lines = head.decode("latin-1").split("\r\n")
        pairs = (line.partition(":")[::2] for line in lines)
        headers = {name.lower(): value.strip() for name, value in pairs}
        length = int(headers.get("content-length", "0"))
        self.needed = len(head) + 4 + length
        if len(rest) < length:
            return
        self.needed = 0
        self.received = bytearray(rest[length:])
        method, target, _ = request.split(" ")
        self._respond(method, target.partition("?")[0], rest[:length], headers, arrived_s)

    def _respond(
        self, method: str, path: str, body: bytes, headers: dict[str, str], arrived_s: float
    ) -> None:
        model = self.stub.settings.model
        if (method, path) == ("GET", "/metrics"):
            self.plain(self.stub.metrics.text().encode(), kind="text/plain; version=0.0.4")
        elif (method, path) == ("GET", "/v1/models"):
            self.json({"object": "list", "data": [{"id": model, "object": "model"}]})
        elif path in ("/health", "/reset_prefix_cache", "/reset_mm_cache"):
            self.plain(b"")
        elif (method, path) == ("POST", "/tokenize"):
            tokens = list(json.loads(body)["prompt"].encode())
            self.json({"count": len(tokens), "max_model_len": 4096, "tokens": tokens})
        elif path in ("/v1/completions", "/v1/chat/completions"):
            asked = json.loads(body)
            if asked.get("model") != model:
                self.transport.write(
                    error(404, f"The model `{asked.get('model')}` does not exist.")
                )
            elif asked.get("stream"):
                self._stream(asked, headers.get("x-request-id"), arrived_s)
            else:
                self.json(whole(asked, model))
        else:
            self.transport.write(error(404, "Not Found"))

    def _stream(self, asked: dict[str, Any], request_id: str | None, arrived_s: float) -> None:
        def leave() -> None:
            self.answer = None

        self.answer = Answer(
            self.stub, self.transport, asked, request_id, arrived_s=arrived_s, leave=leave
        )
        self.answer.begin()

    def json(self, value: object) -> None:
        self.plain(json.dumps(value).encode(), kind="application/json")

    def plain(self, body: bytes, *, kind: str = "text/plain") -> None:
        self.transport.write(response(body, status=200, kind=kind))


def read_fault(text: str) -> tuple[str, int]:
    kind, _, every = text.partition("=")
    if kind not in FAULTS or not (every or "1").isdigit() or every == "0":
        known = ", ".join(FAULTS)
        said = f"{text!r} is not KIND=K with K from 1 and a KIND of {known}"
        raise argparse.ArgumentTypeError(said)
    return kind, int(every or "1")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("--host", default="127.0.0.1")
    made.add_argument("--port", type=int, default=8000)
    made.add_argument("--served-model-name", required=True)
    made.add_argument("--log", type=Path, help="where each streamed request leaves its line")
    made.add_argument("--first-s", type=float, default=0.05, help="from arrival to first token")
    made.add_argument("--gap-s", type=float, default=0.01, help="of each token after the first")
    made.add_argument("--jitter", type=float, default=0.0, help="sigma of log-normal waits")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--chunk-tokens", type=int, default=1)
    made.add_argument("--no-usage", action="store_true")
    made.add_argument("--slow", type=float, default=1.0, help="factor of every wait: 1.10")
    made.add_argument("--metrics-factor", type=float, default=1.0, help="/metrics lies by this")
    made.add_argument("--die-after", type=int, help="streams: the next one dies half-way, and all")
    kinds = "; ".join(f"{name}: {what}" for name, what in FAULTS.items())
    made.add_argument(
        "--fault",
        action="append",
        type=read_fault,
        default=[],
        metavar="KIND=K",
        help=f"of every K-th streamed request. {kinds}",
    )
    return made


async def serve(stub: Stub, host: str, port: int) -> None:
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(stub), host, port, backlog=1024
    )
    print(f"Starting vLLM server on http://{host}:{server.sockets[0].getsockname()[1]}", flush=True)
    print("INFO:     Application startup complete.", flush=True)
    await server.serve_forever()


def main(argv: Sequence[str] | None = None) -> int:
    options, _ = parser().parse_known_args(argv)  # vLLM's other flags mean nothing to a stub
    settings = Settings(
        model=options.served_model_name,
        first_s=options.first_s * options.slow,
        gap_s=options.gap_s * options.slow,
        jitter=options.jitter,
        seed=options.seed,
        chunk_tokens=options.chunk_tokens,
        usage=not options.no_usage,
        faults=tuple(options.fault),
        die_after=options.die_after,
    )
    metrics = Metrics(settings.model, factor=options.metrics_factor)
    log = options.log.open("a") if options.log else None
    # epoll counts in whole milliseconds; select takes any timeout, for at most 1024 files.
    loop = asyncio.SelectorEventLoop(selectors.SelectSelector())
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(serve(Stub(settings, metrics, log), options.host, options.port))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
