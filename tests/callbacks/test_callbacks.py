import logging

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfprune
from tfprune.callbacks import AtTargetSparsity, SparsityLogger, TargetGuard, UpdateMasks
from tfprune.errors import InvalidArgumentError, InvalidTypeError, NotPrunedError
from tfprune.schedules import ConstantSparsity, Epochs, Fraction, LinearDecay, Staircase


def fit(net, data, schedule, *callbacks, epochs=4, **arguments):
    pruned = tfprune.prune(net, schedule)
    pruned.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    arguments = {"batch_size": 8, "epochs": epochs, "verbose": 0, **arguments}
    history = pruned.fit(*data, callbacks=list(callbacks), **arguments)
    return pruned, history.history


RAMP = LinearDecay(0.0, 0.75, end_step=Fraction(0.5), frequency=2)


def test_the_sparsity_is_in_the_logs(dense_net, dense_data):
    _, logs = fit(dense_net, dense_data, Staircase([(1, 0.25), (Epochs(2), 0.75)]), UpdateMasks())
    assert logs["sparsity"] == [0.25, 0.75, 0.75, 0.75]


@pytest.mark.parametrize("use_ema", [False, True])
def test_masks_are_applied_again_at_boundaries_only_where_averages_are_kept(
    use_ema, dense_net, dense_data, monkeypatch
):
    calls = []
    apply_masks = tfprune.Pruner.apply_masks
    monkeypatch.setattr(
        tfprune.Pruner, "apply_masks", lambda self: (calls.append(1), apply_masks(self))
    )
    pruned = tfprune.prune(dense_net, ConstantSparsity(0.5))
    optimizer = keras.optimizers.Adam(use_ema=use_ema)
    pruned.compile(optimizer, "sparse_categorical_crossentropy")
    pruned.fit(*dense_data, epochs=3, validation_split=0.2, callbacks=[UpdateMasks()], verbose=0)
    assert len(calls) == (1 + 3 * 3 if use_ema else 1)  # Last batch, test, epoch end; train end.


def test_a_fraction_ends_within_the_run(dense_net, dense_data):
    pruned, logs = fit(dense_net, dense_data, RAMP, UpdateMasks())
    assert logs["sparsity"][1:] == [0.75] * 3
    assert tfprune.Pruner(pruned).runs[0].step == 20


def test_a_data_set_of_unknown_length_needs_plain_steps(dense_net, dense_data):
    def batches():
        yield dense_data

    pruned = tfprune.prune(dense_net, RAMP)
    pruned.compile("adam", "sparse_categorical_crossentropy")
    with pytest.raises(InvalidArgumentError, match="steps_per_epoch"):
        pruned.fit(batches(), callbacks=[UpdateMasks()], verbose=0, shuffle=False)


def test_a_model_without_masks_is_refused(dense_net, dense_data):
    dense_net.compile("adam", "sparse_categorical_crossentropy")
    with pytest.raises(NotPrunedError, match=r"holds no pruning masks.*tfprune\.prune"):
        dense_net.fit(*dense_data, callbacks=[UpdateMasks()], verbose=0)


def test_a_schedule_that_never_fires_is_told_at_the_begin(dense_net, dense_data):
    with pytest.warns(UserWarning, match="will not fire in this run"):
        fit(dense_net, dense_data, ConstantSparsity(0.5, begin_step=99), UpdateMasks())


def test_a_run_that_stops_early_says_so_and_does_not_jump(dense_net, dense_data):
    with (
        pytest.warns(UserWarning, match="Training ended at step 20"),
        pytest.warns(UserWarning, match="will not be reached"),
    ):
        pruned, _ = fit(dense_net, dense_data, LinearDecay(0, 0.8, end_step=40), UpdateMasks())
    assert tfprune.Pruner(pruned).sparsity == 0


@pytest.mark.parametrize(
    "unsafe",
    [
        lambda: keras.callbacks.EarlyStopping("loss", restore_best_weights=True),
        lambda: keras.callbacks.ModelCheckpoint("unused.keras", "loss", save_best_only=True),
    ],
    ids=["EarlyStopping", "ModelCheckpoint"],
)
@pytest.mark.parametrize("first", [True, False])
def test_callbacks_that_would_keep_a_dense_epoch_are_refused(unsafe, first, dense_net, dense_data):
    callbacks = [unsafe(), UpdateMasks()]
    with pytest.raises(InvalidArgumentError, match=r"AtTargetSparsity\("):
        fit(dense_net, dense_data, RAMP, *(callbacks if first else callbacks[::-1]))


def test_early_stopping_that_starts_late_enough_is_accepted(dense_net, dense_data):
    stop = keras.callbacks.EarlyStopping("loss", restore_best_weights=True, start_from_epoch=2)
    pruned, _ = fit(dense_net, dense_data, RAMP, UpdateMasks(), stop)
    assert tfprune.Pruner(pruned).sparsity == 0.75


