"""What more ranks bring is told from the rows alone; what is missing says why, and is never 0."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from reports.costs import Cost, figures
from reports.html import render
from reports.matrix import judged_cells
from reports.record import CellRecord, Row, Run
from reports.scaling import Costs, costs
from suites.selftest.sample_run import a_cell, a_header, a_row, a_run
from suites.selftest.test_html import Page

MIB = 2**20
# (TTFT in s, TPOT in s, tokens/s, MiB per rank) of each cell; None: it is not measured.
Timed = tuple[float, float, float, float]
TIMES: dict[str, Timed | None] = {
    "original-tp1": (0.200, 0.040, 100.0, 64.0),
    "original-tp2": None,
    "padded-tp1": (0.210, 0.041, 96.0, 80.0),
    "padded-tp2": (0.120, 0.030, 144.0, 40.0),
    "padded-tp4": (0.090, 0.025, 187.2, 20.0),
}
LOADS = ("closed1", "closed8", "closed32")


def rows_of(cell: str, timed: Timed | None) -> list[Row]:
    plain: dict[str, Any] = {"cell": cell, "low": None, "high": None, "limit": None}
    if timed is None:
        reason = f"{cell} is planned to fail (load): there is no answer to time"
        empty = {"outcome": "not_run", "value": None, "reason": reason, **plain}
        return [a_row(claim=f"{name}/{name}", **empty) for name in ("latency", "throughput")]
    ttft, tpot, rate, weights = timed
    named = {"ttft": ttft, "tpot": tpot, "e2e": ttft + 63 * tpot}
    rows = [a_row(claim=f"latency/{k}_p50", value=v, unit="s", **plain) for k, v in named.items()]
    rows += [
        a_row(claim=f"throughput/{at}/output_tokens_per_s", value=rate / n, unit="token/s", **plain)
        for at, n in zip(LOADS, (8, 1, 2), strict=True)  # the middle one is the peak
    ]
    of_cell = {"throughput/output_tokens_per_s": rate, "throughput/image4/output_tokens_per_s": 999}
    rows += [a_row(claim=k, value=v, unit="token/s", **plain) for k, v in of_cell.items()]
    tp = int(cell[-1])
    return rows + [
        a_row(
            claim=f"sharding/weight_bytes_rank{rank}",
            value=weights * MIB - (64 if rank else 0),
            unit="byte",
            **plain,
        )
        for rank in range(tp)
    ]


def timed_run(platform: str = "cuda", more: Sequence[Row] = (), **changed: Timed | None) -> Run:
    times = TIMES | {name.replace("_", "-"): timed for name, timed in changed.items()}
    rows = [row for cell, timed in times.items() for row in rows_of(cell, timed)]
    records: list[CellRecord] = []
    plan = []
    for cell, timed in times.items():
        stage = None if timed else "load"
        variant, tp = cell.split("-tp")
        serves = {"serves": timed is not None, "failure_class": stage, "message": ""}
        plan.append({"cell": cell, "variant": variant, "tp": int(tp), **serves})
        records.append(a_cell(cell, planned=stage, observed=stage))
    engine = {"name": "vllm", "version": "0.32.0", "platform": platform}
    matrix = {"variants": ["original", "padded"], "tps": [1, 2, 4]}
    header = a_header(engine=engine, plan=plan, matrix=matrix)
    return a_run([*rows, *more], records, header=header)


def shown(run: Run) -> Costs:
    found = costs(run, judged_cells(run))
    assert found is not None
    return found


def by_cell(run: Run) -> dict[str, Cost]:
    return {cost.cell.name: cost for cost in figures(judged_cells(run))}


def test_each_figure_is_that_of_its_row() -> None:
    cost = by_cell(timed_run())["padded-tp4"]
    assert cost.ttft_ms.value == pytest.approx(90.0)
    assert cost.tpot_ms.value == pytest.approx(25.0)
    assert cost.e2e_ms.value == pytest.approx(1665.0)
    assert cost.weights_mib.value == 20.0  # of the fullest rank
    assert (cost.tokens_per_s.value, cost.tokens_per_s.note) == (187.2, "8 at a time")
    assert cost.efficiency.value == pytest.approx(187.2 / (4 * 96.0))
    assert cost.why == ""


def test_scaling_is_of_the_variants_own_tp_1_or_says_of_what() -> None:
    cost = by_cell(timed_run(padded_tp1=None))["padded-tp2"]
    assert cost.efficiency.value == pytest.approx(144.0 / (2 * 100.0))
    assert cost.efficiency.note == "of original tp 1"
    lost = by_cell(timed_run(padded_tp1=None, original_tp1=None))["padded-tp2"]
    assert lost.efficiency.value is None
    assert lost.efficiency.note == "there is no throughput of padded-tp1 and of original-tp1"


def test_padding_is_what_the_original_would_not_hold() -> None:
    found = by_cell(timed_run())
    assert found["padded-tp1"].beyond.value == pytest.approx(16 / 80)
    assert found["original-tp1"].beyond.value == 0
    # The original at tp 2 and 4 was never loaded: the nearest smaller size stands, and says so.
    assert found["padded-tp4"].beyond.value == pytest.approx(16 / 80)
    assert found["padded-tp4"].beyond.note == "as at tp 1"


def test_padding_is_held_against_the_original_at_the_nearest_size() -> None:
    cost = by_cell(timed_run(original_tp2=(0.1, 0.03, 90.0, 30.0)))["padded-tp4"]
    assert cost.beyond.value == pytest.approx(10 / 40)
    assert cost.beyond.note == "as at tp 2"


def test_what_is_missing_is_a_dash_with_its_reason_and_never_zero() -> None:
    lines = {cost.cell.name: (cost, figures) for cost, figures in shown(timed_run()).lines}
    cost, refused = lines["original-tp2"]
    assert {number for _, number, _ in refused} == {"–"}
    assert cost.why == "fails as planned: refused at load"
    assert "0" not in {number for _, line in lines.values() for _, number, _ in line}


def test_a_measurement_on_a_busy_machine_is_missing() -> None:
    busy = {"outcome": "invalid", "reason": "another process kept the GPU busy"}
    run = timed_run()
    rows = [
        a_row(**{**row.to_json(), **busy})
        if row.cell == "padded-tp4" and row.claim == "latency/tpot_p50"
        else row
        for row in run.rows
    ]
    cost = by_cell(a_run(rows, run.cells, header=run.header))["padded-tp4"]
    assert (cost.tpot_ms.value, cost.why) == (None, "another process kept the GPU busy")
    assert cost.ttft_ms.value is not None


def test_two_reasons_are_told_apart() -> None:
    rows = [row for row in timed_run().rows if "weight_bytes" not in row.claim]
    rows = [row for row in rows if (row.cell, row.claim) != ("padded-tp4", "latency/e2e_p50")]
    run = timed_run()
    cost = by_cell(a_run(rows, run.cells, header=run.header))["padded-tp4"]
    assert cost.why == "not recorded"
    late = a_row(cell="padded-tp4", claim="latency/e2e_p50", outcome="failed", reason="died",
                 value=None, low=None, high=None)  # fmt: skip
    cost = by_cell(a_run([*rows, late], run.cells, header=run.header))["padded-tp4"]
    assert cost.why == "E2E p50: died; weights per rank, beyond the original’s: not recorded"


@pytest.mark.parametrize(
    ("rate", "told"),
    [
        (187.2, "tp 4 gives 1.3 times the throughput of tp 2 for twice the ranks"),
        (72.0, "tp 4 gives only 0.5 times the throughput of tp 2 for twice the ranks"),
        (147.0, "tp 4 gives no more throughput than tp 2 for twice the ranks"),
    ],
)
def test_the_sentence_says_what_the_last_ranks_bought(rate: float, told: str) -> None:
    found = shown(timed_run(padded_tp4=(0.090, 0.025, rate, 20.0))).told
    assert found.startswith(f"padded: {told}, TPOT goes from 30 to 25 ms, and a rank holds 0.5 ")
    assert "The most output per rank: original at tp 1." in found
    assert "Padding is 20 % of what a padded rank holds" in found
    assert "CPU" not in found


def test_the_sentence_skips_what_was_not_measured_or_is_wrong() -> None:
    assert "tp 4 gives" in shown(timed_run()).told
    assert "tp 2 gives 1.5 times the throughput of tp 1" in shown(timed_run(padded_tp4=None)).told
    wrong = a_row(cell="padded-tp4", claim="numerics/text/mean_kl", outcome="failed")
    assert "tp 2 gives 1.5 times" in shown(timed_run(more=[wrong])).told
    # Over its budget it is still what it is.
    late = a_row(cell="padded-tp4", claim="latency/ttft_p99", outcome="failed")
    assert "tp 4 gives" in shown(timed_run(more=[late])).told
    alone = timed_run(padded_tp2=None, padded_tp4=None)
    assert "nothing says what more ranks buy" in shown(alone).told


def test_ranks_that_share_a_cpu_say_nothing_about_gpus() -> None:
    assert shown(timed_run("cpu")).told.endswith(
        "All ranks shared the 2 cores of one CPU: of what tp buys on GPUs this says nothing."
    )


def test_pipeline_stages_are_ranks_too() -> None:
    stages = [
        a_row(**{**row.to_json(), "cell": "original-pp2"})
        for row in rows_of("original-tp1", (0.3, 0.05, 90.0, 40.0))
    ]
    run = timed_run(more=stages)
    cost = by_cell(run)["original-pp2"]
    assert (cost.size, cost.ranks) == ("pp 2", 2)
    assert cost.efficiency.value == pytest.approx(90.0 / (2 * 100.0))
    assert ">pp 2</text>" in render(run)
    # The sentence is about tensor parallelism.
    staged = [a_row(**{**row.to_json(), "cell": "padded-pp8"}) for row in stages]
    assert "padded: tp 4 gives 1.3 times" in shown(timed_run(more=staged)).told


def test_the_picture_is_each_figure_over_one_cells() -> None:
    picture = shown(timed_run()).picture
    assert picture is not None
    assert picture.drawn is not None, picture.problem
    found = {(what, v, size): ratio for what, v, size, _, ratio, _ in picture.rows}
    assert found["output tokens/s", "padded", "tp 4"] == pytest.approx(1.872)
    assert found["weights per rank", "padded", "tp 2"] == pytest.approx(40 / 64)
    assert [name for name, _, _ in picture.drawn.legend] == ["original", "padded", "ideal"]


def test_the_section_stands_after_the_matrix_with_a_row_for_each_cell() -> None:
    text = render(timed_run())
    assert 0 < text.index('id="matrix"') < text.index('id="costs"') < text.index("<h2>Cells")
    page = Page(text)
    assert page.text.count("of original tp 1") == 0
    assert "187.2" in page.text
    assert "8 at a time" in page.text
    assert "#cell-padded-tp4" in page.attribute("href")
    assert not {"script", "img"} & {tag for tag, _ in page.tags}


def test_a_run_that_timed_nothing_has_no_such_section() -> None:
    untimed = timed_run(original_tp1=None, padded_tp1=None, padded_tp2=None, padded_tp4=None)
    assert 'id="costs"' not in render(untimed)
    assert costs(a_run(), judged_cells(a_run())) is None


def test_a_throughput_without_a_load_in_its_name_counts() -> None:
    run = a_run([a_row(claim="throughput/output_tokens_per_s", value=9.0, unit="token/s")])
    assert by_cell(run)["padded-tp2"].tokens_per_s.value == 9.0
    assert shown(run).picture is None  # one cell alone has nothing to stand against


def test_a_time_in_an_unknown_unit_is_no_number() -> None:
    cost = by_cell(a_run([a_row(unit="min")]))["padded-tp2"]
    assert (cost.ttft_ms.value, cost.ttft_ms.note) == (None, "recorded in min, expected s")
