"""`sparse_gpt` on models: every kind of layer, exact counts, less change than magnitude makes."""

import functools

import hypothesis.strategies as st
import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings

import tfprune
from tfprune.errors import InvalidArgumentError, InvalidTypeError, UnsupportedModelError
from tfprune.masks import kept_weights
from tfprune.methods import sparse_gpt
from tfprune.methods.reconstruction import prune_and_reconstruct
from tfprune.patterns import Pattern
from tfprune.selection import choose_weights

layers = keras.layers
MODELS = {
    "dense": lambda x: layers.ReLU()(layers.Dense(12)(x)),
    "dense over time": lambda x: layers.Dense(6)(layers.Reshape((4, 16))(x)),
    "convolution": lambda x: layers.Conv2D(6, 3, strides=2, padding="same")(
        layers.Reshape((4, 4, 4))(x)
    ),
    "dilated convolution": lambda x: layers.Conv2D(6, 2, dilation_rate=2)(
        layers.Reshape((4, 4, 4))(x)
    ),
    "convolution over time": lambda x: layers.Conv1D(6, 3, padding="causal")(
        layers.Reshape((8, 8))(x)
    ),
    "einsum": lambda x: layers.EinsumDense("abc,cd->abd", (4, 10))(layers.Reshape((4, 16))(x)),
    "attention": lambda x: layers.MultiHeadAttention(2, 8)(*[layers.Reshape((4, 16))(x)] * 2),
}
# What an LSTM puts out follows from its kernels in too many steps to be compared.
ALL_MODELS = {**MODELS, "lstm": lambda x: layers.LSTM(6)(layers.Reshape((8, 8))(x))}


@pytest.fixture(scope="module")
def data():
    """Inputs of 64 correlated features."""
    rng = np.random.default_rng(0)
    mix = np.eye(64) + rng.normal(size=(64, 64)) / 8
    return (rng.normal(size=(256, 64)) @ mix).astype("float32")


def build(function):
    inputs = keras.Input((64,))
    return keras.Model(inputs, function(inputs))


@functools.cache
def built(name):
    return build(ALL_MODELS[name])


def change(model, sparse, data):
    return float(np.linalg.norm(model.predict(data, verbose=0) - sparse.predict(data, verbose=0)))


@pytest.mark.parametrize("pattern", ["unstructured", "2:4"])
@pytest.mark.parametrize("name", MODELS)
def test_every_layer_reaches_its_sparsity_with_less_change_than_by_magnitude(name, pattern, data):
    model = build(MODELS[name])
    before = model.get_weights()
    sparse = sparse_gpt(model, 0.5, data, pattern=pattern, verbose=False)
    plain = tfprune.prune_once(model, 0.5, pattern=pattern)
    for found, expected in zip(choose_weights(sparse), choose_weights(plain), strict=True):
        assert np.count_nonzero(found.values()) == np.count_nonzero(expected.values())
    assert change(model, sparse, data) < change(model, plain, data)
    assert all(map(np.array_equal, model.get_weights(), before))


@settings(max_examples=30)
@given(
    name=st.sampled_from([*ALL_MODELS]),
    pattern=st.sampled_from(["unstructured", "2:4", "1:4", "row"]),
    sparsity=st.floats(0, 0.99),
)
def test_the_zeros_are_exactly_as_many_as_asked_for(name, pattern, sparsity, data):
    pattern = Pattern.get(pattern)
    sparsity = getattr(pattern, "sparsity", sparsity)
    sparse = sparse_gpt(built(name), sparsity, data[:64], pattern=pattern)
    for weight in choose_weights(sparse):
        expected = kept_weights(weight.layout, sparsity, pattern)
        assert np.count_nonzero(weight.values()) == expected


def test_a_layer_is_fitted_to_what_the_pruned_layers_before_it_produce(data):
    model = build(lambda x: layers.Dense(8)(layers.Dense(16, activation="relu")(x)))
    sparse = sparse_gpt(model, 0.5, data)
    x = data
    for before, after in zip(model.layers[1:], sparse.layers[1:], strict=True):
        expected = prune_and_reconstruct(before.kernel.numpy(), x.T @ x, 0.5)
        np.testing.assert_allclose(after.kernel, expected, atol=1e-3)
        assert np.array_equal(after.bias, before.bias)
        x = after(x).numpy()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "mixed_float16", "float64"])
def test_layers_of_every_dtype_keep_it(dtype, data):
    x = layers.Conv2D(6, 3, strides=2, padding="same", dtype=dtype)
    model = build(lambda inputs: x(layers.Reshape((4, 4, 4))(inputs)))
    sparse = sparse_gpt(model, 0.5, data)
    kernel = sparse.layers[-1].kernel
    assert kernel.dtype == x.kernel.dtype
    assert np.count_nonzero(kernel.numpy()) == x.kernel.numpy().size // 2
    assert change(model, sparse, data) < change(model, tfprune.prune_once(model, 0.5), data)


def test_weights_that_are_masked_already_stay_pruned(data):
    model = tfprune.prune(build(MODELS["dense"]), schedule=0.4)
    tfprune.Pruner(model).step()
    before = tfprune.strip(model).layers[1].kernel.numpy()
    after = sparse_gpt(model, 0.7, data).layers[1].kernel.numpy()
    assert np.mean(before == 0) == pytest.approx(0.4, abs=1e-3)
    assert np.mean(after == 0) == pytest.approx(0.7, abs=1e-3)
    assert not after[before == 0].any()


