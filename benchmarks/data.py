"""Fashion-MNIST from Debian's package, and batches in an order that every toolkit can repeat."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np

FOLDER = Path("/usr/share/datasets/fashion-mnist")
HEADER_BYTES = {"images": 16, "labels": 8}


def load(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Load the images and labels of one split.

    Args:
        split: "train" (60,000 images) or "t10k" (the 10,000 test images).

    Returns:
        Images, float32 in [0, 1] of shape (n, 28, 28, 1), and labels, int64 of shape (n,).

    Raises:
        FileNotFoundError: if the data set is not installed.
    """
    images = _read(split, "images").reshape(-1, 28, 28, 1)
    return images.astype(np.float32) / 255, _read(split, "labels").astype(np.int64)


def batch_order(size: int, *, batch: int, epochs: int, seed: int) -> np.ndarray:
    """Return the indices of every batch of a run, a new permutation in each epoch.

    Args:
        size: number of examples; what does not fill a batch is left out of that epoch.
        batch: examples in a batch.
        epochs: passes over the data.
        seed: seed of the permutations.

    Returns:
        Int array (epochs * (size // batch), batch).
    """
    random = np.random.default_rng(seed)
    used = size - size % batch
    return np.concatenate(
        [random.permutation(size)[:used].reshape(-1, batch) for _ in range(epochs)]
    )


def _read(split: str, kind: str) -> np.ndarray:
    path = FOLDER / f"{split}-{kind}-idx{3 if kind == 'images' else 1}-ubyte.gz"
    if not path.exists():
        raise FileNotFoundError(
            f"{path} is missing: install it with `apt-get install dataset-fashion-mnist`."
        )
    return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=HEADER_BYTES[kind])
