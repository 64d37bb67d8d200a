"""Numerics of unusual corpora and servers, in whole runs: what is judged, and what is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from suites.selftest.runs import Inner, run_inner, run_pytest
from suites.selftest.test_corpus_given import lines, picture
from suites.selftest.tiny import Tiny

PARAGRAPH = "Bell number {} of many bells, and the sound of a drum.\n\n"


def run(tmp_path: Path, cache: Path, marks: str, **more: object) -> Inner:
    return run_inner(tmp_path / "reports", cache, "-m", f"numerics and {marks}", **more)  # type: ignore[arg-type]


def prose(tmp_path: Path, paragraphs: int, more: str = "") -> Path:
    file = tmp_path / "notes.txt"
    file.write_text("".join(PARAGRAPH.format(number) for number in range(paragraphs)) + more)
    return file


def test_a_corpus_of_one_kind_is_judged_on_several_ranks(
    tmp_path: Path, cache: Path, deployments: Path
) -> None:
    corpus = prose(tmp_path, 30, "x")
    inner = run(tmp_path, cache, "padded and (tp1 or tp2)", deployments=deployments, corpus=corpus)
    assert inner.code == 0, inner.output
    said = "left out of the numerics, since no token of theirs is scored (1): row-0031"
    assert inner.output.count(said) == 1
    decoded = inner.row("padded-tp2", "numerics/tp/decode/rms_d")
    assert (decoded["outcome"], decoded["n"]) == ("passed", 16)
    assert "row-0031" in inner.row("padded-tp2", "numerics/tp/text/rms_d")["reason"]
    code = inner.row("padded-tp2", "numerics/tp/code")
    assert (code["outcome"], code["value"]) == ("not_run", None)


def test_a_kind_of_too_few_documents_is_not_run_and_says_what_to_do(
    tmp_path: Path, cache: Path, deployments: Path
) -> None:
    short = "".join(f"Short text {number}.\n\n" for number in range(9))
    corpus = prose(tmp_path, 3, short)
    inner = run(tmp_path, cache, "padded and (tp1 or tp2)", deployments=deployments, corpus=corpus)
    assert inner.code == 0, inner.output
    decoded = inner.row("padded-tp2", "numerics/tp/decode/rms_d")
    assert (decoded["outcome"], decoded["n"]) == ("not_run", 3)
    assert "give a corpus with more" in decoded["reason"]
    assert inner.row("padded-tp2", "numerics/tp/text/rms_d")["outcome"] == "passed"


def test_a_server_that_cannot_be_made_to_follow_a_path_is_judged_by_its_own(
    tmp_path: Path, cache: Path, deployments: Path
) -> None:
    marks = "(tp1 or tp2) and (padded or trimmed)"
    inner = run(tmp_path, cache, marks, deployments=deployments, behaviours=["*=no-path"])
    followed = inner.row("padded-tp1", "numerics/exact/decode/followed")
    assert (followed["value"], followed["n"]) == (1.0, 256)
    assert "reference's own greedy text" in followed["reason"]
    assert "own greedy" in inner.row("padded-tp1", "numerics/exact/decode/max_abs_d")["reason"]
    strayed = inner.row("trimmed-tp1", "numerics/quality/decode/followed")
    assert (strayed["outcome"], strayed["value"] < 1) == ("passed", True)
    assert "positions are cut" in strayed["reason"]
    assert inner.row("trimmed-tp1", "numerics/quality/decode")["outcome"] == "not_run"
    assert inner.code == 0, inner.output


def test_a_path_left_early_is_inconclusive(tmp_path: Path, cache: Path, deployments: Path) -> None:
    inner = run(
        tmp_path,
        cache,
        "padded and tp1",
        deployments=deployments,
        behaviours=["original-tp1=honest", "padded-tp1=no-path"],
    )
    assert inner.code == 1, inner.output
    followed = inner.row("padded-tp1", "numerics/exact/decode/followed")
    assert (followed["outcome"], followed["limit"]) == ("inconclusive", 0.5)
    assert "can be made to follow the path" in followed["reason"]


def pictures(tmp_path: Path) -> Path:
    (tmp_path / "grey.png").write_bytes(picture())
    rows = [{"text": f"What is in number {n}?", "image": "grey.png"} for n in range(8)]
    (tmp_path / "seen.jsonl").write_text(lines(rows))
    return tmp_path / "seen.jsonl"


def test_a_corpus_of_pictures_is_judged_where_they_are_seen(
    tmp_path: Path, cache: Path, deployments: Path
) -> None:
    inner = run(
        tmp_path, cache, "padded and tp1", deployments=deployments, corpus=pictures(tmp_path)
    )
    assert inner.code == 0, inner.output
    seen = inner.row("padded-tp1", "numerics/exact/image/max_abs_d")
    assert (seen["outcome"], "over the question alone" in seen["definition"]) == ("passed", True)
    assert "more than 32 tokens" in inner.row("padded-tp1", "numerics/exact/decode")["reason"]
    assert inner.row("padded-tp1", "numerics/longest_repeat")["n"] == 5


def test_pictures_for_a_model_that_sees_none_are_a_usage_error(tmp_path: Path, cache: Path) -> None:
    checkpoint = Tiny().write(tmp_path / "blind")
    assert "vision_config" not in json.loads((checkpoint / "config.json").read_text())
    options = (f"--checkpoint={checkpoint}", f"--corpus={pictures(tmp_path)}", "--platform=cpu")
    done = run_pytest(cache, *options, "--server-command=absent", "-m", "numerics and tp1")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR, done.stdout
    assert "holds pictures alone" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


def test_a_document_that_is_too_long_is_named(
    tmp_path: Path, cache: Path, deployments: Path
) -> None:
    inner = run(
        tmp_path,
        cache,
        "padded and tp1",
        deployments=deployments,
        corpus=prose(tmp_path, 9, "a" * 300),
        behaviours=["*=short-context"],
    )
    assert inner.code == 1
    assert "--max-model-len of 256 leaves room for: row-0010 (" in inner.output
    assert "Traceback" not in inner.output
