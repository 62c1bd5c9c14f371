import keras
import numpy as np
import pytest

from tfprune.criteria import Criterion, GradientMagnitude, Grasp, Snip, Taylor, WeightView
from tfprune.evidence import Probe, gather
from tfprune.kernel_layout import KernelLayout
from tfprune.patterns import Block
from tfprune.prunable import find_candidates
from tfprune.pruned_weight import PrunedWeight

layers = keras.layers


def probe_of(model, x, y):
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    weights = [PrunedWeight(c.variable, c.layout) for c in find_candidates(model) if not c.reason]
    return Probe(model, weights, (x, y))


@pytest.fixture
def probe():
    """A small classifier with its data."""
    rng = np.random.default_rng(0)
    hidden = layers.Dense(10, activation="tanh")
    model = keras.Sequential([keras.Input((6,)), hidden, layers.Dense(3)])
    return probe_of(model, rng.normal(size=(64, 6)), rng.integers(0, 3, size=64))


def scores(criterion, probe):
    return [
        criterion.score(WeightView(weight.values(), weight.path, evidence=evidence))
        for weight, evidence in zip(probe.weights, gather(criterion.evidence, probe), strict=True)
    ]


def mean_loss(probe):
    batches = list(probe.batches())
    return sum(float(probe.compute_loss(*batch)) for batch in batches) / len(batches)


def squared_norm(arrays):
    return sum(float(np.square(array).sum()) for array in arrays)


@pytest.mark.parametrize("name", ["gradient_magnitude", "snip", "taylor", "grasp"])
def test_scores_have_the_weights_shape_and_the_name_finds_the_criterion(name, probe):
    criterion = Criterion.get(name)
    assert criterion == Criterion.get(criterion.serialize())
    for weight, score in zip(probe.weights, scores(criterion, probe), strict=True):
        assert score.shape == weight.layout.shape
        assert score.dtype == np.float32
        assert not np.shares_memory(score, weight.values())


def test_only_the_gradient_alone_scores_pruned_weights():
    assert GradientMagnitude.scores_pruned
    assert not any(criterion.scores_pruned for criterion in (Snip, Taylor, Grasp))


def test_snip_is_the_derivative_by_a_factor_on_the_connection(probe):
    weight = probe.weights[0]
    score = scores(Snip(), probe)[0]
    values = weight.values().copy()
    for index in [(0, 0), (2, 5), (5, 9)]:
        losses = []
        for factor in (1.03, 0.97):
            changed = values.copy()
            changed[index] *= factor
            weight.variable.assign(changed)
            losses.append(mean_loss(probe))
        derivative = abs(losses[0] - losses[1]) / 0.06
        assert score[index] == pytest.approx(derivative, rel=0.02, abs=1e-5)


def test_taylor_is_the_squared_change_of_a_loss_that_is_linear_in_the_weight():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2, use_bias=False)])
    model.set_weights([np.arange(1, 7).reshape(3, 2) / 4])

    def loss(y, outputs, sample_weight=None):
        return keras.ops.mean(y * outputs)

    rng = np.random.default_rng(0)
    data = rng.normal(size=(64, 3)).astype("float32"), rng.normal(size=(64, 2)).astype("float32")
    weights = [PrunedWeight(c.variable, c.layout) for c in find_candidates(model)]
    probe = Probe(model, weights, data, loss=loss)
    score = scores(Taylor(), probe)[0]
    values = weights[0].values().copy()
    batches = list(probe.batches())
    assert len(batches) == 2
    for index in np.ndindex(values.shape):
        without = values.copy()
        without[index] = 0
        changes = []
        for batch in batches:
            weights[0].variable.assign(values)
            with_weight = float(probe.compute_loss(*batch))
            weights[0].variable.assign(without)
            changes.append(with_weight - float(probe.compute_loss(*batch)))
        assert score[index] == pytest.approx(np.mean(np.square(changes)), rel=1e-3)


def test_a_group_has_the_mean_of_the_squares_and_not_the_square_of_the_sum():
    evidence = {"squared_batch_gradient": np.array([[1.0], [1.0]])}
    score = Taylor().score(WeightView(np.array([[2.0], [-2.0]]), evidence=evidence))
    assert Block((2, 1)).unit_scores(score, KernelLayout.default((2, 1))).tolist() == [4.0]


def test_grasp_is_the_change_of_the_gradient_norm(probe):
    weight = probe.weights[0]
    score = scores(Grasp(), probe)[0]
    values = weight.values().copy()
    for index in [(0, 0), (2, 5), (5, 9)]:
        norms = []
        for factor in (1.03, 0.97):
            changed = values.copy()
            changed[index] *= factor
            weight.variable.assign(changed)
            norms.append(squared_norm(e["gradient"] for e in gather(["gradient"], probe)))
        # d (g^T g) / d (factor) = 2 w * H g
        assert 2 * score[index] == pytest.approx((norms[0] - norms[1]) / 0.06, rel=0.02, abs=1e-5)


def test_pruning_low_grasp_scores_keeps_the_gradient_flow_and_pruning_high_ones_stops_it():
    rng = np.random.default_rng(0)
    hidden = [layers.Dense(32, activation="tanh") for _ in range(2)]
    model = keras.Sequential([keras.Input((6,)), *hidden, layers.Dense(3)])
    probe = probe_of(model, rng.normal(size=(64, 6)), rng.integers(0, 3, size=64))
    values = [weight.values().copy() for weight in probe.weights]
    score = scores(Grasp(), probe)
    order = np.sort(np.concatenate([array.reshape(-1) for array in score]))
    tenth = len(order) // 10

    def flow_when(shrunk, factor):
        for weight, value, mask in zip(probe.weights, values, shrunk, strict=True):
            weight.variable.assign(np.where(mask, factor * value, value))
        return squared_norm(e["gradient"] for e in gather(["gradient"], probe))

    low = [array < order[tenth] for array in score]
    high = [array > order[-tenth - 1] for array in score]
    dense = flow_when(low, factor=1)
    assert flow_when(high, factor=0.9) < dense < flow_when(low, factor=0.9)
    assert flow_when(high, factor=0) < 0.2 * flow_when(low, factor=0)
