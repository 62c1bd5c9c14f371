import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tfprune.errors import InvalidArgumentError
from tfprune.kernel_layout import KernelLayout
from tfprune.masks import (
    ScoredWeight,
    global_masks,
    kept_count,
    kept_weights,
    local_mask,
    threshold_masks,
)
from tfprune.patterns import (
    NM,
    Block,
    Channel,
    Filter,
    Head,
    Kernel,
    Row,
    Unstructured,
    Vector,
)

SHAPES = hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=9)
# Few distinct values, so that ties are common.
SCORES = SHAPES.flatmap(
    lambda shape: hnp.arrays(np.float32, shape, elements=st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.0]))
)
SPARSITIES = st.floats(0, 0.999)
PATTERNS = st.sampled_from(
    [
        Unstructured(),
        Block((2, 3)),
        Vector(3),
        Vector(2, axis="output"),
        Kernel(),
        Row(),
        Filter(),
        Channel(),
        Head(),
        NM(2, 4),
    ]
)


@st.composite
def layouts(draw):
    """Dense, convolution, transposed convolution, attention and vector layouts of small shapes."""
    a, b, c, d = (draw(st.integers(1, 6)) for _ in range(4))
    return draw(
        st.sampled_from(
            [
                KernelLayout.default((a, b)),
                KernelLayout.default((a, b, c, d)),
                KernelLayout((a, b, c, d), input_axes=(3,), output_axes=(2,)),
                KernelLayout((a, 2 * b, c), (0,), (1, 2), heads=(1, b)),
                KernelLayout((2 * a, b, c), (0, 1), (2,), heads=(0, a)),
                KernelLayout.default((a,)),
            ]
        )
    )


def random_scores(layout, seed):
    """Scores with ties."""
    return np.random.default_rng(seed).integers(0, 6, layout.shape).astype(np.float32)


def largest_unit(pattern, layout):
    return int(np.max(pattern.unit_sizes(layout)))


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
    pattern=PATTERNS, layout=layouts(), sparsity=SPARSITIES, seed=st.integers(0, 9), data=st.data()
)
def test_every_pattern_has_its_exact_count_and_its_best_units(
    pattern, layout, sparsity, seed, data
):
    scores = random_scores(layout, seed)
    if isinstance(pattern, NM):
        sparsity *= pattern.sparsity
    mask = local_mask(scores, sparsity, pattern, layout=layout)
    kept = kept_weights(layout, sparsity, pattern)
    if isinstance(pattern.unit_sizes(layout), int):
        assert mask.sum() == kept
    assert abs(int(mask.sum()) - kept) <= largest_unit(pattern, layout)
    unit_mask = pattern.unit_scores(mask.astype(np.float32), layout)
    assert set(unit_mask) <= {0, 1}, "a unit was pruned in part"
    if not isinstance(pattern, NM):
        units = pattern.unit_scores(scores, layout)
        assert units[unit_mask == 1].min() >= units[unit_mask == 0].max(initial=-np.inf)
    again = local_mask(scores, sparsity, pattern, layout=layout, alive=mask)
    assert (again == mask).all(), "the same mask again should change nothing"


@given(
    pattern=PATTERNS,
    layout=layouts(),
    sparsities=st.tuples(SPARSITIES, SPARSITIES),
    seed=st.integers(0, 9),
)
def test_no_pattern_revives_weights_that_another_one_pruned(pattern, layout, sparsities, seed):
    scores = random_scores(layout, seed)
    alive = local_mask(scores.max() - scores, sparsities[0])
    sparsity = sparsities[1] * (pattern.sparsity if isinstance(pattern, NM) else 1)
    mask = local_mask(scores, sparsity, pattern, layout=layout, alive=alive)
    assert not (mask & ~alive).any()
    asked = min(int(alive.sum()), kept_weights(layout, sparsity, pattern))
    assert abs(int(mask.sum()) - asked) <= largest_unit(pattern, layout)
    assert mask.any()


def test_units_that_are_pruned_in_part_count_what_they_have_left():
    scores = np.array([[8.0, 3, 2, 9], [7, 4, 1, 6]])
    alive = np.array([[1, 1, 0, 0], [1, 1, 0, 1]], bool)
    half = local_mask(scores, 0.5, Filter(), alive=alive)
    assert half.astype(int).tolist() == [[1, 1, 0, 0], [1, 1, 0, 0]]
    assert (local_mask(scores, 0.375, Filter(), alive=alive) == alive).all()


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
    groups=st.integers(2, 9).flatmap(lambda m: st.tuples(st.integers(1, m - 1), st.just(m))),
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


def test_bounds_hold_for_every_weight_and_the_total_stays_exact():
    strong, middle, weak = np.array([9.0, 8, 7, 6]), np.array([5.0, 1, 1, 1]), np.arange(4) / 4

    def kept(**bounds):
        weights = [ScoredWeight(scores) for scores in (strong, middle, weak)]
        return [int(mask.sum()) for mask in global_masks(weights, 0.5, **bounds)]

    assert kept() == [4, 1, 1]
    assert kept(min_sparsity=0.25) == [3, 2, 1]
    assert kept(max_sparsity=0.5) == [2, 2, 2]
    assert kept(min_sparsity=0.5, max_sparsity=0.5) == [2, 2, 2]
    assert kept(min_sparsity=0.1, max_sparsity=0.6) == [4, 1, 1], "both bounds allow one unit more"


