"""Nets that the converter's sparse encoding alone breaks where sparse mode is on.

For each, the naive file is right on x86 with AVX and wrong elsewhere, or does not load; the static
check names it; and what tfprune exports is right. Some are only wrong by chance: what they read
is memory that another operator left, so the nets here are those where it never is right.
"""

import keras
import numpy as np
import pytest

import tfprune
from tests.export.runners.conftest import runtime_parameters
from tfprune.export.cross_check import cross_check
from tfprune.export.runners import RUNTIMES
from tfprune.export.savedmodel import write_saved_model
from tfprune.export.signature import signature_of
from tfprune.export.sparse_runtime import check_file
from tfprune.export.tflite import convert

layers = keras.layers


def stem(x):
    x = layers.Conv2D(16, 3, strides=2, activation="relu")(layers.ZeroPadding2D(1)(x))
    return layers.Conv2D(32, 1, activation="relu")(x)


def pooled(x):
    return layers.GlobalAveragePooling2D()(layers.Conv2D(32, 1)(x))


def convolution_head(x):
    x = layers.GlobalAveragePooling2D(keepdims=True)(layers.Conv2D(32, 1)(stem(x)))
    return layers.Flatten()(layers.Conv2D(10, 1)(x))


def ordinary_convolution(x):
    return pooled(layers.Conv2D(32, 3, padding="same", activation="relu")(stem(x)))


def max_pooling(x):
    return pooled(layers.MaxPooling2D()(stem(x)))


def shared_padding(x):
    x = stem(x)
    # The converter makes one PAD of these three, which fuses into none of the convolutions.
    halves = [layers.DepthwiseConv2D(3, strides=2)(layers.ZeroPadding2D(1)(x)) for _ in range(3)]
    return pooled(layers.Add()(halves))


def constant_second(x):
    scale = np.linspace(0.5, 1.5, 32, dtype="float32").reshape(1, 1, 1, 32)
    return pooled(stem(x) * keras.ops.convert_to_tensor(scale))


def feature_map_output(x):
    x = stem(x)
    return [x, pooled(x)]


TRAPS = [
    convolution_head, ordinary_convolution, max_pooling, shared_padding, constant_second,
    feature_map_output,
]  # fmt: skip


def pruned(net):
    inputs = keras.Input((32, 32, 3))
    return tfprune.prune_once(keras.Model(inputs, net(inputs)), 0.9)


def naive(model, folder, **options):
    """Convert as anybody would who wants the sparse encoding."""
    write_saved_model(model, signature_of(model), folder / "saved_model")
    path = folder / "naive.tflite"
    path.write_bytes(convert(folder / "saved_model", sparse=True, **options))
    return path


def needs(name):
    if missing := RUNTIMES[name].missing():
        pytest.skip(f"needs {missing}")


@pytest.mark.parametrize("name", runtime_parameters(["no-avx", "arm64", "wasm"]))
@pytest.mark.parametrize("net", TRAPS, ids=lambda net: net.__name__)
def test_a_naive_file_is_wrong_and_ours_is_right(net, name, tmp_path):
    needs(name)
    model = pruned(net)
    path = naive(model, tmp_path)
    assert check_file(path).traps
    reference, elsewhere = cross_check(path, name).outcomes
    assert not reference.error
    assert elsewhere.error or elsewhere.difference > 0.1
    report = tfprune.export_model(model, tmp_path / "out", "tflite", runs=1, runtimes=name)
    assert [runtime.name for runtime in report["tflite"].runtimes] == ["native", name]
    assert not check_file(report.path("tflite")).traps


def test_a_scalar_constant_keeps_a_naive_file_dense_and_ours_runs_sparse(tmp_path):
    needs("no-avx")

    def net(x):
        x = keras.ops.relu6(layers.DepthwiseConv2D(3, padding="same")(stem(x))) * 0.3
        return pooled(layers.Conv2D(32, 1)(x) + x)

    model = pruned(net)
    report = check_file(naive(model, tmp_path))
    assert not report.runs_sparse
    assert any("a constant of 0 axes" in reason for reason, _ in report.blockers)
    export = tfprune.export_model(model, tmp_path / "out", "tflite", runs=1)
    assert check_file(export.path("tflite")).runs_sparse
    assert [runtime.name for runtime in export["tflite"].runtimes] == ["native", "no-avx"]


def test_dynamic_range_weights_in_the_sparse_encoding_load_nowhere(tmp_path):
    needs("no-avx")
    inputs = keras.Input((32, 32, 3))
    x = layers.Conv2D(128, 1)(layers.Conv2D(128, 1)(stem(inputs)))
    model = tfprune.prune_once(keras.Model(inputs, layers.GlobalAveragePooling2D()(x)), 0.9)
    path = naive(model, tmp_path, optimize=True)
    assert any("dynamic range" in trap for trap in check_file(path).traps)
    checked = cross_check(path, "no-avx")
    assert not checked.is_same
    assert all("failed to delegate CONV_2D" in outcome.error for outcome in checked.outcomes)
    report = tfprune.export_model(
        model, tmp_path / "out", "tflite_dynamic", runs=1, runtimes="no-avx"
    )
    assert len(report["tflite_dynamic"].runtimes) == 2


def random_net(rng, x):
    """Draw a mobile-style net, with here and there what sparse mode does not take."""
    x = stem(x)
    for _ in range(rng.integers(2, 6)):
        channels = x.shape[-1]
        kind = rng.choice(
            ["depthwise", "strided", "expand", "residual", "gate", "scale", "odd"],
            p=[0.2, 0.15, 0.2, 0.15, 0.1, 0.1, 0.1],
        )
        if kind == "depthwise":
            size = int(rng.choice([3, 5]))
            x = layers.DepthwiseConv2D(size, padding="same", activation="relu6")(x)
        elif kind == "strided" and x.shape[1] > 4:
            x = layers.DepthwiseConv2D(3, strides=2)(layers.ZeroPadding2D(1)(x))
        elif kind == "expand":
            activation = str(rng.choice(["relu", "hard_swish", "sigmoid", "tanh", "linear"]))
            x = layers.Conv2D(int(rng.choice([16, 48])), 1, activation=activation)(x)
        elif kind == "residual":
            x = layers.Add()([x, layers.Conv2D(channels, 1, activation="relu")(x)])
        elif kind == "gate":
            gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
            x = x * layers.Conv2D(channels, 1, activation="sigmoid")(gate)
        elif kind == "scale":
            x = keras.ops.relu6(x) * float(rng.choice([0.3, 1.0, 2.0])) + 0.5
        else:
            odd = [
                layers.MaxPooling2D(2, padding="same"),
                layers.Conv2D(channels, 3, padding="same"),
                layers.PReLU(shared_axes=[1, 2], alpha_initializer="random_uniform"),
                layers.AveragePooling2D(2, padding="same"),
            ]
            x = odd[rng.integers(len(odd))](x)
    return layers.Dense(5)(pooled(x)) if rng.random() < 0.8 else layers.GlobalMaxPooling2D()(x)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(16))
def test_a_file_without_traps_is_right_without_avx(seed, tmp_path):
    """The check may be too careful; it is never too trusting."""
    needs("no-avx")
    rng = np.random.default_rng(seed)
    model = pruned(lambda x: random_net(rng, x))
    path = naive(model, tmp_path)
    if not check_file(path).traps:
        assert cross_check(path, "no-avx").is_same
    tfprune.export_model(model, tmp_path / "out", "tflite", runs=1, runtimes="no-avx")
