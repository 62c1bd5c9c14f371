"""Sparsity schedules: when the masks are updated, and to which sparsity.

A schedule is a pure function of the step, with no state and no TensorFlow. Steps count the batches
given to the model, from 1. The masks are updated at `begin_step`, then every `frequency` steps, and
always at `end_step`, where the final sparsity is reached whatever the frequency.

    s(t) = final + (initial - final) * (1 - p)**power,  p = (t - begin) / (end - begin)

is the cubic ramp of Zhu & Gupta (2017), "To prune, or not to prune", with power = 3.
"""

from __future__ import annotations

import abc
import dataclasses
import itertools
import math
from dataclasses import dataclass
from typing import Any

from tfprune.configurable import Configurable
from tfprune.errors import InvalidArgumentError, InvalidTypeError
from tfprune.moments import Epochs, Fraction, Moment, Step, check_step, resolve_step

__all__ = [
    "ConstantSparsity",
    "CosineDecay",
    "Epochs",
    "ExponentialDecay",
    "Fraction",
    "Keep",
    "LinearDecay",
    "OneCycle",
    "PolynomialDecay",
    "Ramp",
    "Schedule",
    "Staircase",
    "as_schedule",
]


def check_sparsity(name: str, value: Any) -> None:
    """Refuse anything but a fraction in [0, 1).

    Raises:
        InvalidTypeError: if `value` is not a number.
        InvalidArgumentError: if it is outside of [0, 1).

    Example:
        >>> check_sparsity("sparsity", 0.8)
        >>> check_sparsity("sparsity", 80)
        Traceback (most recent call last):
            ...
        tfprune.errors.InvalidArgumentError: `sparsity` must be a fraction in [0, 1): pass 0.8 for \
80 % zeros. Received: 80
    """
    if isinstance(value, (bool, str)) or not hasattr(value, "__float__"):
        raise InvalidTypeError(f"`{name}` must be a number in [0, 1). Received: {value!r}")
    if not 0 <= value < 1:
        raise InvalidArgumentError(
            f"`{name}` must be a fraction in [0, 1): pass 0.8 for 80 % zeros. Received: {value!r}"
        )


@dataclass(frozen=True, kw_only=True)
class Schedule(Configurable):
    """Base class: subclass it, and define `sparsity_at`.

    Args:
        begin_step: first step at which masks are updated: an int, `Epochs` or `Fraction`.
        end_step: last such step, or `None` for no end.
        frequency: steps between two updates.

    Raises:
        InvalidArgumentError: for a frequency below 1, a negative step, or begin after end.
    """

    begin_step: Step = 0
    end_step: Step | None = None
    frequency: int = 100

    def __post_init__(self) -> None:
        if isinstance(self.frequency, bool) or self.frequency != int(self.frequency):
            raise InvalidTypeError(f"`frequency` must be an int. Received: {self.frequency!r}")
        if self.frequency < 1:
            raise InvalidArgumentError(
                f"`frequency` must be at least 1 step. Received: {self.frequency!r}"
            )
        for name in ("begin_step", "end_step"):
            check_step(name, getattr(self, name), optional=name == "end_step")
        self._check_order()

    @abc.abstractmethod
    def sparsity_at(self, step: int) -> float:
        """Return the sparsity in [0, 1) that the masks have after an update at `step`."""

    @property
    def target_sparsity(self) -> float:
        """The sparsity that the schedule ends at."""
        unit = self.resolve(steps_per_epoch=10**6, total_steps=10**9)
        return unit.sparsity_at(unit._begin if unit.end_step is None else unit._end)

    @property
    def is_resolved(self) -> bool:
        """Whether all moments are plain steps already."""
        return not any(isinstance(m, Moment) for m in (self.begin_step, self.end_step))

    def resolve(self, steps_per_epoch: int, total_steps: int) -> Schedule:
        """Return the same schedule with `Epochs` and `Fraction` turned into steps.

        Args:
            steps_per_epoch: batches in one epoch.
            total_steps: batches in the whole run.

        Raises:
            InvalidArgumentError: if the resolved begin is after the resolved end.
        """
        if self.is_resolved:
            return self
        return dataclasses.replace(
            self,
            begin_step=resolve_step(self.begin_step, steps_per_epoch, total_steps),
            end_step=resolve_step(self.end_step, steps_per_epoch, total_steps),
        )

    def due_step(self, after: int, until: int) -> int | None:
        """Return the latest update step `t` with `after < t <= until`, or `None`.

        Args:
            after: last step whose updates have been served; -1 if none has.
            until: step that is about to run.

        Example:
            >>> ramp = LinearDecay(0.0, 0.8, begin_step=0, end_step=250, frequency=100)
            >>> [ramp.due_step(step - 1, step) for step in (100, 101, 250, 300)]
            [100, None, 250, None]
        """
        begin, end = self._begin, math.inf if self.end_step is None else self._end
        if until < begin:
            return None
        due = end if until >= end else begin + (until - begin) // self.frequency * self.frequency
        return int(due) if due > after else None

    @property
    def _begin(self) -> int:
        return self._resolved(self.begin_step)

    @property
    def _end(self) -> int:
        return self._resolved(self.end_step)

    def _resolved(self, moment: Step | None) -> int:
        if not isinstance(moment, int):
            raise InvalidArgumentError(
                f"{self} needs the length of the run: call `resolve(steps_per_epoch, total_steps)`"
                " first (`fit` with the UpdateMasks callback does it by itself)."
            )
        return moment

    def _check_order(self) -> None:
        if self.is_resolved and self.end_step is not None and self._begin > self._end:
            raise InvalidArgumentError(
                "`begin_step` must not be after `end_step`. "
                f"Received: begin_step={self.begin_step}, end_step={self.end_step}"
            )

    def _progress(self, step: int) -> float:
        begin, end = self._begin, self._end
        if begin == end:
            return float(step >= end)
        return min(max((step - begin) / (end - begin), 0.0), 1.0)


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
class Ramp(Schedule):
    """Base of the schedules that go from one sparsity to another between two steps.

    By default the ramp takes the first three quarters of the run and leaves the last to recover.

    Args:
        initial_sparsity: sparsity at `begin_step`, in [0, 1).
        final_sparsity: sparsity at `end_step`, in [0, 1).
        begin_step: step of the first update.
        end_step: step of the last update.
        frequency: steps between updates.
    """

    initial_sparsity: float
    final_sparsity: float
    end_step: Step | None = dataclasses.field(default=Fraction(0.75), kw_only=True)

    def __post_init__(self) -> None:
        check_sparsity("initial_sparsity", self.initial_sparsity)
        check_sparsity("final_sparsity", self.final_sparsity)
        if self.end_step is None:
            raise InvalidArgumentError(
                f"{type(self).__name__} needs an `end_step`: a step, `Epochs` or `Fraction`."
            )
        super().__post_init__()

    def sparsity_at(self, step: int) -> float:
        """Return the sparsity at `step`, clipped to the two ends of the ramp."""
        progress = self._progress(step)
        if progress in (0.0, 1.0):
            return float(self.final_sparsity if progress else self.initial_sparsity)
        return self._between(progress)

    @abc.abstractmethod
    def _between(self, progress: float) -> float:
        """Return the sparsity at a progress strictly between 0 and 1."""


