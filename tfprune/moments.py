"""Points in training time: plain steps, or moments that become steps once the run is known."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any

from tfprune.configurable import Configurable
from tfprune.errors import InvalidArgumentError, InvalidTypeError


class Moment(Configurable):
    """A point in training that becomes a step once the length of the run is known."""

    @abc.abstractmethod
    def to_step(self, steps_per_epoch: int, total_steps: int) -> int:
        """Return the step, given the batches per epoch and in the whole run."""


@dataclass(frozen=True)
class Epochs(Moment):
    """The end of so many epochs: `Epochs(2)` is two epochs in.

    Args:
        epochs: number of epochs, at least 0; fractions are allowed.
    """

    epochs: float

    def __post_init__(self) -> None:
        if not self.epochs >= 0:
            raise InvalidArgumentError(f"`epochs` must be at least 0. Received: {self.epochs!r}")

    def to_step(self, steps_per_epoch: int, total_steps: int) -> int:
        """Return `epochs` in steps, rounded to the nearest."""
        return round(self.epochs * steps_per_epoch)


@dataclass(frozen=True)
class Fraction(Moment):
    """A share of the whole run: `Fraction(0.5)` is half-way through `fit`.

    Args:
        fraction: share in [0, 1].
    """

    fraction: float

    def __post_init__(self) -> None:
        if not 0 <= self.fraction <= 1:
            raise InvalidArgumentError(
                f"`fraction` must be in [0, 1]: pass 0.5 for half of the run. "
                f"Received: {self.fraction!r}"
            )

    def to_step(self, steps_per_epoch: int, total_steps: int) -> int:
        """Return the share of `total_steps`, rounded to the nearest step."""
        return round(self.fraction * total_steps)


Step = int | Moment


def check_step(name: str, value: Any, optional: bool = False) -> None:
    """Refuse anything but a step, a moment, or `None` where that is `optional`.

    Raises:
        InvalidTypeError: if `value` is of another type.
        InvalidArgumentError: if it is negative.
    """
    if isinstance(value, Moment) or (optional and value is None):
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidTypeError(
            f"`{name}` must be a step (an int), `Epochs(...)` or `Fraction(...)`. "
            f"Received: {value!r}"
        )
    if value < 0:
        raise InvalidArgumentError(f"`{name}` must be at least 0. Received: {value!r}")


def resolve_step(moment: Step | None, steps_per_epoch: int, total_steps: int) -> int | None:
    """Turn a moment into a step; steps and `None` pass through."""
    if isinstance(moment, Moment):
        return moment.to_step(steps_per_epoch, total_steps)
    return moment
