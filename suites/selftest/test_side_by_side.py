"""The table of our figures beside vLLM's own: a difference is explained, or it stands out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fixtures.load.bench_results import Benchmarked
from fixtures.load.streams import Load, Stream
from suites.benchmarks.side_by_side import UNEXPLAINED, main, table

ANSWERED = Stream(
    due_s=0.0,
    sent_s=0.0,
    chunks_s=(0.25, 0.5),
    ended_s=0.5,
    prompt_tokens=5,
    completion_tokens=2,
)
FIGURES = {
    "completed": 2.0,
    "failed": 0.0,
    "total_output_tokens": 4.0,
    "median_ttft_ms": 250.0,
    "median_tpot_ms": 250.0,
    "median_itl_ms": 250.0,
    "median_e2el_ms": 500.0,
    "duration": 0.5,
    "request_throughput": 4.0,
    "output_throughput": 8.0,
}


def lines(load: Load, **altered: float) -> dict[str, str]:
    """Row → its last cell."""
    told = table(Benchmarked(load, FIGURES | altered, ""))
    cells = [line.strip("| ").split(" | ") for line in told if line.startswith("| ")]
    return {row[0]: row[-1] for row in cells[1:]}


def test_figures_that_agree_to_the_printed_digit_are_the_same() -> None:
    load = Load((ANSWERED,) * 2, 0.5)
    assert set(lines(load, median_ttft_ms=250.004).values()) == {"the same"}


def test_a_difference_without_a_reason_stands_out() -> None:
    found = lines(Load((ANSWERED,) * 2, 0.5), median_ttft_ms=250.01, duration=0.52)
    assert found["TTFT, median (ms)"] == UNEXPLAINED
    assert "until all is put away" in found["duration (s)"]
    assert found["TPOT, median (ms)"] == "the same"


def test_what_one_counts_and_the_other_does_not_is_said() -> None:
    short = replace(ANSWERED, kind="short", error="short")
    load = Load((ANSWERED, short), 0.5)
    assert lines(load)["requests answered"] == (
        "vLLM's is of 1 requests more, which are misses by ours"
    )
    assert table(Benchmarked(load, FIGURES, ""))[-1].startswith("Misses by ours: 1 short;")
    nothing = Load((short, short), 0.5)
    assert "| output tokens per s | none | 8.00 |" in "\n".join(
        table(Benchmarked(nothing, FIGURES, ""))
    )


@pytest.mark.parametrize("arguments", [["--url=http://127.0.0.1:1"], ["--model=x"]])
def test_half_a_server_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert "--url, --served-model-name and --model go together" in capsys.readouterr().err
