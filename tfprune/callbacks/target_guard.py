"""`TargetGuard`: stop pruning when the model does not bear it any more."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras.src.callbacks.monitor_callback import MonitorCallback

from tfprune.errors import InvalidArgumentError
from tfprune.pruner import Pruner

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class _Snapshot:
    """Weights, masks and optimizer state of a model at one moment."""

    model: list[np.ndarray]
    optimizer: list[np.ndarray]

    @classmethod
    def take(cls, model: keras.Model) -> _Snapshot:
        return cls(model.get_weights(), [v.numpy() for v in model.optimizer.variables])

    def restore(self, model: keras.Model) -> None:
        model.set_weights(self.model)
        for variable, value in zip(model.optimizer.variables, self.optimizer, strict=True):
            variable.assign(value)


class TargetGuard(MonitorCallback):
    """Stops raising the sparsity once a metric has fallen too far below its best.

    After an epoch whose metric is more than `max_drop` worse than the best so far, the masks are
    frozen for the rest of the training; with `rollback`, the model first goes back to the end of
    the last epoch that was good: weights, masks and optimizer.

    Args:
        monitor: metric in the logs of an epoch, such as `"val_accuracy"`.
        max_drop: how much worse than the best it may get, in the metric's own unit, at least 0.
        baseline: what counts as the best to begin with; by default the first epoch's value.
        mode: `"max"` if more is better, `"min"`, or `"auto"` to ask the compiled metric.
        rollback: whether to go back to the last good epoch.
        pruner: the masks to freeze; by default those in the model that `fit` trains.

    Raises:
        InvalidArgumentError: for a negative `max_drop`, or, after the first epoch, a metric that
            is not in the logs.

    Example:
        >>> guard = TargetGuard("val_accuracy", max_drop=0.01)
    """

    def __init__(
        self,
        monitor: str,
        max_drop: float,
        *,
        baseline: float | None = None,
        mode: str = "auto",
        rollback: bool = True,
        pruner: Pruner | None = None,
    ) -> None:
        super().__init__(monitor, mode, baseline)
        if not max_drop >= 0:
            raise InvalidArgumentError(f"`max_drop` must be at least 0. Received: {max_drop!r}")
        self.max_drop = max_drop
        self.rollback = rollback
        self._given = pruner
        self._good: _Snapshot | None = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Find the masks."""
        self._pruner = self._given or Pruner(self.model)
        self._good = None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Compare the metric with its best, and freeze the masks if it has fallen too far."""
        if self._pruner.held:
            return
        if self.monitor_op is None:
            self._set_monitor_op()
        value = (logs or {}).get(self.monitor)
        if value is None:
            raise InvalidArgumentError(
                f"TargetGuard watches {self.monitor!r}, which is not among the metrics of this "
                f"run: {sorted(logs or {})}. Compile it, or pass `validation_data` for val_ ones."
            )
        if self._is_improvement(value, self.best):
            self.best = value
        if abs(value - self.best) <= self.max_drop:
            if self.rollback:
                self._good = _Snapshot.take(self.model)
            return
        sparsity = self._pruner.sparsity
        if self._good is not None:
            self._good.restore(self.model)
            self._good = None
        self._pruner.held = True
        _LOGGER.warning(
            "%s fell to %.4g at %.1f %% sparsity, more than %g below its best of %.4g: the "
            "sparsity stays at %.1f %% from here on.",
            self.monitor,
            value,
            100 * sparsity,
            self.max_drop,
            self.best,
            100 * self._pruner.sparsity,
        )
