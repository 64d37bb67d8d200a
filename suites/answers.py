"""What a server writes of its own: answers to tasks (lane 5), continuations for other judges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from fixtures.load.prompts import Prompt
from fixtures.serving.client import Unscorable
from fixtures.serving.scoring import Written, write
from fixtures.serving.server import Server
from suites.baseline import ScoringError
from suites.corpus import Document
from suites.judges import Opinion, greedy_text, logprobs_close, perplexity, task
from suites.lanes import Strata
from suites.pace import Pace, Say
from suites.tasks import Task, image_tasks, text_tasks

PROMPTS: Final = 20
TOKENS: Final = 32
PROMPT_CHARACTERS: Final = 120
CONCURRENCY: Final = 16
SEED: Final = 5
# Sums of other orders may flip an answer, and nobody is at fault: of the trained miniature's 2 800
# positions none changed its first token, hence fewer than 1 in 600 do (at 99 %), and 1 in 200
# answers of three tokens. That no more than 5 % are lost is shown at 99 % by 90 right answers of
# which none is lost, by 130 of which one is, by 165 with two, 198 with three, 229 with four. So 98
# and 99 of 100 runs pass at that rate (it answers 230 of the pictures' 240 rightly), where of 150
# questions 83 would. More than 30 of each family of texts would ask a table's questions twice.
TEXT_TASKS: Final = 210
IMAGE_TASKS: Final = 240
Opinions: TypeAlias = dict[str, Opinion]
Right: TypeAlias = Mapping[str, bool]  # task → was it answered rightly?


def tasks(*, pictures: bool) -> tuple[Task, ...]:
    """What every server is asked; nothing about pictures of a model that sees none."""
    seen = image_tasks(IMAGE_TASKS, SEED) if pictures else ()
    return (*text_tasks(TEXT_TASKS, SEED), *seen)


def answered(server: Server, asked: Sequence[Task], say: Say | None) -> dict[str, bool]:
    """Which tasks a server answers rightly, greedily; ScoringError where it gives no answer.

    Batches may be put together otherwise each time: the null of this lane has concurrency in it.
    """
    pace = Pace(f"asking {server.model}", say)
    longest = max(one.answer_tokens for one in asked)
    prompts = [
        one.prompt if one.image is None else Prompt(one.question, one.image).messages
        for one in asked
    ]
    found = write(
        server, prompts, tokens=longest, stop=("\n",), concurrency=CONCURRENCY, progress=pace
    )
    pairs = zip(asked, found, strict=True)
    return {one.id: one.right(_whole(written).text) for one, written in pairs}


@dataclass(frozen=True, slots=True)
class Answers:
    """Greedy continuations of the corpus's first texts; whether each task was answered rightly."""

    written: tuple[Written, ...]
    right: tuple[bool, ...]


def answers(
    server: Server,
    documents: tuple[Document, ...],
    asked: Sequence[Task],
    say: Say | None,
) -> Answers:
    """Everything the other judges ask for; ScoringError where the server gives no answer."""
    prompts = [one.text[:PROMPT_CHARACTERS] for one in documents if one.image is None][:PROMPTS]
    found = write(server, prompts, tokens=TOKENS, progress=Pace(f"asking {server.model}", say))
    right = tuple(answered(server, asked, say).values()) if asked else ()
    return Answers(tuple(_whole(one) for one in found), right)


def _whole(one: Written | Unscorable) -> Written:
    if isinstance(one, Unscorable):
        raise ScoringError(one.reason)
    return one


def opinions(strata: Strata, reference: Answers, candidate: Answers) -> Opinions:
    """What each of the other judges would have said, by its name."""
    found = [
        logprobs_close(reference.written, candidate.written),
        perplexity(strata),
        greedy_text(reference.written, candidate.written),
    ]
    if reference.right:
        found.append(task(reference.right, candidate.right))
    return {opinion.judge: opinion for opinion in found}
