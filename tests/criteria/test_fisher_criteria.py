import keras
import numpy as np
import pytest

from tfprune.criteria import BlockFisher, Criterion, Fisher, WeightView
from tfprune.evidence import Probe, gather
from tfprune.evidence.fisher import DAMPING
from tfprune.prunable import find_candidates
from tfprune.pruned_weight import PrunedWeight

layers = keras.layers


def softmax_error(x, y, weights):
    """The derivative of each example's cross-entropy by its logits."""
    odds = np.exp(x @ weights)
    return odds / odds.sum(axis=1, keepdims=True) - np.eye(2)[y]


@pytest.fixture
def fitted():
    """A softmax regression at its minimum, where the Fisher information is the Hessian."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(256, 8)).astype("float32") * np.linspace(0.3, 1.5, 8)
    y = np.argmax(x @ rng.normal(size=(8, 2)) + rng.gumbel(size=(256, 2)), axis=1)
    weights = np.zeros((8, 2))
    for _ in range(500):
        weights -= x.T @ softmax_error(x, y, weights) / len(x)
    model = keras.Sequential([keras.Input((8,)), layers.Dense(2, use_bias=False)])
    model.set_weights([weights])
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model, x, y


def probe_of(model, x, y):
    weights = [PrunedWeight(c.variable, c.layout) for c in find_candidates(model)]
    return Probe(model, weights, (x, y))


def score_of(criterion, probe):
    weight, evidence = probe.weights[0], gather(criterion.evidence, probe)[0]
    return criterion.score(WeightView(weight.values(), weight.path, evidence=evidence))


@pytest.mark.parametrize("name", ["fisher", "block_fisher"])
def test_scores_have_the_weights_shape_and_the_name_finds_the_criterion(name, fitted):
    criterion = Criterion.get(name)
    assert criterion == Criterion.get(criterion.serialize())
    score = score_of(criterion, probe_of(*fitted))
    assert score.shape == (8, 2)
    assert score.dtype == np.float32
    assert (score >= 0).all()


def test_fisher_predicts_the_loss_without_a_weight(fitted):
    model, x, y = fitted
    score = score_of(Fisher(), probe_of(model, x, y))
    values = model.get_weights()[0]
    base = model.evaluate(x, y, verbose=0)
    actual = np.empty_like(values)
    for index in np.ndindex(values.shape):
        without = values.copy()
        without[index] = 0
        model.set_weights([without])
        actual[index] = model.evaluate(x, y, verbose=0) - base
    assert np.corrcoef(score.reshape(-1), actual.reshape(-1))[0, 1] > 0.9
    assert np.median(score / actual) == pytest.approx(1, abs=0.4)


def test_block_fisher_is_the_least_loss_when_the_other_weights_make_up_for_one(fitted):
    model, x, y = fitted
    score = score_of(BlockFisher(), probe_of(model, x, y))
    values = model.get_weights()[0]
    error = softmax_error(x, y, values)
    for output in range(2):
        gradients = x * error[:, [output]]
        fisher = gradients.T @ gradients / len(x)
        fisher += DAMPING * np.trace(fisher) / 8 * np.eye(8)
        for index in range(8):
            # Minimize d^T F d / 2 over the others, with d[index] = -w[index].
            others = np.delete(np.arange(8), index)
            change = np.zeros(8)
            change[index] = -values[index, output]
            change[others] = -np.linalg.solve(
                fisher[np.ix_(others, others)], fisher[others, index] * change[index]
            )
            least = change @ fisher @ change / 2
            assert score[index, output] == pytest.approx(least, rel=1e-2)


def test_of_two_weights_that_do_the_same_each_is_worth_little():
    rng = np.random.default_rng(0)
    one = rng.normal(size=(64, 1))
    x = np.concatenate([one, one, rng.normal(size=(64, 1))], axis=1)
    model = keras.Sequential([keras.Input((3,)), layers.Dense(1, use_bias=False)])
    model.set_weights([np.ones((3, 1))])
    model.compile(loss=keras.losses.MeanSquaredError())
    probe = probe_of(model, x, x.sum(axis=1, keepdims=True) + rng.normal(size=(64, 1)))
    twins, single = score_of(BlockFisher(), probe)[[0, 2], 0]
    assert twins < 0.1 * single
    twins, single = score_of(Fisher(), probe)[[0, 2], 0]
    assert twins > 0.3 * single
