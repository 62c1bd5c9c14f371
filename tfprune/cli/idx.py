"""The IDX format of MNIST and its relatives: big-endian header, then the bytes of one array.

Header: two zero bytes, one type code (8 = unsigned byte), the number of dimensions, then one
32-bit size per dimension. The size that a header claims is compared with the size of the file
before memory is taken, so a damaged file cannot ask for terabytes.
Source: http://yann.lecun.com/exdb/mnist/ (section "The IDX file format").
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from tfprune.errors import ArtifactError

SPLITS = ("train", "t10k")
"""The file name prefixes of the training and the test split, as MNIST names them."""

_UNSIGNED_BYTE = 8
_MAX_DIMENSIONS = 4
# DEFLATE cannot expand its input by more than this; a header that claims more is wrong.
_MAX_GZIP_RATIO = 1032


def find_idx(directory: Path, split: str, kind: str) -> Path | None:
    """Find one file of an idx folder.

    Args:
        directory: the folder, e.g. with `train-images-idx3-ubyte.gz` in it.
        split: `"train"` or `"t10k"`.
        kind: `"images"` or `"labels"`.

    Returns:
        The plain file, else the gzip one, or None where there is neither.
    """
    name = f"{split}-{kind}-idx{3 if kind == 'images' else 1}-ubyte"
    candidates = (directory / name, directory / f"{name}.gz")
    return next((path for path in candidates if path.is_file()), None)


def is_idx_folder(directory: Path) -> bool:
    """Whether the folder holds at least one of the four files of an idx data set."""
    return any(find_idx(directory, s, k) for s in SPLITS for k in ("images", "labels"))


def read_idx_folder(directory: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Read the four files of an idx data set.

    Args:
        directory: folder with `train-images-idx3-ubyte`, `train-labels-idx1-ubyte` and the same
            two for `t10k`, each plain or with `.gz`.

    Returns:
        Training images, training labels, test images, test labels: uint8 arrays of shape
        (count, height, width) and (count,).

    Raises:
        ArtifactError: a file is missing, damaged, or does not belong to its partner.
    """
    arrays: list[np.ndarray] = []
    for split in SPLITS:
        images = _read_named(directory, split, "images", dimensions=3)
        labels = _read_named(directory, split, "labels", dimensions=1)
        if len(images) != len(labels) or not len(images):
            raise ArtifactError(
                f"{directory}: expected one label for each {split} image, and at least one image. "
                f"Received: {len(images)} images and {len(labels)} labels."
            )
        arrays += [images, labels]
    x_train, y_train, x_test, y_test = arrays
    if x_train.shape[1:] != x_test.shape[1:]:
        raise ArtifactError(
            f"{directory}: expected training and test images of one size. "
            f"Received: {x_train.shape[1:]} and {x_test.shape[1:]}."
        )
    return x_train, y_train, x_test, y_test


def read_idx(path: Path) -> np.ndarray:
    """Read one idx file of unsigned bytes, plain or gzip-compressed (by its `.gz` suffix).

    Args:
        path: the file.

    Returns:
        uint8 array of the shape in the header.

    Raises:
        ArtifactError: the file cannot be read, or is not a whole idx file of unsigned bytes.
    """
    compressed = path.suffix == ".gz"
    try:
        size = path.stat().st_size
        with gzip.open(path, "rb") if compressed else path.open("rb") as file:
            shape = _read_header(file, path)
            count = math.prod(shape)
            limit = size * _MAX_GZIP_RATIO if compressed else size
            # One byte more than expected shows a file that is too long.
            payload = file.read(count + 1) if count <= limit else b""
    except (OSError, EOFError, zlib.error) as error:
        raise ArtifactError(f"Cannot read {path}: {error}") from error
    if len(payload) != count:
        raise ArtifactError(
            f"{path}: the idx header promises {count} bytes of data (shape {shape}), "
            f"and the file holds {'more' if len(payload) > count else 'fewer'}."
        )
    return np.frombuffer(payload, np.uint8).reshape(shape)


def _read_header(file, path: Path) -> tuple[int, ...]:
    start = file.read(4)
    dimensions = start[3] if len(start) == 4 else 0
    if start[:3] != bytes([0, 0, _UNSIGNED_BYTE]) or not 1 <= dimensions <= _MAX_DIMENSIONS:
        raise ArtifactError(f"{path} is not an idx file of unsigned bytes.")
    sizes = file.read(4 * dimensions)
    if len(sizes) != 4 * dimensions:
        raise ArtifactError(f"{path} ends in the middle of its idx header.")
    return struct.unpack(f">{dimensions}I", sizes)


def _read_named(directory: Path, split: str, kind: str, dimensions: int) -> np.ndarray:
    path = find_idx(directory, split, kind)
    if path is None:
        raise ArtifactError(
            f"{directory}: {split}-{kind}-idx{dimensions}-ubyte[.gz] is missing. An idx data set "
            "is four files: images and labels, each for train and t10k."
        )
    array = read_idx(path)
    if array.ndim != dimensions:
        raise ArtifactError(f"{path}: expected {dimensions} dimensions. Received: {array.shape}.")
    return array
