"""Reconstruction of one kernel: exact optimum for a given mask, exact counts, less error."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from tfprune.errors import InvalidArgumentError
from tfprune.masks import local_mask
from tfprune.methods.reconstruction import DAMPING, prune_and_reconstruct
from tfprune.patterns import NM, Block, Pattern


def problem(inputs=24, outputs=10, rows=200, seed=0, correlation=0.25):
    """Return correlated inputs X, float64, and a kernel."""
    rng = np.random.default_rng(seed)
    mix = np.eye(inputs) + correlation * rng.normal(size=(inputs, inputs))
    return rng.normal(size=(rows, inputs)) @ mix, rng.normal(size=(inputs, outputs))


def error(x, kernel, pruned):
    return np.linalg.norm(x @ (pruned - kernel))


def refit(kernel, gram, mask, damping=DAMPING):
    """Let the weights that a mask keeps make up for the others."""
    return prune_and_reconstruct(kernel, gram, 0.0, alive=mask, damping=damping)


def optimal_brain_surgeon(kernel, gram, zeros):
    """Remove one weight after the other, each time the one that costs least, as in the textbook."""
    hessian = gram + DAMPING * np.trace(gram) / len(gram) * np.eye(len(gram))
    kernel, mask = kernel.copy(), np.ones(kernel.shape, bool)
    for _ in range(zeros):
        candidates = []
        for output in range(kernel.shape[1]):
            kept = np.flatnonzero(mask[:, output])
            if kept.size:
                inverse = np.linalg.inv(hessian[np.ix_(kept, kept)])
                costs = kernel[kept, output] ** 2 / np.diag(inverse)
                worst = int(costs.argmin())
                change = -kernel[kept[worst], output] / inverse[worst, worst] * inverse[:, worst]
                candidates.append((costs[worst], output, kept, kept[worst], change))
        _, output, kept, removed, change = min(candidates, key=lambda candidate: candidate[0])
        kernel[kept, output] += change
        kernel[removed, output], mask[removed, output] = 0, False
    return kernel, mask


@pytest.mark.parametrize("sparsity", [0.25, 0.5, 0.75])
def test_weights_are_those_of_the_textbook_once_the_mask_is(sparsity):
    x, kernel = problem(inputs=12, outputs=6)
    expected, mask = optimal_brain_surgeon(kernel, x.T @ x, round(kernel.size * sparsity))
    np.testing.assert_allclose(refit(kernel, x.T @ x, mask), expected, atol=1e-4)


@pytest.mark.parametrize("sparsity", [0.25, 0.5, 0.75])
def test_the_mask_is_that_of_the_textbook_where_inputs_hardly_correlate(sparsity):
    x, kernel = problem(inputs=12, outputs=6, correlation=0.01, rows=5000)
    expected, _ = optimal_brain_surgeon(kernel, x.T @ x, round(kernel.size * sparsity))
    pruned = prune_and_reconstruct(kernel, x.T @ x, sparsity)
    np.testing.assert_allclose(pruned, expected, atol=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_the_error_is_near_that_of_the_textbook_where_inputs_correlate(seed):
    x, kernel = problem(inputs=12, outputs=6, seed=seed)
    expected, _ = optimal_brain_surgeon(kernel, x.T @ x, kernel.size // 2)
    pruned = prune_and_reconstruct(kernel, x.T @ x, 0.5)
    assert error(x, kernel, pruned) < 1.25 * error(x, kernel, expected)


def test_a_given_mask_leaves_the_least_squares_problem_of_each_output():
    x, kernel = problem()
    mask = np.random.default_rng(1).random(kernel.shape) < 0.4
    found = refit(kernel, x.T @ x, mask, damping=1e-9)
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
    assert not np.signbit(pruned[pruned == 0]).any()


@pytest.mark.parametrize("pattern", [NM(2, 4), NM(1, 4), NM(2, 4, axis="output")])
def test_n_of_m_weights_are_kept_in_every_group(pattern):
    x, kernel = problem(outputs=12)
    # All full groups are complete at share 1 of what the pattern can prune.
    pruned = prune_and_reconstruct(kernel, x.T @ x, pattern.sparsity, pattern)
    groups = (pruned.T if pattern.axis == "input" else pruned).reshape(-1, pattern.m)
    assert (np.count_nonzero(groups, axis=1) == pattern.n).all()


@given(
    pattern=st.sampled_from(["unstructured", "2:4", "1:4", Block((2, 2)), "row"]),
    sparsity=st.floats(0.05, 0.85),
    correlation=st.floats(0, 0.5),
    seed=st.integers(0, 100),
)
def test_error_is_never_above_that_of_the_magnitude_mask(pattern, sparsity, correlation, seed):
    x, kernel = problem(seed=seed, correlation=correlation)
    pattern = Pattern.get(pattern)
    sparsity = pattern.sparsity if isinstance(pattern, NM) else sparsity
    plain = kernel * local_mask(np.abs(kernel), sparsity, pattern)
    pruned = prune_and_reconstruct(kernel, x.T @ x, sparsity, pattern)
    assert error(x, kernel, pruned) <= error(x, kernel, plain)


@pytest.mark.parametrize("criterion", ["magnitude", "wanda"])
@pytest.mark.parametrize("sparsity", [0.3, 0.5, 0.7, 0.9])
def test_error_is_below_that_of_another_mask_also_if_that_is_refitted(criterion, sparsity):
    x, kernel = problem()
    norms = np.linalg.norm(x, axis=0)[:, None] if criterion == "wanda" else 1
    mask = local_mask(np.abs(kernel) * norms, sparsity)
    plain, refitted = kernel * mask, refit(kernel, x.T @ x, mask)
    pruned = prune_and_reconstruct(kernel, x.T @ x, sparsity)
    assert error(x, kernel, pruned) < error(x, kernel, refitted) < error(x, kernel, plain)


def test_the_first_weight_to_go_is_the_one_of_optimal_brain_surgeon():
    x, kernel = problem(outputs=1)
    gram = x.T @ x
    pruned = prune_and_reconstruct(kernel, gram, 1 / len(kernel), damping=1e-9)
    errors = [
        error(x, kernel, refit(kernel, gram, np.arange(len(kernel))[:, None] != i, damping=1e-9))
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


def test_no_sparsity_means_no_change():
    x, kernel = problem()
    assert np.array_equal(prune_and_reconstruct(kernel, x.T @ x, 0.0), kernel)


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_the_scale_of_the_inputs_does_not_matter(scale):
    x, kernel = (array.astype("float32") for array in problem())
    gram = x.T @ x
    expected = prune_and_reconstruct(kernel, gram, 0.5)
    found = prune_and_reconstruct(kernel, gram * np.float32(scale) ** 2, 0.5)
    np.testing.assert_allclose(found, expected, atol=1e-3)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_inputs_that_are_not_finite_are_refused(value):
    x, kernel = problem()
    gram = x.T @ x
    gram[0, 0] = value
    with pytest.raises(InvalidArgumentError, match="dense/kernel sees are NaN"):
        prune_and_reconstruct(kernel, gram, 0.5, path="dense/kernel")
