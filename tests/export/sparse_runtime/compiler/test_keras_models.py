"""Whole Keras models, exported for sparse mode: right where it is on, or dense with the reason."""

import shutil

import keras
import numpy as np
import pytest

import tfprune
from tfprune.export.sparse_runtime import check_file

layers = keras.layers
pytestmark = pytest.mark.skipif(
    shutil.which("qemu-x86_64") is None, reason="needs qemu: apt-get install qemu-user"
)


def application(name, size, **options):
    """A model of keras.applications with other statistics than those of a new one."""
    return getattr(keras.applications, name)(weights=None, input_shape=(size, size, 3), **options)


def unet():
    """Per-pixel outputs, skips, upsampling of both kinds."""
    x = inputs = keras.Input((64, 64, 3))
    skips = []
    for channels in (16, 32, 64):
        x = layers.Conv2D(channels, 3, padding="same", activation="relu")(x)
        x = layers.Conv2D(channels, 3, padding="same", activation="relu")(x)
        skips.append(x)
        x = layers.MaxPooling2D()(x)
    x = layers.Conv2D(128, 3, padding="same", activation="relu")(x)
    for number, channels in enumerate((64, 32, 16)):
        up = layers.Conv2DTranspose(channels, 2, 2) if number % 2 else layers.UpSampling2D()
        x = layers.Concatenate()([up(x), skips.pop()])
        x = layers.Conv2D(channels, 3, padding="same", activation="relu")(x)
    return keras.Model(inputs, layers.Conv2D(5, 1)(x), name="unet")


def digits():
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(10),
        ],
        name="digits",
    )


def pruned(model):
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if len(weight.shape) == 1:
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
    return tfprune.prune_once(model, 0.9)


def check(model, folder, formats=("tflite",), mode="auto"):
    """Export, which compares with the Keras model on every runtime that is here."""
    report = tfprune.export_model(model, folder, formats, sparse_runtime=mode, runs=1)
    found = [check_file(report.path(name)) for name in formats]
    for name, checked in zip(formats, found, strict=True):
        assert not checked.traps
        assert checked.runs_sparse or report[name].note.startswith("Written dense: ")
        if checked.runs_sparse:
            assert "no-avx" in {runtime.name for runtime in report[name].runtimes}
    return found


@pytest.mark.parametrize("build", [unet, digits])
def test_small_models(build, tmp_path):
    (found,) = check(pruned(build()), tmp_path / "out", mode="on")
    assert found.runs_sparse


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("DenseNet121", 64),
        ("EfficientNetB0", 64),
        ("EfficientNetV2B0", 64),
        ("InceptionV3", 96),
        ("MobileNet", 64),
        ("MobileNetV2", 64),
        ("MobileNetV3Large", 64),
        ("MobileNetV3Small", 64),
        ("NASNetMobile", 64),
        ("ResNet50", 64),
        ("ResNet50V2", 64),
        ("Xception", 96),
    ],
)
def test_keras_applications(name, size, tmp_path):
    model = pruned(application(name, size, classifier_activation=None))
    check(model, tmp_path / "float32", mode="on")
    # With float16 weights XNNPACK gets these two in more pieces, so they stay dense.
    (found,) = check(model, tmp_path / "float16", ["tflite_float16"])
    assert found.runs_sparse or name in ("InceptionV3", "NASNetMobile")


@pytest.mark.slow
def test_vgg16(tmp_path):
    model = pruned(application("VGG16", 64, include_top=False, pooling="avg"))
    check(model, tmp_path / "out", mode="on")
