"""Growing regularization: weights are pressed to zero little by little before they are pruned.

    loss + 1/2 * factor * sum of w**2 over the weights that are to go

The factor starts at 0 and grows step by step. The other weights take over what the network loses,
so that pruning at the end changes next to nothing.

Source: Wang et al. (2021), "Neural Pruning via Growing Regularization" (GReg-1).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from typing import Any

import keras

from tfprune.errors import InvalidArgumentError
from tfprune.evidence import Probe, check_data
from tfprune.mask_computation import compute_masks, ready_plan
from tfprune.pruned_weight import PrunedWeight
from tfprune.pruning_plan import PruningPlan
from tfprune.regularization.arguments import check_count, check_number
from tfprune.regularization.step_callback import StepCallback, state_variable
from tfprune.schedules import ConstantSparsity
from tfprune.selection import Selector

# How much of a run the growth takes by default; the rest is for the weights to settle.
_GROWTH = 0.75


class GrowingPenalty(keras.regularizers.Regularizer):
    """The growing L2 penalty on some entries of a weight, beside the weight's own regularizer.

    Args:
        factor: scalar variable.
        doomed: boolean variable of the weight's shape, true where it is to go.
        own: the regularizer that the weight had before, or `None`.
    """

    def __init__(self, factor: keras.Variable, doomed: keras.Variable, own: Any) -> None:
        self.factor = factor
        self.doomed = doomed
        self.own = own

    def __call__(self, x: Any) -> Any:
        """Return both penalties together."""
        wide = keras.ops.cast(x, self.factor.dtype)
        squares = keras.ops.where(self.doomed, keras.ops.square(wide), keras.ops.zeros_like(wide))
        penalty = 0.5 * self.factor * keras.ops.sum(squares)
        if self.own is None:
            return penalty
        return penalty + keras.ops.cast(self.own(x), penalty.dtype)


class GrowingRegularization(StepCallback):
    """Picks the weights that are to be pruned, and presses them to zero while the model trains.

    Pass it to `fit`; then `tfprune.prune_once` with the same sparsity, criterion, pattern and
    allocation cuts what is close to zero already. The weights are picked at the run's begin; the
    compiled model is used as it is.

    Nothing of this is saved with the model. The factor follows from the step, and a resumed run
    picks its weights again from what is restored, where those under pressure are the smallest.

    Args:
        sparsity: fraction of the weights that are to go, in [0, 1).
        criterion: as in `tfprune.prune_once`.
        pattern: as in `tfprune.prune_once`.
        allocation: as in `tfprune.prune_once`.
        ceiling: the factor's largest value. With plain SGD a step takes the share
            `learning rate * factor` off each weight.
        delta: by how much the factor grows at a time; by default so that it is at its ceiling after
            three quarters of the run. The paper has 1e-4, in runs of 100,000 steps and more.
        frequency: steps between two increases.
        data: as in `tfprune.prune_once`.
        include: as in `tfprune.prune_once`.
        exclude: as in `tfprune.prune_once`.

    Raises:
        InvalidArgumentError: for a bad value; at train begin, if selectors match nothing or the
            length of the run is unknown and `delta` is not given.
        InvalidTypeError: for a value of the wrong type.

    Example:
        >>> import numpy as np, tfprune
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
        >>> model.compile("adam", "mse")
        >>> x, y = np.ones((64, 8)), np.ones((64, 4))
        >>> grow = GrowingRegularization(0.75, frequency=1)
        >>> history = model.fit(x, y, epochs=2, callbacks=[grow], verbose=0)
        >>> sparse = tfprune.prune_once(model, 0.75)
    """

    def __init__(
        self,
        sparsity: float,
        criterion: Any = "magnitude",
        pattern: Any = "unstructured",
        allocation: Any = "uniform",
        *,
        ceiling: float = 1.0,
        delta: float | None = None,
        frequency: int = 10,
        data: Any = None,
        include: Selector | Iterable[Selector] | None = None,
        exclude: Selector | Iterable[Selector] | None = None,
    ) -> None:
        self._plan = PruningPlan.create(ConstantSparsity(sparsity), criterion, pattern, allocation)
        if self._plan.criterion.accumulates:
            raise InvalidArgumentError(
                f"The criterion {self._plan.criterion.name()!r} sums over training steps, and the "
                "weights are picked before the first one: choose another, such as 'taylor'."
            )
        check_data(self._plan.criterion.evidence, data)
        check_number("ceiling", ceiling, positive=True)
        if delta is not None:
            check_number("delta", delta, positive=True)
        check_count("frequency", frequency)
        super().__init__(self._plan.pattern, include, exclude)
        self._sparsity, self._data = sparsity, data
        self._ceiling, self._delta, self._frequency = ceiling, delta, frequency
        self._picked = False
        self._weights: list[PrunedWeight] = []

    def factor_at(self, step: int) -> float:
        """Return the penalty's factor after `step` steps of a run."""
        return min(self._growth * (step // self._frequency), self._ceiling)

    def attach(self, weights: list[PrunedWeight]) -> None:
        """Put a penalty of nothing on each weight."""
        self._growth = self._delta or self._default_delta()
        self._plan = ready_plan(self._plan, weights)
        self._weights, self._picked = weights, False
        self._factor, self._written = state_variable((), "float32", "penalty_factor"), 0.0
        for weight in weights:
            variable = weight.variable
            own = variable.regularizer
            if isinstance(own, GrowingPenalty):
                own = own.own  # A run before this one ended in an exception.
            doomed = state_variable(variable.shape, "bool", "penalized")
            variable.regularizer = GrowingPenalty(self._factor, doomed, own)

    def detach(self) -> None:
        """Give the weights their own regularizers back."""
        for weight in self._weights:
            weight.variable.regularizer = weight.variable.regularizer.own

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Pick the weights, once: whatever restores a state has done so by now."""
        super().on_epoch_begin(epoch, logs)
        if self._picked:
            return
        self._picked = True
        self._warn_if_too_short()
        probe = Probe(self.model, self._weights, self._data)
        masks = compute_masks(self._weights, self._plan, self._sparsity, probe=probe)
        for weight, mask in zip(self._weights, masks, strict=True):
            weight.variable.regularizer.doomed.assign(~mask)

    def serve(self, done: int) -> None:
        """Set the factor for the coming step."""
        factor = self.factor_at(done)
        # Writing a variable before every step would cost more than the penalty.
        if factor != self._written:
            self._factor.assign(factor)
            self._written = factor

    def _total_steps(self) -> int | None:
        steps, epochs = self.params.get("steps"), self.params.get("epochs")
        return steps * epochs if steps and epochs else None

    def _default_delta(self) -> float:
        total = self._total_steps()
        if total is None:
            raise InvalidArgumentError(
                "GrowingRegularization needs the number of steps in an epoch, which this data set "
                "does not tell: pass `steps_per_epoch` to `fit`, or `delta`."
            )
        return self._ceiling / max(int(_GROWTH * total / self._frequency), 1)

    def _warn_if_too_short(self) -> None:
        total = self._total_steps()
        needed = math.ceil(self._ceiling / self._growth) * self._frequency
        if total is not None and total <= needed:
            warnings.warn(
                f"The run has {total} steps, and the penalty reaches its ceiling of "
                f"{self._ceiling:g} after {needed}: it ends at {self.factor_at(total - 1):g}. "
                "Train longer, lower `frequency`, or leave `delta` out, which fits the growth to "
                "the run.",
                stacklevel=2,
            )
