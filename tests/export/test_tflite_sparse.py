"""The sparse TFLite formats: right where sparse mode is on, dense where it would be wrong."""

import shutil

import keras
import numpy as np
import pytest

import tfprune
from tfprune.errors import VerificationError
from tfprune.export.runners import NoAvxRunner
from tfprune.export.sparse_runtime import check_file
from tfprune.export.tflite import convert

layers = keras.layers
needs_qemu = pytest.mark.skipif(
    shutil.which("qemu-x86_64") is None, reason="needs qemu: apt-get install qemu-user"
)


def pointwise(layer):
    return isinstance(layer, layers.Conv2D) and layer.kernel_size == (1, 1)


@pytest.fixture(scope="module")
def mobile():
    model = keras.applications.MobileNetV2(
        weights=None, input_shape=(64, 64, 3), alpha=0.5, include_top=False, pooling="avg"
    )
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if len(weight.shape) == 1:
            weight.assign(0.5 + rng.random(weight.shape))
    return tfprune.prune_once(model, 0.9, include=pointwise)


@needs_qemu
def test_a_stock_mobile_model_is_turned_and_right_without_avx(mobile, tmp_path):
    formats = ["tflite", "tflite_sparse", "tflite_sparse_float16"]
    report = tfprune.export_model(mobile, tmp_path / "out", formats, runs=2)
    for name in formats[1:]:
        assert "Turned by 180 degrees, it runs sparse: 34" in report[name].note
        assert "Same on ai-edge-litert" in report[name].note
        assert check_file(report.path(name)).runs_sparse
        assert report[name].bytes < report["tflite"].bytes / 2
        assert report[name].sparsity == pytest.approx(report["tflite"].sparsity, abs=0.02)
    assert "tflite_sparse: Turned" in str(report)


@needs_qemu
def test_sparse_mode_is_on_without_avx(mobile, tmp_path):
    report = tfprune.export_model(mobile, tmp_path / "out", ["tflite", "tflite_sparse"], runs=2)
    inputs = {mobile.inputs[0].name: np.zeros((1, 64, 64, 3), "float32")}
    dense, sparse = (
        min(NoAvxRunner(report.path(name), 1).time(inputs, 3)) for name in report.names
    )
    assert sparse < dense / 2  # About 3; 1 where sparse mode is off.


def test_an_ordinary_convolution_is_exported_dense_with_the_reason(tmp_path):
    inputs = keras.Input((32, 32, 3))
    x = layers.Conv2D(16, 3, strides=2)(layers.ZeroPadding2D(1)(inputs))
    x = layers.Conv2D(32, 3, padding="same")(layers.Conv2D(32, 1)(x))
    outputs = layers.GlobalAveragePooling2D()(layers.Conv2D(32, 1)(x))
    model = tfprune.prune_once(keras.Model(inputs, outputs), 0.9)
    report = tfprune.export_model(model, tmp_path / "out", "tflite_sparse", runs=2)
    assert "Written dense: 1 x CONV_2D 3x3" in report["tflite_sparse"].note
    assert not any(cluster.encoded for cluster in check_file(report.path("tflite_sparse")).clusters)


def test_too_few_zeros_are_told(tmp_path):
    model = tfprune.prune_once(
        keras.applications.MobileNetV2(weights=None, input_shape=(64, 64, 3), alpha=0.35), 0.5
    )
    report = tfprune.export_model(model, tmp_path / "out", "tflite_sparse", runs=2)
    assert "zeros, and sparse mode asks for more than 66.7%" in report["tflite_sparse"].note


def test_models_without_images_are_exported_dense(dense, tmp_path):
    report = tfprune.export_model(dense, tmp_path / "out", "tflite_sparse", runs=2)
    assert "Written dense" in report["tflite_sparse"].note


@needs_qemu
def test_a_naive_file_that_is_garbage_in_sparse_mode_does_not_pass(tmp_path, monkeypatch):
    """Without the static check, the comparison without AVX still refuses the artifact."""
    inputs = keras.Input((32, 32, 3))
    x = layers.Conv2D(16, 3, strides=2, activation="relu")(layers.ZeroPadding2D(1)(inputs))
    x = layers.Conv2D(32, 1, activation="relu")(x)
    x = layers.GlobalAveragePooling2D(keepdims=True)(x)
    outputs = layers.Flatten()(layers.Conv2D(10, 1)(x))
    model = tfprune.prune_once(keras.Model(inputs, outputs), 0.9)

    def naive(source, path, float16):
        path.write_bytes(convert(source.saved_model, optimize=False, sparse=True))
        return ""

    monkeypatch.setattr("tfprune.export.tflite_sparse._write", naive)
    with pytest.raises(VerificationError, match="without AVX"):
        tfprune.export_model(model, tmp_path / "out", "tflite_sparse", runs=2)
    monkeypatch.undo()
    report = tfprune.export_model(model, tmp_path / "out", "tflite_sparse", runs=2)
    assert "With a head of Dense layers, it runs sparse" in report["tflite_sparse"].note
