"""Heads of real attention layers: found, pruned together, and without influence afterwards."""

import keras
import numpy as np
import pytest

import tfprune
from tfprune.prunable import find_candidates

layers = keras.layers


def attention_net():
    inputs = keras.Input((5, 6))
    x = layers.MultiHeadAttention(4, 3, name="mha")(inputs, inputs)
    x = layers.GroupQueryAttention(3, 6, 2, use_gate=True, name="gqa")(x, x)
    return keras.Model(inputs, layers.Dense(2, name="head")(x))


def test_the_heads_of_attention_kernels_are_known():
    heads = {c.path: c.layout.heads for c in find_candidates(attention_net()) if c.reason is None}
    assert heads == {
        "mha/query/kernel": (1, 4),
        "mha/key/kernel": (1, 4),
        "mha/value/kernel": (1, 4),
        "mha/attention_output/kernel": (0, 4),
        "gqa/query/kernel": (1, 2),
        "gqa/key/kernel": (1, 2),
        "gqa/gate/kernel": (1, 2),
        "gqa/value/kernel": (1, 2),
        "gqa/attention_output/kernel": (0, 2),
        "head/kernel": None,
    }


@pytest.mark.parametrize("allocation", ["uniform", "global"])
def test_a_pruned_head_is_gone_from_all_kernels(allocation):
    model = attention_net()
    sparse = tfprune.prune_once(model, 0.5, pattern="head", allocation=allocation)
    kernels = {w.path: np.array(w) for w in sparse.weights if w.path.endswith("kernel")}
    assert kernels.pop("head/kernel").all(), "a layer without heads stays dense"
    for layer, heads in (("mha", 4), ("gqa", 6)):
        gone = [
            (kernel == 0).all(axis=tuple(a for a in range(3) if a != axis))
            for path, kernel in kernels.items()
            if path.startswith(layer)
            for axis in [0 if "attention_output" in path else 1]
        ]
        # A unit of the grouped queries is three query heads with their one key/value head.
        per_unit = [np.repeat(g, heads // g.size) for g in gone]
        assert all((g == per_unit[0]).all() for g in per_unit)
        if allocation == "uniform":
            assert per_unit[0].sum() == heads / 2


def test_the_output_of_a_pruned_head_is_gone():
    inputs = keras.Input((5, 6))
    attention = layers.MultiHeadAttention(2, 3, use_bias=False, name="mha")
    model = keras.Model(inputs, attention(inputs, inputs))
    kernel = attention._query_dense.kernel
    kernel.assign(kernel * np.array([1e-3, 1.0])[:, None])
    for dense in (attention._key_dense, attention._value_dense):
        dense.kernel.assign(dense.kernel * np.array([1e-3, 1.0])[:, None])
    sparse = tfprune.prune_once(model, 0.5, pattern="head")
    x = np.random.default_rng(0).normal(size=(4, 5, 6)).astype("float32")
    single = layers.MultiHeadAttention(1, 3, use_bias=False)
    single(x, x)
    for old, new in zip(attention.weights, single.weights, strict=True):
        axis = 0 if "attention_output" in old.path else 1
        new.assign(np.take(np.array(old), [1], axis=axis))
    assert np.array(sparse(x)) == pytest.approx(np.array(single(x, x)), abs=1e-6)