@pytest.mark.parametrize("first", [True, False])
def test_at_target_sparsity_keeps_the_best_sparse_epoch(first, dense_net, dense_data, tmp_path):
    # The accuracy is best while dense, so that an unguarded callback would keep that.
    class Fake(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["score"] = [9.0, 5.0, 3.0, 2.0, 1.0, 0.0][epoch]

    stop = keras.callbacks.EarlyStopping("score", mode="max", patience=1, restore_best_weights=True)
    path = tmp_path / "best.keras"
    best = keras.callbacks.ModelCheckpoint(path, "score", mode="max", save_best_only=True)
    guarded = [AtTargetSparsity(stop), AtTargetSparsity(best)]
    order = [UpdateMasks(), *guarded] if first else [*guarded, UpdateMasks()]
    pruned, logs = fit(dense_net, dense_data, RAMP, Fake(), *order, epochs=6)
    assert tfprune.Pruner(pruned).sparsity == 0.75
    assert tfprune.Pruner(keras.models.load_model(path)).sparsity == 0.75
    assert len(logs["loss"]) == 4


def test_at_target_sparsity_takes_callbacks_only():
    with pytest.raises(InvalidTypeError, match="must be a Keras callback"):
        AtTargetSparsity("early stopping")


class Metric(keras.callbacks.Callback):
    """Puts given values into the logs, and notes the weights at the end of each epoch."""

    def __init__(self, values):
        super().__init__()
        self.values, self.weights = values, []

    def on_epoch_end(self, epoch, logs=None):
        logs["score"] = self.values[epoch]
        self.weights.append(self.model.get_weights())


@pytest.mark.parametrize("rollback", [True, False])
def test_the_guard_stops_pruning_when_the_metric_falls(rollback, dense_net, dense_data, caplog):
    ramp = LinearDecay(0.0, 0.9, end_step=20, frequency=1)
    metric = Metric([0.9, 0.89, 0.7, 0.9])
    guard = TargetGuard("score", max_drop=0.05, mode="max", rollback=rollback)
    with caplog.at_level(logging.WARNING):
        pruned, logs = fit(dense_net, dense_data, ramp, metric, guard, UpdateMasks())
    assert "score fell to 0.7" in caplog.text
    held = logs["sparsity"][1] if rollback else logs["sparsity"][2]
    assert logs["sparsity"][-1] == pytest.approx(held, abs=0.06)
    assert tfprune.Pruner(pruned).held
    expected = metric.weights[1] if rollback else metric.weights[2]
    masks = [w for w in expected if w.dtype == bool and w.ndim]
    assert all(
        np.array_equal(a, b.alive())
        for a, b in zip(masks, tfprune.Pruner(pruned).weights, strict=True)
    )


def test_the_guard_does_nothing_while_the_metric_holds(dense_net, dense_data):
    guard = TargetGuard("score", max_drop=0.05, mode="max")
    metric = Metric([0.9, 0.86, 0.88, 0.9])
    pruned, _ = fit(dense_net, dense_data, RAMP, metric, guard, UpdateMasks())
    assert tfprune.Pruner(pruned).sparsity == 0.75
    assert not tfprune.Pruner(pruned).held


def test_the_guard_refuses_what_it_cannot_watch(dense_net, dense_data):
    with pytest.raises(InvalidArgumentError, match="at least 0"):
        TargetGuard("accuracy", max_drop=-1)
    with pytest.raises(InvalidArgumentError, match=r"'nope', which is not among.*'accuracy'"):
        fit(dense_net, dense_data, RAMP, TargetGuard("nope", 0.1, mode="max"), UpdateMasks())


def test_the_logger_writes_curves_that_tensorboard_reads(dense_net, dense_data, tmp_path):
    pruned, logs = fit(dense_net, dense_data, RAMP, UpdateMasks(), SparsityLogger(tmp_path))
    (file,) = (tmp_path / "pruning").iterdir()
    points = {}
    for event in tf.compat.v1.train.summary_iterator(str(file)):
        for value in event.summary.value:
            points.setdefault(value.tag, []).append(float(tf.make_ndarray(value.tensor)))
    path = pruned.layers[0].kernel.path
    assert points["sparsity/total"] == pytest.approx(logs["sparsity"])
    assert points[f"sparsity/{path}"][-1] == 0.75
    kernel = np.abs(pruned.layers[0].kernel.numpy())
    assert points[f"threshold/{path}"][-1] == pytest.approx(kernel[kernel > 0].min())


def test_a_subclassed_model_is_pruned_through_its_pruner(dense_data):
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.inner = keras.layers.Dense(16)
            self.outer = keras.layers.Dense(3, activation="softmax")

        def call(self, x):
            return self.outer(self.inner(x))

    model = Net()
    model(dense_data[0])
    pruner = tfprune.Pruner(model, RAMP)
    model.compile("adam", "sparse_categorical_crossentropy")
    logs = model.fit(
        *dense_data, batch_size=8, epochs=4, verbose=0, callbacks=[UpdateMasks(pruner)]
    ).history
    assert logs["sparsity"][-1] == 0.75
    assert np.mean(model.inner.kernel.numpy() == 0) == 0.75
    before = model(dense_data[0])
    assert pruner.strip() is model
    assert np.array_equal(before, model(dense_data[0]))
    assert model.inner.kernel.constraint is None
    assert len(model.weights) == 4