@dataclass(frozen=True)
class PolynomialDecay(Ramp):
    """Polynomial ramp, fast first and slow at the end (Zhu & Gupta, 2017).

    Args:
        initial_sparsity: sparsity at `begin_step`.
        final_sparsity: sparsity at `end_step`.
        power: exponent of the ramp; 3 is the published one.
        begin_step: step of the first update.
        end_step: step of the last update.
        frequency: steps between updates.

    Example:
        >>> ramp = PolynomialDecay(0.2, 0.8, begin_step=100, end_step=110)
        >>> [round(ramp.sparsity_at(step), 4) for step in (100, 101, 102, 105, 109, 110)]
        [0.2, 0.3626, 0.4928, 0.725, 0.7994, 0.8]
    """

    power: float = dataclasses.field(default=3.0, kw_only=True)

    def __post_init__(self) -> None:
        if not self.power > 0:
            raise InvalidArgumentError(f"`power` must be above 0. Received: {self.power!r}")
        super().__post_init__()

    def _between(self, progress: float) -> float:
        span = self.initial_sparsity - self.final_sparsity
        return float(span * (1 - progress) ** self.power + self.final_sparsity)


@dataclass(frozen=True)
class LinearDecay(Ramp):
    """Straight line from the initial to the final sparsity.

    Example:
        >>> LinearDecay(0.0, 0.8, begin_step=0, end_step=100).sparsity_at(50)
        0.4
    """

    def _between(self, progress: float) -> float:
        return self.initial_sparsity + (self.final_sparsity - self.initial_sparsity) * progress


@dataclass(frozen=True)
class CosineDecay(Ramp):
    """Half a cosine: slow at both ends, fastest in the middle.

    Example:
        >>> round(CosineDecay(0.0, 0.8, begin_step=0, end_step=100).sparsity_at(50), 6)
        0.4
    """

    def _between(self, progress: float) -> float:
        remaining = (1 + math.cos(math.pi * progress)) / 2
        return self.final_sparsity + (self.initial_sparsity - self.final_sparsity) * remaining


@dataclass(frozen=True)
class ExponentialDecay(Ramp):
    """The density 1 - s shrinks by the same factor in every step.

    Example:
        >>> ramp = ExponentialDecay(0.0, 0.75, begin_step=0, end_step=100)
        >>> ramp.sparsity_at(50)  # density 1 -> 0.5 -> 0.25
        0.5
    """

    def _between(self, progress: float) -> float:
        first, last = 1 - self.initial_sparsity, 1 - self.final_sparsity
        return float(1 - first * (last / first) ** progress)


@dataclass(frozen=True)
class OneCycle(Ramp):
    """Logistic ramp of one-cycle pruning (Hubens et al., 2021), for pruning from scratch.

        s(p) = initial + (final - initial) * (1 + exp(b - a)) / (1 + exp(b - a p)),  a = 14, b = 5

    Example:
        >>> ramp = OneCycle(0.0, 0.9, begin_step=0, end_step=100)
        >>> [round(ramp.sparsity_at(step), 3) for step in (0, 20, 50, 100)]
        [0.0, 0.09, 0.793, 0.9]
    """

    steepness: float = dataclasses.field(default=14.0, kw_only=True)
    offset: float = dataclasses.field(default=5.0, kw_only=True)

    def _between(self, progress: float) -> float:
        rise = 1 + math.exp(self.offset - self.steepness)
        rise /= 1 + math.exp(self.offset - self.steepness * progress)
        return self.initial_sparsity + (self.final_sparsity - self.initial_sparsity) * rise


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
