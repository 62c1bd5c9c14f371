import keras
import numpy as np
import pytest
import tensorflow as tf

import tfprune
from tests.layer_zoo import ZOO, Reader
from tfprune.errors import InvalidArgumentError, UnsupportedModelError
from tfprune.evidence import Probe, gather
from tfprune.evidence.gradients import EXAMPLES_PER_BATCH
from tfprune.prunable import find_candidates
from tfprune.pruned_weight import PrunedWeight

layers = keras.layers
MSE = keras.losses.MeanSquaredError()
CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def probe_of(model, data, every_weight=False, **options):
    """A probe of the model's kernels, or of all its trainable weights."""
    weights = [
        PrunedWeight(c.variable, c.layout, owners=c.owners)
        for c in find_candidates(model)
        if every_weight or c.reason is None
    ]
    return Probe(model, weights, data, **options)


def gathered(name, probe):
    return [evidence[name] for evidence in gather([name], probe)]


def plain_gradient(model, weights, x, y, loss):
    """The gradient by an eager tape, without any of tfprune."""
    with tf.GradientTape() as tape:
        value = loss(y, model(x, training=False)) + sum(model.losses)
    gradients = tape.gradient(value, [weight.variable.value for weight in weights])
    return [tf.convert_to_tensor(gradient).numpy() for gradient in gradients]


def assert_all_close(actual, expected, rtol=1e-4, atol=1e-6):
    for left, right in zip(actual, expected, strict=True):
        assert left.dtype == np.float32
        np.testing.assert_allclose(left, right, rtol=rtol, atol=atol)


def classifier(*body, shape, dtype="float32"):
    return keras.Sequential([keras.Input(shape, dtype=dtype), *body, layers.Dense(3, name="head")])


def convolutional():
    return classifier(
        layers.Conv2D(4, 3, padding="same", activation="tanh", kernel_regularizer="l2"),
        layers.BatchNormalization(),
        layers.Dropout(0.5),
        layers.DepthwiseConv2D(3, activation="gelu"),
        layers.AveragePooling2D(2),
        keras.Sequential([layers.Flatten(), layers.Dense(5, activation="tanh")], name="nested"),
        shape=(6, 6, 2),
    )


def recurrent():
    embedding = layers.Embedding(7, 3, mask_zero=True)
    return classifier(embedding, layers.LSTM(3), shape=(5,), dtype="int32")


def attentive():
    inputs = keras.Input((4, 6))
    x = layers.MultiHeadAttention(2, 3)(inputs, inputs)
    return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(layers.LayerNormalization()(x))))


def shared():
    inputs = keras.Input((6,))
    inner = layers.Dense(6, activation="tanh")
    x = Reader(inner)(inner(inner(inputs)))
    return keras.Model(inputs, layers.Dense(3)(x))


def data_for(model, size=12):
    rng = np.random.default_rng(1)
    shape = (size, *model.input_shape[1:])
    integers = "int" in model.inputs[0].dtype
    x = rng.integers(0, 7, size=shape) if integers else rng.normal(size=shape).astype("float32")
    return x, rng.integers(0, 3, size=size)


def test_goldens_of_a_linear_model():
    model = keras.Sequential([keras.Input((2,)), layers.Dense(1, use_bias=False)])
    model.set_weights([np.array([[1.0], [2.0]])])
    x = np.array([[1.0, 0.0], [0.0, 2.0]])
    # Loss (w1^2 + 4 w2^2) / 2; the examples' own gradients are (2, 0) and (0, 16).
    goldens = {
        "gradient": [1, 8],
        "squared_batch_gradient": [1, 64],
        "squared_gradient": [2, 128],
        "hessian_gradient": [1, 32],
    }
    evidence = gather(list(goldens), probe_of(model, (x, np.zeros((2, 1))), loss=MSE))[0]
    assert {name: array[:, 0].tolist() for name, array in evidence.items()} == goldens


