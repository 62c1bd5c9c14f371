"""`UpdateMasks`, the callback that makes a pruning schedule happen in `fit`."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import keras

from tfprune.errors import InvalidArgumentError
from tfprune.pruner import Pruner
from tfprune.pruning_run import PruningRun
from tfprune.schedules import Keep


class UpdateMasks(keras.callbacks.Callback):
    """Raises the sparsity of a pruned model as its schedule says, and adds it to the logs.

    Its place in the list of callbacks does not matter. The step counter is part of the model, so a
    run that is resumed goes on where it was.

    Args:
        pruner: drives these masks; by default those in the model that `fit` trains.

    Raises:
        NotPrunedError: at train begin, if the model holds no masks.
        InvalidArgumentError: at the first epoch, if another callback would hand back a model from
            before the final sparsity.

    Example:
        >>> import numpy as np
        >>> import tfprune
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
        >>> pruned = tfprune.prune(model, schedule=0.5)
        >>> pruned.compile("adam", "mse")
        >>> x, y = np.ones((16, 8)), np.ones((16, 4))
        >>> history = pruned.fit(x, y, callbacks=[UpdateMasks()], verbose=0)
        >>> history.history["sparsity"]
        [0.5]
    """

    def __init__(self, pruner: Pruner | None = None) -> None:
        super().__init__()
        self._given = pruner
        self._pruner: Pruner | None = None
        self._checked = False
        self._first_batch = 0

    @property
    def pruner(self) -> Pruner:
        """The engine that this callback drives."""
        if self._pruner is None:
            self._pruner = self._given or Pruner(self.model)
        return self._pruner

    def set_model(self, model: keras.Model) -> None:
        """Take the model that `fit`, `evaluate` or `predict` is called on."""
        if self._given is None and getattr(self, "_model", None) is not model:
            self._pruner = None
        super().set_model(model)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Refuse a model without masks, or a criterion without its data."""
        self._checked = False
        self.pruner.check_data()
        if self.pruner.watch_gradients():
            self.model.make_train_function(force=True)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Check the plan against the run, once: whatever restores a state has done so by now."""
        if self._checked:
            return
        self._checked = True
        steps, epochs = self.params.get("steps"), self.params.get("epochs")
        self.pruner.resolve(steps, epochs)
        siblings = _callbacks_of(inspect.currentframe())
        for run in self.pruner.runs:
            if steps and epochs:
                _warn_if_too_short(run, steps * (epochs - epoch))
            _refuse_early_models(run, siblings, steps)

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Serve the update that is due for the coming step."""
        count = getattr(self.model, "steps_per_execution", 1)
        if self.params.get("steps"):
            count = min(count, self.params["steps"] - batch)
        self._first_batch = batch
        self.pruner.step(count)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Serve what fell due inside an execution of several steps."""
        steps = self.params.get("steps")
        if getattr(self.model, "steps_per_execution", 1) > 1:
            # Keras names the last step of a full execution even where the data ended before it.
            last = min(batch, steps - 1) if steps else batch
            self.pruner.catch_up(last - self._first_batch + 1)
        # Before any callback's on_epoch_end can save or swap the averages.
        if not steps or batch + 1 >= steps:
            self._mask_averages()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Put the sparsity into the logs, where the progress bar and History find it."""
        self._mask_averages()
        if logs is not None:
            logs["sparsity"] = self.pruner.sparsity

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Mask averaged weights before they are evaluated."""
        self._mask_averages()

    def on_predict_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Mask averaged weights before they are used."""
        self._mask_averages()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Mask the final weights, and tell if the schedule is not at its end."""
        self.pruner.finish()

    def _mask_averages(self) -> None:
        # Keras averages before it applies constraints; without averages the zeros are exact.
        if self.pruner.keeps_averages:
            self.pruner.apply_masks()


def _warn_if_too_short(run: PruningRun, remaining: int) -> None:
    """Tell at train begin that the schedule does not fit into the run."""
    if isinstance(run.schedule, Keep) or run.held:
        return
    last, end = run.step + remaining, run.schedule.end_step
    if run.step < run.schedule.begin_step and run.due(run.step, last) is None:
        warnings.warn(
            f"The pruning schedule will not fire in this run: it begins at step "
            f"{run.schedule.begin_step}, and the run ends at step {last}. Nothing will be pruned.",
            stacklevel=2,
        )
    elif end is not None and end > last:
        warnings.warn(
            f"The pruning schedule ends at step {end}, after this run's last step {last}: "
            f"{run.schedule.goal} will not be reached. Train longer, or end the schedule earlier, "
            "for example with `end_step=tfprune.schedules.Fraction(0.75)`.",
            stacklevel=2,
        )


def _refuse_early_models(run: PruningRun, siblings: list[Any], steps: int | None) -> None:
    """Refuse callbacks that would hand back a model from before the final sparsity."""
    end = run.schedule.end_step
    if isinstance(run.schedule, Keep) or run.held or end is None or run.step >= end:
        return
    for callback in siblings:
        name = type(callback).__name__
        if isinstance(callback, keras.callbacks.EarlyStopping):
            starts = callback.start_from_epoch * steps if steps else 0
            unsafe = callback.restore_best_weights and starts < end
            what = f"{name}(restore_best_weights=True)"
        else:
            unsafe = isinstance(callback, keras.callbacks.ModelCheckpoint) and (
                callback.save_best_only
            )
            what = f"{name}(save_best_only=True)"
        if unsafe:
            raise InvalidArgumentError(
                f"{what} would keep the best epoch of all, most likely one from before the final "
                f"sparsity is reached at step {end}. Wrap it, so that it looks at epochs at the "
                f"final sparsity alone: `tfprune.callbacks.AtTargetSparsity({name}(...))`."
            )


def _callbacks_of(frame: Any) -> list[Any]:
    """Return all callbacks of the run, which Keras does not tell a callback about."""
    caller = frame.f_back.f_locals.get("self") if frame is not None and frame.f_back else None
    return list(caller.callbacks) if isinstance(caller, keras.callbacks.CallbackList) else []
