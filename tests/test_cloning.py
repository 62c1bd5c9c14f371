import keras
import numpy as np
import pytest

import tfprune
from tfprune.cloning import LayerCopier, rebuild
from tfprune.errors import UnsupportedModelError

layers = keras.layers


def copy(model):
    return rebuild(model, lambda layer, copier: copier.copy(layer), LayerCopier())[0]


def equal(first, second, x, **kwargs):
    return all(
        np.array_equal(a, b)
        for a, b in zip(
            keras.tree.flatten(first(x, **kwargs)),
            keras.tree.flatten(second(x, **kwargs)),
            strict=True,
        )
    )


def test_a_copy_computes_the_same_from_weights_of_its_own(conv_net):
    new = copy(conv_net)
    x = np.random.default_rng(0).random((4, 8, 8, 3), dtype=np.float32)
    assert equal(conv_net, new, x)
    assert [w.path for w in new.weights] == [w.path for w in conv_net.weights]
    new.get_layer("conv").kernel.assign(new.get_layer("conv").kernel * 0)
    assert np.any(keras.ops.convert_to_numpy(conv_net.get_layer("conv").kernel))


def test_dropout_draws_the_same_numbers(conv_net):
    new = copy(conv_net)
    x = np.random.default_rng(0).random((4, 8, 8, 3), dtype=np.float32)
    assert equal(conv_net, new, x, training=True)


def test_a_shared_layer_stays_shared(conv_net):
    assert len(copy(conv_net).get_layer("shared")._inbound_nodes) == 2


def test_inputs_keep_names_types_and_options():
    tokens = keras.Input((3,), dtype="int32", name="tokens")
    extra = keras.Input((4,), name="extra", optional=True)
    sparse = keras.Input((5,), name="sparse", sparse=True)

    class Maybe(layers.Layer):
        def call(self, x, y=None):
            return x if y is None else x + keras.ops.sum(y)

    x = layers.Flatten()(layers.Embedding(9, 2)(tokens))
    x = layers.Concatenate()([x, layers.Dense(2)(sparse)])
    inputs = {"tokens": tokens, "extra": extra, "sparse": sparse}
    new = copy(keras.Model(inputs, {"out": Maybe()(x, extra)}))
    by_name = {tensor.name: tensor for tensor in new.inputs}
    assert by_name["tokens"].dtype == "int32"
    assert by_name["sparse"].sparse
    assert by_name["extra"]._keras_history.operation.optional
    assert list(new.output) == ["out"]


def test_trainable_flags_are_kept_one_by_one(conv_net):
    conv_net.trainable = False
    conv_net.get_layer("head").get_layer("h2").trainable = True
    new = copy(conv_net)
    assert not new.trainable
    assert new.trainable_variables == []
    flags, expected = ({p.name: p.trainable for p in m.layers[1:]} for m in (new, conv_net))
    assert flags == expected
    assert new.get_layer("head").get_layer("h2").trainable
    assert not new.get_layer("head").get_layer("h1").trainable


def test_the_compile_state_is_left_behind(dense_net):
    dense_net.compile("adam", "mse")
    assert not copy(dense_net).compiled


def test_vocabularies_and_adapted_statistics_are_kept():
    norm = layers.Normalization()
    norm.adapt(np.array([[1.0, 5.0], [3.0, 9.0]]))
    model = keras.Sequential([keras.Input((2,)), norm, layers.Dense(2)])
    x = np.array([[2.0, 6.0]], "float32")
    assert equal(model, copy(model), x)
    lookup = layers.StringLookup(output_mode="one_hot")
    lookup.adapt(["a", "b", "c"])
    inputs = keras.Input((1,), dtype="string")
    words = keras.Model(inputs, layers.Dense(2)(lookup(inputs)))
    data = keras.ops.convert_to_tensor([["b"], ["z"]])
    assert equal(words, copy(words), data)


def test_a_sequential_model_without_an_input_layer_is_copied(dense_data):
    model = keras.Sequential([layers.Dense(4), layers.Dense(2)])
    model.build((None, 8))
    assert equal(model, copy(model), dense_data[0])


def test_lambda_layers_are_used_as_they_are():
    model = keras.Sequential([keras.Input((3,)), layers.Lambda(lambda x: 2 * x), layers.Dense(2)])
    assert equal(model, copy(model), np.ones((2, 3), "float32"))


def test_mixed_precision_is_kept(dense_data):
    dense = layers.Dense(4, dtype="mixed_float16")
    model = keras.Sequential([keras.Input((8,)), dense, layers.Dense(2, dtype="bfloat16")])
    new = copy(model)
    assert [layer.dtype_policy.name for layer in new.layers] == ["mixed_float16", "bfloat16"]
    assert equal(model, new, dense_data[0])


def test_a_layer_that_cannot_be_copied_is_named():
    class NoConfig(layers.Layer):
        def __init__(self, matrix):
            super().__init__(name="stubborn")
            self.scale = self.add_weight(shape=matrix.shape)

        def call(self, x):
            return x * self.scale

    model = keras.Sequential([keras.Input((3,)), NoConfig(np.ones(3)), layers.Dense(2)])
    with pytest.raises(UnsupportedModelError, match=r"(?s)'stubborn' \(NoConfig\).*copy=False"):
        tfprune.prune(model, 0.5)
    shared = tfprune.prune(model, 0.5, copy=False)
    assert shared.layers[0] is model.layers[0]
