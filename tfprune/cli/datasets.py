"""The data that `tfprune demo` trains on, whatever its source, as one `Dataset` of arrays.

Sources: `digits` (inside scikit-learn, nothing is downloaded), `fashion-mnist` (a Debian package)
and any folder with idx files or with one subfolder of images per class.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tfprune.cli.idx import is_idx_folder, read_idx_folder
from tfprune.errors import ArtifactError, missing_dependency

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package `dataset-fashion-mnist` puts its files."""

BUILT_IN = ("digits", "fashion-mnist")
"""The names that are accepted beside a folder."""


@dataclass(frozen=True)
class Dataset:
    """Images with their labels, ready for `fit`.

    Attributes:
        name: what the data is called in the report.
        x_train: float32 images in [0, 1], shape (count, height, width, channels).
        y_train: int64 labels in [0, classes), shape (count,).
        x_test: images that training never sees.
        y_test: their labels.
        classes: number of classes.
    """

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    classes: int


def load_dataset(source: str, *, image_size: int = 64) -> Dataset:
    """Load data by name or from a folder.

    Args:
        source: `"digits"`, `"fashion-mnist"`, or the path of a folder with idx files
            (`train-images-idx3-ubyte[.gz]`, ...) or with one subfolder of images per class.
        image_size: pixels per side that the images of an image folder are resized to.

    Raises:
        ArtifactError: the data is not there or cannot be read.
        MissingDependencyError: scikit-learn, which holds the digits, is not installed.
    """
    if source == "digits":
        return _digits()
    if source == "fashion-mnist":
        if not FASHION_MNIST.is_dir():
            raise ArtifactError(
                f"Fashion-MNIST is not installed in {FASHION_MNIST}. Install it with "
                "`apt-get install dataset-fashion-mnist`, or pass a folder with its four idx files."
            )
        return _from_bytes(source, *read_idx_folder(FASHION_MNIST))
    directory = Path(source).resolve()
    if not directory.is_dir():
        raise ArtifactError(
            f"No data: expected one of {', '.join(BUILT_IN)} or an existing folder. "
            f"Received: {source}."
        )
    if is_idx_folder(directory):
        return _from_bytes(directory.name, *read_idx_folder(directory))
    # It imports TensorFlow, which the other sources do not need.
    from tfprune.cli.image_folder import read_image_folder

    return _from_bytes(directory.name, *read_image_folder(directory, image_size=image_size))


def _digits() -> Dataset:
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise missing_dependency("scikit-learn", "demo", "The digits data set") from error
    digits = load_digits()
    # The split is fixed, so accuracies of different seeds compare.
    x_train, x_test, y_train, y_test = train_test_split(
        digits.images[..., np.newaxis].astype(np.float32) / 16,
        digits.target.astype(np.int64),
        test_size=0.2,
        stratify=digits.target,
        random_state=0,
    )
    return Dataset("digits", x_train, y_train, x_test, y_test, classes=10)


def _from_bytes(
    name: str, x_train: np.ndarray, y_train: np.ndarray, x_test: np.ndarray, y_test: np.ndarray
) -> Dataset:
    """Scale images in [0, 255], with or without a channel axis, and count the classes."""
    classes = int(max(y_train.max(), y_test.max())) + 1
    if classes < 2:
        raise ArtifactError(f"{name}: expected at least two classes. Received: {classes}.")
    return Dataset(
        name,
        _scaled(x_train),
        y_train.astype(np.int64),
        _scaled(x_test),
        y_test.astype(np.int64),
        classes,
    )


def _scaled(images: np.ndarray) -> np.ndarray:
    images = images.astype(np.float32)
    images /= 255  # In place: one copy of a large data set is enough.
    return images[..., np.newaxis] if images.ndim == 3 else images
