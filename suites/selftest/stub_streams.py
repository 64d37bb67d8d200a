"""One streamed answer in vLLM's format, sent when it is due, and the ways in which it can go wrong.

The clockwork of stub_clock.py: everything below HTTP's request line. Standard library only.
"""

import asyncio
import json
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TextIO

from suites.selftest.stub_metrics import Metrics

FAULTS = {
    "http500": "answers HTTP 500 at once",
    "drop": "closes the connection half-way",
    "stall": "sends half of the answer, and nothing ever after",
    "stall-first": "sends its headers, and nothing ever after",
    "stall-before": "reads the request, and never answers",
    "trickle": "sends a comment 20 times a second, which is alive and no answer",
    "short": "ends after half of the tokens, and says so in its usage",
    "no-usage": "ends without usage",
    "no-content": "ends without any content, though with usage",
    "garbage": "sends half of the answer, then a message that is no JSON",
    "empty-first-chunks": "sends three chunks with empty content at once, and then answers",
}
ENDLESS = ("stall", "stall-first", "stall-before", "trickle")
TRICKLE_S = 0.05
IMAGE_TOKENS = 4
PROMPT_SHOWN = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    model: str
    first_s: float
    gap_s: float
    jitter: float
    seed: int
    chunk_tokens: int
    usage: bool
    faults: tuple[tuple[str, int], ...]
    die_after: int | None

    def fault(self, number: int) -> str | None:
        """Of the number-th streamed request, counted from 1."""
        return next((kind for kind, every in self.faults if number % every == 0), None)

    def waits_s(self, chunks: int, number: int) -> list[float]:
        """Before each chunk, the mean whatever the jitter: a pure function of seed and number."""
        waits = [self.first_s] + [self.gap_s * self.chunk_tokens] * (chunks - 1)
        if self.jitter:
            rng = random.Random(f"{self.seed}:{number}")
            waits = [w * rng.lognormvariate(-(self.jitter**2) / 2, self.jitter) for w in waits]
        return waits


class Stub:
    """What all connections share."""

    def __init__(self, settings: Settings, metrics: Metrics, log: TextIO | None) -> None:
        self.settings = settings
        self.metrics = metrics
        self.log = log
        self.streamed = 0

    def write(self, record: dict[str, object]) -> None:
        if self.log is not None:
            self.log.write(json.dumps(record) + "\n")
            self.log.flush()


