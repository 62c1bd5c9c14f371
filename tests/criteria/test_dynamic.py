"""SET and RigL: constant sparsity, exchange of weights, growth where it is said to happen."""

import itertools

import keras
import numpy as np
import pytest

import tfprune
from tfprune.callbacks import UpdateMasks
from tfprune.criteria import Rigl, Set, WeightView
from tfprune.errors import InvalidArgumentError
from tfprune.masks import local_mask
from tfprune.schedules import ConstantSparsity


def test_rigl_drops_the_smallest_and_grows_the_largest_gradient():
    values = np.array([3.0, 1.0, 2.0, 0.0, 0.0, 0.0])
    alive = np.array([True, True, True, False, False, False])
    evidence = {"accumulated": np.array([0.0, 0.1, 0.0, 0.2, -5.0, 0.3])}
    view = WeightView(values, alive=alive, evidence=evidence)
    mask = local_mask(Rigl(drop_fraction=0.34).score(view), 0.5)
    assert mask.tolist() == [True, False, True, False, True, False]


def test_set_grows_weights_that_were_pruned_before():
    alive = np.arange(20) < 10
    view = WeightView(np.where(alive, np.arange(20.0) + 1, 0), alive=alive)
    mask = local_mask(Set(drop_fraction=0.2).score(view), 0.5)
    assert mask.sum() == 10
    assert mask[2:10].all()
    assert mask[10:].sum() == 2


def test_the_exchange_ends_with_the_schedule():
    alive = np.arange(20) < 10
    values = np.where(alive, 1.0, 0)
    view = WeightView(values, alive=alive, progress=1.0)
    assert (local_mask(Set(drop_fraction=0.5).score(view), 0.5) == alive).all()


def test_the_first_masks_are_random_and_repeatable():
    view = WeightView(np.arange(100.0), path="d1/kernel")
    first = Rigl(seed=1).score(view)
    np.testing.assert_array_equal(first, Rigl(seed=1).score(view))
    assert (first != Rigl(seed=2).score(view)).any()
    assert abs(np.corrcoef(first, np.arange(100.0))[0, 1]) < 0.4


@pytest.mark.parametrize("criterion", ["set", "rigl"])
@pytest.mark.parametrize("pattern", ["unstructured", "2:4", tfprune.patterns.Block((2, 1))])
def test_the_sparsity_is_constant_while_weights_are_exchanged(
    dense_net, dense_data, criterion, pattern
):
    schedule = ConstantSparsity(0.5, end_step=16, frequency=2)
    model = tfprune.prune(dense_net, schedule, criterion=criterion, pattern=pattern)
    model.compile("adam", "sparse_categorical_crossentropy")
    seen, sparsities = [], []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            pruner = tfprune.Pruner(self.model)
            seen.append([w.alive().copy() for w in pruner.weights])
            sparsities.append(pruner.sparsity)

    model.fit(*dense_data, batch_size=10, epochs=4, verbose=0, callbacks=[UpdateMasks(), Watch()])
    assert max(sparsities) == min(sparsities)
    assert any((a[0] != b[0]).any() for a, b in itertools.pairwise(seen))
    regrown = [(b[0] & ~a[0]).any() for a, b in itertools.pairwise(seen)]
    assert any(regrown)


def test_one_threshold_over_all_layers_is_refused(dense_net):
    with pytest.raises(InvalidArgumentError, match="cannot be compared between layers"):
        tfprune.prune(dense_net, 0.5, criterion="rigl", allocation="global")


@pytest.mark.parametrize("fraction", [0, 1, 30])
def test_a_drop_fraction_is_a_fraction(fraction):
    with pytest.raises(InvalidArgumentError, match="drop_fraction"):
        Rigl(drop_fraction=fraction)


def test_one_shot_pruning_refuses_what_sums_over_training(dense_net):
    with pytest.raises(InvalidArgumentError, match="sums over training steps"):
        tfprune.prune_once(dense_net, 0.5, criterion="movement")