@pytest.mark.parametrize("name", [name for name, example in ZOO.items() if example.kernels])
def test_the_gradient_of_every_layer_is_that_of_a_plain_tape(name):
    model = ZOO[name].model()
    x = ZOO[name].batch(4)
    y = np.random.default_rng(2).normal(size=model(x).shape)
    probe = probe_of(model, (x, y.astype("float32")), loss=MSE)
    assert_all_close(gathered("gradient", probe), plain_gradient(model, probe.weights, x, y, MSE))


@pytest.mark.parametrize("make", [convolutional, recurrent, shared])
def test_the_gradient_is_the_mean_over_batches(make):
    model = make()
    model.compile(loss=CROSS_ENTROPY)
    x, y = data_for(model)
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(5)
    probe = probe_of(model, data, every_weight=True)
    batches = [
        plain_gradient(model, probe.weights, x[i : i + 5], y[i : i + 5], CROSS_ENTROPY)
        for i in (0, 5, 10)
    ]
    evidence = gather(["gradient", "squared_batch_gradient"], probe)
    means = [np.mean(arrays, axis=0) for arrays in zip(*batches, strict=True)]
    squares = [np.mean(np.square(arrays), axis=0) for arrays in zip(*batches, strict=True)]
    assert_all_close([e["gradient"] for e in evidence], means)
    assert_all_close([e["squared_batch_gradient"] for e in evidence], squares)


@pytest.mark.parametrize("make", [convolutional, recurrent])
def test_squared_gradients_are_those_of_a_loop_over_examples(make):
    model = make()
    model.compile(loss=CROSS_ENTROPY)
    x, y = data_for(model)
    probe = probe_of(model, (x, y))
    loop = [
        plain_gradient(model, probe.weights, x[i : i + 1], y[i : i + 1], CROSS_ENTROPY)
        for i in range(len(x))
    ]
    expected = [np.mean(np.square(arrays), axis=0) for arrays in zip(*loop, strict=True)]
    assert_all_close(gathered("squared_gradient", probe), expected)


@pytest.mark.parametrize("make", [convolutional, recurrent, attentive])
def test_the_hessian_product_is_a_difference_of_gradients(make):
    model = make()
    model.compile(loss=CROSS_ENTROPY)
    probe = probe_of(model, data_for(model))
    gradient = gathered("gradient", probe)
    # Small, for a curved loss; not too small for float32.
    step = 2e-3 / np.sqrt(sum(np.square(array).sum() for array in gradient))
    values = [weight.values().copy() for weight in probe.weights]
    ends = []
    for sign in (1, -1):
        for weight, value, direction in zip(probe.weights, values, gradient, strict=True):
            weight.variable.assign(value + sign * step * direction)
        ends.append(gathered("gradient", probe))
    for weight, value in zip(probe.weights, values, strict=True):
        weight.variable.assign(value)
    difference = [(plus - minus) / (2 * step) for plus, minus in zip(*ends, strict=True)]
    scale = max(np.abs(d).max() for d in difference)
    assert_all_close(gathered("hessian_gradient", probe), difference, rtol=2e-2, atol=5e-3 * scale)


def test_the_gradient_predicts_the_change_of_the_loss():
    model = convolutional()
    model.compile(loss=CROSS_ENTROPY)
    x, y = data_for(model)
    probe = probe_of(model, (x, y))
    gradient = gathered("gradient", probe)
    values = [weight.values().copy() for weight in probe.weights]
    losses = []
    for sign in (1, -1):
        for weight, value, direction in zip(probe.weights, values, gradient, strict=True):
            weight.variable.assign(value + sign * 1e-2 * direction)
        losses.append(float(model.compute_loss(x, y, model(x), training=False)))
    norm = sum(np.square(array).sum() for array in gradient)
    assert (losses[0] - losses[1]) / 2e-2 == pytest.approx(norm, rel=1e-2)


