"""Pruned models: wrappers are looked through, masks are no parameters, masked weights are zeros."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from tfprune.profiling import profile
from tfprune.pruning_plan import PruningPlan
from tfprune.wrappers import MaskStore, Pruned


@pytest.fixture
def plan():
    return PruningPlan.create(0.5, "magnitude", "unstructured", "uniform")


def network(wrap):
    x = keras.Input((6, 4))
    y = wrap(layers.Conv1D(4, 3, name="conv"))(x)
    y = wrap(layers.Bidirectional(layers.LSTM(2, return_sequences=True, name="lstm"), name="both"))(
        y
    )
    y = layers.TimeDistributed(wrap(layers.Dense(4, name="step")), name="steps")(y)
    y = wrap(layers.MultiHeadAttention(2, 3, name="mha"))(y, y)
    return keras.Model(x, layers.Dense(2, name="head")(y), name="network")


def prune_half(model):
    for layer in model._flatten_layers():
        for mask in layer.weight_masks if isinstance(layer, Pruned) else ():
            keep = np.arange(np.prod(mask.shape)) % 2 == 0
            mask.assign(keep.reshape(mask.shape))


def test_a_wrapped_model_has_the_rows_of_the_plain_one():
    plain, wrapped = profile(network(lambda layer: layer)), profile(network(Pruned))
    assert [row.path for row in wrapped.layers] == [row.path for row in plain.layers]
    for name in ("class_name", "calls", "parameters", "macs", "flops", "output_shapes"):
        of_plain = [getattr(row, name) for row in plain.layers]
        assert [getattr(row, name) for row in wrapped.layers] == of_plain
    for name in ("parameters", "trainable_parameters", "macs", "flops"):
        assert getattr(wrapped, name) == getattr(plain, name)
    assert wrapped.bytes.dense == plain.bytes.dense


def test_masked_weights_are_zeros_before_the_constraint_has_run():
    model = network(Pruned)
    for weight in model.weights:
        if weight.dtype == "float32":
            weight.assign(ops.ones(weight.shape))
    dense = profile(model)
    prune_half(model)
    report = profile(model)
    assert report.parameters == dense.parameters
    assert report.bytes.dense == dense.bytes.dense
    assert report.bytes.sparse < dense.bytes.sparse
    rows = {row.path: row for row in report.layers}
    for path in ("conv", "both/forward_lstm", "steps/step", "mha/query"):
        assert rows[path].effective_macs * 2 == rows[path].macs
    # The head is not pruned, and attention's own products have no weights.
    for path in ("head", "mha"):
        assert rows[path].effective_macs == rows[path].macs
    assert rows["conv"].nonzeros == 3 * 4 * 4 // 2 + 4


def test_the_plan_and_its_counters_are_no_parameters(plan):
    layer = layers.Dense(3)
    model = keras.Sequential([keras.Input((4,)), Pruned(layer, plan=plan)])
    assert len(model.weights) == 2 + 1 + 2
    assert profile(model).parameters == 15


def test_the_mask_store_of_a_subclassed_model_is_no_parameter(plan):
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(4, use_bias=False, kernel_initializer="ones")
            self.dense.build((None, 4))
            self.gain = self.add_weight(shape=(4, 4), initializer="ones", name="gain")
            self.tfprune_masks = MaskStore(plan)
            self.tfprune_masks.hold_masks([self.dense.kernel, self.gain])

        def call(self, x):
            return ops.matmul(self.dense(x), self.gain)

    model = Own()
    model(ops.zeros((1, 4)))
    model.tfprune_masks.weight_masks[0].assign(np.eye(4) > 0)
    report = profile(model)
    assert (report.parameters, report.nonzeros) == (32, 4 + 16)
    assert (report.macs, report.effective_macs) == (16, 4)
    # The model's own weight is in the row of the model, and no rule says how it is used.
    assert [row.parameters for row in report.layers] == [16, 16]
    assert report.uncounted == (model.name,)
