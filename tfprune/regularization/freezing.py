"""Freezing by gradient: weights that the loss hardly depends on stay as they are.

The pruning half of the rule is `tfprune.prune(model, tfprune.schedules.Threshold(...),
criterion="gradient_magnitude")`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras
import numpy as np

from tfprune.errors import InvalidArgumentError
from tfprune.evidence import Probe, check_data, gather
from tfprune.pruned_weight import PrunedWeight
from tfprune.regularization.arguments import check_count, check_number
from tfprune.regularization.attachment import own_constraint, set_own_constraint
from tfprune.regularization.step_callback import StepCallback, state_variable
from tfprune.selection import Selector


class FrozenValues(keras.constraints.Constraint):
    """Keep frozen entries of a weight at their values, and its own constraint for the others.

    constraint(w) = where(frozen, values, own(where(frozen, values, w)))

    Args:
        weight: the variable; the values are those that it has when entries are frozen.
        own: the constraint that the weight had before, or `None`.
    """

    def __init__(self, weight: keras.Variable, own: Any) -> None:
        self.frozen = state_variable(weight.shape, "bool", "frozen")
        self.values = state_variable(weight.shape, weight.dtype, "frozen_values")
        self.own = own

    def __call__(self, w: Any) -> Any:
        """Return the constrained weight."""
        held = keras.ops.where(self.frozen, self.values, w)
        if self.own is None:
            return held
        return keras.ops.where(self.frozen, self.values, self.own(held))


class FreezeWeights(StepCallback):
    """Freezes single weights whose gradient stays small, bit for bit, while the others train.

    A weight's gradient is the gradient of the loss over the data, with regularizers and without
    dropout. Frozen weights stay frozen to the end of the `fit`; only one that is pruned meanwhile
    is let go. The share of frozen weights is in the logs as `frozen`.

    Nothing of this is saved with the model: a resumed run looks again. It takes as much memory as
    the weights again, for the values.

    Args:
        threshold: weights with a smaller |gradient| are frozen.
        scope: `"global"`: one threshold over all layers, for |gradient| as it is; `"layer"`: one
            per weight tensor, as a multiple of its mean |gradient|, so that 0.1 freezes what has
            less than a tenth of the mean.
        data: where the gradient is looked at: arrays `(x, y)`, a `tf.data.Dataset` or a
            `keras.utils.PyDataset` of batches; at most 32 batches are read each time.
        frequency: steps between two looks.
        patience: how many looks in a row have to find the gradient small.
        include: freeze only weights in these, as in `tfprune.prune`.
        exclude: freeze none in these.

    Raises:
        InvalidArgumentError: for a bad value; at train begin, if selectors match nothing.
        InvalidTypeError: for a value of the wrong type.

    Example:
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
        >>> model.compile("adam", "mse")
        >>> x, y = np.eye(8)[:4], np.ones((4, 4))  # inputs 5 to 8 are never used
        >>> freeze = FreezeWeights(1e-9, data=(x, y), frequency=1)
        >>> model.fit(x, y, epochs=4, callbacks=[freeze], verbose=0).history["frozen"]
        [0.0, 0.0, 0.5, 0.5]
    """

    def __init__(
        self,
        threshold: float,
        scope: str = "global",
        *,
        data: Any,
        frequency: int = 100,
        patience: int = 2,
        include: Selector | Iterable[Selector] | None = None,
        exclude: Selector | Iterable[Selector] | None = None,
    ) -> None:
        check_number("threshold", threshold)
        if scope not in ("global", "layer"):
            raise InvalidArgumentError(f"`scope` is 'global' or 'layer'. Received: {scope!r}")
        check_data(["gradient"], data)
        check_count("frequency", frequency)
        check_count("patience", patience)
        super().__init__(None, include, exclude)
        self._threshold, self._scope, self._data = threshold, scope, data
        self._frequency, self._patience = frequency, patience
        self._weights: list[PrunedWeight] = []
        self._constraints: list[FrozenValues] = []
        self._small: list[np.ndarray] = []
        self._looks = 0

    @property
    def frozen(self) -> float:
        """The fraction of the weights looked at that is frozen."""
        frozen = sum(int(np.count_nonzero(c.frozen.numpy())) for c in self._constraints)
        return frozen / sum(weight.size for weight in self._weights)

    def attach(self, weights: list[PrunedWeight]) -> None:
        """Put a constraint on each weight that freezes nothing yet."""
        self._weights, self._looks = weights, 0
        self._constraints = []
        for weight in weights:
            own = own_constraint(weight.variable)
            if isinstance(own, FrozenValues):
                own = own.own  # A run before this one ended in an exception.
            constraint = FrozenValues(weight.variable, own)
            set_own_constraint(weight.variable, constraint)
            self._constraints.append(constraint)
        # How many looks in a row have found the gradient small.
        self._small = [np.zeros(weight.layout.shape, np.int32) for weight in weights]

    def detach(self) -> None:
        """Give the weights their own constraints back."""
        for weight, constraint in zip(self._weights, self._constraints, strict=True):
            # Averages that the optimizer keeps (`use_ema=True`) have replaced the weights by now.
            weight.variable.assign(weight.variable.constraint(weight.variable))
            set_own_constraint(weight.variable, constraint.own)

    def serve(self, done: int) -> None:
        """Look at the gradients when it is time to, and freeze."""
        if done // self._frequency <= self._looks:
            return
        self._looks = done // self._frequency
        gathered = gather(["gradient"], Probe(self.model, self._weights, self._data))
        for index, weight in enumerate(self._weights):
            self._freeze(index, weight.alive(), np.abs(gathered[index]["gradient"]))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Put the share of frozen weights into the logs."""
        if logs is not None:
            logs["frozen"] = self.frozen

    def _freeze(self, index: int, alive: np.ndarray | None, gradient: np.ndarray) -> None:
        variable, constraint = self._weights[index].variable, self._constraints[index]
        alive = np.ones(gradient.shape, bool) if alive is None else alive
        threshold = self._threshold
        if self._scope == "layer":
            threshold *= gradient[alive].mean()
        small = self._small[index]
        small[...] = np.where(alive & (gradient < threshold), small + 1, 0)
        before = constraint.frozen.numpy() & alive
        new = (small >= self._patience) & ~before
        constraint.values.assign(keras.ops.where(new, variable, constraint.values))
        constraint.frozen.assign(before | new)