def test_deep_models_keep_more_of_their_outputs_than_by_magnitude_or_wanda(data):
    def deep(x):
        for _ in range(3):
            x = layers.Dense(48, activation="relu")(x)
        return layers.Dense(8)(x)

    model = build(deep)
    by_magnitude = tfprune.prune_once(model, 0.7)
    by_wanda = tfprune.prune_once(model, 0.7, criterion="wanda", data=data)
    found = change(model, sparse_gpt(model, 0.7, data), data)
    assert found < 0.7 * min(change(model, by_magnitude, data), change(model, by_wanda, data))


def test_a_shared_layer_sees_the_inputs_of_all_its_calls(data):
    shared = layers.Dense(64)
    model = build(lambda x: shared(layers.ReLU()(shared(x))))
    sparse = sparse_gpt(model, 0.6, data)
    assert change(model, sparse, data) < change(model, tfprune.prune_once(model, 0.6), data)


def test_allocations_decide_how_much_each_layer_keeps(data):
    model = build(lambda x: layers.Dense(8, name="last")(layers.Dense(32, name="first")(x)))
    sparse = sparse_gpt(model, 0.75, data, allocation={"first": 0.5})
    zeros = [np.mean(layer.kernel.numpy() == 0) for layer in sparse.layers[1:]]
    assert zeros == [0.5, 0.75]
    sparse = sparse_gpt(model, 0.75, data, allocation="global")
    kernels = [layer.kernel.numpy() for layer in sparse.layers[1:]]
    total = sum(kernel.size for kernel in kernels)
    assert sum(np.count_nonzero(kernel) for kernel in kernels) == total // 4


@pytest.mark.parametrize("kind", ["x", "x, y", "dataset", "python dataset"])
def test_data_of_every_kind(kind, data):
    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 4

        def __getitem__(self, index):
            return data[64 * index : 64 * (index + 1)], np.zeros(64)

    kinds = {
        "x": data,
        "x, y": (data, np.zeros(256)),
        "dataset": tf.data.Dataset.from_tensor_slices(data).batch(64),
        "python dataset": Batches(),
    }
    model = build(MODELS["dense"])
    sparse = sparse_gpt(model, 0.8, kinds[kind])
    assert np.count_nonzero(sparse.layers[1].kernel) == round(64 * 12 * 0.2)


def test_a_bar_counts_the_layers_on_request(data, capsys):
    model = build(lambda x: layers.Dense(4)(layers.Dense(8)(x)))
    sparse_gpt(model, 0.5, data)
    assert not capsys.readouterr().out
    sparse_gpt(model, 0.5, data, verbose=True)
    assert "2/2" in capsys.readouterr().out


def test_few_rows_are_enough_for_a_result(data):
    model = build(MODELS["convolution"])
    sparse = sparse_gpt(model, 0.5, data, max_rows=100)
    assert np.count_nonzero(sparse.layers[-1].kernel) == model.layers[-1].kernel.numpy().size // 2


def test_a_sparse_result_is_trained_on_without_losing_its_zeros(data):
    sparse = sparse_gpt(build(MODELS["dense"]), 0.8, data)
    tuned = tfprune.prune(sparse, schedule="keep")
    tuned.compile("adam", "mse")
    tuned.fit(data, np.zeros((256, 12)), verbose=0, callbacks=[tfprune.callbacks.UpdateMasks()])
    assert np.array_equal(
        tfprune.strip(tuned).layers[1].kernel.numpy() == 0, sparse.layers[1].kernel.numpy() == 0
    )


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"sparsity": 80}, InvalidArgumentError, "fraction"),
        ({"data": None}, InvalidArgumentError, "data"),
        ({"data": np.full((32, 64), np.nan)}, InvalidArgumentError, "check `data`"),
        ({"data": np.zeros((32, 5))}, ValueError, "shape"),
        ({"sparsity": 0.8, "pattern": "2:4"}, InvalidArgumentError, "2:4 has sparsity 0.5"),
        ({"pattern": "head"}, InvalidArgumentError, "Head"),
        ({"pattern": "filter"}, InvalidArgumentError, "whole outputs"),
        ({"damping": 0.0}, InvalidArgumentError, "damping"),
        ({"damping": "much"}, InvalidTypeError, "damping"),
        ({"max_rows": 0}, InvalidArgumentError, "max_rows"),
        ({"max_rows": 1e4}, InvalidTypeError, "max_rows"),
        ({"include": "other"}, InvalidArgumentError, "other"),
    ],
)
def test_bad_arguments_are_refused(arguments, error, words, data):
    with pytest.raises(error, match=words):
        sparse_gpt(built("dense"), **{"sparsity": 0.5, "data": data, **arguments})


@pytest.mark.parametrize(
    "layer",
    [
        layers.Conv2D(8, 3, groups=2, name="odd"),
        layers.DepthwiseConv2D(3, name="odd"),
        layers.Conv2DTranspose(8, 3, name="odd"),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_convolutions_without_one_matrix_of_inputs_are_named(layer, data):
    model = build(lambda x: layer(layers.Reshape((4, 4, 4))(x)))
    with pytest.raises(UnsupportedModelError, match="odd/kernel"):
        sparse_gpt(model, 0.5, data, include="odd")


def test_embeddings_are_named():
    inputs = keras.Input((4,), dtype="int32")
    hidden = layers.Embedding(10, 8, name="table")(inputs)
    model = keras.Model(inputs, layers.Dense(2)(hidden))
    with pytest.raises(UnsupportedModelError, match="table"):
        sparse_gpt(model, 0.5, np.zeros((8, 4), "int32"))
    sparse = sparse_gpt(model, 0.5, np.zeros((8, 4), "int32"), exclude="table")
    assert np.count_nonzero(sparse.layers[-1].kernel) == 8
