"""A pruned model is saved whole, and a resumed run is the run that was not interrupted."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfprune
from tfprune.schedules import Fraction, LinearDecay, PolynomialDecay

SCHEDULE = LinearDecay(0.0, 0.75, begin_step=1, end_step=16, frequency=3)


def make():
    keras.utils.set_random_seed(1)
    layers = [keras.layers.Dense(16, activation="relu"), keras.layers.Dense(3)]
    pruned = tfprune.prune(keras.Sequential([keras.Input((8,)), *layers]), SCHEDULE)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    pruned.compile(keras.optimizers.Adam(0.01), loss)
    return pruned


def fit(model, data, *callbacks, epochs=4, **arguments):
    model.fit(
        *data,
        batch_size=8,
        epochs=epochs,
        shuffle=False,
        verbose=0,
        callbacks=[tfprune.callbacks.UpdateMasks(), *callbacks],
        **arguments,
    )
    return model


def state(model):
    """Return every bit of a model and its optimizer."""
    return [v.numpy() for v in [*model.variables, *model.optimizer.variables]]


def assert_same_bits(first, second):
    for a, b in zip(state(first), state(second), strict=True):
        assert a.dtype == b.dtype
        assert a.tobytes() == b.tobytes()


class Interrupt(keras.callbacks.Callback):
    def __init__(self, epoch=None, batch=None):
        super().__init__()
        self.epoch, self.batch, self.seen = epoch, batch, 0

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            raise KeyboardInterrupt

    def on_train_batch_end(self, batch, logs=None):
        self.seen += 1
        if self.seen == self.batch:
            raise KeyboardInterrupt


def test_a_keras_file_holds_masks_plan_and_step(conv_net, tmp_path):
    pruned = tfprune.prune(conv_net, PolynomialDecay(0.0, 0.9, end_step=Fraction(0.5)))
    pruner = tfprune.Pruner(pruned)
    pruner.resolve(5, 2)
    for _ in range(3):
        pruner.step()
    pruned.save(tmp_path / "net.keras")
    loaded = keras.models.load_model(tmp_path / "net.keras")
    again = tfprune.Pruner(loaded)
    assert [run.step for run in again.runs] == [3]
    assert again.runs[0].plan == pruner.runs[0].plan
    for first, second in zip(pruner.weights, again.weights, strict=True):
        assert np.array_equal(first.alive(), second.alive())
    x = np.random.default_rng(0).random((4, 8, 8, 3), dtype=np.float32)
    assert np.array_equal(pruned(x), loaded(x))
    assert not tfprune.is_pruned(tfprune.strip(loaded))


@pytest.mark.parametrize("order", ["import keras, tfprune", "import tfprune, keras"])
def test_a_bare_import_in_either_order_is_enough_to_load(order, dense_net, tmp_path, run_python):
    tfprune.prune(dense_net, 0.5).save(tmp_path / "net.keras")
    loading = f"model = keras.models.load_model({str(tmp_path / 'net.keras')!r})"
    run_python(f"{order}\n{loading}\nassert tfprune.is_pruned(model)")


@pytest.mark.parametrize("update_first", [True, False])
def test_backup_and_restore_resumes_bit_for_bit(update_first, dense_data, tmp_path):
    whole = fit(make(), dense_data)

    def run(model, *more):
        callbacks = [
            keras.callbacks.BackupAndRestore(tmp_path / "backup"),
            tfprune.callbacks.UpdateMasks(),
        ]
        callbacks = callbacks[::-1] if update_first else callbacks
        model.fit(
            *dense_data,
            batch_size=8,
            epochs=4,
            shuffle=False,
            verbose=0,
            callbacks=[*callbacks, *more],
        )
        return model

    with pytest.raises(KeyboardInterrupt):
        run(make(), Interrupt(epoch=2))
    assert_same_bits(run(make()), whole)


def test_backup_within_an_epoch_stays_consistent(dense_data, tmp_path):
    def backup():
        return keras.callbacks.BackupAndRestore(tmp_path / "backup", save_freq=3)

    with pytest.raises(KeyboardInterrupt):
        fit(make(), dense_data, backup(), Interrupt(batch=8))
    resumed = fit(make(), dense_data, backup())
    pruner = tfprune.Pruner(resumed)
    # Keras replays the interrupted epoch, so the steps of its beginning count twice.
    assert pruner.runs[0].step == 6 + 15
    assert pruner.sparsity == pytest.approx(0.75, abs=0.01)
    for weight in pruner.weights:
        assert (weight.values()[~weight.alive()] == 0).all()


@pytest.mark.parametrize("way", ["keras", "weights", "checkpoint"])
@pytest.mark.parametrize("stop", [5, 10])
def test_ones_own_save_at_any_step_resumes_bit_for_bit(way, stop, dense_data, tmp_path):
    x, y = (np.resize(array, (160, *array.shape[1:])) for array in dense_data)
    whole = fit(make(), (x, y), epochs=1)
    first = make()
    with pytest.warns(UserWarning, match="before the pruning schedule's end|final sparsity"):
        fit(first, (x[: 8 * stop], y[: 8 * stop]), epochs=1)
    if way == "keras":
        first.save(tmp_path / "net.keras")
        second = keras.models.load_model(tmp_path / "net.keras")
    elif way == "weights":
        first.save_weights(tmp_path / "net.weights.h5")
        second = make()
        second.optimizer.build(second.trainable_variables)
        second.load_weights(tmp_path / "net.weights.h5")
    else:
        path = tf.train.Checkpoint(model=first, optimizer=first.optimizer).save(tmp_path / "ckpt")
        second = make()
        second.optimizer.build(second.trainable_variables)
        tf.train.Checkpoint(model=second, optimizer=second.optimizer).restore(
            path
        ).assert_consumed()
    assert_same_bits(first, second)
    fit(second, (x[8 * stop :], y[8 * stop :]), epochs=1)
    for a, b in zip(whole.variables, second.variables, strict=True):
        assert a.numpy().tobytes() == b.numpy().tobytes()


def test_the_masks_of_a_subclassed_model_are_saved_with_its_weights(dense_data, tmp_path):
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.first = keras.layers.Dense(16)
            self.second = keras.layers.Dense(3, activation="softmax")

        def call(self, x):
            return self.second(self.first(x))

    def pruner():
        model = Net()
        model(dense_data[0])
        return tfprune.Pruner(model, SCHEDULE)

    first, second, third = pruner(), pruner(), pruner()
    for _ in range(9):
        first.step()
    first.model.save_weights(tmp_path / "net.weights.h5")
    second.model.load_weights(tmp_path / "net.weights.h5")
    path = tf.train.Checkpoint(first.model).save(tmp_path / "ckpt")
    tf.train.Checkpoint(third.model).restore(path).assert_consumed()
    for other in (second, third):
        assert other.runs[0].step == 9
        for a, b in zip(first.weights, other.weights, strict=True):
            assert np.array_equal(a.alive(), b.alive())
            assert np.array_equal(a.values(), b.values())


def test_a_corrupt_file_is_refused_and_the_model_unchanged(dense_data, tmp_path):
    model = make()
    before = [v.numpy() for v in model.variables]
    (tmp_path / "net.weights.h5").write_bytes(b"not a checkpoint")
    with pytest.raises(OSError, match="file signature not found"):
        model.load_weights(tmp_path / "net.weights.h5")
    for variable, value in zip(model.variables, before, strict=True):
        assert np.array_equal(variable.numpy(), value)
