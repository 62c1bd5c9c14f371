import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tfprune.errors import InvalidArgumentError
from tfprune.kernel_layout import KernelLayout
from tfprune.masks import ScoredWeight, global_masks, kept_count, kept_weights, local_mask
from tfprune.patterns import NM, Block, Unstructured

SHAPES = hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=9)
# Few distinct values, so that ties are common.
SCORES = SHAPES.flatmap(
    lambda shape: hnp.arrays(np.float32, shape, elements=st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.0]))
)
SPARSITIES = st.floats(0, 0.999)


@pytest.mark.parametrize(
    ("size", "sparsity", "kept"),
    [
        (10, 0.5, 5),
        (8, 0.5, 4),
        (5, 0.5, 2),
        (7, 0.5, 4),
        (10, 0.9, 1),
        (10, 0.999, 1),
        (3, 0.0, 3),
    ],
)
def test_the_kept_count_rounds_half_to_even_and_keeps_one(size, sparsity, kept):
    assert kept_count(size, sparsity) == kept


def test_ties_keep_the_lower_index_where_tfmot_prunes_nothing():
    assert local_mask(np.ones(8), 0.5).tolist() == [True] * 4 + [False] * 4


@given(scores=SCORES, sparsity=SPARSITIES)
def test_an_unstructured_mask_has_the_exact_count_and_the_highest_scores(scores, sparsity):
    mask = local_mask(scores, sparsity)
    assert mask.shape == scores.shape
    assert mask.dtype == bool
    assert mask.sum() == kept_count(scores.size, sparsity)
    if not mask.all():
        assert scores[mask].min() >= scores[~mask].max()
    kept_ties = mask[scores == scores[mask].min()].ravel()
    assert (np.sort(kept_ties)[::-1] == kept_ties).all(), "a later tie was kept before an earlier"


@given(scores=SCORES, sparsities=st.tuples(SPARSITIES, SPARSITIES))
def test_pruned_weights_stay_pruned(scores, sparsities):
    first, second = sparsities
    before = local_mask(scores, first)
    after = local_mask(scores, second, alive=before)
    assert not (after & ~before).any()
    assert after.sum() == min(before.sum(), kept_count(scores.size, second))


@given(weights=st.lists(SCORES, min_size=1, max_size=5), sparsity=SPARSITIES)
def test_global_masks_share_one_threshold_and_one_count(weights, sparsity):
    masks = global_masks([ScoredWeight(scores) for scores in weights], sparsity)
    assert [mask.shape for mask in masks] == [scores.shape for scores in weights]
    total = sum(scores.size for scores in weights)
    # Every weight keeps its best, so that no layer is cut off.
    kept = sum(int(mask.sum()) for mask in masks)
    assert kept == max(kept_count(total, sparsity), len(weights))
    assert all(mask.any() for mask in masks)
    cut = [
        scores[~mask].max() for scores, mask in zip(weights, masks, strict=True) if not mask.all()
    ]
    beside_best = [
        np.sort(scores[mask])[:-1].min()
        for scores, mask in zip(weights, masks, strict=True)
        if mask.sum() > 1
    ]
    assert not cut or not beside_best or min(beside_best) >= max(cut)


@given(
    scores=hnp.arrays(
        np.float32, st.tuples(*[st.integers(1, 9)] * 2), elements=st.floats(0, 5, width=32)
    ),
    shape=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    sparsity=SPARSITIES,
)
def test_blocks_are_kept_or_pruned_as_a_whole(scores, shape, sparsity):
    pattern, layout = Block(shape), KernelLayout.default(scores.shape)
    mask = local_mask(scores, sparsity, pattern)
    for row in range(0, scores.shape[0], shape[0]):
        for column in range(0, scores.shape[1], shape[1]):
            block = mask[row : row + shape[0], column : column + shape[1]]
            assert block.all() or not block.any()
    assert abs(int(mask.sum()) - kept_weights(layout, sparsity, pattern)) <= math.prod(shape)


