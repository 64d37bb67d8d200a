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


def fit(weight: Array, x: Array, damping: float) -> Refit:
    return refitted(weight, x.T @ x / len(x), KEPT, module="down_proj", damping=damping)


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


def test_errors_are_those_of_the_outputs(weight: Array, activations: Array) -> None:
    found = fit(weight, activations, 0.01)
    outputs = activations @ weight.T
    for error, narrower in (
        (found.error_before, weight[:, KEPT]),
        (found.error_after, found.weight),
    ):
        missed = np.linalg.norm(activations[:, KEPT] @ narrower.T - outputs)
        assert error == pytest.approx(missed / np.linalg.norm(outputs), rel=1e-9)
    assert found.error_after < found.error_before


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


def test_too_few_texts_are_refused_where_nothing_damps(weight: Array) -> None:
    with pytest.raises(InputError, match="do not determine a refit"):
        fit(weight, np.ones((3, WIDTH)), 0.0)
