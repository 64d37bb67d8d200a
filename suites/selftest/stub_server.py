"""A server that speaks vLLM's command line and HTTP, starts at once, and misbehaves on request.

The selftests hold the suite against this stub where the suite holds a real
engine against its predictions. stub_engine.py says what the engine would make
of the checkpoint; this file prints, answers and dies accordingly, in vLLM's own
words. A failure mode met on a real server becomes one more entry of BEHAVIOURS
(stub_options.py).

    python suites/selftest/stub_server.py --model DIR --port 8000 \\
        --served-model-name padded-tp2-1f2e --tensor-parallel-size 2 \\
        --stub-behaviour padded-tp2=slow --stub-behaviour '*=honest'
"""

import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar, NoReturn

# Run by its path, from anywhere, like the engine that it stands in for.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from suites.selftest.stub_audit import write_audits
from suites.selftest.stub_engine import (
    Answers,
    Fate,
    Position,
    fail_to_start,
    foresee,
    fork_stubborn_worker,
    hang_deaf,
    refuse_config,
    room,
    say,
    say_death_at_first_request,
    spell,
    tokenize,
)
from suites.selftest.stub_options import LONGEST, SHORT, WRONG_NAT, Options, read_options

IMAGE_TOKENS = 4
MAX_LOGPROBS = 20


