"""Files that every runtime is asked to run, and the runtimes as test parameters."""

import keras
import numpy as np
import pytest

from tfprune.export.calibration import convert_calibrated
from tfprune.export.data import Samples
from tfprune.export.runners import RUNTIMES
from tfprune.export.savedmodel import write_saved_model
from tfprune.export.signature import signature_of
from tfprune.export.tflite import convert

layers = keras.layers
SLOW = ("arm64", "wasm")


def runtime_parameters(names=("native", "no-avx", "arm64", "wasm")):
    """Name runtimes; those that take seconds to start are for the slow tests."""
    return [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in names]


@pytest.fixture
def load():
    """Return a function that loads a file in a named runtime; a missing one skips the test."""
    runners = []

    def load(name, path, threads=1):
        if missing := RUNTIMES[name].missing():
            pytest.skip(f"needs {missing}")
        runners.append(RUNTIMES[name](path, threads))
        return runners[-1]

    yield load
    for runner in runners:
        runner.close()


@pytest.fixture(scope="session")
def image_net():
    keras.utils.set_random_seed(0)
    inputs = x = keras.Input((16, 16, 3), name="image")
    x = layers.ZeroPadding2D(1)(x)
    x = layers.Conv2D(16, 3, strides=2, activation="relu")(x)
    x = layers.Conv2D(64, 1, activation="relu")(x)
    return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))


@pytest.fixture(scope="session")
def files(image_net, two_inputs, tmp_path_factory):
    """The files by name, with inputs, and the outputs of Keras."""
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(0)
    image = {"image": rng.random((1, 16, 16, 3), "float32")}
    pair = {
        "values": rng.random((1, 4), "float32"),
        "ids": rng.integers(1, 11, (1, 3)).astype("int32"),
    }
    saved = {name: folder / name for name in ("image", "pair")}
    write_saved_model(image_net, signature_of(image_net), saved["image"])
    write_saved_model(two_inputs, signature_of(two_inputs), saved["pair"])
    logits = {"output_0": image_net(image["image"]).numpy()}
    both = {name: array.numpy() for name, array in two_inputs(pair).items()}
    contents = {
        "float32": (convert(saved["image"], optimize=False), image, logits),
        "float16": (convert(saved["image"], optimize=True, float16=True), image, logits),
        "dynamic": (convert(saved["image"], optimize=True), image, logits),
        "two inputs": (convert(saved["pair"], optimize=False), pair, both),
    }
    found = {}
    for name, (content, inputs, expected) in contents.items():
        path = folder / f"{name}.tflite"
        path.write_bytes(content)
        found[name] = path, inputs, expected
    path = folder / "int8.tflite"
    samples = Samples({"image": rng.random((8, 16, 16, 3), "float32")}, "test")
    convert_calibrated(saved["image"], path, samples, 1, "TFLITE_BUILTINS_INT8")
    found["int8"] = path, image, logits
    return found
