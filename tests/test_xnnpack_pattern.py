"""The pattern "xnnpack": what it takes is what the exporter then finds to run sparse."""

import contextlib
import json
import re

import keras
import numpy as np
import pytest

import tfprune
from tfprune.errors import InvalidArgumentError, InvalidTypeError, UnsupportedModelError
from tfprune.export.formats import Source, resolve_formats
from tfprune.export.signature import signature_of
from tfprune.export.sparse_runtime import check_file
from tfprune.patterns import Xnnpack

layers = keras.layers


def mobile(head, size=32, padded=True):
    """A stem, 1x1 and depthwise convolutions, and a head."""
    inputs = keras.Input((size, size, 3), name="image")
    x = layers.ZeroPadding2D(1)(inputs) if padded else inputs
    x = layers.Conv2D(16, 3, 2, "valid" if padded else "same", activation="relu", name="stem")(x)
    x = layers.Conv2D(32, 1, use_bias=False, name="expand")(x)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    x = layers.Conv2D(32, 1, name="project")(x)
    x = layers.SeparableConv2D(24, 3, padding="same", activation="relu", name="separable")(x)
    return keras.Model(inputs, head(x), name="mobile")


def dense_head(x):
    return layers.Dense(10, name="head")(layers.GlobalAveragePooling2D()(x))


def convolution_head(x):
    x = layers.GlobalAveragePooling2D(keepdims=True)(x)
    return layers.Flatten()(layers.Conv2D(10, 1, name="head")(x))


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return mobile(dense_head)


SPARSE = ["expand/kernel", "project/kernel", "separable/pointwise_kernel"]
SIZE = 16 * 32 + 32 * 32 + 32 * 24


def exported(model, folder):
    """Write a model as the exporter does, and look at the file; emulators are for other tests."""
    path = folder / "model.tflite"
    source = Source(model, signature_of(model), None, folder / str(len([*folder.iterdir()])))
    resolve_formats("tflite")[0].write(source, path)
    return check_file(path)


def assert_pruned_is_what_runs_sparse(model, folder, exactly=True):
    """Compare the plan with an independent look at the exported file.

    Rewrites add 1x1 filters of their own; then the comparison cannot be exact.
    """
    taken = [row for row in tfprune.plan(model, 0.9, pattern="xnnpack").rows if row.is_pruned]
    sparse = tfprune.prune_once(model, 0.9, pattern="xnnpack")
    file = exported(sparse, folder)
    running = [operator for operator in file.operators if operator.runs_sparse]
    if not exactly:
        assert len(running) >= 0.9 * len(taken)
        return taken
    assert len(running) == len(taken)
    clusters = [c for c in file.clusters if {*c.pointwise} & {op.index for op in running}]
    assert sum(cluster.weights for cluster in clusters) == sum(row.parameters for row in taken)
    zeros = sum(row.parameters * row.sparsity for row in taken)
    assert sum(cluster.zeros for cluster in clusters) == pytest.approx(zeros, abs=1)
    return taken


def test_what_is_pruned_is_what_runs_sparse(model, tmp_path):
    taken = assert_pruned_is_what_runs_sparse(model, tmp_path)
    assert [row.path for row in taken] == SPARSE


def test_what_runs_sparse_only_once_it_is_rewritten_is_pruned(tmp_path):
    stock = mobile(convolution_head, padded=False)  # As in keras.applications.
    taken = assert_pruned_is_what_runs_sparse(stock, tmp_path)
    assert [row.path for row in taken] == SPARSE
    rows = {row.path: row.reason for row in tfprune.plan(stock, 0.9, pattern="xnnpack").rows}
    assert rows["head/kernel"] == "would gain nothing: behind the pooling over space"


