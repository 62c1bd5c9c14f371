"""Norms of inputs and statistics of activations, against brute force."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfprune
from tests.layer_zoo import ZOO
from tfprune.errors import InvalidArgumentError, UnsupportedModelError
from tfprune.evidence import Probe, gather
from tfprune.pruned_weight import PrunedWeight
from tfprune.selection import select_weights

layers = keras.layers

STATISTICS = {
    "activation_mean": lambda a: np.abs(a).mean(axis=0),
    "activation_max": lambda a: np.abs(a).max(axis=0),
    "activation_min": lambda a: np.abs(a).min(axis=0),
    "activation_variance": lambda a: a.var(axis=0),
    "activation_zeros": lambda a: (a == 0).mean(axis=0),
}


def weights_of(model, include=None):
    return [
        PrunedWeight(c.variable, c.layout, owners=c.owners)
        for c in select_weights(model, include)
        if c.reason is None
    ]


def gathered(names, model, data, include=None):
    """Evidence by the path of the weight."""
    weights = weights_of(model, include)
    found = gather(names, Probe(model, weights, data))
    for weight, evidence in zip(weights, found, strict=True):
        for array in evidence.values():
            np.broadcast_to(array, weight.layout.shape)
    return {weight.path: evidence for weight, evidence in zip(weights, found, strict=True)}


def norms(model, data, include=None):
    found = gathered(["input_norm"], model, data, include)
    return {path: evidence["input_norm"] for path, evidence in found.items()}


def model_of(layer, shape):
    inputs = keras.Input(shape)
    return keras.Model(inputs, layer(inputs))


def batch_of(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def assert_statistics(evidence, activations):
    """Compare with activations `(..., units)`."""
    rows = np.asarray(activations, "float64").reshape(-1, activations.shape[-1])
    for name, statistic in STATISTICS.items():
        np.testing.assert_allclose(
            evidence[name].reshape(-1), statistic(rows), rtol=1e-4, atol=1e-6, err_msg=name
        )


def test_the_norms_of_a_dense_layer_are_those_of_its_input_columns():
    model = model_of(layers.Dense(3), (2,))
    [norm] = norms(model, np.array([[3.0, 0.0], [4.0, 2.0]], "float32")).values()
    assert norm.tolist() == [[5.0], [2.0]]


def test_the_norms_of_a_convolution_are_those_of_its_patches():
    model = model_of(layers.Conv2D(4, 3, strides=2, padding="same"), (6, 7, 2))
    x = batch_of(5, 6, 7, 2)
    patches = tf.image.extract_patches(x, [1, 3, 3, 1], [1, 2, 2, 1], [1, 1, 1, 1], "SAME")
    expected = np.sqrt(np.square(patches).sum(axis=(0, 1, 2))).reshape(3, 3, 2, 1)
    [norm] = norms(model, x).values()
    np.testing.assert_allclose(norm, expected, rtol=1e-5)


def test_each_group_of_a_convolution_has_the_norms_of_its_own_channels():
    grouped = model_of(layers.Conv2D(6, 3, groups=2), (6, 6, 4))
    single = model_of(layers.Conv2D(3, 3), (6, 6, 2))
    x = batch_of(3, 6, 6, 4)
    [norm] = norms(grouped, x).values()
    for group in range(2):
        [expected] = norms(single, x[..., 2 * group : 2 * group + 2]).values()
        part = norm[..., 3 * group : 3 * group + 3]
        np.testing.assert_allclose(part, np.broadcast_to(expected, part.shape))


def test_a_depthwise_kernel_has_the_norms_of_each_channel():
    model = model_of(layers.DepthwiseConv2D(2, depth_multiplier=3), (4, 4, 2))
    full = model_of(layers.Conv2D(1, 2), (4, 4, 2))
    x = batch_of(3, 4, 4, 2)
    [norm] = norms(model, x, include=layers.DepthwiseConv2D).values()
    [expected] = norms(full, x).values()
    np.testing.assert_allclose(norm, expected)


def test_a_kernel_with_an_axis_of_its_own_for_each_position_has_norms_for_each():
    model = model_of(layers.EinsumDense("abc,bcd->abd", (3, 6)), (3, 5))
    x = batch_of(7, 3, 5)
    [norm] = norms(model, x).values()
    np.testing.assert_allclose(norm[..., 0], np.sqrt(np.square(x).sum(axis=0)), rtol=1e-5)


def test_the_norms_of_attention_are_those_of_what_its_projections_see():
    inputs = keras.Input((4, 6))
    attention = layers.MultiHeadAttention(2, 3, name="mha")
    model = keras.Model(inputs, attention(inputs, inputs))
    x = batch_of(5, 4, 6)
    found = norms(model, x)
    expected = np.sqrt(np.square(x).sum(axis=(0, 1)))
    for name in ("query", "key", "value"):
        np.testing.assert_allclose(found[f"mha/{name}/kernel"][:, 0, 0], expected, rtol=1e-5)
    assert found["mha/attention_output/kernel"].shape == (2, 3, 1)


def test_the_norms_of_a_recurrent_kernel_are_those_of_the_states():
    inputs = keras.Input((4, 5))
    states = layers.LSTM(3, return_sequences=True, name="lstm")(inputs)
    model = keras.Model(inputs, states)
    x = batch_of(6, 4, 5)
    kernel, recurrent = norms(model, x).values()
    earlier = model.predict(x, verbose=0)[:, :-1]
    np.testing.assert_allclose(kernel[:, 0], np.sqrt(np.square(x).sum(axis=(0, 1))), rtol=1e-5)
    expected = np.sqrt(np.square(earlier).sum(axis=(0, 1)))
    np.testing.assert_allclose(recurrent[:, 0], expected, rtol=1e-4)


def test_norms_and_statistics_do_not_depend_on_how_the_data_is_batched(conv_net):
    x = batch_of(20, 8, 8, 3)
    names = ["input_norm", *STATISTICS]
    expected = gathered(names, conv_net, x)

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 5

        def __getitem__(self, index):
            return x[4 * index : 4 * index + 4], np.zeros(4)

    for data in (tf.data.Dataset.from_tensor_slices(x).batch(7), Batches(workers=1)):
        found = gathered(names, conv_net, data)
        for path, evidence in expected.items():
            for name, array in evidence.items():
                np.testing.assert_allclose(
                    found[path][name], array, rtol=1e-5, atol=1e-6, err_msg=f"{path} {name}"
                )


def test_models_with_named_inputs_take_named_data():
    inputs = {"left": keras.Input((3,), name="left"), "right": keras.Input((2,), name="right")}
    joined = layers.Concatenate()([inputs["left"], inputs["right"]])
    model = keras.Model(inputs, layers.Dense(4)(joined))
    x = {"left": batch_of(6, 3), "right": batch_of(6, 2)}
    [norm] = norms(model, tf.data.Dataset.from_tensor_slices(x).batch(3)).values()
    expected = np.linalg.norm(np.hstack([x["left"], x["right"]]), axis=0)
    np.testing.assert_allclose(norm[:, 0], expected, rtol=1e-5)


def test_the_statistics_of_a_unit_are_those_a_reader_expects():
    dense = layers.Dense(2, activation="relu", use_bias=False)
    model = model_of(dense, (2,))
    dense.set_weights([np.array([[1.0, 0.0], [0.0, -1.0]])])
    data = np.array([[1.0, 1.0], [3.0, 1.0], [-2.0, -4.0], [0.0, 1.0]], "float32")
    [evidence] = gathered(STATISTICS, model, data).values()
    # Unit 1 puts out 1, 3, 0, 0, unit 2 puts out 0, 0, 4, 0.
    assert evidence["activation_mean"].tolist() == [[1.0, 1.0]]
    assert evidence["activation_max"].tolist() == [[3.0, 4.0]]
    assert evidence["activation_min"].tolist() == [[0.0, 0.0]]
    assert evidence["activation_variance"].tolist() == [[1.5, 3.0]]
    assert evidence["activation_zeros"].tolist() == [[0.5, 0.75]]


def test_magnitudes_count_where_activations_have_a_sign():
    dense = layers.Dense(1, use_bias=False)
    model = model_of(dense, (1,))
    dense.set_weights([np.array([[1.0]])])
    [evidence] = gathered(STATISTICS, model, np.array([[-3.0], [-1.0]], "float32")).values()
    assert [evidence[name].item() for name in STATISTICS] == [2.0, 3.0, 1.0, 1.0, 0.0]


def randomized(model):
    """The model with other statistics and scales in its normalization layers than 0 and 1."""
    rng = np.random.default_rng(1)
    for layer in model._flatten_layers():
        if isinstance(layer, layers.BatchNormalization):
            for variable in layer.variables:
                variable.assign(rng.uniform(0.5, 1.5, size=variable.shape))
    return model


def test_the_activation_is_taken_after_normalization_and_nonlinearity():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, name="conv")(inputs)
    activations = layers.ReLU()(layers.BatchNormalization()(x))
    outputs = layers.Dense(2, name="head")(layers.Flatten()(activations))
    model = randomized(keras.Model(inputs, outputs))
    x = batch_of(6, 8, 8, 3)
    found = gathered(STATISTICS, model, x, include="conv")
    expected = keras.Model(inputs, activations).predict(x, verbose=0)
    assert (expected == 0).any()
    assert found["conv/kernel"]["activation_mean"].shape == (1, 1, 1, 4)
    assert_statistics(found["conv/kernel"], expected)


def test_a_relu_layer_that_follows_two_layers_mixes_nothing_up():
    relu = layers.ReLU()
    inputs = keras.Input((4,))
    first = relu(layers.Dense(5, name="first")(inputs))
    second = relu(layers.Dense(5, name="second")(first))
    model = keras.Model(inputs, [first, second])
    x = batch_of(9, 4)
    found = gathered(STATISTICS, model, x)
    for path, expected in zip(found, model.predict(x, verbose=0), strict=True):
        assert_statistics(found[path], expected)


def branching(kind):
    """A model, and the tensor at which the activation of its Dense layer `d` is expected."""
    inputs = keras.Input((4,))
    dense = layers.Dense(5, activation="tanh" if kind == "own" else None, name="d")
    x = y = dense(inputs)
    if kind == "own":
        outputs = layers.ReLU()(x)
    elif kind == "two readers":
        outputs = layers.Add()([layers.ReLU()(x), x])
    elif kind == "output of the model":
        outputs = [layers.ReLU()(x), x]
    elif kind == "before an addition":
        y = layers.BatchNormalization()(x)
        outputs = layers.ReLU()(layers.Add()([y, inputs[:, :1]]))
    elif kind == "inline":
        y = keras.ops.relu(x)
        outputs = layers.ReLU(max_value=0.1)(y)
    elif kind == "activation function":
        y = outputs = keras.activations.relu(x, max_value=0.2)
    elif kind == "other layer":
        outputs = layers.ReLU()(layers.Dropout(0.5)(x))
    elif kind == "called twice, one way":
        norm = layers.BatchNormalization()
        outputs = layers.Concatenate(axis=0)([norm(x), norm(dense(inputs * 2))])
        y = outputs
    elif kind == "called twice, two ways":
        other = dense(inputs * 2)
        y = layers.Concatenate(axis=0)([x, other])
        outputs = layers.ReLU()(x) + layers.LeakyReLU()(other)
    return keras.Model(inputs, outputs), keras.Model(inputs, y)


@pytest.mark.parametrize(
    "kind",
    [
        "own",
        "two readers",
        "output of the model",
        "before an addition",
        "inline",
        "activation function",
        "other layer",
        "called twice, one way",
        "called twice, two ways",
    ],
)
def test_the_graph_is_followed_as_long_as_it_does_not_branch(kind):
    model, submodel = branching(kind)
    randomized(model)
    x = batch_of(9, 4)
    [evidence] = gathered(STATISTICS, model, x).values()
    assert_statistics(evidence, np.asarray(submodel(x)))


def test_the_graph_is_followed_into_and_out_of_nested_models():
    inputs = keras.Input((4,))
    inner = keras.Sequential([layers.Dense(5), layers.BatchNormalization()], name="inner")
    block = keras.Sequential([inner], name="block")
    activation = keras.Sequential([layers.BatchNormalization(), layers.ReLU()], name="after")
    activations = activation(block(inputs))
    model = randomized(keras.Model(inputs, layers.LeakyReLU()(activations)))
    x = batch_of(9, 4)
    [evidence] = gathered(STATISTICS, model, x).values()
    assert_statistics(evidence, keras.Model(inputs, activations).predict(x, verbose=0))


def test_a_nested_model_that_follows_itself_is_no_endless_path():
    inputs = keras.Input((4,))
    dense, norm = layers.Dense(4), layers.BatchNormalization()
    again = keras.Sequential([dense, norm])
    model = randomized(keras.Model(inputs, layers.ReLU()(again(again(inputs)))))
    x = batch_of(9, 4)
    [evidence] = gathered(STATISTICS, model, x).values()
    first = np.asarray(again(x))
    assert_statistics(evidence, np.concatenate([first, np.asarray(again(first))]))


def test_all_gates_of_a_recurrent_cell_share_the_statistics_of_its_output():
    inputs = keras.Input((4, 5))
    model = keras.Model(inputs, layers.LSTM(3, return_sequences=True)(inputs))
    x = batch_of(6, 4, 5)
    expected = np.tile(model.predict(x, verbose=0), 4)
    for evidence in gathered(STATISTICS, model, x).values():
        assert evidence["activation_max"].shape == (1, 12)
        assert_statistics(evidence, expected)


def test_heads_and_other_output_axes_keep_their_places():
    dense = layers.EinsumDense("abc,ecd->adbe", (2, 3, 4), activation="relu")
    model = model_of(dense, (3, 5))
    x = batch_of(6, 3, 5)
    [evidence] = gathered(STATISTICS, model, x).values()
    heads = np.moveaxis(np.asarray(model(x)), 1, -1)  # (batch, positions, e, d)
    assert evidence["activation_mean"].shape == (4, 1, 2)
    expected = np.abs(heads).mean(axis=(0, 1))[:, None]
    np.testing.assert_allclose(evidence["activation_mean"], expected, rtol=1e-5)


def test_transposed_and_depthwise_convolutions_have_statistics_on_their_output_axes():
    x = batch_of(3, 5, 5, 2)
    transposed = model_of(layers.Conv2DTranspose(4, 3, activation="relu"), (5, 5, 2))
    [evidence] = gathered(STATISTICS, transposed, x).values()
    assert evidence["activation_mean"].shape == (1, 1, 4, 1)
    assert_statistics(evidence, np.asarray(transposed(x)))
    depthwise = model_of(layers.DepthwiseConv2D(3, depth_multiplier=2), (5, 5, 2))
    [evidence] = gathered(STATISTICS, depthwise, x, layers.DepthwiseConv2D).values()
    assert evidence["activation_mean"].shape == (1, 1, 2, 2)
    assert_statistics(evidence, np.asarray(depthwise(x)))


def test_every_layer_has_statistics_wrapped_or_not_and_nothing_changes():
    for name, example in ZOO.items():
        if not example.kernels:
            continue
        model = example.model()
        before = [variable.numpy() for variable in model.variables]
        data = tf.data.Dataset.from_tensors(example.batch())
        plain = gathered(STATISTICS, model, data)
        wrapped = gathered(STATISTICS, tfprune.prune(model, schedule=0.0), data)
        for evidence, other in zip(plain.values(), wrapped.values(), strict=True):
            for statistic in STATISTICS:
                np.testing.assert_array_equal(evidence[statistic], other[statistic], err_msg=name)
        for variable, value in zip(model.variables, before, strict=True):
            np.testing.assert_array_equal(variable, value, err_msg=name)


def test_a_wrapped_layer_is_followed_in_the_graph_like_the_layer_itself():
    net = [layers.Conv2D(4, 3), layers.BatchNormalization(), layers.ReLU(), layers.Flatten()]
    model = randomized(keras.Sequential([keras.Input((6, 6, 2)), *net, layers.Dense(2)]))
    x = batch_of(5, 6, 6, 2)
    plain = gathered(STATISTICS, model, x)
    wrapped = gathered(STATISTICS, tfprune.prune(model, schedule=0.0), x)
    for evidence, other in zip(plain.values(), wrapped.values(), strict=True):
        for statistic in STATISTICS:
            np.testing.assert_array_equal(evidence[statistic], other[statistic])


def test_all_weights_whose_inputs_are_unknown_are_named():
    model = keras.Sequential(
        [
            keras.Input((5,), dtype="int32"),
            layers.Embedding(10, 6, name="words"),
            layers.Conv1DTranspose(4, 3, name="up"),
            layers.Dense(2),
        ]
    )
    with pytest.raises(UnsupportedModelError, match=r"words/embeddings .*up/kernel .*exclude"):
        norms(model, np.ones((4, 5), "int32"))


def test_units_that_belong_to_no_output_are_refused():
    model = model_of(layers.SeparableConv2D(6, 3, name="separable"), (7, 7, 5))
    path = "separable/depthwise_kernel"
    with pytest.raises(UnsupportedModelError, match=rf"{path} has 1 outputs.*6 units"):
        gathered(STATISTICS, model, batch_of(2, 7, 7, 5), include=path)


def test_data_is_needed(dense_net):
    with pytest.raises(InvalidArgumentError, match="pass `data="):
        gathered(["input_norm"], dense_net, None)
