"""Criteria that look at the weights of a whole layer: FPGM and LAMP."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tfprune.criteria import Criterion, Fpgm, Lamp, WeightView
from tfprune.criteria.lamp import lamp_scores
from tfprune.kernel_layout import KernelLayout
from tfprune.masks import ScoredWeight, global_masks

LAYOUTS = [
    KernelLayout.default((5, 7)),
    KernelLayout.default((3, 3, 4, 6)),
    KernelLayout((3, 3, 6, 4), input_axes=(3,), output_axes=(2,)),
    KernelLayout((4, 5, 2), input_axes=(1,), output_axes=(0, 2)),
    KernelLayout.default((7,)),
]


def magnitudes(size):
    values = st.floats(0, 100, width=32) | st.sampled_from([0.0, 1.0, 2.0])
    return arrays(np.float32, size, elements=values)


@pytest.mark.parametrize("name", ["fpgm", "lamp"])
def test_scores_are_new_float_arrays_of_the_weights_shape(name):
    criterion = Criterion.get(name)
    assert criterion == Criterion.get(criterion.serialize())
    for layout in LAYOUTS:
        values = np.random.default_rng(0).normal(size=layout.shape).astype("float32")
        before = values.copy()
        values.flags.writeable = False
        scores = criterion.score(WeightView(values, layout=layout))
        assert scores.shape == layout.shape
        assert scores.dtype == np.float32
        assert scores.flags.writeable
        np.testing.assert_array_equal(values, before)


def test_fpgm_is_the_sum_of_all_distances_by_brute_force():
    for layout in LAYOUTS:
        values = np.random.default_rng(0).normal(size=layout.shape)
        filters = layout.to_taps(values).reshape(-1, layout.taps_shape[2]).T
        expected = [sum(np.linalg.norm(a - b) for b in filters) for a in filters]
        scores = layout.to_taps(Fpgm().score(WeightView(values, layout=layout)))
        np.testing.assert_allclose(scores, np.broadcast_to(expected, scores.shape), rtol=1e-10)


def test_fpgm_works_in_parts_where_a_filter_is_long():
    values = np.random.default_rng(0).normal(size=(9000, 5)).astype("float32") + 100
    expected = [np.linalg.norm(values.T - column, axis=1).sum() for column in values.T]
    np.testing.assert_allclose(Fpgm().score(WeightView(values))[0], expected, rtol=1e-5)


def test_fpgm_scores_the_filter_in_the_middle_lowest():
    filters = np.array([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0], [1.3, 1.3]])
    assert Fpgm().score(WeightView(filters.T))[0].argmin() == 3


def test_fpgm_does_not_count_pruned_filters():
    values = np.array([[5.0, 0.0, 8.0, 0.0]])
    alive = np.array([[True, False, True, False]])
    scores = Fpgm().score(WeightView(values, alive=alive))
    assert scores[0, [0, 2]].tolist() == [3.0, 3.0]


def test_equal_filters_are_no_distance_apart():
    values = np.full((3000, 4), 0.1, "float32") * np.arange(1, 3001, dtype="float32")[:, None]
    np.testing.assert_allclose(Fpgm().score(WeightView(values)), 0, atol=0.1)


def test_lamp_divides_by_the_squares_of_all_larger_weights():
    assert lamp_scores(np.array([1.0, 2.0, 3.0])).tolist() == [1 / 14, 4 / 13, 1.0]
    assert lamp_scores(np.array([2.0, 2.0, 1.0])).tolist() == [0.5, 0.5, 1 / 9]
    assert lamp_scores(np.zeros((2, 2))).tolist() == [[0.0, 0.0], [0.0, 0.0]]


@given(magnitudes(st.integers(1, 40)))
def test_lamp_is_its_definition_by_brute_force(scores):
    squares = scores.astype(np.float64) ** 2
    sums = [squares[scores >= score].sum() for score in scores]
    expected = [s / total if total else 0.0 for s, total in zip(squares, sums, strict=True)]
    np.testing.assert_allclose(lamp_scores(scores), expected, rtol=1e-6, atol=1e-30)


@given(magnitudes((3, 5)))
def test_lamp_keeps_the_order_and_does_not_see_the_scale(scores):
    lamp = lamp_scores(scores).reshape(-1)
    assert (np.diff(lamp[np.argsort(scores.reshape(-1))]) >= 0).all()
    np.testing.assert_allclose(lamp_scores(scores * 4).reshape(-1), lamp, rtol=1e-6, atol=1e-30)


def test_lamp_gives_every_layer_a_share_where_magnitudes_do_not():
    rng = np.random.default_rng(0)
    small, large = rng.normal(size=(2, 20, 20)) * np.array([0.01, 1.0])[:, None, None]

    def kept(criterion):
        scored = [ScoredWeight(criterion.score(WeightView(w))) for w in (small, large)]
        return [int(mask.sum()) for mask in global_masks(scored, 0.5)]

    assert kept(Criterion.get("magnitude"))[0] < 20
    assert sum(kept(Lamp())) == 400
    assert abs(kept(Lamp())[0] - 200) < 30


def test_weights_that_are_not_numbers_are_not_hidden():
    with np.errstate(invalid="ignore"):
        assert np.isnan(lamp_scores(np.array([1.0, np.nan]))).any()