class Counting(layers.Layer):
    """A layer with state that even inference changes, and a random one."""

    def build(self, shape):
        self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False)
        self.seed = keras.random.SeedGenerator(3)
        self.seen = keras.metrics.Sum()

    def call(self, x):
        self.calls.assign_add(1.0)
        self.seen.update_state(x)
        self.add_loss(keras.ops.mean(keras.ops.square(x)))
        return x + 0.01 * keras.random.normal(keras.ops.shape(x), seed=self.seed)


NAMES = ["gradient", "squared_gradient", "hessian_gradient", "block_fisher_inverse_diagonal"]


def test_nothing_of_a_model_changes():
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(4, 3, activity_regularizer="l2", kernel_regularizer="l1")(inputs)
    x = Counting()(layers.Dropout(0.5)(layers.BatchNormalization()(x)))
    x = layers.SpectralNormalization(layers.Dense(3))(layers.Flatten()(x))
    model = keras.Model(inputs, [layers.Dense(3, name="a")(x), layers.Dense(1, name="b")(x)])
    model.compile("adam", loss=[CROSS_ENTROPY, MSE], metrics=[["accuracy"], ["mae"]])
    data = data_for(model, 8)[0], (np.arange(8) % 3, np.ones((8, 1), "float32"))
    model.fit(*data, verbose=0)
    state = [*model.variables, *model.metrics_variables, *model.optimizer.variables]
    before = [keras.ops.convert_to_numpy(variable).copy() for variable in state]
    losses = [float(loss) for loss in model.losses[-1:]]
    for evidence in gather(NAMES, probe_of(model, data)):
        assert set(evidence) == set(NAMES)
    for variable, value in zip(state, before, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), value, variable.path)
    # No tensor of a compiled function stays behind.
    assert [float(loss) for loss in model.losses[-1:]] == losses
    model.fit(*data, verbose=0)


def test_evidence_of_a_compiled_model_that_never_trained_leaves_it_trainable():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, [layers.Dense(3)(inputs), layers.Dense(1)(inputs)])
    model.compile("adam", loss=[CROSS_ENTROPY, MSE])
    data = np.ones((4, 4)), (np.zeros(4), np.ones((4, 1)))
    gather(["gradient"], probe_of(model, data))
    history = model.fit(*data, verbose=0).history
    assert all(np.isfinite(history["loss"]))


def test_a_frozen_weight_has_a_gradient():
    model = classifier(layers.Dense(4, name="frozen", trainable=False), shape=(3,))
    probe = probe_of(model, data_for(model), every_weight=True, loss=CROSS_ENTROPY)
    assert probe.weights[0].path.endswith("frozen/kernel")
    assert np.abs(gathered("gradient", probe)[0]).max() > 0


def test_a_pruned_model_has_the_gradient_of_the_plain_one_in_pruned_weights_too():
    model = convolutional()
    kernel = model.layers[0].kernel
    keep = np.random.default_rng(0).random(kernel.shape) < 0.5
    kernel.assign(np.where(keep, kernel, 0))
    data = data_for(model)
    expected = gathered("gradient", probe_of(model, data, loss=CROSS_ENTROPY))
    pruned = tfprune.prune(model, schedule="keep")
    actual = gathered("gradient", probe_of(pruned, data, loss=CROSS_ENTROPY))
    assert_all_close(actual, expected, rtol=1e-6)
    assert np.all(actual[0][~keep] != 0)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "bfloat16"])
def test_16_bit_gradients_are_close_to_those_in_32(policy):
    small = 1e-7  # Below what float16 can hold: lost, were the loss not scaled.

    def make():
        return classifier(layers.Dense(8, activation="tanh"), layers.Dense(8), shape=(6,))

    def loss(y, predictions, sample_weight=None):
        return small * CROSS_ENTROPY(y, predictions)

    reference = make()
    keras.config.set_dtype_policy(policy)
    try:
        model = make()
    finally:
        keras.config.set_dtype_policy("float32")
    model.set_weights(reference.get_weights())
    data = data_for(model, 16)
    for name in ("gradient", "hessian_gradient"):
        exact, rough = (gathered(name, probe_of(m, data, loss=loss)) for m in (reference, model))
        for left, right in zip(rough, exact, strict=True):
            assert left.dtype == np.float32
            assert np.abs(left - right).max() < 0.05 * np.abs(right).max()