def test_the_plan_says_why_the_others_are_left_dense(model):
    report = tfprune.plan(model, 0.9, pattern="xnnpack")
    reasons = {row.path: row.reason for row in report.rows if not row.is_pruned}
    assert reasons["stem/kernel"] == "would gain nothing: a 3x3 convolution"
    assert reasons["depthwise/kernel"] == "would gain nothing: a 3x3 depthwise convolution"
    assert reasons["separable/depthwise_kernel"].endswith("a 3x3 depthwise convolution")
    assert reasons["head/kernel"] == "would gain nothing: behind the pooling over space"
    assert reasons["head/bias"].startswith("not a kernel")
    assert not report.warnings


def test_too_low_a_target_is_warned_of_before_training(model):
    with pytest.warns(UserWarning, match=r"Planned are 50.0%, so they would run dense"):
        tfprune.prune(model, 0.5, pattern="xnnpack")
    report = tfprune.plan(model, 0.5, pattern="xnnpack")
    (warning,) = report.warnings
    assert warning in str(report)
    assert "Prune the weights to more than 66.7%" in warning
    assert json.loads(json.dumps(report.to_dict()))["warnings"] == [warning]


def test_weights_that_are_left_out_weigh_in_and_the_numbers_are_right(model, tmp_path):
    (warning,) = tfprune.plan(model, 0.8, pattern="xnnpack", exclude="expand").warnings
    assert "512 of the weights are not pruned: expand/kernel" in warning
    asked = float(re.search(r"more than ([\d.]+)%", warning.partition("Planned")[2]).group(1)) / 100
    assert asked == pytest.approx(2 / 3 * SIZE / (SIZE - 512), abs=1e-3)
    for sparsity, runs_sparse in ((asked - 0.005, False), (asked + 0.005, True)):
        with contextlib.nullcontext() if runs_sparse else pytest.warns(UserWarning, match="dense"):
            sparse = tfprune.prune_once(model, sparsity, pattern="xnnpack", exclude="expand")
        assert exported(sparse, tmp_path).runs_sparse is runs_sparse


def test_what_cannot_be_reached_is_told(model):
    (warning,) = tfprune.plan(model, 0.9, pattern="xnnpack", include="expand").warnings
    assert "cannot be reached: prune them too" in warning


def test_zeros_that_are_there_count(model):
    sparse = tfprune.prune_once(model, 0.9, include="expand")
    assert not tfprune.plan(sparse, 0.8, pattern="xnnpack", exclude="expand").warnings
    assert tfprune.plan(sparse, "keep", pattern="xnnpack").warnings


def test_it_trains_saves_and_comes_back(model, tmp_path):
    schedule = tfprune.schedules.PolynomialDecay(0.0, 0.9, begin_step=0, end_step=4, frequency=1)
    pruned = tfprune.prune(model, schedule, pattern="xnnpack", allocation="global")
    pruned.compile("adam", "mse")
    x = np.random.default_rng(0).random((8, 32, 32, 3), "float32")
    callbacks = [tfprune.callbacks.UpdateMasks()]
    pruned.fit(x, np.zeros((8, 10)), batch_size=2, verbose=0, callbacks=callbacks)
    pruned.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    pruner = tfprune.Pruner(loaded)
    assert list(pruner.sparsities()) == SPARSE
    assert pruner.sparsity == pytest.approx(0.9, abs=1e-3)
    assert pruner.runs[0].plan.pattern == Xnnpack()
    # A pruned model can be planned anew: its masks are kept, and its kernels found all the same.
    again = tfprune.prune(loaded, 0.95, pattern="xnnpack")
    assert list(tfprune.Pruner(again).sparsities()) == SPARSE


def test_a_subclassed_model_is_pruned_in_place_and_not_changed_by_the_survey():
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.inner = mobile(dense_head)

        def call(self, x):
            return self.inner(x)

    net = Net()
    net(np.zeros((1, 32, 32, 3), "float32"))
    before = [w.numpy() for w in net.weights]
    pruner = tfprune.Pruner(net, 0.9, pattern="xnnpack")
    for old, new in zip(before, net.weights, strict=False):
        np.testing.assert_array_equal(old, new)
    pruner.step()
    assert len(pruner.weights) == 3
    assert pruner.sparsity == pytest.approx(0.9, abs=1e-3)


