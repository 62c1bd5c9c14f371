import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from tfprune.evidence import Probe, gather
from tfprune.evidence.fisher import BLOCK_SIZE, DAMPING, BlockFisher, _portions
from tfprune.kernel_layout import KernelLayout
from tfprune.prunable import SkipReason, find_candidates
from tfprune.pruned_weight import PrunedWeight

layers = keras.layers
MSE = keras.losses.MeanSquaredError()


def inverse_diagonal_by_definition(gradients, layout, alive=None):
    """Build and invert each block on its own, in float64.

    Args:
        gradients: array (examples, *weight shape).
    """
    taps, inputs, outputs = layout.taps_shape
    rows = taps * inputs
    size = min(BLOCK_SIZE, rows)
    if alive is not None:
        gradients = gradients * alive
    columns = np.stack([layout.to_taps(g).reshape(rows, outputs) for g in gradients])
    columns = columns.astype(float)
    result = np.empty((rows, outputs))
    for output in range(outputs):
        for start in range(0, rows, size):
            g = columns[:, start : start + size, output]
            fisher = g.T @ g / len(g)
            if not fisher.any():
                result[start : start + size, output] = np.inf
                continue
            fisher += DAMPING * np.trace(fisher) / size * np.eye(len(fisher))
            result[start : start + size, output] = np.diag(np.linalg.inv(fisher))
    return layout.from_taps(result)


def probe_of(layer, x, include=(None,), mask=None):
    model = keras.Sequential([keras.Input(x.shape[1:]), layer, layers.Flatten(), layers.Dense(2)])
    candidate = next(c for c in find_candidates(model) if c.reason in include)
    weight = PrunedWeight(candidate.variable, candidate.layout, mask, candidate.owners)
    return Probe(model, [weight], (x, np.ones((len(x), 2))), loss=MSE)


def example_gradients(probe, x):
    variable = probe.weights[0].variable.value
    gradients = []
    for example in x:
        with tf.GradientTape() as tape:
            loss = MSE(np.ones((1, 2)), probe.model(example[None]))
        gradients.append(tape.gradient(loss, variable).numpy())
    return np.stack(gradients)


CASES = {
    "Dense": (lambda: layers.Dense(3), (20,)),
    "a narrow Dense": (lambda: layers.Dense(3), (5,)),
    "EinsumDense": (lambda: layers.EinsumDense("abc,cde->abde", (4, 2, 3)), (4, 17)),
    "1x1 convolution": (lambda: layers.Conv2D(4, 1), (3, 3, 18)),
    "3x3 convolution": (lambda: layers.Conv2D(4, 3), (5, 5, 3)),
    "transposed convolution": (lambda: layers.Conv2DTranspose(3, 3), (3, 3, 5)),
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_the_diagonal_of_the_inverse_of_each_block(name):
    make, shape = CASES[name]
    x = np.random.default_rng(0).normal(size=(24, *shape)).astype("float32")
    probe = probe_of(make(), x)
    evidence = gather(["block_fisher_inverse_diagonal"], probe)[0]["block_fisher_inverse_diagonal"]
    layout = probe.weights[0].layout
    expected = inverse_diagonal_by_definition(example_gradients(probe, x), layout)
    assert evidence.dtype == np.float32
    np.testing.assert_allclose(evidence, expected, rtol=2e-3)


def test_a_depthwise_kernel_has_it_too():
    x = np.random.default_rng(0).normal(size=(8, 4, 4, 3)).astype("float32")
    probe = probe_of(layers.DepthwiseConv2D(3), x, include=[SkipReason.ON_REQUEST])
    evidence = gather(["block_fisher_inverse_diagonal"], probe)[0]["block_fisher_inverse_diagonal"]
    expected = inverse_diagonal_by_definition(example_gradients(probe, x), probe.weights[0].layout)
    np.testing.assert_allclose(evidence, expected, rtol=2e-3)


def test_pruned_weights_are_left_out_of_the_blocks():
    x = np.random.default_rng(0).normal(size=(24, 20)).astype("float32")
    alive = np.random.default_rng(1).random((20, 3)) < 0.5
    probe = probe_of(layers.Dense(3), x, mask=keras.Variable(alive, trainable=False, dtype="bool"))
    evidence = gather(["block_fisher_inverse_diagonal"], probe)[0]["block_fisher_inverse_diagonal"]
    gradients = example_gradients(probe, x)
    expected = inverse_diagonal_by_definition(gradients, probe.weights[0].layout, alive)
    np.testing.assert_allclose(evidence, expected, rtol=2e-3)


def test_goldens_of_two_correlated_weights():
    fisher = BlockFisher(KernelLayout.default((2, 1)))
    fisher.add(np.array([[3.0], [1.0]]))
    fisher.add(np.array([[1.0], [3.0]]))
    # F = [[5, 3], [3, 5]] + 0.05 I, and its inverse has 5.05 / (5.05^2 - 3^2) on the diagonal.
    golden = 5.05 / (5.05**2 - 9)
    np.testing.assert_allclose(fisher.inverse_diagonal(), [[golden], [golden]], rtol=1e-6)


def test_a_unit_without_gradient_is_infinitely_uncertain():
    fisher = BlockFisher(KernelLayout.default((2, 2)))
    fisher.add(np.array([[0.0, 1.0], [0.0, 1.0]]))
    inverse = fisher.inverse_diagonal()
    assert np.isposinf(inverse[:, 0]).all()
    assert np.isfinite(inverse[:, 1]).all()


@given(
    st.integers(1, 3), st.integers(1, 20), st.integers(1, 3), st.integers(1, 5), st.integers(0, 99)
)
def test_it_agrees_with_the_definition_in_any_shape(taps, inputs, outputs, examples, seed):
    rng = np.random.default_rng(seed)
    # Axes in the order (outputs, inputs, taps): all of them have to be moved.
    layout = KernelLayout((outputs, inputs, taps), input_axes=(1,), output_axes=(0,))
    gradients = rng.normal(size=(examples, *layout.shape)) * 10.0 ** rng.integers(-6, 6)
    alive = rng.random(layout.shape) < 0.8
    fisher = BlockFisher(layout, alive)
    for gradient in gradients:
        fisher.add(gradient.astype("float32"))
    expected = inverse_diagonal_by_definition(gradients, layout, alive)
    np.testing.assert_allclose(fisher.inverse_diagonal(), expected, rtol=1e-2)


def test_in_portions_it_is_the_same(monkeypatch):
    model = keras.Sequential(
        [
            keras.Input((12,)),
            *(layers.Dense(units, "relu") for units in (24, 16, 8)),
            layers.Dense(2),
        ]
    )
    candidates = [c for c in find_candidates(model) if c.reason is None]
    weights = [PrunedWeight(c.variable, c.layout) for c in candidates]
    data = np.random.default_rng(0).normal(size=(5, 12)).astype("float32"), np.ones((5, 2))
    probe = Probe(model, weights, data, loss=MSE)
    evidence = []
    for minimum, count in ((1 << 20, 1), (1, 4)):
        monkeypatch.setattr("tfprune.evidence.fisher._MIN_PORTION", minimum)
        assert len([*_portions(probe)]) == count
        evidence.append(gather(["block_fisher_inverse_diagonal"], probe))
    for whole, portion in zip(*evidence, strict=True):
        for name, array in whole.items():
            np.testing.assert_array_equal(array, portion[name])
