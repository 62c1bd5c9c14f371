"""A Keras callback that drives one bar of a rich progress display, in place of Keras's own."""

from __future__ import annotations

import keras
from rich.progress import Progress, TaskID


class FitProgress(keras.callbacks.Callback):
    """Advance a bar with every batch of `fit`, and show the accuracy reached so far.

    Args:
        progress: the display, already started.
        description: what the bar is called, e.g. `"Prune to 90 %"`.
    """

    def __init__(self, progress: Progress, description: str):
        super().__init__()
        self._progress = progress
        self._description = description
        self._task: TaskID | None = None

    def on_train_begin(self, logs=None):
        """Open the bar with as many steps as the run has."""
        total = self.params["epochs"] * self.params["steps"]
        self._task = self._progress.add_task(self._description, total=total)

    def on_train_batch_end(self, batch, logs=None):
        """Move the bar by one step."""
        self._progress.advance(self._task)

    def on_epoch_end(self, epoch, logs=None):
        """Show the accuracy on the held-out images."""
        self._progress.update(
            self._task,
            description=f"{self._description}, accuracy {logs['val_accuracy']:.1%}",
        )
