"""A run as people read it: a page for a browser, a summary for a CI step.

The page is one file: no script, no request, every text escaped by the template
engine, a word and a symbol wherever there is a colour. What the words mean is
decided in `reports.matrix`; here they are only laid out.
"""

import argparse
import functools
import re
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from reports.matrix import (
    AS_PLANNED,
    OUTCOME_WORDS,
    STAGE_WORDS,
    Cell,
    detectable_text,
    first_sentence,
    interval_text,
    judged_cells,
    limit_text,
    matrix,
    number_text,
    observed_text,
    sentence,
    shorten,
)
from reports.partial import partial
from reports.pictures import gallery
from reports.record import (
    FormatError,
    JsonObject,
    ReportError,
    Row,
    Run,
    read_report,
    replay,
    write_atomically,
)
from reports.rows import Value
from reports.scaling import costs

# By a claim's name or the first part of it: what to do, and the command that does it.
ADVICE: dict[str, tuple[str, str]] = {
    "plan": (
        "Prediction and engine disagree. Hold the reason against the server's log: either the "
        "engine changed its rule, or the planner lacks one.",
        "python -m fixtures.planner DIR",
    ),
    "sharding": (
        "A rank holds other elements than the plan gives it. Answers from this cell are not to be "
        "trusted until that is understood; the server's log names the loader that cut the tensor.",
        "",
    ),
    "numerics": (
        "See whether the same variant passes at tp 1. If it does, tensor parallelism moves the "
        "answers; if not, the variant itself does, and this proves or refutes it:",
        "python -m fixtures.variants verify DIR",
    ),
    "latency": (
        "Repeat on an otherwise idle machine before believing it, then hold it against an earlier "
        "report:",
        "python -m reports.compare OLD.json NEW.json",
    ),
}
ADVICE["throughput"] = ADVICE["latency"]
ADVICE["sharding/stage"] = ADVICE["plan"]  # about the plan, though only a served cell can show it
ADVICE_OTHERWISE = (
    "The reason above is all that was recorded; pytest's own output has the traceback.",
    "",
)


def markdown_summary(run: Run) -> str:
    """The sentence and the matrix, for a CI step summary."""
    columns, body = matrix(run)
    lines = ["## shardproof", "", _markdown(sentence(run)), ""]
    lines += ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for variant, cells in body:
        shown = [_markdown_cell(cell) if cell else "" for cell in cells]
        lines.append(f"| **{_markdown(variant)}** | " + " | ".join(shown) + " |")
    what = " · ".join(value for _, value in run_facts(run)[:4])
    if so_far := partial(run):
        lines += ["", *(f"- {_markdown(line)}" for line in so_far.lines)]
    return "\n".join([*lines, "", _markdown(what), ""])


def _markdown_cell(cell: Cell) -> str:
    short = " · ".join(text for text in (cell.how, first_sentence(cell.reason)) if text)
    return f"{cell.symbol} **{cell.word}**" + (f"<br>{_markdown(short)}" if short else "")


def _markdown(text: str) -> str:
    # HTML first: GitHub renders tags in Markdown. Then what would end the table cell or format.
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~])", r"\\\1", " ".join(escaped.split()))


def run_facts(run: Run) -> list[tuple[str, str]]:
    """What was tested, on what, and when: the lines under the verdict."""
    header, footer = run.header, run.footer
    checkpoint, engine = header["checkpoint"], header["engine"]
    facts = [
        ("Checkpoint", checkpoint["path"]),
        ("Engine", " ".join(t for t in (engine["name"], engine["version"]) if t)),
        ("Platform", engine["platform"] or "unknown"),
        ("Machine", machine_text(header["machine"])),
        ("Software", software_text(header["machine"])),
        ("Deployment", header["deployment"]),
        ("Checkpoint digest", checkpoint.get("digest") or "not recorded"),
        ("Corpus digest", header.get("corpus_digest") or "not recorded"),
        ("Command", " ".join(header.get("command") or []) or "not recorded"),
        ("Started", header["started_at"]),
        ("Ended", f"{footer['ended_at']}, exit status {footer['exit_status']}" if footer else "–"),
        ("Run", header["run_id"]),
    ]
    return [*facts, ("shardproof", header["tool_version"])] if header.get("tool_version") else facts


def machine_text(machine: JsonObject) -> str:
    """The GPUs where there are some, and the CPU: 2 × NVIDIA H200; AMD EPYC 9V74, 16 cores."""
    gpus = Counter(str(gpu.get("name")) for gpu in machine.get("gpus") or [])
    parts = [f"{count} × {name}" if count > 1 else name for name, count in gpus.items()]
    if cpu := machine.get("cpu"):
        cores = machine.get("cores")
        parts.append(f"{cpu}, {cores} core{'' if cores == 1 else 's'}" if cores else str(cpu))
    if memory_bytes := machine.get("memory_bytes"):
        parts.append(f"{number_text(round(memory_bytes / 2**30))} GiB memory")
    return "; ".join(parts) or "unknown"


