"""Which encoding an int8 file gets, and all TFLite formats side by side."""

import re
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

import tfprune
from tfprune.export.data import Samples
from tfprune.export.report import gzip_size
from tfprune.export.runners import split_runtimes
from tfprune.export.sparse_runtime import check_file
from tfprune.export.sparse_runtime.encoding import choose_encoding
from tfprune.export.sparse_runtime.graph import read_graph

layers = keras.layers
DATA = np.random.default_rng(0).random((8, 16, 16, 3), "float32")


@pytest.fixture(scope="module")
def mixed():
    """What computes garbage if it is sparse-encoded in floats: int8 never runs in sparse mode."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((16, 16, 3), name="image")
    x = layers.Conv2D(16, 3, strides=2, activation="relu")(layers.ZeroPadding2D(1)(inputs))
    x = layers.Conv2D(32, 1, activation="relu")(x)
    x = layers.Conv2D(64, 3, padding="same", activation="relu")(x)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(64, 1)(x))
    return tfprune.prune_once(keras.Model(inputs, layers.Dense(16)(x)), 0.9)


@pytest.fixture(scope="module")
def exported(mixed, tmp_path_factory):
    """The report of an export, whose file is dense here, with the sizes of both encodings."""
    folder = tmp_path_factory.mktemp("auto") / "out"
    return tfprune.export_model(mixed, folder, "tflite_int8", representative_data=DATA, runs=1)


@pytest.fixture(scope="module")
def files(exported, tmp_path_factory):
    """The int8 file in both encodings, and what is said of the sparse one."""
    dense = exported.path("tflite_int8")
    sparse = Path(shutil.copy(dense, tmp_path_factory.mktemp("sparse")))
    samples = Samples({"image": DATA}, "random inputs")
    return dense, sparse, choose_encoding(sparse, samples, 1, always=True)


def test_the_encoding_that_is_smaller_after_gzip_is_taken_and_both_sizes_told(exported, files):
    dense, sparse, note = files
    assert not any(tensor.sparse for tensor in read_graph(dense).tensors)
    assert gzip_size(dense) < gzip_size(sparse)
    assert sparse.stat().st_size < dense.stat().st_size * 0.7
    sizes = [(gzip_size(path), path.stat().st_size) for path in (dense, sparse)]
    assert sorted(_sizes_told(note)) == sorted(sizes)
    # The export chose before it embedded the metadata.
    told = _sizes_told(exported["tflite_int8"].note)
    assert told == pytest.approx(np.array(sizes), abs=1500)


def _sizes_told(note):
    """Return the bytes after gzip and raw that a note tells of, twice."""
    found = re.findall(r"([\d,]+) bytes after gzip, ([\d,]+) raw", note)
    return [tuple(int(number.replace(",", "")) for number in pair) for pair in found]


def test_both_encodings_compute_the_same_to_the_bit(files):
    batch = {"image": DATA[:1]}
    for runner in split_runtimes()[0]:
        with runner(files[0], 1) as dense, runner(files[1], 1) as sparse:
            expected, found = dense.run(batch), sparse.run(batch)
        np.testing.assert_array_equal(expected["output_0"], found["output_0"])


def test_only_convolutions_are_encoded(files):
    graph = read_graph(files[1])
    encoded = {
        op.name: graph.constant(op.inputs[1]).sparse
        for op in graph.operators
        if op.name in ("CONV_2D", "FULLY_CONNECTED")
    }
    assert encoded == {"CONV_2D": True, "FULLY_CONNECTED": False}


def test_int8_runs_dense_and_the_check_says_so(files):
    report = check_file(files[1])
    assert not report.runs_sparse
    assert not report.traps
    assert "INT8: the sparse mode is for floating-point activations" in report.operators[2].reason


def test_a_fully_connected_layer_of_the_converters_encoder_does_not_load(files, tmp_path):
    from tensorflow.lite.python.convert import mlir_sparsify

    path = tmp_path / "model.tflite"
    path.write_bytes(mlir_sparsify(files[0].read_bytes()))
    with pytest.raises(RuntimeError, match="failed to delegate FULLY_CONNECTED"):
        Interpreter(str(path)).allocate_tensors()
    assert "FULLY_CONNECTED has sparse int8 weights" in check_file(path).traps[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sparse_runtime", "words"),
    [("auto", "too few weights are zero"), ("on", "too few"), ("off", "")],
)
def test_a_dense_model_stays_dense(mixed, sparse_runtime, words, tmp_path):
    dense = keras.models.clone_model(mixed)
    report = tfprune.export_model(
        dense,
        tmp_path / "out",
        "tflite_int8",
        sparse_runtime=sparse_runtime,
        representative_data=DATA,
        runs=1,
    )
    assert words in report["tflite_int8"].note
    assert bool(words) == bool(report["tflite_int8"].note)


@pytest.mark.slow
def test_a_sparse_encoded_export_runs_wherever_it_is_installed(mixed, tmp_path):
    report = tfprune.export_model(
        mixed,
        tmp_path / "out",
        "tflite_int8",
        sparse_runtime="on",
        representative_data=DATA,
        runs=1,
    )
    assert "Sparse encoding" in report["tflite_int8"].note


def test_all_tflite_formats_are_compared(mixed, tmp_path):
    report = tfprune.export_model(mixed, tmp_path / "out", ["savedmodel", "tflite_all"], runs=1)
    assert report.names == ["savedmodel", "tflite", "tflite_float16", "tflite_dynamic"]
    # Sparse float16 values take fewer bytes than dense int8 ones at so many zeros.
    assert report.smallest == "tflite_float16"
    assert {report.smallest_gzip, report.fastest} <= {*report.names}
