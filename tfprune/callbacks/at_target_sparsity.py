"""`AtTargetSparsity`: let another callback see only the epochs at the final sparsity."""

from __future__ import annotations

from typing import Any

import keras

from tfprune.errors import InvalidTypeError
from tfprune.pruner import Pruner


class AtTargetSparsity(keras.callbacks.Callback):
    """Holds another callback back until the model has reached its final sparsity.

    Early stopping and best-model checkpoints look for the best epoch, which is as a rule one before
    the sparsity is high. Wrapped in this, they look at epochs at the final sparsity alone.

    Args:
        callback: the callback to hold back, such as `keras.callbacks.EarlyStopping(...)`.
        pruner: tells the sparsity; by default that of the model that `fit` trains.

    Raises:
        InvalidTypeError: if `callback` is not a Keras callback.

    Example:
        >>> stop = keras.callbacks.EarlyStopping(patience=3, restore_best_weights=True)
        >>> callbacks = [AtTargetSparsity(stop)]
    """

    def __init__(self, callback: keras.callbacks.Callback, pruner: Pruner | None = None) -> None:
        super().__init__()
        if not isinstance(callback, keras.callbacks.Callback):
            raise InvalidTypeError(f"`callback` must be a Keras callback. Received: {callback!r}")
        self.callback = callback
        self._given = pruner
        self._pruner: Pruner | None = None
        self._reached = False

    def set_model(self, model: keras.Model) -> None:
        """Take the model, and hand it on."""
        super().set_model(model)
        self.callback.set_model(model)

    def set_params(self, params: dict[str, Any]) -> None:
        """Take the run's parameters, and hand them on."""
        super().set_params(params)
        self.callback.set_params(params)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Hand on, at any sparsity."""
        self._pruner = self._given or Pruner(self.model)
        self._reached = False
        self.callback.on_train_begin(logs)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Look whether the whole epoch runs at the final sparsity; hand on if so."""
        self._pruner.resolve(self.params.get("steps"), self.params.get("epochs"))
        self._reached = self._pruner.at_target
        if self._reached:
            self.callback.on_epoch_begin(epoch, logs)

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Hand on at the final sparsity."""
        if self._reached:
            self.callback.on_train_batch_begin(batch, logs)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Hand on at the final sparsity."""
        if self._reached:
            self.callback.on_train_batch_end(batch, logs)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Hand on at the final sparsity, also when it was reached within the epoch."""
        if self._pruner.at_target:
            self.callback.on_epoch_end(epoch, logs)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Hand on, at any sparsity."""
        self.callback.on_train_end(logs)
