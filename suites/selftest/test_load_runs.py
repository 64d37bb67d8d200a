"""Latency and load as their users run them, against stubs: budgets, repeats, failures by kind."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median

import pytest

from fixtures.load.probe import closed_loop
from reports.paired import judge_family, order, paired_ratio
from suites.selftest.clocked import clock
from suites.selftest.runs import Inner, changed, run_inner

TWO = "(original or padded) and tp1"


def test_a_budget_that_cannot_pass_is_refused_before_a_server_starts(
    tmp_path: Path, cache: Path, deployments: Path
) -> None:
    old = "[platforms.cpu.latency]\n"
    file = changed(deployments, tmp_path, old, old + "ttft_s = { p99 = 1.0 }\n")
    inner = run_inner(tmp_path / "r", cache, "-m", "latency and tp1", deployments=file)
    assert inner.code == 4
    assert "original-tp1: latency.ttft_s.p99: p99 at 99 % confidence can never pass" in inner.output
    assert "it needs 459" in inner.output
    assert inner.starts == []


def test_how_many_requests_a_budget_needs_is_said_in_advance(
    tmp_path: Path, cache: Path, deployments: Path
) -> None:
    old = "[platforms.cpu.latency]\n"
    new = old + "confidence = 0.95\nttft_s = { p50 = 60.0 }\n"
    file = changed(deployments, tmp_path, old, new)
    asked = ("-m", "latency and original and tp1")
    inner = run_inner(tmp_path / "r", cache, *asked, deployments=file)
    said = "latency.ttft_s: p50 at 95 % confidence needs 5 requests: 6 pass with at most 0 misses"
    assert said in inner.output[: inner.output.index("starting original-tp1")]
    assert inner.row("original-tp1", "latency/ttft_p50")["outcome"] == "passed"


@pytest.mark.parametrize("rounds", ["1", "3", "-2", "many"])
def test_rounds_that_say_little_are_refused(
    rounds: str, tmp_path: Path, cache: Path, deployments: Path
) -> None:
    inner = run_inner(tmp_path, cache, f"--repeats={rounds}", deployments=deployments)
    assert inner.code == 4
    assert "expected an even number from 2 on" in inner.output


@pytest.fixture(scope="module")
def repeated(tmp_path_factory: pytest.TempPathFactory, cache: Path, deployments: Path) -> Inner:
    """Two cells in two rounds; the second is slow."""
    return run_inner(
        tmp_path_factory.mktemp("repeated"),
        cache,
        "--repeats=2",
        "-m",
        f"repeats and {TWO}",
        behaviours=["padded-tp1.r1=slow", "padded-tp1.r2=slow"],
        deployments=deployments,
    )


def test_cells_restart_in_turns_forward_and_backward(repeated: Inner) -> None:
    assert repeated.starts == [
        "original-tp1.r1", "padded-tp1.r1", "padded-tp1.r2", "original-tp1.r2",
    ]  # fmt: skip


def test_a_ratio_is_over_pairs_of_starts_and_says_what_it_would_have_shown(
    repeated: Inner,
) -> None:
    row = repeated.row("padded-tp1", "repeats/tpot_p50_ratio")
    assert (row["n"], row["better"]) == (2, "lower")
    assert row["value"] > 3  # 20 ms more for each token
    assert row["low"] < row["value"] < row["high"]
    assert row["detectable"] > 0
    assert "in 2 pairs" in row["reason"]
    assert repeated.rows("original-tp1", "repeats/")[0]["outcome"] == "not_run"


@pytest.mark.parametrize("option", ["--faults", "--repeats=2"])
def test_an_option_that_selects_nothing_is_refused(
    option: str, tmp_path: Path, cache: Path, deployments: Path
) -> None:
    arguments = (option, "-m", "plan and padded and tp4")
    inner = run_inner(tmp_path, cache, *arguments, deployments=deployments)
    assert inner.code == 4
    assert "has nothing to do here" in inner.output


def test_without_the_option_nothing_is_restarted(
    tmp_path: Path, cache: Path, deployments: Path
) -> None:
    inner = run_inner(tmp_path, cache, "-m", f"repeats and {TWO}", deployments=deployments)
    assert (inner.code, inner.starts) == (5, [])


def test_a_server_that_dies_under_load_is_told_by_kind(
    tmp_path: Path, cache: Path, deployments: Path
) -> None:
    inner = run_inner(
        tmp_path,
        cache,
        "-m",
        f"throughput and {TWO}",
        behaviours=["padded-tp1=die-mid-run"],
        deployments=deployments,
    )
    assert inner.code == 1
    rows = [row for row in inner.rows("padded-tp1") if row["claim"].endswith("failed_requests")]
    assert {row["outcome"] for row in rows} == {"failed"}
    assert "dropped (the connection broke" in rows[0]["reason"]
    assert "refused (no connection could be made)" in rows[-1]["reason"]
    healthy = inner.rows("original-tp1", "throughput/closed")
    # A stub has no counters of its own to agree with.
    assert {one["outcome"] for one in healthy if "agreement" not in one["claim"]} == {"passed"}


def test_raw_samples_lie_beside_the_report(tmp_path: Path, cache: Path, deployments: Path) -> None:
    run_inner(tmp_path, cache, "-m", "latency and original and tp1", deployments=deployments)
    (block,) = tmp_path.glob("loads/original-tp1-*/cell-l-text.json")
    content = json.loads(block.read_text())
    assert len(content["load"]["streams"]) == 6
    assert all(len(one["chunks_s"]) == 6 for one in content["load"]["streams"])
    assert content["machine"]["cpu"]["cores"] >= 1


def test_requests_are_rounds_of_pytest_benchmark(
    tmp_path: Path, cache: Path, deployments: Path
) -> None:
    asked = ("-m", "latency and original and tp1", f"--benchmark-json={tmp_path / 'rounds.json'}")
    run_inner(tmp_path / "r", cache, *asked, deployments=deployments)
    (told,) = json.loads((tmp_path / "rounds.json").read_text())["benchmarks"]
    (block,) = (tmp_path / "r").glob("loads/original-tp1-*/cell-l-text.json")
    streams = json.loads(block.read_text())["load"]["streams"]
    times = [stream["ended_s"] - stream["sent_s"] for stream in streams]
    assert told["stats"]["data"] == pytest.approx(times)
    assert told["name"] == "test_latency[original-tp1]"


def test_ten_percent_more_for_each_token_is_called_worse(tmp_path: Path) -> None:
    found: dict[str, list[float]] = {"1": [], "1.10": []}
    for turn, sequence in enumerate(order(("1", "1.10"), 6)):
        for factor in sequence:
            options = ("--first-s=0.05", "--gap-s=0.05", f"--slow={factor}")
            with clock(tmp_path / f"{turn}-{factor}", *options) as (server, _):
                texts = [f"{turn} {index} x" for index in range(8)]
                load = closed_loop(server, texts, concurrency=8, max_tokens=32, deadline_s=60)
            # Long answers, and the median of them: these tests run beside others, which make a
            # first token late as well as a last one.
            found[factor].append(median(stream.tpot_s or 0.0 for stream in load.answered))
    ratio = paired_ratio(found["1"], found["1.10"])
    (judged,) = judge_family([(ratio, 0.03, "lower")])
    assert judged.verdict == "worse", judged.told
    assert ratio.value == pytest.approx(1.1, abs=0.05)
