"""Random weights and random cuts: what the tests of exactness are made of."""

from __future__ import annotations

import keras
import numpy as np

from tfprune.structured import ChannelGraph, ShrinkHistory, verify
from tfprune.structured.rebuild import rebuild_narrow


def randomize(model, seed=0):
    """Give every weight, statistics included, a value that matters."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        name = weight.path.rpartition("/")[2]
        if weight.dtype in ("uint32", "int32", "bool"):
            continue  # Seeds.
        if name in ("gamma", "moving_variance", "variance"):
            values = rng.uniform(0.5, 1.5, weight.shape)
        elif len(weight.shape) > 1:
            # Of a size that keeps signals from growing or dying out.
            values = rng.normal(size=weight.shape) / np.sqrt(np.prod(weight.shape[:-1]))
        else:
            values = 0.3 * rng.normal(size=weight.shape)
        weight.assign(values)
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()  # What it computes with is derived from its weights.


def random_cut(graph, share, seed=0):
    """Return a random set of units to cut, about a share of each group."""
    rng = np.random.default_rng(seed)
    dead = np.zeros(graph.size, bool)
    axes = graph.bound_axes()
    for group in graph.groups:
        count = min(max(round(share * len(group.units)), 1), len(group.units) - 1)
        for unit in rng.permutation(group.units)[:count]:
            dead[unit] = True
            if any(np.all((axis >= 0) & dead[axis]) for axis in axes if unit in axis):
                dead[unit] = False
    return dead


def cut(model, share=0.4, seed=0, layer_norm="freeze"):
    """Cut a model with random weights at random; return it with its history, and the graph."""
    randomize(model, seed)
    graph = ChannelGraph(model, layer_norm=layer_norm)
    dead = random_cut(graph, share, seed)
    return rebuild_narrow(graph, dead), ShrinkHistory.of(graph, dead), graph


def assert_cuts_exactly(model, share=0.4, seed=0, layer_norm="freeze", tolerance=2e-5):
    """Cut a model at random and compare every node; return the smaller one."""
    small, history, graph = cut(model, share, seed, layer_norm)
    before = [keras.ops.convert_to_numpy(weight) for weight in model.weights]
    check = verify(model, small, history, tolerance=tolerance)
    # Operations that select channels become others; all else is compared.
    assert check.compared >= len(graph.walk.calls) - 3
    assert all(
        np.array_equal(values, weight) for values, weight in zip(before, model.weights, strict=True)
    )
    assert small.count_params() < model.count_params() or not graph.groups
    return small, history, graph


def residual_net():
    """Two coupled convolutions, a constraint, and a head, all with random weights."""
    layers = keras.layers
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(16, 3, padding="same", name="stem")(inputs)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    y = layers.Conv2D(16, 3, padding="same", kernel_constraint="max_norm", name="branch")(x)
    x = layers.GlobalAveragePooling2D()(x + y)
    model = keras.Model(inputs, layers.Dense(3, name="head")(layers.Dense(8, "relu")(x)))
    randomize(model)
    return model


def residual_data():
    """Inputs and targets for it."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(64, 6, 6, 2)).astype("float32"), rng.normal(size=(64, 3))
