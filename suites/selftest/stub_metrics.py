"""The part of vLLM's /metrics that load is held against, in Prometheus' text format.

Names, labels and bucket bounds are those of vLLM 0.32.0 (v1/metrics/loggers.py and buckets.py).
Run inside the stub: standard library only.
"""

import time
from bisect import bisect_left
from dataclasses import dataclass, field

LONG_S = (10.0, 20.0, 40.0, 80.0)
FIRST_S = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5),
    *(*LONG_S, 160.0, 640.0, 2560.0),
)
GAP_S = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5),
    *LONG_S,
)
WHOLE_S = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0),
    *(120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)
REASONS = ("stop", "length", "abort", "error", "repetition")


@dataclass(slots=True)
class Histogram:
    bounds: tuple[float, ...]
    counts: list[int] = field(init=False)
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class Metrics:
    """What one engine counts; `factor` makes its times lie."""

    def __init__(self, model: str, *, factor: float = 1.0) -> None:
        self.labels = {"engine": "0", "model_name": model}
        self.factor = factor
        self.created = time.time()
        self.first, self.gap = Histogram(FIRST_S), Histogram(GAP_S)
        self.whole, self.per_token = Histogram(WHOLE_S), Histogram(GAP_S)
        self.prompt_tokens = self.generation_tokens = 0
        self.finished = dict.fromkeys(REASONS, 0)

    def sent(self, waited_s: float, tokens: int, *, prompt_tokens: int = 0) -> None:
        """Tokens left the engine; the first of a request count its prompt, too."""
        (self.first if prompt_tokens else self.gap).observe(waited_s * self.factor)
        self.prompt_tokens += prompt_tokens
        self.generation_tokens += tokens

    def done(self, reason: str, whole_s: float, decode_s: float, tokens: int) -> None:
        self.finished[reason] += 1
        self.whole.observe(whole_s * self.factor)
        self.per_token.observe(decode_s / (tokens - 1) * self.factor if tokens > 1 else 0.0)

    def text(self) -> str:
        lines: list[str] = []
        for name, count in (
            ("vllm:prompt_tokens", self.prompt_tokens),
            ("vllm:generation_tokens", self.generation_tokens),
        ):
            lines += self._counter(name, [({}, count)])
        reasons = [({"finished_reason": reason}, n) for reason, n in self.finished.items()]
        lines += self._counter("vllm:request_success", reasons)
        for name, histogram in (
            ("vllm:time_to_first_token_seconds", self.first),
            ("vllm:inter_token_latency_seconds", self.gap),
            ("vllm:request_time_per_output_token_seconds", self.per_token),
            ("vllm:e2e_request_latency_seconds", self.whole),
        ):
            lines += self._histogram(name, histogram)
        return "\n".join([*lines, ""])

    def _counter(self, name: str, samples: list[tuple[dict[str, str], int]]) -> list[str]:
        lines = [f"# HELP {name}_total Counted by the stub.", f"# TYPE {name}_total counter"]
        lines += [f"{name}_total{self._labels(more)} {float(count)}" for more, count in samples]
        lines += [f"# HELP {name}_created Counted by the stub.", f"# TYPE {name}_created gauge"]
        return lines + [f"{name}_created{self._labels(more)} {self.created}" for more, _ in samples]

    def _histogram(self, name: str, histogram: Histogram) -> list[str]:
        lines = [f"# HELP {name} Seconds, as the stub counts.", f"# TYPE {name} histogram"]
        seen = 0
        for bound, count in zip((*histogram.bounds, "+Inf"), histogram.counts, strict=True):
            seen += count
            lines.append(f"{name}_bucket{self._labels({'le': str(bound)})} {float(seen)}")
        lines.append(f"{name}_count{self._labels({})} {float(seen)}")
        lines.append(f"{name}_sum{self._labels({})} {histogram.total}")
        lines += [f"# HELP {name}_created Seconds.", f"# TYPE {name}_created gauge"]
        return [*lines, f"{name}_created{self._labels({})} {self.created}"]

    def _labels(self, more: dict[str, str]) -> str:
        both = sorted((self.labels | more).items())
        return "{" + ",".join(f'{key}="{value}"' for key, value in both) + "}"
