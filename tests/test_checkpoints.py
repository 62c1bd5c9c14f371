"""Packed Keras files: everything comes back bit for bit, and a sparse model takes few bytes."""

import keras
import numpy as np
import pytest

import tfprune
from tfprune.checkpoints import load_weights
from tfprune.errors import ArtifactError, InvalidArgumentError, InvalidTypeError

layers = keras.layers


def build(seed=0):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((12, 12, 3))
    x = layers.Conv2D(32, 3, activation="relu")(inputs)
    x = layers.BatchNormalization()(x)
    x = layers.Conv2D(64, 3, strides=2)(x)
    return keras.Model(inputs, layers.Dense(5)(layers.Flatten()(x)), name="net")


def same_bits(first, second):
    weights = zip(first.weights, second.weights, strict=True)
    return all(a.numpy().tobytes() == b.numpy().tobytes() for a, b in weights)


@pytest.fixture(scope="module")
def pruned():
    """A pruned model in the middle of its training, with optimizer state."""
    model = tfprune.prune(build(), schedule=0.9)
    model.compile("adam", "mse")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(32, 12, 12, 3)), rng.normal(size=(32, 5))
    model.fit(x, y, verbose=0, callbacks=[tfprune.callbacks.UpdateMasks()])
    return model


def test_a_model_in_training_comes_back_with_masks_and_optimizer(pruned, tmp_path):
    tfprune.save_packed(pruned, tmp_path / "net.keras")
    loaded = tfprune.load_model(tmp_path / "net.keras")
    assert same_bits(pruned, loaded)
    state = zip(pruned.optimizer.variables, loaded.optimizer.variables, strict=True)
    assert all(np.array_equal(a, b) for a, b in state)
    assert tfprune.is_pruned(loaded)


def test_a_sparse_model_takes_a_quarter_of_the_bytes(pruned, tmp_path):
    plain = tfprune.strip(pruned)
    plain.save(tmp_path / "plain.keras")
    tfprune.save_packed(plain, tmp_path / "packed.keras")
    sizes = [(tmp_path / f"{name}.keras").stat().st_size for name in ("packed", "plain")]
    assert sizes[0] < sizes[1] / 4
    assert same_bits(plain, tfprune.load_model(tmp_path / "packed.keras"))


def test_weights_alone(tmp_path):
    model, other = tfprune.prune_once(build(), 0.8), build(seed=1)
    tfprune.save_packed(model, tmp_path / "net.weights.h5")
    load_weights(other, tmp_path / "net.weights.h5")
    assert same_bits(model, other)
    assert (tmp_path / "net.weights.h5").stat().st_size < 60_000


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64", "mixed_float16"])
def test_weights_of_every_dtype(dtype, tmp_path):
    model = keras.Sequential([keras.Input((64,)), layers.Dense(64, dtype=dtype)])
    model = tfprune.prune_once(model, 0.7)
    tfprune.save_packed(model, tmp_path / "net.keras")
    assert same_bits(model, tfprune.load_model(tmp_path / "net.keras"))


def test_plain_files_are_read_too(tmp_path):
    model, other = build(), build(seed=1)
    model.save(tmp_path / "net.keras")
    model.save_weights(tmp_path / "net.weights.h5")
    assert same_bits(model, tfprune.load_model(tmp_path / "net.keras", compile=False))
    load_weights(other, tmp_path / "net.weights.h5")
    assert same_bits(model, other)


def test_bad_arguments_are_refused(tmp_path):
    with pytest.raises(InvalidArgumentError, match=r"\.keras .*\.weights\.h5 .*net\.zip"):
        tfprune.save_packed(build(), tmp_path / "net.zip")
    with pytest.raises(ArtifactError, match="not a folder"):
        tfprune.save_packed(build(), tmp_path / "none" / "net.keras")
    with pytest.raises(InvalidTypeError):
        tfprune.save_packed("net.keras", tmp_path / "net.keras")
    assert not list(tmp_path.iterdir())


def test_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "net.keras"
    tfprune.save_packed(tfprune.prune_once(build(), 0.8), path)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 3000] = bytes(3000)
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"net\.keras is damaged"):
        tfprune.load_model(path)


def test_what_was_there_stays_if_saving_fails(tmp_path, monkeypatch):
    path = tmp_path / "net.keras"
    tfprune.save_packed(build(), path)
    before = path.read_bytes()
    monkeypatch.setattr("tfprune.checkpoints.pack", lambda array: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        tfprune.save_packed(build(seed=1), path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["net.keras"]
