"""Shared set-up: quiet TensorFlow, fixed seeds, and a few small models."""

import gc
import os
import subprocess
import sys
import textwrap

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import hypothesis
import keras
import numpy as np
import pytest

# Where runtimes are that start slowly (arm64, wasm): the default tests do without them. Workers of
# pytest-xdist inherit the environment of the process that started them, so it is noted in there.
RUNTIMES_CACHE = os.environ.setdefault("TFPRUNE_TESTS_CACHE", os.environ.get("TFPRUNE_CACHE", ""))
os.environ["TFPRUNE_CACHE"] = "/nonexistent"

# CI repeats the same examples, so that a red run is the commit's own.
hypothesis.settings.register_profile("tfprune", deadline=None, max_examples=50)
hypothesis.settings.register_profile(
    "tfprune-ci", hypothesis.settings.get_profile("tfprune"), derandomize=True, database=None
)
hypothesis.settings.load_profile("tfprune-ci" if os.environ.get("CI") else "tfprune")


def pytest_collection_finish():
    """Let the collections of `clear_session`, 0.2 s each, pass over all that is imported by now."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _fixed_seed():
    """Make every test start from the same random state, with fresh layer names."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(0)


@pytest.fixture(autouse=True)
def _installed_runtimes(request, monkeypatch):
    """Let slow tests use the runtimes that start slowly."""
    if "slow" in request.keywords:
        monkeypatch.setenv("TFPRUNE_CACHE", RUNTIMES_CACHE)


@pytest.fixture
def dense_net():
    """A classifier of 8 features with two Dense layers, named d1 and d2."""
    return keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(16, activation="relu", name="d1"),
            keras.layers.Dense(3, activation="softmax", name="d2"),
        ]
    )


@pytest.fixture
def dense_data():
    """Forty examples for `dense_net`."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 8)).astype("float32")
    return x, rng.integers(0, 3, size=40)


@pytest.fixture
def conv_net():
    """A net with a shared layer, inline operations, a nested model and several kernels."""
    layers = keras.layers
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="conv")(inputs)
    x = layers.BatchNormalization(name="norm")(x)
    shared = layers.Conv2D(8, 1, name="shared", kernel_constraint="max_norm")
    x = shared(x) + 2 * shared(x)
    x = layers.SeparableConv2D(4, 3, name="separable")(x)
    x = layers.Concatenate(name="join")([x, x[..., :2]])
    x = layers.Dropout(0.2, name="dropout")(x)
    head = keras.Sequential([layers.Dense(8, name="h1"), layers.Dense(3, name="h2")], name="head")
    return keras.Model(inputs, head(layers.Flatten(name="flat")(x)), name="net")


@pytest.fixture
def run_python():
    """Return a function that runs a script in a process of its own, and its standard output."""

    def run(script, *interpreter):
        command = [*interpreter, sys.executable, "-c", textwrap.dedent(script)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert result.returncode == 0, result.stderr[-3000:]
        return result.stdout

    return run
