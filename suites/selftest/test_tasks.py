"""The tasks are the same everywhere, and each answer is the right one."""

from __future__ import annotations

import dataclasses
import hashlib
import io

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage, stats

from reports.equivalence import Flips
from suites.answers import IMAGE_TASKS, TEXT_TASKS, tasks
from suites.pictures import COLOURS, Picture
from suites.tasks import (
    CAPITALS,
    IMAGE_FAMILIES,
    OPPOSITES,
    TEXT_FAMILIES,
    Task,
    image_tasks,
    sentences,
    text_tasks,
)

TEXTS, IMAGES = text_tasks(350, 1), image_tasks(150, 1)
# Another digest is another test: earlier reports' task rows are then not comparable.
DIGEST = "002e5894c4e25de7198d9c55469e567ee31f52fa003fc55afa783a9b1f84a097"


def digest(tasks: tuple[Task, ...]) -> str:
    state = hashlib.sha256()
    for task in tasks:
        state.update(f"{task.id}\n{task.prompt}\n{task.answer}\n".encode())
        if task.picture is not None:
            state.update(task.picture.tobytes())
    return state.hexdigest()


def of(family: str) -> list[Task]:
    return [task for task in (*TEXTS, *IMAGES) if task.family == family]


def test_the_same_seed_asks_the_same_everywhere() -> None:
    assert digest((*TEXTS, *IMAGES)) == DIGEST
    assert text_tasks(350, 1) == TEXTS
    assert digest(image_tasks(9, 1)) == digest(IMAGES[:9]) != digest(image_tasks(9, 2))


def test_one_pixel_makes_another_digest() -> None:
    task = IMAGES[0]
    assert task.picture is not None
    changed = task.picture.copy()
    changed[11, 11, 0] ^= 1
    other = dataclasses.replace(task, picture=changed)
    assert task.digest == image_tasks(150, 1)[0].digest != other.digest


def test_there_are_enough_of_every_family_and_no_two_of_one_name() -> None:
    assert len({task.id for task in (*TEXTS, *IMAGES)}) == 500
    for families in (TEXT_FAMILIES, IMAGE_FAMILIES):
        assert {len(of(family)) for family in families} == {150 // 3}


def test_a_table_is_asked_row_by_row_before_it_begins_anew() -> None:
    asked = [task.question for task in text_tasks(2 * len(CAPITALS), 3, ["capital"])]
    first, second = asked[: len(CAPITALS)], asked[len(CAPITALS) :]
    assert len(set(first)) == len(CAPITALS)
    assert set(first) == set(second)
    assert first != second


def test_no_question_of_a_table_has_two_answers() -> None:
    assert len(set(CAPITALS.values())) == len(CAPITALS)
    assert all(word != other for word, other in OPPOSITES.items())


@pytest.mark.parametrize("family", ["sum", "product"])
def test_arithmetic_is_right(family: str) -> None:
    for task in of(family):
        left, sign, right, _ = task.question.split()
        assert int(task.answer) == {"+": int.__add__, "*": int.__mul__}[sign](int(left), int(right))


def test_a_successor_is_one_more_and_a_copy_is_what_was_given() -> None:
    for task in of("successor"):
        assert task.question == f"After {int(task.answer) - 1} comes"
    for task in of("copy"):
        assert task.question == f"Repeat {task.answer}:"
        assert len(task.answer) == 5


def test_the_first_noun_decides_the_verb() -> None:
    for task in of("agreement"):
        noun = task.question.removeprefix("Is or are? The ").split()[0]
        assert task.answer == ("are" if noun.endswith("s") else "is")
    assert {task.answer for task in of("agreement")} == {"is", "are"}


def covered(picture: Picture) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    return np.asarray((picture != 255).any(axis=2))


def pictured(family: str) -> list[tuple[Picture, str]]:
    return [(task.picture, task.answer) for task in of(family) if task.picture is not None]


def test_a_picture_holds_as_many_shapes_as_its_answer_says() -> None:
    for picture, answer in pictured("count"):
        assert ndimage.label(covered(picture))[1] == int(answer)
    assert {answer for _, answer in pictured("count")} == {"1", "2", "3", "4"}


def test_a_picture_has_the_colour_its_answer_says() -> None:
    for picture, answer in pictured("colour"):
        assert {tuple(pixel) for pixel in picture[covered(picture)]} == {COLOURS[answer]}


def test_a_shape_fills_its_box_as_shapes_of_its_name_do() -> None:
    shares = {"square": 1.0, "circle": np.pi / 4, "triangle": 0.5, "cross": 5 / 9}
    for picture, answer in pictured("shape"):
        ys, xs = np.nonzero(covered(picture))
        box = (np.ptp(ys) + 1) * (np.ptp(xs) + 1)
        assert len(ys) / box == pytest.approx(shares[answer], abs=0.04)
        assert (np.ptp(ys) > 1.1 * len(set(xs[ys == ys.min()]))) == (answer != "square")


def test_the_file_holds_the_pixels() -> None:
    task = IMAGES[0]
    assert task.image is not None
    assert task.picture is not None
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(task.image))), task.picture)
    assert TEXTS[0].image is None


def test_a_prompt_about_a_picture_is_a_turn_of_a_chat() -> None:
    assert IMAGES[0].prompt == (
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>What colour? One word."
        "<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize("reply", ["12", " 12.", "12\nAnd", "12, as"])
def test_a_reply_that_begins_with_the_answer_is_right(reply: str) -> None:
    assert Task("t", "sum", "7 + 5 =", "12").right(reply)


@pytest.mark.parametrize("reply", ["", "128", "1", "It is 12", "twelve", "!12"])
def test_another_reply_is_wrong(reply: str) -> None:
    assert not Task("t", "sum", "7 + 5 =", "12").right(reply)


def test_case_does_not_matter() -> None:
    assert Task("t", "colour", "What colour? One word.", "red").right("Red.")


def test_an_answer_fits_its_tokens_also_if_every_byte_is_one() -> None:
    assert all(task.answer_tokens > len(f" {task.answer}") for task in (*TEXTS, *IMAGES))


def test_sentences_agree_with_their_first_noun() -> None:
    for sentence in sentences(50, 2):
        _, noun, _, _, _, verb, _ = sentence.split()
        assert verb == ("are" if noun.endswith("s") else "is")


def test_there_are_enough_tasks_for_a_loss_that_is_nobody_s_fault() -> None:
    """One answer in 200; of the pictures' questions the trained miniature answers 96 % rightly."""
    for asked, right in ((TEXT_TASKS, 1.0), (IMAGE_TASKS, 0.96)):
        known = int(asked * right)
        allowed = max(lost for lost in range(10) if Flips.needed(0.05, lost) <= known)
        assert stats.binom.cdf(allowed, known, 1 / 200) > 0.97


def test_no_question_is_asked_twice() -> None:
    asked = tasks(pictures=True)
    assert len({one.digest for one in asked}) == len(asked) == TEXT_TASKS + IMAGE_TASKS
