"""What the miniature is trained on; training itself is a program of the engine's environment."""

from __future__ import annotations

import numpy as np
import pytest

from fixtures.tokenizer import SPECIAL_TOKENS, tokenizer_files
from suites.tasks import image_tasks, sentences, text_tasks
from suites.training.__main__ import main
from suites.training.examples import END, Encode, batch, prompt_tokens


@pytest.fixture(scope="module")
def encode() -> Encode:
    tokenizers = pytest.importorskip("tokenizers", reason="comes with the engine only")
    tokenizer = tokenizers.Tokenizer.from_str(tokenizer_files()["tokenizer.json"])
    return lambda text: list(tokenizer.encode(text).ids)


def test_an_answer_counts_whole_and_what_is_asked_a_little(encode: Encode) -> None:
    tasks = text_tasks(7, 1)
    given = batch(tasks, encode)
    for task, tokens, weights in zip(tasks, given.tokens, given.weights, strict=True):
        answer = [*encode(f" {task.answer}."), END]
        assert tokens[weights == 1].tolist() == answer
        assert tokens[weights > 0].tolist() == encode(task.prompt) + answer
        assert (tokens[weights == 0] == END).all()


def test_a_prompt_and_its_answer_are_tokens_as_one_text_would_be(encode: Encode) -> None:
    for task in text_tasks(70, 1):
        assert encode(task.prompt) + encode(f" {task.answer}.") == encode(
            f"{task.prompt} {task.answer}."
        )


def test_a_picture_is_nine_tokens_and_none_of_them_is_to_be_predicted(encode: Encode) -> None:
    tasks = image_tasks(6, 1)
    given = batch(tasks, encode)
    image = given.tokens == SPECIAL_TOKENS["<|image_pad|>"]
    assert (image.sum(axis=1) == 9).all()
    assert not given.weights[image].any()
    assert len(given.pictures) == 6
    assert all(len(set(np.flatnonzero(row))) == 9 for row in image)
    assert len(prompt_tokens(tasks[0], encode)) == len(encode(tasks[0].prompt)) + 8


def test_a_sentence_counts_in_all_its_tokens(encode: Encode) -> None:
    prose = sentences(3, 1)
    given = batch((), encode, prose)
    for text, tokens, weights in zip(prose, given.tokens, given.weights, strict=True):
        assert tokens[weights > 0].tolist() == [*encode(text), END]


def test_an_unknown_program_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["learn"]) == 2
    assert main([]) == 2
    assert "none of train, accuracy" in capsys.readouterr().err
