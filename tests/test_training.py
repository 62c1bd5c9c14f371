"""Pruned weights are exact zeros at every step, however the model is trained."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfprune
from tfprune.optimizer_state import _slots
from tfprune.schedules import LinearDecay

layers = keras.layers
RAMP = LinearDecay(0.0, 0.75, begin_step=2, end_step=7, frequency=2)
OPTIMIZERS = {
    name: cls
    for name, cls in vars(keras.optimizers).items()
    if isinstance(cls, type)
    and issubclass(cls, keras.optimizers.Optimizer)
    and name not in ("Optimizer", "LossScaleOptimizer", "MultiOptimizer")
}


class ZerosEveryStep(keras.callbacks.Callback):
    """Fails at the first step that leaves a pruned weight other than zero."""

    def __init__(self):
        super().__init__()
        self.steps = 0

    def on_train_batch_end(self, batch, logs=None):
        assert_masked(self.model)
        self.steps += 1


def assert_masked(model):
    for weight in tfprune.Pruner(model).weights:
        values = keras.ops.convert_to_numpy(weight.variable).astype("float32")
        assert (values[~weight.alive()] == 0).all(), weight.path


def train(model, data, *callbacks, epochs=2, optimizer="adam", schedule=RAMP, **compile_arguments):
    pruned = tfprune.prune(model, schedule)
    pruned.compile(optimizer, "sparse_categorical_crossentropy", **compile_arguments)
    watch = ZerosEveryStep()
    update = tfprune.callbacks.UpdateMasks()
    pruned.fit(*data, batch_size=8, epochs=epochs, verbose=0, callbacks=[update, watch, *callbacks])
    assert watch.steps
    assert_masked(pruned)
    return pruned


def assert_final_sparsity(pruned):
    assert list(tfprune.Pruner(pruned).sparsities().values()) == [0.75, 0.75]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_with_every_optimizer(name, dense_net, dense_data):
    pruned = train(dense_net, dense_data, optimizer=OPTIMIZERS[name](0.01))
    assert_final_sparsity(pruned)
    assert all(np.isfinite(v.numpy()).all() for v in pruned.variables if v.dtype != "bool")


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_state_of_pruned_weights_starts_afresh(name, dense_net, dense_data):
    pruned = train(dense_net, dense_data, optimizer=OPTIMIZERS[name](0.01))
    pruner = tfprune.Pruner(pruned)
    weight = pruner.weights[0]
    pruner.runs[0].schedule = tfprune.schedules.ConstantSparsity(0.9)
    pruner.runs[0].update(11, pruned, pruned.optimizer)
    slots = list(_slots(pruned.optimizer, weight.variable))
    # SGD without momentum keeps none; Adafactor's second moments are factored.
    assert slots or name in ("SGD", "Adafactor")
    for slot, initial in slots:
        assert (slot.numpy()[~weight.alive()] == np.float32(initial)).all()


def one_optimizer_per_rank():
    adam, sgd = keras.optimizers.Adam(use_ema=True), keras.optimizers.SGD(momentum=0.9)
    return lambda variable: adam if len(variable.shape) > 1 else sgd


@pytest.mark.parametrize(
    "arguments",
    [
        {"jit_compile": True},
        {"run_eagerly": True},
        {"optimizer": lambda: keras.optimizers.Adam(gradient_accumulation_steps=3)},
        {"optimizer": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam())},
        {"optimizer": lambda: keras.optimizers.MultiOptimizer(one_optimizer_per_rank())},
        {"optimizer": lambda: keras.optimizers.Adam(use_ema=True, ema_momentum=0.5)},
        {
            "optimizer": lambda: keras.optimizers.SGD(
                use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=3
            )
        },
    ],
    ids=["jit", "eager", "accumulation", "loss scale", "multi", "ema", "ema overwrite"],
)
def test_in_every_way_to_compile(arguments, dense_net, dense_data):
    if "optimizer" in arguments:
        arguments = {**arguments, "optimizer": arguments["optimizer"]()}
    assert_final_sparsity(train(dense_net, dense_data, **arguments))


@pytest.mark.parametrize("schedule", [RAMP, LinearDecay(0, 0.75, end_step=5, frequency=3)])
def test_with_several_steps_per_execution(schedule, dense_net, dense_data):
    pruned = train(dense_net, dense_data, steps_per_execution=8, schedule=schedule)
    assert_final_sparsity(pruned)
    assert tfprune.Pruner(pruned).runs[0].step == 10


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "bfloat16"])
def test_in_low_precision(policy, dense_data):
    model = keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(16, dtype=policy),
            layers.Dense(4, activation="softmax", dtype=policy),
        ]
    )
    assert_final_sparsity(train(model, dense_data))


@pytest.mark.parametrize("swap_first", [False, True])
def test_averaged_weights_are_masked_wherever_they_are_used(swap_first, dense_net, dense_data):
    class AtBoundaries(keras.callbacks.Callback):
        checks = 0

        def check(self, *_, **__):
            assert_masked(self.model)
            AtBoundaries.checks += 1

        on_test_batch_begin = on_epoch_end = on_train_end = check

    pruned = tfprune.prune(dense_net, RAMP)
    optimizer = keras.optimizers.Adam(use_ema=True, ema_momentum=0.5)
    pruned.compile(optimizer, "sparse_categorical_crossentropy")
    callbacks = [keras.callbacks.SwapEMAWeights(True), tfprune.callbacks.UpdateMasks()]
    pruned.fit(
        *dense_data,
        batch_size=8,
        epochs=2,
        verbose=0,
        validation_data=dense_data,
        callbacks=[*(callbacks if swap_first else callbacks[::-1]), AtBoundaries()],
    )
    assert AtBoundaries.checks > 4
    assert_masked(pruned)
    pruned.evaluate(*dense_data, verbose=0, callbacks=callbacks)
    assert_masked(pruned)


def test_in_a_loop_of_ones_own(dense_net, dense_data):
    pruned = tfprune.prune(dense_net, RAMP)
    optimizer = keras.optimizers.Adam()
    pruner = tfprune.Pruner(pruned, optimizer=optimizer)
    loss_function = keras.losses.SparseCategoricalCrossentropy()
    x, y = dense_data

    @tf.function
    def train_step():
        with tf.GradientTape() as tape:
            loss = loss_function(y, pruned(x, training=True))
        gradients = tape.gradient(loss, pruned.trainable_variables)
        optimizer.apply(gradients, pruned.trainable_variables)

    for _ in range(8):
        pruner.step()
        train_step()
        assert_masked(pruned)
    pruner.finish()
    assert_final_sparsity(pruned)


def test_on_two_replicas(run_python):
    run_python(
        """
        import tensorflow as tf
        config = tf.config
        cpu = config.list_physical_devices("CPU")[0]
        config.set_logical_device_configuration(cpu, [config.LogicalDeviceConfiguration()] * 2)
        import keras, numpy as np, tfprune
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
        with strategy.scope():
            Dense = keras.layers.Dense
            net = keras.Sequential([keras.Input((8,)), Dense(16), Dense(4)])
            ramp = tfprune.schedules.LinearDecay(0.0, 0.75, end_step=7, frequency=2)
            pruned = tfprune.prune(net, ramp)
            pruned.compile("adam", "mse")
        x, y = np.random.rand(64, 8), np.random.rand(64, 4)
        class Replicas(keras.callbacks.Callback):
            def on_train_batch_end(self, batch, logs=None):
                for weight in tfprune.Pruner(self.model).weights:
                    mask, *other = [v.numpy() for v in weight.mask.value.values]
                    assert all((mask == o).all() for o in other) and len(other) == 1
                    for value in weight.variable.value.values:
                        assert (value.numpy()[~mask] == 0).all()
        callbacks = [tfprune.callbacks.UpdateMasks(), Replicas()]
        pruned.fit(x, y, batch_size=8, epochs=2, verbose=0, callbacks=callbacks)
        assert list(tfprune.Pruner(pruned).sparsities().values()) == [0.75, 0.75]
        """
    )