def test_a_bound_that_is_whole_but_for_rounding_counts_as_whole():
    weights = [ScoredWeight(np.arange(20.0) + 100), ScoredWeight(np.arange(20.0))]
    masks = global_masks(weights, 0.5, max_sparsity=0.9)  # 20 * (1 - 0.9) is a hair below 2.
    assert [int(mask.sum()) for mask in masks] == [18, 2]


@given(
    weights=st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=5), min_size=1, max_size=3),
    bounds=st.tuples(st.floats(0, 0.99), st.floats(0, 1)).map(sorted),
    share=st.floats(0, 1),
)
def test_within_bounds_the_kept_scores_are_the_highest_possible(weights, bounds, share):
    low, high = bounds
    sparsity = min(low + share * (high - low), 0.99)
    scores = [np.array(weight, np.float32) for weight in weights]
    masks = global_masks([ScoredWeight(s) for s in scores], sparsity, None, low, high)
    counts = [int(mask.sum()) for mask in masks]

    def choices(size):
        return range(
            max(math.floor(size * (1 - high) + 1e-6), 1),
            max(math.ceil(size * (1 - low) - 1e-6), 1) + 1,
        )

    allowed = [choices(s.size) for s in scores]
    assert all(count in choice for count, choice in zip(counts, allowed, strict=True))
    total = max(kept_count(sum(s.size for s in scores), sparsity), sum(c[0] for c in allowed))
    assert sum(counts) == total
    best = max(
        sum(np.sort(s)[::-1][:count].sum() for s, count in zip(scores, combination, strict=True))
        for combination in itertools.product(*allowed)
        if sum(combination) == total
    )
    assert sum(s[mask].sum() for s, mask in zip(scores, masks, strict=True)) == best


@given(
    pattern=PATTERNS,
    shapes=st.lists(layouts(), min_size=1, max_size=4),
    bounds=st.tuples(st.floats(0, 0.99), st.floats(0, 1)).map(sorted),
    share=st.floats(0, 1),
)
def test_bounds_hold_to_one_unit_with_every_pattern(pattern, shapes, bounds, share):
    low, high = bounds
    sparsity = min(low + share * (high - low), 0.99)
    if isinstance(pattern, NM):
        low, high, sparsity = (n * pattern.sparsity for n in (low, high, sparsity))
    weights = [ScoredWeight(random_scores(layout, i), layout) for i, layout in enumerate(shapes)]
    masks = global_masks(weights, sparsity, pattern, low, high)
    for mask, layout in zip(masks, shapes, strict=True):
        prunable, unit = pattern.prunable_size(layout), largest_unit(pattern, layout)
        zeros = mask.size - int(mask.sum())
        assert low * prunable - unit - 1e-6 <= zeros <= high * prunable + unit + 1e-6
        assert mask.any()


@pytest.mark.parametrize("bounds", [(0.6, 0.9), (0.0, 0.4), (0.9, 0.1)])
def test_a_sparsity_outside_of_the_bounds_is_refused(bounds):
    with pytest.raises(InvalidArgumentError, match="widen the bounds"):
        global_masks([ScoredWeight(np.arange(8.0))], 0.5, None, *bounds)


ATTENTION = {
    "query": KernelLayout((1, 4, 2), (0,), (1, 2), heads=(1, 2)),
    "key": KernelLayout((1, 2, 2), (0,), (1, 2), heads=(1, 2)),
    "output": KernelLayout((4, 2, 1), (0, 1), (2,), heads=(0, 2)),
}


def test_kernels_of_one_attention_layer_share_their_heads():
    scores = {
        "query": np.array([[[1.0, 1], [1, 1], [3, 3], [3, 3]]]),
        "key": np.array([[[7.0, 7], [0, 0]]]),
        "output": np.array([[2.0, 2], [2, 2], [2, 2], [2, 2]])[..., None],
    }
    weights = [ScoredWeight(scores[n], ATTENTION[n], group="mha") for n in ATTENTION]
    # Of the 10 weights of each head: (4 + 14 + 8) / 10 = 2.6, and (12 + 0 + 8) / 10 = 2.0.
    query, key, output = global_masks(weights, 0.5, Head())
    assert query[0, :, 0].astype(int).tolist() == [1, 1, 0, 0]
    assert key[0, :, 0].astype(int).tolist() == [1, 0]
    assert output[:, 0, 0].astype(int).tolist() == [1, 1, 0, 0]
    assert [int(m.sum()) for m in threshold_masks(weights, 2.5, Head())] == [4, 2, 4]
    assert [int(m.sum()) for m in threshold_masks(weights, 1.0, Head(), "mean")] == [4, 2, 4]
    alone = [ScoredWeight(scores[n], ATTENTION[n]) for n in ATTENTION]
    query, key, _ = global_masks(alone, 0.5, Head())
    assert (int(query[0, 3, 0]), int(key[0, 0, 0])) == (1, 1), "without a group each for itself"


