import keras
import numpy as np
import pytest

import tfprune
from tfprune.errors import InvalidArgumentError, NotPrunedError
from tfprune.mask_computation import compute_masks
from tfprune.patterns import NM
from tfprune.schedules import Keep, LinearDecay

layers = keras.layers


class Net(keras.Model):
    """A subclassed model that shares a name with nothing."""

    def __init__(self):
        super().__init__()
        self.first = layers.Dense(8, kernel_constraint="max_norm")
        self.second = layers.Dense(4)

    def call(self, x):
        return self.second(self.first(x))


@pytest.fixture
def net():
    model = Net()
    model(np.ones((1, 8), "float32"))
    return model


def test_masks_of_a_subclassed_model_attach_in_place(net):
    before = net(np.ones((2, 8)))
    pruner = tfprune.Pruner(net, 0.5)
    assert np.array_equal(before, net(np.ones((2, 8))))
    pruner.step()
    assert pruner.sparsities() == {w.path: 0.5 for w in pruner.weights}
    assert np.mean(net.first.kernel.numpy() == 0) == 0.5


def test_a_second_pruner_drives_the_same_masks(net):
    tfprune.Pruner(net, LinearDecay(0.0, 0.5, end_step=3, frequency=1)).step()
    second = tfprune.Pruner(net)
    second.step()
    assert second.runs[0].step == 2
    with pytest.raises(InvalidArgumentError, match="is pruned already"):
        tfprune.Pruner(net, 0.5)


def test_stripping_a_pruner_gives_the_model_its_own_constraints_back(net):
    pruner = tfprune.Pruner(net, 0.5, include="dense")
    pruner.step()
    assert pruner.strip() is net
    assert isinstance(net.first.kernel.constraint, keras.constraints.MaxNorm)
    assert not tfprune.is_pruned(net)
    tfprune.Pruner(net, 0.75).step()
    assert np.mean(net.second.kernel.numpy() == 0) == 0.75


def test_a_pruner_can_keep_the_zeros_that_are_there(net):
    kernel = net.first.kernel.numpy()
    kernel[:2] = 0
    net.first.kernel.assign(kernel)
    pruner = tfprune.Pruner(net, Keep())
    assert list(pruner.sparsities().values()) == [0.25, 0.0]


def test_a_held_pruner_does_not_raise_the_sparsity(dense_net):
    pruned = tfprune.prune(dense_net, LinearDecay(0.0, 0.8, end_step=10, frequency=1))
    pruner = tfprune.Pruner(pruned)
    for _ in range(5):
        pruner.step()
    pruner.held = True
    sparsity = pruner.sparsity
    for _ in range(5):
        pruner.step()
    assert pruner.sparsity == sparsity
    assert tfprune.Pruner(pruned).held, "the flag is part of the model"
    pruner.held = False


def test_n_m_follows_the_schedule_to_an_exact_pattern():
    model = keras.Sequential([keras.Input((10,)), layers.Dense(6)])
    ramp = LinearDecay(0.0, 0.5, end_step=4, frequency=1)
    pruned = tfprune.prune(model, ramp, pattern=NM(2, 4))
    pruner = tfprune.Pruner(pruned)
    seen = []
    for _ in range(4):
        pruner.step()
        kernel = pruned.layers[0].kernel.numpy()
        seen.append(int((kernel == 0).sum()))
    # Eight of ten inputs fill groups of four: half of those 48 weights go.
    assert seen == [6, 12, 18, 24]
    assert ((kernel[:8].reshape(2, 4, 6) != 0).sum(axis=1) == 2).all()


def test_masks_are_computed_without_changing_anything(dense_net):
    pruner = tfprune.Pruner(tfprune.prune(dense_net, 0.5))
    masks = compute_masks(pruner.weights, pruner.runs[0].plan, 0.5)
    assert [int(mask.sum()) for mask in masks] == [64, 24]
    assert pruner.sparsity == 0


def test_an_update_with_diverged_weights_changes_nothing(dense_net):
    pruned = tfprune.prune(dense_net, 0.5)
    kernel = pruned.layers[1].kernel
    kernel.assign(kernel * np.inf)
    with pytest.raises(InvalidArgumentError, match="d2/kernel has .* NaN or infinite"):
        tfprune.Pruner(pruned).step()
    assert tfprune.Pruner(pruned).sparsity == 0


def test_a_model_without_masks_or_schedule_is_refused(dense_net):
    with pytest.raises(NotPrunedError, match="pass a schedule"):
        tfprune.Pruner(dense_net)


def test_a_part_of_a_model_without_its_plan_says_so(dense_net):
    pruned = tfprune.prune(dense_net, 0.5)
    tail = keras.Sequential([keras.Input((16,)), pruned.layers[1]])
    with pytest.raises(NotPrunedError, match=r"d2 are pruned.*tfprune\.prune"):
        tfprune.Pruner(tail)
    assert tfprune.is_pruned(tfprune.prune(tail, 0.5))


def test_a_model_of_wrappers_is_stripped_by_strip(dense_net):
    with pytest.raises(InvalidArgumentError, match=r"tfprune.strip\(model\)"):
        tfprune.Pruner(tfprune.prune(dense_net, 0.5)).strip()


def test_the_arrays_of_a_weight_are_read_only_and_stay_as_they_were_read(net):
    weight = tfprune.Pruner(net, 0.5).weights[0]
    values, alive = weight.values(), weight.alive()
    before = values.copy()
    weight.variable.assign_add(np.ones(weight.variable.shape))
    weight.mask.assign(np.zeros(weight.mask.shape, bool))
    assert np.array_equal(values, before)
    assert alive.all()
    with pytest.raises(ValueError, match="read-only"):
        values[0] = 0