def software_text(machine: JsonObject) -> str:
    drivers = {f"driver {gpu['driver']}" for gpu in machine.get("gpus") or [] if gpu.get("driver")}
    versions = machine.get("versions") or {}
    python = [f"Python {machine['python']}"] if machine.get("python") else []
    named = [str(machine["os"])] if machine.get("os") else []
    installed = [f"{name} {version}" for name, version in versions.items()]
    return ", ".join([*named, *python, *sorted(drivers), *installed]) or "not recorded"


def advice(row: Row | None) -> tuple[str, str]:
    """What to do about a failed row, or about a cell unlike its plan that has none."""
    claim = row.claim if row else "plan"
    return ADVICE.get(claim) or ADVICE.get(claim.split("/")[0], ADVICE_OTHERWISE)


def rerun(run: Run, cell: Cell, row: Row) -> str:
    """The command of this run, narrowed to one claim's suite in one cell."""
    arguments = list(run.header.get("command") or ["pytest"])
    for option in ("-m", "-k"):
        while option in arguments:
            del arguments[(at := arguments.index(option)) : at + 2]
    family = row.claim.split("/")[0]
    if cell.marks:
        marks = [*cell.marks, *([family] if family in ADVICE else [])]
        arguments += ["-m", " and ".join(marks)]
    return shlex.join(arguments)


def breakable(name: str) -> Markup:
    """A claim's name that a narrow column may break after its slashes and underscores."""
    return Markup(re.sub(r"([/_])", r"\1<wbr>", str(escape(name))))


def figure_text(value: Value) -> str:
    """A number of a picture's table, to six digits: 0.9999 is not 1."""
    if value is None or isinstance(value, str):
        return value or "–"
    whole = value == int(value)
    return f"{value:.6g}" if not whole and 1e-3 <= abs(value) < 1e4 else number_text(value)


def render_page(template: str, **context: object) -> str:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        number_text=number_text,
        observed_text=observed_text,
        interval_text=interval_text,
        limit_text=limit_text,
        detectable_text=detectable_text,
        shorten=shorten,
        first_sentence=first_sentence,
        breakable=breakable,
        figure_text=figure_text,
        outcome_words=OUTCOME_WORDS,
    )
    return environment.get_template(template).render(context)


def render(run: Run) -> str:
    """report.html as text."""
    # Python's sort keeps the plan's order within the failed and within the rest.
    cells = sorted(judged_cells(run), key=lambda cell: cell.status != "failed")
    columns, body = matrix(run)
    return render_page(
        "report.html.jinja",
        verdict=sentence(run),
        tone=_tone(run, cells),
        partial=partial(run),
        facts=run_facts(run),
        deployment=run.header["deployment"],
        columns=columns,
        body=body,
        cells=cells,
        costs=costs(run, judged_cells(run)),
        gallery=gallery(run, cells),
        states_detectable=any(row.detectable is not None for row in run.rows),
        counts=_counts(run),
        stage_words=STAGE_WORDS,
        advice=advice,
        rerun=functools.partial(rerun, run),
    )


def _tone(run: Run, cells: Sequence[Cell]) -> str:
    statuses = {cell.status for cell in cells}
    if "failed" in statuses or (run.footer and run.footer["exit_status"] not in (0, 2)):
        return "bad"
    return (
        "open"
        if partial(run) or not statuses & set(AS_PLANNED) or "inconclusive" in statuses
        else "good"
    )


def _counts(run: Run) -> list[tuple[int, str]]:
    counts = Counter(row.outcome for row in run.rows)
    return [(counts[o], word) for o, (_, word) in OUTCOME_WORDS.items() if counts[o]]


def read_run(path: Path) -> Run:
    """A journal (.jsonl) or a report (.json), told apart by its ending."""
    if path.suffix == ".jsonl":
        return replay(path)
    if path.suffix == ".json":
        return read_report(path)
    raise FormatError(path, "expected a run.jsonl or a report.json")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m reports.html",
        description="Render a journal or a report as one self-contained HTML page: also the "
        "journal of a run that was killed, or that is still running.",
        epilog="example: python -m reports.html reports/latest/run.jsonl --out report.html    "
        "exit: 0 written, 2 bad input",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="run.jsonl or report.json")
    parser.add_argument(
        "--out", type=Path, metavar="F", help="the page to write (default: report.html beside RUN)"
    )
    arguments = parser.parse_args(argv)
    out = arguments.out or arguments.run.with_name("report.html")
    try:
        run = read_run(arguments.run)
        write_atomically(out, render(run))
    except ReportError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{out}: cannot be written: {error.strerror}", file=sys.stderr)
        return 2
    print(f"{out}: {sentence(run)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
