"""The static rules, on files that were converted for real."""

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

import tfprune
from tfprune.errors import ArtifactError
from tfprune.export.savedmodel import write_saved_model
from tfprune.export.signature import signature_of
from tfprune.export.sparse_runtime import check_file
from tfprune.export.tflite import convert

layers = keras.layers


def stem(x):
    return layers.Conv2D(16, 3, strides=2, activation="relu")(layers.ZeroPadding2D(1)(x))


def uneven_stem(x):
    return layers.Conv2D(16, 3, strides=2, padding="same")(x)


def mixed(x):
    """An ordinary convolution between two clusters: garbage on phones if sparse-encoded."""
    x = layers.Conv2D(32, 1, activation="relu")(stem(x))
    x = layers.Conv2D(32, 3, padding="same", activation="relu")(x)
    return layers.GlobalAveragePooling2D()(layers.Conv2D(32, 1)(x))


def good(x):
    x = layers.DepthwiseConv2D(3, padding="same")(layers.Conv2D(32, 1, activation="relu")(stem(x)))
    return layers.Dense(4)(layers.GlobalAveragePooling2D()(layers.Conv2D(32, 1)(x)))


def written(folder, function, sparsity=0.9, sparse=True, optimize=False):
    """Convert a pruned model, as anybody would, and return the file."""
    inputs = keras.Input((32, 32, 3))
    model = tfprune.prune_once(keras.Model(inputs, function(inputs)), sparsity)
    write_saved_model(model, signature_of(model), folder / "saved_model")
    path = folder / "model.tflite"
    path.write_bytes(convert(folder / "saved_model", optimize=optimize, sparse=sparse))
    return path


def test_a_model_that_runs_sparse(tmp_path):
    report = check_file(written(tmp_path, good))
    assert report.runs_sparse
    assert report.verdict.startswith("runs sparse: 2 of its 1x1 convolutions")
    (cluster,) = report.clusters
    assert cluster.encoded
    assert cluster.sparsity == pytest.approx(0.9, abs=0.01)
    assert not report.traps


def test_zeros_that_are_too_few_and_weights_that_are_not_encoded(tmp_path):
    (tmp_path / "few").mkdir()
    report = check_file(written(tmp_path / "few", good, sparsity=0.6))
    assert not report.runs_sparse
    assert report.is_ready
    assert "60.0% zeros, and sparse mode asks for more than 66.7%" in report.verdict
    report = check_file(written(tmp_path, good, sparse=False))
    assert "not in the sparse encoding" in report.verdict


def test_a_cluster_that_ends_in_an_ordinary_convolution_is_a_trap(tmp_path):
    report = check_file(written(tmp_path, mixed))
    assert report.traps
    assert "not safe" in report.verdict
    assert "feeds" in report.traps[0]
    assert "garbage" in report.traps[0]
    assert any("rewrite it as depthwise" in remedy for _, remedy in report.blockers)


def test_a_1x1_convolution_head_is_a_trap(tmp_path):
    def head(x):
        x = layers.GlobalAveragePooling2D(keepdims=True)(layers.Conv2D(32, 1)(stem(x)))
        return layers.Flatten()(layers.Conv2D(10, 1)(x))

    assert check_file(written(tmp_path, head)).traps


def test_dynamic_range_weights_in_the_sparse_encoding_are_a_trap(tmp_path):
    def wide(x):
        x = layers.Conv2D(128, 1)(layers.Conv2D(128, 1)(stem(x)))
        return layers.GlobalAveragePooling2D()(x)

    path = written(tmp_path, wide, optimize=True)
    assert any("dynamic range" in trap for trap in check_file(path).traps)
    with pytest.raises(RuntimeError, match="failed to delegate CONV_2D"):
        Interpreter(str(path)).allocate_tensors()


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (uneven_stem, "padded 0/1 and 0/1"),
        (lambda x: layers.DepthwiseConv2D(3, 2, "same")(stem(x)), "wants 1 on every side"),
        (lambda x: layers.DepthwiseConv2D(7, padding="same")(stem(x)), "has 3x3 and 5x5"),
        (lambda x: layers.Conv2D(8, 5, padding="same")(stem(x)), "only 1x1 filters run sparse"),
        (lambda x: layers.MaxPooling2D()(stem(x)), "MAX_POOL_2D has no channels-first form"),
    ],
    ids=["stem", "stride", "7x7", "5x5", "pooling"],
)
def test_what_is_in_the_way_is_named(function, words, tmp_path):
    def net(x):
        return layers.GlobalAveragePooling2D()(layers.Conv2D(16, 1)(function(x)))

    report = check_file(written(tmp_path, net, sparse=False))
    assert not report.is_ready
    assert any(words in reason for reason, _ in report.blockers)
    assert words in str(report)


def test_files_that_are_no_models_are_refused(tmp_path):
    path = tmp_path / "model.tflite"
    with pytest.raises(ArtifactError, match="Cannot read"):
        check_file(path)
    path.write_bytes(b"PK\3\4 something else")
    with pytest.raises(ArtifactError, match="not a TFLite model"):
        check_file(path)
    path.write_bytes(b"\x1c\x00\x00\x00TFL3" + np.random.default_rng(0).bytes(500))
    with pytest.raises(ArtifactError, match="damaged"):
        check_file(path)