class Answer:
    """One streamed answer, from the request's arrival to its line in the log."""

    def __init__(
        self,
        stub: Stub,
        transport: asyncio.Transport,
        asked: dict[str, Any],
        request_id: str | None,
        *,
        arrived_s: float,
        leave: Callable[[], None],
    ) -> None:
        self.stub, self.transport, self.leave = stub, transport, leave
        self.chat = "messages" in asked
        self.stub.streamed += 1
        self.number, self.request_id, self.arrived_s = self.stub.streamed, request_id, arrived_s
        settings = self.stub.settings
        self.fault = settings.fault(self.number)
        self.prompt, self.prompt_tokens = read_prompt(asked)
        wanted = int(asked.get("max_tokens") or asked.get("max_completion_tokens") or 16)
        self.tokens = self._chunks(wanted)
        self.sent_s: list[float] = []
        self.due_s: list[float] = []
        moment_s = arrived_s
        for wait_s in settings.waits_s(len(self.tokens), self.number):
            moment_s += wait_s
            self.due_s.append(moment_s)
        self.usage = settings.usage and bool(
            (asked.get("stream_options") or {}).get("include_usage")
        )
        self.handle: asyncio.TimerHandle | None = None

    def _chunks(self, wanted: int) -> list[int]:
        """Tokens of each chunk that will be sent."""
        if self.fault == "short":
            wanted //= 2
        if self.fault in ("no-content", "stall-first", "trickle"):
            wanted = 0
        size = self.stub.settings.chunk_tokens
        return [min(size, wanted - done) for done in range(0, wanted, size)]

    def begin(self) -> None:
        if self.fault == "http500":
            self._write(error(500, "the stub was told to fail"))
            return self.end(complete=False)
        if self.fault == "stall-before":
            return None
        head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
        self._write(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        if self.fault == "empty-first-chunks":
            self._write(self._event("") * 3)
        if self.fault == "trickle":
            return self._trickle()
        if self.fault == "stall-first":
            return None
        return self._next()

    def _next(self) -> None:
        done, loop = len(self.sent_s), asyncio.get_running_loop()
        if done == len(self.tokens) // 2:
            if self.fault == "stall":
                return
            if self.fault == "drop":
                self.transport.close()
                return
            if self.fault == "garbage":
                self._write(chunked(b'data: {"id": "stub", "choi\n\n'))
            if self._dies():
                self.end(complete=False)
                os._exit(1)
        if done < len(self.tokens):
            self.handle = loop.call_at(self.due_s[done], self._send)
        else:
            self._finish()

    def _dies(self) -> bool:
        after = self.stub.settings.die_after
        return after is not None and self.number > after

    def _send(self) -> None:
        index = len(self.sent_s)
        tokens = self.tokens[index]
        last = index == len(self.tokens) - 1
        frame = self._event(" tok" * tokens, finish=self._reason() if last else None)
        if self.chat and index == 0:  # as vLLM does: the role goes out with the first token
            frame = self._event("", role=True) + frame
        now_s = time.monotonic()
        self._write(frame)
        self.sent_s.append(now_s)
        before_s = self.sent_s[-2] if index else self.arrived_s
        prompt_tokens = 0 if index else self.prompt_tokens
        self.stub.metrics.sent(now_s - before_s, tokens, prompt_tokens=prompt_tokens)
        self._next()

    def _finish(self) -> None:
        tail = b""
        if self.usage and self.fault != "no-usage":
            usage = {
                "prompt_tokens": self.prompt_tokens,
                "completion_tokens": sum(self.tokens),
                "total_tokens": self.prompt_tokens + sum(self.tokens),
            }
            tail = chunked(message(self.chat, self.stub.settings.model, [], usage))
        if self.sent_s:
            whole_s, decode_s = self.sent_s[-1] - self.arrived_s, self.sent_s[-1] - self.sent_s[0]
            self.stub.metrics.done(self._reason(), whole_s, decode_s, sum(self.tokens))
        # The log first: who has read the whole answer finds its line there.
        self.end(complete=True)
        self._write(tail + chunked(b"data: [DONE]\n\n") + b"0\r\n\r\n")

    def _trickle(self) -> None:
        self._write(chunked(b": still here\n\n"))
        self.handle = asyncio.get_running_loop().call_later(TRICKLE_S, self._trickle)

    def _reason(self) -> str:
        return "stop" if self.fault == "short" else "length"

    def _event(self, text: str, *, finish: str | None = None, role: bool = False) -> bytes:
        choice: dict[str, object] = {"index": 0, "logprobs": None, "finish_reason": finish}
        if self.chat:
            choice["delta"] = {"content": text} | ({"role": "assistant"} if role else {})
        else:
            choice["text"] = text
        return chunked(message(self.chat, self.stub.settings.model, [choice], None))

    def _write(self, data: bytes) -> None:
        self.transport.write(data)

    def end(self, *, complete: bool) -> None:
        if self.handle is not None:
            self.handle.cancel()
        self.leave()
        self.stub.write(
            {
                "number": self.number,
                "id": self.request_id,
                "prompt": self.prompt,
                "chat": self.chat,
                "arrived_s": self.arrived_s,
                "due_s": self.due_s[: len(self.sent_s)],
                "sent_s": self.sent_s,
                "prompt_tokens": self.prompt_tokens,
                "completion_tokens": sum(self.tokens[: len(self.sent_s)]),
                "fault": self.fault,
                "complete": complete,
            }
        )


def response(body: bytes, *, status: int, kind: str) -> bytes:
    head = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def error(status: int, said: str) -> bytes:
    kind = {404: "NotFoundError"}.get(status, "InternalServerError")
    body = {"error": {"message": said, "type": kind, "code": status}}
    return response(json.dumps(body).encode(), status=status, kind="application/json")


def chunked(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def message(chat: bool, model: str, choices: list[object], usage: object) -> bytes:
    event = {
        "id": "chatcmpl-stub" if chat else "cmpl-stub",
        "object": "chat.completion.chunk" if chat else "text_completion",
        "created": int(time.time()),
        "model": model,
        "choices": choices,
        "usage": usage,
    }
    return f"data: {json.dumps(event)}\n\n".encode()


def read_prompt(asked: dict[str, Any]) -> tuple[str, int]:
    """Its beginning as text, and how many tokens it has: one for each byte, four for an image."""
    if "messages" not in asked:
        prompt = asked["prompt"]
        if isinstance(prompt, str):
            return prompt[:PROMPT_SHOWN], len(prompt.encode())
        return " ".join(map(str, prompt))[:PROMPT_SHOWN], len(prompt)
    texts: list[str] = []
    images = 0
    for spoken in asked["messages"]:
        content = spoken["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        texts += [part["text"] for part in parts if part["type"] == "text"]
        images += sum(part["type"] != "text" for part in parts)
    text = "".join(texts)
    return text[:PROMPT_SHOWN], len(text.encode()) + IMAGE_TOKENS * images


def whole(asked: dict[str, Any], model: str) -> dict[str, object]:
    """The answer in one piece, at once: what canaries and warm-ups are content with."""
    _, prompt_tokens = read_prompt(asked)
    count = int(asked.get("max_tokens") or 16)
    choice: dict[str, object] = {"index": 0, "finish_reason": "length", "logprobs": None}
    if "messages" in asked:
        choice["message"] = {"role": "assistant", "content": " tok" * count}
    else:
        scored = {"tokens": [" tok"] * count, "token_logprobs": [-1.0] * count}
        choice |= {"text": " tok" * count, "logprobs": scored}
    return {
        "id": "stub",
        "object": "chat.completion" if "messages" in asked else "text_completion",
        "created": int(time.time()),
        "model": model,
        "choices": [choice],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": count,
            "total_tokens": prompt_tokens + count,
        },
    }