def test_a_loss_scale_that_overflows_is_lowered():
    model = keras.Sequential([keras.Input((2,)), layers.Dense(1, dtype="mixed_float16")])
    data = np.full((2, 2), 10.0), np.full((2, 1), 100.0)
    probe = probe_of(model, data, loss=MSE)
    expected = plain_gradient(model, probe.weights, data[0], data[1], MSE)
    gradient = gathered("gradient", probe)
    assert np.isfinite(gradient[0]).all()
    assert_all_close(gradient, expected, rtol=1e-2)


def test_arrays_datasets_and_py_datasets_give_the_same():
    model = recurrent()
    model.compile(loss=CROSS_ENTROPY)
    x, y = data_for(model, 8)
    weights = np.linspace(0, 1, 8)

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 1

        def __getitem__(self, index):
            return x, y, weights

    dataset = tf.data.Dataset.from_tensors((x, y, weights))
    first, *others = (
        gathered("squared_gradient", probe_of(model, data))
        for data in ((x, y, weights), dataset, Batches())
    )
    for other in others:
        assert_all_close(other, first)
    assert np.abs(first[0] - gathered("squared_gradient", probe_of(model, (x, y)))[0]).max() > 0


def test_a_bounded_number_of_examples_is_read():
    model = classifier(shape=(4,))
    x, y = data_for(model, 3 * EXAMPLES_PER_BATCH)
    used = slice(0, EXAMPLES_PER_BATCH)
    data = tf.data.Dataset.from_tensors((x, y))
    actual = gathered("squared_gradient", probe_of(model, data, loss=CROSS_ENTROPY))
    expected = gathered("squared_gradient", probe_of(model, (x[used], y[used]), loss=CROSS_ENTROPY))
    assert_all_close(actual, expected)


def test_a_weight_that_the_loss_does_not_use_is_named():
    inputs = keras.Input((4,))
    unused, used = layers.Dense(3, name="unused"), layers.Dense(3, name="used")
    model = keras.Model(inputs, [unused(inputs), used(inputs)])
    model.compile(loss=[None, CROSS_ENTROPY])
    data = np.ones((2, 4)), (np.ones((2, 3)), np.zeros(2))
    with pytest.raises(UnsupportedModelError, match="does not depend on unused/kernel, so"):
        gather(["gradient"], probe_of(model, data))


def test_a_gradient_that_is_not_finite_is_refused():
    model = classifier(shape=(4,))
    with pytest.raises(InvalidArgumentError, match="not finite in .*head/kernel: look for NaN"):
        gather(["gradient"], probe_of(model, (np.full((2, 4), np.nan), np.ones((2, 3))), loss=MSE))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_an_operation_without_a_second_derivative_is_reported(interpolation):
    resize = layers.UpSampling2D(2, interpolation=interpolation)
    model = classifier(layers.Conv2D(2, 1), resize, layers.Flatten(), shape=(2, 2, 2))
    probe = probe_of(model, data_for(model), loss=CROSS_ENTROPY)
    with pytest.raises(UnsupportedModelError, match="cannot differentiate twice .*Resize"):
        gather(["hessian_gradient"], probe)


def test_a_loss_per_output_is_taken_for_a_model_that_is_not_compiled():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, [layers.Dense(3)(inputs), layers.Dense(1)(inputs)])
    data = np.ones((4, 4)), (np.zeros(4), np.ones((4, 1)))
    model.compile(loss=[CROSS_ENTROPY, "mse"])
    expected = gathered("gradient", probe_of(model, data))
    model.compile()
    actual = gathered("gradient", probe_of(model, data, loss=[CROSS_ENTROPY, "mse"]))
    assert_all_close(actual, expected)
