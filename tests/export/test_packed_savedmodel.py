"""Packed SavedModels: smaller on disk, and the same model to every loader."""

import json
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfprune
from tfprune.errors import ArtifactError, InvalidArgumentError, UnsupportedModelError
from tfprune.export.packed_savedmodel import INDEX_FILE, pack_saved_model, packed_weights
from tfprune.export.savedmodel import stored_weights

layers = keras.layers


def file_bytes(folder):
    return sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())


def build(seed=0, dtype="float32"):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((16, 16, 3), name="image")
    x = layers.Conv2D(64, 3, strides=2, dtype=dtype)(inputs)
    x = layers.BatchNormalization(dtype=dtype)(x)
    x = layers.Conv2D(96, 3, activation="relu", dtype=dtype)(x)
    x = layers.Flatten()(x)
    return keras.Model(inputs, layers.Dense(10, dtype=dtype)(x), name="net")


@pytest.fixture(scope="module")
def sparse():
    return tfprune.prune_once(build(), 0.9)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).normal(size=(3, 16, 16, 3)).astype("float32")


@pytest.fixture(scope="module")
def folders(sparse, tmp_path_factory):
    """The dense and the packed folder of the same model."""
    folder = tmp_path_factory.mktemp("models")
    sparse.export(folder / "dense", verbose=False)
    pack_saved_model(folder / "dense", folder / "packed")
    return folder / "dense", folder / "packed"


def run(folder, images, signature="serving_default"):
    function = tf.saved_model.load(str(folder)).signatures[signature]
    (name,) = function.structured_input_signature[1]
    (output,) = function(**{name: tf.constant(images)}).values()
    return output.numpy()


def test_it_is_small_and_every_bit_of_the_outputs_is_the_same(folders, images):
    dense, packed = folders
    variables = [folder / "variables" / "variables.data-00000-of-00001" for folder in folders]
    assert variables[1].stat().st_size < variables[0].stat().st_size / 6
    assert file_bytes(packed) < file_bytes(dense) / 3
    np.testing.assert_array_equal(run(packed, images), run(dense, images))


def test_the_loader_of_tensorflow_1_gives_the_same_bits(folders, images):
    expected = run(folders[1], images)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        meta = tf.compat.v1.saved_model.load(session, ["serve"], str(folders[1]))
        signature = meta.signature_def["serving_default"]
        (feed,), (fetch,) = signature.inputs.values(), signature.outputs.values()
        np.testing.assert_array_equal(session.run(fetch.name, {feed.name: images}), expected)


def test_the_c_api_gives_the_same_bits(folders, images, tmp_path):
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        meta = tf.compat.v1.saved_model.load(session, ["serve"], str(folders[1]))
    signature = meta.signature_def["serving_default"]
    (feed,), (fetch,) = signature.inputs.values(), signature.outputs.values()
    output, _, index = fetch.name.partition(":")
    np.save(tmp_path / "x.npy", images)
    arguments = [folders[1], tmp_path / "x.npy", tmp_path / "y.npy", feed.name.partition(":")[0]]
    script = Path(__file__).with_name("c_api.py")
    subprocess.run(
        [sys.executable, script, *map(str, arguments), output, index], check=True, timeout=120
    )
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), run(folders[1], images))


def test_the_file_says_what_is_packed(folders, sparse):
    index = json.loads((folders[1] / INDEX_FILE).read_text())
    names = [name for group in index["groups"] for name in group["names"]]
    assert names == [layer.kernel.path for layer in sparse.layers if hasattr(layer, "kernel")]
    kernels = {weight.shape: weight for weight in packed_weights(folders[1])}
    np.testing.assert_array_equal(kernels[(3, 3, 64, 96)], sparse.layers[3].kernel)
    stored = sorted(weight.size for weight in stored_weights(folders[1]))
    assert stored == sorted(
        layer.kernel.numpy().size for layer in sparse.layers[1::2] if layer.weights
    )


def test_two_of_them_live_side_by_side(folders, images, tmp_path):
    other = tfprune.prune_once(build(seed=1), 0.8)
    other.export(tmp_path / "dense", verbose=False)
    pack_saved_model(tmp_path / "dense", tmp_path / "packed")
    loaded = [tf.saved_model.load(str(folder)) for folder in (folders[1], tmp_path / "packed")]
    first, second = (model.serve(images).numpy() for model in loaded)
    np.testing.assert_array_equal(first, run(folders[0], images))
    np.testing.assert_array_equal(second, run(tmp_path / "dense", images))


def test_all_signatures_and_functions_are_kept_and_weights_stored_once(sparse, images, tmp_path):
    features = keras.Model(sparse.inputs, sparse.layers[-2].output)
    archive = keras.export.ExportArchive()
    spec = [keras.InputSpec(shape=(None, 16, 16, 3), dtype="float32", name="image")]
    archive.add_endpoint("classify", sparse, input_signature=spec)
    archive.add_endpoint("embed", features, input_signature=spec)
    archive.write_out(str(tmp_path / "dense"), verbose=False)
    pack_saved_model(tmp_path / "dense", tmp_path / "packed")
    assert len(list(packed_weights(tmp_path / "packed"))) == 3
    for name in ("classify", "embed", "serving_default"):
        expected = run(tmp_path / "dense", images, name)
        np.testing.assert_array_equal(run(tmp_path / "packed", images, name), expected)
    loaded = tf.saved_model.load(str(tmp_path / "packed"))
    np.testing.assert_array_equal(loaded.embed(images), run(tmp_path / "dense", images, "embed"))


