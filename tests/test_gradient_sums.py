"""Criteria that sum over the training steps: what they sum, and that they go on after a restore."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfprune
from tfprune.callbacks import UpdateMasks
from tfprune.schedules import ConstantSparsity, PolynomialDecay

LATE = ConstantSparsity(0.5, begin_step=1000)


def compiled(model, **options):
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", **options)
    return model


def fit(model, data, epochs=1, callbacks=(), **options):
    with pytest.warns(UserWarning, match="will not"):
        model.fit(
            *data,
            batch_size=10,
            epochs=epochs,
            shuffle=False,
            verbose=0,
            callbacks=[UpdateMasks(), *callbacks],
            **options,
        )


def expected_movement(model, data):
    """Sum -w * g over the batches of one epoch of plain SGD, step by step."""
    kernels = [layer.kernel for layer in model.layers]
    sums = [np.zeros(kernel.shape) for kernel in kernels]
    loss = keras.losses.SparseCategoricalCrossentropy()
    for start in range(0, len(data[0]), 10):
        with tf.GradientTape() as tape:
            value = loss(data[1][start : start + 10], model(data[0][start : start + 10]))
        gradients = tape.gradient(value, [v.value for v in model.trainable_variables])
        for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
            for kernel, total in zip(kernels, sums, strict=True):
                if kernel is variable:
                    np.subtract(total, kernel.numpy() * gradient.numpy(), out=total)
            variable.assign_sub(0.1 * gradient)
    return sums


@pytest.mark.parametrize(
    "options", [{}, {"run_eagerly": True}, {"jit_compile": True}, {"steps_per_execution": 2}]
)
def test_movement_is_summed_in_every_kind_of_step(dense_net, dense_data, options):
    start = keras.models.clone_model(dense_net)
    start.set_weights(dense_net.get_weights())
    expected = expected_movement(start, dense_data)
    pruned = compiled(tfprune.prune(dense_net, LATE, criterion="movement"), **options)
    fit(pruned, dense_data)
    for weight, total in zip(tfprune.Pruner(pruned).weights, expected, strict=True):
        np.testing.assert_allclose(weight.accumulator.numpy(), total, rtol=1e-4, atol=1e-6)


def test_a_loss_scale_is_divided_out_before_the_sum(dense_net, dense_data):
    sums = []
    for optimizer in (
        keras.optimizers.SGD(0.1),
        keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1)),
    ):
        pruned = tfprune.prune(dense_net, LATE, criterion="movement")
        pruned.compile(optimizer, "sparse_categorical_crossentropy")
        fit(pruned, dense_data)
        sums.append([w.accumulator.numpy() for w in tfprune.Pruner(pruned).weights])
    for plain, scaled in zip(*sums, strict=True):
        np.testing.assert_allclose(plain, scaled, rtol=1e-4, atol=1e-7)
        assert np.abs(plain).max() > 0


def test_a_training_that_began_without_the_callback_is_traced_again(dense_net, dense_data):
    pruned = compiled(tfprune.prune(dense_net, LATE, criterion="movement"))
    with pytest.warns(UserWarning, match="nothing drives it"):
        pruned.fit(*dense_data, verbose=0)
    fit(pruned, dense_data)
    assert all(w.accumulator.numpy().any() for w in tfprune.Pruner(pruned).weights)


def test_an_embedding_and_a_custom_loop_are_summed():
    model = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Embedding(5, 4),
            keras.layers.LSTM(3),
            keras.layers.Dense(1),
        ]
    )
    pruner = tfprune.Pruner(model, LATE, criterion="movement", optimizer=keras.optimizers.SGD(0.1))
    x, y = np.array([[0, 1, 2], [2, 3, 1]]), np.ones((2, 1), "float32")

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = keras.ops.mean((model(x) - y) ** 2)
        variables = model.trainable_variables
        gradients = tape.gradient(loss, [v.value for v in variables])
        pruner.optimizer.apply_gradients(zip(gradients, variables, strict=True))

    for _ in range(3):
        pruner.step()
        step()
    sums = {w.path: w.accumulator.numpy() for w in pruner.weights}
    assert all(total.any() for total in sums.values())
    embedding = next(total for path, total in sums.items() if "embeddings" in path)
    assert not embedding[4].any()  # This token never came.


def test_the_sum_is_saved_and_goes_on_bit_for_bit(dense_net, dense_data, tmp_path):
    def run(model, epochs):
        fit(model, dense_data, epochs)
        return model

    whole = run(compiled(tfprune.prune(dense_net, LATE, criterion="movement")), 2)
    half = run(compiled(tfprune.prune(dense_net, LATE, criterion="movement")), 1)
    half.save(tmp_path / "half.keras")
    resumed = run(keras.models.load_model(tmp_path / "half.keras"), 1)
    for one, other in zip(
        tfprune.Pruner(whole).weights, tfprune.Pruner(resumed).weights, strict=True
    ):
        np.testing.assert_array_equal(one.accumulator.numpy(), other.accumulator.numpy())


def test_replicas_sum_the_gradient_of_the_whole_batch(run_python):
    output = run_python(
        """
        import keras, numpy as np, tensorflow as tf, tfprune, warnings
        warnings.simplefilter("ignore")
        cpu = tf.config.list_physical_devices("CPU")[0]
        two = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(cpu, two)
        x = np.random.default_rng(0).normal(size=(32, 8)).astype("float32")
        y = x[:, :3].argmax(1)
        net = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3, activation="softmax")])
        mirrored = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
        late = tfprune.schedules.ConstantSparsity(0.5, begin_step=99)
        sums = []
        for strategy in (tf.distribute.get_strategy(), mirrored):
            with strategy.scope():
                model = tfprune.prune(net, late, criterion="movement")
                model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
            model.fit(x, y, batch_size=8, shuffle=False, verbose=0,
                      callbacks=[tfprune.callbacks.UpdateMasks()])
            sums.append(tfprune.Pruner(model).weights[0].accumulator.numpy())
        print(np.abs(sums[0]).max() > 0, np.abs(sums[0] - sums[1]).max() < 1e-5)
        """
    )
    assert output.split() == ["True", "True"]


def test_the_ramp_prunes_what_moved_towards_zero(dense_net, dense_data):
    pruned = compiled(
        tfprune.prune(
            dense_net,
            PolynomialDecay(0.0, 0.5, begin_step=3, end_step=4),
            criterion="movement",
            allocation="global",
        )
    )
    pruned.fit(*dense_data, batch_size=10, shuffle=False, verbose=0, callbacks=[UpdateMasks()])
    weights = tfprune.Pruner(pruned).weights
    kept = np.concatenate([w.accumulator.numpy()[w.alive()] for w in weights])
    cut = np.concatenate([w.accumulator.numpy()[~w.alive()] for w in weights])
    assert cut.size == kept.size
    assert np.median(kept) > np.median(cut)
