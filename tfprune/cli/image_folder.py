"""Images in one subfolder per class, read with `keras.utils.image_dataset_from_directory`.

Two layouts: `DIR/<class>/*.png`, of which every fifth image is held out for the test, or
`DIR/train/<class>/*.png` with `DIR/test` (or `val`, `validation`, `valid`) beside it.
"""

from __future__ import annotations

import os
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfprune.errors import ArtifactError

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png")
"""What Keras reads; other files in the folders are ignored."""

TEST_FOLDERS = ("test", "val", "validation", "valid")
"""Names under which the held-out images may lie beside `train`."""

MAX_BYTES = 4 * 1024**3
"""The images are held in memory as float32; more than this is refused."""

_TEST_FRACTION = 0.2
_FEWEST_IMAGES = 5  # With fewer, the held-out fifth is empty.
_CHANNELS = 3
_BATCH = 64


def read_image_folder(
    directory: Path, *, image_size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Read a folder of images into memory.

    Args:
        directory: the folder, in one of the two layouts above.
        image_size: height and width in pixels that every image is resized to.

    Returns:
        Training images, training labels, test images, test labels: float32 arrays of shape
        (count, image_size, image_size, 3) in [0, 255] and int arrays of shape (count,).

    Raises:
        ArtifactError: no class folders, fewer than two classes, too many images for memory,
            classes that differ between the two splits, or an image that cannot be decoded.
    """
    train = directory / "train"
    test = next((directory / n for n in TEST_FOLDERS if (directory / n).is_dir()), None)
    if train.is_dir() and test is not None:
        if _classes(train) != _classes(test):
            raise ArtifactError(
                f"{train} and {test} must have the same class folders. "
                f"Received: {_classes(train)} and {_classes(test)}."
            )
        _check(train, image_size, _count(train) + _count(test))
        splits = [_dataset(train, image_size), _dataset(test, image_size)]
    else:
        _check(directory, image_size, _count(directory))
        # The seed is fixed: the same images are held out in every run.
        splits = _dataset(
            directory, image_size, validation_split=_TEST_FRACTION, subset="both", seed=0
        )
    (x_train, y_train), (x_test, y_test) = (_to_arrays(split, directory) for split in splits)
    return x_train, y_train, x_test, y_test


def _classes(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir() if entry.is_dir())


def _count(directory: Path) -> int:
    return sum(
        file.lower().endswith(IMAGE_SUFFIXES)
        for _, _, files in os.walk(directory)
        for file in files
    )


def _check(directory: Path, image_size: int, images: int) -> None:
    classes = _classes(directory)
    if len(classes) < 2 or images < _FEWEST_IMAGES:
        raise ArtifactError(
            f"{directory}: expected idx files, or one subfolder of images "
            f"({', '.join(IMAGE_SUFFIXES)}) for each of at least two classes, and at least "
            f"{_FEWEST_IMAGES} images. "
            f"Received: {images} images in {len(classes)} subfolders."
        )
    needed = images * image_size**2 * _CHANNELS * np.dtype(np.float32).itemsize
    if needed > MAX_BYTES:
        raise ArtifactError(
            f"{directory}: {images} images of {image_size}x{image_size} pixels need "
            f"{needed / 1024**3:.1f} GiB of memory, and the demo takes at most "
            f"{MAX_BYTES / 1024**3:.0f}. Pass a smaller --image-size or a part of the data."
        )


def _dataset(directory: Path, image_size: int, **options):
    try:
        return keras.utils.image_dataset_from_directory(
            directory, image_size=(image_size,) * 2, batch_size=_BATCH, verbose=False, **options
        )
    except ValueError as error:
        raise ArtifactError(f"{directory}: {error}") from error


def _to_arrays(dataset: tf.data.Dataset, directory: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        batches = [(images.numpy(), labels.numpy()) for images, labels in dataset]
    except tf.errors.OpError as error:
        raise ArtifactError(f"{directory}: an image cannot be decoded: {error.message}") from error
    images, labels = zip(*batches, strict=True)
    return np.concatenate(images), np.concatenate(labels)
