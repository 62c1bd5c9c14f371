"""What callbacks have in common that hang something on the weights for the time of one `fit`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras

from tfprune.patterns import Pattern
from tfprune.pruned_weight import PrunedWeight
from tfprune.selection import Selector, choose_weights


class StepCallback(keras.callbacks.Callback):
    """Base class: define `attach`, `detach` and `serve`.

    Steps are batches, counted from the run's first epoch, so that a run resumed with
    `initial_epoch` or `keras.callbacks.BackupAndRestore` goes on where it was.

    Args:
        pattern: as in `tfprune.selection.choose_weights`.
        include: as in `tfprune.prune`.
        exclude: as in `tfprune.prune`.
    """

    def __init__(
        self,
        pattern: Pattern | None,
        include: Selector | Iterable[Selector] | None,
        exclude: Selector | Iterable[Selector] | None,
    ) -> None:
        super().__init__()
        self._selection = (pattern, include, exclude)
        self._first = 0
        self._done = 0

    def attach(self, weights: list[PrunedWeight]) -> None:
        """Hang what is needed on the weights, for a run that begins."""
        raise NotImplementedError

    def detach(self) -> None:
        """Give the weights back what they had, at the run's end."""
        raise NotImplementedError

    def serve(self, done: int) -> None:
        """Do what is due before the coming step, after `done` steps."""
        raise NotImplementedError

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Attach, and have the training step traced again with it."""
        self._done = 0
        weights = choose_weights(self.model, *self._selection)
        with self.model.distribute_strategy.scope():
            self.attach(weights)
        # `fit` has made its function already.
        self.model.make_train_function(force=True)
        self.model.test_function = None

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Note the step that the epoch begins with."""
        steps = self.params.get("steps")
        self._first = epoch * steps if steps else self._done

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Serve what is due."""
        self.serve(self._first + batch)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Count the step, where an epoch has no known length."""
        self._done = self._first + batch + 1

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Detach; the next `fit` or `evaluate` traces its function anew, without it."""
        self.detach()
        self.model.train_function = self.model.test_function = None


def state_variable(shape: Any, dtype: str, name: str) -> keras.Variable:
    """Make a variable that the compiled step reads and Python writes, at first all zeros."""
    return keras.Variable(
        "zeros",
        shape=shape,
        dtype=dtype,
        trainable=False,
        # Changes outside of the replicas, so there is nothing to average.
        aggregation="only_first_replica",
        name=name,
    )
