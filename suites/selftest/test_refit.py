import numpy as np
import numpy.typing as npt
import pytest
from scipy.linalg import lstsq

from fixtures.errors import InputError
from fixtures.refit import Refit, reconstruction_error, refitted

HIDDEN, WIDTH, TOKENS = 5, 12, 200
KEPT = np.array([0, 1, 2, 3, 8, 9, 10, 11])
Array = npt.NDArray[np.float64]


@pytest.fixture
def activations() -> Array:
    """Of channels that share most of what they say, `[TOKENS, WIDTH]`."""
    random = np.random.default_rng(6)
    shared = random.normal(size=(TOKENS, 7)) @ random.normal(size=(7, WIDTH))
    return np.asarray(shared + 0.3 * random.normal(size=(TOKENS, WIDTH)))


@pytest.fixture
def weight() -> Array:
    return np.random.default_rng(7).normal(size=(HIDDEN, WIDTH))


def fit(weight: Array, x: Array, *dampings: float, judge: Array | None = None) -> Refit:
    judge = x if judge is None else judge
    fitted, held_out = (rows.T @ rows / len(rows) for rows in (x, judge))
    return refitted(weight, fitted, held_out, KEPT, module="down_proj", dampings=dampings)


def test_without_damping_it_is_the_least_squares_solution(
    weight: Array, activations: Array
) -> None:
    direct = lstsq(activations[:, KEPT], activations @ weight.T)[0].T
    np.testing.assert_allclose(fit(weight, activations, 0.0).weight, direct, rtol=1e-9)


def test_damping_holds_weights_where_they_were(weight: Array, activations: Array) -> None:
    """Solved directly: rows that ask for no change, beside those that ask for the outputs."""
    ridge = np.sqrt(0.01 * np.square(activations).sum(axis=0).mean())
    inputs = np.vstack([activations[:, KEPT], ridge * np.eye(len(KEPT))])
    outputs = np.vstack([activations @ weight.T, ridge * weight[:, KEPT].T])
    direct = lstsq(inputs, outputs)[0].T
    np.testing.assert_allclose(fit(weight, activations, 0.01).weight, direct, rtol=1e-9)


def test_errors_are_those_of_the_outputs_on_other_texts(weight: Array, activations: Array) -> None:
    other, activations = activations[:90], activations[90:]
    found = fit(weight, activations, 0.01, judge=other)
    outputs = other @ weight.T
    for error, narrower in (
        (found.error_before, weight[:, KEPT]),
        (found.error_after, found.weight),
    ):
        missed = np.linalg.norm(other[:, KEPT] @ narrower.T - outputs)
        assert error == pytest.approx(missed / np.linalg.norm(outputs), rel=1e-9)
    assert found.error_after < found.error_before


def test_other_texts_choose_the_damping(weight: Array, activations: Array) -> None:
    """Few tokens to fit to ask for a strong one; each is tried, and none is better."""
    few, other = activations[:10], activations[10:]
    found = fit(weight, few, 1e-6, 0.1, 100.0, judge=other)
    errors = {d: fit(weight, few, d, judge=other).error_after for d in (1e-6, 0.1, 100.0)}
    assert found.damping == 0.1 == min(errors, key=lambda damping: errors[damping])
    assert found.error_after == errors[0.1]


def test_weights_stay_where_no_refit_helps_on_other_texts(weight: Array) -> None:
    """Channels that say nothing of each other look as if they did, in few tokens."""
    random = np.random.default_rng(8)
    few, other = random.normal(size=(10, WIDTH)), random.normal(size=(4000, WIDTH))
    found = fit(weight, few, 0.01, judge=other)
    assert found.damping is None
    assert found.error_after == found.error_before
    np.testing.assert_array_equal(found.weight, weight[:, KEPT])


def test_channels_that_others_copy_are_lost_without_an_error(
    weight: Array, activations: Array
) -> None:
    activations[:, 4:8] = activations[:, :4]
    assert fit(weight, activations, 1e-12).error_after < 1e-6


def test_channels_the_texts_never_excite_keep_their_weights(
    weight: Array, activations: Array
) -> None:
    activations[:, 3] = 0
    np.testing.assert_array_equal(fit(weight, activations, 0.01).weight[:, 3], weight[:, 3])


def test_rounding_to_a_stored_type_is_part_of_the_error(weight: Array, activations: Array) -> None:
    moment = activations.T @ activations / TOKENS
    everything = np.arange(WIDTH)
    assert reconstruction_error(weight, weight, moment, everything) == 0
    rounded = reconstruction_error(weight, weight.astype(np.float16), moment, everything)
    assert 1e-5 < rounded < 1e-3


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
def test_activations_that_say_nothing_are_refused(bad: float, weight: Array) -> None:
    with pytest.raises(InputError, match=r"down_proj has activations of mean square"):
        fit(weight, np.full((TOKENS, WIDTH), bad), 0.01)


def test_a_refit_that_is_not_determined_is_none(weight: Array) -> None:
    assert fit(weight, np.ones((3, WIDTH)), 0.0).damping is None
