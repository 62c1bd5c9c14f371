"""The interface of every schedule."""

from __future__ import annotations

import abc
import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from tfprune.configurable import Configurable
from tfprune.errors import InvalidArgumentError, InvalidTypeError
from tfprune.moments import Moment, Step, check_step, resolve_step


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
    def goal(self) -> str:
        """What the schedule ends at, in words."""
        return f"the final sparsity of {self.target_sparsity:.1%}"

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
            >>> from tfprune.schedules import LinearDecay
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

    def progress_at(self, step: int) -> float:
        """Return how far a schedule with an end is at `step`, in [0, 1]."""
        begin, end = self._begin, self._end
        if begin == end:
            return float(step >= end)
        return min(max((step - begin) / (end - begin), 0.0), 1.0)
