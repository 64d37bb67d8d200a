"""What the miniature is trained on: tokens, what is asked of each, and the pictures.

Questions of the families of `suites.tasks`, by other seeds than any suite asks with, and sentences
of its grammar. An answer ends with a full stop and the end of the turn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fixtures.tokenizer import SPECIAL_TOKENS
from suites.pictures import SIDE, Picture
from suites.tasks import Task

END: Final = SPECIAL_TOKENS["<|im_end|>"]
IMAGE: Final = SPECIAL_TOKENS["<|image_pad|>"]
IMAGE_TOKENS: Final = (SIDE // 28) ** 2
# A prompt's own tokens are mostly chance: learning them would take the place of answers.
PROMPT_WEIGHT: Final = 0.1
SENTENCE_WEIGHT: Final = 0.5

Encode = Callable[[str], list[int]]


@dataclass(frozen=True, slots=True)
class Batch:
    """`tokens` `[n, length]`, the `weights` of predicting each, and `n` pictures or none."""

    tokens: NDArray[np.int64]
    weights: NDArray[np.float32]
    pictures: tuple[Picture, ...] = ()


def batch(tasks: Sequence[Task], encode: Encode, prose: Sequence[str] = ()) -> Batch:
    """Padded on the right, where a causal model's answers do not see it."""
    rows: list[tuple[list[int], list[float]]] = [_row(task, encode) for task in tasks]
    for text in prose:
        tokens = [*encode(text), END]
        rows.append((tokens, [SENTENCE_WEIGHT] * len(tokens)))
    length = max(len(tokens) for tokens, _ in rows)
    found = np.full((len(rows), length), END, np.int64)
    weights = np.zeros((len(rows), length), np.float32)
    for index, (tokens, weight) in enumerate(rows):
        found[index, : len(tokens)] = tokens
        weights[index, : len(tokens)] = weight
    pictures = tuple(task.picture for task in tasks if task.picture is not None)
    return Batch(found, weights, pictures)


def prompt_tokens(task: Task, encode: Encode) -> list[int]:
    """With as many image tokens as the picture has."""
    tokens: list[int] = []
    for token in encode(task.prompt):
        tokens += [token] * (IMAGE_TOKENS if token == IMAGE else 1)
    return tokens


def _row(task: Task, encode: Encode) -> tuple[list[int], list[float]]:
    prompt = prompt_tokens(task, encode)
    space = "" if task.picture is not None else " "
    answer = [*encode(f"{space}{task.answer}."), END]
    asked = [0.0 if token == IMAGE else PROMPT_WEIGHT for token in prompt]
    return prompt + answer, asked + [1.0] * len(answer)
