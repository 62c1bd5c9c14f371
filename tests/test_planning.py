import json

import keras
import numpy as np
import pytest

import tfprune
from tfprune.errors import InvalidArgumentError
from tfprune.patterns import Block


@pytest.mark.parametrize("pattern", ["unstructured", Block((1, 4)), "2:4"], ids=str)
def test_the_plan_is_what_pruning_does(pattern, conv_net):
    report = tfprune.plan(conv_net, 0.5, pattern=pattern)
    pruner = tfprune.Pruner(tfprune.prune(conv_net, 0.5, pattern=pattern))
    pruner.step()
    planned = {row.path: row.sparsity for row in report.rows if row.is_pruned}
    assert planned == pytest.approx(pruner.sparsities())
    assert report.sparsity == pytest.approx(pruner.sparsity)
    assert report.total_parameters == conv_net.count_params()


def test_the_table_tells_what_is_left_and_why(conv_net):
    conv_net.get_layer("conv").trainable = False
    text = str(tfprune.plan(conv_net, 0.5, exclude="h2"))
    assert "conv/kernel" in text
    assert "not trainable: name it in `include`" in text
    assert "in `exclude`" in text
    assert "biases and other vectors" in text
    assert json.loads(json.dumps(tfprune.plan(conv_net, 0.5).to_dict()))["sparsity"] == 0.5


def test_without_a_schedule_the_plan_shows_the_zeros(conv_net):
    sparse = tfprune.prune_once(conv_net, 0.75)
    assert tfprune.plan(sparse).sparsity == pytest.approx(0.75, abs=0.01)


def test_masks_do_not_count_as_parameters(dense_net):
    pruned = tfprune.prune(dense_net, 0.5)
    assert tfprune.plan(pruned, 0.5).total_parameters == dense_net.count_params()
    assert tfprune.profile(pruned).parameters == dense_net.count_params()


def test_a_global_plan_shows_what_todays_scores_give_each_layer(dense_net):
    planned = [r.sparsity for r in tfprune.plan(dense_net, 0.5, allocation="global").rows]
    sparse = tfprune.prune_once(dense_net, 0.5, allocation="global")
    zeros = [float(np.mean(layer.kernel.numpy() == 0)) for layer in sparse.layers]
    assert [s for s in planned if s is not None] == pytest.approx(zeros)


def test_a_plan_that_cannot_be_is_refused(dense_net):
    with pytest.raises(InvalidArgumentError, match="include='nope'"):
        tfprune.plan(dense_net, 0.5, include="nope")


def test_every_application_of_keras_has_a_plan():
    for name in ("MobileNetV2", "EfficientNetB0"):
        model = getattr(keras.applications, name)(weights=None, input_shape=(64, 64, 3))
        report = tfprune.plan(model, 0.8)
        assert report.prunable_parameters / report.total_parameters > 0.9
