"""Schedules without a ramp: one sparsity, several in turn, a threshold, or what is there."""

from __future__ import annotations

import dataclasses
import itertools
import math
from dataclasses import dataclass
from typing import Any

from tfprune.errors import InvalidArgumentError, InvalidTypeError
from tfprune.moments import Moment, Step, check_step, resolve_step
from tfprune.schedules.base import Schedule, check_sparsity

RELATIVE_TO = (None, "mean", "max", "std")


@dataclass(frozen=True)
class ConstantSparsity(Schedule):
    """The full sparsity from the first update on.

    Args:
        sparsity: fraction of zeros, in [0, 1).
        begin_step: step of the first update.
        end_step: step of the last update; `None` (default) keeps updating.
        frequency: steps between updates.

    Example:
        >>> ConstantSparsity(0.5, begin_step=10).sparsity_at(10)
        0.5
    """

    sparsity: float

    def __post_init__(self) -> None:
        check_sparsity("sparsity", self.sparsity)
        super().__post_init__()

    def sparsity_at(self, step: int) -> float:
        """Return 0 before `begin_step`, `sparsity` from there on."""
        return float(self.sparsity) if step >= self._begin else 0.0


@dataclass(frozen=True)
class Staircase(Schedule):
    """Jumps to given sparsities at given times, with recovery in between (progressive pruning).

    Args:
        stages: sequence of `(when, sparsity)`; `when` is a step, `Epochs` or `Fraction`, in
            increasing order.

    Example:
        >>> steps = Staircase([(100, 0.5), (300, 0.8)])
        >>> [steps.sparsity_at(step) for step in (99, 100, 299, 300)]
        [0.0, 0.5, 0.5, 0.8]
    """

    stages: tuple[tuple[Step, float], ...]
    begin_step: Step = dataclasses.field(init=False, default=0)
    end_step: Step | None = dataclasses.field(init=False, default=None)
    frequency: int = dataclasses.field(init=False, default=1)

    def __post_init__(self) -> None:
        try:
            stages = tuple((when, sparsity) for when, sparsity in self.stages)
        except (TypeError, ValueError):
            raise InvalidTypeError(
                "`stages` must be a sequence of (when, sparsity) pairs, such as "
                f"[(100, 0.5), (300, 0.8)]. Received: {self.stages!r}"
            ) from None
        if not stages:
            raise InvalidArgumentError("`stages` must hold at least one (when, sparsity) pair.")
        for when, sparsity in stages:
            check_step("when", when)
            check_sparsity("sparsity", sparsity)
        # A frozen dataclass is filled in through object.__setattr__.
        object.__setattr__(self, "stages", stages)
        object.__setattr__(self, "begin_step", stages[0][0])
        object.__setattr__(self, "end_step", stages[-1][0])
        super().__post_init__()

    def _check_order(self) -> None:
        steps = [when for when, _ in self.stages if isinstance(when, int)]
        if self.is_resolved and any(a >= b for a, b in itertools.pairwise(steps)):
            raise InvalidArgumentError(
                f"The stages must come in increasing order of time. Received: {self.stages}"
            )

    @property
    def is_resolved(self) -> bool:
        """Whether the times of all stages are plain steps already."""
        return not any(isinstance(when, Moment) for when, _ in self.stages)

    def resolve(self, steps_per_epoch: int, total_steps: int) -> Schedule:
        """Return the same stages at plain steps."""
        return Staircase(
            [(resolve_step(when, steps_per_epoch, total_steps), s) for when, s in self.stages]
        )

    def sparsity_at(self, step: int) -> float:
        """Return the sparsity of the latest stage that has begun, 0 before the first."""
        reached = [sparsity for when, sparsity in self.stages if self._resolved(when) <= step]
        return float(reached[-1]) if reached else 0.0

    def due_step(self, after: int, until: int) -> int | None:
        """Return the latest stage's step `t` with `after < t <= until`, or `None`."""
        due = [when for when, _ in self.stages if after < self._resolved(when) <= until]
        return due[-1] if due else None


@dataclass(frozen=True)
class Threshold(Schedule):
    """Prune whatever scores below a threshold; the sparsity is what comes of it.

    A pattern of groups compares the groups' mean scores: mean |w| for `"magnitude"`, mean w**2 for
    `"l2"`, so that a filter of n weights goes if its L2 norm is below sqrt(n * threshold).

    Args:
        threshold: weights with a lower score go, at least one stays in every layer.
        relative_to: `None` for the scores as they are; `"mean"`, `"max"` or `"std"` multiplies the
            threshold by that statistic of the layer's scores, or of all scores under an allocation
            with one threshold over all layers (`"global"`).
        begin_step: step of the first update.
        end_step: step of the last update; `None` (default) keeps updating.
        frequency: steps between updates.

    Example:
        >>> import keras, numpy as np, tfprune
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
        >>> _ = model.layers[0].kernel.assign([[0.5, 0.05], [0.2, -0.3]])
        >>> sparse = tfprune.prune_once(model, Threshold(0.1))
        >>> np.array(sparse.layers[0].kernel).tolist()[0]
        [0.5, 0.0]
    """

    threshold: float
    relative_to: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.threshold, (bool, str)) or not hasattr(self.threshold, "__float__"):
            raise InvalidTypeError(f"`threshold` must be a number. Received: {self.threshold!r}")
        if not (self.threshold >= 0 and math.isfinite(self.threshold)):
            raise InvalidArgumentError(
                f"`threshold` must be finite and at least 0. Received: {self.threshold!r}"
            )
        if self.relative_to not in RELATIVE_TO:
            raise InvalidArgumentError(
                f"`relative_to` must be one of {RELATIVE_TO}. Received: {self.relative_to!r}"
            )
        super().__post_init__()

    @property
    def goal(self) -> str:
        """What the schedule ends at, in words."""
        return f"everything below {self.threshold:g}"

    def sparsity_at(self, step: int) -> float:
        """Return NaN: the sparsity follows from the scores."""
        return math.nan


@dataclass(frozen=True)
class Keep(Schedule):
    """No updates: the zeros that are there when pruning begins stay zeros.

    For fine-tuning, distilling or quantizing a model that is sparse already; its name is "keep".
    """

    begin_step: Step = dataclasses.field(init=False, default=0)
    end_step: Step | None = dataclasses.field(init=False, default=None)
    frequency: int = dataclasses.field(init=False, default=1)

    def sparsity_at(self, step: int) -> float:
        """Return NaN: the sparsity is whatever the weights have, not a number of the schedule."""
        return math.nan

    def due_step(self, after: int, until: int) -> int | None:
        """Return `None`: no update is ever due."""
        return None


def as_schedule(value: Any) -> Schedule:
    """Turn what a user passes as `schedule` into a `Schedule`.

    Args:
        value: a schedule; a sparsity in [0, 1), which means `ConstantSparsity`; or `"keep"`.

    Example:
        >>> as_schedule(0.5)
        ConstantSparsity(begin_step=0, end_step=None, frequency=100, sparsity=0.5)
    """
    if isinstance(value, (Schedule, dict)) or value == "keep":
        return Schedule.get(value)
    if isinstance(value, str):
        raise InvalidArgumentError(
            f"The only schedule with a bare name is 'keep'; the others need a sparsity, such as "
            f"`tfprune.schedules.PolynomialDecay(0.0, 0.8)`. Received: {value!r}"
        )
    check_sparsity("schedule", value)
    return ConstantSparsity(float(value))