@given(
    taps=st.integers(1, 3),
    inputs=st.integers(1, 13),
    outputs=st.integers(1, 5),
    groups=st.sampled_from([(2, 4), (1, 4), (3, 4), (1, 2), (2, 5)]),
    axis=st.sampled_from(["input", "output"]),
    share=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_an_n_m_pattern_leads_from_dense_to_n_of_every_m(
    taps, inputs, outputs, groups, axis, share, seed
):
    n, m = groups
    pattern = NM(n, m, axis)
    scores = np.random.default_rng(seed).random((taps, inputs, outputs), dtype=np.float32)
    layout = KernelLayout.default(scores.shape)
    partial = local_mask(scores, share * pattern.sparsity, pattern)
    assert partial.sum() == kept_weights(layout, share * pattern.sparsity, pattern)
    full = local_mask(scores, pattern.sparsity, pattern, alive=partial)
    assert full.sum() == kept_weights(layout, pattern.sparsity, pattern)
    along = full if axis == "input" else full.swapaxes(1, 2)
    length = along.shape[1] - along.shape[1] % m
    grouped = along[:, :length].reshape(taps, length // m, m, along.shape[2])
    assert (grouped.sum(axis=2) == n).all()
    assert along[:, length:].all(), "a remainder that fills no group stays dense"


def test_two_of_four_keeps_the_larger_two():
    weights = np.array([[1.0, -4, 3, 2, 8, 5, -6, 7]]).T
    mask = local_mask(np.abs(weights), 0.5, NM(2, 4))
    assert mask[:, 0].astype(int).tolist() == [0, 1, 1, 0, 1, 0, 0, 1]


def test_two_of_four_runs_along_the_input_channels_of_a_convolution():
    scores = np.random.default_rng(0).random((3, 3, 8, 6), dtype=np.float32)
    mask = local_mask(scores, 0.5, NM(2, 4))
    assert (mask.reshape(9, 2, 4, 6).sum(axis=2) == 2).all()


@pytest.mark.parametrize("pattern", [Unstructured(), Block((2, 3)), NM(2, 4)])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_refused_by_name(pattern, bad):
    scores = np.ones((8, 8), np.float32)
    scores[3, 4] = bad
    with pytest.raises(InvalidArgumentError, match="conv1/kernel has 1 scores that are NaN"):
        local_mask(scores, 0.5, pattern, path="conv1/kernel")


@pytest.mark.parametrize("order", ["random", "sorted", "periodic", "constant"])
@pytest.mark.parametrize("sparsity", [0.0001, 0.5, 0.9, 0.9999])
def test_large_weights_are_cut_exactly_whatever_a_sample_of_them_shows(order, sparsity):
    scores = np.random.default_rng(0).random(300_000, dtype=np.float32)
    if order == "sorted":
        scores.sort()
    elif order == "periodic":
        scores[::4] += 10  # The sample takes every fourth score, and so sees only these.
    elif order == "constant":
        scores[:] = 1
    mask = local_mask(scores, sparsity)
    assert mask.sum() == kept_count(scores.size, sparsity)
    assert scores[mask].min() >= scores[~mask].max()


@pytest.mark.parametrize("sparsity", [0.79, 0.8, 0.81, 0.999])
def test_large_weights_that_are_pruned_already_are_cut_exactly(sparsity):
    scores = np.random.default_rng(0).random(300_000, dtype=np.float32)
    alive = local_mask(scores, 0.8)
    mask = local_mask(scores, sparsity, alive=alive)
    assert mask.sum() == min(alive.sum(), kept_count(scores.size, sparsity))
    assert not (mask & ~alive).any()
    assert scores[mask].min() >= scores[alive & ~mask].max(initial=0)


def test_scores_are_left_as_they_are():
    scores = np.arange(12, dtype=np.float32).reshape(3, 4)
    before = scores.copy()
    global_masks([ScoredWeight(scores)], 0.5)
    local_mask(scores, 0.5, NM(1, 3), alive=scores > 2)
    assert (scores == before).all()
