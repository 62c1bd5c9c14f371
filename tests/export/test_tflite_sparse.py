"""The sparse TFLite formats: right where sparse mode is on, dense where it would be wrong."""

import shutil

import keras
import numpy as np
import pytest

import tfprune
from tfprune.errors import (
    InvalidArgumentError,
    MissingDependencyError,
    UnsupportedModelError,
    VerificationError,
)
from tfprune.export.runners import NoAvxRunner
from tfprune.export.sparse_runtime import check_file

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


@pytest.fixture(scope="module")
def exported(mobile, tmp_path_factory):
    """The files for sparse mode, and the plain ones beside them."""
    folder, formats = tmp_path_factory.mktemp("mobile"), ["tflite", "tflite_float16"]
    return [
        tfprune.export_model(mobile, folder / mode, formats, sparse_runtime=mode, runs=2)
        for mode in ("auto", "off")
    ]


@pytest.mark.parametrize("name", ["tflite", "tflite_float16"])
def test_a_stock_mobile_model_is_turned_and_sparse_encoded(exported, name):
    sparse, dense = exported
    assert "Turned by 180 degrees, it runs sparse: 34" in sparse[name].note
    assert f"{name}: Turned" in str(sparse)
    assert check_file(sparse.path(name)).runs_sparse
    assert not check_file(dense.path(name)).runs_sparse
    assert not dense[name].note
    assert sparse[name].bytes < dense[name].bytes / 2
    assert sparse[name].sparsity == pytest.approx(dense[name].sparsity, abs=0.02)


@needs_qemu
def test_sparse_mode_is_on_and_right_without_avx(mobile, exported):
    sparse, dense = exported
    for name in sparse.names:
        assert [runtime.name for runtime in sparse[name].runtimes] == ["native", "no-avx"]
        assert [runtime.name for runtime in dense[name].runtimes] == ["native"]
    name = mobile.inputs[0].name
    inputs = {name: np.zeros((1, 64, 64, 3), "float32")}
    times = []
    for report in (sparse, dense):
        with NoAvxRunner(report.path("tflite"), 1) as runner:
            times.append(min(runner.time(inputs, 3)))
    assert times[0] < times[1] / 2  # A third; equal where sparse mode is off.


def ordinary(sparsity=0.9):
    """A model with a 3x3 convolution in its midst."""
    inputs = keras.Input((32, 32, 3))
    x = layers.Conv2D(16, 3, strides=2)(layers.ZeroPadding2D(1)(inputs))
    x = layers.Conv2D(32, 3, padding="same")(layers.Conv2D(32, 1)(x))
    outputs = layers.GlobalAveragePooling2D()(layers.Conv2D(32, 1)(x))
    return tfprune.prune_once(keras.Model(inputs, outputs, name="ordinary"), sparsity)


@needs_qemu
@pytest.mark.parametrize("name", ["tflite", "tflite_float16"])
def test_an_ordinary_convolution_is_compiled(name, tmp_path):
    report = tfprune.export_model(ordinary(), tmp_path / "out", name, sparse_runtime="on", runs=2)
    assert "runs sparse: " in report[name].note
    assert "no-avx" in {runtime.name for runtime in report[name].runtimes}
    (cluster,) = [c for c in check_file(report.path(name)).clusters if c.pointwise]
    assert cluster.encoded
    assert cluster.fits


def test_what_does_not_gain_is_exported_dense_with_the_reason(tmp_path):
    report = tfprune.export_model(ordinary(0.6), tmp_path / "out", "tflite", runs=2)
    assert report["tflite"].note.startswith("Written dense: ")
    assert "predicted" in report["tflite"].note
    assert not any(cluster.encoded for cluster in check_file(report.path("tflite")).clusters)


def test_sparse_mode_on_demand_is_an_error_where_it_is_not_to_be_had(dense, tmp_path):
    with pytest.raises(UnsupportedModelError, match=r"'dense' cannot .* it has no convolutions"):
        tfprune.export_model(dense, tmp_path / "out", "tflite", sparse_runtime="on")
    with pytest.raises(UnsupportedModelError, match="open sizes"):
        tfprune.export_model(
            ordinary(), tmp_path / "out", "tflite", sparse_runtime="on", batch_size=None
        )
    with pytest.raises(InvalidArgumentError, match="none of which `formats` names"):
        tfprune.export_model(dense, tmp_path / "out", "savedmodel", sparse_runtime="on")
    with pytest.raises(InvalidArgumentError, match="must be one of .* Received: 'yes'"):
        tfprune.export_model(dense, tmp_path / "out", "tflite", sparse_runtime="yes")
    assert not (tmp_path / "out").exists()


def test_of_models_without_zeros_there_is_nothing_to_tell(dense, tmp_path):
    report = tfprune.export_model(dense, tmp_path / "out", "tflite", runs=2)
    assert not report["tflite"].note


def test_dense_files_run_elsewhere_only_when_asked_for(dense, tmp_path):
    report = tfprune.export_model(dense, tmp_path / "out", "tflite", runs=1)
    assert [runtime.name for runtime in report["tflite"].runtimes] == ["native"]
    assert not report.missing_runtimes
    with pytest.raises(MissingDependencyError, match="arm64 needs .*tfprune setup-runtime arm64"):
        tfprune.export_model(dense, tmp_path / "out", "tflite", runtimes="all")
    with pytest.raises(InvalidArgumentError, match="names of native, no-avx, arm64, wasm"):
        tfprune.export_model(dense, tmp_path / "out", "tflite", runtimes=["phone"])


@needs_qemu
def test_a_naive_file_that_is_garbage_in_sparse_mode_does_not_pass(tmp_path, monkeypatch):
    """Without the static check, the comparison without AVX still refuses the artifact."""
    inputs = keras.Input((32, 32, 3))
    x = layers.Conv2D(16, 3, strides=2, activation="relu")(layers.ZeroPadding2D(1)(inputs))
    x = layers.Conv2D(32, 1, activation="relu")(x)
    x = layers.GlobalAveragePooling2D(keepdims=True)(x)
    outputs = layers.Flatten()(layers.Conv2D(10, 1)(x))
    model = tfprune.prune_once(keras.Model(inputs, outputs), 0.9)

    def naive(source, path, convert):
        path.write_bytes(convert(source.saved_model, sparse=True))
        return ""

    monkeypatch.setattr("tfprune.export.tflite.write_for_sparse_mode", naive)
    with pytest.raises(VerificationError, match="without AVX"):
        tfprune.export_model(model, tmp_path / "out", "tflite", runs=2)
    monkeypatch.undo()
    report = tfprune.export_model(model, tmp_path / "out", "tflite", sparse_runtime="on", runs=2)
    assert "It runs sparse: 1 " in report["tflite"].note
