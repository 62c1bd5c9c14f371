"""The ONNX format: everything is run in ONNX Runtime, as the export itself does."""

import importlib.util

import keras
import numpy as np
import onnx
import pytest
import tensorflow as tf

import tfprune
from tfprune.errors import InvalidArgumentError, MissingDependencyError, UnsupportedModelError
from tfprune.export.onnx import OPSET, OnnxRunner, stored_weights

layers = keras.layers


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(0)


def attention():
    ids = keras.Input((6,), dtype="int32", name="ids")
    x = layers.Embedding(11, 8, name="tokens")(ids)
    x = x + layers.MultiHeadAttention(2, 4, name="attention")(x, x)
    x = layers.Dense(8, activation="gelu")(layers.LayerNormalization()(x))
    return keras.Model(ids, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)))


def recurrent(layer):
    inputs = keras.Input((5, 4), name="x")
    return keras.Model(inputs, layers.Dense(3)(layer(inputs)))


def convolutions():
    inputs = keras.Input((12, 12, 4), name="image")
    x = layers.ReLU(6.0)(layers.BatchNormalization()(layers.Conv2D(8, 3, padding="same")(inputs)))
    x = layers.SeparableConv2D(8, 3)(layers.DepthwiseConv2D(3, strides=2, padding="same")(x))
    x = layers.Conv2D(8, 3, groups=2, padding="same")(x)
    x = layers.Conv2DTranspose(8, 3, strides=2)(x)
    return keras.Model(inputs, layers.Dense(4)(layers.GlobalAveragePooling2D()(x)))


@pytest.mark.parametrize(
    "build",
    [
        attention,
        lambda: recurrent(layers.LSTM(4)),
        lambda: recurrent(layers.Bidirectional(layers.GRU(4))),
        convolutions,
    ],
    ids=["attention", "lstm", "gru", "convolutions"],
)
def test_a_pruned_model_is_right_in_onnx_runtime_and_keeps_2_of_4(build, tmp_path, rng):
    model = tfprune.prune_once(build(), 0.5, pattern="2:4")
    report = tfprune.export_model(model, tmp_path / "out", "onnx", runs=1)
    (share,) = report["onnx"].patterns
    assert share.pattern == "2:4"
    assert share.kernels == share.of_kernels
    assert report["onnx"].max_difference < 1e-5
    spec = model.inputs[0]
    shape = (3, *spec.shape[1:])  # Another batch than the one that was verified.
    batch = rng.integers(0, 11, shape).astype(spec.dtype)
    (output,) = OnnxRunner(report.path("onnx"), 1).run({spec.name: batch}).values()
    np.testing.assert_allclose(output, model(batch), atol=1e-5)


def test_names_batch_opset_and_dtypes_are_those_that_servers_expect(two_inputs, tmp_path):
    report = tfprune.export_model(two_inputs, tmp_path / "out", ["savedmodel", "onnx"], runs=1)
    model = onnx.load(report.path("onnx"))
    assert next((entry.domain, entry.version) for entry in model.opset_import) == ("", OPSET)
    assert _ports(model.graph.input) == {"values": ["batch", 4], "ids": ["batch", 3]}
    assert _ports(model.graph.output) == {"score": ["batch", 1], "class": ["batch", 3]}
    kernels = [tensor for tensor in model.graph.initializer if len(tensor.dims) == 2]
    assert {tensor.data_type for tensor in kernels} == {onnx.TensorProto.FLOAT}
    loaded = tf.saved_model.load(str(report.path("savedmodel")))
    serving = loaded.signatures["serving_default"]
    specs = serving.structured_input_signature[1] | serving.structured_outputs
    assert {name: (spec.shape.as_list(), spec.dtype.name) for name, spec in specs.items()} == {
        "values": ([None, 4], "float32"),
        "ids": ([None, 3], "int32"),
        "score": ([None, 1], "float32"),
        "class": ([None, 3], "float32"),
    }


def test_weights_carry_the_names_of_the_model_also_where_a_normalization_was_folded(tmp_path):
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, name="stem")(inputs)
    x = layers.BatchNormalization(gamma_initializer="random_normal", beta_initializer="ones")(x)
    x = layers.Dense(5, name="dense")(layers.Flatten()(x))
    model = keras.Model(inputs, layers.Dense(5, name="dense_1")(x))
    report = tfprune.export_model(model, tmp_path / "out", "onnx", runs=1)
    graph = onnx.load(report.path("onnx")).graph
    shapes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    assert shapes["stem/kernel"] == [4, 3, 3, 3]
    assert (shapes["dense/kernel"], shapes["dense_1/kernel"]) == ([144, 5], [5, 5])
    weights = {array.shape: array for array in stored_weights(report.path("onnx"))}
    np.testing.assert_array_equal(weights[5, 5], model.layers[-1].kernel)


def test_a_model_with_a_batch_size_of_its_own_keeps_it(tmp_path):
    model = keras.Sequential([keras.Input((4,), batch_size=2, name="x"), layers.Dense(3)])
    report = tfprune.export_model(model, tmp_path / "out", "onnx", batch_size=2, runs=1)
    assert _ports(onnx.load(report.path("onnx")).graph.input) == {"x": [2, 4]}


def test_an_op_that_onnx_does_not_have_is_named_and_nothing_is_written(tmp_path):
    class Angle(layers.Layer):
        def call(self, inputs):
            return keras.ops.real(keras.ops.ifft2((inputs, inputs))[0])

    inputs = keras.Input((4, 4))
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(Angle()(inputs))), name="odd")
    with pytest.raises(UnsupportedModelError, match="'odd' cannot be converted to model.onnx: .*"):
        tfprune.export_model(model, tmp_path / "out", "onnx")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "tf2onnx"])
def test_a_missing_package_is_named_before_anything_is_written(
    dense, tmp_path, monkeypatch, package
):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == package else find(name, *a)
    )
    with pytest.raises(MissingDependencyError, match=rf"needs {package}, .*tfprune\[onnx\]"):
        tfprune.export_model(dense, tmp_path / "out", ["savedmodel", "onnx"])
    assert not (tmp_path / "out").exists()
    tfprune.export_model(dense, tmp_path / "out", "savedmodel", runs=1)


def test_an_unknown_format_lists_onnx_too(dense, tmp_path):
    with pytest.raises(InvalidArgumentError, match="onnx"):
        tfprune.export_model(dense, tmp_path / "out", "tensorrt")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["MobileNetV2", "ResNet50"])
def test_whole_networks_keep_2_of_4(name, tmp_path):
    model = getattr(keras.applications, name)(weights=None, input_shape=(64, 64, 3))
    sparse = tfprune.prune_once(model, 0.5, pattern="2:4")
    report = tfprune.export_model(sparse, tmp_path / "out", "onnx", runs=1)
    share = next(share for share in report["onnx"].patterns if share.pattern == "2:4")
    assert share.kernels == share.of_kernels - 1  # The stem sees three channels.


def _ports(values):
    return {
        value.name: [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]
        for value in values
    }
