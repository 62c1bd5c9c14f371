"""Reconstruction of one kernel: exact optimum for a given mask, exact counts, less error."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from tfprune.errors import InvalidArgumentError
from tfprune.masks import local_mask
from tfprune.methods.reconstruction import prune_and_reconstruct, reconstruct
from tfprune.patterns import NM, Block, Pattern


def problem(inputs=24, outputs=10, rows=200, seed=0):
    """Return correlated inputs X, float64, and a kernel."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, inputs)) @ (np.eye(inputs) + rng.normal(size=(inputs, inputs)) / 4)
    return x, rng.normal(size=(inputs, outputs))


def error(x, kernel, pruned):
    return np.linalg.norm(x @ (pruned - kernel))


def test_reconstruct_solves_the_least_squares_problem_of_each_output():
    x, kernel = problem()
    mask = np.random.default_rng(1).random(kernel.shape) < 0.4
    found = reconstruct(kernel, x.T @ x, mask, damping=1e-9)
    for output, kept in enumerate(mask.T):
        wanted = x @ kernel[:, output]
        least = np.linalg.lstsq(x[:, kept], wanted, rcond=None)[1].item() ** 0.5
        assert np.linalg.norm(x @ found[:, output] - wanted) == pytest.approx(least, rel=1e-4)
        assert not found[~kept, output].any()


@given(
    pattern=st.sampled_from(["unstructured", Block((2, 2)), Block((1, 5)), "row", "filter"]),
    sparsity=st.floats(0, 0.99),
    seed=st.integers(0, 5),
)
def test_sparsity_is_that_of_a_mask_of_the_same_pattern(pattern, sparsity, seed):
    pattern = Pattern.get(pattern)
    x, kernel = problem(seed=seed)
    pruned = prune_and_reconstruct(kernel, x.T @ x, sparsity, pattern)
    asked = local_mask(np.abs(kernel), sparsity, pattern)
    assert np.count_nonzero(pruned) == np.count_nonzero(asked)


@pytest.mark.parametrize("pattern", [NM(2, 4), NM(1, 4), NM(2, 4, axis="output")])
def test_n_of_m_weights_are_kept_in_every_group(pattern):
    x, kernel = problem(outputs=12)
    # All full groups are complete at share 1 of what the pattern can prune.
    pruned = prune_and_reconstruct(kernel, x.T @ x, pattern.sparsity, pattern)
    groups = (pruned.T if pattern.axis == "input" else pruned).reshape(-1, pattern.m)
    assert (np.count_nonzero(groups, axis=1) == pattern.n).all()


@pytest.mark.parametrize("sparsity", [0.3, 0.5, 0.7, 0.9])
def test_error_is_below_that_of_magnitude_and_of_reconstruction_of_its_mask(sparsity):
    x, kernel = problem()
    gram = x.T @ x
    mask = local_mask(np.abs(kernel), sparsity)
    plain, refitted = kernel * mask, reconstruct(kernel, gram, mask)
    pruned = prune_and_reconstruct(kernel, gram, sparsity)
    assert error(x, kernel, pruned) < error(x, kernel, refitted) < error(x, kernel, plain)


def test_the_first_weight_to_go_is_the_one_of_optimal_brain_surgeon():
    x, kernel = problem(outputs=1)
    gram = x.T @ x
    pruned = prune_and_reconstruct(kernel, gram, 1 / len(kernel), damping=1e-9)
    errors = [
        error(x, kernel, reconstruct(kernel, gram, np.arange(len(kernel))[:, None] != i))
        for i in range(len(kernel))
    ]
    assert np.flatnonzero(pruned[:, 0] == 0).tolist() == [int(np.argmin(errors))]


def test_weights_pruned_before_stay_pruned():
    x, kernel = problem()
    alive = np.random.default_rng(2).random(kernel.shape) < 0.5
    pruned = prune_and_reconstruct(kernel * alive, x.T @ x, 0.7, alive=alive)
    assert not pruned[~alive].any()
    assert np.count_nonzero(pruned) == round(kernel.size * 0.3)


def test_inputs_that_are_always_zero_lose_their_weights_first_and_change_no_others():
    x, kernel = problem()
    x[:, :6] = 0
    pruned = prune_and_reconstruct(kernel, x.T @ x, 6 / 24, damping=1e-6)
    assert not pruned[:6].any()
    np.testing.assert_allclose(pruned[6:], kernel[6:], rtol=1e-3, atol=1e-3)


def test_nothing_known_about_the_inputs_means_magnitude():
    _, kernel = problem()
    pruned = prune_and_reconstruct(kernel, np.zeros((24, 24)), 0.5)
    np.testing.assert_allclose(pruned, kernel * local_mask(np.abs(kernel), 0.5))


def test_inputs_that_are_not_finite_are_refused():
    x, kernel = problem()
    gram = x.T @ x
    gram[0, 0] = np.nan
    with pytest.raises(InvalidArgumentError, match="NaN"):
        prune_and_reconstruct(kernel, gram, 0.5, path="dense/kernel")