def no_stem(x):
    return layers.GlobalAveragePooling2D()(layers.Conv2D(16, 1)(layers.Conv2D(16, 3)(x)))


def with_pooling(x):
    x = layers.Conv2D(16, 3, strides=2)(layers.ZeroPadding2D(1)(x))
    return layers.GlobalAveragePooling2D()(layers.Conv2D(16, 1)(layers.MaxPooling2D()(x)))


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (no_stem, r"CONV_2D 3x3, stride 1, 3 input channels.*\(to help: rewrite it"),
        (with_pooling, r"MAX_POOL_2D.*\(to help: keep it before the 3x3 stride-2 stem"),
        (lambda x: layers.Dense(3)(layers.Flatten()(x)), "nothing to prune"),
    ],
    ids=["no stem", "pooling", "dense"],
)
def test_a_model_without_a_cluster_is_refused_with_what_is_in_the_way(function, words):
    inputs = keras.Input((32, 32, 3))
    model = keras.Model(inputs, function(inputs))
    with pytest.raises(UnsupportedModelError, match=words):
        tfprune.plan(model, 0.9, pattern="xnnpack")


def test_a_map_that_is_flattened_leaves_the_cluster_first():
    inputs = keras.Input((32, 32, 3))
    model = keras.Model(inputs, mobile(layers.Flatten(), padded=False)(inputs))
    plan = tfprune.plan(model, 0.9, pattern="xnnpack")
    assert any(not row.reason for row in plan.rows)


def test_naming_what_runs_dense_does_not_help(model):
    with pytest.raises(
        InvalidArgumentError, match="would gain nothing: a 3x3 depthwise convolution"
    ):
        tfprune.prune_once(model, 0.9, pattern="xnnpack", include="depthwise")


def test_single_layers_are_refused():
    with pytest.raises(InvalidTypeError, match="prune a whole keras.Model"):
        tfprune.prune([layers.Conv2D(4, 1)], 0.9, pattern="xnnpack")


def test_an_open_size_is_given_to_the_pattern():
    open_size = mobile(dense_head, size=None)
    with pytest.raises(InvalidArgumentError, match="input_shape"):
        tfprune.plan(open_size, 0.9, pattern="xnnpack")
    report = tfprune.plan(open_size, 0.9, pattern=Xnnpack(input_shape=[32, 32, 3]))
    assert [row.path for row in report.rows if row.is_pruned] == SPARSE
    with pytest.raises(InvalidTypeError, match="tuple of sizes"):
        Xnnpack(input_shape="large")


@pytest.mark.slow
@pytest.mark.parametrize("top", [True, False])
@pytest.mark.parametrize("name", ["MobileNet", "MobileNetV2", "MobileNetV3Small", "EfficientNetB0"])
def test_the_1x1_convolutions_of_stock_mobile_models_are_pruned(name, top, tmp_path):
    pooling = None if top else "avg"
    model = getattr(keras.applications, name)(
        weights=None, input_shape=(96, 96, 3), include_top=top, pooling=pooling
    )
    taken = assert_pruned_is_what_runs_sparse(model, tmp_path, exactly=False)
    kernels = [layer for layer in model.layers if getattr(layer, "kernel_size", None) == (1, 1)]
    behind = {"MobileNet": 1, "MobileNetV3Small": 2}.get(name, 0) if top else 0
    # Some of the smallest are faster outside.
    assert 0.8 * (len(kernels) - behind) <= len(taken) <= len(kernels) - behind


@pytest.mark.slow
def test_the_3x3_convolutions_of_a_stock_model_are_pruned_too(tmp_path):
    model = keras.applications.ResNet50(weights=None, input_shape=(64, 64, 3))
    taken = assert_pruned_is_what_runs_sparse(model, tmp_path, exactly=False)
    assert {(1, 1), (3, 3)} <= {row.shape[:2] for row in taken}
