"""Criteria that look at data, through every door: `prune`, `prune_once`, `plan`, `Pruner`."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfprune
from tfprune.callbacks import UpdateMasks
from tfprune.errors import InvalidArgumentError, UnsupportedModelError
from tfprune.evidence import Probe, gather
from tfprune.schedules import ConstantSparsity, Threshold
from tfprune.selection import choose_weights

LOSS = "sparse_categorical_crossentropy"


class Batches(keras.utils.PyDataset):
    """Four batches of ten examples."""

    def __init__(self, data):
        super().__init__()
        self.data = data

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return tuple(array[10 * index : 10 * index + 10] for array in self.data)


@pytest.mark.parametrize("kind", ["arrays", "list", "tf.data", "PyDataset"])
def test_every_kind_of_data_gives_the_same_masks(dense_net, dense_data, kind):
    data = {
        "arrays": dense_data,
        "list": list(dense_data),
        "tf.data": tf.data.Dataset.from_tensor_slices(dense_data).batch(20),
        "PyDataset": Batches(dense_data),
    }[kind]
    expected = tfprune.prune_once(
        dense_net, 0.5, "fisher", allocation="global", data=dense_data, loss=LOSS
    )
    sparse = tfprune.prune_once(dense_net, 0.5, "fisher", allocation="global", data=data, loss=LOSS)
    for one, other in zip(expected.layers, sparse.layers, strict=True):
        np.testing.assert_array_equal(one.kernel, other.kernel)


def test_fit_scores_with_the_data_at_every_update(dense_net, dense_data):
    model = tfprune.prune(
        dense_net, ConstantSparsity(0.5, begin_step=3), criterion="taylor", data=dense_data
    )
    model.compile("sgd", LOSS)
    with pytest.warns(UserWarning, match="nothing drives it"):
        model.fit(*dense_data, batch_size=20, shuffle=False, verbose=0)  # Two steps, no update.
    twin = tfprune.strip(model)
    twin.compile("sgd", LOSS)
    expected = tfprune.prune_once(twin, 0.5, "taylor", data=dense_data)
    pruner = tfprune.Pruner(model)
    pruner.step(3)
    pruner.catch_up(3)
    for weight, layer in zip(pruner.weights, expected.layers, strict=True):
        np.testing.assert_array_equal(weight.alive(), layer.kernel.numpy() != 0)


def test_data_is_missing_at_the_call_that_needs_it(dense_net, dense_data, tmp_path):
    for call in (tfprune.prune, tfprune.prune_once, tfprune.Pruner):
        with pytest.raises(InvalidArgumentError, match="pass `data="):
            call(dense_net, 0.5, criterion="taylor")
    assert not tfprune.is_pruned(dense_net)
    model = tfprune.prune(dense_net, 0.5, criterion="taylor", data=dense_data)
    model.compile("sgd", LOSS)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    with pytest.raises(InvalidArgumentError, match="pass `data="):
        loaded.fit(*dense_data, verbose=0, callbacks=[UpdateMasks()])
    pruner = tfprune.Pruner(loaded, data=dense_data)
    loaded.fit(*dense_data, verbose=0, callbacks=[UpdateMasks(pruner)])
    assert pruner.sparsity == 0.5


def test_a_loss_is_needed_and_said_so(dense_net, dense_data):
    with pytest.raises(UnsupportedModelError, match="pass `loss="):
        tfprune.prune_once(dense_net, 0.5, "taylor", data=dense_data)


def test_a_plan_by_scores_shows_what_pruning_gives(dense_net, dense_data):
    options = {"criterion": "wanda", "allocation": "global", "data": dense_data}
    report = tfprune.plan(dense_net, 0.7, **options)
    sparse = tfprune.prune_once(dense_net, 0.7, **options)
    planned = [row.sparsity for row in report.rows if row.is_pruned]
    achieved = [float(np.mean(layer.kernel.numpy() == 0)) for layer in sparse.layers]
    assert planned == pytest.approx(achieved)
    assert planned[0] != planned[1]


def test_what_training_decides_is_left_open_in_the_plan(dense_net):
    report = tfprune.plan(dense_net, 0.7, criterion="movement", allocation="global")
    assert report.sparsity is None
    assert "decided in training" in str(report)


def test_criteria_of_whole_outputs_want_whole_outputs(dense_net, dense_data):
    with pytest.raises(InvalidArgumentError, match="pass `pattern='filter'`"):
        tfprune.prune_once(dense_net, 0.5, "apoz", data=dense_data)
    sparse = tfprune.prune_once(dense_net, 0.5, "apoz", "filter", data=dense_data, include="d1")
    zero_units = (sparse.get_layer("d1").kernel.numpy() == 0).all(axis=0)
    assert zero_units.sum() == 8


@pytest.mark.parametrize(
    ("threshold", "allocation"),
    [
        (Threshold(0.2), "uniform"),
        (Threshold(1.0, relative_to="mean"), "uniform"),
        (Threshold(1.0, relative_to="mean"), "global"),
    ],
)
def test_a_threshold_prunes_what_is_below_it(dense_net, threshold, allocation):
    kernels = [layer.kernel.numpy() for layer in dense_net.layers]
    everything = np.abs(np.concatenate([kernel.reshape(-1) for kernel in kernels]))
    sparse = tfprune.prune_once(dense_net, threshold, allocation=allocation)
    for kernel, layer in zip(kernels, sparse.layers, strict=True):
        limit = threshold.threshold
        if threshold.relative_to:
            limit *= (everything if allocation == "global" else np.abs(kernel)).mean()
        np.testing.assert_array_equal(layer.kernel.numpy() != 0, np.abs(kernel) >= limit)


def test_a_threshold_in_fit_reports_the_sparsity_that_came_of_it(dense_net, dense_data):
    model = tfprune.prune(dense_net, Threshold(0.1, frequency=2))
    model.compile("adam", LOSS)
    history = model.fit(*dense_data, epochs=3, verbose=0, callbacks=[UpdateMasks()])
    sparsities = history.history["sparsity"]
    assert sparsities == sorted(sparsities)
    assert 0 < sparsities[-1] == tfprune.Pruner(model).sparsity
    assert "100" not in str(tfprune.plan(dense_net, Threshold(0.1)))


@pytest.mark.parametrize("criterion", ["taylor", "snip", "fisher", "wanda"])
def test_looking_at_data_leaves_the_model_as_it_was(conv_net, criterion):
    rng = np.random.default_rng(0)
    data = rng.normal(size=(8, 8, 8, 3)).astype("float32"), rng.integers(0, 3, 8)
    conv_net.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = [v.numpy().copy() for v in conv_net.variables]
    sparse = tfprune.prune_once(conv_net, 0.5, criterion, allocation="global", data=data)
    for old, variable in zip(before, conv_net.variables, strict=True):
        np.testing.assert_array_equal(old, variable.numpy())
    weights = choose_weights(sparse)
    zeros = sum(int(np.sum(w.values() == 0)) for w in weights)
    assert zeros == round(0.5 * sum(w.size for w in weights))


def test_a_probe_reads_no_more_than_its_limit(dense_net, dense_data):
    endless = tf.data.Dataset.from_tensor_slices(dense_data).batch(4).repeat()
    probe = Probe(dense_net, choose_weights(dense_net), endless, limit=3)
    assert [x.shape[0] for x, _, _ in probe.batches()] == [4, 4, 4]
    with pytest.raises(InvalidArgumentError, match="holds no batches"):
        list(Probe(dense_net, [], endless.take(0)).batches())
    with pytest.raises(KeyError):
        gather(["nothing"], probe)
