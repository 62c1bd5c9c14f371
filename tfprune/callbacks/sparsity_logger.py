"""`SparsityLogger`: the sparsity of every layer in TensorBoard."""

from __future__ import annotations

import os
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfprune.errors import missing_dependency
from tfprune.pruner import Pruner


class SparsityLogger(keras.callbacks.Callback):
    """Writes sparsity and threshold per weight, and the total sparsity, at the end of each epoch.

    The threshold is the smallest magnitude that a kept weight has.

    Args:
        log_dir: TensorBoard's folder; the events go into its subfolder `pruning`.
        pruner: whose masks to log; by default those in the model that `fit` trains.

    Raises:
        MissingDependencyError: if TensorBoard is not installed.
        NotPrunedError: at train begin, if the model holds no masks.
    """

    def __init__(self, log_dir: str | os.PathLike[str], pruner: Pruner | None = None) -> None:
        super().__init__()
        if not hasattr(tf.summary, "scalar"):
            raise missing_dependency("tensorboard", "tensorboard", "SparsityLogger")
        self._log_dir = os.path.join(os.fspath(log_dir), "pruning")
        self._given = pruner
        self._writer: Any = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Open the event file."""
        self._pruner = self._given or Pruner(self.model)
        self._writer = tf.summary.create_file_writer(self._log_dir)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Write one point of every curve."""
        sparsities = self._pruner.sparsities()
        with self._writer.as_default(step=epoch):
            tf.summary.scalar("sparsity/total", self._pruner.sparsity)
            for weight in self._pruner.weights:
                kept = np.abs(weight.values()[weight.alive()])
                tf.summary.scalar(f"sparsity/{weight.path}", sparsities[weight.path])
                tf.summary.scalar(f"threshold/{weight.path}", kept.min() if kept.size else 0.0)
        self._writer.flush()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Close the event file."""
        self._writer.close()