@dataclass(slots=True)
class State:
    options: Options
    fate: Fate
    answers: Answers
    served: int = 0

    def is_(self, behaviour: str) -> bool:
        return behaviour in self.options.behaviours


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else the kernel holds back chunks, and times mean nothing
    state: ClassVar[State]

    def log_request(self, code: int | str = "-", _size: int | str = "-") -> None:
        host, port = self.client_address[:2]
        print(f'INFO:     {host}:{port} - "{self.requestline}" {int(code)}', flush=True)

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            name = "another-model" if self.state.is_("wrong-name") else self.state.options.name
            entry = {"id": name, "object": "model", "max_model_len": self._longest}
            self._json({"object": "list", "data": [entry]})
        else:
            self._json({}, status=200 if self.path == "/health" else 404)

    @property
    def _longest(self) -> int:
        return SHORT if self.state.is_("short-context") else LONGEST

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if body.get("model") != self.state.options.name:
            self._error(404, f"The model `{body.get('model')}` does not exist.")
        elif self.path == "/tokenize":
            tokens = self._in_vocabulary(tokenize(body["prompt"]))
            self._json({"count": len(tokens), "max_model_len": self._longest, "tokens": tokens})
        elif self.path in ("/v1/completions", "/v1/chat/completions"):
            self._complete(body, chat=self.path == "/v1/chat/completions")
        else:
            self._error(404, "Not Found")

    def _complete(self, body: dict[str, Any], *, chat: bool) -> None:
        state = self.state
        state.served += 1
        top = body.get("prompt_logprobs")
        if top is not None and not 0 <= top <= MAX_LOGPROBS:
            said = f"Requested prompt logprobs of {top}, which is greater than max allowed: 20"
            return self._error(400, said)
        if state.fate.first_request or state.is_("die-at-first-request"):
            self._die_at_first_request()
        if state.is_("die-mid-run") and state.served > state.options.die_after:
            os._exit(1)
        tokens, salts = self._prompt(body, chat=chat)
        if len(tokens) >= self._longest:
            said = f"This model's maximum context length is {self._longest} tokens."
            return self._error(400, said)
        *before, prefix = state.answers.prefixes(tokens, salts)
        path = (body.get("vllm_xargs") or {}).get("shardproof_path", ())
        if state.is_("no-path"):
            path = ()
        steps = self._generate(prefix, int(body.get("max_tokens") or 16), path)
        extra: dict[str, Any] = {}
        if body.get("return_token_ids"):
            extra["prompt_token_ids"] = tokens
        if top is not None:
            scored = [
                state.answers.after(prefix).listed(top, token)
                for prefix, token in zip(before[1:], tokens[1:], strict=True)
            ]
            extra["prompt_logprobs"] = self._nulled([None, *scored])
        if body.get("stream"):
            self._stream(body, steps, len(tokens), chat=chat)
        else:
            self._answer(body, list(steps), len(tokens), extra, chat=chat)
        return None

    def _die_at_first_request(self) -> NoReturn:
        say_death_at_first_request(self.state.fate.first_request)
        issue = "EngineCore encountered an issue. See stack trace (above) for the root cause."
        self._error(500, issue)
        os._exit(1)

    def _prompt(self, body: dict[str, Any], *, chat: bool) -> tuple[list[int], dict[int, str]]:
        if not chat:
            prompt = body["prompt"]
            return self._in_vocabulary(tokenize(prompt) if isinstance(prompt, str) else prompt), {}
        tokens: list[int] = []
        salts: dict[int, str] = {}
        for message in body["messages"]:
            content = message["content"]
            parts: list[dict[str, Any]] = content
            if isinstance(content, str):
                parts = [{"type": "text", "text": content}]
            tokens += tokenize(f"<{message['role']}>")
            for part in parts:
                if part["type"] == "text":
                    tokens += tokenize(part["text"])
                else:
                    image = hashlib.blake2b(part["image_url"]["url"].encode()).hexdigest()
                    salts |= {len(tokens) + place: image for place in range(IMAGE_TOKENS)}
                    tokens += [self.state.fate.vocabulary - 1] * IMAGE_TOKENS
        return self._in_vocabulary([*tokens, *tokenize("<assistant>")]), salts

    def _in_vocabulary(self, tokens: Sequence[int]) -> list[int]:
        return [token % self.state.fate.vocabulary for token in tokens]

    def _generate(
        self, prefix: bytes, count: int, path: Sequence[int] = ()
    ) -> Iterator[tuple[int, Position]]:
        options = self.state.options
        for index in range(count):
            time.sleep(options.first_token_s if index == 0 else options.token_s)
            if self.state.is_("slow"):
                time.sleep(options.slow_token_s)
            position = self.state.answers.after(prefix)
            token = ord("!") if self.state.is_("repeat") else position.ranked[0][0]
            if index < len(path):
                token = path[index]
            yield token, position
            prefix = hashlib.blake2b(prefix + str(token).encode(), digest_size=8).digest()

    def _nulled(self, value: Any) -> Any:
        """The answer with every log-probability null, which is how NaN looks in JSON."""
        if not self.state.is_("nan"):
            return value
        if isinstance(value, list):
            return [self._nulled(entry) for entry in value]
        if isinstance(value, dict):
            return {k: None if k == "logprob" else self._nulled(v) for k, v in value.items()}
        return value

    def _answer(
        self,
        body: dict[str, Any],
        steps: list[tuple[int, Position]],
        prompt_tokens: int,
        extra: dict[str, Any],
        *,
        chat: bool,
    ) -> None:
        if self.state.is_("nan-later") and body.get("prompt_logprobs") is not None:
            self._error(400, "Out of range float values are not JSON compliant")
            return
        generated = [token for token, _ in steps]
        text = "".join(spell(token) for token in generated)
        choice: dict[str, Any] = {"index": 0, "finish_reason": "length", "logprobs": None}
        if body.get("return_token_ids"):
            choice["token_ids"] = generated
        if chat:
            choice["message"] = {"role": "assistant", "content": text}
        else:
            choice["text"] = text
            if body.get("logprobs") is not None:
                entries = self._nulled([position.entry(token) for token, position in steps])
                top = body["logprobs"]
                listed = self._nulled([position.listed(top, token) for token, position in steps])
                choice["logprobs"] = {
                    "tokens": [spell(token) for token in generated],
                    "token_logprobs": [entry["logprob"] for entry in entries],
                    "top_logprobs": [
                        {f"token_id:{token}": entry["logprob"] for token, entry in one.items()}
                        for one in listed
                    ],
                }
            choice |= extra  # completions carry these in the choice, chats beside it
        answer = {
            "id": "stub",
            "object": "chat.completion" if chat else "text_completion",
            "created": int(time.time()),
            "model": self.state.options.name,
            "choices": [choice],
            "usage": _usage(prompt_tokens, len(generated)),
        }
        self._json(answer | extra if chat else answer)

    def _stream(
        self,
        body: dict[str, Any],
        steps: Iterator[tuple[int, Position]],
        prompt_tokens: int,
        *,
        chat: bool,
    ) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if chat:  # vLLM sends the role, with empty content, ahead of the first token
            self._event({"index": 0, "delta": {"role": "assistant", "content": ""}}, chat=True)
        count = 0
        for token, _ in steps:
            count += 1
            said = spell(token)
            content: dict[str, object] = {"delta": {"content": said}} if chat else {"text": said}
            self._event({"index": 0, **content, "finish_reason": None}, chat=chat)
        if (body.get("stream_options") or {}).get("include_usage"):
            self._event(None, chat=chat, usage=_usage(prompt_tokens, count))
        self._chunk(b"data: [DONE]\n\n")
        self._chunk(b"")

    def _event(self, choice: object, *, chat: bool, usage: object = None) -> None:
        event = {
            "id": "stub",
            "object": "chat.completion.chunk" if chat else "text_completion",
            "created": int(time.time()),
            "model": self.state.options.name,
            "choices": [] if choice is None else [choice],
            "usage": usage,
        }
        self._chunk(f"data: {json.dumps(event)}\n\n".encode())

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def _error(self, status: int, message: str) -> None:
        kind = {400: "BadRequestError", 404: "NotFoundError"}.get(status, "InternalServerError")
        self._json({"error": {"message": message, "type": kind, "code": status}}, status=status)

    def _json(self, value: object, *, status: int = 200) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _usage(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def start(options: Options) -> State:
    """Through vLLM's stages, as far as the checkpoint and the behaviours let it come."""
    fate = foresee(options.model, options.tp, options.pp, eager=options.eager)
    state = State(options, fate, answers_of(options, fate))
    say("APIServer", "INFO", "api_utils.py:286", f"non-default args: {sys.argv[1:]}")
    if fate.config or state.is_("refuse-config"):
        refuse_config(fate.config or "the stub was told to refuse its config.")
    say("EngineCore", "INFO", "core.py:133", "Initializing a V1 LLM engine (v0.32.0) with config:")
    say(
        "Worker_TP0", "INFO", "cpu_model_runner.py:68", f"Starting to load model {options.model}..."
    )
    if state.is_("hang-at-start"):
        signal.pause()
    if state.is_("deaf-at-start"):
        hang_deaf()
    if fate.load or state.is_("refuse-load"):
        fail_to_start("load_model", fate.load or "ValueError: the stub was told to refuse to load")
    directory = os.environ.get("SHARDPROOF_AUDIT_DIR")
    if directory and not state.is_("no-audit"):
        lost = state.is_("lost-rows")
        write_audits(Path(directory), options.model, options.tp, options.pp, lost_row=lost)
    say("Worker_TP0", "INFO", "default_loader.py:501", "Loading weights took 0.01 seconds")
    if not options.eager:
        warming = "Warming up model for the compilation..."
        say("Worker_TP0", "INFO", "cpu_model_runner.py:87", warming)
    if fate.warmup or state.is_("exit-at-warmup"):
        told = "ValueError: the stub was told to exit here"
        fail_to_start("determine_available_memory", fate.warmup or told)
    if not state.is_("no-capacity"):
        say_capacity(options, halved=state.is_("small-cache"))
    took = "init engine (profile, create kv cache, warmup model) took 0.01 s"
    say("EngineCore", "INFO", "core.py:402", took)
    if state.is_("ignore-term"):
        for rank in range(options.tp):
            fork_stubborn_worker(rank)
    return state


def say_capacity(options: Options, *, halved: bool) -> None:
    memory_gib = int(os.environ.get("VLLM_CPU_KVCACHE_SPACE", "1"))
    tokens = room(
        options.model, options.tp, options.pp, memory_gib=memory_gib, longest=options.longest
    )
    tokens //= 2 if halved else 1
    size = f"CPU KV cache size: {tokens:,} tokens"
    concurrency = f"Maximum concurrency for {options.longest:,} tokens per request"
    many = f"{tokens / options.longest:.2f}x"
    say("EngineCore", "INFO", "kv_cache_utils.py:2327", f"{size}, {concurrency}: {many}")


def answers_of(options: Options, fate: Fate) -> Answers:
    wrong = WRONG_NAT if "wrong" in options.behaviours else 0.0
    unshaken = fate.rows_lost and "honest-though-silent" in options.behaviours
    perturbed_nat = max(0.0 if unshaken else fate.perturbed_nat, wrong)
    return Answers(fate.vocabulary, perturbed_nat=perturbed_nat, tp=options.tp)


def serve(state: State) -> NoReturn:
    Handler.state = state
    ThreadingHTTPServer.request_queue_size = 256
    with ThreadingHTTPServer((state.options.host, state.options.port), Handler) as server:
        address = f"http://{state.options.host}:{state.options.port}"
        say("APIServer", "INFO", "entry.py:140", f"Starting vLLM server on {address}")
        print("INFO:     Application startup complete.", flush=True)
        server.serve_forever()
    sys.exit(0)


if __name__ == "__main__":
    serve(start(read_options(None)))
