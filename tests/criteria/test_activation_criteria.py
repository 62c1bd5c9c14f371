"""Criteria that look at activations, and Wanda, from the model to the scores."""

import keras
import numpy as np
import pytest

from tfprune.criteria import Apoz, Criterion, Wanda, WeightView
from tfprune.evidence import Probe, gather
from tfprune.kernel_layout import KernelLayout
from tfprune.masks import local_mask
from tfprune.pruned_weight import PrunedWeight
from tfprune.selection import select_weights

layers = keras.layers

OF_UNITS = [
    "activation_mean",
    "activation_max",
    "activation_min",
    "activation_variance",
    "apoz",
    "norm_scale",
]


@pytest.fixture
def net():
    """A convolution with normalization and ReLU, and a dense layer with normalization."""
    return keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(4, 3, name="conv"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Flatten(),
            layers.Dense(3, name="dense"),
            layers.BatchNormalization(),
        ]
    )


def scored(criterion, model, data):
    """Weights and their scores."""
    weights = [
        PrunedWeight(c.variable, c.layout, owners=c.owners)
        for c in select_weights(model)
        if c.reason is None
    ]
    found = gather(criterion.evidence, Probe(model, weights, data))
    return [
        (w, criterion.score(WeightView(w.values(), w.path, layout=w.layout, evidence=evidence)))
        for w, evidence in zip(weights, found, strict=True)
    ]


def batch_of(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


@pytest.mark.parametrize("name", [*OF_UNITS, "wanda"])
def test_scores_are_new_float_arrays_and_equal_within_a_unit_where_they_are_of_units(name, net):
    criterion = Criterion.get(name)
    assert criterion == Criterion.get(criterion.serialize())
    assert criterion.scores_outputs == (name in OF_UNITS)
    for weight, scores in scored(criterion, net, batch_of(8, 6, 6, 2)):
        assert scores.shape == weight.layout.shape
        assert scores.dtype == np.float32
        assert scores.flags.writeable
        assert np.isfinite(scores).all()
        per_output = weight.layout.to_taps(scores).reshape(-1, weight.layout.taps_shape[2])
        assert (per_output == per_output[0]).all() == criterion.scores_outputs


def test_a_unit_that_is_never_active_has_the_lowest_score():
    dense = layers.Dense(3, activation="relu")
    model = keras.Sequential([keras.Input((4,)), dense, layers.Dense(2)])
    dense.bias.assign([5.0, -50.0, 1.0])
    for name in ("activation_mean", "activation_max", "activation_variance", "apoz"):
        (_, scores), _ = scored(Criterion.get(name), model, batch_of(32, 4))
        assert scores[0].argmin() == 1, name
        assert scores[0, 1] == 0, name


def test_apoz_scores_the_fraction_of_active_outputs():
    view = WeightView(np.ones((2, 2)), evidence={"activation_zeros": np.array([[0.25, 1.0]])})
    assert Apoz().score(view).tolist() == [[0.75, 0.0], [0.75, 0.0]]


def test_wanda_is_the_magnitude_times_the_norm_of_the_input(net):
    x = batch_of(8, 6, 6, 2)
    (conv, conv_scores), (dense, dense_scores) = scored(Wanda(), net, x)
    hidden = keras.Model(net.inputs, net.layers[-3].output).predict(x, verbose=0)
    expected = np.abs(dense.values()) * np.linalg.norm(hidden, axis=0)[:, None]
    np.testing.assert_allclose(dense_scores, expected, rtol=1e-4)
    # One tap and channel at a time: what the kernel sees there at all positions.
    for row, column, channel in np.ndindex(3, 3, 2):
        seen = x[:, row : row + 4, column : column + 4, channel]
        expected = np.abs(conv.values()[row, column, channel]) * np.linalg.norm(seen)
        np.testing.assert_allclose(conv_scores[row, column, channel], expected, rtol=1e-4)


def test_wanda_keeps_a_small_weight_on_a_strong_input():
    dense = layers.Dense(1, use_bias=False)
    model = keras.Sequential([keras.Input((3,)), dense])
    dense.set_weights([np.array([[1.0], [0.1], [0.5]])])
    [(weight, scores)] = scored(Wanda(), model, np.array([[1.0, 100.0, 1.0]], "float32"))
    assert scores[:, 0].tolist() == pytest.approx([1.0, 10.0, 0.5])
    mask = local_mask(scores, 1 / 3, layout=weight.layout)
    assert mask[:, 0].tolist() == [True, True, False]


def test_wanda_removes_what_changes_the_output_least():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 10)) * np.geomspace(0.01, 10, 10)
    kernel = rng.normal(size=(10, 4))
    evidence = {"input_norm": np.linalg.norm(x, axis=0)[:, None]}
    layout = KernelLayout.default(kernel.shape)
    errors = {}
    for name in ("wanda", "magnitude"):
        scores = Criterion.get(name).score(WeightView(kernel, layout=layout, evidence=evidence))
        errors[name] = np.linalg.norm(x @ (kernel * ~local_mask(scores, 0.5)))
    assert errors["wanda"] < errors["magnitude"] / 5
