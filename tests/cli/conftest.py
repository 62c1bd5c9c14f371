"""Small data sets and models that the tests of the command line work on."""

import gzip
import struct

import numpy as np
import pytest


def idx_bytes(array):
    return (
        bytes([0, 0, 8, array.ndim])
        + struct.pack(f">{array.ndim}I", *array.shape)
        + array.astype(np.uint8).tobytes()
    )


@pytest.fixture
def write_idx_folder():
    def write(folder, *, train=6, test=4, size=8, suffix=""):
        """Write a small idx data set of two classes: dark images and light ones."""
        folder.mkdir(exist_ok=True)
        for split, count in (("train", train), ("t10k", test)):
            labels = np.arange(count) % 2
            images = np.broadcast_to(labels[:, None, None] * 200 + 20, (count, size, size))
            for name, array in (("images-idx3", images), ("labels-idx1", labels)):
                content = idx_bytes(array)
                path = folder / f"{split}-{name}-ubyte{suffix}"
                path.write_bytes(gzip.compress(content) if suffix else content)
        return folder

    return write


@pytest.fixture
def write_image_folder():
    def write(folder, classes=("dark", "light"), count=10, size=12):
        """Write PNG images, one shade per class."""
        import tensorflow as tf

        for index, name in enumerate(classes):
            (folder / name).mkdir(parents=True)
            for number in range(count):
                image = np.full((size, size, 3), 200 * index + number, np.uint8)
                tf.io.write_file(str(folder / name / f"{number}.png"), tf.io.encode_png(image))
        return folder

    return write


@pytest.fixture(scope="session")
def model_file(tmp_path_factory):
    """A small CNN in a .keras file; its path must not be written to."""
    import keras

    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(8, 3, name="stem"),
            keras.layers.ReLU(name="act"),
            keras.layers.Conv2D(16, 3, name="body"),
            keras.layers.Flatten(name="flat"),
            keras.layers.Dense(10, name="head"),
        ],
        name="tiny",
    )
    path = tmp_path_factory.mktemp("models") / "tiny.keras"
    model.save(path)
    return path


@pytest.fixture
def run():
    """Run the command line in this process: `run("inspect", path)` gives exit code and output."""
    from typer.testing import CliRunner

    from tfprune.cli.app import app

    def invoke(*arguments):
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return invoke
