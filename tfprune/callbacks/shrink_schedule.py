"""`ShrinkSchedule`: channels that go little by little while a model trains, then one real cut."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras
import numpy as np

from tfprune.errors import InvalidArgumentError, NotPrunedError
from tfprune.selection import Selector
from tfprune.structured.cut_planner import CutPlanner, Limits, check_target
from tfprune.structured.history import ShrinkHistory, remember
from tfprune.structured.importance import check_criterion
from tfprune.structured.reads_mask import ReadsMask
from tfprune.structured.rebuild import rebuild_narrow
from tfprune.targets import Target


class ShrinkSchedule(keras.callbacks.Callback):
    """Masks whole groups of channels during `fit`; `shrunk()` then returns the smaller model.

    At the start of each epoch the channels are scored anew, and as many more are masked as the
    schedule asks: in equal steps from `begin_epoch` to `end_epoch`. A masked channel stays masked.
    It is held at zero wherever it is read, so the model that is cut at the end computes the same.

    Args:
        target: as in `tfprune.shrink`.
        criterion: as in `tfprune.shrink`.
        begin_epoch: the first epoch, from 0, that starts with masked channels.
        end_epoch: the epoch that starts with all of them; by default the one at three quarters of
            the run, which leaves the rest to recover.
        data: as in `tfprune.shrink`.
        loss: as in `tfprune.shrink`.
        scope: as in `tfprune.shrink`.
        normalize: as in `tfprune.shrink`.
        include: as in `tfprune.shrink`.
        exclude: as in `tfprune.shrink`.
        min_channels: as in `tfprune.shrink`.
        max_ratio: as in `tfprune.shrink`.
        round_to: as in `tfprune.shrink`; widths are rounded in every epoch.
        layer_norm: as in `tfprune.shrink`.

    Raises:
        InvalidArgumentError: for a bad value; at train begin, if the target is out of reach or the
            run ends before `end_epoch`.
        InvalidTypeError: for a value of the wrong type.

    Example:
        >>> import tfprune
        >>> layers = [keras.layers.Dense(16, "relu"), keras.layers.Dense(2)]
        >>> model = keras.Sequential([keras.Input((4,)), *layers])
        >>> model.compile("adam", "mse")
        >>> shrink = ShrinkSchedule(0.5)
        >>> x, y = np.ones((32, 4)), np.ones((32, 2))
        >>> history = model.fit(x, y, epochs=4, callbacks=[shrink], verbose=0)
        >>> history.history["channels"], shrink.shrunk().layers[0].units
        ([13.0, 11.0, 8.0, 8.0], 8)
    """

    def __init__(
        self,
        target: float | Target,
        criterion: Any = "magnitude",
        *,
        begin_epoch: int = 0,
        end_epoch: int | None = None,
        data: Any = None,
        loss: Any = None,
        scope: str = "local",
        normalize: str | None = "mean",
        include: Selector | Iterable[Selector] | None = None,
        exclude: Selector | Iterable[Selector] | None = None,
        min_channels: int = 1,
        max_ratio: float = 1.0,
        round_to: int = 1,
        layer_norm: str = "freeze",
    ) -> None:
        super().__init__()
        if begin_epoch < 0 or (end_epoch is not None and end_epoch < begin_epoch):
            raise InvalidArgumentError(
                "`begin_epoch` must not be negative, and `end_epoch` not before it. Received: "
                f"begin_epoch={begin_epoch}, end_epoch={end_epoch}"
            )
        check_criterion(criterion, data)
        self._target, self._criterion = check_target(target), criterion
        self._begin, self._given_end = begin_epoch, end_epoch
        self._settings = {
            "data": data,
            "loss": loss,
            "limits": Limits(scope, normalize, min_channels, max_ratio, round_to),
            "include": include,
            "exclude": exclude,
            "layer_norm": layer_norm,
            "verbose": False,
        }
        self._planner: CutPlanner | None = None
        self._mask: ReadsMask | None = None
        self._dead: np.ndarray | None = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Find the channels, and have the training step traced again with their masks."""
        epochs = self.params.get("epochs") or 1
        self._end = self._given_end
        if self._end is None:
            self._end = max(round(0.75 * epochs) - 1, self._begin)
        if self._end >= epochs:
            raise InvalidArgumentError(
                f"The run has {epochs} epochs, and the schedule ends at the start of epoch "
                f"{self._end}, counted from 0: train longer, or pass a smaller `end_epoch`."
            )
        self._planner = CutPlanner(self.model, self._target, self._criterion, **self._settings)
        self._dead = np.zeros(self._planner.graph.size, bool)
        with self.model.distribute_strategy.scope():
            self._mask = ReadsMask(self._planner.graph)
        # `fit` has made its function already.
        self.model.make_train_function(force=True)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Mask the channels that are due."""
        if epoch < self._begin:
            return
        done = min((epoch - self._begin + 1) / (self._end - self._begin + 1), 1.0)
        total, wanted = self._planner.meter.total, self._planner.wanted
        choice = self._planner.choose(gone=self._dead)
        dead = choice.cut(total - done * (total - wanted), self._planner.allowed)
        # The nearest number of channels may be one less, whose readers are lost by now.
        self._dead |= dead
        self._mask.set(self._dead)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Put what is left into the logs, under the name of what is counted."""
        if logs is not None:
            meter = self._planner.meter
            logs[meter.unit] = float(meter.estimate(self._dead))

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Take the masks off; the zeros stay."""
        # Averages of the optimizer have been written back without regard to constraints.
        self._mask.apply()
        self._mask.release()
        self.model.train_function = None

    def shrunk(self) -> keras.Model:
        """Return the smaller model: a new, uncompiled one, without the masked channels.

        Raises:
            NotPrunedError: before `fit`.
        """
        if self._dead is None:
            raise NotPrunedError("Nothing is masked yet: pass this callback to `fit` first.")
        graph = self._planner.graph
        small = rebuild_narrow(graph, self._dead)
        self._planner.report(self._planner.meter.measure(small, self._dead), stacklevel=3)
        remember(small, ShrinkHistory.of(graph, self._dead), graph.model)
        return small