def test_a_head_that_is_gone_in_one_kernel_does_not_come_back_there():
    weights = [
        ScoredWeight(np.ones(layout.shape), layout, group="mha") for layout in ATTENTION.values()
    ]
    gone = np.ones((1, 4, 2), bool)
    gone[:, :2] = False
    weights[0] = ScoredWeight(weights[0].scores, ATTENTION["query"], gone, group="mha")
    query, key, output = global_masks(weights, 0.3, Head())
    assert (query == gone).all()
    assert key.all()
    assert output.all()


def test_coupled_kernels_with_other_numbers_of_heads_are_refused():
    other = KernelLayout((1, 3, 2), (0,), (1, 2), heads=(1, 3))
    weights = [
        ScoredWeight(np.ones(layout.shape), layout, group=0)
        for layout in (ATTENTION["query"], other)
    ]
    with pytest.raises(InvalidArgumentError, match=r"one number of units. Received: \[2, 3\]"):
        global_masks(weights, 0.5, Head())


def test_a_threshold_keeps_what_scores_at_least_as_much():
    weights = [ScoredWeight(np.array([1.0, 2, 3, 6])), ScoredWeight(np.array([0.0, 0.5]))]

    def kept(*arguments):
        masks = threshold_masks(weights, *arguments)
        return [mask.astype(int).tolist() for mask in masks]

    assert kept(2.0) == [[0, 1, 1, 1], [0, 1]], "the best of the second stays though it is below"
    assert kept(1.0, None, "mean") == [[0, 0, 1, 1], [0, 1]]
    assert kept(1.0, None, "mean", "global") == [[0, 0, 1, 1], [0, 1]]
    assert kept(0.5, None, "max") == [[0, 0, 1, 1], [0, 1]]
    assert kept(0.1, None, "max") == [[1, 1, 1, 1], [0, 1]]
    assert kept(0.1, None, "max", "global") == [[1, 1, 1, 1], [0, 1]]
    assert kept(2.0, Filter()) == [[0, 1, 1, 1], [0, 1]]


def test_pruned_weights_count_as_zeros_in_the_statistic_of_a_threshold():
    alive = np.array([False, True, True, True])
    weights = [ScoredWeight(np.array([9.0, 1, 3, 6]), alive=alive)]
    (mask,) = threshold_masks(weights, 1.0, relative_to="mean")
    assert mask.tolist() == [False, False, True, True], "the mean is (0 + 1 + 3 + 6) / 4"


@given(
    pattern=PATTERNS,
    shapes=st.lists(layouts(), min_size=1, max_size=4),
    threshold=st.floats(0, 3),
    relative_to=st.sampled_from([None, "mean", "max", "std"]),
    scope=st.sampled_from(["layer", "global"]),
)
def test_threshold_masks_agree_with_their_definition(
    pattern, shapes, threshold, relative_to, scope
):
    weights = [ScoredWeight(random_scores(layout, i), layout) for i, layout in enumerate(shapes)]
    masks = threshold_masks(weights, threshold, pattern, relative_to, scope)
    units = [pattern.unit_scores(w.scores, w.layout).astype(np.float64) for w in weights]
    for index, (mask, weight) in enumerate(zip(masks, weights, strict=True)):
        compared = units[index] if scope == "layer" else np.concatenate(units)
        cut = threshold * (getattr(np, relative_to)(compared) if relative_to else 1)
        unit_mask = pattern.unit_scores(mask.astype(np.float32), weight.layout) == 1
        assert mask.any()
        clear = np.abs(units[index] - cut) > 1e-5
        above = clear & (units[index] > cut)
        assert unit_mask[above].all()
        if isinstance(pattern, NM):
            full = local_mask(weight.scores, pattern.sparsity, pattern, layout=weight.layout)
            assert mask[full].all(), "n of every m stay"
        elif unit_mask.sum() > 1:
            assert not unit_mask[clear & ~above].any()


@given(
    pattern=PATTERNS,
    layout=layouts(),
    threshold=st.floats(0, 3),
    relative_to=st.sampled_from([None, "mean", "max"]),
)
def test_a_threshold_does_not_creep_upwards(pattern, layout, threshold, relative_to):
    scores = random_scores(layout, 0)
    (mask,) = threshold_masks([ScoredWeight(scores, layout)], threshold, pattern, relative_to)
    pruned = ScoredWeight(scores, layout, mask)
    (again,) = threshold_masks([pruned], threshold, pattern, relative_to)
    assert (again == mask).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1.0, None, "median"), "`relative_to` is None or one of"),
        ((1.0, None, "mean", "model"), "`scope` is one of"),
        ((math.nan,), "`threshold` must be finite"),
    ],
)
def test_bad_thresholds_are_refused(arguments, message):
    with pytest.raises(InvalidArgumentError, match=message):
        threshold_masks([ScoredWeight(np.ones(4))], *arguments)


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
