"""What vLLM's CPU build would do with a checkpoint, and what it would answer, without vLLM.

The stub server's idea of the engine. The rules of which checkpoint fails at which
tp, and how, are written down here a second time, from what vLLM 0.32.0 was seen
to do, and share nothing with the planner: the selftests hold one against the
other. Run inside the stub, which must start at once: standard library only.

The answers are a pure function of the tokens before: equal for an original and
its padded variant, clearly different for a trimmed one (0.15 nat), and shaken by
a thousandth of a nat at tp > 1, as sums in another order would be.
"""

import ctypes
import hashlib
import json
import math
import mmap
import os
import random
import secrets
import signal
import struct
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing import get_context
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import NoReturn

from suites.selftest.stub_audit import layers_of, owners

TP_NOISE_NAT = 1e-3
TRIMMED_NAT = 0.15
ROWS_LOST_NAT = 0.25
SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of this checkpoint on these ranks; the first that applies, in this order."""

    config: str | None = None
    load: str | None = None
    warmup: str | None = None
    first_request: str | None = None
    rows_lost: bool = False
    perturbed_nat: float = 0.0
    vocabulary: int = 512


def read_shapes(model: Path) -> dict[str, list[int]]:
    shapes = {}
    for path in sorted(model.glob("*.safetensors")):
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
        shapes.update({k: v["shape"] for k, v in header.items() if k != "__metadata__"})
    return shapes


def foresee(model: Path, tp: int, pp: int = 1, *, eager: bool = False) -> Fate:
    fate = _foresee_shards(model, tp)
    if set(owners(layers_of(model), pp)) != set(range(pp)):
        fate = replace(fate, warmup="ZeroDivisionError: integer division or modulo by zero")
    if pp == 1:
        return fate
    if eager:
        # Nothing allocates what the stages hand on: the CPU build does not warm up in eager mode.
        died = "AssertionError: assert self.intermediate_tensors is not None"
        return replace(fate, first_request=fate.first_request or died)
    return replace(fate, warmup=fate.first_request or fate.warmup)  # it runs before room is made


def room(model: Path, tp: int, pp: int, *, memory_gib: int, longest: int) -> int:
    """Tokens whose keys and values fit: blocks of 128, as many as the fullest rank can hold."""
    config = json.loads((model / "config.json").read_text())
    text = config | config.get("text_config", {})
    heads = text["num_attention_heads"]
    head_size = text.get("head_dim") or text["hidden_size"] // heads
    kv_heads = max(text.get("num_key_value_heads", heads) // tp, 1)
    stages = owners(layers_of(model), pp)
    layers = max(stages.count(stage) for stage in stages)
    block = 128 * layers * kv_heads * head_size * (2 + 2)  # a float16 key, and a value
    return int(memory_gib * 2**30 // block / math.ceil(longest / 128) * longest)


def _foresee_shards(model: Path, tp: int) -> Fate:
    config = json.loads((model / "config.json").read_text())
    text = config | config.get("text_config", {})
    quant = text.get("quantization_config") or {}
    heads, hidden = text["num_attention_heads"], text["hidden_size"]
    kv_heads = text.get("num_key_value_heads", heads)
    head_size = text.get("head_dim") or hidden // heads
    width = text["intermediate_size"]
    vision_heads = config.get("vision_config", {}).get("num_heads", tp)
    vocabulary = text.get("vocab_size", 512)
    if heads % tp:
        return Fate(
            config=f"Total number of attention heads ({heads}) must be divisible by tensor "
            f"parallel size ({tp})."
        )
    for size, part in ((vision_heads, tp), (max(kv_heads, tp), min(kv_heads, tp)), (width, tp)):
        if size % part:
            return Fate(load=f"AssertionError: {size} is not divisible by {part}")
    shapes = read_shapes(model)
    stored = {_input_size(name, shape) for name, shape in shapes.items()} - {None}
    if any(size is not None and size < width for size in stored):
        have = min(size for size in stored if size is not None)
        return Fate(
            load=f"RuntimeError: start (0) + length ({width // tp}) exceeds dimension size ({have})"
        )
    kind = _read_kind(model)
    blind = any(size != width for size in stored)
    perturbed = TRIMMED_NAT if kind == "trimmed" or blind else 0.0
    if quant.get("quant_method") != "awq":
        return Fate(perturbed_nat=perturbed, vocabulary=vocabulary)
    group = quant["group_size"]
    kv_rank = max(kv_heads // tp, 1)
    inputs = (heads * head_size // tp, width // tp)
    outputs = (2 * width // tp, (heads // tp + 2 * kv_rank) * head_size, hidden)
    for size, side in [(k, "Input") for k in inputs] + [(n, "Output") for n in outputs]:
        if size % 32:
            return Fate(
                load="ValueError: Failed to find a kernel that can implement the WNA16 linear "
                f"layer. Reasons: \n CPUWNA16LinearKernel cannot implement due to: {side} size "
                f"({size}) not supported by CPUWNA16, supported sizes are multiples of 32"
            )
    for size in inputs:
        if size < group:
            return Fate(first_request="SIGFPE")
        if size // (size // group) % 2:
            return Fate(first_request="Check failed: group_size % 2 == 0 (1 vs. 0). ")
    lost = any(size % group for size in inputs)
    perturbed = max(perturbed, ROWS_LOST_NAT if lost else 0.0)
    return Fate(rows_lost=lost, perturbed_nat=perturbed, vocabulary=vocabulary)


def _input_size(name: str, shape: list[int]) -> int | None:
    """The width down_proj really has in the file."""
    if "visual" in name or "vision" in name:
        return None
    if name.endswith("mlp.down_proj.qweight"):
        return shape[0]
    return shape[1] if name.endswith("mlp.down_proj.weight") else None


def _read_kind(model: Path) -> str | None:
    manifest = model / "variant.json"
    if not manifest.is_file():
        return None
    kind: str = json.loads(manifest.read_text()).get("kind", "")
    return kind


def tokenize(text: str) -> list[int]:
    return list(text.encode())


def spell(token: int) -> str:
    return chr(token) if 32 <= token < 127 else f"<{token}>"


@dataclass(frozen=True, slots=True)
class Position:
    """The distribution after a prefix: its candidates, best first, and everything else."""

    ranked: list[tuple[int, float]]
    tail: Callable[[int], float]

    def entry(self, token: int) -> dict[str, object]:
        for rank, (candidate, logprob) in enumerate(self.ranked, 1):
            if candidate == token:
                return {"logprob": logprob, "rank": rank, "decoded_token": spell(token)}
        rank = len(self.ranked) + 1 + token % 97
        return {"logprob": self.tail(token), "rank": rank, "decoded_token": spell(token)}

    def listed(self, top: int, token: int) -> dict[str, dict[str, object]]:
        tokens = dict.fromkeys([token, *(candidate for candidate, _ in self.ranked[:top])])
        return {str(candidate): self.entry(candidate) for candidate in tokens}


class Answers:
    """A language model in forty lines: deterministic in the tokens before, and in nothing else."""

    def __init__(self, vocabulary: int, *, perturbed_nat: float, tp: int) -> None:
        self.vocabulary = vocabulary
        self.shakes = [(s, k) for s, k in ((perturbed_nat, "checkpoint"), (0.0, "")) if s]
        if tp > 1:
            self.shakes.append((TP_NOISE_NAT, f"tp{tp}"))

    def prefixes(self, tokens: Sequence[int], salts: Mapping[int, str]) -> Iterator[bytes]:
        """A digest of what stands before each position, and at last of everything."""
        digest = b""
        for index, token in enumerate(tokens):
            yield digest
            said = f"{token}{salts.get(index, '')}".encode()
            digest = hashlib.blake2b(digest + said, digest_size=8).digest()
        yield digest

    def after(self, prefix: bytes) -> Position:
        rng = random.Random(prefix)
        size = min(24, self.vocabulary // 2)
        base = math.log(self.vocabulary) + 2.0
        logits = {
            token: base - 0.3 * place + rng.gauss(0, 0.2)
            for place, token in enumerate(rng.sample(range(self.vocabulary), size))
        }
        logits = {token: value + self._shake(prefix, token) for token, value in logits.items()}
        rest = (self.vocabulary - size) * math.exp(0.5 * 0.6**2)
        total = math.log(rest + sum(math.exp(value) for value in logits.values()))

        def tail(token: int) -> float:
            own = random.Random(prefix + b"tail" + str(token).encode()).gauss(0, 0.6)
            return own + self._shake(prefix, token) - total

        ranked = sorted(((t, v - total) for t, v in logits.items()), key=lambda tv: -tv[1])
        return Position(ranked, tail)

    def _shake(self, prefix: bytes, token: int) -> float:
        return sum(
            random.Random(prefix + f"{key}:{token}".encode()).gauss(0, sigma)
            for sigma, key in self.shakes
        )


def say(process: str, level: str, place: str, message: str) -> None:
    stamp = time.strftime("%m-%d %H:%M:%S")
    prefix = f"({process} pid={os.getpid()}) {level} {stamp} [{place}] "
    print("\n".join(prefix + line for line in message.split("\n")), flush=True)


def say_traceback(process: str, place: str, function: str, error: str) -> None:
    say(
        process,
        "ERROR",
        place,
        f"{process} failed.\nTraceback (most recent call last):\n"
        f'  File "/stub/vllm/{place.partition(":")[0]}", line 1, in {function}\n'
        f"    {function}()\n    ^^^^^^^^\n{error}",
    )


def fail_to_start(function: str, error: str) -> NoReturn:
    """The root cause in a worker, and what the processes above it make of it."""
    say_traceback("Worker_TP0", "multiproc_executor.py:953", function, error)
    say_traceback(
        "EngineCore",
        "core.py:1510",
        "run_engine_core",
        "Exception: WorkerProc initialization failed due to an exception in a background "
        "process. See stack trace for root cause.",
    )
    print(
        'Traceback (most recent call last):\n  File "/stub/vllm/v1/engine/utils.py", line 1431, '
        "in wait_for_engine_startup\n    raise RuntimeError(\nRuntimeError: Engine core "
        "initialization failed. See root cause above. Failed core proc(s): {}",
        flush=True,
    )
    sys.exit(1)


def refuse_config(error: str) -> NoReturn:
    print(
        'Traceback (most recent call last):\n  File "/stub/vllm/engine/arg_utils.py", line 1, in '
        "create_engine_config\n    config = VllmConfig(\n"
        "pydantic_core._pydantic_core.ValidationError: 1 validation error for VllmConfig\n"
        f"  Value error, {error} [type=value_error, input_value=ArgsKwargs((), {{}}), "
        "input_type=ArgsKwargs]\n    For further information visit https://errors.pydantic.dev",
        flush=True,
    )
    sys.exit(1)


def say_death_at_first_request(cause: str | None) -> None:
    if cause == "SIGFPE":
        worker = "multiproc_executor.py:315"
        died = "Worker proc VllmWorker-0 died unexpectedly (exit code: -8), shutting down"
        say("EngineCore", "ERROR", worker, f"{died} executor.")
    elif cause and cause.startswith("AssertionError"):
        function = "sync_and_gather_intermediate_tensors"
        say_traceback("Worker_PP1", "gpu_model_runner.py:3174", function, cause)
    else:
        check = cause or "Check failed: stub == honest (0 vs. 1). "
        print(f"[rank0]:[F1122 21:49:20.359331176 cpu_wna16.cpp:296] {check}", flush=True)
    say_traceback("EngineCore", "core.py:1512", "run_busy_loop", "RuntimeError: cancelled")


def fork_stubborn_worker(rank: int) -> None:
    """Like a worker that hangs in a kernel: a session of its own, deaf, and with shared memory."""
    if os.fork():
        return
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    token = secrets.token_hex(4)
    segment = SHARED_MEMORY / f"psm_stub_{token}"
    descriptor = os.open(segment, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    os.ftruncate(descriptor, mmap.PAGESIZE)
    mapped = mmap.mmap(descriptor, mmap.PAGESIZE)
    # As multiprocessing makes one, but known to no resource tracker.
    ctypes.CDLL(None).sem_open(f"/mp-stub-{token}".encode(), os.O_CREAT | os.O_EXCL, 0o600, 1)
    for made in (segment, SHARED_MEMORY / f"sem.mp-stub-{token}"):
        say(f"Worker_TP{rank}", "INFO", "stub_engine.py:1", f"stub made {made}")
    while not mapped.closed:
        signal.pause()


def hang_deaf() -> NoReturn:
    """Like an engine killed in its imports: deaf, and its files known to a resource tracker."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    semaphore = get_context("spawn").Semaphore()
    unheld = SharedMemory(f"psm_stub_{secrets.token_hex(4)}", create=True, size=mmap.PAGESIZE)
    unheld.close()
    name = semaphore._semlock.name.removeprefix("/")  # type: ignore[attr-defined]
    for made in (SHARED_MEMORY / f"sem.{name}", SHARED_MEMORY / unheld.name):
        say("EngineCore", "INFO", "stub_engine.py:1", f"stub made {made}")
    while True:
        signal.pause()
