"""Transfer learning: a frozen backbone, a head only, stage by stage, and rounds of pruning."""

import keras
import numpy as np
import pytest

import tfprune
from tfprune.allocation import Staged
from tfprune.errors import InvalidArgumentError
from tfprune.schedules import LinearDecay, PolynomialDecay


@pytest.fixture
def transfer_net():
    """A backbone of three layers and a head, as a user puts them together."""
    layers = keras.layers
    backbone = keras.Sequential(
        [keras.Input((8,)), *(layers.Dense(16, "relu", name=f"b{i}") for i in range(3))],
        name="backbone",
    )
    return keras.Sequential([keras.Input((8,)), backbone, layers.Dense(3, "softmax", name="head")])


def train(model, data, epochs=2):
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(*data, epochs=epochs, verbose=0, callbacks=[tfprune.callbacks.UpdateMasks()])
    return tfprune.strip(model)


def kernels(model):
    dense = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.Dense)]
    return {layer.name: layer.kernel.numpy() for layer in sorted(dense, key=lambda d: d.name)}


def sparsity(kernel):
    return float(np.mean(kernel == 0))


def test_a_frozen_backbone_is_pruned_and_otherwise_stays_as_it_is(transfer_net, dense_data):
    transfer_net.get_layer("backbone").trainable = False
    before = kernels(transfer_net)
    pruned = tfprune.prune(transfer_net, PolynomialDecay(0, 0.75), include=["b0", "b1", "b2"])
    after = kernels(train(pruned, dense_data))
    for name in ("b0", "b1", "b2"):
        assert sparsity(after[name]) == 0.75
        kept = after[name] != 0
        assert np.array_equal(after[name][kept], before[name][kept])
    assert sparsity(after["head"]) == 0
    assert not np.array_equal(after["head"], before["head"])


def test_frozen_layers_are_left_alone_unless_they_are_named(transfer_net):
    transfer_net.get_layer("backbone").trainable = False
    with pytest.raises(InvalidArgumentError, match="not trainable: name it in `include`"):
        tfprune.prune(transfer_net, 0.5, exclude="head")


def test_a_head_is_pruned_alone_on_a_backbone_that_stays(transfer_net, dense_data):
    transfer_net.get_layer("backbone").trainable = False
    before = kernels(transfer_net)
    pruned = tfprune.prune(transfer_net, PolynomialDecay(0, 0.75), include="head")
    after = kernels(train(pruned, dense_data))
    assert sparsity(after["head"]) == 0.75
    assert all(np.array_equal(after[name], before[name]) for name in ("b0", "b1", "b2"))


def test_stages_are_pruned_one_after_the_other_and_the_head_last(transfer_net, dense_data):
    stages = Staged(["b0", "b1", "b2", "head"])
    schedule = LinearDecay(0, 0.75, end_step=16, frequency=1)
    pruned = tfprune.prune(transfer_net, schedule, allocation=stages)
    pruned.compile("sgd", "sparse_categorical_crossentropy")
    seen = []
    report = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(
            [sparsity(kernel) for kernel in kernels(tfprune.strip(pruned)).values()]
        )
    )
    callbacks = [tfprune.callbacks.UpdateMasks(), report]
    pruned.fit(*dense_data, batch_size=2, epochs=1, verbose=0, callbacks=callbacks)
    for stage, later in zip(np.transpose(seen), np.transpose(seen)[1:], strict=False):
        assert stage[-1] == 0.75
        # A stage begins when the one before it has ended.
        assert (stage[later > 0] == 0.75).all()


def test_rounds_with_recovery_prune_what_was_left(transfer_net, dense_data):
    model, zeros = transfer_net, None
    for target in (0.5, 0.75, 0.875):
        model = train(tfprune.prune(model, target), dense_data)
        now = {name: kernel == 0 for name, kernel in kernels(model).items()}
        assert all(kernel.mean() == pytest.approx(target, abs=0.02) for kernel in now.values())
        assert zeros is None or all((now[name] | ~zeros[name]).all() for name in now)
        zeros = now