def test_what_was_loaded_can_be_saved_again(folders, images, tmp_path):
    loaded = tf.saved_model.load(str(folders[1]))
    tf.saved_model.save(loaded, str(tmp_path / "again"), signatures=dict(loaded.signatures))
    np.testing.assert_array_equal(run(tmp_path / "again", images), run(folders[0], images))


@pytest.mark.parametrize(("precision", "tolerance"), [("float16", 1e-3), ("int8", 0.03)])
def test_fewer_bits_per_value_are_smaller_and_close(
    folders, images, precision, tolerance, tmp_path
):
    pack_saved_model(folders[0], tmp_path / "packed", precision)
    expected = run(folders[0], images)
    difference = np.abs(run(tmp_path / "packed", images) - expected).max()
    assert 0 < difference < tolerance * np.abs(expected).max()
    assert file_bytes(tmp_path / "packed") < file_bytes(folders[1])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_variables_of_every_dtype_keep_it(dtype, images, tmp_path):
    model = tfprune.prune_once(build(dtype=dtype), 0.8)
    model.export(tmp_path / "dense", verbose=False)
    pack_saved_model(tmp_path / "dense", tmp_path / "packed")
    np.testing.assert_array_equal(run(tmp_path / "packed", images), run(tmp_path / "dense", images))


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 1.0])
def test_it_is_never_larger_than_dense_by_more_than_its_ops(sparsity, tmp_path):
    model = keras.Sequential([keras.Input((256,)), layers.Dense(256), layers.Dense(256)])
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=w.shape) * (rng.random(w.shape) >= sparsity) for w in model.weights]
    model.set_weights(weights)
    model.export(tmp_path / "dense", verbose=False)
    pack_saved_model(tmp_path / "dense", tmp_path / "packed")
    assert file_bytes(tmp_path / "packed") < file_bytes(tmp_path / "dense")


def test_negative_zeros_keep_their_sign(tmp_path):
    model = keras.Sequential([keras.Input((128,)), layers.Dense(128, use_bias=False)])
    kernel = np.random.default_rng(0).normal(size=(128, 128)).astype("float32")
    kernel[kernel < 0.5] = 0
    kernel[0, :5] = -0.0
    model.set_weights([kernel])
    model.export(tmp_path / "dense", verbose=False)
    pack_saved_model(tmp_path / "dense", tmp_path / "packed")
    loaded = tf.saved_model.load(str(tmp_path / "packed"))
    (variable,) = loaded.signatures["serve"].variables
    np.testing.assert_array_equal(variable.numpy().view("uint32"), kernel.view("uint32"))


def test_groups_are_split_before_they_are_too_large(sparse, folders, images, tmp_path, monkeypatch):
    monkeypatch.setattr("tfprune.export.packed_savedmodel._MAX_GROUP_ELEMENTS", 60_000)
    assert len(pack_saved_model(folders[0], tmp_path / "packed")) == 2
    np.testing.assert_array_equal(run(tmp_path / "packed", images), run(folders[0], images))


@pytest.mark.parametrize("packed", [True, "float16", "int8"])
def test_export_packs_verifies_and_leaves_the_batch_size_open(sparse, packed, tmp_path):
    report = tfprune.export_model(sparse, tmp_path / "out", "savedmodel", packed=packed, runs=2)
    artifact = report["savedmodel"]
    assert artifact.bytes < 250_000
    assert artifact.sparsity >= 0.899
    assert (artifact.max_difference < 1e-6) == (packed is True)
    function = tf.saved_model.load(str(report.path("savedmodel"))).signatures["serving_default"]
    assert function.structured_input_signature[1]["image"].shape[0] is None
    assert not list(tmp_path.glob(".*"))


def test_bad_arguments_are_refused(sparse, folders, tmp_path):
    with pytest.raises(InvalidArgumentError, match="'exact', 'float16', 'int8'.* Received: 'int4'"):
        tfprune.export_model(sparse, tmp_path / "out", "savedmodel", packed="int4")
    with pytest.raises(InvalidArgumentError, match="'savedmodel', which `formats` does not name"):
        tfprune.export_model(sparse, tmp_path / "out", "tflite", packed=True)
    with pytest.raises(InvalidArgumentError, match="Received: 'int4'"):
        pack_saved_model(folders[0], tmp_path / "out", "int4")
    with pytest.raises(ArtifactError, match="not a SavedModel"):
        pack_saved_model(tmp_path, tmp_path / "out")
    with pytest.raises(ArtifactError, match=re.escape(f"{tmp_path} exists already")):
        pack_saved_model(folders[0], tmp_path)
    assert not list(tmp_path.iterdir())


def test_values_beyond_float16_are_refused(tmp_path):
    model = keras.Sequential([keras.Input((128,)), layers.Dense(128)])
    model.layers[0].kernel.assign(np.full((128, 128), 1e5))
    model.export(tmp_path / "dense", verbose=False)
    with pytest.raises(InvalidArgumentError, match="65504"):
        pack_saved_model(tmp_path / "dense", tmp_path / "packed", "float16")
    assert [path.name for path in tmp_path.iterdir()] == ["dense"]


def test_lookup_tables_are_refused(tmp_path):
    root = tf.Module()
    values = tf.lookup.KeyValueTensorInitializer(["a"], [1.0])
    root.table = tf.lookup.StaticHashTable(values, 0.0)
    root.serve = tf.function(root.table.lookup, input_signature=[tf.TensorSpec([None], tf.string)])
    tf.saved_model.save(root, str(tmp_path / "dense"), signatures=root.serve)
    with pytest.raises(UnsupportedModelError, match="lookup tables"):
        pack_saved_model(tmp_path / "dense", tmp_path / "packed")
